"""What a method is: a row of the table, and how its options are read from its signature."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from solvers.refusal import Refusal
from solvers.solution import Solution
from solvers.sparsity import Budget, KeepNofM, KeepPerLayer, KeepPerRow, Sparsity

Solver = Callable[..., Solution]


@dataclass(frozen=True)
class Method:
    """A pruner and what is true of it.

    Attributes
    ----------
    run : ``run(problem, sparsity, *, options) -> Solution``, a pure function
    evidence : what must be measured for it: none, norms or gram
    paper : where it comes from
    patterns : the budgets it can meet
    penalties : whether it also takes an L0 or L1 penalty
    normalised : whether it runs on the unit-diagonal Gram with ridge mu
    prunes : False for the null method, which owes no pattern
    promises : contract clauses that hold for it (theory_checks/contract.py)
    gpu : its fast twin; None for a formula that is evaluated once, and for what reproduces released code
    """

    run: Solver
    evidence: str
    paper: str
    patterns: tuple[type[Budget], ...] = (KeepPerRow, KeepPerLayer, KeepNofM)
    penalties: bool = False
    normalised: bool = False
    prunes: bool = True
    promises: frozenset[str] = field(default_factory=frozenset)
    gpu: Solver | None = None

    def require(self, name: str, sparsity: Sparsity) -> None:
        """Refuse in words what the method cannot do."""
        if isinstance(sparsity, self.patterns) or (self.penalties and not isinstance(sparsity, Budget)):
            return
        able = ", ".join(WRITTEN[pattern] for pattern in self.patterns)
        raise Refusal(f"{name} cannot meet {sparsity}; it can do {able}. Choose one of those, or another method.")

    def options(self) -> dict[str, Any]:
        """Its hyper-parameters and their defaults, from the signature."""
        parameters = inspect.signature(self.run).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def read_options(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Options as typed values; text is read as the type of the default, unknown names are refused."""
        known = self.options()
        for key in given:
            if key not in known:
                raise Refusal(f"{name} has no option '{key}'.{near(key, known)} Known: {', '.join(known) or 'none'}.")
        return {key: _typed(f"{name} option {key}", value, known[key]) for key, value in given.items()}


WRITTEN: dict[type[Budget], str] = {KeepPerRow: "50%", KeepPerLayer: "50%/layer", KeepNofM: "2:4"}


def near(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def _typed(what: str, value: Any, default: Any) -> Any:
    kind = type(default)
    try:
        typed = kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Refusal(f"{what} must be {kind.__name__}, as its default {default!r} is; got {value!r}.") from error
    if kind is int and isinstance(value, float) and typed != value:
        raise Refusal(f"{what} must be a whole number; got {value!r}. Its default is {default!r}.")
    if isinstance(default, int | float) and not 0 <= typed < float("inf"):
        raise Refusal(f"{what} must be a finite number, not negative; got {value!r}. Its default is {default!r}.")
    return typed
