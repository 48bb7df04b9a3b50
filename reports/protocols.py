"""Perplexities with their protocols: numbers of two protocols never meet in one column."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.seeds import student
from reports.load import Row, Run, method_label
from solvers.refusal import Refusal

MEASUREMENT = ("model", "method", "sparsity", "perplexity", "protocol", "text_sha256", "tokenizer_sha256")


def perplexities(run: Run) -> list[Row]:
    """The run's perplexities, dense and pruned, as rows like those of perplexity records; none if not evaluated."""
    measured = run.summary["perplexity"]
    if measured is None:
        return []
    place = run.source("summary.json: perplexity")
    shared = {key: value for key, value in measured.items() if not isinstance(value, dict)}
    shared |= {"model": run.summary["model"]}
    rows = [
        {**shared, "method": "dense", "sparsity": "0%", "source": f"{place}.dense", **measured["dense"]},
        {
            **shared,
            "method": method_label(run.summary, run.plan),
            "sparsity": run.summary["sparsity_asked"],
            "source": f"{place}.pruned",
            **measured["pruned"],
        },
    ]
    return [_measurement(row) for row in rows]


def perplexity_records(rows: Sequence[Row]) -> list[Row]:
    """The records of the benchmark ``perplexity``, their methods written as specs."""
    found = [row for row in rows if row["benchmark"] == "perplexity"]
    named = [_measurement({**row, "source": f"record {row['id']}"}) for row in found]
    return [{**row, "method": method_label(row)} for row in named]


def over_seeds(rows: Iterable[Row]) -> list[Row]:
    """A row per model, method and sparsity: the mean over calibration seeds, of the newest measurement of each seed.

    Several seeds have the Student interval of their mean over draws, a single one keeps its own over windows; ``seeds``
    names them. Records of before seeds were recorded count as seed 0.
    """
    newest = {(*place(row), row.get("seed", 0)): row for row in sorted(rows, key=lambda row: row.get("when", ""))}
    groups: dict[tuple[str, ...], dict[int, Row]] = {}
    for (*key, seed), row in newest.items():
        groups.setdefault(tuple(key), {})[seed] = row
    return [_mean(dict(sorted(group.items()))) for group in groups.values()]


def place(row: Row) -> tuple[str, ...]:
    """The cell of a perplexity: model, method and sparsity; a dense model has but one."""
    return (row["model"], "dense", "0%") if row["method"] == "dense" else (row["model"], row["method"], row["sparsity"])


def _mean(seeds: dict[int, Row]) -> Row:
    rows = list(seeds.values())
    found = {**rows[0], "seeds": list(seeds)}
    if len(rows) == 1:
        return found
    values = [row["perplexity"] for row in rows]
    sources = "; ".join(row["source"] for row in rows)
    return {**found, "perplexity": fmean(values), "interval": student(values), "source": sources}


def protocol(row: Row) -> tuple[Any, ...]:
    """What two perplexities must share to stand in one column."""
    return (row["protocol"], row["text_sha256"], row["tokenizer_sha256"], row.get("windows"))


def one_protocol(rows: Iterable[Row]) -> None:
    """Refuse rows of different protocols, naming both.

    Parameters
    ----------
    rows : iterable of dict
        Perplexities, from runs or records.
    """
    rows = list(rows)
    for row in rows[1:]:
        if protocol(row) != protocol(rows[0]):
            raise Refusal(
                "perplexities of two protocols do not go into one column:\n"
                f"  {_spell(rows[0])}\n  {_spell(row)}\n"
                "Build a page for each, or evaluate both under one protocol."
            )


def by_protocol(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows in groups that may share a column, each in its order."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(protocol(row), []).append(row)
    return list(groups.values())


def _spell(row: Row) -> str:
    name, text, tokenizer, windows = protocol(row)
    return (
        f"{row['source']}: protocol {name}, text {str(text)[:12]}, tokenizer {str(tokenizer)[:12]}, windows {windows}"
    )


def _measurement(row: Row) -> Row:
    absent = [key for key in MEASUREMENT if key not in row]
    if absent:
        raise Refusal(f"{row['source']}: a perplexity is nothing without {', '.join(absent)}.")
    low, high = row.get("interval") or (row["perplexity"], row["perplexity"])
    if row["perplexity"] is not None and not low <= row["perplexity"] <= high:
        raise Refusal(
            f"{row['source']}: perplexity {row['perplexity']} lies outside its interval [{low}, {high}]. "
            "Usually the interval is that of the nll; it must be that of the perplexity."
        )
    return row
