"""A device beside its own roofline: copies and products first, then selection, fused sums and steps as shares of them.

    share of the copy = bytes that must move / seconds / bytes a second of the copy               (1)
    share of the product = 4 out in^2 / seconds / operations a second of a float32 product        (2)

(1) counts every operand once: a mask reads a float and writes a byte, a candidate reads three arrays and writes one,
the sums read five and write one. (2) counts the two products with the Gram of a step of mAIHT, and all else as free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import array_api_compat
import numpy as np
import torch

import solvers
from benchmarks.clock import Limit, timed
from benchmarks.device import PRECISIONS, about, bandwidth, gemm, peak_bytes
from benchmarks.kernels import Walk
from benchmarks.records import Record, make_record
from llm_pipeline.gram import MeanGram
from llm_pipeline.judging import HOST, Court, court_of, verdicts
from solvers.array import full_precision
from solvers.door import Run, place_of, run
from solvers.gpu import maiht, select
from solvers.gpu.layer import Layer
from solvers.problem import Gram, LayerProblem
from solvers.sparsity import Budget, KeepNofM, KeepPerLayer, KeepPerRow
from theory_checks import Certificate

SHAPES = ((4096, 4096), (12288, 4096), (22016, 4096), (4096, 11008))  # (out, in) of LLaMA-7B, q k v and gate up in one
NONE = "no CUDA device: 0 GPU checks run"
MINUTES = 6.0
ROUNDS = 10
FLOAT = 4  # bytes

Measurement = tuple[str, Callable[[], Record]]


def present(device: str) -> bool:
    """Whether torch can compute there."""
    return not device.startswith("cuda") or torch.cuda.is_available()


def measure(
    seed: int = 0,
    *,
    device: str = "cuda",
    scale: int = 1,
    minutes: float = MINUTES,
    rounds: int = ROUNDS,
    progress: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> Iterator[Record]:
    """Records of the benchmark ``gpu``, and a last one that says what there was no time for.

    Parameters
    ----------
    seed : of weights and tokens
    device : of torch; on ``cpu`` the same measurements with the array text instead of the kernels
    scale : every side is divided by it, for a try
    minutes : no measurement begins after them
    rounds : times that an act is timed
    """
    limit, skipped = Limit(minutes), []
    todo = list(_measurements(seed, device, scale, rounds))
    for n, (name, act) in enumerate(todo):
        if limit.reached():
            skipped.append(name)
            continue
        progress(n, len(todo), name)
        yield act()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    facts = {"done": len(todo) - len(skipped), "skipped": skipped, "seconds": limit.seconds(), "minutes": minutes}
    yield make_record("gpu-run", device=about(device), scale=scale, peak_bytes=peak_bytes(device), **facts)


def _measurements(seed: int, device: str, scale: int, rounds: int) -> Iterator[Measurement]:
    """All of them, in order: what comes later is a share of what came first."""
    rates: dict[str, float] = {}

    def noted(act: Callable[[], Record]) -> Record:
        record = act()
        rates[record["what"]] = record["rate"]
        return record

    yield "copy", partial(noted, partial(bandwidth, device, scale, rounds))
    for precision in PRECISIONS:
        yield f"gemm {precision}", partial(noted, partial(gemm, precision, device, scale, rounds))
    bench = Bench(seed, device, scale, rounds, rates)
    for out, inputs in SHAPES:
        shape = max(16, out // scale), max(16, inputs // scale // 4 * 4)
        tell = f"{shape[0]} x {shape[1]}"
        for budget in (KeepPerRow(shape[1] // 2), KeepNofM(2, 4), KeepPerLayer(shape[0] * shape[1] // 2)):
            yield f"mask {budget}, {tell}", partial(bench.mask, shape, budget)
        half = KeepPerRow(shape[1] // 2)
        yield f"radix passes, {tell}", partial(bench.radix, shape, half)
        yield f"torch.topk, {tell}", partial(bench.topk, shape, half)
        yield f"candidate, {tell}", partial(bench.candidate, shape, half)
        yield f"sums, {tell}", partial(bench.sums, shape)
        yield f"maiht step, {tell}", partial(bench.step, shape, half)
    shape = tuple(max(16, side // scale // 4 * 4) for side in SHAPES[0])
    for court in dict.fromkeys((HOST, court_of(device))):
        yield f"judging on {court.name}", partial(bench.judging, shape, court)
    yield from _block(seed, device, scale)


def _block(seed: int, device: str, scale: int) -> Iterator[Measurement]:
    from benchmarks.llama_block import LAYERS, Block

    block = Block(device, scale, seed)
    for name, site in LAYERS:
        yield f"block: {name}", partial(block.solve, name, site)
    yield "block", block.whole


class Bench:
    """Measurements of one layer's shape; the layer that was asked for last is kept."""

    def __init__(self, seed: int, device: str, scale: int, rounds: int, rates: dict[str, float]) -> None:
        self.seed, self.device, self.scale, self.rounds, self.rates = seed, device, scale, rounds, rates
        self.kept: tuple[tuple[int, int], Layer] | None = None
        self.gram, self.solved = cache(self._gram), cache(self._solved)

    def mask(self, shape: tuple[int, int], budget: Budget) -> Record:
        scores = self._scores(shape)
        act = partial(select.mask, budget, scores, torch.empty_like(scores))
        return self._moved(f"mask {budget}", shape, act, (FLOAT + 1) * scores.numel())

    def radix(self, shape: tuple[int, int], budget: Budget) -> Record:
        """The array text, which serves CuPy and whole layers."""
        scores = self._scores(shape)
        act = partial(select.radix, array_api_compat.array_namespace(scores), scores, budget.keep)
        return self._moved("radix passes", shape, act, (FLOAT + 1) * scores.numel())

    def topk(self, shape: tuple[int, int], budget: Budget) -> Record:
        """What else would find the threshold, for comparison."""
        scores = self._scores(shape)
        return self._moved("torch.topk", shape, partial(torch.topk, scores, budget.keep), (FLOAT + 1) * scores.numel())

    def candidate(self, shape: tuple[int, int], budget: Budget) -> Record:
        """Extrapolation, selection, masked write and count."""
        layer = self._layer(shape)
        u, uz, u_prev, out = layer.buffers[:4]
        for n, array in enumerate((u, uz, u_prev)):
            torch.add(layer.W0, layer.W0.flip(n % 2), alpha=0.1 * n, out=array)
        terms = [(1.3, u), (0.5, uz), (-0.8, u_prev)]
        return self._moved(
            "candidate", shape, partial(layer.candidate, budget, terms, 1.0, out), 4 * FLOAT * out.numel()
        )

    def sums(self, shape: tuple[int, int]) -> Record:
        """The objective, the gain and the next forward step from two products."""
        layer = self._layer(shape)
        z, Pz, v, Pv = layer.buffers[:4]
        for array in (z, Pz, v, Pv):
            array.copy_(layer.W0)
        return self._moved("sums", shape, partial(layer.compared, z, Pz, v, Pv, 1e-3), 6 * FLOAT * z.numel())

    def step(self, shape: tuple[int, int], budget: Budget) -> Record:
        """A step of mAIHT with the facts of the trace."""
        layer = self._layer(shape)
        walk = Walk(maiht, layer, budget, s=0.9 / float(torch.abs(layer.H).sum(dim=1).max()))  # below 1/L
        with full_precision(torch):
            seconds = timed(walk.go, self.device, self.rounds)
        flops = 4 * shape[0] * shape[1] ** 2
        share = flops / seconds["min"] / self.rates["gemm fp32"]
        return self._record("maiht step", shape, seconds, flops=flops, share=share, of="gemm fp32")

    def judging(self, shape: tuple[int, int], court: Court) -> Record:
        """Every certificate of a layer, from a place, its arrays sent there each time."""
        found: list[Certificate] = []

        def act() -> None:
            found[:] = verdicts(solvers.METHODS["maiht"], self.solved(shape), court)

        seconds = timed(act, "cpu", 1)  # every certificate is a number on the host
        counted = Counter(certificate.outcome for certificate in found)
        outcomes = {outcome: counted[outcome] for outcome in ("holds", "fails", "not applicable")}
        return self._record(f"judging on {court.name}", shape, seconds, certificates=outcomes, why=court.why)

    def _moved(self, what: str, shape: tuple[int, int], act: Callable[[], Any], moved: int) -> Record:
        seconds = timed(act, self.device, self.rounds)
        share = moved / seconds["min"] / self.rates["copy"]
        return self._record(what, shape, seconds, bytes=moved, share=share, of="copy")

    def _record(self, what: str, shape: tuple[int, int], seconds: dict[str, Any], **facts: Any) -> Record:
        facts |= {"kernels": bool(self.kept and self.kept[1].kernels), "seed": self.seed, "scale": self.scale}
        return make_record("gpu", what=what, shape=list(shape), device=about(self.device), seconds=seconds, **facts)

    def _scores(self, shape: tuple[int, int]) -> torch.Tensor:
        return torch.abs(self._layer(shape).W0)

    def _layer(self, shape: tuple[int, int]) -> Layer:
        if self.kept is None or self.kept[0] != shape:
            self.kept = None  # gives its memory back before the next one is made
            W0 = np.random.default_rng(self.seed).standard_normal(shape)
            place = place_of("fast", torch.zeros(1, device=self.device))
            assert place is not None
            self.kept = shape, Layer(LayerProblem(W0, self.gram(shape[1])), place, 8)
        return self.kept[1]

    def _solved(self, shape: tuple[int, int]) -> Run:
        W0 = np.random.default_rng(self.seed).standard_normal(shape)
        place = place_of("fast", torch.zeros(1, device=self.device))
        problem = LayerProblem(W0, self.gram(shape[1]))
        return run(solvers.METHODS["maiht"], problem, KeepPerRow(shape[1] // 2), place=place, iters=10)

    def _gram(self, inputs: int) -> Gram:
        generator = torch.Generator(self.device).manual_seed(self.seed)
        mean = MeanGram(inputs)
        mean.add(torch.randn(2 * inputs, inputs, generator=generator, device=self.device))
        return Gram(mean.value() + 0.1 * np.eye(inputs))


def told(records: list[Record]) -> Iterator[str]:
    """A line for each record, for the screen."""
    for r in records:
        shape = " x ".join(map(str, r.get("shape", ())))
        if r["benchmark"] == "gpu-run":
            skipped = f"; no time for: {', '.join(r['skipped'])}" if r["skipped"] else ""
            yield f"{r['done']} measurements in {r['seconds']:.0f} s, {r['peak_bytes'] / 2**30:.1f} GiB{skipped}"
            continue
        numbers = f"{1e3 * r['seconds']['min']:10.3f} ms, median {1e3 * r['seconds']['median']:.3f}"
        more = f", {r['rate']:.4g} a second" if "rate" in r else ""
        more += f", {100 * r['share']:.1f} % of {r['of']}" if "share" in r else ""
        if "certificates" in r:
            more += f", {r['certificates']['holds']} certificates hold, {r['certificates']['fails']} fail"
        yield f"{r.get('layer', r['what']):<28}{shape:<14}{numbers}{more}"
