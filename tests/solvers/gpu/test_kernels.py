"""The Triton kernels against the array text: the same masks and arrays bit for bit, sums to rounding.

Interpreted on the CPU where there is no device, compiled on one where there is. Rows of 21 entries stand in blocks of
32, windows of 5 in blocks of 8, and chunks of 16 leave a tail.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import array_api_compat
import numpy as np
import pytest

from solvers import maiht
from solvers.array import Place, to_numpy
from solvers.gpu import kernels, select
from solvers.gpu.layer import Layer
from solvers.problem import LayerProblem
from solvers.sparsity import L0, KeepNofM, KeepPerLayer, KeepPerRow, largest
from theory_checks import allowance
from theory_checks.synthetic import Case
from theory_checks.twins import twin_run, twin_step

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
ROOT = Path(__file__).resolve().parents[3]
SHAPE, CHUNK = (3, 21), 16
PATTERNS = (KeepPerRow(10), L0(0.3), KeepNofM(2, 3), KeepNofM(3, 7), KeepPerLayer(30))
TERMS = (1.75, -0.5, 0.3)
DTYPES = ("float64", "float32")


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    interpreted = os.environ["TRITON_INTERPRET"] == "1"
    if request.param == "interpreter" and not interpreted:
        pytest.skip("the kernels are compiled: TRITON_INTERPRET=0")
    if request.param == "cuda" and (interpreted or not torch.cuda.is_available()):
        pytest.skip("no CUDA device")
    monkeypatch.setattr(kernels, "CHUNK", CHUNK)
    return "cpu" if interpreted else "cuda"


def _on(device, values, dtype="float64"):
    return torch.tensor(np.array(values), dtype=getattr(torch, dtype), device=device)


def _numpy(array):
    return array.cpu().numpy()


def _bits(array):
    return np.ascontiguousarray(_numpy(array)).tobytes()


def _scores(dtype):
    """Rows of scores, one of each kind that a selection may get wrong, in both signs."""
    ladder, info = np.arange(SHAPE[1]), np.finfo(dtype)
    normal = np.random.default_rng(0).standard_normal(SHAPE[1])
    kinds = [
        normal,
        np.round(normal),
        np.ones(SHAPE[1]),
        np.where(ladder % 3, 0.0, -0.0),
        (ladder % 7 - 3.0) * np.float64(info.smallest_subnormal),
        1 + (ladder % 5) * float(info.eps),
        np.where(ladder % 11, (ladder % 4) / 4 * float(info.max), np.inf),
        np.where(ladder == 17, 1e9, -1.0),
    ]
    return np.array(kinds).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_mask_is_the_references_bit_for_bit(device, dtype):
    scores = _scores(dtype)
    assert np.array_equal(_numpy(kernels.marked(_on(device, scores, dtype), 10)), largest(scores, 10))
    for keep in (0, 1, SHAPE[1]):
        assert np.array_equal(_numpy(kernels.marked(_on(device, scores[:2], dtype), keep)), largest(scores[:2], keep))
    for width in (1, 3, 5, 16):
        windows = np.ascontiguousarray(scores[:, :width])
        for keep in {0, 1, width // 2, width}:
            found = _numpy(kernels.marked(_on(device, windows, dtype), keep))
            assert np.array_equal(found, largest(windows, keep))


def _difference(module, device, dtype):
    """What the kernels of a module do otherwise than the array text: a list of words."""
    rng, names = np.random.default_rng(1), []
    u = [_on(device, np.round(4 * rng.standard_normal(SHAPE)) / 4, dtype) for _ in TERMS]
    u[0][0, :4] = _on(device, (0.0, -0.0, 0.0, -0.0), dtype)
    u[0][:2, 5:] = u[0][:2, 5:6]  # ties
    u[0][1] = 1 + _on(device, rng.permutation(SHAPE[1]), dtype) * float(np.finfo(dtype).eps)  # the last bits decide
    u[0][2, 4:] = -0.0  # fewer nonzeros than may stay
    for sparsity in (KeepPerRow(10), L0(0.3), KeepNofM(2, 3), KeepNofM(3, 7)):
        for terms in (list(zip(TERMS, u, strict=True)), [(1.0, u[0])]):
            out = torch.empty_like(u[0])
            V, counts = module.candidate(sparsity, terms, 0.5, out)
            W = _text(terms, sparsity)
            if _bits(V) != _bits(W):
                names.append(f"{sparsity} of {len(terms)}")
            if int(module.total(counts)) != int(torch.count_nonzero(W)):
                names.append(f"count of {sparsity}")
    return names + _sums_differ(module, device, dtype)


def _text(terms, sparsity):
    layer = Layer(
        LayerProblem.of(np.ones(SHAPE), np.eye(SHAPE[1])), Place.of(terms[0][1], str(terms[0][1].dtype)[6:]), 1
    )
    layer.kernels = None
    return select.prox(sparsity, layer.combined(terms, layer.buffers[0]), 0.5, layer.scratch)


def _sums_differ(module, device, dtype):
    rng, names = np.random.default_rng(2), []
    z, v, Pz, Pv = (rng.standard_normal(SHAPE).astype(dtype).astype(float) for _ in range(4))
    for R in (None, rng.standard_normal(SHAPE)):
        problem = LayerProblem(rng.standard_normal(SHAPE), Case("iid", rows=3, inputs=21).judge.gram, R)
        layer = Layer(problem, Place.of(_on(device, 0.0), dtype), 4)
        layer.kernels = None
        arrays = [_on(device, a, dtype) for a in (z, Pz, v, Pv)]
        expected = layer.compared(*(a.clone() for a in arrays), 0.3)
        found = module.compared(*arrays, layer.W0, layer.R, 0.3)
        W0, drift = to_numpy(layer.W0, "weight"), 0.0 if R is None else np.abs(to_numpy(layer.R, "drift"))
        slope = np.abs(Pz) + np.abs(Pv) + drift
        for got, right, d in zip(found, expected[:2], (np.abs(v) + np.abs(W0), np.abs(z) + np.abs(v)), strict=True):
            if abs(got - right) > allowance(float(np.vdot(slope, d)), SHAPE[1], dtype):
                names.append("sums")
        if _bits(arrays[1]) != _bits(expected[2]):
            names.append("forward step")
    ladder = _on(device, [[2.0**24, 1.0]] + [[1.0, 2.0**-24]] * 8, "float32")  # 2^24 + 1 is no float32
    return names if module.total(ladder).tolist() == [2.0**24 + 8, 1 + 2.0**-21] else [*names, "rows"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_candidates_are_the_array_texts_bit_for_bit_and_sums_to_rounding(device, dtype):
    assert _difference(kernels, device, dtype) == []


DEFECTS = {
    "ties upward": ("tl.cumsum(tied.to(tl.int32), axis=0)", "tl.cumsum(tied.to(tl.int32), axis=0, reverse=True)"),
    "ties upward in windows": ("(one == other) & (i < j)", "(one == other) & (i > j)"),
    "a tail forgotten": ("range(0, width, BLOCK)", "range(0, width - BLOCK + 1, BLOCK)"),
    "rows added in float32": ("dim=0, dtype=torch.float64", "dim=0, dtype=rows.dtype"),
    "a stale coefficient": ("tl.full((), c2, total.dtype)", "tl.full((), c1, total.dtype)"),
    "a term left out": ("TERMS == 3", "TERMS == 4"),
    "negative zeros": ("kept = kept & (U != 0)", "kept = kept"),
    "a bit left out": ("range(BITS)", "range(BITS - 16)"),
    "drift in one sum only": ("gain += ((Pz_ + Pv_) * 0.5 + drift)", "gain += ((Pz_ + Pv_) * 0.5)"),
    "threshold at least": ("> tl.full((), reach", ">= tl.full((), 0 * reach"),
    "an ascending step": ("tl.full((), -s, Pz_.dtype)", "tl.full((), s, Pz_.dtype)"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_of_a_kernel_is_noticed(device, name, tmp_path):
    old, new = DEFECTS[name]
    text = Path(kernels.__file__).read_text()
    assert old in text
    path = tmp_path / "mutated.py"
    path.write_text(text.replace(old, new))
    spec = importlib.util.spec_from_file_location("mutated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CHUNK = CHUNK
    assert _difference(module, device, "float32")


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from solvers.gpu import kernels

def ptx(kernel, kind, **constants):
    types = dict.fromkeys(("keep", "width", "windows"), "i32") | {"counts": "*i32"}
    types["out"] = "*i1" if constants.get("MARK") else kind
    fixed = {p.name: "constexpr" if p.is_constexpr else p.annotation_type for p in kernel.params}
    signature = {name: given or types.get(name, kind) for name, given in fixed.items()}
    constants = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source, target = ASTSource(kernel, signature, constants), GPUTarget("cuda", 90, 32)
    return triton.compile(source, target, kernels._options(64, 64)).asm["ptx"]

for kind, bits in (("*fp32", 32), ("*fp64", 64)):
    for terms, penalty, mark in ((3, False, False), (1, False, True), (1, True, False)):
        print(ptx(kernels._rows, kind, TERMS=terms, PENALTY=penalty, MARK=mark, BITS=bits, BLOCK=32))
    for mark in (False, True):
        print(ptx(kernels._windows, kind, TERMS=3, MARK=mark, BITS=bits, WIDTH=4, WINDOWS=16))
    for drift in (False, True):
        print(ptx(kernels._compared_rows, kind, DRIFT=drift, BLOCK=64))
"""


