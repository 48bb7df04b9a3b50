"""What a run writes beside the weights: a line per layer, a line per certificate, and the summary."""

from __future__ import annotations

import json
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
from llm_pipeline.layer import Layer, describe
from llm_pipeline.output_folder import OutputFolder
from llm_pipeline.plan import Plan
from llm_pipeline.scores import Perplexity, paired_difference
from theory_checks import Certificate

PACKAGES = ("certified-pruning", "numpy", "scipy", "torch", "transformers", "safetensors")
SUMMED = ("block", "shape", "kept", "relative_error", "layer", "swaps", "stages")
OUTCOMES = ("holds", "fails", "not applicable")


class Journal:
    """Collects what a run observes, writes it line by line, and sums it up."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.layers: list[dict[str, Any]] = []
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.failures: list[str] = []
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage's seconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def note(self, folder: OutputFolder, layer: Layer, certificates: list[Certificate]) -> None:
        """Write one layer and its certificates."""
        row = describe(layer, self.plan.refine)
        self.layers.append({key: row[key] for key in SUMMED})
        folder.append_line("layers.jsonl", json.dumps(row))
        for certificate in certificates:
            self.outcomes[certificate.outcome] += 1
            if certificate.outcome == "fails":
                self.failures.append(f"{layer.name}: {certificate}")
            folder.append_line("certificates.jsonl", json.dumps(certificate_line(layer.name, certificate)))

    def summary(self, perplexities: tuple[Perplexity, Perplexity] | None) -> dict[str, Any]:
        """The run in one document."""
        size = sum(row["shape"][0] * row["shape"][1] for row in self.layers)
        errors = [row["relative_error"] for row in self.layers]
        return {
            "model": self.plan.model.name,
            "method": self.plan.method.name,
            "spec": spec(self.plan),
            "sparsity_asked": self.plan.sparsity,
            "sparsity_measured": 1 - sum(row["kept"] for row in self.layers) / size,
            "blocks": by_block(self.plan, self.layers),
            "layers": len(self.layers),
            "relative_error": sum(errors) / len(errors),
            "stages": self._stages(),
            "swaps": sum(row["swaps"]["count"] for row in self.layers) if self.plan.swaps else 0,
            "perplexity": perplexities and compared(*perplexities),
            "seconds": self.seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "certificates": dict(self.outcomes),
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


def machine() -> str:
    """Processor and cores, no names."""
    return f"{platform.machine()}, {os.cpu_count()} cores"
