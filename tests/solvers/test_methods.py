"""The table of methods: finding, refusing, options, plug-ins."""

import numpy as np
import pytest

import solvers
from solvers.methods import Method, near
from solvers.sparsity import L0, KeepGroups, KeepPerRow


class _Entry:
    name = "random"

    def load(self):
        return Method(lambda problem, sparsity: solvers.Solution(sparsity.prox(problem.W0)), "none", "a friend, 2026")


@pytest.fixture
def plugged(monkeypatch):
    monkeypatch.setattr(solvers, "entry_points", lambda group: [_Entry()] if group == "pruning.methods" else [])


@pytest.mark.parametrize("name", solvers.METHODS)
def test_every_name_finds_its_row(name):
    assert solvers.find(name) is solvers.METHODS[name]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            "maith",
            r"unknown method 'maith'\. Did you mean 'maiht'\? Known: admm, admm-released, alps, dense, ",
        ),
        ("Wanda", "Did you mean 'wanda'"),
        ("zzz", r"unknown method 'zzz'\. Known: "),
        (None, "unknown method 'None'"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest(typed, words):
    with pytest.raises(solvers.Refusal, match=words):
        solvers.find(typed)


def test_a_plug_in_is_found_and_solves(plugged):
    assert solvers.find("random").paper == "a friend, 2026"
    assert (solvers.solve(np.ones((2, 4)), np.eye(4), method="random").weight != 0).sum() == 4
    with pytest.raises(solvers.Refusal, match=r"Did you mean 'random'\? Known: admm, .*random, sparsegpt, wanda"):
        solvers.find("randon")


def test_nothing_is_suggested_where_nothing_is_near():
    assert near("iters", ["safety"]) == ""
    assert near("itres", ["safety", "iters"]) == " Did you mean 'iters'?"


def test_options_are_the_keyword_only_parameters_and_are_read_by_type():
    assert solvers.find("maiht").options() == {"iters": 100, "safety": 0.95, "ramp": 0.95, "tol": 0.0}
    assert solvers.find("wanda").options() == {}
    read = solvers.find("maiht").read_options("maiht", {"iters": "10", "tol": "1e-3", "safety": 1})
    assert read == {"iters": 10, "tol": 0.001, "safety": 1.0}
    assert [type(value) for value in read.values()] == [int, float, float]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"itres": 3}, r"maiht has no option 'itres'\. Did you mean 'iters'\? Known: iters, safety, ramp, tol\."),
        ({"iters": "many"}, "maiht option iters must be int, as its default 100 is; got 'many'"),
        ({"iters": None}, "must be int"),
        ({"iters": float("inf")}, "must be int"),
        ({"iters": 2.5}, r"must be a whole number; got 2\.5"),
        ({"iters": -1}, "not negative; got -1. Its default is 100"),
        ({"safety": float("nan")}, "finite number"),
        ({"tol": "inf"}, "finite number"),
    ],
)
def test_options_that_cannot_be_read_are_refused(given, words):
    with pytest.raises(solvers.Refusal, match=words):
        solvers.find("maiht").read_options("maiht", given)


def test_options_of_a_method_without_any():
    with pytest.raises(solvers.Refusal, match=r"wanda has no option 'iters'\. Known: none\."):
        solvers.find("wanda").read_options("wanda", {"iters": 3})


def test_what_a_method_cannot_meet_is_refused_with_what_it_can():
    with pytest.raises(solvers.Refusal, match=r"wanda cannot meet L0\(lam=1.0\); it can do 50%, 50%/layer, 2:4\."):
        solvers.find("wanda").require("wanda", L0(1.0))
    with pytest.raises(solvers.Refusal, match="maiht cannot meet KeepGroups"):
        solvers.find("maiht").require("maiht", KeepGroups(1, (0, 1)))
    solvers.find("maiht").require("maiht", L0(1.0))
    solvers.find("wanda").require("wanda", KeepPerRow(1))
