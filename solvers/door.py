"""From a layer and a budget to weights: choose, run, refine, swap, map back. The one-call door is `solve`.

The search runs with the ridge mu, refinement and swaps with their own, refine_mu: a strong ridge finds better supports,
a weak one better weights on them. Both ridges are centred at the dense weight, in the same coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

import solvers
from solvers import rungs
from solvers.array import Place, like, to_numpy
from solvers.gpu.refine import refine as fast_refined_on
from solvers.gpu.swaps import swaps as fast_swapped_on
from solvers.linalg import require_positive_semidefinite, symmetric
from solvers.methods import Method, near
from solvers.problem import LayerProblem
from solvers.refine import refine as refined_on
from solvers.refine import refinement
from solvers.refusal import Refusal
from solvers.solution import Solution
from solvers.sparsity import GRAMMAR, L0, L1, Array, Budget, Mask, Sparsity, Target, parse
from solvers.swaps import most_of
from solvers.swaps import swaps as swapped_on

REFINE_MU = 1e-2  # within 0.3 % of the least held-out error over 0 to 0.1, from 4 k and from 33 k calibration tokens
SOLVERS = ("reference", "fast")


class Run(NamedTuple):
    """One layer solved, with everything a certificate needs to judge it.

    Attributes
    ----------
    problem : the layer on the unit-diagonal Gram with ridge mu, where every search is judged
    sparsity : the exact budget or the penalty
    found : what the method found, in the coordinates of `problem`
    refined : (out, in) the weights after `refine`, same coordinates
    weight : (out, in) the last weights in the layer's own coordinates
    refit : the layer with ridge refine_mu in the same coordinates, where `refined` and `swapped` are judged;
        it is `problem` where nothing was refined
    swapped : (out, in) the weights after swaps, same coordinates; it is `refined` where none were asked for
    gains : for every row the decrease of f by each of its swaps, judged on `refit`; None where none were asked for
    ended : (out,) rows that have no improving swap left; all False where none were asked for
    """

    problem: LayerProblem
    sparsity: Sparsity
    found: Solution
    refined: Array
    weight: Array
    refit: LayerProblem
    swapped: Array
    gains: list[Array] | None
    ended: Mask


def run(
    method: Method,
    problem: LayerProblem | Callable[[], LayerProblem],
    sparsity: Sparsity,
    *,
    refine: str = "none",
    swaps: int | str = 0,
    mu: float = 0.1,
    refine_mu: float = REFINE_MU,
    place: Place | None = None,
    **options: Any,
) -> Run:
    """Run `method` on a problem in the layer's own coordinates, then refine and swap from the support that it found.

    A problem that is handed over as the function that makes it is in memory only until its last use.

    With a `place` whatever has a fast twin is done by it there: the search, unless the method is one formula,
    refinement to the residual of the reference, and swaps.

    Weights that a one-shot method merely kept come back bit for bit. With swaps, refine is ``exact``. Where the inputs
    drifted, W0 gives way to W~, the weight that makes good for the drift best (ridge mu, centred at W0): every method
    that knows a Gram prunes W~ as it would prune W0.
    """
    how, most = refinement(refine, swaps), most_of(swaps)
    problem = problem() if callable(problem) else problem
    search = method.run if place is None or method.gpu is None else partial(method.gpu, place=place)
    first = not method.normalised and problem.R is None  # so that the unit-diagonal Gram is not there beside the search
    raw = search(problem, sparsity, **options) if first else None
    judge, own = problem.normalised(mu), problem
    if method.prunes and problem.R is not None:
        judge = judge.recentred()
        own = problem.around(judge.original(judge.W0))
    raw = raw or search(judge if method.normalised else own, sparsity, **options)
    refit = judge if how == "none" else problem.normalised(refine_mu).recentred()
    del problem, own
    found = raw if method.normalised else replace(raw, weight=judge.scaled(raw.weight), trace=None)
    refining = refined_on if place is None else partial(fast_refined_on, place=place)
    refined = refining(refit, found.weight != 0, found.weight, how)
    swapping = swapped_on if place is None else partial(fast_swapped_on, place=place.on_host)
    swapped, gains = (refined, None) if most == 0 else swapping(refit, sparsity, refined, most)
    ended = np.array([len(row) != most for row in gains or ()] or [False] * len(refined))
    untouched = how == "none" and not method.normalised
    weight = _with_plain_zeros(raw.weight if untouched else judge.original(swapped))
    return Run(judge, sparsity, found, refined, weight, refit, swapped, gains, ended)


def solve(
    weight: Any,
    gram: Any,
    *,
    method: str = "maiht",
    sparsity: str | Sparsity = "50%",
    refine: str = "none",
    swaps: int | str = 0,
    mu: float = 0.1,
    refine_mu: float = REFINE_MU,
    solver: str = "reference",
    precision: str = "auto",
    **options: Any,
) -> Solution:
    """Prune one layer.

    Parameters
    ----------
    weight : (out, in) array of NumPy, torch, CuPy or any array-API library; y = W x
    gram : (in, in) mean Gram of the layer's inputs, X'X / tokens
    method : a name of `solvers.METHODS`
    sparsity : ``50%`` per output row, ``50%/layer``, ``2:4``; or an instance such as ``L0(0.01)``
    refine : ``none``, ``gradient:30`` or ``exact``, on the support that was found
    swaps : exchanges of a kept for a removed input that every row may make after an exact refit, or ``all``
    mu : ridge of the search on the unit-diagonal Gram, centred at the dense weight (0.1 in Wen, Zuo, Pan 2025)
    refine_mu : ridge of refinement and swaps, of the same kind
    solver : ``reference``, NumPy in float64; or ``fast``: whatever has a fast twin is done by it, in the library and
        on the device of `weight`
    precision : of the twins' products with the Gram, a rung of `solvers.rungs`; ``auto``: float64 for a float64
        weight, otherwise the cheapest on the device that keeps the certificates
    **options : hyper-parameters of the method, see its docstring

    Returns
    -------
    Solution
        `weight` in the library, dtype and device of the input; `trace` in the coordinates of the normalised problem.

    Raises
    ------
    Refusal
        On NaN, wrong shapes, an indefinite Gram, an impossible budget, an unknown name or option; where swaps need
        the inverse of a singular Gram.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> X = np.random.default_rng(0).standard_normal((64, 8))
    >>> W = np.random.default_rng(1).standard_normal((4, 8))
    >>> pruned = solvers.solve(W, X.T @ X / 64, sparsity="50%")
    >>> (pruned.weight == 0).sum(axis=1)
    array([4, 4, 4, 4])
    """
    chosen = solvers.find(method)
    W0, H = to_numpy(weight, "weight"), to_numpy(gram, "gram")
    problem = LayerProblem.of(W0, symmetric(H))
    require_positive_semidefinite(problem.H)
    target = parse(sparsity) if isinstance(sparsity, str) else sparsity
    budget = target.on(problem.shape) if isinstance(target, Target) else target
    chosen.require(method, budget)
    refinement(refine, swaps)
    _require_possible(budget, problem.shape)
    options = chosen.read_options(method, options)
    wide = precision == "auto" and "float64" in str(weight.dtype)
    place = place_of(solver, weight, "fp64" if wide else precision)
    done = run(chosen, problem, budget, refine=refine, swaps=swaps, mu=mu, refine_mu=refine_mu, place=place, **options)
    return Solution(like(done.weight, weight), done.found.stop, done.found.trace)


def _with_plain_zeros(W: Array) -> Array:
    """W with +0.0 in the place of every -0.0; a copy only where there is one."""
    return W + 0.0 if (np.signbit(W) & (W == 0)).any() else W


def place_of(solver: str, array: Any, precision: str = "auto") -> Place | None:
    """Where ``fast`` computes: the library and device of `array`, at `precision`; None for the ``reference``."""
    precision = precision_of(solver, precision, array_api_compat.device(array))
    return Place.of(array, precision) if solver == "fast" else None


def precision_of(solver: str, precision: str, device: Any) -> str:
    """The rung of a solver's products with the Gram; the reference has one."""
    if solver not in SOLVERS:
        raise Refusal(f"the solver is one of {', '.join(SOLVERS)}; got '{solver}'.{near(str(solver), SOLVERS)}")
    rung = "fp64" if solver == "reference" and precision == "auto" else rungs.resolve(precision, device)
    if solver == "reference" and rung != "fp64":
        raise Refusal(f"the reference solver computes in fp64; precision {rung} needs the fast solver. Choose one.")
    return rung


def _require_possible(sparsity: Sparsity, shape: tuple[int, int]) -> None:
    if isinstance(sparsity, L0 | L1) and 0 <= sparsity.lam < float("inf"):
        return
    counts = [getattr(sparsity, name, 0) for name in ("keep", "of")]
    if not isinstance(sparsity, Budget) or not all(isinstance(count, Integral) for count in counts):
        raise Refusal(
            f"sparsity is {GRAMMAR}, or an instance such as L0(0.01) or KeepPerRow(8), counts whole; got {sparsity!r}."
        )
    sparsity.mask(np.zeros(shape))
    if not 0 <= sparsity.keep <= sparsity.most(shape):
        raise Refusal(f"a layer of shape {shape} can keep 0 to {sparsity.most(shape)}; got {sparsity}.")
