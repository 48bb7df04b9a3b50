"""The planner's formulas against counted runs, and its memory against what arrays took."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig
from typer.testing import CliRunner

import solvers
from llm_pipeline import assemble, planner, work
from llm_pipeline.__main__ import app
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.dry_run import dry_run, predicted
from llm_pipeline.evidence import measure, see
from llm_pipeline.gram import MeanGram
from llm_pipeline.planner import Job, Model
from llm_pipeline.prune import prune
from llm_pipeline.rates import PUBLISHED, measured, published
from llm_pipeline.shapes import SHAPES, config_like
from llm_pipeline.work import Recipe, Work
from solvers.array import Place
from solvers.door import run
from solvers.gpu.layer import Layer
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal
from theory_checks import certify, certify_saved

M, N = 24, 32


class Counted(np.ndarray):
    """An array whose products are counted, and those of everything that is made from it."""

    flop = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [np.asarray(x) for x in inputs]
        if ufunc is np.matmul:
            a, b = plain
            Counted.flop += 2 * a.shape[0] * a.shape[-1] * b.shape[-1] if a.ndim == b.ndim == 2 else 0
        if out is not None:
            options["out"] = tuple(np.asarray(x) for x in out)
        found = getattr(ufunc, method)(*plain, **options)
        return found.view(Counted) if isinstance(found, np.ndarray) and found.ndim == 2 else found


@pytest.fixture
def counted(monkeypatch):
    """A layer whose products with the Gram are counted, triangular solves and factors among them."""
    draw = np.random.default_rng(0)
    X = draw.standard_normal((4 * N, N)) @ (np.eye(N) + 0.2 * draw.standard_normal((N, N)))
    problem = LayerProblem(draw.standard_normal((M, N)), Gram((X.T @ X / len(X)).view(Counted)))

    def solved(factor, b, **options):
        Counted.flop += 2 * b.shape[0] ** 2 * b.shape[1]
        return right(np.asarray(factor[0]), b)

    def right(c, b):
        return np.linalg.solve(np.tril(c) @ np.tril(c).T, b)

    def inverse(A, b, **options):
        return np.linalg.solve(np.triu(np.asarray(A)), b).view(Counted)

    eigh = scipy.linalg.eigh

    def vectors(A, **options):
        values, Q = eigh(np.asarray(A), **options)
        return values, Q.view(Counted)

    monkeypatch.setattr(scipy.linalg, "eigh", vectors)
    monkeypatch.setattr(scipy.linalg, "cho_solve", solved)
    monkeypatch.setattr(scipy.linalg, "solve_triangular", inverse)
    Counted.flop = 0
    return problem


RECIPES = [
    ("wanda", {}, "none"),
    ("magnitude", {}, "none"),
    ("iht", {"iters": 6}, "none"),
    ("maiht", {"iters": 5}, "none"),
    ("maiht", {"iters": 5}, "gradient:3"),
    ("maiht-released", {"iters": 4, "polish": 3}, "none"),
    ("admm", {"iters": 6, "refresh": 3}, "none"),
    ("admm-released", {"iters": 6, "refresh": 3}, "none"),
    ("sparsegpt", {"blocksize": 8}, "none"),
]


@pytest.mark.parametrize(("name", "options", "refine"), RECIPES, ids=str)
def test_products_of_a_solver_and_of_its_judges_are_counted_exactly(counted, name, options, refine):
    method = solvers.find(name)
    recipe = Recipe(name, method.options() | options, refine)
    budget = solvers.parse("50%/layer" if "released" in name else "50%").on((M, N))
    found = run(method, counted, budget, refine=refine, **options)
    assert work.solving(recipe, M, N).product == Counted.flop
    Counted.flop = 0
    certify(method, found, refine)
    certify_saved(found.refit, budget, np.asarray(found.weight))
    counted.value(found.weight), counted.relative_error(found.weight)  # the line in layers.jsonl
    if refine != "none":
        found.refit.change(found.found.weight, found.refined)
        for W in (found.found.weight, found.refined):
            counted.relative_error(found.problem.original(W))
    assert work.judging(recipe, M, N).product == Counted.flop


def test_steps_of_alps_fista_and_conjugate_gradients_cost_what_a_step_costs(counted, monkeypatch):
    """Rounds depend on the data; where as many are made as were assumed, the count is exact."""
    monkeypatch.setattr(work, "ROUNDS", {"fista": 2, "alps": 2})
    monkeypatch.setattr(work, "CG_STEPS", 3)
    target = solvers.parse("50%").on((M, N))
    cases = {"alps": {"iters": 2, "polish": 4}, "fista": {"rounds": 2, "iters": 3, "patience": 9, "tol": 0.0}}
    for name, options in cases.items():
        Counted.flop = 0
        run(solvers.find(name), counted, target, **options)
        recipe = Recipe(name, solvers.find(name).options() | options)
        assert work.solving(recipe, M, N).product == Counted.flop, name
    from solvers.linalg import least_squares_pcg

    judge = counted.normalised(0.1)
    Counted.flop = 0
    least_squares_pcg(judge, target.mask(np.abs(judge.W0)), np.zeros((M, N)), tol=0.0, iters=3)
    assert work.conjugate_gradients(M, N, 3).product == Counted.flop


@pytest.mark.parametrize("name", ["iht", "maiht"])
def test_products_of_a_twin_are_counted_exactly(name, monkeypatch):
    made = []
    right = Layer.product
    monkeypatch.setattr(Layer, "product", lambda self, w, out: made.append(2 * M * N**2) or right(self, w, out))
    draw = np.random.default_rng(0)
    problem = LayerProblem.of(draw.standard_normal((M, N)), np.cov(draw.standard_normal((N, 99))))
    method = solvers.find(name)
    run(method, problem, solvers.parse("50%").on((M, N)), place=Place.of(torch.zeros(1), "float32"), iters=7)
    recipe = Recipe(name, method.options() | {"iters": 7}, fast=True)
    assert work.searching(recipe, M, N).fast == sum(made)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3 tied", "opt"])
def test_a_forward_pass_and_its_grams_are_counted_exactly(save_tiny, kind):
    source = Checkpoint.open(save_tiny(kind))
    source.config._attn_implementation = "eager"
    walk, model = BlockWalk(source, "cpu"), Model.of(source.config, kind)
    hidden = walk.embed(np.random.default_rng(0).integers(0, 97, (3, 16)))
    walk.forward(walk.load(0), 0, hidden)  # fetches the arguments of the blocks, with a rotary product
    with FlopCounterMode(display=False) as counter:
        walk.forward(walk.load(0), 0, hidden)
    assert counter.get_total_flops() == planner.forward(model, 3, 16, 4).forward
    partial = 0
    for site, (n, _) in zip(walk.family.sites, model.sites, strict=True):
        with FlopCounterMode(display=False) as both:
            measure(walk, walk.load(0), 0, hidden, (site,))
        assert both.get_total_flops() - counter.get_total_flops() == 2 * 3 * 16 * n**2
        with FlopCounterMode(display=False) as stopped:
            see(walk, walk.load(0), 0, hidden, (site,))
        partial += stopped.get_total_flops() - 2 * 3 * 16 * n**2
    assert round(planner.passes(model, 3, 16, 4).forward) == partial


@pytest.mark.parametrize("beside", [False, True])
def test_as_many_passes_are_made_as_are_planned(tiny, prune_to, monkeypatch, beside):
    made = {"outputs": 0, "inputs": 0}

    def counted(name, right):
        def run(self, block, i, hidden, *path, **options):
            made[name] += 1
            return right(self, block, i, hidden, *path, **options)

        return run

    for name in made:
        monkeypatch.setattr(BlockWalk, name, counted(name, getattr(BlockWalk, name)))
    prune_to(tiny, method="magnitude", error_correction="block" if beside else "none")
    model = Model.of(Checkpoint.open(tiny).config, "tiny")
    job = Job(Recipe("magnitude", {}, drift=beside), 4, 32, 4, 4, False, dense_beside=beside)
    once = planner.forward(model, 4, 32, 4).forward
    seen = planner.passes(model, 4, 32, 4).forward * made["inputs"] / len(model.sites)
    assert round(planner.stages(model, job)["calibrate"].forward) == round(made["outputs"] * once + seen)


def test_weights_are_counted_as_the_files_hold_them(tiny):
    source = Checkpoint.open(tiny)
    model = Model.of(source.config, "tiny")
    assert model.all_weights == sum(int(np.prod(source.shape(name))) for name in source.names)
    assert model.blocks * model.block_weights + model.ends < model.all_weights


def test_the_predicted_memory_is_not_exceeded_by_the_arrays_of_a_run(tmp_path):
    """Of a layer wide enough for arrays to outweigh everything else; the trace sees NumPy's arrays, (10) and (11)."""
    from llm_pipeline import synth

    config = AutoConfig.for_model(**SHAPES["tiny"] | {"hidden_size": 256, "intermediate_size": 1024})
    config.num_hidden_layers = 1
    ids = synth.zipf_tokens(config, 8, 64, 0)
    synth.write_model(config, tmp_path / "m", seed=0, dtype=torch.float32, limit=10**9, ids=ids)
    brief = {"maiht": {"iters": "3"}, "alps": {"iters": "3"}, "admm": {"iters": "3", "refresh": "2"}}
    brief["fista"] = {"rounds": "1"}
    for name in ("wanda", "maiht", "alps", "sparsegpt", "admm", "fista"):
        settings = brief.get(name, {})
        job = assemble.job(
            str(tmp_path / "m"), calibration=str(tmp_path / "m/calibration.npy"), method=name, settings=settings
        )
        foreseen = predicted(job)["memory"]["host: work"]
        tracemalloc.start()
        try:
            prune(job.plan, job.source, job.tokens, tmp_path / name)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert foreseen / 4 <= peak <= foreseen, name


