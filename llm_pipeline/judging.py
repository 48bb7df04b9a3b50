"""Where a layer is judged: on the device of the run, in float64, where CuPy works there; else on the host.

The claims are one text, written for NumPy. CuPy's arrays answer to NumPy's functions, so that the same text runs on the
device once what it reads lies there. L >= lambda_max(H) was proved on the host and is carried over with the entries of
H; the claim that goes through exchanges row by row stays on the host. Before a device may judge, it must come to the
host's verdicts on three small layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, ClassVar
from weakref import ref

import numpy as np
import torch

import solvers
from llm_pipeline.evidence import Inputs
from llm_pipeline.work import DEVICE_PART
from solvers.door import Run
from solvers.door import run as solved
from solvers.methods import Method
from solvers.problem import Gram, LayerProblem
from solvers.solution import Relaxed
from theory_checks import Certificate, allowance, certify, certify_saved

MISSING = "CuPy is not installed (the extra `cupy`; under CUDA 12 cupy-cuda12x)"
TRIALS = (("maiht", "50%", {"iters": 4}), ("wanda", "2:4", {"swaps": 1}), ("fista", "50%/layer", {"rounds": 2}))


@dataclass(frozen=True, eq=False)
class Copy(Gram):
    """A Gram whose entries lie on a device.

    `origin` gives the one on the host, for whose entries L was proved: they are the same. That one keeps this one,
    which therefore must not keep it.
    """

    origin: Callable[[], Gram | None] = lambda: None
    part: ClassVar[int] = DEVICE_PART

    @property
    def lipschitz(self) -> float:  # type: ignore[override]
        """The bound that was proved on the host."""
        origin = self.origin()
        assert origin is not None, "the Gram on the host is gone"
        return origin.lipschitz


@dataclass(frozen=True)
class Court:
    """A place where layers are judged.

    Attributes
    ----------
    name : ``cpu`` or ``cuda``
    put : a NumPy array there; on the host the array itself
    leave : hands freed memory of the place back to others
    why : where a run on a device is judged on the host, the reason
    """

    name: str
    put: Callable[[np.ndarray], Any] = lambda array: array
    leave: Callable[[], None] = lambda: None
    why: str = ""

    def gram(self, gram: Gram) -> Gram:
        """The entries there; the layers of a site share them, as long as the site's Gram lives."""
        if self.name == HOST.name:
            return gram
        if ("judged", self.name) not in gram.factors:
            gram.factors["judged", self.name] = Copy(self.put(gram.H), gram.ridge, ref(gram))
        found = gram.factors["judged", self.name]
        assert isinstance(found, Gram)
        return found

    def inputs(self, inputs: Inputs) -> Inputs:
        """What a layer sees."""
        drift = inputs.drift and (self.put(inputs.drift[0]), self.put(inputs.drift[1]))
        return Inputs(self.gram(inputs.gram), drift)

    def run(self, run: Run) -> Run:
        """A layer as it was solved; what several parts of it share is put there once. Facts stay on the host."""
        there: dict[int, Any] = {}

        def put(array: Any) -> Any:
            if array is not None and id(array) not in there:
                there[id(array)] = self.put(array)
            return None if array is None else there[id(array)]

        def problem(p: LayerProblem) -> LayerProblem:
            if id(p) not in there:
                there[id(p)] = LayerProblem(put(p.W0), self.gram(p.gram), put(p.R), p.e0, put(p.scale))
            made: LayerProblem = there[id(p)]
            return made

        old = run.found.relaxed
        relaxed = old and Relaxed(problem(old.problem), old.penalty, put(old.weight))
        return run._replace(
            problem=problem(run.problem),
            found=replace(run.found, weight=put(run.found.weight), relaxed=relaxed),
            refined=put(run.refined),
            weight=put(run.weight),
            refit=problem(run.refit),
            swapped=put(run.swapped),
        )

    def forget(self, gram: Gram, run: Run) -> None:
        """Give away what is kept there of a site's Grams."""
        for kept in (gram, run.problem.gram, run.refit.gram):
            kept.factors.pop(("judged", self.name), None)
        self.leave()


HOST = Court("cpu")


@lru_cache
def court_of(device: str) -> Court:
    """Where a run on a device of torch is judged."""
    return HOST if torch.device(device).type != "cuda" else tried(partial(_cupys, torch.device(device).index or 0))


def tried(make: Callable[[], Court]) -> Court:
    """The court, if it comes to the host's verdicts; else the host, and why."""
    try:
        court = make()
        said = list(contradictions(court))
    except ImportError:
        return replace(HOST, why=MISSING)
    except Exception as error:  # of many kinds: a driver, a compiler or a library is not there or not the right one
        return replace(HOST, why=f"CuPy does not work here ({type(error).__name__}: {first_line(error)})")
    return replace(HOST, why=f"CuPy contradicts the host: {said[0]}") if said else court


def _cupys(index: int) -> Court:
    import cupy

    cupy.cuda.Device(index).use()

    def leave() -> None:
        cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()

    return Court("cuda", cupy.asarray, leave)


def contradictions(court: Court) -> Iterator[str]:
    """Where a place judges three small layers otherwise than the host does."""
    draw = np.random.default_rng(0)
    for name, sparsity, options in TRIALS:
        X, W0 = draw.standard_normal((48, 16)), draw.standard_normal((6, 16))
        method, problem = solvers.find(name), LayerProblem.of(W0, X.T @ X / len(X))
        done = solved(method, problem, solvers.parse(sparsity).on(W0.shape), **options)
        here, there = verdicts(method, done, HOST), verdicts(method, done, court)
        yield from differences(here, there, allowance(done.problem.magnitude(0 * W0) + W0.size, W0.size))


def verdicts(method: Method, run: Run, court: Court) -> list[Certificate]:
    """Every certificate of a layer as it was solved, from a place."""
    refine, there = "none" if run.gains is None else "exact", court.run(run)
    return certify(method, there, refine, run) + certify_saved(there.refit, there.sparsity, there.weight)


def differences(one: list[Certificate], other: list[Certificate], rounding: float) -> Iterator[str]:
    """Where two lists of certificates of the same layer differ by more than both allow, and rounding."""
    if [c.name for c in one] != [c.name for c in other]:
        yield f"claims {[c.name for c in one]} and {[c.name for c in other]}"
        return
    for c, d in zip(one, other, strict=True):
        room = c.allowance + d.allowance + rounding
        near = all(_near(getattr(c, side), getattr(d, side), room) for side in ("measured", "bound", "allowance"))
        if not near or c.outcome != d.outcome:
            yield f"{c} and {d}"


def _near(a: float, b: float, room: float) -> bool:
    return a == b or abs(a - b) <= room or (np.isnan(a) and np.isnan(b))


def first_line(error: Exception) -> str:
    """What an error says first."""
    return (str(error).splitlines() or ["no reason given"])[0]
