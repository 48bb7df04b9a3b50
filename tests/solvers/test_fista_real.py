"""FISTA on layers of a trained model: the value bound, the optimality conditions and the duality gap hold there too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_pipeline import sources
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.evidence import measure
from llm_pipeline.layer import dense_weight
from solvers import fista
from solvers.fista_pruner import lam_max
from solvers.problem import LayerProblem
from solvers.sparsity import L1
from theory_checks.certificate import allowance
from theory_checks.duality import duality_gap, gap_bounds_step

STEPS = 20  # a round of FISTAPruner
LONG = 2500


@pytest.fixture(scope="module")
def layers() -> list[LayerProblem]:
    """Eight rows of the first layer of every site in block 1 of the embedded model."""
    source = sources.model(None)
    walk = BlockWalk(source, "cpu")
    with torch.inference_mode():
        hidden = walk.embed(sources.calibration(None, source, 0).ids[:16])
        hidden = walk.forward(walk.load(0), 0, hidden)
        seen, _ = measure(walk, walk.load(1), 1, hidden, walk.family.sites)
    names = [walk.weight_name(1, site.readers[0]) for site in walk.family.sites]
    weights = [dense_weight(source, name)[:8] for name in names]
    return [inputs.problem(W0) for inputs, W0 in zip(seen, weights, strict=True)]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("ratio", [0.3, 0.03])
def test_bound_gap_and_optimality_hold(layers: list[LayerProblem], place: int, ratio: float) -> None:
    problem = layers[place].normalised(0.1)
    penalty, s = L1(ratio * lam_max(problem)), 1 / problem.lipschitz
    k, path = fista.start(problem.W0), []
    for n in range(LONG):
        k = fista.step(problem, penalty, s, k)
        if n < STEPS:
            path.append(k.x)
    best = k.x
    F = problem.value(best) + penalty.value(best)
    closed = duality_gap(problem, penalty, best)
    assert 0 <= closed <= np.sqrt(allowance(F**2, problem.W0.size))  # what is left: F* >= F - closed
    D2 = float(np.square(problem.W0 - best).sum())
    for n, x in enumerate(path, start=1):
        above = problem.change(best, x) + penalty.value(x) - penalty.value(best)
        assert above <= 2 * D2 / (s * (n + 1) ** 2) + closed
        assert above <= duality_gap(problem, penalty, x)
        assert gap_bounds_step(problem, penalty, x).outcome == "holds"
    g, on = problem.grad(best), best != 0
    reach = np.sqrt(2 * closed / s) + allowance(penalty.lam, best.shape[1])
    assert np.abs(g + penalty.lam * np.sign(best))[on].max() <= reach
    assert np.abs(g)[~on].max(initial=0.0) <= penalty.lam + reach


def test_twenty_steps_are_far_from_the_minimum(layers: list[LayerProblem]) -> None:
    """K = 20 is part of FISTAPruner, not a tolerance: most of the gap of the dense start is still there."""
    problem = layers[3]
    penalty, s = L1(1e-3 * lam_max(problem)), 1 / problem.lipschitz
    k = fista.start(problem.W0)
    for _ in range(STEPS):
        k = fista.step(problem, penalty, s, k)
    start, end = (problem.value(x) + penalty.value(x) for x in (problem.W0, k.x))
    for _ in range(LONG):
        k = fista.step(problem, penalty, s, k)
    least = problem.value(k.x) + penalty.value(k.x)
    assert end - least > (start - least) / 10