def test_the_work_of_seven_billion_weights_is_that_of_the_notes():
    """Grams 2.9 PF, a pass 3.4 PF with attention, one product with every Gram 73 TF, as derived by hand."""
    model = Model.of(config_like("llama-7b"), "llama-7b")
    assert model.prunable * 32 == 6_476_005_376
    once = planner.forward(model, 128, 2048, 2).forward * 32
    assert once == 2 * 128 * 2048 * 6_476_005_376 + 32 * 4 * 128 * 4096 * 2048**2
    one = sum(work.layer(m, n, products=1).product for m, n in model.layers) * 32
    assert round(one / 1e12) == 73
    job = Job(Recipe("wanda", {}), 128, 2048, 2, 2, True)
    assert round(planner.stages(model, job)["calibrate"].gram / 1e14) == 29


def test_a_larger_job_is_never_predicted_to_take_less():
    model, rates = Model.of(config_like("llama-100m"), "m"), published("cpu", torch.float32)
    usual = Recipe("maiht", {"iters": 10})
    grown = [
        Recipe("maiht", {"iters": 20}),
        Recipe("maiht", {"iters": 10}, "exact"),
        Recipe("maiht", {"iters": 10}, "exact", "all"),
    ]
    jobs = [Job(recipe, 8, 256, 2, 2, False) for recipe in (usual, *grown)] + [Job(usual, 16, 256, 2, 2, False)]
    total = [sum(planner.seconds(w, rates) for w in planner.stages(model, job).values()) for job in jobs]
    assert all(other > total[0] for other in total[1:])


