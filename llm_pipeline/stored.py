"""Stored tensors judged again: bits, patterns, and the values of a pruned layer on what it sees.

With W the saved weights, f the layer's objective on the Gram that was measured again, u the unit roundoff of float32:

    |f(W) - recorded| <= a,   a = allowance of a float32 sum of n terms at the magnitude of f(W)                     (1)
    |f(W)/f(0) - recorded| <= (a + (f(W)/f(0)) a0) / (f(0) - a0),   a0 that of f(0)                                  (2)
    both sides of a certificate differ from the recorded ones by at most the allowance 2 a' of its own objective    (3)

In (3) the weights are divided by the inputs' norms, which were measured again as well, hence the factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import solvers
from llm_pipeline import recorded
from llm_pipeline.checkpoint import Checkpoint, digest
from llm_pipeline.evidence import Inputs
from llm_pipeline.families import Site
from llm_pipeline.findings import Finding, exact, listed
from llm_pipeline.intact import RECORD, SOURCE
from llm_pipeline.layer import dense_weight, judge_saved
from llm_pipeline.plan import Plan
from llm_pipeline.recorded import Records
from solvers.problem import LayerProblem
from solvers.sparsity import Budget
from theory_checks import Certificate, allowance, one_swap_again
from theory_checks.support import exact_count

DIGESTS = "the saved weights are those that were certified"


def untouched(pruned: Checkpoint, source: Checkpoint, layers: set[str]) -> Iterator[Finding]:
    """Every tensor that is no pruned layer, against the source."""
    claim = "every tensor that is no pruned layer equals its source bit for bit"
    rest = [name for name in source.names if name not in layers]
    bad = {name: said for name in rest if (said := _bits(pruned, source, name))}
    for name in bad or ["all other tensors"]:
        yield exact(name, "untouched", claim, SOURCE, bad.get(name, ""))


def _bits(pruned: Checkpoint, source: Checkpoint, name: str) -> str:
    """How many entries differ, and the first of them."""
    found, wanted = pruned.read(name), source.read(name)
    if digest(found) == digest(wanted):
        return ""
    a, b = (tensor.contiguous().reshape(-1).view(torch.uint8).reshape(tensor.numel(), -1) for tensor in (found, wanted))
    places = (a != b).any(dim=1).nonzero()[:, 0]
    first = int(places[0])
    where = tuple(int(k) for k in np.unravel_index(first, tuple(found.shape)))
    return (
        f"{pruned.entries[name].file}: {len(places)} of {found.numel()} entries differ, the first at {list(where)}: "
        f"{float(found.reshape(-1)[first]):.9g}, in the source {float(wanted.reshape(-1)[first]):.9g}"
    )


def stored(
    pruned: Checkpoint,
    source: Checkpoint,
    name: str,
    plan: Plan,
    budget: Budget,
    row: dict[str, Any] | None,
    block: int,
    site: Site,
) -> Iterator[Finding]:
    """What the bytes of a pruned layer tell by themselves: digest, finite entries, pattern, counts."""
    tensor, file = pruned.read(name), pruned.entries[name].file
    found, saved = digest(tensor), tensor.to(torch.float64).numpy()
    if row is None:
        yield exact(name, "identity", DIGESTS, RECORD, "layers.jsonl has no line for it")
    else:
        said = f"{file}: its SHA-256 is {found[:12]}..., layers.jsonl records {str(row['sha256'])[:12]}..."
        yield exact(name, "identity", DIGESTS, RECORD, said if found != row["sha256"] else "")
        facts = {
            "block": block,
            "site": site.name,
            "shape": list(tensor.shape),
            "kept": int(np.count_nonzero(saved)),
            "sparsity": float(np.mean(saved == 0)),
        }
        wrong = [
            f"{key} is {row.get(key)}, the file says {value}" for key, value in facts.items() if row.get(key) != value
        ]
        yield exact(name, "counts", "layers.jsonl counts what the file holds", RECORD, listed(wrong))
    bad = int(np.count_nonzero(~np.isfinite(saved)))
    said = f"{file}: {bad} of {saved.size} entries are NaN or infinite" if bad else ""
    yield exact(name, "finite", "every saved weight is a number", "by construction", said)
    if solvers.find(plan.method.name).prunes:
        certificate = exact_count(budget, dense_weight(source, name), saved)
        yield Finding(name, certificate, f"{file}: {_windows(budget, saved)}")


def _windows(budget: Budget, saved: np.ndarray) -> str:
    """The first window whose count is off, and how many there are."""
    counts = np.count_nonzero(budget.windows(saved), axis=1)
    off = np.flatnonzero(counts != budget.keep)
    negative = int(np.count_nonzero((saved == 0) & np.signbit(saved)))
    parts = [f"{negative} zeros are negative"] if negative else []
    if len(off):
        first = f"window {off[0]} keeps {counts[off[0]]} of {saved.size // len(counts)}, not {budget.keep}"
        parts.insert(0, f"{first}; {len(off)} of {len(counts)} windows are off")
    return "; ".join(parts)


def evaluated(
    pruned: Checkpoint, source: Checkpoint, name: str, inputs: Inputs, plan: Plan, budget: Budget, records: Records
) -> tuple[list[Finding], dict[str, float]]:
    """Objective, relative error and certificates of the saved weights on what the layer sees, and their values."""
    saved, method = pruned.read(name).to(torch.float64).numpy(), solvers.find(plan.method.name)
    problem, row = inputs.problem(dense_weight(source, name)), records.row(name)
    values = {"objective": problem.value(saved), "relative_error": problem.relative_error(saved)}
    findings = list(_recomputed(name, problem, saved, values, row)) if row else []
    judged = problem.normalised(plan.last_mu)
    if method.prunes:
        judged = judged.recentred()
    certificates = judge_saved(method, judged, budget, saved)
    findings += [Finding(name, c) for c in certificates if c.name != "exact-count"]  # counted in `stored`
    reach = 2 * allowance(judged.magnitude(judged.scaled(saved)), problem.shape[1], dtype="float32")
    findings += [_compared(name, c, records.certificate(name, c.name), reach) for c in certificates]
    if plan.swaps == "all":
        findings.append(Finding(name, one_swap_again(judged, budget, saved)))
    return findings, values


def _recomputed(
    name: str, problem: LayerProblem, saved: np.ndarray, values: dict[str, float], row: dict[str, Any]
) -> Iterator[Finding]:
    """Statements (1) and (2)."""
    n, zero = problem.shape[1], np.zeros_like(saved)
    a, a0 = (allowance(problem.magnitude(W), n, dtype="float32") for W in (saved, zero))
    error, dense = values["relative_error"], problem.value(zero)
    reach = {"objective": a, "relative_error": (a + error * a0) / (dense - a0) if dense > a0 else float("inf")}
    words = {"objective": "f(saved weights)", "relative_error": "f(saved weights) / f(0)"}
    for key, value in values.items():
        then = row.get(key)
        then = float(then) if isinstance(then, int | float) else float("nan")
        undefined = np.isnan(value) and np.isnan(then) and dense <= 0  # no output, no relative error
        statement = f"|{words[key]} - recorded {key.replace('_', ' ')}| = 0"
        gap = 0.0 if undefined else abs(value - then)
        certificate = Certificate(f"{key.replace('_', '-')}-recomputed", statement, RECORD, gap, 0.0, reach[key])
        yield Finding(name, certificate, f"{value:.9g}, layers.jsonl records {then:.9g}")


def _compared(name: str, again: Certificate, line: dict[str, Any] | None, reach: float) -> Finding:
    """Statement (3)."""
    statement = f"certificates.jsonl records {again.name} as it is found again"
    if line is None:
        return exact(name, "certificate-recomputed", statement, RECORD, "certificates.jsonl has no line for it")
    try:
        then = recorded.certificate(line)
    except recorded.BROKEN as error:
        return exact(name, "certificate-recomputed", statement, RECORD, f"its line is no certificate ({error})")
    words = [
        f"{key} is {getattr(then, key)!r:.80}, not {getattr(again, key)!r:.80}"
        for key in ("claim", "where", "applies")
        if getattr(then, key) != getattr(again, key)
    ]
    if words:
        return exact(name, "certificate-recomputed", statement, RECORD, f"{again.name}: {listed(words)}")
    gaps = [abs(getattr(then, key) - getattr(again, key)) for key in ("measured", "bound", "allowance")]
    certificate = Certificate("certificate-recomputed", statement, RECORD, float(np.max(gaps)), 0.0, reach)
    return Finding(name, certificate, f"recorded {then}; found again {again}")
