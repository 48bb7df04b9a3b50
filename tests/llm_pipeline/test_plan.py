"""A plan goes to TOML and comes back equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_pipeline.plan import FILE, CalibrationSource, MethodChoice, ModelSource, Plan
from solvers.refusal import Refusal

PLAN = Plan(
    model=ModelSource("tiny", "/models/tiny", {"model-1 of 2.safetensors": "ab", "model.safetensors": "cd"}),
    method=MethodChoice("maiht", {"iters": 50, "safety": 0.95, "tol": 1e-12, "name": "x", "flag": True}),
    calibration=CalibrationSource("c4.jsonl", "/text/c4.jsonl", "01", "", 128, 2048, "128 of 900; seed 0"),
    sparsity="50%/layer",
    versions={"certified-pruning": "0.1.0", "python": "3.12"},
)
AWKWARD = [
    'say "no"',
    "C:\\new\\table",
    "naïve 漢字 🙂",
    "a\nb\tc\r",
    "# no comment",
    "'''",
    "[table]",
    "\x7f\x01\x1f",
    "",
]


def returned(plan: Plan, folder: Path) -> Plan:
    (folder / FILE).write_text(plan.to_toml(), encoding="utf-8")
    return Plan.read(folder)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_comes_back(text: str, tmp_path: Path) -> None:
    plan = replace(
        PLAN,
        model=ModelSource(text, text, {"model.safetensors": text}),
        method=MethodChoice(text, {"option": text}),
        calibration=replace(PLAN.calibration, source=text, path=text, protocol=text),
    )
    assert returned(plan, tmp_path) == plan


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    number=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_text_and_any_number_come_back(
    text: str, number: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plan = replace(PLAN, sparsity=text, mu=number, seed=seed, method=MethodChoice(text, {"a": number, "b": seed}))
    assert returned(plan, tmp_path_factory.getbasetemp()) == plan


def test_the_last_stage_has_its_own_ridge(tmp_path: Path) -> None:
    assert PLAN.last_mu == PLAN.mu
    refined = replace(PLAN, refine="exact", swaps="all", refine_mu=0.003)
    assert refined.last_mu == 0.003
    assert returned(refined, tmp_path) == refined
    assert returned(replace(refined, swaps=7), tmp_path).swaps == 7


def test_types_come_back(tmp_path: Path) -> None:
    options = returned(PLAN, tmp_path).method.options
    assert [type(value) for value in options.values()] == [int, float, float, str, bool]


@pytest.mark.parametrize("text", [None, "sparsity = ", "sparsity = '50%'", PLAN.to_toml() + "[more]\nkey = 1\n"])
def test_a_folder_without_a_readable_plan_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(Refusal, match=r"a run folder holds a readable plan\.toml"):
        Plan.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('sparsity = "50%/layer"', "sparsity = 5", "sparsity = 5 is a int"),
        ("seed = 0", 'seed = "a"', "seed = 'a' is a str"),
        ("refine_mu = 0.01", "refine_mu = []", r"refine_mu = \[\] is a list"),
        ("sequences = ", "sequences = 0.", r"calibration\.sequences = 0\.\d+ is a float"),
        ("kept = []", "kept = 3", r"allocation\.kept = 3 is a int"),
    ],
)
def test_a_value_of_another_kind_is_named(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert old in PLAN.to_toml()
    (tmp_path / FILE).write_text(PLAN.to_toml().replace(old, new))
    with pytest.raises(Refusal, match=says):
        Plan.read(tmp_path)


def test_a_plan_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(Refusal, match=r"holds a readable plan\.toml; .*UnicodeDecodeError"):
        Plan.read(tmp_path)


def test_a_whole_number_serves_for_a_real_one(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(PLAN.to_toml().replace("refine_mu = 0.01", "refine_mu = 1"))
    assert Plan.read(tmp_path).refine_mu == 1
