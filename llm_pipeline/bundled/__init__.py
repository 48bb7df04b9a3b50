"""The embedded model and text: the main job runs offline on any fresh machine.

`MODEL` is an ordinary Hugging Face directory, a LLaMA of under a million parameters with its tokenizer; `text`
reads the English that every CPython carries, in two disjoint parts, to calibrate on and to evaluate on; `train` is
the recipe that made the first from the second. Importing this package imports neither torch nor the text.
"""

from pathlib import Path

MODEL: Path = Path(__file__).parent / "model"
