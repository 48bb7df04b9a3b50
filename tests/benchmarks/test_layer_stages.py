"""The stages of a layer are those of the door, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import solvers
from benchmarks.layer_stages import staged
from benchmarks.layer_summary import STAGES
from solvers.problem import LayerProblem
from solvers.sparsity import KeepPerRow


@pytest.mark.parametrize("name", ["magnitude", "sparsegpt", "maiht"])
@pytest.mark.parametrize("swaps", [0, 2, "all"])
def test_stages_are_those_of_the_door_bit_for_bit(name: str, swaps: int | str) -> None:
    rng = np.random.default_rng(4)
    X, W0 = rng.standard_normal((64, 12)) @ rng.standard_normal((12, 12)), rng.standard_normal((5, 12))
    problem, sparsity, method = LayerProblem.of(W0, np.round(X.T @ X / 64, 12)), KeepPerRow(6), solvers.find(name)
    problem = LayerProblem.of(W0, (problem.H + problem.H.T) / 2)
    done = staged(method, problem, sparsity, swaps)
    ways = {"found": {}, "refined": {"refine": "exact"}, "swapped": {"swaps": swaps}}
    for stage, W in done.weights.items():
        door = solvers.run(method, problem, sparsity, **ways[stage])
        assert np.array_equal(W, door.weight)
        assert not np.signbit(W[W == 0]).any()
    last = solvers.run(method, problem, sparsity, refine="exact", swaps=swaps)
    for part in ("refined", "swapped", "weight", "ended"):
        assert np.array_equal(getattr(done.run, part), getattr(last, part))
    assert list(done.seconds) == list(done.weights) == list(STAGES if swaps else STAGES[:2])
    assert (done.run.gains is None) == (swaps == 0)
