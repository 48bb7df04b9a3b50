"""Fast twins beside what they are made of: seconds a step, interleaved in one run, as ratios of medians and of minima.

A ratio says more than seconds on a machine that does other work: its two sides are timed in turn, round after round.
The roofline of a step is the time of its own products with the Gram, that of a selection the time of a copy.
`benchmarks/bench_kernels.py` hands the same acts to pytest-benchmark, one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

import solvers
from benchmarks.records import Record, make_record
from llm_pipeline import gram
from llm_pipeline.gram import CHUNK_TOKENS
from solvers import iht, maiht, swaps
from solvers.array import Place
from solvers.gpu import iht as fast_iht
from solvers.gpu import maiht as fast_maiht
from solvers.gpu import select
from solvers.gpu import swaps as fast_swaps
from solvers.gpu.layer import Layer
from solvers.problem import Gram, LayerProblem
from solvers.sparsity import KeepNofM, KeepPerLayer, KeepPerRow, Sparsity

SHAPES = ((1024, 4096), (4096, 1024))  # (out, in): attention output and MLP input of a small LLaMA
ROUNDS = 15
EXCHANGED = ((64, 256), (8, 688))  # (out, in): rows of the 5 M model's layers; the reference takes 0.4 s for each
ENOUGH = 8.0  # seconds of the rounds of a pair, after which no more than LEAST are needed
LEAST = 3

Act = Callable[[], object]
Named = tuple[str, Act]


def kernels(
    seed: int = 0,
    *,
    shapes: tuple[tuple[int, int], ...] = SHAPES,
    rounds: int = ROUNDS,
    exchanged: tuple[tuple[int, int], ...] = EXCHANGED,
    device: str = "cpu",
    progress: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> Iterator[Record]:
    """Records of the benchmark ``kernel``: two acts on one layer, and how much longer the first takes.

    Parameters
    ----------
    seed : of the layer
    shapes : (out, in) of the layers
    rounds : times that every act is timed, in turn; fewer for acts that take seconds
    exchanged : (out, in) of the layers whose swaps are timed
    device : of the twins; the reference is NumPy's, on the CPU
    """
    for n, (out, inputs) in enumerate(shapes):
        progress(n, len(shapes), f"{out} x {inputs}")
        problem = layer(out, inputs, seed)
        for number, place in enumerate(places(device)):
            for what, against in acts(problem, place, seed, device, first=number == 0):
                yield _record(problem, rounds, seed, device, what, against, library(place))
        yield agreement(problem, places(device)[0], seed, device)
    for out, inputs in exchanged:
        problem, place = layer(out, inputs, seed), places(device)[0]
        for what, against in exchanges(problem, place):
            yield _record(problem, rounds, seed, device, what, against, library(place))


def places(device: str) -> tuple[Place, ...]:
    """Where the twins are timed: in torch; on the CPU first in NumPy, whose products are faster there."""
    place = Place.of(torch.zeros(1, device=device), "float32")
    return (place.on_host, place) if device == "cpu" else (place,)


def library(place: Place) -> str:
    """The name of the place's library."""
    return str(place.xp.__name__).rpartition(".")[2]


def acts(
    problem: LayerProblem, place: Place, seed: int, device: str, first: bool = True
) -> Iterator[tuple[Named, Named]]:
    """Pairs of acts: of a twin with what it is made of, and on the first place of the reference with its twin."""
    for what, against in (*steps(problem, place), *runs(problem, place)):
        if first or "reference" not in what[0]:
            yield what, against
    if library(place) == "torch":
        yield from selections(problem, place)
        yield from triangles(problem.shape[1], seed, device)


