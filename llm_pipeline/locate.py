"""From what a user types as MODEL to a local directory."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from solvers.refusal import Refusal

NOT_NEEDED = ["*.bin", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*/*"]
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate(path: str | Path) -> Path:
    """A local model directory, or the downloaded copy of a hub model named `org/name`."""
    if Path(path).is_dir():
        return Path(path)
    if Path(path).exists() or not HUB_NAME.fullmatch(str(path)):
        raise Refusal(
            f"MODEL must be a Hugging Face model directory; {path} is not one. Probably a misspelt path; "
            "give a directory with config.json and model.safetensors, or a hub name such as org/name."
        )
    return _download(str(path))


def _download(name: str) -> Path:
    try:
        return Path(snapshot_download(name, ignore_patterns=NOT_NEEDED))
    except Exception as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise Refusal(
            f"MODEL must be a directory or a hub model; there is no directory {name}, and the hub gave no model "
            f"of that name ({type(error).__name__}: {reason}). Usually no network, a misspelt name, or a licence "
            "not yet accepted. Download it elsewhere and give the directory."
        ) from error
