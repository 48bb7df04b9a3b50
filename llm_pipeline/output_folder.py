"""The output directory: complete under its name, or partial beside it and able to go on.

The source is copied to `<out>.partial`, tensors are overwritten where they lie in the copied files, and the folder gets
its name in one step at the end. What was not pruned stays bit for bit, and memory holds one tensor. A block counts as
finished once its tensors are on the disk and its record is; whatever a kill left of an unfinished block is overwritten.
"""

from __future__ import annotations

import errno
import filecmp
import shlex
import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from llm_pipeline import durable
from llm_pipeline.calibration import Tokens
from llm_pipeline.checkpoint import INDEX, Checkpoint, Entry, digest, file_sha256, header_bytes
from llm_pipeline.unfinished import FOLDER, UnfinishedRun
from solvers.refusal import Refusal

PARTIAL = ".partial"
OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf", ".onnx", ".index.json")
RECORDS = ("README.md", "plan.toml", "layers.jsonl", "certificates.jsonl", "summary.json")
SUMS = "SHA256SUMS"
OF_A_RUN = (*RECORDS, SUMS, "report.html")


class OutputFolder:
    """A copy of a model directory that appears under its name only when the `with` block ends well.

    Where it ends otherwise, finished blocks are kept for `resume`, and so is everything after an interruption; an error
    before the first block was finished leaves nothing.

    Parameters
    ----------
    source : Checkpoint
        The model to copy: its weight files and the other files of its directory, without those of an earlier
        run, weights in other formats, hidden files and sub-directories.
    out : Path
        Must not exist yet.
    run : UnfinishedRun, optional
        The locked run to go on with; by default a new one begins.
    room : int
        Bytes that are needed beside the copy.

    Examples
    --------
    >>> with OutputFolder(source, Path("pruned")) as folder:  # doctest: +SKIP
    ...     folder.begin(facts, None)
    ...     folder.put("model.layers.0.mlp.down_proj.weight", weight)
    ...     folder.finish({"block": 0, "layers": []})
    """

    def __init__(self, source: Checkpoint, out: Path, *, run: UnfinishedRun | None = None, room: int = 0) -> None:
        self.source = source
        self.out = Path(out).absolute()
        self.partial = partial_of(self.out)
        self.run = run or UnfinishedRun(self.partial)
        self._resumed, self._room, self._written = run is not None, room, set[Path]()
        self._new_parents = [parent for parent in self.out.parents if not parent.exists()]

    def __enter__(self) -> OutputFolder:
        self._life = self._all_or_resumable()
        return self._life.__enter__()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._life.__exit__(kind, error, trace)

    @contextmanager
    def _all_or_resumable(self) -> Iterator[OutputFolder]:
        if self.out.exists():
            raise Refusal(f"the output folder must be new; {self.out} exists already. Choose another --out.")
        try:
            if not self._resumed:
                self._start()
            yield self
            self._publish()
        except BaseException as error:
            kept = self._kept(error)
            if self.run.locked and not kept:
                self._remove()
            self._explain(error, kept)
            raise
        finally:
            self.run.release()

    def _start(self) -> None:
        """An empty partial folder that no other process writes to."""
        self._require_space()
        self.run.folder.mkdir(parents=True, exist_ok=True)
        self.run.lock(self.out)
        if self.run.begun:
            self.run.release()
            raise Refusal(
                f"the output folder must be new; {self.out} holds an unfinished run. Choose another --out, or remove "
                f"{self.partial}, or go on with: {resume_command(self.out)}"
            )
        for path in self.partial.iterdir():  # what a kill left of a run that had not begun
            if path != self.run.folder:
                path.unlink()

    def begin(self, facts: dict[str, Any], text: Tokens | None) -> None:
        """Write down what was asked, so that the run can go on from here, and copy the source."""
        self.run.begin(facts, text)
        self.copy()

    def copy(self) -> None:
        """Copy the files of the source that are missing or are not the source's; of weight files the layout counts."""
        for path in files_of(self.source):
            there = self.partial / path.name
            alike = same_layout if path.name in self.source.files else same_bytes
            if not there.is_file() or not alike(path, there):
                durable.copy_file(path, there, self.run.folder)

    def mend(self, pruned: Container[str]) -> None:
        """Overwrite what no run changes where it is not the source's any more: the tensors that are not `pruned`."""
        copy = Checkpoint.open(self.partial)
        for name in self.source.names:
            if name not in pruned and digest(copy.read(name)) != digest(tensor := self.source.read(name)):
                self.put(name, tensor)

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Overwrite one tensor of the copy; shape and dtype must be those of the source."""
        name = self.source.resolve(name)
        entry = self.source.entries[name]
        _require_same(name, entry, tensor)
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        durable.overwrite(self.partial / entry.file, entry.start, memoryview(data))
        self._written.add(self.partial / entry.file)

    def finish(self, record: dict[str, Any]) -> None:
        """Record a block, once its tensors are on the disk."""
        while self._written:
            durable.flush(self._written.pop())
        self.run.finish(record)

    def write_text(self, filename: str, text: str) -> None:
        """Write a side file, replacing one of that name."""
        durable.write_file(self.partial / filename, text.encode(), self.run.folder)

    def write_lines(self, filename: str, lines: Iterable[str]) -> None:
        """Write a side file of lines."""
        self.write_text(filename, "".join(f"{line}\n" for line in lines))

    def write_sums(self) -> None:
        """Digests of all files but the weights, as ``sha256sum -c`` reads them; tensors have theirs in layers.jsonl."""
        paths = [path for path in sorted(self.partial.iterdir()) if path.is_file() and path.name != SUMS]
        named = [path for path in paths if path.name not in self.source.files]
        self.write_lines(SUMS, [f"{file_sha256(path)}  {path.name}" for path in named])

    def _require_space(self) -> None:
        needed = self._room + sum(map(size, files_of(self.source)))
        existing = next(parent for parent in self.out.parents if parent.exists())
        available = shutil.disk_usage(existing).free
        if available < needed:
            raise Refusal(
                f"the output needs {needed} bytes and {existing} has {available} available. "
                "Free some space, or choose an --out on another disk."
            )

    def _publish(self) -> None:
        for path in self.partial.iterdir():
            durable.flush(path)
        durable.name(self.partial, self.out)
        shutil.rmtree(self.out / FOLDER, ignore_errors=True)

    def _remove(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)
        for parent in self._new_parents:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()

    def _kept(self, error: BaseException) -> bool:
        """Whether there is something to go on with."""
        interrupted = isinstance(error, KeyboardInterrupt) and self.run.begun
        return self.run.locked and (self._resumed or interrupted or bool(self.run.blocks()))

    def _explain(self, error: BaseException, kept: bool) -> None:
        """Say what is kept and how it goes on."""
        if isinstance(error, KeyboardInterrupt) and self.out.exists():
            raise KeyboardInterrupt(f"{self.out} is complete") from error
        state = f"{len(self.run.blocks())} of {self.source.config.num_hidden_layers} blocks are kept"
        going = f" Go on with: {resume_command(self.out)}"
        if isinstance(error, KeyboardInterrupt) and kept:
            raise KeyboardInterrupt(f"{state}.{going}") from error
        if isinstance(error, Refusal) and kept:
            raise Refusal(f"{error} {state}.{going}") from error
        lacking = _lacking(error, self.out)
        if lacking:
            what, do = lacking
            raise Refusal(f"{what}; {state if kept else 'nothing was kept'}. {do}{going * kept}") from error


def files_of(source: Checkpoint) -> list[Path]:
    """The files of a model that its pruned copy also has: weights, index, configuration, tokenizer and the like."""
    return [path for path in sorted(source.path.iterdir()) if path.is_file() and _wanted(path.name, source)]


def _wanted(name: str, source: Checkpoint) -> bool:
    if name in source.files:
        return True
    is_index = name == INDEX and len(source.files) > 1
    return is_index or not (name.startswith(".") or name in OF_A_RUN or name.endswith(OTHER_WEIGHTS))


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files are equal."""
    return filecmp.cmp(one, other, shallow=False)


