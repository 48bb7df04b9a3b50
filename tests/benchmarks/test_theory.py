"""The theory's records: what they say against what they were measured from, at small sizes."""

from __future__ import annotations

from functools import wraps
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import benchmarks.theory
from benchmarks import recovery_map, theory_curves
from benchmarks.__main__ import app
from benchmarks.records import canonical, make_record, read
from benchmarks.theory import claims, measure, mutations, used
from solvers import maiht
from solvers.problem import LayerProblem
from solvers.sparsity import KeepPerRow
from theory_checks import scaling, scaling_gaussian
from theory_checks.claims import CLAIMS
from theory_checks.evaluate import evaluate, statement
from theory_checks.mutants import MUTANTS
from theory_checks.scaling import EXPERIMENTS

NAMES = ("step-size", "safeguard", "first-step-is-wanda", "threshold-means")
SMALL = {"count": 2, "p": 12, "trials": 3}


def facts(record: dict) -> dict:
    """A record without what was stamped on it."""
    stamped = ("schema", "id", "when", "commit", "python", "versions", "machine")
    return {key: value for key, value in record.items() if key not in stamped}


def test_a_claim_is_recorded_as_it_was_evaluated_with_its_statement() -> None:
    rows, found = evaluate(NAMES, 3, 5), list(claims(5, 3, names=NAMES))
    for row, record in zip(rows, found, strict=True):
        assert {key: record[key] for key in row} == row
        assert record["used"] == used(row)
        assert record["seed"] == 5
    told = {record["name"]: (record["module"], record["statement"]) for record in found}
    assert told["safeguard"] == ("descent", "F(x_{t+1}) <= F(v_{t+1}) in every iteration, inside and across stages.")
    assert told["threshold-means"][0] == "probability"


def test_every_claim_finds_its_statement_and_its_title() -> None:
    assert all(all(statement(name)) for name in (*CLAIMS, *EXPERIMENTS))
    assert statement("ista-tight").text.startswith("F(x_n) - F* <= D^2 / 4sn for ISTA")
    assert not any(statement("no such claim"))


@pytest.mark.parametrize(
    ("measured", "bound", "applies", "share"),
    [
        (1.5, 2.0, "", 0.75),
        (0.0, 0.0, "", None),
        (1.0, -2.0, "", None),
        (1.0, 2.0, "no", None),
        (np.nan, 2.0, "", None),
    ],
)
def test_the_used_share_exists_where_it_means_something(
    measured: float, bound: float, applies: str, share: float | None
) -> None:
    assert used({"measured": measured, "bound": bound, "applies": applies}) == share


def test_a_defect_in_the_code_is_a_failing_record() -> None:
    defect = next(mutant for mutant in MUTANTS if mutant.name == "maiht: no safeguard")
    with defect.planted():
        (record,) = claims(0, 9, names=("safeguarded-step",))
    assert record["outcome"] == "fails"
    assert record["measured"] > record["bound"] + record["allowance"]


def test_sides_that_are_not_finite_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {**evaluate(("step-size",), 1, 0)[0], "measured": float("nan"), "bound": float("inf"), "outcome": "fails"}
    monkeypatch.setattr(benchmarks.theory, "evaluate", lambda *_: [row])
    (record,) = claims(0, names=("step-size",))
    assert (record["measured"], record["bound"], record["used"]) == (None, None, None)


def test_a_defect_is_recorded_with_the_checks_that_noticed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("normalised: the ridge is left out", "problem: NaN is let in")
    monkeypatch.setattr(benchmarks.theory, "CHECKS", ("normalisation", "refuses", "token-form"))
    found = {record["name"]: record for record in mutations(0, 3, names=names, workers=1)}
    assert found[names[0]]["killed_after"]["normalisation"] >= 1
    assert (found[names[1]]["named"], found[names[1]]["killed_after"]) == (["refuses"], {"refuses": 1})
    seen = {names[1]: {"refuses": None, "token-form": 2, "exact-count": None}}
    monkeypatch.setattr(benchmarks.theory, "matrix", lambda *_, **options: seen)
    (record,) = mutations(0, 3, names=names[1:])
    assert record["killed_after"] == {"refuses": None, "token-form": 2}
    assert record["checks"] == 3


def test_all_four_measurements_come_in_their_order_and_say_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for name in ("claims", "curves", "recovery_maps", "mutations"):
        monkeypatch.setattr(
            benchmarks.theory,
            name,
            lambda seed, progress, name=name: [progress(0, 1, name), make_record(name, seed=seed)][1:],
        )
    found = list(measure(7, progress=lambda done, of, what: told.append(what)))
    assert [record["benchmark"] for record in found] == told == ["claims", "curves", "recovery_maps", "mutations"]
    assert {record["seed"] for record in found} == {7}


def test_rates_stay_below_their_bounds_and_the_gaps_are_positive() -> None:
    found = list(theory_curves.convex(1))
    assert [row["name"] for row in found] == ["ISTA", "FISTA", "MFISTA", "mAIHT"]
    for row in found:
        assert len(row["x"]) == len(row["y"]) == len(row["bound"]) <= theory_curves.POINTS
        assert (row["x"][0], row["x"][-1]) == (1, theory_curves.STEPS)
        assert all(0 < y <= bound for y, bound in zip(row["y"], row["bound"], strict=True) if y is not None)


