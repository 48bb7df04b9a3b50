"""What a run will take, from the configuration alone: FLOP and seconds by stage, memory of host and GPU, disk.

Letters: B blocks; N sequences of L tokens, T = N L; d the width; P_b the weights of a block in its layers (m, n); S
sites a block, n_s inputs of each; h heads of width d_h; V the vocabulary; b bytes of a number of the forward pass.

    one forward pass of a block    2 T sum_layers m n + 4 N h d_h L^2                             (1)
    passes of a block              for each of S sites, after those before it were pruned, (1) as far as its
                                   input: the layers of the sites before, attention from the second on;
                                   twice with a dense copy beside; then the whole pruned block    (2)
    Gram of a site                 2 T n_s^2; with drift two products more                        (3)
    Cholesky, products             as `work` counts them: n_s^3/3 to accept a Gram, 2 m n^2 a product   (4)
    evaluation                     2 texts: (1) for its tokens, and 2 T' d V, times 1.5           (5)
    seconds of a stage             sum over kinds of work: amount / rate of the kind              (6)

    host, every phase              base + embeddings + [block + 2 hidden states on a CPU]         (7)
    ... forward                    + 8 L (6 d + 3 middle) b + 4 h L^2 8                           (8)
    ... Gram                       + (8 + 8 + 8 + 4) n^2: sum, new sum, product, cast             (9)
    ... accepting it               + 6 * 8 n^2: sum, H, shift, shifted, factor and its copy       (10)
    ... solving, judging           + 8 max((5 + r + f) n^2 + 4 m n, (3 + r) n^2 + A m n), r = 1 if weights are
                                   refined, f = 3 in SparseGPT, A arrays that a method holds; on a CPU
                                   + the twin's of (12)                                           (11)
    ... evaluating                 + a block or both ends, hidden states of all windows, three times a batch's logits
    GPU                            block + hidden + max((8) + (9), 4 (n^2 + 14 m n) for a twin, or to judge there
                                   8 (n^2 + A m n)) + the site's 8 (2 + r) n^2 in float64         (12)

(1)-(5) are counts of the texts, checked against counted runs; (7)-(12) are upper bounds of what is alive at once. An
element of a selection or an arithmetic pass counts where layers are small. Nothing here reads a weight.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import Any

import solvers
from llm_pipeline import work
from llm_pipeline.blocks import BATCH
from llm_pipeline.evaluate import LOGIT_BYTES
from llm_pipeline.families import family_of
from llm_pipeline.plan import Plan
from llm_pipeline.rates import Rates
from llm_pipeline.shapes import shapes_of
from llm_pipeline.work import Recipe, Work

STAGES = ("read", "allocate", "calibrate", "solve", "certify", "write", "evaluate")
BASE = 2**30  # of Python with torch and transformers
EVALUATING = 1.5  # whole batches leave the caches: 2.0 on the embedded model on a CPU, 1 expected where layers are wide
OVER = 1.1  # room for the allocator
ACCEPTING, NORMALISING, JUDGING = 6, 5, 3  # (n, n) arrays alive at once: MeanGram to Gram, `normalised`, |H|
ONE_SHOT, ITERATIVE = 10, 18  # (m, n) arrays alive at once while a layer is solved or judged


@dataclass(frozen=True)
class Model:
    """The sizes that decide what a run takes.

    Attributes
    ----------
    sites : for every site its inputs n and the outputs m of its readers
    block_weights, all_weights : numbers stored in one block, and in all
    ends : numbers of embeddings, positions and last norm, which stay in memory
    """

    name: str
    blocks: int
    sites: tuple[tuple[int, tuple[int, ...]], ...]
    width: int
    heads: int
    head_width: int
    vocabulary: int
    block_weights: int
    all_weights: int
    ends: int

    @classmethod
    def of(cls, config: Any, name: str) -> Model:
        """Read a transformers configuration."""
        family, shapes = family_of(config), shapes_of(config)
        first = {k: s for k, s in shapes.items() if k.startswith(f"{family.blocks}.0.")}
        sizes = [[shapes[f"{family.blocks}.0.{r}.weight"] for r in site.readers] for site in family.sites]
        sites = tuple((layers[0][1], tuple(m for m, _ in layers)) for layers in sizes)
        block, total = sum(map(prod, first.values())), sum(map(prod, shapes.values()))
        head = prod(shapes[family.head]) if family.head in shapes else 0
        return cls(
            name=name,
            blocks=config.num_hidden_layers,
            sites=sites,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            head_width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            vocabulary=config.vocab_size,
            block_weights=block,
            all_weights=total,
            ends=total - block * config.num_hidden_layers - head,
        )

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Shapes (m, n) of the layers of a block."""
        return [(m, n) for n, outputs in self.sites for m in outputs]

    @property
    def prunable(self) -> int:
        """Weights in the layers of a block."""
        return sum(m * n for m, n in self.layers)

    @property
    def middle(self) -> int:
        """The widest input."""
        return max(n for n, _ in self.sites)


