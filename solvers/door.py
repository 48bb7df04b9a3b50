"""From a layer and a budget to weights: choose, run, refine, map back. The one-call door is `solve`."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

import solvers
from solvers.array import like, to_numpy
from solvers.linalg import require_positive_semidefinite, symmetric
from solvers.methods import Method
from solvers.problem import LayerProblem
from solvers.refine import refine as refined_on
from solvers.refine import steps_of
from solvers.refusal import Refusal
from solvers.solution import Solution
from solvers.sparsity import GRAMMAR, L0, L1, Array, Budget, Sparsity, Target, parse


class Run(NamedTuple):
    """One layer solved, with everything a certificate needs to judge it.

    Attributes
    ----------
    problem : the layer on the unit-diagonal Gram with ridge mu, where every method is judged
    sparsity : the exact budget or the penalty
    found : what the method found, in the coordinates of `problem`
    refined : (out, in) the weights after `refine`, same coordinates
    weight : (out, in) the same weights in the layer's own coordinates
    """

    problem: LayerProblem
    sparsity: Sparsity
    found: Solution
    refined: Array
    weight: Array


def run(
    method: Method,
    problem: LayerProblem,
    sparsity: Sparsity,
    *,
    refine: str = "none",
    mu: float = 0.1,
    **options: Any,
) -> Run:
    """Run `method` on a problem in the layer's own coordinates, then refine on the support that it found.

    Weights that a one-shot method merely kept come back bit for bit.
    """
    judge = problem.normalised(mu)
    raw = method.run(judge if method.normalised else problem, sparsity, **options)
    found = raw if method.normalised else Solution(judge.scaled(raw.weight), raw.stop)
    refined = refined_on(judge, found.weight != 0, found.weight, refine)
    untouched = refine == "none" and not method.normalised
    weight = raw.weight if untouched else judge.original(refined)
    return Run(judge, sparsity, found, refined, np.where(weight == 0, 0.0, weight))


def solve(
    weight: Any,
    gram: Any,
    *,
    method: str = "maiht",
    sparsity: str | Sparsity = "50%",
    refine: str = "none",
    mu: float = 0.1,
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
    mu : ridge on the unit-diagonal Gram, centred at the dense weight (0.1 in Wen, Zuo, Pan 2025)
    **options : hyper-parameters of the method, see its docstring

    Returns
    -------
    Solution
        `weight` in the library, dtype and device of the input; `trace` in the coordinates of the normalised problem.

    Raises
    ------
    Refusal
        On NaN, wrong shapes, an indefinite Gram, an impossible budget, an unknown name or option.

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
    steps_of(refine)
    _require_possible(budget, problem.shape)
    done = run(chosen, problem, budget, refine=refine, mu=mu, **chosen.read_options(method, options))
    return Solution(like(done.weight, weight), done.found.stop, done.found.trace)


def _require_possible(sparsity: Sparsity, shape: tuple[int, int]) -> None:
    if isinstance(sparsity, L0 | L1) and 0 <= sparsity.lam < float("inf"):
        return
    if not isinstance(sparsity, Budget) or not isinstance(sparsity.keep, Integral):
        raise Refusal(f"sparsity is {GRAMMAR}, or an instance such as L0(0.01) or KeepPerRow(8); got {sparsity!r}.")
    sparsity.mask(np.zeros(shape))
    if not 0 <= sparsity.keep <= sparsity.most(shape):
        raise Refusal(f"a layer of shape {shape} can keep 0 to {sparsity.most(shape)}; got {sparsity}.")
