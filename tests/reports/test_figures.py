"""What the figures draw, as numbers; then their SVG: the same bytes, accessible, self-contained."""

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import pytest

from reports import curves, figures
from reports.load import load, load_run
from reports.protocols import perplexities

PER_RUN = (figures.objective, figures.nonzeros, figures.outcomes)
PER_RUNS = (figures.layer_errors, figures.seconds)


def all_figures(runs):
    drawn = [draw(runs[0]) for draw in PER_RUN] + [draw(runs) for draw in PER_RUNS]
    return [*drawn, figures.perplexity([row for run in runs for row in perplexities(run)])]


@pytest.fixture
def runs(write_run):
    folders = [write_run("a", failing="monotone"), write_run("b", method="wanda", traced=False, error=0.02)]
    return load(folders)[0]


def test_two_builds_give_the_same_bytes(runs):
    first = all_figures(runs)
    with matplotlib.rc_context({"lines.markersize": 30, "axes.linewidth": 5, "svg.hashsalt": "other"}):
        assert all_figures(runs) == first


def test_drawing_leaves_the_settings_of_matplotlib_alone(runs):
    before = dict(matplotlib.rcParams)
    figures.seconds(runs)
    assert dict(matplotlib.rcParams) == before


def test_figures_are_accessible_reach_for_nothing_and_share_no_id(runs):
    drawn = [*all_figures(runs), figures.outcomes(runs[1]), figures.seconds(runs[1:])]
    every = [name for svg in drawn for name in re.findall(r'\sid="([^"]*)"', svg)]
    assert len(every) == len(set(every))
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        told = {element.get("id"): element.text for element in root if element.tag.endswith(("title", "desc"))}
        assert set(root.get("aria-labelledby").split()) == set(told)
        assert all(told.values())
        assert "<metadata" not in svg
        assert figures.INK not in svg
        own = set(re.findall(r'\sid="([^"]*)"', svg))
        assert {"#" + name for name in own} >= set(re.findall(r'(?:url\(|href=")([^")]*)', svg))


def test_text_stays_text(runs):
    svg = figures.perplexity([row for run in runs for row in perplexities(run)])
    assert "maiht 50%" in svg.split("</desc>")[1]
    assert "maiht 50%: 14.25" in svg.split("</desc>")[0]


def test_errors_are_grouped_by_site_and_named_by_run_or_layer(runs):
    assert curves.sites(runs) == ["attention input", "attention output", "MLP input", "MLP middle"]
    assert curves.errors(runs[:1], "MLP input") == {
        "gate_proj": [(0, 0.05), (1, 0.1)],
        "up_proj": [(0, 0.06), (1, 0.12)],
    }
    assert curves.errors(runs, "MLP middle") == {
        "maiht 50%": [(0, 0.07), (1, 0.14)],
        "wanda 50%": [(0, 0.14), (1, 0.28)],
    }


def test_curves_hold_the_trace_with_gaps_and_stages(runs):
    shown = curves.curves(runs[0])
    assert [curve.layer for curve in shown] == [runs[0].layers[index]["layer"] for index in (0, 6, 13)]
    first = shown[0]
    assert first.objective == runs[0].layers[0]["trace"]["objective"]
    assert math.isnan(first.plain[0])
    assert first.kept[0] == 1.0
    assert first.stages == [8, 16]
    assert curves.curves(runs[1]) == []


def test_the_layer_with_the_largest_error_is_among_the_curves(write_run):
    run = load_run(write_run("a"))
    run.layers[4]["relative_error"] = 9.0
    assert run.layers[4]["layer"] in [curve.layer for curve in curves.curves(run)]


def test_values_that_are_not_positive_leave_gaps_and_narrow_ranges_keep_ticks(runs):
    trace = runs[0].layers[0]["trace"]
    trace["objective"] = [0.0, math.inf, *(1.0 + 0.01 * step for step in range(20))]
    trace["plain"] = None
    svg = figures.objective(runs[0])
    assert len(re.findall(r">1\.[01]\d*<", svg)) >= 3
    assert "mathdefault" not in svg


def test_a_level_that_always_moves_marks_no_stage():
    assert curves.stages([3, 3, 2, 2]) == [2]
    assert curves.stages(list(range(50))) == []
    assert curves.stages([]) == []


def test_neighbouring_outcomes_join_and_the_worst_speaks(runs):
    claims, layers, bands = curves.outcome_bands(runs[0])
    assert (len(claims), len(layers)) == (3, 14)
    assert [band for band in bands if band.claim == 0] == [curves.Band(0, "holds", 0, 14)]
    assert curves.Band(1, "fails", 2, 1) in bands
    assert sum(band.width for band in bands) == 42
    runs[0].certificates.append({**runs[0].certificates[0], "outcome": "fails"})
    assert curves.Band(0, "fails", 0, 1) in curves.outcome_bands(runs[0])[2]


def test_a_claim_that_was_not_evaluated_leaves_a_gap(runs):
    del runs[0].certificates[3]  # the first claim on the second layer
    bands = [band for band in curves.outcome_bands(runs[0])[2] if band.claim == 0]
    assert bands == [curves.Band(0, "holds", 0, 1), curves.Band(0, "holds", 2, 12)]


def test_blocks_start_where_their_first_layer_stands(runs):
    assert curves.block_starts(runs[0]) == {0: 0, 1: 7}


def test_one_point_per_layer_is_drawn(runs):
    def points(svg):  # markers are filled with the colour of their series, ticks are not
        return len(re.findall(r"<use [^>]*fill: #(?!80808)", svg))

    assert points(figures.layer_errors(runs[:1])) == 14 + 7  # and a marker for each layer name of the legend
    fewer = replace(runs[0], layers=runs[0].layers[:7])
    assert points(figures.layer_errors([fewer])) == 7 + 7


def test_perplexities_far_apart_get_a_log_scale(write_run):
    def ticks(worst):
        rows = perplexities(replace_perplexity(load_run(folder), worst))
        return re.findall(r">([\d.]+)</text>", figures.perplexity(rows))

    folder = write_run("a")
    assert "1000" in ticks(9000.0)
    assert "1000" not in ticks(14.0)


def replace_perplexity(run, value):
    run.summary["perplexity"]["pruned"] = {"perplexity": value, "nll": 9.0, "interval": None}
    return run


def test_names_are_not_read_as_mathematics_or_markup(write_run):
    svg = figures.seconds([load_run(write_run("a", method="m$x_1$<b>"))])
    assert "m$x_1$&lt;b&gt;" in svg
    ElementTree.fromstring(svg)
