"""Rungs of precision: their products on every library, the change to float64, and leaks that are found by value."""

from functools import partial

import numpy as np
import pytest

import solvers
from solvers.array import Place, full_precision, tensor_float
from solvers.gpu import maiht as fast_maiht
from solvers.gpu import precision
from solvers.gpu.layer import Layer
from solvers.refusal import Refusal
from solvers.rungs import AUTO, RUNGS, read, resolve
from solvers.solution import Stop
from solvers.sparsity import L0, KeepNofM, KeepPerRow
from theory_checks import allowance, certify
from theory_checks.descent import objective_recomputed, residual_rate, sufficient_decrease
from theory_checks.rungs import LOW, nearest, rung_loss, rung_product, twin_finish
from theory_checks.synthetic import Case
from theory_checks.twins import TWINS, twin_step

WIDE = Case("language_like", rows=6, inputs=48, seed=3)
LAYERS = (WIDE, Case("duplicated", rows=3, inputs=8, seed=1), Case("dead", rows=4, inputs=5, keep=0.7))
BITS = {"fp64": 53, "fp32": 24, "bf16x3": 17, "tf32": 11, "bf16": 8}
HERE = np.zeros(1)


def _place(backend, rung, **options):
    return Place.of(backend.array(np.zeros(1)), rung, **options)


def _multiply(place):
    """The product of a rung, of two plain matrices."""
    rung = RUNGS[place.rung]

    def multiply(left, right):
        with full_precision(place.xp):
            return precision.product(left, precision.split(right, rung), rung, place.xp.empty_like(left))

    return multiply


def _bits(backend, values, bits):
    return backend.array(nearest(backend.numpy(values).astype(np.float64), bits), "float32")


@pytest.mark.parametrize("rung", RUNGS)
def test_a_product_keeps_the_bits_of_its_rung(backend, rung):
    place = _place(backend, rung)
    assert precision.kept_bits(_multiply(place), place) == BITS[rung]


@pytest.mark.parametrize("rung", RUNGS)
def test_a_product_is_that_of_the_rounded_factors_and_loses_what_was_derived(backend, rung):
    place = _place(backend, rung)
    for case in LAYERS:
        H = case.judge.H.astype(np.float32).astype(np.float64)
        for W in (case.judge.W0, case.some_weight()):
            W = W.astype(np.float32).astype(np.float64)
            assert rung_loss(rung, W, H, place).outcome == "holds"
            assert rung not in LOW or rung_product(rung, W, H, place).outcome == "holds"


def test_rounding_is_to_nearest_even_for_every_exponent(backend):
    """All float32 numbers of 9 leading bits: every second one is a tie of bfloat16."""
    every = (np.arange(2**17, dtype=np.uint32) << np.uint32(15)).view(np.float32)
    normal = every[np.isfinite(every) & (np.abs(every) >= np.finfo(np.float32).tiny)]
    for bits in (8, 11):
        expected = nearest(normal.astype(np.float64), bits)
        inside = np.abs(expected) <= np.finfo(np.float32).max
        found = backend.numpy(precision.rounded(backend.array(normal[inside], "float32"), bits))
        assert found.dtype == np.float32
        assert np.array_equal(found, expected[inside])


def test_rounding_is_that_of_torch():
    torch = pytest.importorskip("torch")
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    assert torch.equal(precision.rounded(x, 8), x.to(torch.bfloat16).to(torch.float32))


