"""Whether a run folder holds the files that its run wrote, and no others that a loader would take.

    layout      every weight file has the header of the source's file of its name: tensors, dtypes, shapes, places  (1)
    index       weight_map names for every tensor the file that the source's index names                           (2)
    copied      every other file that the source also has is the source's, byte for byte                           (3)
    nothing-else  no further file that a loader would take for weights                                             (4)
    checksums   SHA256SUMS names every record, and every file that it names has the digest that it says            (5)

(1) to (4) compare with the source model and believe no record. (5) notices every edit of a record, numbers that no
computation can repeat included (seconds, traces, perplexity), unless SHA256SUMS was rewritten with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from llm_pipeline.checkpoint import INDEX, SINGLE, Checkpoint, Entry, file_sha256, header, weight_map
from llm_pipeline.findings import Finding, exact, listed
from llm_pipeline.output_folder import OF_A_RUN, OTHER_WEIGHTS, RECORDS, SUMS, files_of

SOURCE, RECORD = "the source model", "the run's own record"
Entries = dict[str, Entry]


def findings(folder: Path, source: Checkpoint) -> list[Finding]:
    """Statements (1) to (5) about a run folder; one for every file that differs."""
    return [
        *_layouts(folder, source),
        *_index(folder, source),
        *_copied(folder, source),
        *_nothing_else(folder, source),
        *_checksums(folder),
    ]


def opened(folder: Path, source: Checkpoint) -> Checkpoint:
    """The weight files of a run folder under the source's configuration, whatever tensors they hold."""
    if not all((folder / file).is_file() for file in source.files):
        Checkpoint.open(folder)  # refuses, unless the index names other files
    there = [file for file in source.files if (folder / file).is_file()]
    entries = {name: entry for file in there for name, entry in header(folder / file).items()}
    return Checkpoint(folder, source.config, source.files, entries)


def lacking(pruned: Checkpoint, source: Checkpoint) -> list[str]:
    """Tensors of the source that are not stored, or not with its dtype and shape."""
    return [name for name, entry in source.entries.items() if _kind(pruned.entries.get(name)) != _kind(entry)]


def _kind(entry: Entry | None) -> object:
    return entry and (entry.dtype, entry.shape)


def _layouts(folder: Path, source: Checkpoint) -> Iterator[Finding]:
    claim = "every weight file holds the tensors of the source's file of its name, where they lie there"
    expected = {file: header(source.path / file) for file in source.files}
    bad = {file: said for file in source.files if (said := _layout(folder / file, source.path / file, expected))}
    for file in bad or ["all weight files"]:
        yield exact(file, "layout", claim, SOURCE, bad.get(file, ""))


def _layout(path: Path, original: Path, expected: dict[str, Entries]) -> str:
    if not path.is_file():
        return "there is no such file"
    found, wanted = header(path), expected[path.name]
    if found == wanted:
        return "" if _head(path) == _head(original) else "its header has other metadata"
    for other, entries in expected.items():
        if found.keys() == entries.keys():
            if other == path.name:
                moved = [f"{name} {_place(found[name])}, in the source {_place(wanted[name])}" for name in wanted]
                return listed([said for said, name in zip(moved, wanted, strict=True) if found[name] != wanted[name]])
            return f"it holds the tensors of {other}; the two files were probably exchanged"
    extra, missing = sorted(found.keys() - wanted.keys()), sorted(wanted.keys() - found.keys())
    parts = [("it lacks", missing), ("it also holds", extra)]
    return "; ".join(f"{words} {listed(names)}" for words, names in parts if names)


def _head(path: Path) -> bytes:
    """The header as it is spelt."""
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def _place(entry: Entry) -> str:
    shape = " x ".join(map(str, entry.shape))
    return f"is {shape} of {str(entry.dtype).removeprefix('torch.')} at byte {entry.start}"


def _index(folder: Path, source: Checkpoint) -> Iterator[Finding]:
    if source.files == (SINGLE,):
        return
    found, wanted = weight_map(folder), weight_map(source.path)
    said = [
        f"it says {found.get(name, 'nothing')} of {name}, which lies in {wanted.get(name, 'no file')}"
        for name in sorted(wanted.keys() | found.keys())
        if found.get(name) != wanted.get(name)
    ]
    yield exact(INDEX, "index", "the index names the file of every tensor", SOURCE, listed(said))


def _copied(folder: Path, source: Checkpoint) -> Iterator[Finding]:
    claim = "every file of the model that is no weight is the source's"
    copies = [path for path in files_of(source) if path.name not in (*source.files, INDEX)]
    bad = {path.name: said for path in copies if (said := _unlike(folder / path.name, path))}
    for file in bad or ["all other files"]:
        yield exact(file, "copied", claim, SOURCE, bad.get(file, ""))


def _unlike(path: Path, original: Path) -> str:
    """In what a copy differs from its original; a missing one is for the checksums to tell."""
    if not path.is_file() or file_sha256(path) == file_sha256(original):
        return ""
    try:
        found, wanted = (json.loads(file.read_bytes()) for file in (path, original))
        keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        short = [f"{key} is {found.get(key)!r:.60}, in the source {wanted.get(key)!r:.60}" for key in keys]
    except (ValueError, TypeError, AttributeError):
        return "its bytes are not those of the source"
    return listed(short) or "it is spaced otherwise than the source's"


def _nothing_else(folder: Path, source: Checkpoint) -> Iterator[Finding]:
    allowed = {*source.files, *OF_A_RUN, *([INDEX] if source.files != (SINGLE,) else [])}
    bad = [
        path.name
        for path in sorted(folder.iterdir())
        if path.name not in allowed and (path.name.endswith(OTHER_WEIGHTS) or path.name == "adapter_config.json")
    ]
    for name in bad or ["all weight files"]:
        claim = "no further file would be loaded as weights"
        yield exact(name, "nothing-else", claim, SOURCE, "the run wrote no such file" if bad else "")


def _checksums(folder: Path) -> Iterator[Finding]:
    claim = "the file has the digest that SHA256SUMS records"
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        yield exact(SUMS, "checksums", claim, RECORD, f"it cannot be read ({error})")
        return
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    bad = {name: "SHA256SUMS does not name it" for name in RECORDS if name not in sums}
    for name, digest in sums.items():
        found = file_sha256(folder / name) if (folder / name).is_file() else ""
        if found != digest:
            bad[name] = f"its SHA-256 is {found[:12]}..., recorded {digest[:12]}..." if found else "it is missing"
    for name in bad or [SUMS]:
        yield exact(name, "checksums", claim, RECORD, bad.get(name, ""))
