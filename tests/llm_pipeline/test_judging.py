"""Judged on a device: the same text, the same verdicts; a copy that differs is noticed; the host steps in visibly."""

from __future__ import annotations

import gc
import inspect
import json
import sys
from dataclasses import replace
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch

import solvers
from llm_pipeline import assemble, judging, prune, work
from llm_pipeline.dry_run import dry_run, words
from llm_pipeline.evidence import Inputs
from llm_pipeline.judging import HOST, Copy, Court, contradictions, court_of, differences, tried, verdicts
from llm_pipeline.layer import Layer, judge, judged
from llm_pipeline.verify import verify
from llm_pipeline.work import Recipe
from solvers.door import run as solved
from solvers.methods import Method
from solvers.problem import Gram
from solvers.refusal import Refusal
from theory_checks import Certificate, allowance

M, N = 24, 32
_spec = spec_from_file_location("like_cupy", Path(__file__).with_name("like_cupy.py"))
like_cupy = module_from_spec(_spec)
_spec.loader.exec_module(like_cupy)
ELSEWHERE = Court("cuda", like_cupy.put)
RUNS: list[tuple[str, str, dict[str, Any]]] = [
    ("maiht", "50%", {"iters": 8}),
    ("maiht", "2:4", {"iters": 40, "tol": 1e-1, "ramp": 0.0}),  # converges
    ("maiht", "50%/layer", {"iters": 5, "refine": "gradient:3"}),
    ("maiht-released", "2:4", {"iters": 4, "polish": 2}),
    ("wanda", "50%", {"refine": "exact", "swaps": 20}),
    ("wanda", "2:4", {"swaps": "all"}),
    ("wanda", "50%/layer", {"refine": "exact"}),
    ("fista", "50%", {"rounds": 3}),
    ("fista", "50%/layer", {"rounds": 3}),
    ("admm", "50%", {"refine": "exact", "swaps": 20}),
    ("dense", "50%", {}),
]


class Weights:
    """A checkpoint of one weight."""

    def __init__(self, W0: np.ndarray) -> None:
        self.W0 = torch.from_numpy(W0)

    def read(self, name: str) -> torch.Tensor:
        return self.W0


@lru_cache
def seen(drift: bool = False) -> tuple[np.ndarray, Inputs]:
    """A dense weight, and what it sees."""
    draw = np.random.default_rng(1)
    X = draw.standard_normal((4 * N, N)) @ (np.eye(N) + 0.3 * draw.standard_normal((N, N)))
    D = 0.1 * draw.standard_normal(X.shape)
    moved = (D.T @ X / len(X), D.T @ D / len(X)) if drift else None
    return draw.standard_normal((M, N)), Inputs(Gram(X.T @ X / len(X)), moved)


@lru_cache
def layer(name: str, sparsity: str, stages: str, drift: bool = False) -> Layer:
    """A layer as `prune_layer` solves one, cast to float32."""
    W0, inputs = seen(drift)
    budget, method = solvers.parse(sparsity).on((M, N)), solvers.find(name)
    run = solved(method, inputs.problem(W0), budget, **json.loads(stages))
    run = run._replace(weight=run.weight.astype(np.float32))
    return Layer("w", 0, "s", Weights(W0), inputs, run, torch.from_numpy(run.weight), 0.0)


def both(name: str, sparsity: str, stages: dict[str, Any], drift: bool = False) -> tuple[Method, str, Layer]:
    made = layer(name, sparsity, json.dumps(stages), drift)
    return solvers.find(name), "exact" if made.run.gains is not None else stages.get("refine", "none"), made


@pytest.mark.parametrize("drift", [False, True], ids=["plain", "drift"])
@pytest.mark.parametrize(("name", "sparsity", "stages"), RUNS, ids=str)
def test_a_device_gives_the_certificates_of_the_host(name, sparsity, stages, drift):
    method, refine, here = both(name, sparsity, stages, drift)
    host, there = judged(method, here, refine), judged(method, here, refine, ELSEWHERE)
    assert (host.step, there.step) == ("", "")
    assert there.certificates == host.certificates  # NumPy computes both
    assert all(type(v) in (float, str) for c in there.certificates for v in vars(c).values())
    assert (host.row.pop("judged_on"), there.row.pop("judged_on")) == ("cpu", "cuda")
    assert json.dumps(there.row) == json.dumps(host.row)


