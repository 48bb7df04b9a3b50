"""The README's generated parts: rebuilt from records, compared, rewritten."""

import sys
from datetime import datetime, timedelta

import pytest

from benchmarks.records import append, make_record
from reports import __main__ as command
from reports.generated import LONGEST, commands_part, predictions_part, rebuilt, repository
from reports.tree import first_sentence, tree
from solvers.refusal import Refusal

README = """\
# Title

<!-- generated: tree -->
<!-- end -->

Words.

<!-- generated: results -->
old
<!-- end -->

The end.
"""


@pytest.fixture
def checkout(tmp_path):
    """A repository in small."""
    (tmp_path / "solvers" / "gpu").mkdir(parents=True)
    (tmp_path / "solvers" / "__pycache__").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "reports" / "reference").mkdir(parents=True)
    (tmp_path / ".venv").mkdir()
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "note.txt").write_text("")
    (tmp_path / "solvers" / "__init__.py").write_text('"""The methods. And more."""\n')
    (tmp_path / "solvers" / "maiht.py").write_text('"""Monotone steps\nover supports.\n\nMore."""\n')
    (tmp_path / "solvers" / "gpu" / "maiht.py").write_text('"""Fast twin."""\n')
    (tmp_path / "solvers" / "__pycache__" / "maiht.py").write_text('"""No."""\n')
    (tmp_path / "runs" / "a.py").write_text('"""No."""\n')
    return tmp_path


