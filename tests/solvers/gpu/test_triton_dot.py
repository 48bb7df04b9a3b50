"""A Triton dot asked for IEEE arithmetic keeps float32's bits, under the interpreter and on a CUDA device."""

import numpy as np
import pytest

from solvers.array import Place
from solvers.gpu.precision import kept_bits, rounded
from solvers.rungs import RUNGS

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
SIZE = 64


def dot_kernel(a, b, c, size: tl.constexpr, precision: tl.constexpr):
    rows, columns = tl.arange(0, size)[:, None], tl.arange(0, size)[None, :]
    place = rows * size + columns
    product = tl.dot(tl.load(a + place), tl.load(b + place), input_precision=precision)
    tl.store(c + place, product)


def _dot(device, precision="ieee", spoil=lambda array: array):
    kernel = triton.jit(dot_kernel)

    def multiply(a, b):
        out = torch.empty_like(a)
        kernel[(1,)](spoil(a), spoil(b), out, SIZE, precision)
        return out

    return multiply, Place.of(torch.zeros(1, device=device), "fp32")


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    if request.param == "interpreter":
        monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


def test_a_dot_in_ieee_precision_keeps_24_bits(device):
    multiply, place = _dot(device)
    assert kept_bits(multiply, place, SIZE) == RUNGS["fp32"].bits


def test_a_dot_of_factors_in_11_bits_is_noticed(device):
    multiply, place = _dot(device, spoil=lambda array: rounded(array, 11))
    assert kept_bits(multiply, place, SIZE) == RUNGS["tf32"].bits


@pytest.mark.gpu
def test_a_dot_by_default_loses_bits_on_the_device_and_the_check_says_so():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    multiply, place = _dot("cuda", "tf32")
    assert kept_bits(multiply, place, SIZE) < RUNGS["fp32"].bits


def test_the_matrices_of_the_check_have_an_exact_product_in_float32():
    seen = []

    def exact(a, b):
        product = a.astype(np.float64) @ b.astype(np.float64)
        seen.append(np.array_equal(product, product.astype(np.float32)))
        return product

    assert kept_bits(exact, Place.of(np.zeros(1), "fp32"), SIZE) == RUNGS["fp32"].bits
    assert seen == [True] * 3