def spoilt(here: Layer, what: str) -> Court:
    """A place where one array arrives changed."""
    found = here.run.found.weight
    arrays = {"found": found, "removed": found, "saved": here.run.weight, "H": here.run.problem.H}

    def put_spoilt(array: np.ndarray) -> Any:
        there = like_cupy.put(array)
        if array is arrays[what]:
            row, column = (int(k[0]) for k in np.nonzero((array == 0) == (what in ("saved", "removed"))))
            there[row, column] = 2 * float(there[row, column]) + 1
        return there

    return Court("cuda", put_spoilt)


@pytest.mark.parametrize(
    ("what", "fails"),
    [("found", "objective-recomputed"), ("removed", "objective-recomputed"), ("saved", "exact-count")],
)
def test_a_weight_that_arrives_changed_fails_a_claim(what, fails):
    method, refine, here = both("maiht", "50%", {"iters": 8})
    changed = {c.name: c.outcome for c in judged(method, here, refine, spoilt(here, what)).certificates}
    assert changed[fails] == "fails"


def _halved(gram: Copy) -> float:
    return gram.origin().lipschitz / 2


def test_a_gram_or_a_bound_that_arrives_changed_is_no_match(monkeypatch):
    _, _, here = both("maiht", "50%", {"iters": 8})
    method = solvers.find("maiht")
    host = verdicts(method, here.run, HOST)
    here.run.problem.gram.factors.clear()
    assert list(differences(host, verdicts(method, here.run, spoilt(here, "H")), 0.0))
    here.run.problem.gram.factors.clear()
    assert not list(differences(host, verdicts(method, here.run, ELSEWHERE), 0.0))
    monkeypatch.setattr(Copy, "lipschitz", property(_halved))
    assert list(differences(host, verdicts(method, here.run, ELSEWHERE), 0.0))


@pytest.mark.parametrize("part", [5, 7, 1000])
def test_however_many_rows_are_taken_at_a_time_the_verdicts_are_the_same(monkeypatch, part):
    monkeypatch.setattr(Copy, "part", part)
    for name, sparsity, stages in RUNS[:9:2]:
        method, refine, here = both(name, sparsity, stages)
        host, there = judged(method, here, refine), judged(method, here, refine, ELSEWHERE)
        rounding = allowance(here.run.problem.magnitude(np.zeros((M, N))) + M * N, M * N)
        assert list(differences(host.certificates, there.certificates, rounding)) == []
        assert abs(there.row["objective"] - host.row["objective"]) <= rounding


def test_the_grams_of_a_site_are_sent_once():
    sent = []
    court = Court("counting", lambda array: sent.append(array.shape) or like_cupy.put(array))
    _, _, here = both("wanda", "50%/layer", {"refine": "exact"})
    for _ in range(2):
        there = here.at(court)
    assert sent.count((N, N)) == 3  # without a ridge, with that of the search, with that of the refit
    assert there.run.problem.gram is court.gram(here.run.problem.gram)
    assert there.run.problem.lipschitz == here.run.problem.lipschitz


def test_a_gram_takes_its_copy_with_it():
    """Gigabytes that wait for the collector of cycles are gigabytes that are not there."""
    gram = Gram(np.eye(2))
    there, alive = ELSEWHERE.gram(gram), ref(gram)
    there = ref(there)
    assert there() is not None
    gc.disable()
    try:
        del gram
        assert alive() is there() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("name", "sparsity", "stages"), RUNS, ids=str)
def test_as_much_is_sent_as_the_planner_counts(name, sparsity, stages):
    sent = []
    court = Court("measured", lambda array: sent.append(array.nbytes * (array.ndim == 2)) or like_cupy.put(array))
    method, refine, here = both(name, sparsity, stages)
    for gram in (here.inputs.gram, here.run.problem.gram, here.run.refit.gram):
        gram.factors.clear()
    judged(method, here, refine, court)
    recipe = Recipe(name, {}, refine, stages.get("swaps", 0), judged_there=True)
    assert sum(sent) == work.judging(recipe, M, N).sent + work.sending(recipe, N).sent