@pytest.fixture
def run_check(monkeypatch, capsys, checkout):
    """Run `reports check` on the small repository; exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(command, "repository", lambda: checkout)
        monkeypatch.setattr(sys, "argv", ["reports", "check", *arguments])
        with pytest.raises(SystemExit) as left:
            command.main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return run


def test_the_tree_names_every_file_with_its_first_sentence(checkout):
    assert tree(checkout).splitlines() == [
        "README.md       this page",
        "pyproject.toml  package, extras, linters, import contracts",
        "solvers/        The methods",
        "  maiht.py      Monotone steps over supports",
        "  gpu/",
        "    maiht.py    Fast twin",
        "reports/        the pages",
    ]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("One. Two.", "One"),
        ("After Li & Lin 2015, Thm. 1, for c. 30 lines. Next.", "After Li & Lin 2015, Thm. 1, for c. 30 lines"),
        ("A title\n\nA paragraph.", "A title"),
        ("", ""),
    ],
)
def test_the_first_sentence_ends_before_a_capital(tmp_path, told, sentence):
    (tmp_path / "a.py").write_text(f'"""{told}"""\n')
    assert first_sentence(tmp_path / "a.py") == sentence


def test_a_file_that_is_not_python_is_named(tmp_path):
    (tmp_path / "a.py").write_text("x = \n")
    with pytest.raises(Refusal, match=r"a\.py, line 1 is not Python"):
        first_sentence(tmp_path / "a.py")


def test_check_names_what_differs_then_write_mends_it(run_check, checkout):
    code, out, _ = run_check()
    assert code == 1
    assert "part 'tree' differs" in out
    assert "part 'results' differs" in out
    assert run_check("--write")[0] == 0
    assert run_check()[0] == 0
    text = (checkout / "README.md").read_text()
    assert "  maiht.py      Monotone steps" in text
    assert "No reference record" in text
    assert text.startswith("# Title\n")
    assert text.endswith("The end.\n")
    assert "Words." in text


def test_a_new_file_makes_the_tree_differ_and_only_it(run_check, checkout):
    run_check("--write")
    (checkout / "solvers" / "iht.py").write_text('"""Plain steps."""\n')
    code, out, _ = run_check()
    assert code == 1
    assert "'tree'" in out
    assert "'results'" not in out


def test_a_number_typed_by_hand_is_found(run_check, checkout, perplexity_fact):
    path = checkout / "reports" / "reference" / "llm.jsonl"
    for fact in (perplexity_fact("dense", 12.0), perplexity_fact("maiht", 13.0)):
        append(path, make_record("perplexity", **fact))
    run_check("--write")
    readme = checkout / "README.md"
    assert "| tiny | 50% | 12.00 [11.50, 12.50] | 13.00 [12.50, 13.50] |" in readme.read_text()
    assert "Protocol windows-256" in readme.read_text()
    readme.write_text(readme.read_text().replace("| 13.00 [", "| 11.00 ["))
    code, out, _ = run_check()
    assert code == 1
    assert "'results'" in out
    assert "'tree'" not in out


def test_two_protocols_become_two_tables(checkout, perplexity_fact):
    path = checkout / "reports" / "reference" / "llm.jsonl"
    for protocol in ("windows-256", "words"):
        append(path, make_record("perplexity", **perplexity_fact("maiht", 13.0, protocol=protocol)))
    text, _ = rebuilt(README, checkout)
    assert text.count("| model | sparsity |") == 2


@pytest.mark.parametrize(
    ("page", "wording"),
    [
        ("# Nothing\n", "0 opened, 0 closed"),
        ("<!-- generated: tree -->\n", "1 opened, 0 closed"),
        ("<!-- generated: tree -->\nWords.\n<!-- generated: results -->\n<!-- end -->\n", "2 opened, 1 closed"),
        ("<!-- generated: trees -->\n<!-- end -->\n", "no generated part is called 'trees'; known: tree, results"),
    ],
)
def test_a_page_without_sound_parts_is_refused(run_check, checkout, page, wording):
    (checkout / "README.md").write_text(page)
    code, _, err = run_check()
    assert code == 2
    assert wording in err


def test_the_repository_is_where_the_packages_stand():
    assert (repository() / "reports" / "generated.py").is_file()


def test_the_tree_of_this_repository_tells_of_every_module():
    lines = tree(repository()).splitlines()
    assert any(line.startswith("  generated.py ") for line in lines)


def _command(checkout, number, line, output):
    record = make_record("command", number=number, line=line, exit=0, output=output, seconds=1.0)
    append(checkout / "reports" / "reference" / "commands.jsonl", record)


def test_commands_stand_in_their_order_with_the_newest_output(checkout, monkeypatch):
    _command(checkout, 2, "python -m b", "two")
    _command(checkout, 1, "python -m a", "old")
    monkeypatch.setattr("benchmarks.records.datetime", _Later)
    _command(checkout, 1, "python -m a", "one")
    assert commands_part(checkout) == "```console\n$ python -m a\none\n```\n\n```console\n$ python -m b\ntwo\n```"


def test_a_long_output_keeps_its_ends_and_says_how_much_is_left_out(checkout):
    _command(checkout, 1, "python -m a", "\n".join(map(str, range(LONGEST + 10))))
    shown = commands_part(checkout).splitlines()[2:-1]
    kept = [int(line) for line in shown if line.isdigit()]
    assert kept[0] == 0
    assert kept[-1] == LONGEST + 9
    assert f"[{LONGEST + 10 - len(kept)} lines more]" in shown


class _Later(datetime):
    @classmethod
    def now(cls, zone=None):
        return datetime.now(zone) + timedelta(days=1)


def test_predictions_are_the_planners_of_the_same_command(monkeypatch):
    """A row of the README is what `--dry-run --as-if` says; where the host judges or a GPU is too small, it says so."""
    from llm_pipeline.dry_run import dry_run, duration
    from reports import prediction_table

    found = dry_run("llama-7b", calibration="x:128x2048", method="maiht", settings={"iters": "50"}, as_if="h100")
    told = predictions_part(repository())
    [row] = [line for line in told.splitlines() if line.startswith("| llama-7b | maiht, 50 steps | H100")]
    assert f"| {duration(sum(found['seconds'].values()))} | {duration(found['seconds']['calibrate'])} |" in row
    small = {**found, "judged_on": "cpu", "fits": False}
    monkeypatch.setattr(prediction_table, "dry_run", lambda *words, **options: small)
    assert "host" not in told.splitlines()[2]
    assert all(", host |" in line and ", does not fit |" in line for line in predictions_part(None).splitlines()[2:])
