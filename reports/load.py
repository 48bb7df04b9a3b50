"""Run folders and record files into rows; what is missing or malformed is refused by file and line."""

import json
import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import records
from solvers.refusal import Refusal

Row = dict[str, Any]

OUTCOMES = ("holds", "fails", "not applicable")
REQUIRED = {
    "plan.toml": ("model", "method", "sparsity"),
    "layers.jsonl": ("layer", "block", "site", "shape", "kept", "sparsity", "objective", "relative_error"),
    "certificates.jsonl": ("layer", "claim", "statement", "where", "measured", "bound", "outcome"),
    "summary.json": ("model", "method", "sparsity_asked", "sparsity_measured", "relative_error", "perplexity"),
}


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes
    ----------
    name : str
        The folder, relative to the other runs of the page; never an absolute path.
    label : str
        What figures and tables call the run: its method and sparsity, and its name where those do not suffice.
    plan, summary : dict
        What was asked, and what came out.
    layers, certificates : list of dict
        A row per layer, and per claim and layer; ``source`` says which line a row was read from.
    """

    name: str
    label: str
    plan: Row
    layers: list[Row]
    certificates: list[Row]
    summary: Row

    def source(self, place: str) -> str:
        """Where a number of this run stands, for its tooltip."""
        return f"{self.name}/{place}"

    def outcomes(self) -> Counter[str]:
        """Certificates by outcome, counted from the certificates themselves."""
        return Counter(row["outcome"] for row in self.certificates)


def load(paths: Iterable[str | Path]) -> tuple[list[Run], list[Row]]:
    """Read run folders and record files.

    Parameters
    ----------
    paths : iterable of str or Path
        Folders written by the pruning command, and files of records.

    Returns
    -------
    runs : list of Run
        In the order given.
    records : list of dict
        Those of all files; a record met twice counts once.
    """
    places = list({Path(path).resolve(): Path(path) for path in paths}.values())
    for place in places:
        if not place.exists():
            raise Refusal(f"nothing at {place}: give the folder of a run, or a file of records (.jsonl).")
    folders = [place for place in places if place.is_dir()]
    runs = [load_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    return _distinct(runs), records.read(place for place in places if place.is_file())


def load_run(folder: str | Path, name: str | None = None) -> Run:
    """Read one run folder; what is missing or malformed is refused by file and line."""
    folder = Path(folder).resolve()
    missing = [file for file in REQUIRED if not (folder / file).is_file()]
    if missing:
        raise Refusal(
            f"{folder.name} is not a finished run: it lacks {', '.join(missing)}. "
            "Usually the run was interrupted (resume it) or the folder is that of a model."
        )
    name = name or folder.name
    plan, summary = _table(folder / "plan.toml"), _table(folder / "summary.json")
    layers, certificates = (_lines(folder / file, name) for file in ("layers.jsonl", "certificates.jsonl"))
    if not layers:
        raise Refusal(f"{name}/layers.jsonl is empty; usually a write that was cut off. Prune again.")
    for row in certificates:
        if row["outcome"] not in OUTCOMES:
            raise Refusal(f"{row['source']}: outcome {row['outcome']!r}; known: {', '.join(OUTCOMES)}.")
    label = f"{method_label(summary, plan)} {summary['sparsity_asked']}"
    return Run(name, label, plan, layers, certificates, summary)


def method_label(row: Row, options: Row | None = None) -> str:
    """The method as a spec: the one that was recorded, or in older runs and records the name with its stages."""
    if row.get("spec"):
        return str(row["spec"])
    said = row if options is None else options
    kept = {key: said.get(key) for key in ("refine", "swaps") if said.get(key) not in (None, "none", 0)}
    return ":".join([row["method"], *([",".join(f"{key}={value}" for key, value in kept.items())] if kept else [])])


def _names(folders: Sequence[Path]) -> list[str]:
    resolved = [folder.resolve() for folder in folders]
    if not resolved:
        return []
    shared = os.path.commonpath([folder.parent for folder in resolved])
    return [folder.relative_to(shared).as_posix() for folder in resolved]


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Runs of the same method and sparsity are told apart by their folders."""
    labels = Counter(run.label for run in runs)
    return [replace(run, label=f"{run.label} ({run.name})") if labels[run.label] > 1 else run for run in runs]


def _table(path: Path) -> Row:
    place = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise Refusal(f"{place} cannot be read: {error}.") from error
    return _complete(table, path.name, place)


def _lines(path: Path, run: str) -> list[Row]:
    rows = []
    for number, line in enumerate(records.lines(path), start=1):
        place = f"{run}/{path.name}, line {number}"
        try:
            row = _complete(json.loads(line), path.name, place)
        except json.JSONDecodeError as error:
            raise Refusal(f"{place} is not JSON ({error.msg}); usually a write that was cut off.") from error
        rows.append({**row, "source": place})
    return rows


def _complete(row: Any, file: str, place: str) -> Row:
    absent = [key for key in REQUIRED[file] if not isinstance(row, dict) or key not in row]
    if absent:
        raise Refusal(f"{place} lacks {', '.join(absent)}; this version of the pages needs them.")
    return row