def test_a_device_takes_over_every_product_of_a_judge():
    for name, sparsity, stages in RUNS:
        here = Recipe(name, {}, stages.get("refine", "none"), stages.get("swaps", 0))
        there = replace(here, judged_there=True)
        assert work.judging(there, M, N).wide == work.judging(here, M, N).product > work.judging(there, M, N).product
        assert work.sending(here, N) == work.Work(), sparsity


def test_a_machine_that_is_not_here_has_cupy_and_a_layer_that_finds_no_room_is_planned_on_the_host():
    small, large = (dry_run(name, as_if="a100-40gb", calibration="c:128x2048") for name in ("llama-7b", "llama-70b"))
    assert (small["judged_on"], large["judged_on"]) == ("cuda", "cpu")
    assert "certificates with CuPy on the GPU;" in words(small)
    assert "certificates on the host;" in words(large)
    assert large["fits"]


# before it may judge, a place is tried


def _noisy(array: np.ndarray) -> Any:
    return like_cupy.put(array * (1 + 1e-6) if array.ndim == 2 else array)


def test_a_place_that_contradicts_the_host_or_breaks_does_not_judge(monkeypatch):
    assert not list(contradictions(ELSEWHERE))
    assert tried(lambda: ELSEWHERE) is ELSEWHERE
    assert tried(lambda: Court("cuda", _noisy)).why.startswith("CuPy contradicts the host: ")
    broken = tried(lambda: Court("cuda", lambda array: array.no_such_thing))
    assert (broken.name, broken.why[:42]) == ("cpu", "CuPy does not work here (AttributeError: '")
    monkeypatch.setattr(Copy, "lipschitz", property(_halved))
    assert "sufficient-decrease" in tried(lambda: ELSEWHERE).why
    certificate = Certificate("a", "", "", 0.0, 1.0)
    assert list(differences([certificate], [replace(certificate, name="b")], 0.0))
    assert list(differences([certificate], [replace(certificate, applies="no")], 0.0))
    undefined = replace(certificate, measured=float("nan"))
    assert not list(differences([undefined], [undefined], 0.0))


def test_without_cuda_or_cupy_the_host_judges_and_says_why(monkeypatch):
    assert court_of("cpu") is HOST
    monkeypatch.setitem(sys.modules, "cupy", None)
    court_of.cache_clear()
    assert court_of("cuda") == replace(HOST, why=judging.MISSING)
    court_of.cache_clear()


