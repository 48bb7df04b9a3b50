"""The claims that a pruned layer must answer for: the functions of the toys, on real weights.

What the search found is judged with the search's ridge, `run.problem`; what refinement and swaps made of it with
theirs, `run.refit`. Saved weights are judged on `run.refit` too, which is `run.problem` where nothing was refined.
"""

from __future__ import annotations

from solvers.door import Run
from solvers.linalg import RESIDUAL
from solvers.methods import Method
from solvers.problem import LayerProblem
from solvers.sparsity import Array, Sparsity
from theory_checks.certificate import Certificate
from theory_checks.descent import (
    magnitudes,
    objective_recomputed,
    residual_rate,
    safeguard,
    step_size,
    sufficient_decrease,
)
from theory_checks.duality import relaxation
from theory_checks.exchange import one_swap_sampled, swaps_descend
from theory_checks.optimality import lower_bound
from theory_checks.stationarity import fixed_point, masked_least_squares, refinement_descends
from theory_checks.support import exact_count


def certify(method: Method, run: Run, refine: str, sampled: Run | None = None) -> list[Certificate]:
    """Every claim about the way a layer was solved, on float64 weights before they are saved.

    Parameters
    ----------
    run : arrays of NumPy, or of a library that answers to NumPy's functions
    sampled : the same run in NumPy, where `run` is not: some of its rows are gone through exchange by exchange
    """
    problem, sparsity, found = run.problem, run.sparsity, run.found
    rows = sampled or run
    scale = None if found.trace is None else magnitudes(problem, sparsity, found)
    certificates = [
        sufficient_decrease(problem, sparsity, found, scale),
        safeguard(problem, sparsity, found, scale),
        residual_rate(problem, sparsity, found, scale),
        fixed_point(problem, sparsity, found),
    ]
    if "descends" in method.promises:
        certificates += [step_size(problem, found), objective_recomputed(problem, sparsity, found, scale)]
    if found.relaxed is not None:
        certificates += relaxation(found.relaxed)
    if refine != "none" or run.gains is not None:
        certificates.append(refinement_descends(run.refit, found.weight, run.refined))
    if run.gains is not None:
        certificates += [
            swaps_descend(run.refit, sparsity, run.refined, run.swapped, run.gains),
            one_swap_sampled(rows.refit, sparsity, rows.swapped, rows.ended),
            masked_least_squares(run.refit, run.swapped != 0, run.swapped, tol=RESIDUAL),
        ]
    elif refine == "exact":
        certificates.append(masked_least_squares(run.refit, found.weight != 0, run.refined, tol=RESIDUAL))
    return certificates


def certify_saved(problem: LayerProblem, sparsity: Sparsity, saved: Array) -> list[Certificate]:
    """The claims about the weights that were saved, after the cast, in the layer's own coordinates.

    Parameters
    ----------
    problem : the layer on the unit-diagonal Gram with the ridge of the last stage, `Run.refit`
    saved : (out, in) the weights as they stand in the file, in any dtype that NumPy knows
    """
    return [
        exact_count(sparsity, problem.W0, saved),
        lower_bound(problem, sparsity, saved, own=True),
    ]
