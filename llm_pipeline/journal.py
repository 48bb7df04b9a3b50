"""What a run tells beside the weights: a line per layer, a line per certificate, and the summary.

Block by block, so that a run that goes on takes over what was told of the finished blocks.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from llm_pipeline.allocation import by_block
from llm_pipeline.choices import spec
from llm_pipeline.layer import Judged
from llm_pipeline.plan import Plan
from llm_pipeline.scores import Perplexity, paired_difference
from theory_checks import Certificate

PACKAGES = ("certified-pruning", "numpy", "scipy", "torch", "transformers", "safetensors")
TOLD = ("layers", "certificates", "failures")
OUTCOMES = ("holds", "fails", "not applicable")


class Journal:
    """Collects what a run observes, a record for each block, and sums it up."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.blocks: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.engine: dict[str, Any] = {"name": "in-process", "workers": 1}
        self._rows: list[dict[str, Any]] = []
        self._certificates: list[dict[str, Any]] = []
        self._failures: list[str] = []
        self._steps: list[str] = []
        self._counted: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage's seconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def note(self, judged: Judged) -> None:
        """What is told of one layer of the present block."""
        self._rows.append(judged.row)
        for certificate in judged.certificates:
            if certificate.outcome == "fails":
                self._failures.append(f"{judged.row['layer']}: {certificate}")
            self._certificates.append(certificate_line(judged.row["layer"], certificate))
        self._steps += [judged.step] if judged.step and judged.step not in self._steps else []

    def close(self, hidden: str, steps: list[str] | None = None) -> dict[str, Any]:
        """The record of the present block; `hidden` is the digest of what it passes on, `steps` where that moved to.

        Where certificates were computed elsewhere than they should be stands among the steps.
        """
        spent = {name: total - self._counted.get(name, 0.0) for name, total in self.seconds.items()}
        record = {
            "block": len(self.blocks),
            "hidden": hidden,
            "steps": [*(steps or []), *self._steps],
            "layers": self._rows,
            "certificates": self._certificates,
            "failures": self._failures,
            "seconds": spent,
            "peak_memory_bytes": peak_memory(),
        }
        self._rows, self._certificates, self._failures, self._steps = [], [], [], []
        self._counted = dict(self.seconds)
        self.blocks.append(record)
        return record

    def adopt(self, record: dict[str, Any], hidden: str) -> dict[str, Any]:
        """Close the present block with the record that another process made of it; both spent their seconds."""
        for name, spent in record["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self._rows, self._certificates, self._failures = (record[key] for key in TOLD)
        closed = self.close(hidden, record["steps"])
        closed["peak_memory_bytes"] = max(closed["peak_memory_bytes"], record["peak_memory_bytes"])
        return closed

    def restore(self, record: dict[str, Any]) -> None:
        """Take over a block that was finished before."""
        for name, spent in record["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self._counted = dict(self.seconds)
        self.blocks.append(record)

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The lines of layers.jsonl."""
        return [row for block in self.blocks for row in block["layers"]] + self._rows

    @property
    def certificates(self) -> list[dict[str, Any]]:
        """The lines of certificates.jsonl."""
        return [line for block in self.blocks for line in block["certificates"]] + self._certificates

    @property
    def failures(self) -> list[str]:
        """A sentence for each certificate that fails."""
        return [line for block in self.blocks for line in block["failures"]] + self._failures

    def summary(self, perplexities: tuple[Perplexity, Perplexity] | None, hidden: str) -> dict[str, Any]:
        """The run in one document; `hidden` is where the hidden states were."""
        layers = self.layers
        size = sum(row["shape"][0] * row["shape"][1] for row in layers)
        errors = [row["relative_error"] for row in layers]
        outcomes = Counter(line["outcome"] for line in self.certificates)
        return {
            "model": self.plan.model.name,
            "method": self.plan.method.name,
            "spec": spec(self.plan),
            "sparsity_asked": self.plan.sparsity,
            "sparsity_measured": 1 - sum(row["kept"] for row in layers) / size,
            "blocks": by_block(self.plan, layers),
            "layers": len(layers),
            "relative_error": sum(errors) / len(errors),
            "stages": self._stages(),
            "swaps": sum(row["swaps"]["count"] for row in layers) if self.plan.swaps else 0,
            "perplexity": perplexities and compared(*perplexities),
            "seconds": self.seconds,
            "engine": self.engine,
            "peak_memory_bytes": max(peak_memory(), *(block["peak_memory_bytes"] for block in self.blocks)),
            "hidden_states": hidden,
            "stepped_down": list(dict.fromkeys(step for block in self.blocks for step in block["steps"])),
            "judged_on": ", ".join(sorted({row.get("judged_on", "cpu") for row in layers})),
            "certificates": {outcome: outcomes[outcome] for outcome in OUTCOMES},
            "failures": self.failures,
            "versions": self.plan.versions,
            "machine": machine(),
        }

    def _stages(self) -> dict[str, float] | None:
        """Mean relative error after the method, after refinement, after swaps."""
        stages = [row["stages"] for row in self.layers]
        if not all(stages):
            return None
        return {stage: sum(errors[stage] for errors in stages) / len(stages) for stage in stages[0]}


def certificate_line(layer: str, certificate: Certificate) -> dict[str, Any]:
    """A certificate as a line of certificates.jsonl."""
    facts = certificate.as_dict()
    renamed = {"claim": facts.pop("name"), "statement": facts.pop("claim"), "because": facts.pop("applies")}
    return {"layer": layer, **renamed, **facts}


def compared(dense: Perplexity, pruned: Perplexity) -> dict[str, Any]:
    """Two perplexities of one protocol, and their paired difference."""
    difference = paired_difference(pruned, dense)
    return {
        **{
            key: getattr(dense, key)
            for key in ("protocol", "text", "text_sha256", "tokenizer_sha256", "windows", "tokens")
        },
        "dense": score(dense),
        "pruned": score(pruned),
        "difference": {"nll": difference.nll, "interval": difference.interval},
    }


def score(perplexity: Perplexity) -> dict[str, Any]:
    """The numbers of one evaluation."""
    return {key: getattr(perplexity, key) for key in ("perplexity", "nll", "interval")}


def versions() -> dict[str, str]:
    """Python and the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def peak_memory() -> int:
    """The most bytes that this process had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> str:
    """Processor and cores, no names."""
    return f"{platform.machine()}, {os.cpu_count()} cores"