def test_only_the_unguarded_acceleration_rises() -> None:
    rises = {row["name"]: row["rises"] for row in theory_curves.safeguard(0)}
    assert rises["IHT"] == rises["mAIHT"] == 0
    assert rises["accelerated, no safeguard"] > 10
    for row in theory_curves.safeguard(0):
        assert (max(b - a for a, b in pairwise(row["y"])) > 0) == (row["rises"] > 0)
        assert min(row["y"]) == 0


@pytest.mark.parametrize("figure", [theory_curves.supports, theory_curves.local])
def test_counts_and_local_gaps_stay_below_their_bounds(figure) -> None:
    for row in figure(0):
        assert all(y <= bound * (1 + 1e-5) for y, bound in zip(row["y"], row["bound"], strict=True) if y is not None)
        assert row["y"] == sorted(row["y"], reverse=figure is theory_curves.local)


def test_the_fitted_slopes_are_those_of_the_claims() -> None:
    found = {row["name"]: row for row in theory_curves.laws(3, 40)}
    assert f"seen {found['n']['slope']:.4f} " in scaling_gaussian.slope_in_n(3, reps=40).claim
    assert f"seen {found['k']['slope']:.4f} " in scaling.slope_in_k(3, reps=40).claim
    assert found["p"]["x"] == list(scaling.PS)
    assert all(error > 0 for row in found.values() for error in row["error"])


def test_numbers_have_six_digits_and_gaps_are_null() -> None:
    sides = theory_curves._sides(np.arange(3.0), y=np.array([np.pi, np.nan, 2e-9 / 3]))
    assert sides == {"x": [0.0, 1.0, 2.0], "y": [3.14159, None, 6.66667e-10]}
    assert len(theory_curves.spaced(5000)) <= theory_curves.POINTS
    assert list(theory_curves.spaced(4)) == [0, 1, 2, 3]


def test_curves_are_records(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    whole = theory_curves.laws
    monkeypatch.setattr(theory_curves, "laws", wraps(whole)(lambda seed: whole(seed, 20)))
    found = list(theory_curves.curves(0, lambda done, of, what: said.append(what)))
    assert {record["figure"] for record in found} == {"convex", "safeguard", "supports", "local", "scaling"}
    assert said[0] == "curves: convex"
    assert sum(len(canonical(record)) for record in found) < 60_000


def test_a_map_has_a_share_for_every_cell_and_is_a_function_of_its_seed() -> None:
    found, again = (list(recovery_map.recovery_maps(3, **SMALL)) for _ in range(2))
    assert [facts(record) for record in found] == [facts(record) for record in again]
    assert [record["method"] for record in found] == ["IHT", "mAIHT", "FISTA", "OMP"]
    for record in found:
        shares = np.array(record["success"])
        assert shares.shape == (2, 2)
        assert set((shares * 3).round(9).ravel()) <= {0, 1, 2, 3}
        assert (record["undersampling"], record["sparsity"]) == ([0.5, 1.0], [0.3, 0.6])


def test_one_nonzero_seen_by_many_observations_is_found_by_everyone() -> None:
    problem = recovery_map.instance(0, 60, 1, p=20, trials=5)
    for method in recovery_map.METHODS.values():
        assert recovery_map.recovered(method(problem, 1), problem.W0).all()


def test_a_support_counts_only_if_every_entry_agrees() -> None:
    truth = np.array([[1.0, 0, -2.0], [1.0, 0, 0]])
    found = np.array([[5.0, 0, 1.0], [1.0, 0.1, 0]])
    assert recovery_map.recovered(found, truth).tolist() == [True, False]


def test_the_instance_is_a_design_with_columns_of_one_norm_and_rows_with_k_nonzeros() -> None:
    problem = recovery_map.instance(1, 8, 3, p=12, trials=4)
    assert np.diag(problem.H) == pytest.approx(np.ones(12))
    assert np.linalg.matrix_rank(problem.H) == 8
    assert (np.count_nonzero(problem.W0, axis=1) == 3).all()
    assert np.abs(problem.W0[problem.W0 != 0]).min() >= 0.5


def test_every_row_of_a_map_is_the_maiht_of_that_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_map, "ITERATIONS", 60)
    problem = recovery_map.instance(0, 10, 3, p=20, trials=12)
    together = recovery_map.by_maiht(problem, 3)
    alone = np.concatenate([_alone(LayerProblem(row[None, :], problem.gram), 3, 60) for row in problem.W0])
    assert together == pytest.approx(alone, abs=1e-9)
    monkeypatch.setattr(recovery_map, "row_values", lambda problem, W: np.full(len(W), problem.value(W)))
    assert recovery_map.by_maiht(problem, 3) != pytest.approx(alone, abs=1e-9)


def _alone(problem: LayerProblem, k: int, steps: int) -> np.ndarray:
    x = np.zeros(problem.shape)
    state = maiht.State(x, x, x, x)
    for _ in range(steps):
        state = maiht.step(problem, KeepPerRow(k), recovery_map.SAFETY / problem.lipschitz, state)
    return state.x


def test_the_command_writes_the_records_and_prints_the_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def planted(seed: int, progress: object):
        yield make_record("claim", name="a", outcome="holds", seed=seed)
        yield make_record("claim", name="b", outcome="fails", seed=seed)
        yield make_record("mutation", name="m", killed_after={"a": None}, seed=seed)

    monkeypatch.setattr(benchmarks.theory, "measure", planted)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["run", "theory", "--seed", "4"])
    assert done.exit_code == 0, done.output
    assert "2 claims: 1 holds, 1 fails; 1 planted defects, 1 survive" in done.stdout
    kept = read([tmp_path / "runs" / "theory" / "records.jsonl"])
    assert [record["seed"] for record in kept] == [4, 4, 4]