@pytest.mark.parametrize("rung", LOW)
@pytest.mark.parametrize("name", ["iht", "maiht"])
def test_every_step_is_the_references_to_the_loss_of_the_rung(backend, name, rung):
    for case in LAYERS:
        s = 0.95 / case.judge.lipschitz
        for sparsity in (case.penalty, *case.budgets):
            certificate = twin_step(name, case.judge, sparsity, s, case.state(sparsity), 4, _place(backend, rung))
            assert certificate.outcome == "holds", f"{case} {sparsity}: {certificate}"


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("name", ["iht", "maiht"])
def test_a_schedule_ends_in_float64_and_its_last_stage_is_certified_there(backend, name, rung):
    for case in LAYERS:
        for budget in case.budgets:
            if rung != "fp64":
                certificate = twin_finish(name, case.judge, budget, rung, _place(backend, "fp64"))
                assert certificate.outcome == "holds", f"{case} {budget}: {certificate}"
            done = case.run(name, budget, place=_place(backend, rung), iters=20)
            assert [str(c) for c in certify(solvers.find(name), done, "none") if c.outcome == "fails"] == []
            trace, T = done.found.trace, round(20 * (0.8 if name == "iht" else 0.95)) - 1
            assert trace.dtype == "float64"
            assert rung == "fp64" or trace.ramp_dtype == RUNGS[rung].precision
            assert trace.ramp_rows == (0 if rung == "fp64" else T) or trace.ramp_rows < T


@pytest.mark.parametrize("rung", LOW)
def test_without_a_schedule_the_whole_run_stays_on_its_rung(backend, rung):
    for case in LAYERS:
        for sparsity, options in ((case.penalty, {}), (case.budgets[0], {"ramp": 0.0})):
            done = case.run("maiht", sparsity, place=_place(backend, rung), iters=20, **options)
            trace = done.found.trace
            assert (trace.dtype, trace.ramp_dtype, trace.ramp_rows) == (RUNGS[rung].precision, "", 0)
            assert [str(c) for c in certify(solvers.find("maiht"), done, "none") if c.outcome == "fails"] == []


def test_the_allowance_of_a_rung_is_its_loss_beside_that_of_float32():
    for rung in RUNGS.values():
        assert allowance(1.0, 40, rung.name) == 4 * rung.loss + allowance(1.0, 40, rung.dtype)
        assert allowance(3.0, 40, rung.precision) == allowance(3.0, 40, rung.name)


def test_a_stage_ends_where_the_precision_changes_and_every_row_has_its_own_allowance():
    """2:4 is reached long before the schedule ends; the rows up to its end are bfloat16's, the last ones float64's."""
    done = WIDE.run("maiht", KeepNofM(2, 4), place=Place.of(HERE, "bf16"), iters=40)
    problem, sparsity, found, trace = done.problem, done.sparsity, done.found, done.found.trace
    assert trace.level[trace.ramp_rows - 1] == trace.level[-1]
    strict = sufficient_decrease(problem, sparsity, found)
    assert strict.allowance == residual_rate(problem, sparsity, found).allowance / _factor(problem, trace)
    honest, verdicts = list(trace.plain), {}
    for row in (-4, -1, 0, 1, 2):
        t = trace.ramp_rows + row
        trace.plain = [*honest[:t], trace.objective[t - 1], *honest[t + 1 :]]  # no decrease in this row
        verdicts[row] = sufficient_decrease(problem, sparsity, found).outcome
    assert verdicts == {-4: "holds", -1: "holds", 0: "holds", 1: "fails", 2: "fails"}  # 0 starts from bfloat16's sum
    trace.plain[-1], trace.plain[trace.ramp_rows - 4] = honest[-1], problem.magnitude(0 * found.weight)
    assert sufficient_decrease(problem, sparsity, found).outcome == "fails"


def _factor(problem, trace):
    """By what `residual_rate` multiplies the rounding of the objectives."""
    rows = len(trace) - trace.ramp_rows - 1
    return 2 / (rows * (1 / trace.step - problem.lipschitz))


def test_facts_summed_on_a_low_rung_do_not_pass_for_those_of_float32():
    done = WIDE.run("maiht", WIDE.penalty, place=Place.of(HERE, "bf16"))
    verdicts = []
    for dtype in ("bf16", "float64"):
        done.found.trace.dtype = dtype
        verdicts.append(objective_recomputed(done.problem, done.sparsity, done.found).outcome)
    assert verdicts == ["holds", "fails"]


