"""Claims over synthetic layers: the worst case of each, and the text in which each is stated."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import theory_checks
from theory_checks.certificate import Certificate
from theory_checks.claims import CLAIMS, worst
from theory_checks.scaling import EXPERIMENTS
from theory_checks.synthetic import Case, cases

NO_CLAIMS = ("__main__", "strategies", "evaluate")


class Statement(NamedTuple):
    """Where a claim is stated: the module, its title, and the first paragraph of the claim's docstring."""

    module: str
    title: str
    text: str


def evaluate(
    names: Iterable[str], examples: int, seed: int, progress: Callable[[int, int], None] = lambda done, of: None
) -> list[dict[str, Any]]:
    """The worst case of every claim over the same synthetic layers, and every experiment once.

    Parameters
    ----------
    names : names of `CLAIMS` and `EXPERIMENTS`
    examples : synthetic layers per claim
    seed : of the layers and of the experiments
    progress : told the layers done and their number

    Returns
    -------
    list of dict
        `Certificate.as_dict` with ``examples``, the layers to which the claim applied, and ``worst_case``; claims
        first, then experiments, each in the order of `names`.
    """
    names = list(names)
    layerwise = [name for name in names if name in CLAIMS]
    found = {name: (Certificate(name, "", "", 0, 0, applies="no example"), Case(), 0) for name in layerwise}
    for done, case in enumerate(cases(examples, seed), start=1):
        for name in layerwise:
            found[name] = _worse(found[name], worst(CLAIMS[name](case)), case)
        progress(done, examples)
    rows = [{**c.as_dict(), "examples": n, "worst_case": repr(case)} for c, case, n in found.values()]
    once = [EXPERIMENTS[name](seed) for name in names if name in EXPERIMENTS]
    return rows + [{**c.as_dict(), "examples": 1, "worst_case": f"seed {seed}"} for c in once]


def statement(name: str) -> Statement:
    """Where the claim of that name is stated; empty texts for a claim of a package of its own."""
    return _statements().get(name, Statement("", "", ""))


@cache
def _statements() -> dict[str, Statement]:
    """Every function with a docstring that writes a claim's name, the first one where several do."""
    found: dict[str, Statement] = {}
    for entry in pkgutil.iter_modules(theory_checks.__path__):
        if entry.name in NO_CLAIMS or entry.name.startswith("mutant"):
            continue
        tree = ast.parse(inspect.getsource(importlib.import_module(f"theory_checks.{entry.name}")))
        title = _opening(ast.get_docstring(tree))
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            if told := _opening(ast.get_docstring(function)):
                for name in sorted(_texts(function) & (CLAIMS.keys() | EXPERIMENTS.keys())):
                    found.setdefault(name, Statement(entry.name, title, told))
    return found


def _texts(function: ast.FunctionDef) -> set[str]:
    return {n.value for n in ast.walk(function) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def _opening(docstring: str | None) -> str:
    return " ".join((docstring or "").split("\n\n")[0].split())


def _worse(old: tuple[Certificate, Case, int], new: Certificate, case: Case) -> tuple[Certificate, Case, int]:
    count = old[2] + (not new.applies)
    return (new, case, count) if worst([old[0], new]) is new else (old[0], old[1], count)
