"""Import of a llama2.c checkpoint (version 0) beside its tokenizer, as an ordinary Hugging Face directory.

Both files are little endian. The checkpoint is seven int32 and then float32 matrices; rotary embeddings turn
neighbouring rows there and rows half a head apart here, so the rows of queries and keys are permuted.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llm_pipeline.llama2c_tokenizer import read_tokenizer
from llm_pipeline.shapes import empty_model
from solvers.refusal import Refusal

HEADER_BYTES = 28


class Header(NamedTuple):
    """The seven numbers at the head of the file; a negative `vocab` says that the classifier is stored too."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    length: int


def import_llama2c(path: Path, folder: Path) -> Path:
    """Write the model of a llama2.c `.bin` and the tokenizer beside it into a new directory.

    Parameters
    ----------
    path : Path
        Checkpoint of version 0; the one file `tok*.bin` of its directory is the tokenizer.
    folder : Path
        Must not exist yet; it is complete or absent.

    Returns
    -------
    Path
        `folder`, with config.json, model.safetensors (float32) and the tokenizer.
    """
    path, folder = Path(path), Path(folder)
    if folder.exists():
        raise Refusal(f"the imported model needs a new directory; {folder} exists. Remove it or choose another.")
    config, weights = _read_model(path)
    tokenizer = read_tokenizer(_tokenizer_beside(path), config.vocab_size, config.max_position_embeddings)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _model(config, weights).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _read_model(path: Path) -> tuple[LlamaConfig, dict[str, torch.Tensor]]:
    header = _header(path)
    shapes = _shapes(header)
    needed = HEADER_BYTES + 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    if needed != path.stat().st_size:
        raise Refusal(
            f"{path.name} must be {needed} bytes long by its header {tuple(header)} and is {path.stat().st_size}. "
            "Probably a truncated download, or not a llama2.c checkpoint of version 0."
        )
    return _config(header), _weights(header, _parts(path, shapes))


def _header(path: Path) -> Header:
    if not path.is_file():
        raise Refusal(f"a llama2.c checkpoint must be a file; there is no {path}. Probably a misspelt path.")
    with path.open("rb") as file:
        numbers = np.frombuffer(file.read(HEADER_BYTES), dtype="<i4")
    header = Header(*map(int, numbers)) if len(numbers) == 7 else None
    if header is None or not _plausible(header):
        raise Refusal(
            f"{path.name} must begin with the seven sizes of a llama2.c checkpoint of version 0; {numbers.tolist()} "
            "arrived. Probably another kind of .bin file, such as a PyTorch one."
        )
    return header


def _plausible(header: Header) -> bool:
    positive = min(header._replace(vocab=abs(header.vocab))) > 0
    return positive and header.dim % (2 * header.heads) == 0 and header.heads % header.kv_heads == 0


def _shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """The matrices in the order of the file."""
    dim, hidden, layers = header.dim, header.hidden, header.layers
    head = dim // header.heads
    kv = header.kv_heads * head
    shapes = {
        "embedding": (abs(header.vocab), dim),
        "attention norm": (layers, dim),
        "q": (layers, dim, dim),
        "k": (layers, kv, dim),
        "v": (layers, kv, dim),
        "o": (layers, dim, dim),
        "mlp norm": (layers, dim),
        "gate": (layers, hidden, dim),
        "down": (layers, dim, hidden),
        "up": (layers, hidden, dim),
        "norm": (dim,),
        "cosines": (header.length, head // 2),
        "sines": (header.length, head // 2),
    }
    return shapes | ({"head": (abs(header.vocab), dim)} if header.vocab < 0 else {})


def _parts(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    flat = np.memmap(path, dtype="<f4", mode="r", offset=HEADER_BYTES)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    return {name: part.reshape(shapes[name]) for name, part in zip(shapes, np.split(flat, ends), strict=True)}


def _config(header: Header) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=abs(header.vocab),
        hidden_size=header.dim,
        intermediate_size=header.hidden,
        num_hidden_layers=header.layers,
        num_attention_heads=header.heads,
        num_key_value_heads=header.kv_heads,
        max_position_embeddings=header.length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=header.vocab > 0,
        bos_token_id=1,
        eos_token_id=2,
        dtype=torch.float32,
    )


def _weights(header: Header, parts: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors under the names of transformers."""
    named = {"model.embed_tokens.weight": parts["embedding"], "model.norm.weight": parts["norm"]}
    named["lm_head.weight"] = parts.get("head", parts["embedding"])
    for i in range(header.layers):
        block = f"model.layers.{i}"
        named[f"{block}.input_layernorm.weight"] = parts["attention norm"][i]
        named[f"{block}.post_attention_layernorm.weight"] = parts["mlp norm"][i]
        named[f"{block}.self_attn.q_proj.weight"] = _halves(parts["q"][i], header.heads)
        named[f"{block}.self_attn.k_proj.weight"] = _halves(parts["k"][i], header.kv_heads)
        named |= {f"{block}.self_attn.{name}_proj.weight": parts[name][i] for name in ("v", "o")}
        named |= {f"{block}.mlp.{name}_proj.weight": parts[name][i] for name in ("gate", "down", "up")}
    return {name: torch.from_numpy(np.array(part, dtype=np.float32)) for name, part in named.items()}


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Within each head the even rows first, then the odd ones."""
    pairs = rows.reshape(heads, -1, 2, rows.shape[1])  # (heads, head / 2, 2, dim)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _model(config: LlamaConfig, weights: dict[str, torch.Tensor]) -> LlamaForCausalLM:
    model: LlamaForCausalLM = empty_model(config)
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    return model


def _tokenizer_beside(path: Path) -> Path:
    found = [other for other in sorted(path.parent.glob("tok*.bin")) if other.name != path.name]
    if len(found) != 1:
        raise Refusal(
            f"a llama2.c checkpoint needs its tokenizer beside it, the one file named tok*.bin; {path.parent} has "
            f"{', '.join(other.name for other in found) or 'none'}. Copy the right one there, and no other."
        )
    return found[0]
