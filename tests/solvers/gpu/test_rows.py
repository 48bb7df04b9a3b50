"""Blocks of rows on several cores: the numbers of one block on one core, and the caller's floating-point errors."""

import numpy as np
import pytest

from solvers.array import Place
from solvers.gpu import maiht, rows
from solvers.problem import Gram, LayerProblem
from solvers.sparsity import L0, L1, KeepNofM, KeepPerLayer, KeepPerRow
from theory_checks.synthetic import Case
from theory_checks.twins import twin_step

WIDE = Case("language_like", rows=6, inputs=48, seed=3)
ROW = 48 * 8  # bytes


def _run(sparsity, problem=WIDE.judge):
    return maiht.maiht(problem, sparsity, Place.of(np.zeros(1), "float64"), iters=12)


@pytest.mark.parametrize("sparsity", [KeepPerRow(20), KeepPerLayer(120), KeepNofM(2, 4), L0(0.05), L1(0.05)], ids=str)
def test_a_run_in_blocks_is_the_run_at_once(monkeypatch, sparsity):
    whole = _run(sparsity)
    found = []
    monkeypatch.setattr(rows, "BLOCK", 2 * ROW)
    for cores in (1, 2, 5):
        monkeypatch.setattr(rows, "cores", lambda cores=cores: cores)
        found.append(_run(sparsity))
    assert all(np.array_equal(run.weight, whole.weight) for run in found)
    assert all(run.trace.objective == found[0].trace.objective for run in found)  # bit for bit on any number of cores
    assert all(run.trace.nonzeros == whole.trace.nonzeros for run in found)
    certificate = twin_step("maiht", WIDE.judge, sparsity, 0.95 / WIDE.judge.lipschitz, WIDE.state(sparsity))
    assert certificate.outcome == "holds"


def test_a_block_that_is_left_out_is_seen(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 2 * ROW)
    cut = rows.blocks
    monkeypatch.setattr(rows, "blocks", lambda array: cut(array)[:2] if len(array) > 2 else cut(array))
    sparsity = KeepPerRow(20)
    certificate = twin_step("maiht", WIDE.judge, sparsity, 0.95 / WIDE.judge.lipschitz, WIDE.state(sparsity))
    assert certificate.outcome == "fails"


def test_what_a_block_raises_is_raised_and_its_warnings_are_the_callers(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 2 * ROW)
    monkeypatch.setattr(rows, "cores", lambda: 2)
    big = np.full((6, 48), 1e200)
    with np.errstate(over="ignore"):
        assert rows.each(lambda a: (np.multiply(a, a, out=a), 1.0), big.copy())[1] == 3
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        rows.each(lambda a: (np.multiply(a, a, out=a), 1.0), big.copy())


def test_the_cores_are_those_that_the_numerical_libraries_are_told(monkeypatch):
    for told, expected in (("3", 3), ("2,1", 2), ("0", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert rows.cores() == expected
    for told in ("", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert rows.cores() >= 1


def test_arrays_of_another_library_are_one_block():
    torch = pytest.importorskip("torch")
    assert rows.blocks(torch.zeros(2**20)) == rows.blocks(np.zeros((2, 2))) == [slice(None)]
    problem = LayerProblem(np.ones((3, 2)), Gram(np.eye(2)))
    assert np.array_equal(_run(KeepPerRow(1), problem).weight, [[1, 0]] * 3)
