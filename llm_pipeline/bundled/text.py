"""English text that every CPython carries: the documentation topics of `pydoc` and the library's docstrings.

A document is one topic or one module; the name of a document alone decides whether it is held out, so that a
page that evaluates under one version of Python calibrates under none.
"""

import ast
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from solvers.refusal import Refusal

HELD_OUT_BYTES = 26  # of 256: the share of names held out, about a tenth
SHORTEST_CHARACTERS = 400
LEAST_PROSE = 0.75
FEWEST_DOCUMENTS = 200
SKIPPED_PACKAGES = frozenset({"antigravity", "idlelib", "lib2to3", "pydoc_data", "test", "this", "turtledemo"})
SKIPPED_FOLDERS = frozenset({"__pycache__", "test", "tests", "idle_test"})
HAND_WRITTEN_ENCODINGS = frozenset({"__init__", "aliases", "idna", "punycode"})
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Document(NamedTuple):
    """One page of text: `topic:NAME` of the language reference, or `module:NAME` with its docstrings."""

    name: str
    text: str


def documents(stdlib: Path | None = None) -> list[Document]:
    """All documents of the embedded text, in the order of their names; no paragraph occurs twice.

    Parameters
    ----------
    stdlib : Path, optional
        Folder of the standard library's sources; the running interpreter's by default.

    Returns
    -------
    list of Document
        The same list for the same sources, on every machine.

    Raises
    ------
    Refusal
        Where the interpreter came without the sources of its library or without its documentation topics.
    """
    return list(_documents(stdlib or Path(sysconfig.get_path("stdlib"))))


def is_held_out(name: str) -> bool:
    """Whether the document of that name is held out, about one in ten: a function of the name and nothing else."""
    return hashlib.sha256(name.encode()).digest()[-1] < HELD_OUT_BYTES


def training_text() -> list[str]:
    """Texts of the documents to train and calibrate on, one string per document."""
    return [document.text for document in documents() if not is_held_out(document.name)]


def held_out_text() -> list[str]:
    """Texts of the documents to evaluate on, one string per document; disjoint from `training_text`."""
    return [document.text for document in documents() if is_held_out(document.name)]


@cache
def _documents(stdlib: Path) -> tuple[Document, ...]:
    pages = sorted([*_topics(stdlib), *_modules(stdlib)])
    kept = tuple(page for page in _without_repetition(pages) if _is_prose(page.text))
    if len(kept) < FEWEST_DOCUMENTS:
        raise Refusal(_missing(stdlib, f"{len(kept)} documents"))
    return kept


def _topics(stdlib: Path) -> Iterator[Document]:
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError as missing:
        raise Refusal(_missing(stdlib, "no module pydoc_data.topics")) from missing
    return (Document(f"topic:{name}", inspect.cleandoc(text)) for name, text in topics.items())


def _modules(stdlib: Path) -> Iterator[Document]:
    for path in stdlib.rglob("*.py"):
        parts = path.relative_to(stdlib).with_suffix("").parts
        if _is_read(parts):
            name = ".".join(parts).removesuffix(".__init__")
            yield Document(f"module:{name}", "\n\n".join(_docstrings(path)))


def _is_read(parts: tuple[str, ...]) -> bool:
    package = parts[0]
    written = package != "encodings" or parts[-1] in HAND_WRITTEN_ENCODINGS
    library = package in sys.stdlib_module_names and package not in SKIPPED_PACKAGES
    return library and written and SKIPPED_FOLDERS.isdisjoint(parts[:-1])


def _docstrings(path: Path) -> Iterator[str]:
    for node in _documented(ast.parse(path.read_bytes())):
        docstring = ast.get_docstring(node)
        if docstring:
            yield docstring


def _documented(node: ast.AST) -> Iterator[ast.AST]:
    """Modules, classes and functions at or below a statement; expressions, most of a tree, are skipped."""
    if isinstance(node, DOCUMENTED):
        yield node
    for field in ("body", "orelse", "handlers", "finalbody"):
        for statement in getattr(node, field, ()):
            yield from _documented(statement)


def _without_repetition(pages: Iterable[Document]) -> Iterator[Document]:
    seen: set[str] = set()
    for name, text in pages:
        paragraphs = {paragraph.strip(): paragraph for paragraph in text.split("\n\n")}
        fresh = [paragraphs[key] for key in paragraphs if key not in seen]
        seen.update(paragraphs)
        yield Document(name, "\n\n".join(fresh))


def _is_prose(text: str) -> bool:
    prose = sum(character.isalpha() or character == " " for character in text)
    return len(text) >= SHORTEST_CHARACTERS and prose >= LEAST_PROSE * len(text)


def _missing(stdlib: Path, found: str) -> str:
    return (
        f"The embedded text needs the Python sources of the standard library: at least {FEWEST_DOCUMENTS} "
        f"documents of topics and docstrings; {stdlib} gave {found}.\n"
        "Usually this Python was packed without its .py files (a zip, an embeddable or frozen build). "
        "Use a regular CPython, or name your own text: --calibration FILE and --text FILE.\n"
        "No substitute was used."
    )
