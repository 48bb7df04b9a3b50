"""The twin of the swaps: the reference's exchanges, its endings and its certificates, on every library."""

import numpy as np
import pytest

from solvers import swaps as reference
from solvers.array import Place, inverse, subtract_product
from solvers.gpu import swaps as fast
from solvers.gpu import tableau
from solvers.linalg import least_squares_exact
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import L0, L1, KeepGroups, KeepNofM, KeepPerLayer, KeepPerRow
from theory_checks import allowance
from theory_checks.exchange import one_swap_sampled, swaps_descend
from theory_checks.swap_twin import HERE, batch_of, swap_twin_ends, swap_twin_pair, swap_twin_step
from theory_checks.synthetic import Case, cases

PRECISIONS = ("float64", "float32")
LAYER = Case("language_like", rows=5, inputs=24, seed=9)
FAMILIES = [Case(family, rows=4, inputs=12, seed=3) for family in ("scaled", "autoregressive", "language_like", "dead")]
SPARSITIES = (KeepPerRow(12), KeepPerLayer(48), KeepNofM(2, 4), L0(0.01))


def _place(backend, dtype="float64"):
    return Place.of(backend.array(np.zeros(1)), dtype)


def _weight(case, sparsity):
    """The smallest weights are kept: a long way to go. Under a penalty rows of unlike counts."""
    if isinstance(sparsity, L0):
        return np.where(np.abs(case.judge.W0) > np.median(np.abs(case.judge.W0)), case.judge.W0, 0.0)
    return np.where(sparsity.mask(-np.abs(case.judge.W0)), case.judge.W0, 0.0)


def _drifted(case):
    rng = np.random.default_rng(5)
    return LayerProblem(case.judge.W0, Gram(case.judge.H), R=rng.standard_normal(case.judge.W0.shape) / 8)


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=str)
def test_in_float64_the_exchanges_are_the_references(backend, sparsity):
    W = _weight(LAYER, sparsity)
    for problem in (LAYER.judge, _drifted(LAYER)):
        for n in (0, 1, 3, None):
            one, gains = reference.swaps(problem, sparsity, W, n)
            two, same = fast.swaps(problem, sparsity, W, n, _place(backend))
            assert np.array_equal(one != 0, two != 0)
            assert [len(row) for row in gains] == [len(row) for row in same]
            scale = problem.magnitude(W) + problem.magnitude(one) + float(np.square(problem.W0).sum())
            slack = (1 + sum(map(len, gains))) * allowance(scale * float(np.linalg.cond(problem.H)), 24)
            assert np.abs(one - two).max() <= slack
            assert all(np.abs(a - b).max(initial=0.0) <= slack for a, b in zip(gains, same, strict=True))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("sparsity", SPARSITIES, ids=str)
