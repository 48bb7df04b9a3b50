"""The output directory: complete or absent.

The source is copied to `<out>.partial`, tensors are overwritten where they lie in the copied files, and the
folder gets its name in one step at the end. What was not pruned stays bit for bit, and memory holds one tensor.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch

from llm_pipeline.checkpoint import INDEX, Checkpoint, Entry
from solvers.refusal import Refusal

OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf", ".onnx", ".index.json")
OF_A_RUN = ("README.md", "plan.toml", "layers.jsonl", "certificates.jsonl", "summary.json", "report.html")


class OutputFolder:
    """A copy of a model directory that appears under its name only when the `with` block ends well.

    Parameters
    ----------
    source : Checkpoint
        The model to copy: its weight files and the other files of its directory, without those of an earlier
        run, weights in other formats, hidden files and sub-directories.
    out : Path
        Must not exist yet.

    Examples
    --------
    >>> with OutputFolder(source, Path("pruned")) as folder:  # doctest: +SKIP
    ...     folder.put("model.layers.0.mlp.down_proj.weight", weight)
    """

    def __init__(self, source: Checkpoint, out: Path) -> None:
        self.source = source
        self.out = Path(out).absolute()
        self.partial = self.out.with_name(self.out.name + ".partial")
        self._new_parents = [parent for parent in self.out.parents if not parent.exists()]

    def __enter__(self) -> OutputFolder:
        if self.out.exists():
            raise Refusal(f"the output folder must be new; {self.out} already holds a run. Choose another --out.")
        shutil.rmtree(self.partial, ignore_errors=True)
        self._require_space()
        self._life = self._all_or_nothing()
        return self._life.__enter__()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._life.__exit__(kind, error, trace)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[OutputFolder]:
        try:
            self._copy()
            yield self
            self._publish()
        except BaseException as error:
            self._remove()
            self._explain(error)
            raise

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Overwrite one tensor of the copy; shape and dtype must be those of the source."""
        name = self.source.resolve(name)
        entry = self.source.entries[name]
        _require_same(name, entry, tensor)
        with (self.partial / entry.file).open("r+b") as file:
            file.seek(entry.start)
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())

    def write_text(self, filename: str, text: str) -> None:
        """Write a side file, replacing one of that name."""
        (self.partial / filename).write_text(text, encoding="utf-8")

    def append_line(self, filename: str, text: str) -> None:
        """Add one line to a side file."""
        with (self.partial / filename).open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def _files(self) -> list[Path]:
        return [path for path in sorted(self.source.path.iterdir()) if path.is_file() and self._wanted(path.name)]

    def _wanted(self, name: str) -> bool:
        if name in self.source.files:
            return True
        is_index = name == INDEX and len(self.source.files) > 1
        return is_index or not (name.startswith(".") or name in OF_A_RUN or name.endswith(OTHER_WEIGHTS))

    def _require_space(self) -> None:
        needed = sum(path.stat().st_size for path in self._files())
        existing = next(parent for parent in self.out.parents if parent.exists())
        available = shutil.disk_usage(existing).free
        if available < needed:
            raise Refusal(
                f"the output needs {needed} bytes and {existing} has {available} available. "
                "Free some space, or choose an --out on another disk."
            )

    def _copy(self) -> None:
        self.partial.mkdir(parents=True)
        for path in self._files():
            shutil.copyfile(path, self.partial / path.name)  # follows the links of a hub cache, drops read-only modes

    def _publish(self) -> None:
        for path in [*self.partial.iterdir(), self.partial]:
            _flush(path)
        os.replace(self.partial, self.out)
        _flush(self.out.parent)

    def _remove(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)
        for parent in self._new_parents:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()

    def _explain(self, error: BaseException) -> None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise Refusal(
                f"the disk of {self.out.parent} filled up while writing; nothing was kept. "
                "Free some space, or choose an --out on another disk."
            ) from error
        if isinstance(error, OSError):
            raise Refusal(
                f"{self.out} could not be written ({error}); nothing was kept. Choose another --out."
            ) from error


def _require_same(name: str, entry: Entry, tensor: torch.Tensor) -> None:
    if (tuple(tensor.shape), tensor.dtype) != (entry.shape, entry.dtype):
        raise Refusal(
            f"{name} is stored as {entry.dtype} of shape {entry.shape}; {tensor.dtype} of shape "
            f"{tuple(tensor.shape)} arrived. Writing in place keeps both; cast to the stored dtype first."
        )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
