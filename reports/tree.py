"""The repository's file tree, a line a file: the first sentence of each module's docstring."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from solvers.refusal import Refusal

FOLDERS = ("solvers", "theory_checks", "llm_pipeline", "benchmarks", "reports", "tests")
SKIPPED = ("__pycache__", "build", "dist", "runs")
KNOWN = {
    "CHANGELOG.md": "what changed, release by release",
    "CITATION.cff": "how to cite this software",
    "LICENSE": "Apache-2.0",
    "Makefile": "venv, demo, test, lint, theory, bench, report, gpu",
    "README.md": "this page",
    "pyproject.toml": "package, extras, linters, import contracts",
    "solvers": "the mathematics",
    "theory_checks": "the claims",
    "llm_pipeline": "the model",
    "llm_pipeline/bundled": "the embedded model and its recipe",
    "benchmarks": "the measurements",
    "reports": "the pages",
    "tests": "mirrors the five packages",
}


def tree(root: Path) -> str:
    """The tree as text, in columns.

    Parameters
    ----------
    root : Path
        The repository.

    Returns
    -------
    str
        Top-level files first, then the five packages and the tests with their Python files.
    """
    files = sorted(path for path in root.iterdir() if path.is_file() and not _hidden(path))
    lines = [(path.name, KNOWN.get(path.name, "")) for path in files if path.name in KNOWN or path.suffix == ".py"]
    for folder in FOLDERS:
        if (root / folder).is_dir():
            lines += _folder(root / folder, root, depth=0)
    width = max((len(name) for name, _ in lines), default=0) + 2
    return "\n".join(f"{name:<{width}}{told}".rstrip() for name, told in lines)


def first_sentence(path: Path) -> str:
    """Of the docstring of a Python file, without its full stop; nothing where there is no docstring."""
    try:
        told = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    except SyntaxError as error:
        raise Refusal(f"{path.name}, line {error.lineno} is not Python; the tree needs its docstring.") from error
    paragraph = " ".join(told.split("\n\n")[0].split())
    # An abbreviation is followed by a number or a small letter, a sentence by a capital.
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", paragraph)[0].rstrip(".")


def _folder(folder: Path, root: Path, depth: int) -> Iterator[tuple[str, str]]:
    indent = "  " * depth
    opening = folder / "__init__.py"
    told = first_sentence(opening) if opening.is_file() else ""
    yield f"{indent}{folder.name}/", told or KNOWN.get(folder.relative_to(root).as_posix(), "")
    for path in sorted(folder.glob("*.py")):
        if path != opening and not _hidden(path):
            yield f"{indent}  {path.name}", first_sentence(path)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not _hidden(path) and any(path.rglob("*.py")):
            yield from _folder(path, root, depth + 1)


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in SKIPPED or path.name.endswith((".egg-info", ".partial"))