def test_every_certificate_of_the_reference_holds(backend, sparsity, dtype):
    for case in (LAYER, FAMILIES[0]):
        problem, W = case.judge, _weight(case, sparsity)
        before = least_squares_exact(problem, W != 0)
        for n in (1, None):
            found, gains = fast.swaps(problem, sparsity, W, n, _place(backend, dtype))
            ended = np.array([len(row) != n for row in gains])
            descend = swaps_descend(problem, sparsity, before, found, gains)
            assert descend.outcome == "holds", f"{case} {descend}"
            assert n is None or max(map(len, gains)) <= n
            if ended.any():
                certificate = one_swap_sampled(problem, sparsity, found, ended)
                assert certificate.outcome != "fails", f"{case} {certificate}"
            refit = least_squares_exact(problem, found != 0)
            scale = float(np.abs(refit).max()) * float(np.linalg.cond(problem.H))
            assert np.abs(refit - found).max() <= allowance(scale, case.inputs)
            assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_batches_whose_rows_end_at_different_times_are_the_rows_alone(backend, dtype, monkeypatch):
    """Slots that are taken over, and blocks: the same exchanges as one row after the other."""
    case, place = Case("language_like", rows=9, inputs=16, seed=2), _place(backend, dtype)
    W = _weight(case, KeepPerLayer(70))
    monkeypatch.setattr(fast, "SLOTS", 4)
    monkeypatch.setattr(fast, "CACHE", 16 * 17 * 8)
    found, gains = fast.swaps(case.judge, KeepPerLayer(70), W, None, place)
    assert len({len(row) for row in gains}) > 1
    for row in range(9):
        part = LayerProblem(case.judge.W0[row : row + 1], case.judge.gram)
        alone, (its,) = fast.swaps(part, KeepPerLayer(9), W[row : row + 1], None, place)
        assert np.array_equal(alone[0] != 0, found[row] != 0)
        assert len(its) == len(gains[row])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_steps_and_pairs_hold_on_every_library(backend, dtype):
    for case in (LAYER, *FAMILIES):
        for sparsity in (KeepPerRow(6), KeepPerLayer(4 * case.rows), KeepNofM(2, 4)):
            W = _weight(case, sparsity)
            for check in (swap_twin_step, swap_twin_pair):
                certificate = check(case.judge, sparsity, W, _place(backend, dtype))
                assert certificate.outcome != "fails", f"{case} {sparsity}: {certificate}"


def test_a_stale_tableau_a_gain_without_refit_and_a_worse_pair_are_seen(monkeypatch):
    W = _weight(LAYER, KeepPerRow(12))
    monkeypatch.setattr(tableau, "subtract_product", lambda T, left, right: T)
    assert swap_twin_step(LAYER.judge, KeepPerRow(12), W, HERE).outcome == "fails"
    monkeypatch.undo()
    monkeypatch.setattr(tableau, "_try", lambda L, gain, *rest: gain.__setitem__(slice(None), 0.0))
    assert swap_twin_pair(LAYER.judge, KeepPerRow(12), W, HERE).outcome == "fails"


def test_a_row_that_ends_on_a_stale_tableau_is_seen(monkeypatch):
    W = _weight(LAYER, KeepPerRow(12))
    assert swap_twin_ends(LAYER.judge, KeepPerRow(12), W).outcome == "holds"
    monkeypatch.setattr(fast.Batch, "_restart", lambda self, slots: None)
    assert swap_twin_ends(LAYER.judge, KeepPerRow(12), W).outcome == "fails"


def test_the_first_gains_are_bounded_by_the_addition():
    """Equation (1): 2 gain_ij <= p_j^2, so that removed inputs in this order may be left untried."""
    for case in cases(12, 3):
        for row, S in enumerate(case.budgets[0].mask(np.abs(case.judge.W0))):
            if 0 < S.sum() < len(S):
                k = reference.start(case.judge, row, np.flatnonzero(S), np.flatnonzero(~S))
                bound = k.g[k.removed] ** 2 / k.s
                gains = 2 * reference.pair_gains(case.judge, k).max(axis=0)
                assert (gains - bound).max() <= allowance(float(np.abs(bound).max() + 1), case.inputs)


def test_copies_and_singular_supports_are_the_references(backend):
    H = np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 2]])
    problem = LayerProblem.of(np.array([[1.0, 1, 1, 1]]), H)
    W = np.array([[1.0, 0, 1, 0]])
    for dtype in PRECISIONS:
        one, gains = reference.swaps(problem, KeepPerRow(2), W, None)
        two, same = fast.swaps(problem, KeepPerRow(2), W, None, _place(backend, dtype))
        assert np.array_equal(one, two)
        assert [row.tolist() for row in gains] == [row.tolist() for row in same]
        with pytest.raises(Refusal, match="Gram on the support of row 0 is not positive definite"):
            fast.swaps(problem, KeepPerRow(2), np.array([[1.0, 1, 0, 0]]), None, _place(backend, dtype))


