"""Which layers, methods and texts the layer benchmark takes, and what it refuses before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.layer_choice import block_numbers, choose
from benchmarks.layer_summary import told
from benchmarks.records import Record
from llm_pipeline import sources
from solvers.refusal import Refusal

Measured = Callable[..., Iterator[Record]]


def kind(found: list[Record], name: str) -> list[Record]:
    return [record for record in found if record["benchmark"] == name]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"text": None}, "8 held-out windows of 32 tokens are required; calibration.npy has 0"),
        ({"text": "none"}, "layers are judged on held-out text too"),
        ({"methods": ("maith",)}, "unknown method 'maith'"),
        ({"methods": ("maiht-released",), "sparsities": ("50%",)}, "maiht-released cannot meet"),
        ({"sparsities": ("3:7",)}, "3:7 needs an input dimension divisible by 7"),
        ({"blocks": "2:9"}, "--blocks is a:b with 0 <= a < b <= 3"),
        ({"blocks": "x"}, "--blocks is a:b"),
        ({"blocks": ""}, "--blocks is a:b"),
        ({"layers": " ,"}, "--layers is empty"),
        ({"layers": "q_porj"}, "Did you mean 'q_proj'"),
        ({"layers": "q_proj,("}, "'\\(' is no expression"),
        ({"swaps": "many"}, "swaps is the number of exchanges"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(options: dict[str, Any], says: str, measured: Measured) -> None:
    with pytest.raises(Refusal, match=says):
        next(measured(**options))


def test_layers_are_chosen_by_site_and_by_expression(measured: Measured) -> None:
    chosen = list(measured(layers=r"mlp middle, layers\.1\..*[qk]_proj"))
    names = [r["layer"].removeprefix("model.layers.").removesuffix(".weight") for r in kind(chosen, "layers")]
    middle = "mlp.down_proj"
    assert names == [f"0.{middle}", "1.self_attn.q_proj", "1.self_attn.k_proj", f"1.{middle}", f"2.{middle}"]


@pytest.mark.parametrize(("typed", "blocks"), [(None, [0, 1, 2, 3]), (":2", [0, 1]), ("3:", [3]), ("2", [2])])
def test_blocks_are_read_as_slices(typed: str | None, blocks: list[int]) -> None:
    assert list(block_numbers(typed, 4)) == blocks


def test_a_method_that_cannot_meet_a_pattern_is_skipped_with_its_reason(measured: Measured) -> None:
    options = {"methods": ("maiht-released", "wanda"), "sparsities": ("50%", "2:4"), "blocks": "0", "layers": "q_proj"}
    found = list(measured(**options))
    [refused] = kind(found, "layers-refused")
    assert found[0] == refused
    assert (refused["method"], refused["sparsity"], refused["layer"]) == ("maiht-released", "50%", None)
    assert "maiht-released cannot meet KeepPerRow" in refused["why"]
    done = [(r["method"], r["sparsity"]) for r in kind(found, "layers")]
    assert done == [("wanda", "50%"), ("maiht-released", "2:4"), ("wanda", "2:4")]
    assert "skipped maiht-released 50%: maiht-released cannot meet" in " ".join(map(str, told(found)))


def test_held_out_windows_are_none_of_the_calibration(measured: Measured, tiny_layers: Path) -> None:
    same = list(measured(calibration=f"{tiny_layers}/calibration.npy:4x32", text=None, blocks="0", layers="o_proj"))
    row = kind(same, "layers")[0]
    assert row["calibration"] == "calibration.npy:4x32, seed 0"
    assert row["held_out"] == "calibration.npy:4x32, seed 1"
    assert "4 of 4 sequences" in row["held_out_protocol"]
    assert "without those of the calibration" in row["held_out_protocol"]
    assert row["errors"]["found"]["calibration"] != row["errors"]["found"]["held_out"]


def test_a_spec_fills_in_hyper_parameters_and_its_own_swaps(tiny_layers: Path) -> None:
    model = sources.model(f"{tiny_layers}/tiny")
    plain, tuned = choose(model, ("maiht", "maiht:iters=7,ramp=0.5,swaps=all"), ("50%",), None, None).attempts
    assert (plain.swaps, tuned.swaps) == (None, "all")
    assert (plain.method.options()["iters"], tuned.method.options()["iters"]) == (100, 7)
    assert tuned.method.options()["ramp"] == 0.5
    assert tuned.method.promises == plain.method.promises


def test_only_the_spec_with_swaps_is_swapped(measured: Measured) -> None:
    found = kind(list(measured(methods=("wanda", "wanda:swaps=1"), blocks="0", layers="q_proj")), "layers")
    assert ["swapped" in record["errors"] for record in found] == [False, True]


@pytest.mark.parametrize("spec", ["maiht:refine=exact", "maiht:mu=0.2", "wanda:allocate=owl"])
def test_a_spec_that_would_measure_something_else_is_refused(spec: str, measured: Measured) -> None:
    with pytest.raises(Refusal, match="this benchmark measures every stage itself"):
        list(measured(methods=(spec,)))
