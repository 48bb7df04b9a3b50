"""Records: append-only JSON lines, one measured fact a line, each with its provenance."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from solvers.refusal import Refusal

SCHEMA = 1
MEASURED_WITH = ("numpy", "scipy", "torch", "transformers")
PROVENANCE = ("schema", "id", "benchmark", "when", "commit", "python", "versions", "machine")

Record = dict[str, Any]


def make_record(benchmark: str, **facts: Any) -> Record:
    """One measured fact, stamped with what it was measured with.

    Parameters
    ----------
    benchmark : str
        Name of the measurement.
    **facts
        What was measured and for what; values that JSON can hold, NumPy scalars and arrays included.

    Returns
    -------
    dict
        The facts with ``schema``, ``id``, ``when``, ``commit``, ``python``, ``versions`` and ``machine``.
    """
    taken = sorted(set(facts) & set(PROVENANCE))
    if taken:
        raise Refusal(f"a record sets {', '.join(taken)} itself; rename the fact.")
    stamped = {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "versions": _versions(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count()},
        **facts,
    }
    # Through text and back, so that what is hashed is what a reader will find.
    record: Record = json.loads(canonical(stamped))
    return {"id": fingerprint(record), **record}


def append(path: str | Path, record: Record) -> None:
    """Add one line to the file and have it on the disk before returning.

    Parameters
    ----------
    path : str or Path
        The file; it is made, with its folder, when absent.
    record : dict
        What `make_record` returned.
    """
    _approve(record, "the record to append")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        # After a torn write the half line stays alone, and `read` names it.
        file.write(_line_end(file) + canonical(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(paths: Iterable[str | Path]) -> list[Record]:
    """All records of the files in order; a record met twice counts once.

    Parameters
    ----------
    paths : iterable of str or Path
        Record files.

    Returns
    -------
    list of dict
        Refused, naming file and line: what is no JSON object, another schema, a line edited by hand.
    """
    found: dict[str, Record] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise Refusal(f"no record file {path.name}: it needs a file of JSON lines written by a benchmark.")
        for number, line in enumerate(lines(path), start=1):
            if line.strip():
                record = _parse(line, f"{path.name}, line {number}")
                found.setdefault(record["id"], record)
    return list(found.values())


def lines(path: Path) -> list[str]:
    """The lines of a file of JSON lines; refused where it is no text."""
    try:
        return path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise Refusal(
            f"{path.name} must hold JSON lines in UTF-8, and is no text ({error}). Restore it, or measure again."
        ) from error


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, finite numbers only."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise Refusal(f"a record holds finite numbers, text, lists and tables; this one does not: {error}") from error


def fingerprint(record: Record) -> str:
    """First 12 hex digits of the SHA-256 of everything in the record but its id."""
    rest = {key: value for key, value in record.items() if key != "id"}
    return hashlib.sha256(canonical(rest).encode()).hexdigest()[:12]


def _parse(line: str, place: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise Refusal(
            f"{place} is not JSON ({error.msg}); usually a write that was cut off. Remove the line."
        ) from error
    _approve(record, place)
    return record


def _approve(record: Any, place: str) -> None:
    if not isinstance(record, dict):
        raise Refusal(f"{place}: a record is a JSON object; this is a {type(record).__name__}.")
    if record.get("schema") != SCHEMA:
        raise Refusal(f"{place}: schema {record.get('schema')!r}; this version reads schema {SCHEMA} only.")
    absent = [key for key in PROVENANCE if key not in record]
    if absent:
        raise Refusal(f"{place}: the record lacks {', '.join(absent)}. Records are made by make_record.")
    if record["id"] != fingerprint(record):
        raise Refusal(
            f"{place}: id {record['id']} does not match the contents ({fingerprint(record)}). "
            "Usually the line was edited by hand; measure again instead."
        )


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, and whatever else can list itself."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a value of JSON")


def _line_end(file: Any) -> bytes:
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _versions() -> dict[str, str]:
    installed = {}
    for name in MEASURED_WITH:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _commit(root: Path) -> str | None:
    """The commit of this checkout; None where the package was installed from a wheel or git is absent."""
    if not (root / "pyproject.toml").is_file():
        return None
    head = _git(root, "rev-parse", "--short", "HEAD")
    # Records grow while they are measured; they alone do not make a tree dirty.
    changed = head and _git(root, "status", "--porcelain", "--", ".", ":(exclude)*.jsonl")
    return f"{head}+dirty" if changed else head or None


def _git(root: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
