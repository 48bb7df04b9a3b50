"""When the support is found: magnitude floor, number of changes, the ball in which one step finds it, nested supports.

Letters: x_t iterate, S support of a fixed point X, s step, L >= lambda_max(H), tau = sqrt(2 lam s) the hard threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, sqrt

import numpy as np

from solvers import aiht, iht
from solvers.problem import LayerProblem
from solvers.sparsity import L0, Array, KeepPerRow, Mask
from theory_checks.certificate import Certificate, allowance
from theory_checks.paths import iterates, on_support, too_long, walk
from theory_checks.synthetic import Case, Check, ascent_problem

LU = "Lu 2014, Thm 3.4"
INSIDE = 1 - 2.0**-10  # a ball is open: so far towards its surface


def magnitude_floor(problem: LayerProblem, penalty: L0, x: Array, s: float, n: int = 40) -> Certificate:
    """From the first iterate on, every nonzero of IHT is at least tau = sqrt(2 lam s) in magnitude.

    Assumptions: none; x_0 itself is exempt. Why: the prox sets anything smaller to zero. Measured: the largest
    shortfall tau - |x_i|. Where: Lu 2014. Tight: bound 0 is approached.
    """
    name, claim = "magnitude-floor", "every nonzero of x_1, x_2, ... is at least sqrt(2 lam s) in magnitude"
    path = np.abs(iterates(walk(iht.step, iht.State(x, x), problem, penalty, s, n)))[1:]
    tau = sqrt(2 * penalty.lam * s)
    shortfall = float(np.where(path > 0, tau - path, -tau).max())
    return Certificate(name, claim, LU, shortfall, 0.0, allowance(tau, 1))


def support_changes(problem: LayerProblem, penalty: L0, x: Array, s: float, n: int = 60) -> Certificate:
    """After the first step the support of IHT changes at most floor((F(x_1) - inf f) / (lam (1 - sL))) times.

    Assumptions: s L < 1, lam > 0, no drift (then inf f = e0). Why: a change moves an entry by tau at least, and pays
    (1/s - L) tau^2 / 2 = lam (1 - sL) by sufficient decrease. Where: Lu 2014, constant re-derived. Upper bound.
    """
    name, claim = "support-changes", "changes of the support after the first step <= (F(x_1) - inf f) / (lam (1 - sL))"
    price = penalty.lam * (1 - s * problem.lipschitz)
    if price <= 0 or problem.R is not None:
        reason = f"lam (1 - sL) = {price:.3g}" if price <= 0 else "the problem has drift"
        return Certificate(name, claim, LU, 0.0, 0.0, applies=reason)
    path = iterates(walk(iht.step, iht.State(x, x), problem, penalty, s, n))
    changes = ((path[2:] != 0) != (path[1:-1] != 0)).any(axis=(1, 2)).sum()
    F = problem.value(path[1]) + penalty.value(path[1])
    rounding = allowance(problem.magnitude(path[1]) + F, x.size) / price
    return Certificate(name, claim, LU, float(changes), float(floor((F - problem.e0) / price + rounding)))


def ball(problem: LayerProblem, sparsity: L0 | KeepPerRow, X: Array, s: float) -> float:
    """Radius around a fixed point X in which one IHT step lands on the support of X."""
    kept, pull = _margins(problem, X, s)
    if isinstance(sparsity, L0):
        tau = sqrt(2 * sparsity.lam * s)
        return float(min((kept - tau).min(), (tau - pull).min()))
    full = np.count_nonzero(X, axis=1) >= sparsity.keep
    return float((np.where(full, kept, 0.0) - pull).min()) / sqrt(2)


def identification_ball(problem: LayerProblem, sparsity: L0 | KeepPerRow, X: Array, s: float, D: Array) -> Certificate:
    """One IHT step from any x with |x - X| < radius has the support of the fixed point X.

    radius = min(min_S |X_i| - tau, tau - s max |grad_i f|) with a penalty, (min_S |X_i| - s max |grad_i f|) / sqrt 2
    under a budget. Assumptions: grad_S f(X) = 0, radius > 0, s L <= 2. Why: x - s grad f(x) expands no distance.
    Measured: entries that differ, over the adversarial direction and those of D (k, out, in). Where: derived here.
    Tight: bound 0, and the radius cannot grow as s L goes to 0.
    """
    name, claim, where = (
        "identification-ball",
        "x within the radius of X: supp of the next iterate = supp X",
        "derived here",
    )
    radius = ball(problem, sparsity, X, s)
    scale = float(np.abs(X).max() + s * (np.abs(X - problem.W0) @ np.abs(problem.H)).max())
    reason = too_long(problem, s, 2.0)
    if not (1 - INSIDE) * radius > allowance(scale, X.size) or radius == np.inf:
        reason = reason or f"the radius is {radius:.3g}"
    if reason:
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    differing = 0
    for d in (*adversarial(problem, sparsity, X, s), *D):
        x = X + INSIDE * radius * d / np.sqrt(np.square(d).sum())
        after = iht.step(problem, sparsity, s, iht.State(x, x)).x
        differing = max(differing, int(np.count_nonzero((after != 0) != (X != 0))))
    return Certificate(name, claim, where, float(differing), 0.0)


def adversarial(problem: LayerProblem, sparsity: L0 | KeepPerRow, X: Array, s: float) -> list[Array]:
    """Directions that shrink the smallest kept entry and push the strongest removed one, before the step contracts."""
    out, into = np.zeros_like(X), np.zeros_like(X)
    kept, pull = _margins(problem, X, s)
    g = problem.grad(X)
    row = int(np.argmin(kept - pull)) if isinstance(sparsity, KeepPerRow) else int(np.argmin(kept))
    i = int(np.argmin(np.where(X[row] != 0, np.abs(X[row]), np.inf)))
    out[row, i] = -np.sign(X[row, i])
    row = row if isinstance(sparsity, KeepPerRow) else int(np.argmax(pull))
    j = int(np.argmax(np.where(X[row] == 0, np.abs(g[row]), -np.inf)))
    into[row, j] = -np.sign(g[row, j]) if X[row, j] == 0 else 0.0
    wanted = [out + into] if isinstance(sparsity, KeepPerRow) else [out, into]
    images = [d - s * d @ problem.H for d in wanted if d.any()]
    return [d for d in images if d.any()]


def nested_supports(problem: LayerProblem, penalty: L0, x: Array, s: float, n: int = 40) -> Certificate:
    """The supports of IHT, and of z_t of Yang and Yu's two forms, only shrink, from any x_0 on.

    Assumptions: s <= 2 lam / G^2, G = max |grad f| over the points from which steps were taken, measured afterwards.
    Why: where w_i = 0 the step reaches s |grad_i f| <= sqrt(2 lam s), which the prox sets to zero. Measured: entries
    that are born again. Where: Yang, Yu 2019, Lemma 1 and Thm 3. Tight: bound 0.
    """
    name, claim, where = "nested-supports", "supp z_{t+1} is within supp z_t for every t", "Yang, Yu 2019, Lemma 1"
    plain = iterates(walk(iht.step, iht.State(x, x), problem, penalty, s, n))
    runs = [walk(step, aiht.start(x), problem, penalty, s, n) for step in (aiht.step, aiht.nonmonotone_step)]
    z = [np.array([k.z for k in states]) for states in runs]
    w = [np.where(k.z != 0, _extrapolated(k), 0.0) for states in runs for k in states]
    G = max(float(np.abs(problem.grad(y)).max()) for y in (*plain, *w))
    if not s * G**2 <= 2 * penalty.lam:
        return Certificate(
            name, claim, where, 0.0, 0.0, applies=f"s G^2 = {s * G**2:.3g} > 2 lam = {2 * penalty.lam:.3g}"
        )
    born = sum(int(np.count_nonzero((path[1:] != 0) & (path[:-1] == 0))) for path in (plain, *z))
    return Certificate(name, claim, where, float(born), 0.0)


def _extrapolated(k: aiht.State) -> Array:
    a: Array = k.x + k.t_prev / k.t * (k.z - k.x) + (k.t_prev - 1) / k.t * (k.x - k.x_prev)
    return a


def _margins(problem: LayerProblem, X: Array, s: float) -> tuple[Array, Array]:
    """Per row: the smallest kept magnitude, and the strongest pull s |grad_i f| on a removed entry."""
    kept = np.where(X != 0, np.abs(X), np.inf).min(axis=1)
    pull = np.where(X == 0, s * np.abs(problem.grad(X)), -np.inf).max(axis=1)
    return kept, pull


def fixed(problem: LayerProblem, mask: Mask, share: float) -> tuple[Array, float, L0]:
    """The least squares X on a mask, a step s <= share / L and a penalty under which X is a fixed point of IHT."""
    X = on_support(problem, mask)
    least = float(np.abs(X[mask]).min(initial=np.inf))
    pull = float(np.abs(problem.grad(X)[~mask]).max(initial=0.0))
    s = share / problem.lipschitz
    if pull > 0 and 0 < least < np.inf:
        s = min(s, least / (2 * pull))
    tau = (min(least, 4 * s * pull + 1) + s * pull) / 2
    return X, s, L0(tau**2 / (2 * s))


def reborn() -> tuple[LayerProblem, L0, Array, float]:
    """A slope of 1/2, tau = s = 1, one weight that runs down it: without the projection momentum carries it past 0."""
    zero = np.zeros((1, 1))
    return LayerProblem(zero, LayerProblem.of(zero, zero).gram, R=zero + 0.5), L0(0.5), zero + 6.0, 1.0


def theorem_step(problem: LayerProblem, penalty: L0, x: Array) -> float:
    """min(2 lam / G^2, 1/L) with G^2 = 2 F(x) max H_jj, which bounds |grad f|^2 wherever F <= F(x)."""
    G2 = 2 * (problem.value(x) + penalty.value(x)) * float(np.diag(problem.H).max())
    return min(2 * penalty.lam / G2, 1 / problem.lipschitz) if G2 > 0 else 1 / problem.lipschitz


def _floor(case: Case) -> Iterator[Certificate]:
    for x in (case.judge.W0, case.some_weight()):
        yield magnitude_floor(case.judge, case.penalty, x, 0.95 / case.judge.lipschitz)


def _changes(case: Case) -> Iterator[Certificate]:
    for x in (case.judge.W0, case.some_weight()):
        yield support_changes(case.judge, case.penalty, x, 0.95 / case.judge.lipschitz)
    problem, penalty, x = ascent_problem(1.9)
    yield support_changes(problem, penalty, x, 0.95 / problem.lipschitz)


def _ball(case: Case) -> Iterator[Certificate]:
    mask = case.budgets[0].mask(np.abs(case.judge.W0))
    directions = case.rng(8).standard_normal((3, *case.W0.shape))
    for share in (0.05, 0.95):
        X, s, penalty = fixed(case.judge, mask, share)
        for sparsity in (penalty, KeepPerRow(case.budgets[0].keep)):
            yield identification_ball(case.judge, sparsity, X, s, directions)


def _nested(case: Case) -> Iterator[Certificate]:
    for x in (case.judge.W0, case.some_weight()):
        yield nested_supports(case.judge, case.penalty, x, theorem_step(case.judge, case.penalty, x))
    yield nested_supports(*reborn())


CHECKS: dict[str, Check] = {
    "magnitude-floor": _floor,
    "support-changes": _changes,
    "identification-ball": _ball,
    "nested-supports": _nested,
}
