"""Configurations of known models, as their publishers give them; the tiny ones are made up, one for each family."""

from __future__ import annotations

from typing import Any

from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from llm_pipeline.families import family_of
from solvers.methods import near
from solvers.refusal import Refusal


def _llama(hidden: int, middle: int, blocks: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": hidden,
        "intermediate_size": middle,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "dtype": "float16",
        **more,
    }


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


GQA = {"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "dtype": "bfloat16"}
LLAMA_3 = {"vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128001, "max_position_embeddings": 8192}
QWEN = {"vocab_size": 152064, "bos_token_id": 151643, "eos_token_id": 151643, "max_position_embeddings": 131072}
TINY = {"vocab_size": 256, "max_position_embeddings": 128, "dtype": "float32"}
TINY_LLAMA = _llama(64, 176, 4, 4, num_key_value_heads=2, **TINY)
OPT: dict[str, Any] = {"model_type": "opt", "max_position_embeddings": 2048, "dtype": "float16"}

SHAPES: dict[str, dict[str, Any]] = {
    "llama-7b": _llama(4096, 11008, 32, 32),
    "llama-13b": _llama(5120, 13824, 40, 40),
    "llama-70b": _llama(8192, 28672, 80, 64, **GQA, max_position_embeddings=4096),
    "llama-3-8b": _llama(4096, 14336, 32, 32, **GQA, **LLAMA_3, rope_parameters=_rope(5e5)),
    "mistral-7b": _llama(4096, 14336, 32, 32, **GQA)
    | {"model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 32768},
    "qwen2.5-7b": _llama(3584, 18944, 28, 28, **QWEN, rope_parameters=_rope(1e6))
    | {"model_type": "qwen2", "num_key_value_heads": 4, "dtype": "bfloat16"},
    "opt-125m": OPT
    | {
        "vocab_size": 50272,
        "hidden_size": 768,
        "ffn_dim": 3072,
        "word_embed_proj_dim": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "llama-100m": _llama(1024, 2816, 8, 16, vocab_size=4096, tie_word_embeddings=True),
    "tiny": TINY_LLAMA,
    "tiny-mistral": TINY_LLAMA | {"model_type": "mistral", "sliding_window": 16},
    "tiny-qwen2": TINY_LLAMA | {"model_type": "qwen2", "tie_word_embeddings": True},
    "tiny-opt": OPT
    | {
        "hidden_size": 64,
        "ffn_dim": 256,
        "word_embed_proj_dim": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        **TINY,
    },
}


def config_like(name: str) -> Any:
    """The transformers configuration of a known shape."""
    if name not in SHAPES:
        raise Refusal(f"no known shape is called '{name}'.{near(name, SHAPES)} Known: {', '.join(SHAPES)}.")
    return AutoConfig.for_model(**SHAPES[name])


def empty_model(config: Any, **options: Any) -> Any:
    """The model without storage: names and shapes only; nothing is drawn for its weights, which takes seconds."""
    with init_empty_weights(), no_init_weights():
        return AutoModelForCausalLM.from_config(config, **options)


def shapes_of(config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this configuration stores, in transformers' order."""
    state = empty_model(config).state_dict()
    tied = family_of(config).head if config.tie_word_embeddings else None
    return {name: tuple(tensor.shape) for name, tensor in state.items() if name != tied}
