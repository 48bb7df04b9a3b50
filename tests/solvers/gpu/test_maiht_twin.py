"""The twins of mAIHT and IHT: steps, runs and certificates of the reference, on every library."""

import inspect

import numpy as np
import pytest

import solvers
from solvers import maiht
from solvers.array import Place
from solvers.gpu import iht as fast_iht
from solvers.gpu import maiht as fast_maiht
from solvers.gpu.layer import Layer
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Stop
from solvers.sparsity import L0, KeepGroups, KeepNofM, KeepPerRow
from theory_checks import allowance, certify
from theory_checks.descent import objective_recomputed
from theory_checks.synthetic import CONSTRUCTED, Case, cases
from theory_checks.twins import TWINS, twin_run, twin_step

PRECISIONS = ("float64", "float32")
WIDE = Case("language_like", rows=6, inputs=48, seed=3)
LAYERS = (Case("autoregressive", rows=5, inputs=12, seed=4), WIDE, *CONSTRUCTED)


def _place(backend, dtype="float64"):
    return Place.of(backend.array(np.zeros(1)), dtype)


def _drifted(case):
    """The judge's quadratic written around another weight: R and e0 are not zero."""
    judge = case.judge
    around = judge.around(judge.W0 + case.some_weight() / 8)
    return LayerProblem(around.W0, judge.gram, around.R, around.e0)


def _problems():
    for case in LAYERS:
        yield case, case.judge
    yield WIDE, _drifted(WIDE)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", TWINS)
def test_every_step_is_the_references_step_from_the_same_state(backend, name, dtype):
    place = _place(backend, dtype)
    for case, problem in _problems():
        s = 0.95 / problem.lipschitz
        for sparsity in (*case.sparsities, case.absolute):
            for begin in (maiht.start(problem), case.state(sparsity)):
                certificate = twin_step(name, problem, sparsity, s, begin, n=5, place=place)
                assert certificate.outcome == "holds", f"{case} {sparsity}: {certificate}"


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", TWINS)
def test_a_run_takes_the_references_schedule_and_counts_exactly(backend, name, dtype):
    for case, problem in _problems():
        for sparsity in (*case.sparsities, case.absolute):
            certificate = twin_run(name, problem, sparsity, place=_place(backend, dtype))
            assert certificate.outcome == "holds", f"{case} {sparsity}: {certificate}"


@pytest.mark.parametrize("name", TWINS)
def test_float64_runs_end_at_the_references_objective(backend, name):
    """Where both end on one support their objectives agree; a near tie may part them, rarely."""
    parted, runs = 0, 0
    for case in [*cases(12, 5), WIDE]:
        for sparsity in case.sparsities:
            one = case.run(name, sparsity).found
            two = case.run(name, sparsity, place=_place(backend)).found
            runs += 1
            if not np.array_equal(one.weight != 0, two.weight != 0):
                parted += 1
                continue
            change = case.judge.change(one.weight, two.weight)
            scale = case.judge.magnitude(np.zeros_like(one.weight)) + case.judge.magnitude(one.weight)
            assert abs(change) <= len(one.trace) * allowance(scale, case.inputs)
    assert parted * 20 <= runs


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", TWINS)
def test_every_certificate_of_the_reference_holds_for_the_twin(backend, name, dtype):
    """Judged in float64 on the problem of the reference, rounding of the steps allowed in their own precision."""
    place, method = _place(backend, dtype), solvers.find(name)
    for case in LAYERS[1::2]:
        for sparsity in case.sparsities:
            ramp = 0.0 if isinstance(sparsity, L0) else 0.8
            one, two = (case.run(name, sparsity, "exact", ramp=ramp, **where) for where in ({}, {"place": place}))
            found = {c.name: c for c in certify(method, two, "exact")}
            assert [str(c) for c in found.values() if c.outcome == "fails"] == []
            assert found.keys() == {c.name for c in certify(method, one, "exact")}
            assert found["safeguard"].outcome == found["objective-recomputed"].outcome == "holds"
            assert two.found.trace.dtype == ("float64" if ramp else dtype)


def test_the_allowance_of_float32_is_needed_and_is_no_more_than_that_of_its_unit_roundoff():
    done = WIDE.run("maiht", KeepPerRow(20), place=Place.of(np.zeros(1), "float32", finish="float32"))
    recomputed = objective_recomputed(done.problem, done.sparsity, done.found)
    done.found.trace.dtype = "float64"
    strict = objective_recomputed(done.problem, done.sparsity, done.found)
    assert (recomputed.outcome, strict.outcome) == ("holds", "fails")
    ratio = np.finfo(np.float32).eps / np.finfo(np.float64).eps
    assert recomputed.allowance <= 1.1 * ratio * strict.allowance