def layer(out: int, inputs: int, seed: int) -> LayerProblem:
    """Standard normal weights, and inputs with a power-law spectrum on the unit-diagonal Gram with ridge 0.1."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, inputs + 1, dtype=np.float32) ** -0.4
    X = rng.standard_normal((inputs + 64, inputs), dtype=np.float32) * spectrum
    X = X @ rng.standard_normal((inputs, inputs), dtype=np.float32)
    H = (X.T @ X / len(X)).astype(np.float64)
    return LayerProblem(rng.standard_normal((out, inputs)), Gram((H + H.T) / 2)).normalised()


def steps(problem: LayerProblem, place: Place) -> Iterator[tuple[Named, Named]]:
    """A step of each twin, facts of the trace included, against its products alone and against the reference."""
    half = KeepPerRow(problem.shape[1] // 2)
    for name, twin, reference, count in (("maiht", fast_maiht, maiht, 2), ("iht", fast_iht, iht, 1)):
        s = 0.95 / problem.lipschitz
        fast = Walk(twin, Layer(problem, place, 8), half, s)
        begin = maiht.start(problem) if reference is maiht else iht.State(problem.W0, problem.W0)
        slow = Walk(reference, problem, half, s, begin)
        yield (f"{name} twin", fast.go), (f"{count} products with the Gram", partial(_products, fast.layer, count))
        yield (f"{name} reference, float64", slow.go), (f"{name} twin", fast.go)


class Walk:
    """A method one step at a time, with the sums that the loop takes after each."""

    def __init__(self, method: Any, layer: Any, sparsity: Sparsity, s: float, state: Any = None) -> None:
        self.method, self.layer, self.sparsity, self.s = method, layer, sparsity, s
        self.state = method.start(layer, s) if state is None else state

    def go(self) -> None:
        x, self.state = self.state.x, self.method.step(self.layer, self.sparsity, self.s, self.state)
        if isinstance(self.layer, Layer):
            self.layer.square(self.state.v, x)
            self.layer.nonzeros(self.state.x)
        else:
            float(np.square(self.state.v - x).sum())
            np.count_nonzero(self.state.x)


def runs(problem: LayerProblem, place: Place) -> Iterator[tuple[Named, Named]]:
    """Runs of the twins that update weights against as many products alone, and the reference against them.

    The factors of the Gram are found before, as for all layers of a site but the first; the reference of ADMM and that
    of SparseGPT factor in every run. A pass of SparseGPT multiplies as often as half a product does.
    """
    half, quadratic = KeepPerRow(problem.shape[1] // 2), Layer(problem, place, 0)
    for name, count, options in (
        ("admm", 6, {"iters": 5, "refresh": 4}),
        ("alps", 12, {"iters": 6, "polish": 0}),
        ("sparsegpt", 1, {}),
    ):
        method = solvers.find(name)
        assert method.gpu is not None
        fast = (f"{name} twin, a run", partial(method.gpu, problem, half, place, **options))
        slow = (f"{name} reference, float64, a run", partial(method.run, problem, half, **options))
        yield fast, (f"{count} products with the Gram", partial(_products, quadratic, count))
        yield slow, fast


def _products(quadratic: Layer, count: int) -> None:
    for n in range(count):
        scratch = quadratic.scratch[n % 2]
        quadratic.xp.matmul(quadratic.W0, quadratic.H, out=scratch)
    float(scratch[0, 0])  # waits for the device


def selections(problem: LayerProblem, place: Place) -> Iterator[tuple[Named, Named]]:
    """The exact mask of half the entries against what else would find its threshold."""
    scores = place.xp.abs(place.put(problem.W0))
    scratch, (out, inputs) = place.xp.empty_like(scores), problem.shape
    for budget in (KeepPerRow(inputs // 2), KeepPerLayer(out * inputs // 2), KeepNofM(2, 4)):
        mask = partial(_waited, select.mask, budget, scores, scratch)
        rows = scores.reshape(-1, budget.most(problem.shape))
        cut = rows.shape[1] - budget.keep + 1
        yield (f"mask {budget}", mask), ("a copy of the scores", partial(_waited, scratch.copy_, scores))
        yield (f"mask {budget}", mask), ("torch.sort", partial(_waited, torch.sort, rows))
        yield (f"mask {budget}", mask), ("torch.kthvalue", partial(_waited, torch.kthvalue, rows, cut))
        yield (f"mask {budget}", mask), ("torch.topk", partial(_waited, torch.topk, rows, budget.keep))
        if rows.shape[1] > select.NARROW:
            yield (
                (f"mask {budget}", mask),
                ("radix passes", partial(_waited, select.radix, place.xp, rows, budget.keep)),
            )


def triangles(inputs: int, seed: int, device: str) -> Iterator[tuple[Named, Named]]:
    """The Gram of one chunk of tokens: the triangle that counts against the whole product."""
    X = torch.randn(CHUNK_TOKENS, inputs, generator=torch.Generator().manual_seed(seed)).to(device)
    total = torch.zeros(inputs, inputs, dtype=torch.float64, device=device)
    yield (
        ("triangle of a Gram", partial(_waited, _added, X, total)),
        ("its whole", partial(_waited, gram.product, X, X)),
    )


def _added(X: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    gram.lower(X, total)
    return total


def exchanges(problem: LayerProblem, place: Place) -> Iterator[tuple[Named, Named]]:
    """All swaps from the largest weights, the reference against its twin."""
    inputs = problem.shape[1]
    for budget in (KeepPerRow(inputs // 2), KeepPerRow(inputs - 7 * inputs // 10), KeepNofM(2, 4)):
        W = budget.prox(problem.W0)
        slow = partial(swaps.swaps, problem, budget, W, None)
        fast = partial(fast_swaps.swaps, problem, budget, W, None, place)
        yield (f"swaps reference {budget}, float64", slow), ("swaps twin", fast)


def _waited(function: Callable[..., Any], *arguments: Any) -> None:
    found = function(*arguments)
    bool((found if isinstance(found, torch.Tensor) else found[0]).reshape(-1)[0])


def agreement(problem: LayerProblem, place: Place, seed: int, device: str, iters: int = 10) -> Record:
    """A float32 run against the float64 one: entries of the support that differ, and the gap of the objectives.

    Recorded and not judged: thresholds are discontinuous. The certificates of the runs are judged elsewhere.
    """
    half = KeepPerRow(problem.shape[1] // 2)
    one, two = maiht.maiht(problem, half, iters=iters), fast_maiht.maiht(problem, half, place, iters=iters)
    gap, reference = problem.change(one.weight, two.weight), problem.value(one.weight)
    return make_record(
        "kernel-agreement",
        what="maiht twin, float32",
        shape=list(problem.shape),
        seed=seed,
        device=device,
        iterations=iters,
        support_difference=int(np.count_nonzero((one.weight != 0) != (two.weight != 0))),
        relative_gap=gap / reference,
        relative_error=problem.relative_error(one.weight),
    )


def _record(
    problem: LayerProblem, rounds: int, seed: int, device: str, what: Named, against: Named, library: str
) -> Record:
    seconds: tuple[list[float], list[float]] = ([], [])
    for _, act in (what, against):
        act()  # the first time allocates
    while (made := len(seconds[0])) < rounds and (made < LEAST or sum(map(sum, seconds)) < ENOUGH):
        for (_, act), taken in zip((what, against), seconds, strict=True):
            start = time.perf_counter()
            act()
            taken.append(time.perf_counter() - start)
    middle, least = [median(taken) for taken in seconds], [min(taken) for taken in seconds]
    return make_record(
        "kernel",
        what=what[0],
        against=against[0],
        shape=list(problem.shape),
        seed=seed,
        rounds=made,
        device=device,
        library=library,
        threads=torch.get_num_threads(),
        seconds=middle,
        seconds_min=least,
        ratio=middle[0] / middle[1],
        ratio_min=least[0] / least[1],
    )
