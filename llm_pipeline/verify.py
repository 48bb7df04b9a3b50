"""Check a finished run against its source, trusting nothing that the run recorded.

    files      lie, and are named, as `intact` says                                                                (1)
    tensors    that are no pruned layer equal the source's, bit for bit                                            (2)
    layers     every one: SHA-256 of the stored tensor, entries finite, every window of the pattern counted again  (3)
    values     the calibration streams through the saved, rounded weights: objective, relative error and the
               certificates of the saved weights are evaluated again and compared with the records                 (4)
    records    agree with each other, as `recorded` says                                                           (5)

What finds a change: in a weight (2) or (3), down to the lowest bit; if the digest in layers.jsonl was forged with it,
(3) still counts the pattern, and (4) sees a change of the objective beyond the rounding of float32 activations, which
one low bit is not. In a record (1), by its checksum; if that was forged too, (4) and (5), for the numbers that the
saved weights or the other records determine. How a layer was solved (its trace, claims before the cast), perplexity,
seconds and memory are not computed again.

A sample restricts (4) to layers drawn from a seed. What OWL allotted to the blocks is followed as it was recorded, and
measured and computed again on the dense model.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

import solvers
from llm_pipeline import intact, recorded
from llm_pipeline.allocation import budgets, recheck
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import Tokens
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.evidence import Inputs, see
from llm_pipeline.families import Site
from llm_pipeline.findings import Finding, exact, listed
from llm_pipeline.plan import Plan
from llm_pipeline.prune import Progress, silent
from llm_pipeline.recorded import Records
from llm_pipeline.sources import DTYPES
from llm_pipeline.stored import evaluated, stored, untouched
from solvers.allocate import share_of
from solvers.refusal import Refusal

BEFORE_THE_CAST = "perplexity, seconds, memory and how the layers were solved"


@dataclass(frozen=True)
class Sample:
    """The share of the layers that are evaluated again, and the seed of the draw."""

    share: Fraction
    seed: int = 0

    @classmethod
    def parse(cls, text: str | None, seed: int = 0) -> Sample | None:
        """``10%``; None means every layer."""
        if seed < 0:
            raise Refusal(f"--seed must be a whole number of at least 0; got {seed}.")
        if text is None:
            return None
        try:
            share = share_of(solvers.parse(text))
        except Refusal:
            share = Fraction(0)
        if share == 0 or "/" in text:
            raise Refusal(f"--sample is a share of the layers above 0%, at most 100%, for example 10%; got '{text}'.")
        return cls(share, seed)

    def of(self, names: list[str]) -> list[str]:
        """The layers drawn, at least one, in their order."""
        drawn = set(random.Random(self.seed).sample(names, math.ceil(self.share * len(names))))
        return [name for name in names if name in drawn]


@dataclass(frozen=True)
class Report:
    """What verify found.

    Attributes
    ----------
    findings : every check
    layers : every pruned layer
    evaluated : objective and relative error of the saved weights, for the layers that were evaluated again
    not_evaluated : sentences that say what was not
    sample : how those layers were drawn, if they are not all
    """

    findings: list[Finding]
    layers: list[str]
    evaluated: dict[str, dict[str, float]]
    not_evaluated: list[str]
    sample: Sample | None = None

    @property
    def failed(self) -> list[Finding]:
        """The checks that fail."""
        return [finding for finding in self.findings if finding.failed]

    def verdicts(self) -> list[dict[str, Any]]:
        """One line per layer: its outcome, the claims that fail, and its values where they were evaluated again."""
        fails: dict[str, list[str]] = {}
        for finding in self.failed:
            fails.setdefault(finding.where, []).append(finding.certificate.name)
        return [
            {
                "layer": name,
                "outcome": "fails" if name in fails else "holds",
                "fails": fails.get(name, []),
                "evaluated": name in self.evaluated,
                **self.evaluated.get(name, {}),
            }
            for name in self.layers
        ]

    def document(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "outcome": "fails" if self.failed else "holds",
            "sample": self.sample and {"share": float(self.sample.share), "seed": self.sample.seed},
            "layers": self.verdicts(),
            "not_evaluated": self.not_evaluated,
            "checks": [finding.line() for finding in self.findings],
        }

    def sentences(self) -> list[str]:
        """The verdict in words, and what it does not speak of."""
        layers, checks = self.verdicts(), len(self.findings)
        holding = sum(line["outcome"] == "holds" for line in layers)
        drawn = f" (sample of {float(self.sample.share):.4g}, seed {self.sample.seed})" if self.sample else ""
        names = f": {', '.join(self.evaluated)}" if self.sample else ""
        return [
            f"{checks - len(self.failed)} of {checks} checks hold, {holding} of {len(layers)} layers hold",
            f"evaluated again: {len(self.evaluated)} of {len(layers)} layers{drawn}{names}",
            *(f"not evaluated: {sentence}" for sentence in self.not_evaluated),
        ]


@torch.inference_mode()
def verify(
    folder: Path,
    plan: Plan,
    source: Checkpoint,
    tokens: Tokens,
    *,
    sample: Sample | None = None,
    progress: Progress = silent,
) -> Report:
    """Every check on a run folder; the stream of calibration ends with the last layer that is evaluated again.

    Raises
    ------
    Refusal
        If a record cannot be read, or a weight file is no such file.
    """
    records, kept, pruned = Records.read(folder), budgets(plan, source), intact.opened(folder, source)
    findings, names = intact.findings(folder, source), list(kept)
    if absent := intact.lacking(pruned, source):
        return Report(findings, names, {}, [f"any tensor, for lack of {listed(absent)} as in the source"], sample)
    findings += untouched(pruned, source, set(names))
    walk = BlockWalk(pruned, plan.device, dtype=DTYPES[plan.dtype])
    places = [(i, site, reader) for i in range(len(walk)) for site in walk.family.sites for reader in site.readers]
    for name, (i, site, _) in zip(names, places, strict=True):
        progress(i, len(walk), f"block {i}, patterns and digests")
        findings += stored(pruned, source, name, plan, kept[name], records.row(name), i, site)
    findings += recorded.agreeing(plan, records, names)
    chosen = sample.of(names) if sample else names
    dense = BlockWalk(source, plan.device, dtype=DTYPES[plan.dtype])
    again = recheck(plan, dense, tokens, progress, recount=sample is None)
    findings += [Finding("all blocks", certificate) for certificate in again]
    wanted = {name: place for name, place in zip(names, places, strict=True) if name in set(chosen)}
    stream, values = _Stream(walk, dense, plan, tokens, wanted), {}
    for name, inputs in stream.run(progress):
        found, values[name] = evaluated(pruned, source, name, inputs, plan, kept[name], records)
        findings += found
    findings += stream.broken
    return Report(findings, names, values, _left_out(plan, records, names, list(values), sample), sample)


class _Stream:
    """The calibration, streamed through the saved weights up to the last layer that is wanted.

    Attributes
    ----------
    broken : what ended the stream early, if anything did
    """

    def __init__(
        self, walk: BlockWalk, dense: BlockWalk, plan: Plan, tokens: Tokens, wanted: dict[str, tuple[int, Site, str]]
    ) -> None:
        self.walk, self.dense, self.plan, self.tokens, self.wanted = walk, dense, plan, tokens, wanted
        self.broken: list[Finding] = []

    def run(self, progress: Progress) -> Iterator[tuple[str, Inputs]]:
        """Every wanted layer with what it sees."""
        last, hidden = max(i for i, _, _ in self.wanted.values()), self.walk.embed(self.tokens.ids)
        for i in range(last + 1):
            progress(i, last + 1, f"block {i}")
            wanted = {name: site for name, (block, site, _) in self.wanted.items() if block == i}
            sites = tuple(site for site in self.walk.family.sites if site in wanted.values())
            try:
                seen = dict(zip(sites, self._block(i, sites, hidden, more=i < last), strict=True))
            except Refusal as refusal:
                claim = "the saved block runs on the calibration, as it did when it was pruned"
                self.broken = [exact(f"block {i}", "runs", claim, "the forward pass", str(refusal))]
                return
            yield from ((name, seen[site]) for name, site in wanted.items())
        progress(last + 1, last + 1, "all layers")

    def _block(self, i: int, sites: tuple[Site, ...], hidden: torch.Tensor, more: bool) -> list[Inputs]:
        """What the sites of block `i` see; where `more` follows, `hidden` becomes what the block passes on."""
        plan, block = self.plan, self.walk.load(i)
        unpruned = self.dense.load(i) if plan.needs_dense_block else None
        corrected = unpruned if plan.error_correction == "block" and sites else None
        onward = hidden if plan.inputs == "pruned" and more else None
        seen = see(self.walk, block, i, hidden, sites, corrected, onward) if sites or onward is not None else []
        if plan.inputs == "dense" and more:
            self.walk.forward(unpruned, i, hidden, into=hidden)
        return seen


def _left_out(plan: Plan, records: Records, names: list[str], evaluated: list[str], sample: Sample | None) -> list[str]:
    """Sentences about what was not evaluated again."""
    missing = len(names) - len(evaluated)
    said = [f"objective, relative error and certificates of {missing} of {len(names)} layers"] if missing else []
    if sample and plan.allocation.name != "uniform":
        said.append("the outliers of the dense model")
    saved = {"exact-count", "lower-bound"}
    claims = Counter(line["claim"] not in saved for line in records.certificates)
    return [*said, f"{BEFORE_THE_CAST} ({claims[True]} certificates): by checksum only"]