def test_a_run_that_rests_before_the_schedule_ends_rests_in_float64(backend):
    """An orthogonal layer under 2:4 rests as soon as the pattern is reached."""
    case = Case("orthogonal", rows=3, inputs=8)
    found = fast_maiht.maiht(case.judge, KeepNofM(2, 4), _place(backend, "bf16"), iters=400, ramp=0.9)
    assert found.stop is Stop.CONVERGED
    assert found.trace.ramp_rows < 359
    assert (found.trace.ramp_dtype, found.trace.dtype) == ("bf16", "float64")


def test_the_gram_is_split_once(backend, monkeypatch):
    seen, split = [], precision.split
    monkeypatch.setattr(precision, "split", lambda array, rung: seen.append(array.shape) or split(array, rung))
    fast_maiht.maiht(WIDE.judge, L0(0.1), _place(backend, "bf16x3"), iters=3)
    assert seen.count(WIDE.judge.H.shape) == 1


def test_a_finish_may_be_another_rung_or_none():
    for finish, said in (("fp32", ("float32", "bf16")), ("bf16", ("bf16", ""))):
        found = fast_maiht.maiht(WIDE.judge, KeepPerRow(20), Place.of(HERE, "bf16", finish=finish), iters=20)
        assert (found.trace.dtype, found.trace.ramp_dtype) == said


# Leaks: what a library did to float32 products, told from their values.

LEAKS = {
    "tf32": lambda backend, xp: lambda a, b: xp.matmul(_bits(backend, a, 11), _bits(backend, b, 11)),
    "tf32, left factor": lambda backend, xp: lambda a, b: xp.matmul(_bits(backend, a, 11), b),
    "bfloat16, right factor": lambda backend, xp: lambda a, b: xp.matmul(a, _bits(backend, b, 8)),
    "three products of bfloat16": lambda backend, xp: _multiply(Place.of(backend.array(HERE), "bf16x3")),
    "sums in 11 bits": lambda backend, xp: lambda a, b: _bits(backend, xp.matmul(a, b), 11),
}


def test_float32_products_of_the_library_are_not_tf32(backend):
    place = _place(backend, "fp32")
    with full_precision(place.xp):
        assert precision.kept_bits(place.xp.matmul, place) == RUNGS["fp32"].bits


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_noticed_by_value(backend, leak):
    place = _place(backend, "fp32")
    kept = precision.kept_bits(LEAKS[leak](backend, place.xp), place)
    assert kept < RUNGS["fp32"].bits
    assert kept == next(bits for word, bits in (("three", 17), ("bfloat", 8), ("", 11)) if leak.startswith(word))


def test_a_leak_in_the_layer_is_noticed(backend, monkeypatch):
    """What a run multiplies with: the product of a layer whose weight is zero and whose Gram is any matrix."""
    place = _place(backend, "fp32")
    layer = object.__new__(Layer)
    layer.xp, layer.rung, layer.split = place.xp, RUNGS["fp32"], None

    def multiply(a, b):
        layer.W0, layer.H, layer.scratch = place.xp.zeros_like(a), b, (place.xp.empty_like(a),) * 2
        return layer.product(a, place.xp.empty_like(a))

    with full_precision(place.xp):
        assert precision.kept_bits(multiply, place) == 24
        monkeypatch.setattr(precision, "product", lambda a, b, rung, out: LEAKS["tf32"](backend, place.xp)(a, b[0]))
        assert precision.kept_bits(multiply, place) == 11


# The lines for tensor cores, run on the CPU with a product in their place.


@pytest.fixture
def tensor_cores(monkeypatch):
    """Torch on the CPU, taken for a device with tensor cores: `mm` of bfloat16 with float32 sums, and TF32."""
    torch = pytest.importorskip("torch")
    said = []

    def mm(a, b, out_dtype, out=None):
        said.append((a.dtype, b.dtype, out_dtype))
        return torch.matmul(a.to(out_dtype), b.to(out_dtype), out=out)

    def matmul(a, b, out=None):
        how = torch.get_float32_matmul_precision()
        said.append(how)
        rounding = partial(precision.rounded, bits=11) if how == "high" else torch.clone
        return torch.matmul(rounding(a), rounding(b), out=out)

    place = Place.of(torch.zeros(1), "fp32")
    monkeypatch.setattr(place.xp, "mm", mm)
    monkeypatch.setattr(place.xp, "matmul", matmul)
    monkeypatch.setattr(precision, "has_tensor_cores", lambda array: True)
    return place, said


