"""What the figures of the theory page draw: runs on one layer beside their bounds, and risks beside their laws.

Letters: x_n iterates, F = f + penalty, F* its minimum, X a minimiser, D = |x_0 - X|, s step, L >= lambda_max(H), lam
the penalty, m_S the least curvature on the support S at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np

from benchmarks.records import Record, make_record
from solvers import aiht, fista, iht, maiht
from solvers.problem import LayerProblem
from solvers.sparsity import L0, L1, Array
from theory_checks import scaling, scaling_gaussian, spikes
from theory_checks.identification import support_changes
from theory_checks.linear import rest
from theory_checks.local import restricted
from theory_checks.paths import gaps, iterates, lasso, on_support, walk
from theory_checks.rates import numbers
from theory_checks.synthetic import Rng

Fact = dict[str, Any]

ROWS, INPUTS = 4, 24
STEPS = 200
POINTS = 80  # of a curve at most, evenly on a logarithmic axis
SAFETY = 0.95
FAR = 3.0  # distance of the start from the dense weight, in standard deviations of a weight


def valley(seed: int, condition: float) -> tuple[LayerProblem, Array]:
    """A layer whose Gram has eigenvalues from 1 to 1 / condition, and a start far from its dense weight."""
    rng = np.random.default_rng([seed, 92])
    Q = np.linalg.qr(rng.standard_normal((INPUTS, INPUTS)))[0]
    H = Q * np.geomspace(1.0, 1 / condition, INPUTS) @ Q.T
    problem = LayerProblem.of(rng.standard_normal((ROWS, INPUTS)), (H + H.T) / 2)
    return problem, problem.W0 + FAR * rng.standard_normal(problem.shape)


def convex(seed: int) -> Iterator[Fact]:
    """F(x_n) - F* of four methods with an L1 penalty, s = 1/L, each beside its bound."""
    problem, x = valley(seed, 1000.0)
    penalty, s, n = L1(0.01), 1 / problem.lipschitz, np.arange(1.0, STEPS + 1)
    best = lasso(problem, penalty.lam)
    scale = float(np.square(x - best).sum()) / s
    drawn: dict[str, tuple[Callable[..., Any], Any, str, Array]] = {
        "ISTA": (iht.step, iht.State(x, x), "D² / 4sn", 0.25 / n),
        "FISTA": (fista.step, fista.start(x), "D² / 2s t_n²", 0.5 / numbers(STEPS) ** 2),
        "MFISTA": (fista.monotone_step, fista.start(x), "2D² / s(n+1)²", 2 / (n + 1) ** 2),
        "mAIHT": (maiht.step, maiht.State(x, x, x, x), "2D² / s(n+1)²", 2 / (n + 1) ** 2),
    }
    for name, (step, start, written, factor) in drawn.items():
        values, rounding = gaps(problem, penalty, best, iterates(walk(step, start, problem, penalty, s, STEPS)))
        seen = np.where(values > rounding, values, np.nan)[1:]
        yield {"figure": "convex", "name": name, "bound_text": written, **_sides(n, y=seen, bound=factor * scale)}


def safeguard(seed: int) -> Iterator[Fact]:
    """F(x_n) above the least value of the same run with an L0 penalty, and how often F rose."""
    problem, x = valley(seed, 1000.0)
    penalty, s = L0(0.025), SAFETY / problem.lipschitz
    drawn: dict[str, tuple[Callable[..., Any], Any]] = {
        "IHT": (iht.step, iht.State(x, x)),
        "mAIHT": (maiht.step, maiht.State(x, x, x, x)),
        "accelerated, no safeguard": (aiht.unguarded_step, aiht.start(x)),
    }
    for name, (step, start) in drawn.items():
        path = iterates(walk(step, start, problem, penalty, s, STEPS))[1:]
        moves = [_change(problem, penalty, a, b) for a, b in pairwise(path)]
        F = np.array([problem.value(w) + penalty.value(w) for w in path])
        least = path[int(F.argmin())]
        above = [_change(problem, penalty, least, w) for w in path]
        facts = {"rises": int(np.sum(np.array(moves) > 0)), "largest_rise": max(moves), "least": float(F.min())}
        n = np.arange(1.0, STEPS + 1)
        yield {"figure": "safeguard", "name": name, **facts, **_sides(n, y=np.array(above), thin=False)}


def supports(seed: int) -> Iterator[Fact]:
    """Changes of IHT's support after its first step, counted up to n, beside Lu's bound on their number; s = 0.5/L."""
    problem, x = valley(seed, 100.0)
    s, n = 0.5 / problem.lipschitz, np.arange(2.0, STEPS + 1)
    for lam in (0.025, 0.1, 0.4):
        path = iterates(walk(iht.step, iht.State(x, x), problem, L0(lam), s, STEPS))
        moved = ((path[2:] != 0) != (path[1:-1] != 0)).any(axis=(1, 2))
        most = support_changes(problem, L0(lam), x, s, STEPS).bound
        count = np.cumsum(moved).astype(np.float64)
        yield {"figure": "supports", "name": f"lam = {lam:g}", **_sides(n, y=count, bound=np.full(len(n), most))}


def local(seed: int) -> Iterator[Fact]:
    """F(x_n) - F(X) once the support rests, X the least squares on it, beside (1 - s m_S)^2n times its first value."""
    problem, x = valley(seed, 100.0)
    penalty, s = L0(0.1), SAFETY / problem.lipschitz
    drawn: dict[str, tuple[Callable[..., Any], Any]] = {
        "IHT": (iht.step, iht.State(x, x)),
        "mAIHT": (maiht.step, maiht.State(x, x, x, x)),
    }
    for name, (step, start) in drawn.items():
        states = walk(step, start, problem, penalty, s, STEPS)
        path, v = iterates(states), np.array([k.v for k in states])
        first = rest(np.concatenate([path, v], axis=1))
        X = on_support(problem, path[-1] != 0)
        values, rounding = gaps(problem, L0(0.0), X, path[first:])
        factor = (1 - s * min(restricted(problem.H, S) for S in X != 0 if S.any())) ** 2
        n = np.arange(0.0, len(values))
        sides = _sides(n, y=np.where(values > rounding, values, np.nan), bound=values[0] * factor**n)
        yield {"figure": "local", "name": name, "rests_from": first, "factor": factor, **sides}


def laws(seed: int, repetitions: int | None = None) -> Iterator[Fact]:
    """Risk over n, k and p with standard errors, and the fitted line: the samples of the claims."""
    draws: dict[str, tuple[Sequence[int], int, Callable[[Rng, int, int], Array]]] = {
        "n": (scaling_gaussian.NS, 3000, lambda rng, n, reps: spikes.gaussian_risks(rng, iht.iht, n, 16, 2, reps)),
        "k": (scaling.KS, 2500, lambda rng, k, reps: spikes.orthonormal_risks(rng, 1000, k, reps)),
        "p": (scaling.PS, 1000, lambda rng, p, reps: spikes.orthonormal_risks(rng, p, 8, reps)),
    }
    for purpose, (name, (places, most, draw)) in enumerate(draws.items(), start=1):
        rng, reps = np.random.default_rng([seed, purpose]), repetitions or most
        samples = np.array([draw(rng, place, reps) for place in places])
        x, y = np.array(places, dtype=np.float64), samples.mean(axis=1)
        error = samples.std(axis=1, ddof=1) / sqrt(reps)
        if name == "p":
            slope, level = np.polyfit(np.log(x), y, 1)
            line = level + slope * np.log(x)
        else:
            slope, level = np.polyfit(np.log(x), np.log(y), 1)
            line = np.exp(level) * x**slope
        law = {"law": "risk over log p" if name == "p" else f"log risk over log {name}", "slope": float(slope)}
        yield {"figure": "scaling", "name": name, **law, **_sides(x, y=y, error=error, fit=line, thin=False)}


def curves(seed: int, progress: Callable[[int, int, str], None] = lambda done, of, what: None) -> Iterator[Record]:
    """A record of the benchmark ``theory-curve`` for every line of a figure: x, y, and bound or error and fit."""
    figures = (convex, safeguard, supports, local, laws)
    for done, figure in enumerate(figures):
        progress(done, len(figures), f"curves: {figure.__name__}")
        for fact in figure(seed):
            yield make_record("theory-curve", seed=seed, **fact)


def _change(problem: LayerProblem, penalty: L0, a: Array, b: Array) -> float:
    """F(b) - F(a) in the difference form."""
    return problem.change(a, b) + penalty.lam * (penalty.count(b) - penalty.count(a))


def _sides(x: Array, thin: bool = True, **lines: Array) -> dict[str, list[float | None]]:
    """x and the lines over it at few enough places, to six significant digits; nan is None."""
    chosen = spaced(len(x)) if thin else np.arange(len(x))
    return {name: _digits(values[chosen]) for name, values in {"x": x, **lines}.items()}


def spaced(size: int) -> Any:
    """At most `POINTS` of the places 0 .. size - 1, evenly in the logarithm, both ends among them."""
    return np.unique(np.round(np.geomspace(1, size, POINTS)).astype(int)) - 1


def _digits(values: Array) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
