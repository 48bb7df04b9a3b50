"""Which points may be called minima: an explicit radius, the hierarchy by brute force, the step limit of descent.

Letters: X a point with grad_S f(X) = 0 on its support S, s step, lam penalty, L >= lambda_max(H).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from solvers import iht, linalg
from solvers.problem import LayerProblem
from solvers.sparsity import L0, L1, Array, Mask
from theory_checks.certificate import Certificate, allowance
from theory_checks.identification import INSIDE
from theory_checks.paths import on_support, too_long
from theory_checks.synthetic import Case, Check, ascent_problem

BRUTE = 10  # inputs up to which every support of a row is tried


def reach(problem: LayerProblem, penalty: L0, X: Array) -> float:
    """delta = min(min_S |X_i|, lam / max |grad_i f| off S)."""
    pull = float(np.abs(problem.grad(X)[X == 0]).max(initial=0.0))
    least = float(np.abs(X[X != 0]).min(initial=np.inf))
    return min(least, penalty.lam / pull if pull > 0 else np.inf)


def local_minimum_radius(problem: LayerProblem, penalty: L0, X: Array, D: Array) -> Certificate:
    """F(X + d) >= F(X) for every |d|_inf < delta = min(min_S |X_i|, lam / max |grad_i f(X)| off S).

    Assumptions: grad_S f(X) = 0, H positive semidefinite, delta finite and positive. Why: F(X + d) - F(X) is at least
    the sum of lam - |grad_j f| |d_j| over the entries born. Measured: the largest decrease over the directions D
    (k, out, in) and the steepest single entry. Where: derived here. Tight as lam goes to 0.
    """
    name, claim, where = "local-minimum-radius", "F(X + d) >= F(X) for every |d|_inf < delta", "derived here"
    delta = reach(problem, penalty, X)
    if not 0 < delta < np.inf:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"delta = {delta:.3g}")
    directions = [d * INSIDE * delta / np.abs(d).max() for d in (steepest(problem, X), *D) if d.any()]
    drops = [-problem.change(X, X + d) - penalty.value(X + d) + penalty.value(X) for d in directions]
    residual = (np.abs(X) + np.abs(problem.W0)) @ np.abs(problem.H) + delta * np.abs(problem.H).sum(axis=0)
    scale = delta * float(residual.sum()) + 2 * penalty.value(np.ones_like(X))
    condition = float(np.linalg.cond(problem.H))
    return Certificate(name, claim, where, max(drops), 0.0, allowance(scale * condition, X.size))


def steepest(problem: LayerProblem, X: Array) -> Array:
    """The single removed entry with the largest gradient, downhill."""
    g, d = np.where(X == 0, problem.grad(X), 0.0), np.zeros_like(X)
    at = np.unravel_index(int(np.argmax(np.abs(g))), g.shape)
    d[at] = -np.sign(g[at])
    return d


def best_mask(problem: LayerProblem, penalty: L0) -> Mask:
    """The support of a global minimiser of f + lam |W|_0, row by row over all 2^in supports."""
    n, target = len(problem.H), problem.W0 @ problem.H
    S = np.array(list(product([0.0, 1.0], repeat=n)))
    A = S[:, :, None] * problem.H * S[:, None, :] + np.eye(n) * (1 - S)[:, None, :]
    X = np.linalg.solve(A, (S * target[:, None, :])[..., None])[..., 0]  # (out, 2^in, in)
    E = X - problem.W0[:, None, :]
    F = (E @ problem.H * E).sum(axis=-1) / 2 + penalty.lam * S.sum(axis=1)
    best: Mask = S[F.argmin(axis=1)] != 0
    return best


def global_minimum_rests(problem: LayerProblem, penalty: L0, s: float) -> Certificate:
    """A global minimiser of f + lam |W|_0 is a fixed point of IHT for every s L < 1.

    Assumptions: s L < 1, at most 10 inputs, H positive definite, no drift. Why: by sufficient decrease a move would
    lower F. Measured: the move of one step. Where: Beck, Eldar 2013, Thm 2.2 (budgets). Tight: bound 0.
    """
    name, claim, where = "global-minimum-rests", "prox(X - s grad f(X)) = X at a global minimiser X", "derived here"
    if reason := too_long(problem, s) or _not_brute(problem, penalty):
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    X = on_support(problem, best_mask(problem, penalty))
    after = iht.step(problem, penalty, s, iht.State(X, X)).x
    scale = float((np.abs(X) + np.abs(problem.W0)).sum()) * (1 + s * float(np.abs(problem.H).sum()))
    return Certificate(name, claim, where, float(np.abs(after - X).max()), 0.0, allowance(scale, X.size))


def coordinatewise_minimum(problem: LayerProblem, penalty: L0) -> Certificate:
    """A global minimiser has |X_i| >= sqrt(2 lam / H_ii), grad_i = 0 on S, |grad_i f| <= sqrt(2 lam H_ii) off S.

    The weights on the best support are the solver's own least squares (`least_squares_exact`). Assumptions: at most
    10 inputs, H positive definite, no drift. Measured: the worst violation, all clauses in units of the gradient.
    Where: Beck, Eldar 2013, sec. 2.3 (CW-minima). Tight: bound 0. The converse is false.
    """
    name, claim = "coordinatewise-minimum", "a global minimiser is optimal in every coordinate, in closed form"
    where = "Beck, Eldar 2013, sec. 2.3"
    if reason := _not_brute(problem, penalty):
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    S = best_mask(problem, penalty)
    X = linalg.least_squares_exact(problem, S)
    H, g = np.broadcast_to(np.diag(problem.H), X.shape), np.abs(problem.grad(X))
    on, short = g[S].max(initial=0.0), (np.sqrt(2 * penalty.lam * H) - H * np.abs(X))[S].max(initial=0.0)
    off = (g - np.sqrt(2 * penalty.lam * H))[~S].max(initial=0.0)
    scale = float(((np.abs(X) + np.abs(problem.W0)) @ np.abs(problem.H)).max()) * float(np.linalg.cond(problem.H))
    return Certificate(name, claim, where, float(max(on, short, off)), 0.0, allowance(scale, X.size))


def step_limit_sharp(s_times_L: float) -> Certificate:
    """For every s L > 1 there are f and lam for which an IHT step raises F, by (sL - 1)^2 / 2 + lam - 1/2 exactly.

    f = (x - 1)^2 / 2, x = 0, lam between (1 - (sL - 1)^2) / 2 and sL / 2. Assumptions: 1 < s L <= 2 (at s L <= 1 the
    interval is empty). Measured: -(F(x_1) - F(x_0)). Where: derived here. Tight: equality.
    """
    name, claim, where = "step-limit-sharp", "F(x_0) - F(x_1) <= -((sL - 1)^2 / 2 + lam - 1/2) < 0", "derived here"
    if not 1 < s_times_L <= 2:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"step * L = {s_times_L:.3g} is not in (1, 2]")
    problem, penalty, x = ascent_problem(s_times_L)
    after = iht.step(problem, penalty, s_times_L, iht.State(x, x)).x
    rise = problem.value(after) + penalty.value(after) - problem.value(x) - penalty.value(x)
    bound = -((s_times_L - 1) ** 2 / 2 + penalty.lam - 0.5)
    return Certificate(name, claim, where, -rise, bound, allowance(1 + penalty.lam, 1))


def convex_step(problem: LayerProblem, penalty: L1, x: Array, s: float) -> Certificate:
    """F(v) - F(x) <= -(1/s - L/2) |v - x|^2 for a proximal step with an L1 penalty: the limit is 2/L, not 1/L.

    Assumptions: s L <= 2. Why: 0 is in grad f(x) + (v - x)/s + subgradient of g at v. Where: derived here. Upper bound;
    equality without penalty along the top eigenvector.
    """
    name, claim, where = "convex-step", "F(v) - F(x) <= -(1/s - L/2) |v - x|^2 for an L1 penalty", "derived here"
    if reason := too_long(problem, s, 2.0):
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    v = iht.step(problem, penalty, s, iht.State(x, x)).x
    d = np.abs(v - x)
    bound = -(1 / s - problem.lipschitz / 2) * float(np.square(d).sum())
    reached = (np.abs(x - problem.W0) + d) @ np.abs(problem.H)
    scale = float(np.vdot(reached, d)) + penalty.value(x) + penalty.value(v) + float(np.square(d).sum()) / s
    difference = problem.change(x, v) + penalty.value(v) - penalty.value(x)
    return Certificate(name, claim, where, difference, bound, allowance(scale, x.size))


def _not_brute(problem: LayerProblem, penalty: L0) -> str:
    if len(problem.H) > BRUTE:
        return f"inputs = {len(problem.H)} > {BRUTE}"
    if problem.R is not None:
        return "the problem has drift"
    m = float(np.linalg.eigvalsh(problem.H)[0])
    return "" if m > allowance(float(np.trace(problem.H)), len(problem.H)) else f"lambda_min(H) = {m:.3g}"


def _radius(case: Case) -> Iterator[Certificate]:
    X = on_support(case.judge, case.budgets[0].mask(np.abs(case.judge.W0)))
    D = case.rng(9).standard_normal((4, *X.shape))
    D[2:] *= case.rng(10).random(D[2:].shape) < 1 / X.size
    g = steepest(case.judge, X) * case.judge.grad(X)
    for lam in (case.penalty.lam, float(np.square(g).sum()) / (20 * float(np.diag(case.judge.H).max()))):
        yield local_minimum_radius(case.judge, L0(lam), X, D)


def _rests(case: Case) -> Iterator[Certificate]:
    for safety in (0.3, 0.95):
        yield global_minimum_rests(case.judge, case.penalty, safety / case.judge.lipschitz)
    problem, penalty, _ = ascent_problem(1.9)
    yield global_minimum_rests(problem, penalty, 0.95 / problem.lipschitz)


def _sharp(case: Case) -> Iterator[Certificate]:
    yield step_limit_sharp(2 - float(case.rng(11).uniform(0, 1)))


def _convex_step(case: Case) -> Iterator[Certificate]:
    problem, x = case.judge, case.some_weight()
    for safety in (0.95, 1.9):
        yield convex_step(problem, case.absolute, x, safety / problem.lipschitz)
    top = np.linalg.eigh(problem.H)[1][:, -1]
    yield convex_step(problem, L1(0.0), problem.W0 + top, 1.9 / problem.lipschitz)


CHECKS: dict[str, Check] = {
    "local-minimum-radius": _radius,
    "global-minimum-rests": _rests,
    "coordinatewise-minimum": lambda case: iter([coordinatewise_minimum(case.judge, case.penalty)]),
    "step-limit-sharp": _sharp,
    "convex-step": _convex_step,
}
