"""Means of inputs against exact integer arithmetic and against derived bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from llm_pipeline import gram as gram_module
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.gram import CHUNK_TOKENS, MeanDrift, MeanGram, MeanSquares, watching
from solvers.linalg import SUMMED, require_positive_semidefinite
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal
from theory_checks.certificate import allowance

RNG = np.random.default_rng(11)
INTEGERS = RNG.integers(-7, 8, size=(3, 2731, 6))  # more than one chunk; sums stay below 2**24
CHUNK = allowance(1.0, CHUNK_TOKENS, np.float32)  # of sums of one chunk, in units of the magnitudes summed
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def test_the_solvers_allow_a_gram_what_the_sums_of_a_chunk_round() -> None:
    assert CHUNK_TOKENS <= SUMMED


@pytest.mark.parametrize("width", [2, 3, 8])
def test_the_gram_of_one_input_many_times_over_is_accepted_however_its_sums_are_rounded(width: int) -> None:
    gram = MeanGram(width)
    tokens = np.outer(RNG.integers(1, 2**8, 2 * CHUNK_TOKENS + 5), RNG.integers(1, 2**11, width))
    gram.add(torch.as_tensor(tokens, dtype=torch.float32))
    require_positive_semidefinite(gram.value())


def exact_gram(x: np.ndarray) -> np.ndarray:
    rows = x.reshape(-1, x.shape[-1])
    return (rows.T @ rows) / rows.shape[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_integers_give_the_exact_mean(dtype: torch.dtype) -> None:
    gram = MeanGram(6)
    for part in torch.as_tensor(INTEGERS).to(dtype):
        gram.add(part)
    assert gram.tokens == INTEGERS.shape[0] * INTEGERS.shape[1]
    np.testing.assert_array_equal(gram.value(), exact_gram(INTEGERS))
    assert gram.value().dtype == np.float64


def test_products_of_half_precision_are_not_rounded_to_half_precision() -> None:
    gram = MeanGram(1)
    gram.add(torch.full((CHUNK_TOKENS, 1), 256.0, dtype=torch.float16))
    assert gram.value().item() == 65536.0  # above the largest float16


def test_the_chunks_are_summed_in_double_precision() -> None:
    gram = MeanGram(1)
    for size in (4096.0, 1.0):
        gram.add(torch.full((CHUNK_TOKENS, 1), size))
    assert gram.value().item() == (4096.0**2 + 1.0) / 2  # the float32 sum would lose the 1


def test_the_gram_is_exactly_symmetric() -> None:
    gram = MeanGram(67)
    gram.add(torch.as_tensor(RNG.standard_normal((999, 67)), dtype=torch.float32))
    np.testing.assert_array_equal(gram.value(), gram.value().T)
    assert np.linalg.eigvalsh(gram.value()).min() > 0


def test_chunking_moves_the_result_by_no_more_than_the_rounding_of_float32() -> None:
    x = RNG.standard_normal((3 * CHUNK_TOKENS + 5, 9)).astype(np.float32)
    once, often = MeanGram(9), MeanGram(9)
    once.add(torch.as_tensor(x))
    for part in torch.as_tensor(x).split(977):
        often.add(part)
    for gram in (once, often):
        assert off(gram, x) <= CHUNK


def off(gram: MeanGram, x: np.ndarray) -> float:
    """The largest distance from the exact mean, in units of the mean of |x| |x|'."""
    exact, size = exact_gram(x.astype(np.float64)), exact_gram(np.abs(x).astype(np.float64))
    return float((np.abs(gram.value() - exact) / size).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_the_sequences_changes_nothing_beyond_the_rounding_of_a_chunk(dtype: torch.dtype) -> None:
    """Each order is within the bound of the exact mean of the same numbers, both within twice the bound of another."""
    x = torch.as_tensor(RNG.standard_normal((24, 700, 9)) * 10.0 ** RNG.uniform(-2, 2, 9)).to(dtype)
    values = []
    for order in (np.arange(24), RNG.permutation(24), RNG.permutation(24)):
        gram = MeanGram(9)
        for part in x[order].split(5):
            gram.add(part)
        assert off(gram, x.double().numpy()) <= (CHUNK if dtype != torch.float64 else allowance(1.0, CHUNK_TOKENS))
        values.append(gram.value())
    size = exact_gram(x.double().abs().numpy())
    assert all((np.abs(other - values[0]) <= 2 * CHUNK * size).all() for other in values)


@pytest.mark.parametrize("where", ["product", "lower"])
def test_products_rounded_to_half_precision_miss_the_bound(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    product, lower = gram_module.product, gram_module.lower

    def rounded(x: torch.Tensor, total: torch.Tensor) -> None:
        lower(x, total)
        total.copy_(total.to(torch.bfloat16))

    defect = rounded if where == "lower" else lambda *x: product(*x).to(torch.bfloat16).to(torch.float32)
    monkeypatch.setattr(gram_module, where, defect)
    x = torch.as_tensor(RNG.standard_normal((300, 9)), dtype=torch.float32)
    gram, drift = MeanGram(9), MeanDrift(9)
    gram.add(x)
    drift.add(torch.zeros_like(x), x)  # the drift of x from zero is x, and all its means are Grams
    found = gram.value() if where == "lower" else drift.value()[0]
    exact_value, size = exact_gram(x.double().numpy()), exact_gram(x.double().abs().numpy())
    assert (np.abs(found - exact_value) > CHUNK * size).any()


def test_the_mean_squares_are_the_diagonal_of_the_gram() -> None:
    x = torch.as_tensor(INTEGERS).to(torch.bfloat16)
    gram, squares = MeanGram(6), MeanSquares(6)
    gram.add(x)
    squares.add(x)
    np.testing.assert_array_equal(squares.norms(), np.sqrt(np.diag(gram.value())))
    assert squares.tokens == gram.tokens
    squares.add(x[:0])
    assert squares.tokens == gram.tokens


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_device_that_multiplies_half_precision_is_given_it_with_float32_output(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def mm(a: torch.Tensor, b: torch.Tensor, out_dtype: torch.dtype) -> torch.Tensor:
        said.append((a.dtype, b.dtype, out_dtype, torch.get_float32_matmul_precision()))
        return a.to(out_dtype) @ b.to(out_dtype)

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(gram_module, "multiplies_half", lambda x: True)
    gram = MeanGram(6)
    gram.add(torch.as_tensor(INTEGERS).to(dtype))
    np.testing.assert_array_equal(gram.value(), exact_gram(INTEGERS))
    assert said == 3 * [(dtype, dtype, torch.float32, "highest")]  # 8193 tokens are three chunks


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_strips_of_the_lower_triangle_are_those_of_the_whole_product(dtype: torch.dtype) -> None:
    width = 2 * gram_module.STRIP + 3
    x = torch.as_tensor(RNG.integers(-7, 8, size=(40, width))).to(dtype)
    gram = MeanGram(width)
    gram.add(x)
    np.testing.assert_array_equal(gram.value(), exact_gram(x.double().numpy()))
    total = torch.zeros(width, width, dtype=torch.float64)
    gram_module.lower(x, total)
    assert torch.count_nonzero(total[0, gram_module.STRIP :]) == 0  # the other half is not computed
    once = gram.value()
    np.testing.assert_array_equal(gram.take(), once)
    with pytest.raises(Refusal, match="none arrived"):
        gram.value()  # the sum was given away


def test_another_device_takes_the_whole_product() -> None:
    total = torch.ones(600, 600, device="meta", dtype=torch.float64)
    gram_module.lower(torch.zeros(3, 600, device="meta"), total)
    assert total.dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_cuda_small_integers_give_the_exact_mean(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gram = MeanGram(6)
    gram.add(torch.as_tensor(INTEGERS).to("cuda", dtype))
    np.testing.assert_array_equal(gram.value(), exact_gram(INTEGERS))


def test_merged_means_count_all_tokens() -> None:
    first, second, both = MeanGram(6), MeanGram(6), MeanGram(6)
    first.add(torch.as_tensor(INTEGERS[0]).float())
    second.add(torch.as_tensor(INTEGERS[1:]).float())
    both.add(torch.as_tensor(INTEGERS).float())
    first.merge(second)
    assert first.tokens == both.tokens
    np.testing.assert_array_equal(first.value(), both.value())


def test_what_cannot_be_a_mean_is_refused() -> None:
    with pytest.raises(Refusal, match="at least one token; none arrived"):
        MeanGram(3).value()
    with pytest.raises(Refusal, match=r"width 3 are expected here; \(2, 4\) arrived"):
        MeanGram(3).add(torch.ones(2, 4))
    with pytest.raises(Refusal, match="widths are 3 and 4"):
        MeanGram(3).merge(MeanGram(4))


def test_a_watched_block_shows_the_inputs_of_its_readers(tiny: Path) -> None:
    walk = BlockWalk(Checkpoint.open(tiny), "cpu")
    block, hidden = walk.load(0), walk.embed(RNG.integers(0, 97, size=(3, 11)))
    gram, middle = MeanGram(32), MeanGram(40)
    with watching(block, {"self_attn.q_proj": gram, "mlp.down_proj": middle}):
        walk.forward(block, 0, hidden, batch=2)
    walk.forward(block, 0, hidden)
    assert gram.tokens == middle.tokens == 33
    scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + block.input_layernorm.variance_epsilon)
    x = (hidden * scale * block.input_layernorm.weight).double().reshape(-1, 32).numpy()
    # Either input is rounded in float32, after a mean of 32 squares: twice their sum's share, and the Gram's own.
    bound = (4 * allowance(1.0, 32, np.float32) + allowance(1.0, 33, np.float32)) * exact_gram(np.abs(x))
    assert (np.abs(gram.value() - exact_gram(x)) <= bound).all()


def test_hooks_are_gone_when_the_block_fails(tiny: Path) -> None:
    block = BlockWalk(Checkpoint.open(tiny), "cpu").load(0)
    with pytest.raises(ZeroDivisionError), watching(block, {"mlp.down_proj": MeanGram(40)}):
        raise ZeroDivisionError
    assert not block.get_submodule("mlp.down_proj")._forward_pre_hooks


def test_the_drift_gives_the_error_against_the_dense_output_by_tokens() -> None:
    W0, W = RNG.standard_normal((4, 6)), RNG.standard_normal((4, 6))
    moved = INTEGERS + RNG.integers(-2, 3, size=INTEGERS.shape)
    gram, drift = MeanGram(6), MeanDrift(6)
    for x, after in zip(torch.as_tensor(INTEGERS).double(), torch.as_tensor(moved).double(), strict=True):
        gram.add(after)
        drift.add(x, after)
    cross, square = drift.value()
    problem = LayerProblem(W0, Gram(gram.value()), W0 @ cross, float(np.vdot(W0 @ square, W0)) / 2)
    by_tokens = np.square(moved @ W.T - INTEGERS @ W0.T).sum(axis=-1).mean() / 2
    assert abs(problem.value(W) - by_tokens) <= allowance(problem.magnitude(W), INTEGERS.size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_drift_of_small_integers_is_exact(dtype: torch.dtype) -> None:
    drift, moved = MeanDrift(6), INTEGERS + 1
    drift.add(torch.as_tensor(INTEGERS).to(dtype), torch.as_tensor(moved).to(dtype))
    cross, square = drift.value()
    np.testing.assert_array_equal(cross, np.broadcast_to(moved.reshape(-1, 6).mean(axis=0), (6, 6)))
    np.testing.assert_array_equal(square, np.ones((6, 6)))
    assert drift.tokens == INTEGERS.shape[0] * INTEGERS.shape[1]


def test_drift_wants_two_inputs_of_one_shape() -> None:
    with pytest.raises(Refusal, match=r"two inputs of width 6 are expected here; \(2, 6\), \(3, 6\) arrived"):
        MeanDrift(6).add(torch.zeros(2, 6), torch.zeros(3, 6))
    with pytest.raises(Refusal, match="at least one token"):
        MeanDrift(6).value()
