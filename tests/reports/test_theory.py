"""The theory page: its counts, its bars, its figures, what stands in red, what is absent, and the README's part."""

import re
import sys
from xml.etree import ElementTree

import pytest

from benchmarks.records import append, make_record
from reports import __main__ as command
from reports import canvas, theory, theory_figures, theory_tables
from reports.generated import theory_part
from reports.load import load
from reports.page import page
from reports.render import bar, html
from reports.tables import Cell

SIDES = {
    "measured": 1.5,
    "bound": 2.0,
    "allowance": 1e-12,
    "applies": "",
    "examples": 100,
    "worst_case": "Case(seed=1)",
}


def claim(name="monotone", outcome="holds", title="Descent: one step.", **changes):
    told = {"claim": "F(x+) <= F(x)", "where": "Li, Lin 2015", "title": title, "statement": f"{name} never rises."}
    return make_record("claim", name=name, outcome=outcome, **{**SIDES, **told, **changes})


def mutation(name, killed_after, named=("monotone",)):
    return make_record("mutation", name=name, killed_after=killed_after, named=list(named), checks=3, examples=40)


def curve(figure, name, **changes):
    lines = {"x": [1.0, 2.0, 4.0], "y": [3.0, 1.0, None], "bound": [4.0, 4.0, 4.0], "bound_text": "D² / 4sn"}
    told = {"rises": 0, "least": 1.0, "rests_from": 5, "factor": 0.9}
    return make_record("theory-curve", figure=figure, name=name, **{**lines, **told, **changes})


def law(name):
    sides = {"y": [1.0, 0.5, 0.25], "error": [0.1, 0.05, 0.01], "fit": [1.0, 0.5, 0.25], "slope": -1.0}
    return curve("scaling", name, law=f"log risk over log {name}", **sides)


def recovery(method, success=((1.0, 0.9), (0.4, 0.0))):
    axes = {"undersampling": [0.5, 1.0], "sparsity": [0.3, 0.6]}
    return make_record("recovery", method=method, p=12, trials=10, success=success, **axes)


@pytest.fixture
def everything():
    """A record of every kind."""
    return [
        claim("monotone"),
        claim("small", measured=-1.0, bound=0.0),
        claim("elsewhere", "not applicable", title="Risk.", applies="step * L = 1.9 > 1"),
        *(curve("convex", name) for name in ("ISTA", "FISTA")),
        *(curve("safeguard", name, y=[3.0, 1.0, 0.0]) for name in ("IHT", "mAIHT")),
        *(curve("supports", name, y=[1.0, 2.0, 3.0]) for name in ("lam = 1",)),
        *(curve("local", name) for name in ("IHT",)),
        *(law(name) for name in "nk"),
        *(recovery(name) for name in ("IHT", "OMP")),
        mutation("maiht: no safeguard", {"monotone": 3, "clause": 1}),
        mutation("one-sided", {"small": 1}, ["small"]),
    ]


@pytest.fixture
def undrawn(monkeypatch):
    """Figures without their drawing, which takes most of the time."""
    monkeypatch.setattr(theory_figures, "svg", lambda name, *_: f"<svg><title>{name}</title></svg>")


