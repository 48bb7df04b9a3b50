"""Walking a model one block at a time, with transformers' own modules.

The body of the model runs with every block replaced by a recorder, once for each shape of input. The recorders
keep the arguments that the library passes to each block (masks, rotary embeddings, sliding windows), so nothing
about attention is written here a second time. Blocks are then loaded and run one by one.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM

from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.families import family_of


class Recorder(nn.Module):
    """Stands where a block stood: keeps what it was called with and passes the hidden states through."""

    def __init__(self) -> None:
        super().__init__()
        self.received = torch.empty(0)
        self.arguments: dict[str, Any] = {}

    def forward(self, hidden: torch.Tensor, **arguments: Any) -> torch.Tensor:
        """Identity."""
        self.received, self.arguments = hidden, arguments
        return hidden


class BlockWalk:
    """The blocks of a checkpoint, one at a time.

    Parameters
    ----------
    checkpoint : Checkpoint
    device : str or torch.device
        Where blocks live and run.
    dtype : torch.dtype, optional
        Dtype of weights and hidden states; by default the working dtype of the checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device, *, dtype: torch.dtype | None = None) -> None:
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self.dtype = dtype or checkpoint.working_dtype
        self.family = family_of(checkpoint.config)
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(checkpoint.config, dtype=self.dtype)
        self._empty_blocks = model.get_submodule(self.family.blocks)
        self._recorders = nn.ModuleList(Recorder() for _ in self._empty_blocks)
        model.set_submodule(self.family.blocks, self._recorders)
        self._body = self._filled(model.get_submodule(self.family.body), self.family.body)
        self._arguments: dict[tuple[int, int], list[dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._recorders)

    def weight_name(self, i: int, reader: str) -> str:
        """Stored name of the weight of one reader of block `i`."""
        return self.checkpoint.resolve(f"{self.family.blocks}.{i}.{reader}.weight")

    def load(self, i: int) -> nn.Module:
        """Block `i` with its weights, in evaluation mode; parameters ask for no gradient."""
        return self._filled(copy.deepcopy(self._empty_blocks[i]), f"{self.family.blocks}.{i}")

    @torch.inference_mode()
    def embed(self, ids: np.ndarray, *, batch: int = 8) -> torch.Tensor:
        """What the first block receives.

        Parameters
        ----------
        ids : (n, l) array of int
            Token ids of `n` sequences of equal length.
        batch : int
            Sequences per forward pass.

        Returns
        -------
        (n, l, d) tensor
        """
        rows = torch.as_tensor(np.asarray(ids, dtype=np.int64))
        return torch.cat([self._first_input(part) for part in rows.split(batch)])  # (n, l, d)

    @torch.inference_mode()
    def forward(self, block: nn.Module, i: int, hidden: torch.Tensor, *, batch: int = 8) -> torch.Tensor:
        """Run block `i` on hidden states `(n, l, d)`, `batch` sequences at a time; returns `(n, l, d)`.

        The hidden states may rest on another device than the walk's; the result rests where they do.
        """
        result = torch.empty_like(hidden)  # (n, l, d)
        for part, into in zip(hidden.split(batch), result.split(batch), strict=True):
            arguments = self._arguments_for(part.shape[0], part.shape[1])[i]
            into.copy_(block(part.to(self.device), **arguments))
        return result

    def _filled(self, module: nn.Module, prefix: str) -> nn.Module:
        names = {name: f"{prefix}.{name}" for name in module.state_dict()}
        weights = {name: self._weight(full) for name, full in names.items()}
        module.load_state_dict(weights, strict=True, assign=True)
        return module.to(self.device).eval().requires_grad_(False)

    def _weight(self, name: str) -> torch.Tensor:
        return self.checkpoint.read(name).to(device=self.device, dtype=self.dtype)

    def _first_input(self, ids: torch.Tensor) -> torch.Tensor:
        self._body(input_ids=ids.to(self.device), use_cache=False)
        return self._recorders[0].received

    def _arguments_for(self, sequences: int, length: int) -> list[dict[str, Any]]:
        """The arguments of every block. They depend on the shape of the input only, as no sequence is padded."""
        shape = (sequences, length)
        if shape not in self._arguments:
            self._first_input(torch.zeros(shape, dtype=torch.int64))
            self._arguments[shape] = [recorder.arguments for recorder in self._recorders]
        return self._arguments[shape]
