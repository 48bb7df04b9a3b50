"""python -m theory_checks: one JSON document, exit codes, names, seeds."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from theory_checks import __main__ as cli
from theory_checks import matrix
from theory_checks.certificate import Certificate
from theory_checks.claims import CLAIMS
from theory_checks.mutant import Mutant
from theory_checks.mutants import MUTANTS
from theory_checks.scaling import EXPERIMENTS


def _run(*arguments):
    return CliRunner().invoke(cli.app, [*arguments])


def test_json_is_one_document_with_every_claim():
    done = _run("--examples", "2", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (document["seed"], document["examples"]) == (0, 2)
    assert [row["name"] for row in document["claims"]] == [*CLAIMS, *EXPERIMENTS]
    assert {row["outcome"] for row in document["claims"]} <= {"holds", "not applicable"}
    assert all(row["measured"] <= row["bound"] + row["allowance"] for row in document["claims"] if not row["applies"])


def test_the_module_runs_and_keeps_progress_away_from_stdout():
    command = [sys.executable, "-m", "theory_checks", "prox-minimises", "--examples", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["claims"][0]["examples"] == 3


def test_a_seed_draws_the_same_layers_again_and_another_seed_others():
    one, same, other = (
        _run("token-form", "prox-minimises", "--examples", "20", "--seed", seed, "--json").stdout
        for seed in ("3", "3", "4")
    )
    assert one == same
    assert json.loads(one)["claims"] != json.loads(other)["claims"]


def test_a_name_given_twice_is_evaluated_once():
    done = _run("fixed-point", "fixed-point", "--examples", "3", "--json")
    assert [(row["name"], row["examples"]) for row in json.loads(done.stdout)["claims"]] == [("fixed-point", 3)]


def test_a_negative_seed_is_refused():
    done = _run("fixed-point", "--seed", "-1")
    assert done.exit_code == 2
    assert "--seed" in done.stderr


def test_both_sides_are_printed_for_a_reader():
    done = _run("lipschitz-bound", "first-step-is-wanda", "--examples", "4")
    assert done.exit_code == 0
    assert "the worst of 4 synthetic layers (seed 0)" in done.stdout
    assert "lambda_max(H) <= the L behind every step size  (Rump 2006, sec. 2)" in done.stdout
    assert "holds, 4 layers" in done.stdout


def test_a_claim_that_never_applied_says_why():
    done = _run("first-step-is-wanda", "--examples", "2", "--seed", "1")
    assert done.exit_code == 0
    assert "holds, 1 layers" in done.stdout or "not applicable because" in done.stdout


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("safegard", "unknown claim 'safegard'. Did you mean 'safeguard'? Known: prox-minimises,"),
        ("zzzz", "unknown claim 'zzzz'. Known: "),
    ],
)
def test_an_unknown_claim_exits_2_with_the_nearest_name(typed, words):
    done = _run(typed)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert words in " ".join(done.stderr.split())


@pytest.mark.parametrize("examples", ["0", "-3", "many"])
def test_a_count_that_makes_no_sense_exits_2(examples):
    assert _run("--examples", examples).exit_code == 2


def test_a_claim_that_fails_exits_1():
    with next(m for m in MUTANTS if "safeguard" in m.killed_by).planted():
        shown, document = _run("safeguard", "--examples", "9"), _run("safeguard", "--examples", "9", "--json")
    assert (shown.exit_code, document.exit_code) == (1, 1)
    assert "fails" in shown.stdout
    assert json.loads(document.stdout)["claims"][0]["outcome"] == "fails"


@pytest.fixture
def few(monkeypatch):
    """Two mutants and three checks, so that the matrix takes seconds."""
    mutants = [m for m in MUTANTS if m.killed_by in (("refuses",), ("normalisation",))]
    monkeypatch.setattr(cli, "CHECKS", ("token-form", "normalisation", "refuses"))
    monkeypatch.setattr(cli, "MUTANTS", mutants)
    monkeypatch.setattr(matrix, "MUTANTS", [*mutants, Mutant("harmless", (), ())])


def test_the_matrix_tells_after_how_many_layers_each_defect_was_noticed(few):
    done = _run("mutants", "--workers", "1", "--json", "--examples", "3")
    document = json.loads(done.stdout)
    assert done.exit_code == 0
    assert document["survivors"] == []
    assert document["idle"] == ["token-form"]
    assert document["killed_after"]["problem: NaN is let in"] == {
        "token-form": None,
        "normalisation": None,
        "refuses": 1,
    }
    assert document["killed_after"]["normalised: the ridge is left out"]["normalisation"] >= 1
    assert document["alone"] == {
        "normalisation": ["normalised: the ridge is left out"],
        "refuses": ["n:m: windows straddle the rows", "problem: NaN is let in"],
    }


def test_a_survivor_exits_1_and_is_named(few, monkeypatch):
    monkeypatch.setattr(cli, "MUTANTS", matrix.MUTANTS)
    done = _run("mutants", "--workers", "1", "--examples", "2")
    assert done.exit_code == 1
    assert "survivors: harmless" in done.stdout
    assert "checks that noticed nothing: token-form" in done.stdout
    assert "normalisation after 1" in done.stdout
    assert "2 checks each notice a defect that no other notices: normalisation, refuses" in done.stdout


def test_named_tries_only_the_checks_that_a_defect_names(few):
    document = json.loads(_run("mutants", "--named", "--json", "--examples", "3").stdout)
    assert document["killed_after"]["problem: NaN is let in"] == {"refuses": 1}


def test_an_inconclusive_experiment_is_no_pass(monkeypatch):
    undecided = Certificate("risk-slope-n", "slope", "OLS", 0.0, 1.0, inconclusive="width 0.2 > 0.03")
    monkeypatch.setitem(EXPERIMENTS, "risk-slope-n", lambda seed: undecided)
    done = _run("risk-slope-n")
    assert done.exit_code == 1
    assert "inconclusive, width 0.2 > 0.03" in done.stdout
