"""The one-call door: any library in, the same out, equal numbers, nothing written to, and words for bad input."""

import numpy as np
import pytest
import torch

import solvers
from solvers.sparsity import L0, L1, KeepGroups, KeepNofM, KeepPerRow
from theory_checks.synthetic import Case

LAYER = Case("language_like", rows=4, inputs=8, seed=9)
W, H = LAYER.W0, LAYER.problem.H


@pytest.mark.parametrize("method", ["magnitude", "wanda", "maiht"])
def test_every_library_gets_its_own_arrays_back_with_the_reference_result(backend, method):
    weight, gram = backend.array(W), backend.array(H)
    found = solvers.solve(weight, gram, method=method, refine="gradient:5").weight
    assert type(found) is type(weight)
    assert (found.dtype, found.device) == (weight.dtype, weight.device)
    assert np.array_equal(backend.numpy(found), solvers.solve(W, H, method=method, refine="gradient:5").weight)
    assert np.array_equal(backend.numpy(weight), W)
    assert np.array_equal(backend.numpy(gram), H)


def test_float32_is_solved_in_float64_and_rounded_once(backend):
    w, h = W.astype(np.float32), H.astype(np.float32)
    found = solvers.solve(backend.array(w, "float32"), backend.array(h, "float32")).weight
    expected = solvers.solve(w.astype(np.float64), ((h + h.T) / 2).astype(np.float64)).weight.astype(np.float32)
    assert found.dtype == backend.array(w, "float32").dtype
    assert np.array_equal(backend.numpy(found), expected)


def test_torch_bfloat16_and_parameters_that_want_gradients():
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.tensor(W, dtype=torch.bfloat16))
    found = solvers.solve(weight, torch.tensor(H), sparsity="2:4").weight
    assert (found.dtype, found.requires_grad) == (torch.bfloat16, False)
    assert (found != 0).sum(dim=1).tolist() == [4] * 4


def test_one_shot_weights_that_stay_are_not_rounded():
    for method in ("dense", "magnitude", "wanda"):
        kept = solvers.solve(W, H, method=method).weight
        assert np.array_equal(kept[kept != 0], W[kept != 0])


@pytest.mark.parametrize("method", solvers.METHODS)
@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize("sparsity", ["50%/layer", "2:4"])
def test_extreme_scales_keep_the_counts(method, scale, sparsity):
    for weight, gram in ((scale * W, H), (W, scale * H)):
        found = solvers.solve(weight, gram, method=method, sparsity=sparsity).weight
        assert np.isfinite(found).all()
        assert np.count_nonzero(found) == (32 if method == "dense" else 16)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "iht", "maiht"])
@pytest.mark.parametrize(
    ("weight", "gram", "sparsity", "kept"),
    [
        (W, np.ones((8, 8)), "50%", 16),
        (W, np.zeros((8, 8)), "50%", 16),
        (np.zeros_like(W), H, "50%", 0),
        (W[:1], H, "50%", 4),
        (W[:, :1], H[:1, :1], "50%/layer", 2),
        (W, H, "0%", 32),
        (W, H, "100%", 0),
        (W, H, "4:4", 32),
        (W, H, "0:4", 0),
    ],
)
@pytest.mark.parametrize("options", [{}, {"mu": 0}, {"refine": "exact"}], ids=str)
def test_degenerate_layers_are_pruned_like_any_other(method, weight, gram, sparsity, kept, options):
    found = solvers.solve(weight, gram, method=method, sparsity=sparsity, **options).weight
    assert np.isfinite(found).all()
    assert np.count_nonzero(found) == kept
    assert not np.signbit(found[found == 0]).any()


def test_a_penalty_prunes_the_more_the_dearer_a_weight_is():
    counts = [np.count_nonzero(solvers.solve(W, H, sparsity=L0(lam)).weight) for lam in (0.0, 0.05, 1e6)]
    assert counts[0] == 32 > counts[1] > counts[2] == 0
    assert np.count_nonzero(solvers.solve(W, H, method="iht", sparsity=L1(1e6)).weight) == 0


def test_a_sparsity_may_be_text_target_or_instance():
    expected = solvers.solve(W, H, sparsity="50%").weight
    for same in (solvers.parse("50%"), KeepPerRow(4)):
        assert np.array_equal(solvers.solve(W, H, sparsity=same).weight, expected)


def test_the_run_keeps_what_a_certificate_needs():
    done = solvers.run(solvers.find("wanda"), LAYER.problem, KeepPerRow(4), refine="exact", mu=0.2)
    assert done.problem.gram.ridge == 0.2
    assert np.array_equal(
        done.found.weight, done.problem.scaled(KeepPerRow(4).mask(np.abs(W) * LAYER.problem.norms) * W)
    )
    assert np.array_equal(done.weight, done.problem.original(done.refined))
    assert done.problem.value(done.refined) < done.problem.value(done.found.weight)


def test_search_and_refinement_have_their_own_ridge():
    done = solvers.run(solvers.find("maiht"), LAYER.problem, KeepPerRow(4), refine="exact", mu=0.2, refine_mu=0.0)
    assert (done.problem.gram.ridge, done.refit.gram.ridge) == (0.2, 0.0)
    strong = solvers.run(solvers.find("maiht"), LAYER.problem, KeepPerRow(4), refine="exact", mu=0.2, refine_mu=0.2)
    assert np.array_equal(done.found.weight, strong.found.weight)
    assert LAYER.problem.value(done.weight) < LAYER.problem.value(strong.weight)
    plain = solvers.run(solvers.find("maiht"), LAYER.problem, KeepPerRow(4), refine_mu=0.0)
    assert plain.refit is plain.problem
    assert plain.swapped is plain.refined is plain.found.weight
    assert plain.gains is None
    assert not plain.ended.any()