@pytest.mark.parametrize("rung", LOW)
def test_tensor_cores_multiply_what_is_emulated_elsewhere(tensor_cores, rung):
    place, said = tensor_cores
    W, H = (A.astype(np.float32).astype(np.float64) for A in (WIDE.judge.W0, WIDE.judge.H))
    assert rung_product(rung, W, H, place).outcome == "holds"
    half = place.xp.bfloat16
    assert said == {"bf16x3": 3, "bf16": 1}.get(rung, 0) * [(half, half, place.xp.float32)] or said == ["high"]
    assert place.xp.get_float32_matmul_precision() == "highest"


def test_a_run_on_tensor_cores_is_the_emulated_run(tensor_cores, monkeypatch):
    place, _ = tensor_cores
    for rung in LOW:
        with monkeypatch.context() as patched:
            one = fast_maiht.maiht(WIDE.judge, KeepPerRow(20), place._replace(rung=rung), iters=8)
            patched.setattr(precision, "has_tensor_cores", lambda array: False)
            two = fast_maiht.maiht(WIDE.judge, KeepPerRow(20), place._replace(rung=rung), iters=8)
        assert np.array_equal(one.weight != 0, two.weight != 0)
        assert (one.trace.ramp_dtype, one.trace.dtype) == (rung, "float64")


def test_torch_multiplies_bfloat16_with_float32_output():
    """The signature that the CUDA line relies on, asked of the shapes-only device."""
    torch = pytest.importorskip("torch")
    half = (
        torch.empty((4, 6), dtype=torch.bfloat16, device="meta"),
        torch.empty(6, 5, dtype=torch.bfloat16, device="meta"),
    )
    assert torch.mm(*half, out_dtype=torch.float32).dtype == torch.float32
    out = torch.empty((4, 5), device="meta")
    assert torch.mm(*half, out_dtype=torch.float32, out=out) is out


def test_tf32_is_on_inside_its_context_alone():
    torch = pytest.importorskip("torch")
    with full_precision(torch):
        with tensor_float(torch):
            assert torch.get_float32_matmul_precision() == "high"
        assert torch.get_float32_matmul_precision() == "highest"
    with tensor_float(np), full_precision(np):
        pass


# Names.


def test_a_place_has_the_dtype_of_its_rung(backend):
    array = backend.array(np.zeros(1))
    for name, rung in (("float64", "fp64"), ("float32", "fp32"), *((name, name) for name in RUNGS)):
        place = Place.of(array, name)
        assert (place.rung, place.dtype) == (rung, RUNGS[rung].dtype)
        assert place.put(np.ones(2)).dtype == getattr(place.xp, place.dtype)
        assert place.finished.rung == "fp64"
    assert Place.of(array, "auto").rung == AUTO["cuda" if "cu" in backend.name else "cpu"][0]


def test_auto_is_the_rung_of_the_type_of_device():
    torch = pytest.importorskip("torch")
    for device in ("cpu", "cuda:1", torch.device("cpu"), torch.device("cuda", 1), "<CUDA Device 0>"):
        assert resolve("auto", device) == AUTO["cuda" if "cuda" in str(device).lower() else "cpu"][0]
        assert resolve("bf16", device) == "bf16"
    assert resolve("float64", "cpu") == "fp64"
    assert all(read(rung).name in RUNGS and reason for rung, reason in AUTO.values())


@pytest.mark.parametrize("name", ["fp16", "int8", "", "Auto"])
def test_an_unknown_rung_is_refused_in_words(name):
    for call in (lambda: Place.of(HERE, name), lambda: Place.of(HERE, "fp32", finish=name)):
        with pytest.raises(Refusal, match="fp64, fp32, bf16x3, tf32, bf16"):
            call()


def test_every_twin_that_has_a_schedule_can_change_its_precision():
    assert all(hasattr(TWINS[name], "resume") for name in ("iht", "maiht"))