def test_the_kernels_compile_for_a_device_that_is_not_there(tmp_path):
    """And are what the docstring says: no fused products, no atomics, no denormals flushed."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".entry") == 14
    assert not re.search(r"\s(fma|atom|red)\.|\.ftz", done.stdout)


def test_twice_the_same_input_twice_the_same_bits_and_the_output_may_be_a_term(device):
    Z = _on(device, np.random.default_rng(3).standard_normal(SHAPE), "float32")
    first, second = (kernels.candidate(KeepPerRow(5), [(1.0, Z)], 1.0, torch.empty_like(Z))[0] for _ in range(2))
    assert _bits(first) == _bits(second)
    assert _bits(kernels.candidate(KeepPerRow(5), [(1.0, Z)], 1.0, Z)[0]) == _bits(first)


@pytest.mark.parametrize("name", ["maiht", "iht"])
def test_a_twin_steps_and_runs_with_the_kernels_as_without(device, name, monkeypatch):
    used = []
    monkeypatch.setattr(select, "kernels_for", lambda array: used.append(1) or kernels)
    case, place = Case("language_like", rows=2, inputs=20), Place.of(_on(device, 0.0), "float64")
    for sparsity in (KeepPerRow(9), KeepNofM(2, 4), L0(0.01)):
        begin = case.state(sparsity) if isinstance(sparsity, KeepPerRow) else maiht.start(case.judge)
        steps = twin_step(name, case.judge, sparsity, 0.95 / case.judge.lipschitz, begin, n=2, place=place)
        runs = twin_run(name, case.judge, sparsity, iters=3, place=place)
        assert (steps.outcome, runs.outcome) == ("holds", "holds"), f"{steps} {runs}"
    assert used


def test_what_no_kernel_serves_is_the_array_texts(device, monkeypatch):
    monkeypatch.setattr(select, "kernels_for", lambda array: kernels)
    monkeypatch.setattr(kernels, "WIDEST", 16)
    W = np.random.default_rng(4).standard_normal(SHAPE)
    for sparsity in (KeepPerRow(10), KeepPerLayer(30), L0(0.3)):
        given = _on(device, W)
        assert not kernels.serves(sparsity, given)
        found = select.prox(sparsity, given, 0.5, (torch.empty_like(given), torch.empty_like(given)))
        assert np.array_equal(_numpy(found), sparsity.prox(W, 0.5))


def test_kernels_are_for_torch_on_a_cuda_device_and_for_nothing_else(backend, monkeypatch):
    array = backend.array(np.zeros((2, 3)))
    assert select.kernels_for(array) is (kernels if backend.name == "torch cuda" else None)
    monkeypatch.setattr(array_api_compat, "is_torch_array", lambda array: True)
    there = SimpleNamespace(device=SimpleNamespace(type="cuda"), is_contiguous=lambda: True)
    assert select.kernels_for(there) is kernels
    there.is_contiguous = lambda: False
    assert select.kernels_for(there) is None
    monkeypatch.setattr(kernels, "AVAILABLE", False)
    there.is_contiguous = lambda: True
    assert select.kernels_for(there) is None


def test_a_lent_buffer_has_no_count(device, monkeypatch):
    monkeypatch.setattr(select, "kernels_for", lambda array: kernels)
    layer = Layer(Case("iid", rows=2, inputs=20).judge, Place.of(_on(device, 0.0), "float64"), 1)
    (out,) = layer.lend(1, ())
    V, g = layer.candidate(L0(0.5), [(1.0, layer.W0)], 0.1, out)
    assert layer.nonzeros(V) == int(torch.count_nonzero(V)) == g / 0.5
    (again,) = layer.lend(1, ())
    again.fill_(1.0)
    assert layer.nonzeros(again) == 40
