"""Every clause of the contract, for every method of the table."""

import pytest

from solvers import METHODS
from theory_checks.contract import CONTRACT


@pytest.mark.parametrize("clause", CONTRACT)
@pytest.mark.parametrize("method", METHODS)
def test_contract(method, clause):
    CONTRACT[clause](METHODS[method])
