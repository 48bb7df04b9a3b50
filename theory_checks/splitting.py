"""ADMM and ALPS: what the dual is, and why a growing penalty brings both copies of the weight together.

Letters: W the free copy, D the feasible one (Z in `admm`), V the dual (rho U there), H, W0 as everywhere, A'A = H;
b_t = |H (W0 - D_t)| + |H V_t| / rho_t, Frobenius norms throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from solvers import admm, alps
from solvers.problem import LayerProblem
from solvers.sparsity import Array, Budget
from theory_checks.certificate import Certificate, allowance
from theory_checks.restoration import Design, design_of
from theory_checks.synthetic import Case, Check

RHO, LEAST_GROWTH, CHECK = 0.1, 1.1, 3  # the schedule that ALPS announces
ALPS = "Meng et al. 2024"


class Move(NamedTuple):
    """One round: D before and after, W in between, at penalty rho."""

    rho: float
    D: Array
    W: Array
    D_next: Array


def admm_moves(problem: LayerProblem, budget: Budget) -> Iterator[Move]:
    """Boza's run, rho = 1."""
    D = problem.W0
    for W, k in admm.rounds(problem, admm.ramp(budget, problem.shape, 15), 1.0, 20):
        yield Move(1.0, D, W, k.Z)
        D = k.Z


def alps_moves(problem: LayerProblem, budget: Budget) -> Iterator[Move]:
    for r in alps.rounds(problem, budget, RHO, 60):
        yield Move(r.rho, r.before.D, r.W, r.after.D)


def dual(design: Design, moves: Iterable[Move]) -> Certificate:
    """The free copy is optimal under the prices that all rounds have added up, and they do not depend on rho.

        grad f(W_t+1) + rho_t (D_t+1 - D_t) + sum_{s <= t} rho_s (W_s+1 - D_s+1) = 0

    Assumptions: V_0 = 0, no drift. Why: the optimality of the W-step with V_t+1 = V_t + rho_t (W_t+1 - D_t+1) put in
    for V_t. Measured: the largest norm over the run, the gradient from tokens. Where: Boyd et al. 2011, eq. (3.13) and
    below, there at fixed rho. Tight: bound 0.
    """
    total, size = np.zeros_like(design.W0), np.zeros_like(design.W0)
    worst, scale, rounds = 0.0, 0.0, 0
    for rho, D, W, D_next in moves:
        total, size, rounds = total + rho * (W - D_next), size + rho * (np.abs(W) + np.abs(D_next)), rounds + 1
        gradient = (W - design.W0) @ design.A.T @ design.A
        worst = max(worst, float(np.linalg.norm(gradient + rho * (D_next - D) + total)))
        terms = (np.abs(W) + np.abs(design.W0) + np.abs(D)) @ (np.abs(design.A).T @ np.abs(design.A))
        scale = max(scale, float(np.linalg.norm(terms + rho * np.abs(D) + size)))
    claim = "grad f(W_t+1) + rho_t (D_t+1 - D_t) + sum_s rho_s (W_s+1 - D_s+1) = 0"
    slack = allowance(scale, rounds + sum(design.A.shape))
    return Certificate("splitting-dual", claim, "Boyd et al. 2011, sec. 3.3", worst, 0.0, slack)


def lemma(problem: LayerProblem, budget: Budget) -> Certificate:
    """|V_t+1| <= b_t and |D_t+1 - D_t| <= 2 b_t / rho_t in every round, from t = 0 on.

    Assumptions: D_t meets the budget, no drift; from the printed dense start it does not, and the lemma fails at
    t = 0. Why: V_t+1 = rho_t (Y - P Y) with Y = W_t+1 + V_t / rho_t, Y - D_t = (H + rho_t)^-1 (H (W0 - D_t) + H V_t /
    rho_t), and no feasible point is nearer to Y than P Y. Measured: the worst left minus right. Where: Meng et al.
    2024, Lemma 1. Upper bound.
    """
    worst, scale = -np.inf, 0.0
    for r in alps.rounds(problem, budget, RHO, 60):
        b, V, moved = _b(problem, r), float(np.linalg.norm(r.after.V)), _norm(r.after.D - r.before.D)
        worst = max(worst, V - b, moved - 2 * b / r.rho)
        scale = max(scale, _magnitude(problem, r) * (1 + 1 / r.rho))
    claim = "|V_t+1| <= b_t and |D_t+1 - D_t| <= 2 b_t / rho_t, b_t = |H (W0 - D_t)| + |H V_t| / rho_t"
    return Certificate("alps-lemma", claim, f"{ALPS}, Lemma 1", worst, 0.0, allowance(scale, 2 * len(problem.H)))


def convergence(problem: LayerProblem, budget: Budget) -> Certificate:
    """While the support moves, the steps die at the rate of the schedule: with r_t = 0.1 * 1.1^floor(t / 3)

        max(|D_t+1 - D_t|, |W_t+1 - D_t+1|) <= (2 b_t + |V_t|) / r_t,   b_t with r_t in place of rho_t

    Assumptions: D_t meets the budget, no drift; the run goes on only after a check that saw the support change. Why:
    then rho_t >= r_t; Lemma 1, and W_t+1 - D_t+1 = (V_t+1 - V_t) / rho_t. The paper's C / rho_t bounds b_t by a
    constant that holds with fourteen digits to spare; b_t itself is bounded too, for D_t and V_t are. Without growth
    D may cycle for ever. Measured: the worst left minus right. Where: Meng et al. 2024, Theorem 1. Upper bound.
    """
    worst, scale = -np.inf, 0.0
    for t, r in enumerate(alps.rounds(problem, budget, RHO, 300)):
        announced = RHO * LEAST_GROWTH ** (t // CHECK)
        b = _b(problem, r._replace(rho=announced))
        moved = max(_norm(r.after.D - r.before.D), _norm(r.W - r.after.D))
        worst = max(worst, moved - (2 * b + _norm(r.before.V)) / announced)
        scale = max(scale, _magnitude(problem, r) * (1 + 1 / r.rho))
    claim = "max(|D_t+1 - D_t|, |W_t+1 - D_t+1|) <= (2 b_t + |V_t|) / (0.1 * 1.1^floor(t/3))"
    where, slack = f"{ALPS}, Theorem 1", allowance(scale, 2 * len(problem.H))
    return Certificate("alps-convergence", claim, where, worst, 0.0, slack)


def _norm(A: Array) -> float:
    return float(np.linalg.norm(A))


def _b(problem: LayerProblem, r: alps.Round) -> float:
    return _norm((problem.W0 - r.before.D) @ problem.H) + _norm(r.before.V @ problem.H) / r.rho


def _magnitude(problem: LayerProblem, r: alps.Round) -> float:
    """The terms that a round sums: its rounding is a multiple of their norm."""
    size = np.abs(problem.W0) + np.abs(r.before.D) + np.abs(r.W) + np.abs(r.before.V) * (1 + 1 / r.rho)
    return _norm(size @ (np.abs(problem.H) + np.eye(len(problem.H))))


def _dual(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    for budget in case.budgets:
        yield dual(design, admm_moves(case.judge, budget))
        yield dual(design, alps_moves(case.judge, budget))


def _lemma(case: Case) -> Iterator[Certificate]:
    for budget in case.budgets:
        yield lemma(case.judge, budget)


def _convergence(case: Case) -> Iterator[Certificate]:
    for budget in case.budgets:
        yield convergence(case.judge, budget)


CHECKS: dict[str, Check] = {"splitting-dual": _dual, "alps-lemma": _lemma, "alps-convergence": _convergence}
