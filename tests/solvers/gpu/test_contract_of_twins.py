"""What every pruner must satisfy, asked of the twins: the clauses of the contract, in float64."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import solvers
from solvers.array import Place
from theory_checks.contract import CONTRACT

HERE = Place.of(np.zeros(1), "float64")
TWINS = [name for name, method in solvers.METHODS.items() if method.gpu]


def _as_method(name):
    method = solvers.METHODS[name]
    return replace(method, run=partial(method.gpu, place=HERE))


@pytest.mark.parametrize("clause", CONTRACT)
@pytest.mark.parametrize("name", TWINS)
def test_a_twin_meets_the_contract_of_its_method(name, clause):
    CONTRACT[clause](_as_method(name))
