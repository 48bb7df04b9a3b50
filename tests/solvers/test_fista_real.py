"""FISTA on layers of a trained model: the value bound, the optimality conditions and the duality gap hold there too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from llm_pipeline import sources
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import Tokens
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.evidence import measure
from llm_pipeline.layer import dense_weight
from solvers import fista
from solvers.fista_pruner import lam_max
from solvers.problem import Gram, LayerProblem
from solvers.restart import vfista
from solvers.sparsity import L1, Array
from theory_checks.certificate import allowance
from theory_checks.duality import duality_gap, gap_bounds_step

STEPS = 20  # a round of FISTAPruner
LONG = 2500
SHORT = 450  # of a method that knows the ridge
SHARED = "models/wikitext2-llama-5m"


def first_layers(source: Checkpoint, tokens: Tokens, rows: int) -> list[LayerProblem]:
    """Some rows of the first layer of every site in block 1."""
    walk = BlockWalk(source, "cpu")
    with torch.inference_mode():
        hidden = walk.embed(tokens.ids[:16])
        hidden = walk.forward(walk.load(0), 0, hidden)
        seen, _ = measure(walk, walk.load(1), 1, hidden, walk.family.sites)
    names = [walk.weight_name(1, site.readers[0]) for site in walk.family.sites]
    weights = [dense_weight(source, name)[:rows] for name in names]
    return [inputs.problem(W0) for inputs, W0 in zip(seen, weights, strict=True)]


@pytest.fixture(scope="module")
def layers() -> list[LayerProblem]:
    """Layers of the embedded model."""
    source = sources.model(None)
    return first_layers(source, sources.calibration(None, source, 0), 8)


@pytest.fixture(scope="module")
def larger(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[LayerProblem]:
    """Layers of 256 and 688 inputs, of a LLaMA trained on WikiText-2 and on its text."""
    if not (data_dir / SHARED).is_dir():
        pytest.skip(f"no {SHARED} in the folder of PRUNING_DATA")
    text = tmp_path_factory.mktemp("text") / "start.txt"
    text.write_text((data_dir / "data/wikitext2/valid.txt").read_text(encoding="utf-8")[:60_000], encoding="utf-8")
    source = sources.model(str(data_dir / SHARED))
    return first_layers(source, sources.calibration(f"{text}:8x256", source, 0), 4)


def path_of(problem: LayerProblem, penalty: L1) -> list[Array]:
    """The first steps of FISTA from the dense weight."""
    k, path = fista.start(problem.W0), []
    for _ in range(STEPS):
        k = fista.step(problem, penalty, 1 / problem.lipschitz, k)
        path.append(k.x)
    return path


def holds(problem: LayerProblem, penalty: L1, path: list[Array], best: Array) -> None:
    """The bound 2 L D^2 / (n+1)^2, the gap and the step that it bounds along a path, and the KKT residual at its end.

    What is left between `best` and the minimum is the duality gap there.
    """
    s, F = 1 / problem.lipschitz, problem.value(best) + penalty.value(best)
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


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("ratio", [0.3, 0.03])
def test_bound_gap_and_optimality_hold(layers: list[LayerProblem], place: int, ratio: float) -> None:
    problem = layers[place].normalised(0.1)
    penalty = L1(ratio * lam_max(problem))
    k = fista.start(problem.W0)
    for _ in range(LONG):
        k = fista.step(problem, penalty, 1 / problem.lipschitz, k)
    holds(problem, penalty, path_of(problem, penalty), k.x)


@pytest.mark.parametrize("place", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)), 3])
@pytest.mark.parametrize("ratio", [pytest.param(0.3, marks=pytest.mark.slow), 0.03])
def test_they_hold_on_larger_layers_too(larger: list[LayerProblem], place: int, ratio: float) -> None:
    problem = larger[place].normalised(0.1)
    assert problem.shape == (4, 688 if place == 3 else 256)
    penalty = L1(ratio * lam_max(problem))
    best = vfista(problem, penalty, iters=SHORT).weight
    holds(problem, penalty, path_of(problem, penalty), best)


@pytest.mark.parametrize(
    ("target", "defect"),
    [
        ("solvers.fista.step", lambda problem, penalty, s, k: k._replace(x=penalty.prox(k.x, 0.01 * s))),
        ("solvers.linalg.lambda_max_bound", lambda H: 0.2 * float(np.trace(H)) / len(H)),
    ],
    ids=["steps that hardly move", "a bound below lambda_max"],
)
def test_a_defect_is_noticed_there(
    target: str, defect: object, larger: list[LayerProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LayerProblem(larger[0].W0, Gram(larger[0].H))
    problem = layer.normalised(0.1)
    penalty = L1(0.03 * lam_max(problem))
    best = vfista(problem, penalty, iters=SHORT).weight
    monkeypatch.setattr(target.replace("linalg", "problem"), defect)
    spoilt = LayerProblem(larger[0].W0, Gram(larger[0].H)).normalised(0.1)
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        holds(spoilt, penalty, path_of(spoilt, penalty), best)


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