@dataclass(frozen=True)
class Job:
    """What a run is asked to do, in numbers.

    Attributes
    ----------
    sequences, length : of the calibration
    windows, window : of the evaluation text, 0 without one
    texts : how many models are evaluated on it
    base : bytes that the process takes before it begins
    itemsize, stored : bytes of a number in the forward pass and in the files
    """

    recipe: Recipe
    sequences: int
    length: int
    itemsize: int
    stored: int
    on_gpu: bool
    dense_beside: bool = False
    dense_hidden: bool = False
    allocate: bool = False
    windows: int = 0
    window: int = 0
    texts: int = 2
    base: int = BASE

    @property
    def tokens(self) -> int:
        """T."""
        return self.sequences * self.length


def recipe_of(plan: Plan, judged_there: bool = False) -> Recipe:
    """The choices of a plan that decide what a layer costs."""
    return Recipe(
        method=plan.method.name,
        options=plan.method.options,
        refine=plan.refine,
        swaps=plan.swaps,
        fast=plan.solver == "fast",
        drift=plan.error_correction == "block",
        normalised=solvers.find(plan.method.name).normalised,
        judged_there=judged_there,
    )


def forward(model: Model, sequences: int, length: int, itemsize: int) -> Work:
    """One pass of one block (1)."""
    tokens = sequences * length
    attention = 4.0 * sequences * model.heads * model.head_width * length**2
    entries = tokens * (24 * model.width + 8 * model.middle + 3 * model.heads * length)
    return Work(forward=2.0 * tokens * model.prunable + attention, moved=float(itemsize) * entries)


def passes(model: Model, sequences: int, length: int, itemsize: int) -> Work:
    """The passes of one block as far as each of its sites (2); memory moves in proportion."""
    whole = forward(model, sequences, length, itemsize)
    later = whole.forward - 2.0 * sequences * length * model.prunable  # attention
    before = [sum(n * m for n, outputs in model.sites[:s] for m in outputs) for s in range(len(model.sites))]
    flop = sum(2.0 * sequences * length * weights + (later if weights else 0.0) for weights in before)
    return whole * (flop / whole.forward)


def stages(model: Model, job: Job) -> dict[str, Work]:
    """The work of every stage of a run; the sums of (1)-(5)."""
    recipe, sites = job.recipe, model.sites
    once = forward(model, job.sequences, job.length, job.itemsize)
    seen = passes(model, job.sequences, job.length, job.itemsize) * (2 if job.dense_beside else 1)  # (2)
    products = 3 if job.dense_beside else 1
    grams = sum((Work(gram=2.0 * job.tokens * n**2 * products) + work.accepting(n) for n, _ in sites), Work())  # (3)
    solve = sum((work.site_work(recipe, n) for n, _ in sites), Work())
    solve += sum((work.solving(recipe, m, n) for m, n in model.layers), Work())
    certify = sum((work.judging(recipe, m, n) for m, n in model.layers), Work())
    certify += sum((work.sending(recipe, n) for n, _ in sites), Work())
    block = Work(disk=float(job.stored) * model.block_weights * (2 if job.dense_beside or job.dense_hidden else 1))
    ends = Work(disk=float(job.stored) * (model.all_weights + model.ends))
    found = {
        "read": ends + block * model.blocks,
        "allocate": (once + block) * model.blocks if job.allocate else Work(),
        "calibrate": once * (model.blocks - 1) + (seen + grams) * model.blocks,  # what the last puts out, nobody reads
        "solve": solve * model.blocks,
        "certify": certify * model.blocks,
        "write": Work(disk=float(job.stored) * model.prunable) * model.blocks,
        "evaluate": evaluation(model, job),
    }
    return {name: found[name] for name in STAGES}


def evaluation(model: Model, job: Job) -> Work:
    """Both perplexities (5)."""
    tokens = job.windows * job.window
    body = forward(model, job.windows, job.window, job.itemsize) * model.blocks
    head = Work(forward=2.0 * tokens * model.width * model.vocabulary, moved=32.0 * tokens * model.vocabulary)
    load = Work(disk=float(job.stored) * model.all_weights)
    return ((body + head) * EVALUATING + load) * (job.texts if tokens else 0)


