"""What a model is made of, as `inspect` prints it."""

from __future__ import annotations

from math import prod
from typing import Any

from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.families import family_of


def overview(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Blocks, sites, layers and parameters, from the checkpoint's headers alone."""
    family, config = family_of(checkpoint.config), checkpoint.config
    blocks = range(config.num_hidden_layers)
    stored = [checkpoint.resolve(f"{family.blocks}.{i}.{reader}.weight") for i in blocks for reader in family.readers]
    sites = [
        {
            "name": site.name,
            "layers": [
                {"name": reader, "shape": list(checkpoint.shape(f"{family.blocks}.0.{reader}.weight"))}
                for reader in site.readers
            ],
        }
        for site in family.sites
    ]
    return {
        "name": name,
        "model_type": config.model_type,
        "dtype": str(checkpoint.working_dtype).removeprefix("torch."),
        "blocks": config.num_hidden_layers,
        "positions": config.max_position_embeddings,
        "tied": bool(config.tie_word_embeddings),
        "parameters": sum(prod(checkpoint.shape(name)) for name in checkpoint.names),
        "prunable": sum(prod(checkpoint.shape(name)) for name in stored),
        "sites": sites,
    }
