"""Phase diagrams of exact support recovery: who finds a sparse truth, by undersampling n/p and sparsity k/n.

Letters: p inputs, n observations, k nonzeros of a truth w; y = X w without noise, X normal with columns of norm
sqrt(n), H = X'X / n. The trials of a cell are the rows of one layer: many truths seen through one design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.records import Record, make_record
from solvers import fista, iht, maiht, omp
from solvers.problem import LayerProblem
from solvers.sparsity import L1, Array, KeepPerRow, Mask, largest
from theory_checks.planted import gaussian
from theory_checks.synthetic import Rng

ITERATIONS = 200
SAFETY = 0.95  # of the step: s = SAFETY / L
SHRINKAGE = 0.01  # lam as a share of the smallest penalty under which the Lasso is zero
COUNT = 12  # cells along either axis
WIDTH, TRIALS = 100, 20
LARGEST_SHARE = 0.6  # of k/n: beyond it nobody recovers anything

Say = Callable[[int, int, str], None]


def by_iht(problem: LayerProblem, k: int) -> Array:
    """IHT with k nonzeros a row from 0."""
    x = np.zeros(problem.shape)
    s, state = SAFETY / problem.lipschitz, iht.State(x, x)
    for _ in range(ITERATIONS):
        state = iht.step(problem, KeepPerRow(k), s, state)
    return state.x


def by_maiht(problem: LayerProblem, k: int) -> Array:
    """mAIHT with k nonzeros a row from 0, where every row has the safeguard of its own that a run on it alone has."""
    x = np.zeros(problem.shape)
    s, state = SAFETY / problem.lipschitz, maiht.State(x, x, x, x)
    for _ in range(ITERATIONS):
        state = maiht.step(problem, KeepPerRow(k), s, state)
        better = row_values(problem, state.z) <= row_values(problem, state.v)
        state = state._replace(x=np.where(better[:, None], state.z, state.v))
    return state.x


def by_fista(problem: LayerProblem, k: int) -> Array:
    """FISTA on f + lam |w|_1 from 0, then the k largest magnitudes of every row."""
    x = np.zeros(problem.shape)
    s, state = SAFETY / problem.lipschitz, fista.start(x)
    lam = SHRINKAGE * float(np.abs(problem.grad(x)).max())
    for _ in range(ITERATIONS):
        state = fista.step(problem, L1(lam), s, state)
    return KeepPerRow(k).prox(state.x)


def by_omp(problem: LayerProblem, k: int) -> Array:
    """OMP, k rounds."""
    return omp.omp(problem, KeepPerRow(k)).weight


METHODS: dict[str, Callable[[LayerProblem, int], Array]] = {
    "IHT": by_iht,
    "mAIHT": by_maiht,
    "FISTA": by_fista,
    "OMP": by_omp,
}


def row_values(problem: LayerProblem, W: Array) -> Array:
    """(out,) f of every row by itself, without drift."""
    D = W - problem.W0
    return np.asarray(((D @ problem.H) * D).sum(axis=1) / 2)


def truths(rng: Rng, trials: int, p: int, k: int) -> Array:
    """(trials, p) k nonzeros a row at random places, uniform in [0.5, 1.5] with random signs."""
    places = largest(rng.random((trials, p)), k)
    sizes = rng.uniform(0.5, 1.5, (trials, p)) * rng.choice([-1.0, 1.0], (trials, p))
    return np.where(places, sizes, 0.0)


def instance(seed: int, n: int, k: int, *, p: int = WIDTH, trials: int = TRIALS) -> LayerProblem:
    """The layer with gradient H (x - w): centred at the truths, so that f(x) = |X (x - w)|^2 / 2n, a row a trial."""
    rng = np.random.default_rng([seed, 91, n, k])
    X = gaussian(rng, n, p)
    X *= np.sqrt(n) / np.linalg.norm(X, axis=0)
    H = X.T @ X / n
    return LayerProblem.of(truths(rng, trials, p, k), (H + H.T) / 2)


def recovered(found: Array, truth: Array) -> Mask:
    """(trials,) whether the support is the true one, entry by entry."""
    exact: Mask = ((found != 0) == (truth != 0)).all(axis=1)
    return exact


def recovery_maps(
    seed: int,
    *,
    count: int = COUNT,
    p: int = WIDTH,
    trials: int = TRIALS,
    progress: Say = lambda done, of, what: None,
) -> Iterator[Record]:
    """A record of the benchmark ``recovery`` per method: the share of trials recovered in every cell.

    ``success[i][j]`` belongs to ``sparsity[i]`` = k/n and ``undersampling[j]`` = n/p.
    """
    undersampling = [(j + 1) / count for j in range(count)]
    sparsity = [LARGEST_SHARE * (i + 1) / count for i in range(count)]
    success = {name: np.zeros((count, count)) for name in METHODS}
    for i, j in np.ndindex(count, count):
        progress(i * count + j, count**2, "recovery")
        n = round(undersampling[j] * p)
        k = max(1, round(sparsity[i] * n))
        problem = instance(seed, n, k, p=p, trials=trials)
        for name, method in METHODS.items():
            success[name][i, j] = recovered(method(problem, k), problem.W0).mean()
    axes = {"undersampling": rounded(undersampling), "sparsity": rounded(sparsity)}
    for name, shares in success.items():
        yield make_record("recovery", method=name, seed=seed, p=p, trials=trials, **axes, success=shares)


def rounded(values: list[float]) -> list[float]:
    """Six significant digits, all that a picture shows."""
    return [float(f"{value:.6g}") for value in values]