def same_layout(one: Path, other: Path) -> bool:
    """Whether two weight files are of one length and begin with the same header."""
    return size(one) == size(other) and header_bytes(one) == header_bytes(other)


def partial_of(out: Path) -> Path:
    """Where an output lies while it is not finished."""
    if not out.name:
        raise Refusal(f"--out names a new folder; got {out}, the root of the disk. Give it a name.")
    return out.with_name(out.name + PARTIAL)


def size(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def resume_command(out: Path) -> str:
    """The command that goes on with a run."""
    return f"python -m llm_pipeline resume {shlex.quote(str(out))}"


def _lacking(error: BaseException, out: Path) -> tuple[str, str] | None:
    """What the machine lacked, and what to do about it."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of {out.parent} filled up while writing",
            "Free some space, or choose an --out on another disk.",
        )
    if isinstance(error, OSError):
        return f"{out} could not be written ({error})", "Choose another --out."
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in first:
        return f"out of memory ({first})", "Use --hidden disk, or shorter sequences, or stop other programs."
    return None


def _require_same(name: str, entry: Entry, tensor: torch.Tensor) -> None:
    if (tuple(tensor.shape), tensor.dtype) != (entry.shape, entry.dtype):
        raise Refusal(
            f"{name} is stored as {entry.dtype} of shape {entry.shape}; {tensor.dtype} of shape "
            f"{tuple(tensor.shape)} arrived. Writing in place keeps both; cast to the stored dtype first."
        )
