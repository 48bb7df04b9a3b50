"""A small run folder by the format of the pruning command, made of formulas."""

import json
import os
from types import SimpleNamespace

import pytest

os.environ.setdefault("NO_COLOR", "1")

SITES = {
    "self_attn.q_proj": "attention input",
    "self_attn.k_proj": "attention input",
    "self_attn.v_proj": "attention input",
    "self_attn.o_proj": "attention output",
    "mlp.gate_proj": "MLP input",
    "mlp.up_proj": "MLP input",
    "mlp.down_proj": "MLP middle",
}
CLAIMS = {
    "sufficient-decrease": "F(x+) <= F(x) - |x+ - x|^2 / (2 s)",
    "monotone": "F(x+) <= F(x)",
    "support-size": "nonzeros = k",
}
PLAN = """\
sparsity = "{sparsity}"
refine = "none"
swaps = 0
mu = 0.1
device = "cpu"
dtype = "float32"
seed = 0

[model]
name = "tiny"
source = "bundled"

[model.files]
"model.safetensors" = "{hash}"

[method]
name = "{method}"
iterations = 20

[calibration]
source = "bundled"
sha256 = "{hash}"
sequences = 16
length = 64

[versions]
numpy = "2.4.6"
"""
HASH = "0123456789abcdef" * 4


def _trace(row):
    steps = range(21)
    objective = [row["objective"] * (1 + 9 * 0.7**step) for step in steps]
    return {
        "step": 0.1,
        "objective": objective,
        "plain": [None, *(1.1 * value for value in objective[1:])],
        "move": [0.5**step for step in steps],
        "nonzeros": [16384 - 400 * step for step in steps],
        "level": [16384] * 8 + [12000] * 8 + [8192] * 5,
    }


def _layers(blocks, traced, error):
    for block in range(blocks):
        for place, (leaf, site) in enumerate(SITES.items()):
            row = {
                "layer": f"model.layers.{block}.{leaf}",
                "block": block,
                "site": site,
                "shape": [128, 128],
                "kept": 8192,
                "sparsity": 0.5,
                "objective": 0.01 * (1 + place),
                "relative_error": error * (1 + place) * (1 + block),
                "seconds": 0.12,
                "stop": "iterations exhausted: 20",
                "sha256": HASH,
                "refine": {"name": "gradient:30", "gain": 0.01} if place == 0 else None,
            }
            yield {**row, "trace": _trace(row) if traced else None}


def _certificates(layers, failing):
    for place, row in enumerate(layers):
        for claim, statement in CLAIMS.items():
            fails = claim == failing and place == 2
            applies = claim != "monotone" or place % 3 != 0
            yield {
                "layer": row["layer"],
                "claim": claim,
                "statement": statement,
                "where": "Li & Lin 2015, Thm 1",
                "measured": 3.0 if fails else 1.0 + 0.001 * place,
                "bound": 2.0,
                "allowance": 1e-12,
                "outcome": "fails" if fails else "holds" if applies else "not applicable",
                "because": "" if applies else "no trace was recorded",
            }


def _perplexity(pruned, protocol):
    def measured(value):
        return {"perplexity": value, "nll": 2.5, "interval": [value - 0.5, value + 0.5]}

    return {
        "protocol": protocol,
        "text": "held-out stories",
        "text_sha256": HASH,
        "tokenizer_sha256": HASH[::-1],
        "windows": 40,
        "tokens": 10240,
        "dense": measured(12.5),
        "pruned": measured(pruned),
        "difference": {"nll": 0.12, "interval": [0.1, 0.14]},
    }


@pytest.fixture
def write_run(tmp_path):
    """Write a run folder and return its path; every option has a default that gives a good run."""

    def write(name="run", **changes):
        option = {"method": "maiht", "sparsity": "50%", "blocks": 2, "traced": True, "error": 0.01, "failing": None}
        ask = SimpleNamespace(**{**option, "perplexity": 14.25, "protocol": "windows-256", **changes})
        folder = tmp_path / name
        folder.mkdir(parents=True)
        layers = list(_layers(ask.blocks, ask.traced, ask.error))
        certificates = list(_certificates(layers, ask.failing))
        outcomes = [row["outcome"] for row in certificates]
        summary = {
            "model": "tiny",
            "method": ask.method,
            "sparsity_asked": ask.sparsity,
            "sparsity_measured": 0.5,
            "relative_error": sum(row["relative_error"] for row in layers) / len(layers),
            "perplexity": ask.perplexity and _perplexity(ask.perplexity, ask.protocol),
            "seconds": {"read": 0.1, "calibrate": 1.5, "solve": 3.25, "certify": 0.8, "write": 0.2, "evaluate": 2.0},
            "peak_memory_bytes": 3 * 2**28,
            "certificates": {name: outcomes.count(name) for name in ("holds", "fails", "not applicable")},
            "versions": {"numpy": "2.4.6"},
            "machine": "a processor, 2 cores",
        }
        (folder / "plan.toml").write_text(PLAN.format(method=ask.method, sparsity=ask.sparsity, hash=HASH))
        (folder / "layers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in layers))
        (folder / "certificates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in certificates))
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return write


@pytest.fixture
def perplexity_fact():
    """Facts of one perplexity record, for `make_record`."""

    def fact(method, perplexity, *, sparsity="50%", **changes):
        return {
            "model": "tiny",
            "method": method,
            "sparsity": "0%" if method == "dense" else sparsity,
            "protocol": "windows-256",
            "text": "held-out stories",
            "text_sha256": HASH,
            "tokenizer_sha256": HASH[::-1],
            "windows": 40,
            "tokens": 10240,
            "perplexity": perplexity,
            "nll": 2.5,
            "interval": [perplexity - 0.5, perplexity + 0.5],
            **changes,
        }

    return fact