def seconds(amount: Work, rates: Rates) -> float:
    """(6)."""
    return sum(getattr(amount, f.name) / getattr(rates, f.name) for f in fields(Work))


def memory(model: Model, job: Job) -> dict[str, float]:
    """Bytes of host and GPU at their peaks (7)-(12), by what they hold."""
    block = float(job.itemsize) * model.block_weights * (2 if job.dense_beside or job.dense_hidden else 1)
    hidden = 2.0 * job.itemsize * job.tokens * model.width
    ends = float(job.itemsize) * model.ends
    batch = min(BATCH, job.sequences)
    running = batch * job.length * (6.0 * model.width + 3 * model.middle) * job.itemsize  # (8)
    running += 8.0 * batch * model.heads * job.length**2 * (0 if job.on_gpu else 1)
    widest = max(n for n, _ in model.sites)
    sums = 28.0 * widest**2 * (3 if job.dense_beside else 1)  # (9)
    accepting = 8.0 * ACCEPTING * widest**2  # (10)
    solving = max(_solving(job.recipe, m, n) for m, n in model.layers)  # (11)
    twin = max(4.0 * (n**2 + 14 * m * n) for m, n in model.layers) if job.recipe.fast else 0.0
    there, kept = (max(found) for found in zip(*(_judging(job.recipe, m, n) for m, n in model.layers), strict=True))
    states = {"block": block, "embeddings": ends, "hidden states": hidden}
    scored = _evaluating(model, job) if job.windows else {}
    if job.on_gpu:
        gpu = _larger({**states, "work": max(running + sums, kept + max(twin, there))}, scored)
        host = {"base": 1.5 * job.base, "work": max(accepting, solving)}
    else:
        gpu, work = {}, max(running + sums, accepting, solving + twin)
        host = {"base": float(job.base), **_larger({**states, "work": work}, scored)}
    return {
        "host_bytes": OVER * sum(host.values()),
        "gpu_bytes": OVER * sum(gpu.values()),
        **{f"host: {key}": value for key, value in host.items()},
        **{f"gpu: {key}": value for key, value in gpu.items()},
    }


def _solving(recipe: Recipe, m: int, n: int) -> float:
    refined = int(recipe.refine != "none")
    held = ONE_SHOT if recipe.method in ("dense", "magnitude", "wanda") and not refined else ITERATIVE
    factored = 3 * ("sparsegpt" in (recipe.method, recipe.options.get("start")))  # damped Gram, its factor, the inverse
    return 8.0 * max((NORMALISING + refined + factored) * n**2 + 4 * m * n, (JUDGING + refined) * n**2 + held * m * n)


def _judging(recipe: Recipe, m: int, n: int) -> tuple[float, float]:
    """Bytes that judging a layer takes on the device, and that the Grams of its site take there."""
    held = ONE_SHOT if recipe.refine == "none" else ITERATIVE
    grams = 2 + (recipe.refine != "none") + 2 * recipe.drift
    return (8.0 * (n**2 + held * m * n), 8.0 * grams * n**2) if recipe.judged_there else (0.0, 0.0)


def _evaluating(model: Model, job: Job) -> dict[str, float]:
    ends = model.all_weights - model.blocks * model.block_weights
    return {
        "weights": float(job.itemsize) * max(model.block_weights, ends),
        "hidden states": float(job.itemsize) * job.windows * job.window * model.width,
        "work": 3.0 * max(LOGIT_BYTES, 4 * job.window * model.vocabulary),
    }


def _larger(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return max(one, other, key=lambda parts: sum(parts.values()))


def predict(model: Model, job: Job, rates: Rates) -> dict[str, Any]:
    """The whole prediction, as summary.json and ``--dry-run --json`` hold it.

    Layers are judged on the host where the device has no memory for the largest one.
    """
    room, needed = rates.device_bytes or float("inf"), memory(model, job)
    if needed["gpu_bytes"] > room and job.recipe.judged_there:
        job = replace(job, recipe=replace(job.recipe, judged_there=False))
        needed = memory(model, job)
    found = stages(model, job)
    return {
        "device": rates.name,
        "measured": rates.measured,
        "calibration": f"{job.sequences}x{job.length}",
        "judged_on": "cuda" if job.recipe.judged_there else "cpu",
        "flop": {name: amount.flop for name, amount in found.items()},
        "seconds": {name: seconds(amount, rates) for name, amount in found.items()},
        "memory": needed,
        "fits": needed["gpu_bytes"] <= room,
        "disk_bytes": job.stored * model.all_weights,
        "rates": {k: v for k, v in asdict(rates).items() if isinstance(v, float)},
    }
