"""What a run recorded, and whether its records agree with each other.

    every pruned layer has one line in layers.jsonl, in the order of the data flow                                  (1)
    every outcome in certificates.jsonl follows from the two sides beside it                                        (2)
    summary.json counts and averages what these two files hold                                                      (3)
    README.md says what plan.toml and summary.json say                                                              (4)

What of the records the saved weights determine is computed again in `verify`; the rest is here held against itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_pipeline.card import model_card
from llm_pipeline.findings import Finding, exact, listed
from llm_pipeline.intact import RECORD
from llm_pipeline.journal import Journal
from llm_pipeline.plan import Plan
from solvers.refusal import Refusal
from theory_checks import Certificate

WHERE = ("engine", "stepped_down", "hidden_states", "judged_on", "machine")
NOT_REPEATED = ("perplexity", "seconds", "peak_memory_bytes", *WHERE)
BROKEN = (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError, IndexError)


@dataclass(frozen=True)
class Records:
    """The records of a run folder.

    Attributes
    ----------
    layers, certificates : the lines of layers.jsonl and certificates.jsonl
    summary : summary.json
    card : README.md
    """

    layers: list[dict[str, Any]]
    certificates: list[dict[str, Any]]
    summary: dict[str, Any]
    card: str

    @classmethod
    def read(cls, folder: Path) -> Records:
        """The records of a finished run; refused where one is missing or is not what it should be."""
        layers = _lines(folder, "layers.jsonl", ("layer", "sha256", "objective"))
        certificates = _lines(folder, "certificates.jsonl", ("layer", "claim", "measured", "bound", "outcome"))
        text = {name: _text(folder, name) for name in ("summary.json", "README.md")}
        try:
            summary = json.loads(text["summary.json"])
            summary.keys()
        except BROKEN as error:
            raise _unreadable(folder, "summary.json", error) from error
        return cls(layers, certificates, summary, text["README.md"])

    def row(self, layer: str) -> dict[str, Any] | None:
        """The line of a layer."""
        return next((row for row in self.layers if row["layer"] == layer), None)

    def certificate(self, layer: str, claim: str) -> dict[str, Any] | None:
        """The line of a claim about a layer."""
        lines = self.certificates
        return next((line for line in lines if (line["layer"], line["claim"]) == (layer, claim)), None)


def agreeing(plan: Plan, records: Records, names: list[str]) -> Iterator[Finding]:
    """Statements (1) to (4) about the records of a run that pruned the layers `names`."""
    rows = [row["layer"] for row in records.layers]
    odd = sorted(set(rows) ^ set(names)) or [name for name, row in zip(names, rows, strict=False) if name != row]
    said = f"{len(rows)} lines for {len(names)} layers; {listed(odd)}" if rows != names else ""
    yield exact("layers.jsonl", "complete", "every pruned layer has one line, in order", RECORD, said)
    wrong = [said for n, line in enumerate(records.certificates, 1) if (said := _misjudged(n, line))]
    claim = "every recorded outcome follows from the numbers beside it"
    yield exact("certificates.jsonl", "outcomes", claim, RECORD, listed(wrong))
    claim = "the summary counts and averages the lines of the other records"
    yield exact("summary.json", "summary", claim, RECORD, listed(_unlike(plan, records)))
    yield exact("README.md", "card", "the model card says what the summary says", RECORD, _other_card(plan, records))


def certificate(line: dict[str, Any]) -> Certificate:
    """The certificate that a line of certificates.jsonl holds."""
    numbers = (float(line[key]) for key in ("measured", "bound", "allowance"))
    words = {"applies": line["because"], "inconclusive": line.get("inconclusive", "")}
    return Certificate(line["claim"], line["statement"], line["where"], *numbers, **words)


def _misjudged(number: int, line: dict[str, Any]) -> str:
    try:
        outcome = certificate(line).outcome
    except BROKEN as error:
        return f"line {number} is no certificate ({type(error).__name__}: {error})"
    told = f"line {number}, {line['claim']} of {line['layer']}"
    return "" if outcome == line["outcome"] else f"{told}: {line['outcome']} recorded, its numbers say {outcome}"


def _unlike(plan: Plan, records: Records) -> list[str]:
    """The keys of summary.json that the other records do not bear out."""
    try:
        again = _summed(plan, records)
    except BROKEN as error:
        return [f"the other records cannot be summed up ({type(error).__name__}: {error})"]
    told = {key: json.dumps(records.summary.get(key)) for key in again}
    keys = [key for key, value in again.items() if told[key] != json.dumps(value)]
    return [f"{key} is {told[key]:.60}, the other records say {json.dumps(again[key]):.60}" for key in keys]


def _summed(plan: Plan, records: Records) -> dict[str, Any]:
    journal, failing = Journal(plan), [line for line in records.certificates if line["outcome"] == "fails"]
    told = {"layers": records.layers, "certificates": records.certificates}
    block = {**told, "seconds": {}, "peak_memory_bytes": 0, "steps": []}
    journal.restore({**block, "failures": [f"{line['layer']}: {certificate(line)}" for line in failing]})
    found = journal.summary(None, "")
    return {key: value for key, value in found.items() if key not in NOT_REPEATED}


def _other_card(plan: Plan, records: Records) -> str:
    try:
        expected = model_card(plan, records.summary).splitlines()
    except BROKEN as error:
        return f"the summary does not serve for a card ({type(error).__name__}: {error})"
    found = records.card.splitlines()
    pairs = zip(found + [""] * len(expected), expected + [""] * len(found), strict=True)
    first = next(((n, a, b) for n, (a, b) in enumerate(pairs, 1) if a != b), None)
    return f"line {first[0]} reads {first[1]!r:.90}, not {first[2]!r:.90}" if first else ""


def _lines(folder: Path, name: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    lines = _text(folder, name).splitlines()
    try:
        rows = [json.loads(line) for line in lines]
        for row in rows:
            for key in keys:
                _ = row[key]
            for key in {"objective", "measured", "bound"} & set(keys):
                row[key] = float(row[key])
    except BROKEN as error:
        raise _unreadable(folder, name, error) from error
    return rows


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(folder, name, error) from error


def _unreadable(folder: Path, name: str, error: Exception) -> Refusal:
    return Refusal(
        f"a run folder holds a readable {name}; {folder} does not ({type(error).__name__}: {error}). "
        "Give the --out folder of a finished run."
    )