def test_swaps_refit_exactly_and_say_which_rows_ended():
    kept = KeepPerRow(4)
    done, one, refit = (solvers.run(solvers.find("wanda"), LAYER.problem, kept, swaps=n) for n in ("all", 1, 0))
    assert done.ended.all()
    assert one.ended.tolist() == [len(gains) < 1 for gains in one.gains]
    assert np.array_equal(done.refined, solvers.run(solvers.find("wanda"), LAYER.problem, kept, refine="exact").refined)
    assert LAYER.problem.value(done.weight) < LAYER.problem.value(refit.weight)
    assert np.array_equal(solvers.solve(W, H, method="wanda", swaps="all").weight, done.weight)


@pytest.mark.parametrize(
    ("weight", "gram", "options", "words"),
    [
        (W.tolist(), H, {}, "weight must be a NumPy, torch, CuPy or array-API array; got list"),
        (W, H.tolist(), {}, "gram must be a NumPy.*got list"),
        (np.ones((4, 8), dtype=int), H, {}, "weight must hold real floating-point numbers; got int"),
        (W + 0j, H, {}, "got complex128"),
        (W, H > 0, {}, "gram must hold real floating-point numbers; got bool"),
        (W.T, H, {}, "Usually the weight is transposed"),
        (W, H[:5], {}, r"square \(in, in\) matrix"),
        (W, np.triu(H), {}, "must be symmetric"),
        (W, -H, {}, "positive semidefinite"),
        (W * np.nan, H, {}, "dense weight holds NaN"),
        (W, H * np.nan, {}, "Gram holds NaN"),
        (W * 1e200, H, {}, "squares overflow"),
        (W[:0], H, {}, "at least one output"),
        (W, H, {"method": "maith"}, "Did you mean 'maiht'"),
        (W, H, {"itres": 3}, "Did you mean 'iters'"),
        (W, H, {"refine": "Exact"}, "refine is one of"),
        (W, np.float64(3.0), {}, r"square \(in, in\) matrix; got shape \(\)"),
        (
            torch.tensor(W).to_sparse(),
            H,
            {},
            r"every number in memory; got .*torch\.sparse_coo.*pass \.to_dense",
        ),
        (torch.empty(4, 8, device="meta"), H, {}, "weight must hold every number in memory; got a tensor on meta"),
        (W, H, {"mu": -1}, "a ridge, mu or refine_mu, is a finite number of at least 0; got -1"),
        (W, H, {"refine_mu": -1, "refine": "exact"}, "a ridge, mu or refine_mu"),
        (W, H, {"swaps": -1}, "swaps is the number of exchanges .* or all; got -1"),
        (W, H, {"swaps": 1.5}, "got 1.5"),
        (W, H, {"swaps": True}, "got True"),
        (W, H, {"swaps": "many"}, "got 'many'"),
        (W, H, {"swaps": 2, "refine": "gradient:3"}, "swaps compare exactly refitted weights"),
        (W, H, {"swaps": 2, "sparsity": L1(0.1), "method": "iht"}, "swaps exchange single inputs"),
        (W, np.ones((8, 8)), {"swaps": 2, "refine_mu": 0}, "Gram on the support of row 0 is not positive definite"),
        (W, H, {"iters": 0}, "iters >= 1"),
        (W, H, {"safety": 0}, "step size must be positive"),
        (W, H, {"safety": 1e9}, "diverged"),
        (W, H, {"sparsity": 0.5}, r"instance such as L0\(0.01\).*got 0.5"),
        (W, H, {"sparsity": None}, "got None"),
        (W, H, {"sparsity": L0(-1.0)}, r"got L0\(lam=-1.0\)"),
        (W, H, {"sparsity": L0(float("nan"))}, "lam=nan"),
        (W, H, {"sparsity": KeepPerRow(9)}, r"shape \(4, 8\) can keep 0 to 8; got KeepPerRow\(keep=9\)"),
        (W, H, {"sparsity": KeepPerRow(2.5)}, "keep=2.5"),
        (W, H, {"sparsity": KeepNofM(2, 0)}, "divisible by 0"),
        (W, H, {"sparsity": KeepNofM(2, 4.0)}, "counts whole; got .*of=4.0"),
        (W, H, {"sparsity": KeepGroups(1, (0, 1))}, "cannot meet KeepGroups"),
        (W, H, {"sparsity": "2:3"}, "divisible by 3; this layer has 8"),
    ],
)
def test_bad_input_is_refused_in_words(weight, gram, options, words):
    with pytest.raises(solvers.Refusal, match=words):
        solvers.solve(weight, gram, **options)


@pytest.mark.parametrize("library", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_weights_that_leave_the_range_of_their_dtype_are_refused(library):
    draw = np.random.default_rng(0)
    X = draw.standard_normal((100, 1)) + 1e-3 * draw.standard_normal((100, 16))
    weight = (6e4 * np.sign(draw.standard_normal((6, 16)))).astype(np.float16)
    with pytest.raises(solvers.Refusal, match=r"the pruned weights reach \S+e\+04, beyond the range of .*float16"):
        solvers.solve(library(weight), X.T @ X / 100, method="sparsegpt")
    wide = solvers.solve(weight.astype(np.float32), X.T @ X / 100, method="sparsegpt").weight
    assert np.isfinite(wide).all()
