"""Our constants against exact worst cases: semidefinite programs over all convex f and g, not over sampled layers.

A performance estimation problem maximises F(x_n) - F* over every L-smooth convex f, every convex g and every start
with |x_0 - X| <= 1. PEPit writes it down from a text of the method, here a third one, in symbols.
"""

from itertools import product
from math import sqrt

import numpy as np
import pytest

from solvers import restart
from theory_checks import linear, rates, strong
from theory_checks.relaxation import squared_diameter

WHY = "exact worst cases need PEPit and Clarabel: the `test` extra has both"
PEPit = pytest.importorskip("PEPit", reason=WHY)
pytest.importorskip("clarabel", reason=WHY)
functions = pytest.importorskip("PEPit.functions", reason=WHY)
steps = pytest.importorskip("PEPit.primitive_steps", reason=WHY)

TOLERANCE = 100 * 1e-8  # Clarabel stops at a gap and infeasibilities of 1e-8, in programs of up to 100 constraints
pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate:UserWarning")  # the last of these digits
STEPS = (0.95, 1.0)


class Worst:
    """The program of a method on F = f + g, f m-strongly convex and 1-smooth, with step s."""

    def __init__(self, s, m=0.0):
        self.program, self.s, self.m = PEPit.PEP(), s, m
        self.f = self.program.declare_function(functions.SmoothStronglyConvexFunction, mu=m, L=1.0)
        self.g = self.program.declare_function(functions.ConvexFunction)
        F = self.f + self.g
        self.best = F.stationary_point()
        self.least = F(self.best)
        self.start = self.program.set_initial_point()

    def step(self, y):
        """prox_{sg}(y - s grad f(y)) and F there."""
        x, _, gx = steps.proximal_step(y - self.s * self.f.gradient(y), self.g, self.s)
        return x, self.f(x) + gx

    def near(self):
        self.program.set_initial_condition((self.start - self.best) ** 2 <= 1)

    def low(self, m=0.0):
        gap = self.f(self.start) + self.g(self.start) - self.least
        self.program.set_initial_condition(gap + m / 2 * (self.start - self.best) ** 2 <= 1)

    def solve(self, measured):
        self.program.set_performance_metric(measured)
        return self.program.solve(verbose=0, solver="CLARABEL")


def _accelerated(s, n, momentum):
    """FISTA with any momentum: x_i + momentum(i) (x_i - x_i-1) after step i."""
    worst = Worst(s)
    worst.near()
    x = y = worst.start
    for i in range(1, n + 1):
        before, (x, F) = x, worst.step(y)
        y = x + momentum(i) * (x - before)
    return worst.solve(F - worst.least)


def _claimed(name, n, s):
    return rates.FACTORS[name](np.arange(1.0, n + 1))[-1] / s


def _beck_teboulle(i):
    t = rates.numbers(i + 1)
    return (t[i - 1] - 1) / t[i]


@pytest.mark.parametrize(("s", "n"), list(product(STEPS, (1, 2, 4))))
def test_the_tight_rate_of_ista_is_the_worst_case(s, n):
    found = _accelerated(s, n, lambda i: 0.0)
    assert abs(found - _claimed("ista-tight", n, s)) <= TOLERANCE
    assert found < _claimed("ista-rate", n, s)


@pytest.mark.parametrize(("n", "known"), [(1, 0.25), (2, 0.125), (4, 0.05167)])
def test_the_rate_of_fista_is_above_the_worst_case(n, known):
    found = _accelerated(1.0, n, _beck_teboulle)
    assert round(found, 5) == known
    assert found <= _claimed("fista-rate", n, 1.0) + TOLERANCE


@pytest.mark.parametrize(("s", "n"), list(product(STEPS, (1, 2, 4))))
def test_the_momentum_of_halves_attains_its_rate(s, n):
    found = _accelerated(s, n, lambda i: (i - 1) / (i + 2))
    assert abs(found - _claimed("fista-halves-rate", n, s)) <= TOLERANCE