def test_cupy_is_asked_for_its_device_its_arrays_and_its_memory(monkeypatch):
    asked = []
    pool = SimpleNamespace(free_all_blocks=lambda: asked.append("freed"))
    device = SimpleNamespace(use=lambda: asked.append("used"))
    fake = SimpleNamespace(
        asarray=like_cupy.put,
        cuda=SimpleNamespace(Device=lambda index: asked.append(index) or device),
        get_default_memory_pool=lambda: pool,
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    court_of.cache_clear()
    court = court_of("cuda:1")
    court.leave()
    court_of.cache_clear()
    assert (court.name, court.why, asked) == ("cuda", "", [1, "used", "freed"])


# the host steps in, visibly


def test_a_device_without_memory_leaves_the_layer_to_the_host():
    method, refine, here = both("wanda", "50%", {"refine": "exact", "swaps": 20})
    left, sent = [], []

    def full(array: np.ndarray) -> Any:
        sent.append(array)
        if len(sent) > 5:
            raise MemoryError("Out of memory allocating 90,177,536 bytes")
        return like_cupy.put(array)

    found = judged(method, here, refine, Court("full", full, lambda: left.append(1)))
    assert found.step == "w judged on the host: MemoryError: Out of memory allocating 90,177,536 bytes"
    assert found.row["judged_on"] == "cpu"
    assert found.certificates == judge(method, here, refine)
    assert len(left) == 2  # before the attempt and after it
    assert not any(("judged", "full") in gram.factors for gram in (here.inputs.gram, here.run.problem.gram))


def test_a_refusal_is_no_reason_to_judge_elsewhere(monkeypatch):
    method, refine, here = both("wanda", "50%/layer", {"refine": "exact"})

    def refuse(array: np.ndarray) -> Any:
        raise Refusal("no")

    with pytest.raises(Refusal):
        judged(method, here, refine, Court("other", refuse))


@pytest.mark.parametrize("court", [ELSEWHERE, replace(HOST, why=judging.MISSING)], ids=["device", "host"])
def test_a_run_says_where_it_was_judged(tiny, ids, prune_to, monkeypatch, court):
    monkeypatch.setattr(prune, "court_of", lambda device: court)
    job = assemble.job(str(tiny), calibration=str(ids), method="wanda", refine="exact", text="none")
    said: list[str] = []
    out = tiny.parent / "out"
    summary = prune.prune(job.plan, job.source, job.tokens, out, progress=lambda d, n, what: said.append(what)).summary
    rows = [json.loads(line) for line in (out / "layers.jsonl").read_text().splitlines()]
    assert {row["judged_on"] for row in rows} == {summary["judged_on"]} == {court.name}
    words = [f"certificates on the host: {court.why}"] if court.why else []
    assert summary["stepped_down"] == words
    assert [what for what in said if what.startswith("certificates")] == words
    report = verify(out, job.plan, job.source, job.tokens)
    assert [str(finding) for finding in report.failed] == []


# the double, and the device


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda a: a + np.ones((2, 2)), like_cupy.Unlike),
        (lambda a: np.ones((2, 2)) @ a, like_cupy.Unlike),
        (lambda a: np.asarray(a), like_cupy.Unlike),
        (lambda a: np.vdot(np.ones((2, 2)), a), like_cupy.Unlike),
        (lambda a: np.where(np.ones((2, 2)) > 0, a, 0.0), like_cupy.Unlike),
        (lambda a: a.max(initial=0.0), like_cupy.Unlike),
        (lambda a: np.median(a), TypeError),
        (lambda a: np.logaddexp(a, a), TypeError),
        (lambda a: np.add.reduce(a), TypeError),
        (lambda a: np.any(a, where=True), TypeError),
        (lambda a: a.tolist(), AttributeError),
        (lambda a: a.T.sort(axis=1), NotImplementedError),
    ],
)
def test_the_double_refuses_what_cupy_refuses(act, error):
    with pytest.raises(error) as refused:
        act(like_cupy.put(np.arange(4.0).reshape(2, 2)))
    assert refused.type is error


def test_the_double_gives_arrays_without_dimension_where_numpy_gives_numbers():
    a = like_cupy.put(np.arange(4.0))
    for found in (a.sum(), np.vdot(a, a), np.count_nonzero(a), a[1], np.any(a), a[1] > 0, np.float64(2) * a[1]):
        assert type(found) is like_cupy.Array
        assert found.ndim == 0
    assert (float(a.sum()), int(a[2]), bool(a[0] > 0), float(max(a[1], 0.5))) == (6.0, 2, False, 1.0)


def test_the_double_knows_nothing_that_cupy_does_not():
    cupy = pytest.importorskip("cupy", reason="no CUDA device: cupy is not installed")
    assert all(hasattr(cupy, name) for name in like_cupy.UFUNCS)
    for name, arguments in like_cupy.FUNCTIONS.items():
        there = attrgetter(name.removeprefix("numpy."))(cupy)
        assert set(arguments) <= set(inspect.signature(there).parameters), name
    for name, arguments in like_cupy.METHODS.items():
        said = (getattr(cupy.ndarray, name).__doc__ or "").partition("\n")[0]
        assert all(argument in said for argument in arguments), name


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "sparsity", "stages"), RUNS, ids=str)
def test_a_device_comes_to_the_verdicts_of_the_host(name, sparsity, stages):
    cupy = pytest.importorskip("cupy", reason="no CUDA device: cupy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    court = court_of("cuda")
    assert court.name == "cuda", court.why
    method, refine, here = both(name, sparsity, stages)
    host, there = judged(method, here, refine), judged(method, here, refine, court)
    assert (there.step, there.row["judged_on"]) == ("", "cuda")
    rounding = allowance(here.run.problem.magnitude(np.zeros((M, N))) + M * N, M * N)
    assert list(differences(host.certificates, there.certificates, rounding)) == []
