"""What pruning known models on known GPUs takes, as the planner foresees it from published rates."""

from __future__ import annotations

from typing import Any

from llm_pipeline.dry_run import dry_run, duration
from reports.render import GIB
from reports.tables import Cell, Table

MODELS = ("llama-7b", "llama-13b", "llama-70b")
DEVICES = ("4090", "a100-40gb", "h100")
TOKENS = "c4.jsonl:128x2048"
MAIHT: dict[str, Any] = {"method": "maiht", "settings": {"iters": "50"}}
HEADER = ("model", "method", "GPU", "total", "calibrate", "solve", "certify", "GPU memory", "memory", "disk")


def predictions() -> Table:
    """mAIHT with 50 steps at 50 % for every model and GPU, and Wanda for the first model on the last GPU."""
    asked = [(model, device, MAIHT) for model in MODELS for device in DEVICES]
    asked.append((MODELS[0], DEVICES[-1], {"method": "wanda"}))
    return Table("Predictions", HEADER, [tuple(map(Cell, _row(*run))) for run in asked])


def _row(model: str, device: str, options: dict[str, Any]) -> tuple[str, ...]:
    found = dry_run(model, calibration=TOKENS, as_if=device, **options)
    seconds, memory = found["seconds"], found["memory"]
    steps = f", {options['settings']['iters']} steps" if "settings" in options else ""
    return (
        model,
        options["method"] + steps,
        found["device"],
        duration(sum(seconds.values())),
        duration(seconds["calibrate"]),
        duration(seconds["solve"]),
        duration(seconds["certify"]) + (", host" if found["judged_on"] == "cpu" else ""),
        f"{memory['gpu_bytes'] / GIB:.1f} GiB" + ("" if found["fits"] else ", does not fit"),
        f"{memory['host_bytes'] / GIB:.1f} GiB",
        f"{found['disk_bytes'] / 1e9:.1f} GB",
    )