def _monotone(s, kept):
    """Li and Lin's scheme along one sequence of decisions: kept[i] says whether z or v is taken, and is a constraint.

    In the first step y = x, hence z = v, and nothing is decided.
    """
    worst = Worst(s)
    worst.near()
    before = worst.start
    x, F = worst.step(before)
    z, t = x, rates.numbers(len(kept) + 2)
    for i, takes_z in enumerate(kept, start=1):
        y = x + t[i - 1] / t[i] * (z - x) + (t[i - 1] - 1) / t[i] * (x - before)
        (z, Fz), (v, Fv), before = worst.step(y), worst.step(x), x
        worst.program.add_constraint(Fz <= Fv if takes_z else Fv <= Fz)
        x, F = (z, Fz) if takes_z else (v, Fv)
    return worst.solve(F - worst.least)


@pytest.mark.parametrize(
    ("s", "n", "known"),
    [(1.0, 1, 0.25), (1.0, 2, 0.125), (1.0, 3, 0.0762), (0.95, 1, 0.2632), (0.95, 2, 0.1316), (0.95, 3, 0.0802)],
)
def test_the_rate_of_monotone_apg_is_above_the_worst_of_all_branches(s, n, known):
    found = max(_monotone(s, kept) for kept in product((True, False), repeat=n - 1))
    assert round(found, 4) == known
    assert found <= _claimed("maiht-convex-rate", n, s) + TOLERANCE


@pytest.mark.parametrize(("s", "n"), list(product((0.95, 1.0, 1.9), (1, 2))))
def test_the_linear_rates_are_the_worst_cases(s, n):
    m = 0.1
    for distance in (True, False):
        worst = Worst(s, m)
        worst.near() if distance else worst.low()
        x = worst.start
        for _ in range(n):
            x, F = worst.step(x)
        found = worst.solve((x - worst.best) ** 2 if distance else F - worst.least)
        assert abs(found - linear.slowest(s, m, 1.0) ** (2 * n)) <= TOLERANCE


@pytest.mark.parametrize(("m", "n"), list(product((0.02, 0.1), (1, 2, 4))))
def test_the_rate_of_constant_momentum_is_above_the_worst_case(m, n):
    worst = Worst(1.0, m)
    worst.low(m)
    x = y = worst.start
    for _ in range(n):
        before, (x, F) = x, worst.step(y)
        y = x + (1 - sqrt(m)) / (1 + sqrt(m)) * (x - before)
    found = worst.solve(F - worst.least)
    bound = strong.decay(m, n)[-1]
    assert bound / 2 < found <= bound + TOLERANCE


@pytest.mark.parametrize(("m", "K"), [(0.5, 4), (0.32, 5)])
def test_a_cycle_of_restarted_fista_halves_the_worst_gap(m, K):
    assert (K - 1) ** 2 * m < 8 <= K**2 * m
    assert restart.period(1.0, m) == K
    worst = Worst(1.0, m)
    worst.low()
    x = y = worst.start
    for i in range(1, K + 1):
        before, (x, F) = x, worst.step(y)
        y = x + _beck_teboulle(i) * (x - before)
    assert 0 < worst.solve(F - worst.least) <= 0.5 + TOLERANCE


@pytest.mark.parametrize(("n", "share"), [(1, 0.75), (2, 0.5), (4, 0.0)])
def test_the_rate_of_frank_wolfe_is_above_the_worst_case(n, share):
    """Over every convex set with the diameter of masks of two weights, one of which stays: D^2 = 2."""
    program, D2 = PEPit.PEP(), squared_diameter(1, 2)
    f = program.declare_function(functions.SmoothConvexFunction, L=1.0)
    inside = program.declare_function(functions.ConvexIndicatorFunction, D=sqrt(D2))
    least = (f + inside)((f + inside).stationary_point())
    x = program.set_initial_point()
    program.set_initial_condition(inside(x) <= 0)
    for i in range(n):
        S, _, _ = steps.linear_optimization_step(f.gradient(x), inside)
        x = x + 2 / (i + 2) * (S - x)
    program.set_performance_metric(f(x) - least)
    found, bound = program.solve(verbose=0, solver="CLARABEL"), 2 * D2 / (n + 2)
    assert share * bound - TOLERANCE <= found <= bound + TOLERANCE