@pytest.fixture
def run_build(monkeypatch, capsys):
    """Run `reports build`; exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["reports", "build", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            command.main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return run


def headings(text):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


SECTIONS = [
    *("Counts", "Claims", "Rates", "Safeguard", "Support", "Local rate", "Risk", "Recovery", "Planted defects"),
    "Provenance",
]


def test_the_page_tells_everything_in_its_order(undrawn, everything):
    text = page([], everything)
    assert headings(text) == SECTIONS
    assert re.findall(r"<h3>(.*?)</h3>", text) == ["Descent: one step", "Risk", "Provenance of the records"]
    assert "monotone never rises." in text
    assert "not applicable: step * L = 1.9 &gt; 1" in text
    assert "<summary>Planted defects (2)</summary>" in text
    assert 'role="alert"' not in text


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("claim", {"Claims"}),
        ("mutation", {"Planted defects"}),
        ("recovery", {"Recovery"}),
        ("theory-curve", {"Rates", "Safeguard", "Support", "Local rate", "Risk"}),
    ],
)
def test_what_was_not_measured_is_absent(undrawn, everything, kind, gone):
    text = page([], [record for record in everything if record["benchmark"] != kind])
    assert headings(text) == [title for title in SECTIONS if title not in gone]


def test_one_figure_that_is_missing_takes_only_its_section(undrawn, everything):
    text = page([], [record for record in everything if record.get("figure") != "local"])
    assert headings(text) == [title for title in SECTIONS if title != "Local rate"]


def test_the_theory_stands_beside_other_records_and_alone_names_the_page(undrawn, everything):
    assert "<h1>theory</h1>" in page([], everything)
    text = page([], [*everything, make_record("clock", seconds=0.5)])
    assert re.findall(r'<h2 class="chapter">(.*?)</h2>', text) == ["Theory", "Records"]
    assert headings(text).count("clock") == 1


def test_a_failing_claim_is_red_at_the_top_and_told_with_both_sides(undrawn, everything):
    text = page([], [*everything, claim("rate", "fails", measured=3.25), claim("slope", "inconclusive")])
    assert text.index("1 of 5 claims fail: rate.") < text.index("1 of 5 claims are inconclusive: slope.")
    assert text.index("claims are inconclusive") < text.index("<main>")
    assert text.count('role="alert"') == 2
    assert '<a href="#theory">' in text
    assert 'id="theory"' in text
    assert text.index("Claims that fail or stay undecided") < text.index("Descent: one step")
    assert '<td class="text fails">rate</td>' in text
    assert "3.250" in text


def test_a_surviving_defect_is_marked_everywhere(everything):
    records = [*everything, mutation("unseen", {"monotone": None})]
    assert [a["text"] for a in theory.alarms(records)] == ["1 of 3 planted defects survive: unseen."]
    drawn = theory_figures.mutants(theory.matrix(records))
    assert "Survivors: unseen." in drawn
    assert "#d55e00" in re.search(r"<text[^>]*>unseen<", drawn)[0].lower()
    rows = theory_tables.defects(records).rows
    assert [cell.mark for cell in rows[0]] == ["fails", "", "fails", ""]
    assert "Survivors: none." in theory_figures.mutants(theory.matrix(everything))


def test_bars_are_the_measured_share_of_the_bound():
    table = html(theory_tables.claims([claim(measured=1.5, bound=2.0), claim("b", measured=1e-3, bound=2.0)], "T"))
    widths = [float(width) for width in re.findall(r'<rect width="([\d.]+)" height="10"/>', table)]
    assert widths == [75.0, 0.05]
    assert "0.750" in table


@pytest.mark.parametrize(
    ("changes", "share"),
    [({"bound": 0.0}, None), ({"measured": None}, None), ({"measured": -1.0}, None), ({"measured": 9.0}, 4.5)],
)
def test_a_bar_stands_only_where_the_share_means_something_and_stays_in_its_frame(changes, share):
    (row,) = theory_tables.claims([claim(**changes)], "T").rows
    cell = next(cell for cell in row if cell.kind == "used")
    assert cell.value == share
    assert bar(cell) == (None if share is None else 100.0)
    assert bar(Cell(0.5, "real")) is None


def test_the_newest_record_of_a_claim_counts_and_counts_once(monkeypatch):
    old, new = claim("a", "fails"), {**claim("a"), "when": "2999-01-01T00:00:00+00:00"}
    assert [row["outcome"] for row in theory.claims([new, old])] == ["holds"]
    assert theory.alarms([new, old]) == []


def test_defects_are_ordered_by_the_check_that_is_named_for_them():
    records = [
        *(claim(name) for name in ("a", "b", "c")),
        mutation("meant for c", {"a": 1, "c": 2}, ["c"]),
        mutation("meant for a", {"a": 9, "clause": 1}, ["a"]),
        mutation("unseen", {"b": None}, ["b"]),
        mutation("noticed by chance", {"b": 1, "a": None}, ["a"]),
    ]
    found = theory.matrix(records)
    assert found.defects == ["unseen", "meant for a", "noticed by chance", "meant for c"]
    assert found.checks == ["a", "b", "c", "clause"]
    assert found.survivors == ["unseen"]
    assert found.kills == {
        ("meant for c", "a"): 1,
        ("meant for c", "c"): 2,
        ("meant for a", "a"): 9,
        ("meant for a", "clause"): 1,
        ("noticed by chance", "b"): 1,
    }


def test_the_matrix_draws_one_square_for_each_notice():
    kills = {"a": 1, "b": 3, "c": 7, "d": 30}
    drawn = theory_figures.mutants(theory.matrix([*(claim(name) for name in "abcd"), mutation("m", kills, ["a"])]))
    marks = [part.split("</g>", 1)[0].count("<use") for part in drawn.split('id="theory-mutants-PathCollection_')[1:]]
    assert marks[:4] == [1, 1, 1, 1]


def test_a_map_has_a_cell_for_every_share_and_a_contour_only_where_half_is_crossed(monkeypatch):
    seen = []
    monkeypatch.setattr(theory_figures, "svg", lambda name, title, told, draw, height: seen.append((told, draw)) or "")
    rows = [recovery("IHT"), recovery("OMP", ((1.0, 0.9), (0.8, 0.7)))]
    theory_figures.recovery(rows)
    figure = canvas.Figure()
    seen[0][1](figure)
    assert "IHT: 57.5% of all trials; OMP: 85.0% of all trials" in seen[0][0]
    first, second = figure.axes[:2]
    assert first.collections[0].get_array().tolist() == [[1.0, 0.9], [0.4, 0.0]]
    assert (len(first.collections), len(second.collections)) == (2, 1)


def test_figures_are_accessible_repeatable_and_share_no_id(everything):
    draw = {name: figure for name, (_, figure, _) in theory_figures.CURVES.items()}
    drawings = [figure(theory.curves(everything, name)) for name, figure in draw.items()]
    drawings += [theory_figures.recovery(theory.maps(everything)), theory_figures.mutants(theory.matrix(everything))]
    every = [name for svg in drawings for name in re.findall(r'\sid="([^"]*)"', svg)]
    assert len(every) == len(set(every))
    for svg in drawings:
        root = ElementTree.fromstring(svg)
        told = {element.get("id"): element.text for element in root if element.tag.endswith(("title", "desc"))}
        assert root.get("role") == "img"
        assert set(root.get("aria-labelledby").split()) == set(told)
        assert all(told.values())
        assert "data:image" not in svg
        assert "currentColor" in svg
    assert draw["convex"](theory.curves(everything, "convex")) == drawings[0]
    assert "ISTA uses at most 0.75 of its bound" in drawings[0]


def test_the_word_theory_is_the_packaged_file(undrawn, run_build, everything, monkeypatch, tmp_path):
    for record in everything:
        append(tmp_path / "kept" / "theory.jsonl", record)
    monkeypatch.setattr(command, "PACKAGED", tmp_path / "kept" / "theory.jsonl")
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_build("theory")
    assert (code, out.strip()) == (0, "theory.html")
    named = (tmp_path / "theory.html").read_text()
    code, out, _ = run_build(tmp_path / "kept" / "theory.jsonl", "--out", "b.html")
    assert code == 0
    assert (tmp_path / "b.html").read_text() == named
    assert "never rises" in named


def test_a_word_with_two_meanings_and_a_file_that_is_not_there_are_refused(run_build, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "PACKAGED", tmp_path / "none.jsonl")
    assert "python -m benchmarks run theory" in run_build("theory")[2]
    (tmp_path / "theory").mkdir()
    code, _, err = run_build("theory")
    assert code == 2
    assert "something of that name is here as well" in err
    assert [path.name for path in tmp_path.iterdir()] == ["theory"]


def test_the_readme_part_counts_claims_and_defects(tmp_path, everything):
    (tmp_path / "reports" / "reference").mkdir(parents=True)
    assert "No reference record of the theory" in theory_part(tmp_path)
    path = tmp_path / "reports" / "reference" / "theory.jsonl"
    for record in (*everything, claim("rate", "fails"), mutation("unseen", {"monotone": None})):
        append(path, record)
    header, _, row = theory_part(tmp_path).splitlines()
    told = dict(zip(header.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert told == {
        "claims": "4",
        "holds": "2",
        "fails": "1",
        "inconclusive": "0",
        "not applicable": "1",
        "largest share of a bound": "0.7500",
        "planted defects": "3",
        "survivors": "1",
    }


def test_the_readme_part_without_defects_has_gaps(tmp_path):
    append(tmp_path / "reports" / "reference" / "theory.jsonl", claim())
    assert theory_part(tmp_path).splitlines()[-1].endswith("| – | – |")


def test_the_packaged_records_make_a_page(undrawn):
    if not command.PACKAGED.is_file():
        pytest.skip("no reference records of the theory are committed")
    text = page(*load([command.PACKAGED]))
    assert headings(text) == SECTIONS
    assert 'role="alert"' not in text