def test_nothing_kept_and_nothing_removed(backend):
    for W in (np.zeros_like(LAYER.W0), np.ones_like(LAYER.W0)):
        found, gains = fast.swaps(LAYER.judge, KeepPerRow(0), W, None, _place(backend))
        slack = allowance(float(np.abs(LAYER.judge.W0).max()) * float(np.linalg.cond(LAYER.judge.H)), 24)
        assert np.abs(found - W * LAYER.judge.W0).max() <= slack
        assert not any(map(len, gains))


@pytest.mark.parametrize("sparsity", [L1(0.1), KeepGroups(1, (0,) * 24)], ids=["L1", "groups"])
def test_what_has_no_single_exchange_is_refused(sparsity):
    with pytest.raises(Refusal, match="swaps exchange single inputs"):
        fast.swaps(LAYER.judge, sparsity, LAYER.judge.W0, 1, HERE)


def test_scales_over_many_decades_do_not_leave_float32(backend):
    scale = 2.0 ** np.arange(-36, 36, 3)
    problem = LayerProblem(LAYER.judge.W0 / scale, Gram(LAYER.judge.H * np.outer(scale, scale)))
    W = _weight(LAYER, KeepPerRow(12))
    one, _ = reference.swaps(LAYER.judge, KeepPerRow(12), W, None)
    two, gains = fast.swaps(problem, KeepPerRow(12), W / scale, None, _place(backend, "float32"))
    assert np.array_equal(one != 0, two != 0)
    assert all((row > 0).all() for row in gains)


def test_what_the_library_lacks_is_computed_alike(backend):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3, 6, 9))
    H = X @ X.transpose(0, 2, 1)
    found, failed = inverse(backend.array(H))
    slack = allowance(float(np.linalg.cond(H).max()) * float(np.abs(np.linalg.inv(H)).max()), 9)
    assert np.abs(backend.numpy(found) - np.linalg.inv(H)).max() <= slack
    assert list(failed) == []
    H[1] = -H[1]
    assert list(inverse(backend.array(H))[1]) == [1]
    T, left, right = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 2)), rng.standard_normal((3, 2, 5))
    got = subtract_product(backend.array(T) + 0.0, backend.array(left), backend.array(right))
    assert np.abs(backend.numpy(got) - (T - left @ right)).max() <= allowance(16.0, 4)


def test_a_batch_lists_only_pairs_of_one_window():
    group = fast.supports(KeepNofM(2, 4), _weight(LAYER, KeepNofM(2, 4)) != 0, np.arange(5))
    for places, a, b in zip(group.places, group.a, group.b, strict=True):
        listed = a >= 0
        assert listed.sum() == 24
        assert np.array_equal(places[a[listed]] // 4, places[group.kept + b[listed]] // 4)
    assert batch_of(LAYER.judge, KeepPerRow(12), _weight(LAYER, KeepPerRow(12)), HERE).state.a.shape[1] == 0


def test_exchanges_end_where_an_inexact_inverse_promises_them_for_ever(backend, monkeypatch):
    """As in the reference's test: gradients overstated after every factorisation promise 0 for 1 and 1 for 0."""
    made = []

    def overstated(L, names, *supports):
        made.append(names)
        assert len(made) < 20
        k = tableau.start(L, names, *supports)
        g, K = 10 * k.g, L.K
        w_S, g_removed = L.pick(k.w, k.places[:, :K]), L.pick(g, k.places[:, K:])
        best = tableau.best_pair(L, k.T, k.s, k.places, w_S, g_removed, k.a, k.b)
        return k._replace(g=g, fresh_g=g, best=best)

    monkeypatch.setattr(fast, "start", overstated)
    problem = LayerProblem.of(np.array([[1.0, 3.0, 0.0]]), np.array([[4.0, 2, 0], [2, 4, 0], [0, 0, 1]]))
    fast.swaps(problem, KeepPerRow(1), np.array([[2.5, 0, 0]]), None, _place(backend))
    assert len(made) == 3
