"""The command that builds a page: where it is written, in which order it tells, what it refuses."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks.records import append, make_record
from reports import __main__ as command
from reports import figures
from reports.load import load
from reports.page import alarms, page


@pytest.fixture
def run_command(monkeypatch, capsys):
    """Run the command line in this process; exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["reports", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            command.main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Figures without their drawing, which takes most of the time."""
    monkeypatch.setattr(figures, "_svg", lambda name, *_: f"<svg><title>{name}</title></svg>")


def headings(text):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


def test_a_run_gets_its_page_beside_it(run_command, write_run):
    folder = write_run("first")
    code, out, _ = run_command("build", folder)
    assert (code, out.strip()) == (0, str(folder / "report.html"))
    text = (folder / "report.html").read_text()
    assert headings(text) == ["What was asked", "Result", "Certificates", "Layers", "Cost", "Provenance"]
    assert text.count("<svg") == 5
    assert "14.25 [13.75, 14.75]" in text
    assert 'role="alert"' not in text
    assert not list(folder.glob("*.partial"))


def test_json_prints_one_document(undrawn, run_command, write_run):
    folder = write_run("first")
    _, out, _ = run_command("build", folder, "--json")
    assert json.loads(out) == {"written": str(folder / "report.html")}


def test_the_page_is_self_contained_and_names_no_machine_path(write_run, tmp_path):
    runs, records = load([write_run(name, method=name, blocks=1, traced=False) for name in ("maiht", "wanda")])
    text = page(runs, records)
    ids = re.findall(r'\sid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert re.findall(r"<(?:script|link|img|iframe)\b|@import|url\((?!#)", text) == []
    assert set(re.findall(r'\b(?:src|href)="([^#][^"]*)"', text)) == set()
    assert str(tmp_path) not in text


def test_two_builds_give_the_same_bytes(undrawn, write_run):
    folders = [write_run("a"), write_run("b", failing="monotone")]
    assert page(*load(folders)) == page(*load(folders))


def test_several_runs_begin_with_their_comparison(undrawn, run_command, write_run, tmp_path):
    code, out, _ = run_command("build", write_run("a"), write_run("b", method="wanda"))
    assert (code, out.strip()) == (0, str(tmp_path / "report.html"))
    text = (tmp_path / "report.html").read_text()
    chapters = re.findall(r'<h2 class="chapter">(.*?)</h2>', text)
    assert chapters == ["Comparison", "maiht 50%", "wanda 50%"]


def test_a_failing_certificate_is_red_at_the_top(undrawn, write_run):
    runs, _ = load([write_run("bad", failing="monotone")])
    text = page(runs)
    assert text.index("1 of 42 certificates fail: monotone.") < text.index("What was asked")
    assert text.index("Certificates that fail") < text.index("Certificates by claim")
    assert '<td class="text fails">monotone</td>' in text


def test_counts_that_contradict_each_other_are_an_alarm(write_run):
    folder = write_run("bad")
    assert alarms(load([folder])[0]) == []
    path = folder / "summary.json"
    path.write_text(path.read_text().replace('"holds": 37', '"holds": 42'))
    assert "summary.json counts" in alarms(load([folder])[0])[0]["text"]


def test_a_one_shot_run_without_perplexity_still_gets_a_page(undrawn, write_run):
    text = page(load([write_run("a", traced=False, perplexity=None)])[0])
    assert "Perplexity was not evaluated in this run." in text
    assert text.count("<svg") == 3


def test_a_run_without_certificates_says_so(undrawn, write_run):
    folder = write_run("a")
    (folder / "certificates.jsonl").write_text("")
    assert "No claim was evaluated in this run." in page(load([folder])[0])


def test_what_a_run_says_is_escaped(undrawn, write_run):
    text = page(load([write_run("a", method="<script>x</script>")])[0])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_records_get_a_page_a_table_per_protocol(undrawn, run_command, perplexity_fact, tmp_path):
    path = tmp_path / "measured.jsonl"
    for fact in (perplexity_fact("dense", 12.0), perplexity_fact("maiht", 13.0), perplexity_fact("maiht", 99.0)):
        append(path, make_record("perplexity", **fact))
    append(path, make_record("perplexity", **perplexity_fact("maiht", 55.0, protocol="words")))
    append(path, make_record("clock", method="maiht", seconds=0.5))
    code, out, _ = run_command("build", path)
    assert (code, out.strip()) == (0, str(tmp_path / "report.html"))
    text = (tmp_path / "report.html").read_text()
    assert headings(text) == [
        "Perplexity, protocol windows-256",
        "Perplexity, protocol words",
        "clock",
        "Provenance",
    ]


def test_a_dense_model_alone_has_a_table_and_no_comparison(perplexity_fact):
    text = page([], [make_record("perplexity", **perplexity_fact("dense", 12.0))])
    assert "12.00 [11.50, 12.50]" in text
    assert "<svg" not in text


@pytest.mark.parametrize("lack", ["plan.toml", "summary.json"])
def test_a_broken_run_is_refused_with_nothing_written(run_command, write_run, lack):
    folder = write_run("first")
    (folder / lack).unlink()
    code, out, err = run_command("build", folder)
    assert (code, out) == (2, "")
    assert lack in err
    assert not (folder / "report.html").exists()


def test_two_protocols_are_refused_by_the_command(undrawn, run_command, write_run):
    code, _, err = run_command("build", write_run("a"), write_run("b", protocol="words"))
    assert code == 2
    assert "windows-256" in err
    assert "words" in err


def test_an_empty_record_file_is_refused(run_command, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    code, _, err = run_command("build", tmp_path / "none.jsonl")
    assert code == 2
    assert "nothing to tell" in err


def test_out_chooses_the_place(undrawn, run_command, write_run, tmp_path):
    code, _, _ = run_command("build", write_run("a"), "--out", tmp_path / "deep" / "p.html")
    assert code == 0
    assert (tmp_path / "deep" / "p.html").exists()


def test_bad_usage_leaves_with_two(run_command):
    assert run_command("build")[0] == 2


def test_the_module_runs_and_keeps_matplotlib_out_of_the_check():
    told = "import sys, reports.__main__; print('matplotlib' in sys.modules, 'jinja2' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]
