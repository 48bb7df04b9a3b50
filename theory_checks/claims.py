"""The claims as a table: each name, with the synthetic layers on which `python -m theory_checks` evaluates it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from solvers.linalg import RESIDUAL
from solvers.sparsity import Sparsity
from theory_checks import (
    binary_penalty,
    cached,
    compensation,
    descent,
    duality,
    enumeration,
    envelope,
    envelope_cosine,
    equivalences,
    exchange,
    frank_wolfe,
    group_operators,
    identification,
    l1_penalty,
    linear,
    local,
    minima,
    optimality,
    optimality_gap,
    penalty_methods,
    projections,
    prox,
    rates,
    recovery,
    removal,
    restoration,
    risk,
    rungs,
    shrinkage,
    splitting,
    stationarity,
    stationary_risk,
    strong,
    support,
    swap_twin,
    top_k,
    twins,
    twins_refining,
    twins_updating,
)
from theory_checks.certificate import Certificate
from theory_checks.synthetic import Case, Check, ascent_problem

SAFETY = (0.3, 0.95, 1.0)


def _prox(case: Case) -> Iterator[Certificate]:
    sparsities: list[Sparsity] = [case.penalty, case.absolute, *case.budgets]
    for sparsity in sparsities:
        yield prox.prox_minimises(sparsity, case.some_weight(), float(case.rng(7).uniform(0.05, 2)))
        yield prox.prox_minimises(sparsity, case.W0, 1.0)


def _counts(case: Case) -> Iterator[Certificate]:
    for budget in case.budgets:
        for method in ("magnitude", "wanda", "iht", "maiht", "admm", "admm-released", "alps", "fista"):
            yield support.exact_count(budget, case.W0, case.run(method, budget).weight)
        for blocksize in (3, 128):
            yield support.exact_count(budget, case.W0, case.run("sparsegpt", budget, blocksize=blocksize).weight)
    for budget in case.budgets[1:]:
        yield support.exact_count(budget, case.W0, case.run("maiht-released", budget, step=0.0).weight)


def _steps(case: Case) -> Iterator[tuple[Sparsity, float]]:
    for sparsity in case.sparsities:
        for safety in SAFETY:
            yield sparsity, safety / case.judge.lipschitz


def _one_step(case: Case) -> Iterator[Certificate]:
    for sparsity, s in _steps(case):
        yield descent.one_step(case.judge, sparsity, case.state(sparsity).x, s)
    problem, penalty, x = ascent_problem(1.2)
    yield descent.one_step(problem, penalty, x, 1 / problem.lipschitz)


def _safeguarded_step(case: Case) -> Iterator[Certificate]:
    for sparsity, s in _steps(case):
        yield descent.safeguarded_step(case.judge, sparsity, case.state(sparsity), s)


def _on_runs(claim: Callable[..., Certificate]) -> Callable[[Case], Iterator[Certificate]]:
    def check(case: Case) -> Iterator[Certificate]:
        for method in ("iht", "maiht"):
            for sparsity in case.sparsities:
                for ramp in (0.0, 0.8):
                    run = case.run(method, sparsity, ramp=ramp, iters=50)
                    yield claim(run.problem, run.sparsity, run.found)

    return check


def _step_size(case: Case) -> Iterator[Certificate]:
    for method in ("iht", "maiht"):
        run = case.run(method, case.penalty, iters=1)
        yield descent.step_size(run.problem, run.found)


def _fixed_point(case: Case) -> Iterator[Certificate]:
    for method in ("iht", "maiht"):
        for sparsity in (case.penalty, case.budgets[0]):
            run = case.run(method, sparsity, ramp=0.0, iters=2000, tol=1e-10)
            yield stationarity.fixed_point(run.problem, run.sparsity, run.found)


def _least_squares(case: Case) -> Iterator[Certificate]:
    for method in ("magnitude", "wanda", "maiht"):
        run = case.run(method, case.budgets[0], refine="exact")
        yield stationarity.masked_least_squares(run.refit, run.found.weight != 0, run.refined, tol=RESIDUAL)


def _refinement(case: Case) -> Iterator[Certificate]:
    for how in ("gradient:30", "exact"):
        for method in ("wanda", "maiht"):
            run = case.run(method, case.budgets[0], refine=how)
            yield stationarity.refinement_descends(run.refit, run.found.weight, run.refined)


def _lower_bound(case: Case) -> Iterator[Certificate]:
    for method in ("wanda", "maiht"):
        for budget in case.budgets:
            run = case.run(method, budget, refine="exact")
            yield optimality.lower_bound(run.refit, budget, run.refined)
    run = case.run("maiht", case.penalty)
    yield optimality.lower_bound(run.problem, case.penalty, run.refined)


def _lipschitz(case: Case) -> Iterator[Certificate]:
    yield optimality.lipschitz_bound(case.problem)
    yield optimality.lipschitz_bound(case.judge)


def _token_form(case: Case) -> Iterator[Certificate]:
    yield equivalences.token_form(case.X, case.problem, case.some_weight())
    yield equivalences.token_form(case.X, case.problem, case.W0 + 1e-6 * case.some_weight())


def _normalisation(case: Case) -> Iterator[Certificate]:
    yield equivalences.normalisation(case.problem, 0.1, case.some_weight())


def _wanda(case: Case) -> Iterator[Certificate]:
    yield equivalences.first_step_is_wanda(case.problem, case.budgets[0], 0.1)


LAYERWISE: dict[str, Check] = {
    "prox-minimises": _prox,
    "exact-count": _counts,
    "one-step-descent": _one_step,
    "safeguarded-step": _safeguarded_step,
    "step-size": _step_size,
    "sufficient-decrease": _on_runs(descent.sufficient_decrease),
    "safeguard": _on_runs(descent.safeguard),
    "objective-recomputed": _on_runs(descent.objective_recomputed),
    "residual-rate": _on_runs(descent.residual_rate),
    "fixed-point": _fixed_point,
    "masked-least-squares": _least_squares,
    "refinement-descends": _refinement,
    "lower-bound": _lower_bound,
    "lipschitz-bound": _lipschitz,
    "token-form": _token_form,
    "normalisation": _normalisation,
    "first-step-is-wanda": _wanda,
}

CLAIMS: dict[str, Check] = {
    **LAYERWISE,
    **projections.CHECKS,
    **group_operators.CHECKS,
    **top_k.CHECKS,
    **restoration.CHECKS,
    **removal.CHECKS,
    **compensation.CHECKS,
    **splitting.CHECKS,
    **exchange.CHECKS,
    **envelope.CHECKS,
    **envelope_cosine.CHECKS,
    **penalty_methods.CHECKS,
    **l1_penalty.CHECKS,
    **binary_penalty.CHECKS,
    **enumeration.CHECKS,
    **optimality_gap.CHECKS,
    **minima.CHECKS,
    **identification.CHECKS,
    **local.CHECKS,
    **rates.CHECKS,
    **duality.CHECKS,
    **linear.CHECKS,
    **strong.CHECKS,
    **frank_wolfe.CHECKS,
    **cached.CHECKS,
    **twins.CHECKS,
    **twins_updating.CHECKS,
    **twins_refining.CHECKS,
    **rungs.CHECKS,
    **swap_twin.CHECKS,
    **risk.CHECKS,
    **stationary_risk.CHECKS,
    **shrinkage.CHECKS,
    **recovery.CHECKS,
}


def worst(certificates: Iterable[Certificate]) -> Certificate:
    """The certificate nearest to failing, in units of its own sides; one that does not apply only if none does."""
    found = list(certificates)
    return max([c for c in found if not c.applies] or found, key=_nearness)


def _nearness(certificate: Certificate) -> float:
    sides = abs(certificate.measured) + abs(certificate.bound) + certificate.allowance
    if np.isnan(sides):
        return np.inf
    return certificate.excess / sides if sides > 0 else -1.0
