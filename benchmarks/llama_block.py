"""One block of LLaMA-7B's shape from end to end: random weights, inputs that the block itself computes, seven layers.

Tokens have a power-law spectrum and pass through a `LlamaDecoderLayer`; each site's Gram is that of what its readers
saw. Every layer is solved by the twin of mAIHT and judged in float64 by the certificates of the pipeline.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

import solvers
from benchmarks.clock import wait
from benchmarks.device import about, peak_bytes
from benchmarks.records import Record, make_record
from llm_pipeline.gram import MeanGram
from solvers.door import place_of, run
from solvers.problem import Gram, LayerProblem
from solvers.sparsity import KeepPerRow
from theory_checks import certify

HIDDEN, MIDDLE, HEADS, HEAD = 4096, 11008, 32, 128
SEQUENCES, LENGTH = 8, 2048
POWER = 0.4  # the n-th direction of the tokens has standard deviation n^-0.4
SITES = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
LAYERS = tuple((layer, site) for site, layers in SITES.items() for layer in layers)


class Block:
    """The block and the Grams of its four sites, made when first asked for."""

    def __init__(self, device: str, scale: int, seed: int) -> None:
        self.device, self.scale, self.seed = device, scale, seed
        self.done: list[Record] = []

    @cached_property
    def layer(self) -> LlamaDecoderLayer:
        """Weights as transformers draws them: normal, of standard deviation 0.02."""
        torch.manual_seed(self.seed)
        with torch.device(self.device):
            block = LlamaDecoderLayer(self.config, 0).eval()
            for module in block.modules():
                if isinstance(module, torch.nn.Linear):
                    torch.nn.init.normal_(module.weight, std=0.02)
        return block

    @cached_property
    def config(self) -> LlamaConfig:
        """LLaMA-7B's, divided by the scale."""
        heads = max(1, HEADS // self.scale)
        hidden = max(16, HIDDEN // self.scale)
        config = LlamaConfig(
            hidden_size=hidden,
            intermediate_size=max(24, MIDDLE // self.scale),
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=hidden // heads,
            max_position_embeddings=LENGTH,
        )
        config._attn_implementation = "sdpa"
        return config

    @cached_property
    def grams(self) -> dict[str, Gram]:
        """By site, of the tokens of all sequences."""
        found = {site: MeanGram(self.layer.get_submodule(site).in_features) for site in SITES}
        watched = [
            self.layer.get_submodule(site).register_forward_pre_hook(lambda _, inputs, mean=mean: mean.add(inputs[0]))
            for site, mean in found.items()
        ]
        with torch.no_grad():
            for tokens in self._tokens():
                positions = torch.arange(len(tokens), device=self.device)[None]
                rotary = LlamaRotaryEmbedding(self.config).to(self.device)
                self.layer(tokens[None], position_embeddings=rotary(tokens[None], positions))
        for hook in watched:
            hook.remove()
        return {site: Gram(mean.value()) for site, mean in found.items()}

    def _tokens(self) -> list[torch.Tensor]:
        width, length = self.config.hidden_size, max(32, LENGTH // self.scale)
        generator = torch.Generator(self.device).manual_seed(self.seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, device=self.device)

        spectrum = torch.arange(1, width + 1, device=self.device) ** -POWER
        turned = spectrum[:, None] * normal(width, width) / width**0.5
        return [normal(length, width) @ turned for _ in range(SEQUENCES)]

    def solve(self, name: str, site: str) -> Record:
        """One layer at 50 % per row by the twin of mAIHT with its defaults; its certificates, counted."""
        maiht = solvers.METHODS["maiht"]
        place = place_of("fast", torch.zeros(1, device=self.device))
        W0 = self.layer.get_submodule(name).weight.detach().cpu().numpy().astype(np.float64)
        problem = LayerProblem(W0, self.grams[site])
        normalised = problem.normalised()
        prepared = float(normalised.lipschitz)  # of the site, and not of the run
        wait(self.device)
        begun = time.perf_counter()
        done = run(maiht, problem, KeepPerRow(W0.shape[1] // 2), place=place)
        wait(self.device)
        seconds = time.perf_counter() - begun
        judged = Counter(c.outcome for c in certify(maiht, done, "none"))
        record = make_record(
            "gpu",
            what="layer of a block",
            layer=name,
            shape=list(W0.shape),
            device=about(self.device),
            seed=self.seed,
            scale=self.scale,
            iterations=len(done.found.trace or ()),
            seconds={"min": seconds, "median": seconds, "rounds": 1},
            lipschitz=prepared,
            relative_error=done.problem.relative_error(done.found.weight),
            certificates={outcome: judged[outcome] for outcome in ("holds", "fails", "not applicable")},
            peak_bytes=peak_bytes(self.device),
        )
        self.done.append(record)
        return record

    def whole(self) -> Record:
        """The sum over the layers that were solved."""
        facts: dict[str, Any] = {"layers": len(self.done), "of": len(LAYERS), "peak_bytes": peak_bytes(self.device)}
        judged = sum((Counter(record["certificates"]) for record in self.done), Counter())
        seconds = sum(record["seconds"]["min"] for record in self.done)
        facts["certificates"] = {outcome: judged[outcome] for outcome in ("holds", "fails", "not applicable")}
        facts["seconds"] = {"min": seconds, "median": seconds, "rounds": 1}
        return make_record("gpu", what="block", device=about(self.device), seed=self.seed, scale=self.scale, **facts)