def test_twice_the_same_input_twice_the_same_bits(backend):
    for dtype in PRECISIONS:
        first, second = (fast_maiht.maiht(WIDE.judge, KeepPerRow(20), _place(backend, dtype)).weight for _ in range(2))
        assert first.tobytes() == second.tobytes()


def test_an_exact_fixed_point_stops_the_run(backend):
    case = Case("orthogonal", rows=3, inputs=8)
    for twin in (fast_maiht.maiht, fast_iht.iht):
        found = twin(case.judge, L0(0.3), _place(backend), iters=500)
        assert found.stop is Stop.CONVERGED
        assert len(found.trace) < 500


def test_products_in_bfloat16_are_noticed_in_float32(backend, monkeypatch):
    exact = Layer.product

    def rounded(self, w, out):
        P = backend.numpy(exact(self, w, out)).astype(np.float32)
        return backend.array(((P.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32), "float32")

    monkeypatch.setattr(Layer, "product", rounded)
    if backend.name == "numpy read-only":
        pytest.skip("products are written over")
    case, place = Case("iid", rows=6, inputs=48), _place(backend, "float32")
    s, begin = 0.95 / case.judge.lipschitz, case.state(case.penalty)
    assert twin_step("maiht", case.judge, case.penalty, s, begin, place=place).outcome == "fails"


def test_reduced_precision_is_off_during_a_run_and_restored_after_it(monkeypatch):
    torch = pytest.importorskip("torch")
    seen, exact = [], Layer.product

    def noting(self, w, out):
        seen.append(torch.get_float32_matmul_precision())
        return exact(self, w, out)

    monkeypatch.setattr(Layer, "product", noting)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        fast_iht.iht(WIDE.judge, KeepPerRow(20), Place.of(torch.zeros(1), "float32"), iters=2)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {"highest"}


def test_the_door_gives_a_twins_weights_in_the_callers_library(backend):
    W, H = WIDE.W0, WIDE.problem.H
    found = solvers.solve(backend.array(W), backend.array(H), sparsity="2:4", solver="fast").weight
    assert type(found) is type(backend.array(W))
    kept = backend.numpy(found) != 0
    assert (kept.reshape(-1, 4).sum(axis=1) == 2).all()
    assert np.mean(kept != (solvers.solve(W, H, sparsity="2:4").weight != 0)) < 0.01


def test_twins_have_the_name_and_the_options_of_their_reference():
    twins = {name: method for name, method in solvers.METHODS.items() if method.gpu}
    assert twins.keys() >= TWINS.keys()
    for name, method in twins.items():
        assert method.gpu.__module__ == f"solvers.gpu.{name}"
        one, two = (inspect.signature(f).parameters for f in (method.run, method.gpu))
        assert {p: q.default for p, q in two.items() if p != "place"} == {p: q.default for p, q in one.items()}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: solvers.solve(WIDE.W0, WIDE.problem.H, precision="fp32"), "needs the fast solver"),
        (lambda: solvers.solve(WIDE.W0, WIDE.problem.H, solver="fats"), "Did you mean 'fast'"),
        (lambda: Place.of(WIDE.W0, "float16"), "float64 or float32"),
        (lambda: _on_numpy(LayerProblem.of(1e-30 * WIDE.W0, WIDE.problem.H)), "range of float32"),
        (lambda: _on_numpy(LayerProblem.of(1e30 * WIDE.W0, WIDE.problem.H)), "range of float32"),
        (lambda: _on_numpy(WIDE.judge, KeepNofM(2, 5)), "divisible by 5"),
        (lambda: _on_numpy(WIDE.judge, KeepGroups(1, (0, 1) * 24)), "per row, per layer or n:m"),
        (lambda: _on_numpy(WIDE.judge, safety=0.0), "step size must be positive"),
        (lambda: _on_numpy(WIDE.judge, safety=1e30), "diverged"),
    ],
)
def test_what_a_twin_cannot_do_is_refused_in_words(call, words):
    with pytest.raises(Refusal, match=words):
        call()


def _on_numpy(problem, sparsity=None, **options):
    return fast_maiht.maiht(problem, sparsity or KeepPerRow(3), Place.of(np.zeros(1), "float32"), **options)
