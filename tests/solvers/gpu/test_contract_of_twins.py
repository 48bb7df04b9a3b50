"""What every pruner must satisfy, asked of the twins: the clauses of the contract, in float64."""

from dataclasses import replace

import numpy as np
import pytest

import solvers
from solvers.array import Place
from theory_checks.contract import CONTRACT
from theory_checks.twins import TWINS

HERE = Place.of(np.zeros(1), "float64")


def _as_method(name):
    method = solvers.METHODS[name]

    def run(problem, sparsity, *, iters=50, safety=0.95, ramp=0.8, tol=0.0):
        return method.gpu(problem, sparsity, HERE, iters=iters, safety=safety, ramp=ramp, tol=tol)

    return replace(method, run=run)


@pytest.mark.parametrize("clause", CONTRACT)
@pytest.mark.parametrize("name", TWINS)
def test_a_twin_meets_the_contract_of_its_method(name, clause):
    CONTRACT[clause](_as_method(name))
