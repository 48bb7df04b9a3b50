"""The one table that knows what the parts of a model are called.

A *site* is a place in a block with one input; its *readers* are the linear layers that read that input, so
they share one Gram. Adding a model family means adding a row here and nothing elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from solvers.refusal import Refusal


@dataclass(frozen=True)
class Site:
    """One input inside a block and the modules that read it.

    Parameters
    ----------
    name : str
        What the site is called in logs and pages.
    readers : tuple of str
        Module paths relative to the block.
    """

    name: str
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """The names of one family of models.

    Parameters
    ----------
    model_types : tuple of str
        Values of `config.model_type` that this row serves.
    body : str
        Path of the decoder body in the causal language model.
    blocks : str
        Path of the list of blocks in the causal language model.
    sites : tuple of Site
        In the order of the data flow.
    embedding, head : str
        Parameter names of the two ends, which are one matrix where `config.tie_word_embeddings` says so.
    """

    model_types: tuple[str, ...]
    body: str
    blocks: str
    sites: tuple[Site, ...]
    embedding: str
    head: str = "lm_head.weight"

    @property
    def readers(self) -> tuple[str, ...]:
        """All prunable layers of a block, in the order of the data flow."""
        return tuple(reader for site in self.sites for reader in site.readers)


LLAMA_LIKE = Family(
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    body="model",
    blocks="model.layers",
    sites=(
        Site("attention input", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        Site("attention output", ("self_attn.o_proj",)),
        Site("mlp input", ("mlp.gate_proj", "mlp.up_proj")),
        Site("mlp middle", ("mlp.down_proj",)),
    ),
    embedding="model.embed_tokens.weight",
)

OPT = Family(
    model_types=("opt",),
    body="model.decoder",
    blocks="model.decoder.layers",
    sites=(
        Site("attention input", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        Site("attention output", ("self_attn.out_proj",)),
        Site("mlp input", ("fc1",)),
        Site("mlp middle", ("fc2",)),
    ),
    embedding="model.decoder.embed_tokens.weight",
)

FAMILIES = (LLAMA_LIKE, OPT)


def family_of(config: Any) -> Family:
    """The row of the table for a model configuration.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        Only `model_type` is read.

    Raises
    ------
    Refusal
        If no row serves the model type.
    """
    for family in FAMILIES:
        if config.model_type in family.model_types:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise Refusal(
        f"pruning needs a model whose parts are known by name; model type {config.model_type!r} is not. "
        f"Known: {known}. Add a row to llm_pipeline/families.py, or choose a model of a known type."
    )
