"""Records: provenance, ids that bind the contents, refusals that name file and line."""

import json
import os
import platform

import numpy as np
import pytest

from benchmarks import records
from solvers.refusal import Refusal


def test_a_record_carries_its_provenance():
    record = records.make_record("clock", method="maiht", seconds=0.25)
    assert record["schema"] == 1
    assert set(records.PROVENANCE) <= set(record)
    assert (record["benchmark"], record["method"], record["seconds"]) == ("clock", "maiht", 0.25)
    assert record["when"].endswith("+00:00")
    assert record["versions"]["numpy"] == np.__version__
    assert record["machine"]["cores"] >= 1


def test_the_record_names_no_host_and_no_path():
    text = json.dumps(records.make_record("clock"))
    assert os.getcwd() not in text
    assert platform.node() not in text


def test_the_id_is_the_fingerprint_of_the_rest():
    record = records.make_record("clock", seconds=0.25)
    assert len(record["id"]) == 12
    assert record["id"] == records.fingerprint(record)
    assert records.fingerprint({**record, "seconds": 0.26}) != record["id"]
    assert records.fingerprint(dict(reversed(record.items()))) == record["id"]


def test_numpy_values_become_plain():
    record = records.make_record("curve", error=np.float64(0.5), kept=np.arange(2), pair=(1, 2))
    assert (record["error"], record["kept"], record["pair"]) == (0.5, [0, 1], [1, 2])


@pytest.mark.parametrize("value", [float("nan"), np.inf, object()])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(Refusal, match="finite numbers"):
        records.make_record("clock", value=value)


def test_a_fact_may_not_pose_as_provenance():
    with pytest.raises(Refusal, match="sets when itself"):
        records.make_record("clock", when="yesterday")


def test_append_then_read_gives_the_same_records(tmp_path):
    made = [records.make_record("clock", run=index, x=0.1 + index) for index in range(3)]
    for record in made:
        records.append(tmp_path / "deep" / "a.jsonl", record)
    assert records.read([tmp_path / "deep" / "a.jsonl"]) == made
    assert (tmp_path / "deep" / "a.jsonl").read_text().count("\n") == 3


def test_a_record_met_twice_counts_once(tmp_path):
    record = records.make_record("clock")
    for name in ("a.jsonl", "b.jsonl"):
        records.append(tmp_path / name, record)
    assert records.read([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]) == [record]


def test_an_edited_number_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    records.append(path, records.make_record("clock", seconds=0.25))
    path.write_text(path.read_text().replace("0.25", "0.20"))
    with pytest.raises(Refusal, match=r"a\.jsonl, line 1: id \w{12} does not match"):
        records.read([path])


def test_a_torn_line_is_named_and_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"schema":1,"ben')
    records.append(path, records.make_record("clock"))
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(Refusal, match=r"a\.jsonl, line 1 is not JSON"):
        records.read([path])


@pytest.mark.parametrize(
    ("line", "wording"),
    [
        ("[1]", "a record is a JSON object"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": 1}', "lacks id, benchmark"),
    ],
)
def test_other_lines_are_refused_by_file_and_line(tmp_path, line, wording):
    path = tmp_path / "a.jsonl"
    records.append(path, records.make_record("clock"))
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(Refusal, match=rf"a\.jsonl, line 3: .*{wording}"):
        records.read([path])


def test_an_unknown_record_is_not_appended(tmp_path):
    with pytest.raises(Refusal, match="the record to append"):
        records.append(tmp_path / "a.jsonl", {"schema": 1, "seconds": 3})
    assert not (tmp_path / "a.jsonl").exists()


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(Refusal, match=r"no record file none\.jsonl"):
        records.read([tmp_path / "none.jsonl"])


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    assert records._commit(tmp_path) is None


def test_the_commit_says_when_the_tree_differs_from_it(tmp_path):
    def git(*arguments):
        return records._git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", *arguments)

    git("init")
    (tmp_path / "pyproject.toml").write_text("")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "--short", "HEAD")
    assert head
    assert records._commit(tmp_path) == head
    (tmp_path / "measured.jsonl").write_text("{}\n")
    assert records._commit(tmp_path) == head
    (tmp_path / "new.py").write_text("")
    assert records._commit(tmp_path) == f"{head}+dirty"