def test_measuring_takes_under_three_seconds_and_gives_positive_rates():
    import time

    measured.cache_clear()
    begin = time.process_time()
    rates = measured("cpu", torch.float32, 11008, 4096)
    assert time.process_time() - begin < 3 * torch.get_num_threads()
    assert all(v > 0 for v in vars(rates).values() if isinstance(v, float))
    assert rates.measured
    assert not any(known.measured for known in PUBLISHED.values())


def test_an_unknown_machine_or_shape_is_refused():
    with pytest.raises(Refusal, match="Did you mean 'h100'"):
        dry_run("llama-7b", as_if="h10")
    with pytest.raises(Refusal, match="llama-7b"):
        dry_run("nowhere-7b", as_if="h100")
    with pytest.raises(Refusal, match=r"Leave --text out"):
        dry_run("llama-7b", as_if="h100", text="wiki.txt")


# planted defects: a formula that is off must be seen by the counts above


@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("layer", lambda m, n, products=0, passes=0, selections=0: Work(product=m * n**2 * products)),
        ("layer", lambda m, n, products=0, passes=0, selections=0: Work(product=2 * m**2 * n * products)),
    ],
)
def test_a_wrong_product_would_be_seen(counted, monkeypatch, name, defect):
    monkeypatch.setattr(work, name, defect)
    with pytest.raises(AssertionError):
        test_products_of_a_solver_and_of_its_judges_are_counted_exactly(counted, "maiht", {"iters": 5}, "none")


def test_a_gram_that_is_counted_twice_would_be_seen(save_tiny, monkeypatch):
    right = MeanGram.add

    def twice(self, x):
        right(self, x)
        right(self, x)

    monkeypatch.setattr(MeanGram, "add", twice)
    with pytest.raises(AssertionError):
        test_a_forward_pass_and_its_grams_are_counted_exactly(save_tiny, "llama")


def test_a_dry_run_writes_nothing_and_needs_only_a_configuration(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "config-only"
    folder.mkdir()
    (folder / "config.json").write_text((tiny / "config.json").read_text())
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(folder)
    for model in (str(folder), str(folder / "config.json")):
        asked = ["prune", model, "--dry-run", "--calibration", "text.jsonl:4x32", "--json"]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["measured"]
        assert found["calibration"] == "4x32"
    assert sorted(tmp_path.rglob("*")) == before
    asked = ["prune", "llama-7b", "--as-if", "a100", "--solver", "fast"]
    done = CliRunner().invoke(app, asked)
    assert "A100, 80 GB (rates published, not measured)" in done.stdout.replace("\n", " ")
    assert "GPU memory" in done.stdout


def test_a_model_that_does_not_fit_is_said_not_to():
    small, large = (dry_run(name, as_if="4090", calibration="c.txt:128x2048") for name in ("llama-7b", "llama-70b"))
    assert small["fits"]
    assert not large["fits"]


def test_a_run_keeps_what_was_predicted(tiny, ids, tmp_path):
    asked = ["prune", str(tiny), "--calibration", str(ids), "--method", "wanda", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, asked).exit_code == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(summary["predicted"]["seconds"]) >= set(summary["seconds"])
    assert summary["predicted"]["memory"]["host_bytes"] > 0
