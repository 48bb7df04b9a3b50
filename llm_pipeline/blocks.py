"""Walking a model one block at a time, with transformers' own modules.

The body of the model runs with every block replaced by a recorder, once for each shape of input. The recorders
keep the arguments that the library passes to each block (masks, rotary embeddings, sliding windows), so nothing
about attention is written here a second time. Blocks are then loaded and run one by one; the embedding is
loaded while it is used. At the end the last recorder hands the last block's output on in the place of what it received,
so that norm and head are the library's too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.families import family_of
from llm_pipeline.shapes import empty_model

BATCH = 8  # sequences that a block runs at a time


class Received(Exception):
    """A module has what it was run for; the rest of its block need not run."""


class Recorder(nn.Module):
    """Stands where a block stood: keeps what it was called with, and passes it or what it was given `instead` on."""

    def __init__(self) -> None:
        super().__init__()
        self.received = torch.empty(0)
        self.arguments: dict[str, Any] = {}
        self.instead: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor, **arguments: Any) -> torch.Tensor:
        """Identity, unless there is something else to pass on."""
        self.received, self.arguments = hidden, arguments
        return hidden if self.instead is None else self.instead


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
        model = empty_model(checkpoint.config, dtype=self.dtype)
        self._empty_blocks = model.get_submodule(self.family.blocks)
        model.set_submodule(self.family.blocks, nn.ModuleList(Recorder() for _ in self._empty_blocks))
        self._empty, self._empty_body = model, model.get_submodule(self.family.body)
        self._arguments: dict[tuple[int, int], list[dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._empty_blocks)

    def weight_name(self, i: int, reader: str) -> str:
        """Stored name of the weight of one reader of block `i`."""
        return self.checkpoint.resolve(f"{self.family.blocks}.{i}.{reader}.weight")

    def load(self, i: int, saved: Checkpoint | None = None) -> nn.Module:
        """Block `i` with its weights, or a pruned copy's, in evaluation mode; parameters ask for no gradient."""
        return self._filled(copy.deepcopy(self._empty_blocks[i]), f"{self.family.blocks}.{i}", saved)

    @torch.inference_mode()
    def embed(
        self,
        ids: np.ndarray,
        *,
        batch: int = BATCH,
        into: Callable[[tuple[int, ...]], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """What the first block receives.

        Parameters
        ----------
        ids : (n, l) array of int
            Token ids of `n` sequences of equal length.
        batch : int
            Sequences per forward pass.
        into : callable, optional
            Makes the tensor to fill from its shape; by default it rests on the walk's device.

        Returns
        -------
        (n, l, d) tensor
        """
        body = self._body()
        rows = torch.as_tensor(np.asarray(ids, dtype=np.int64)).split(batch)
        first = self._first_input(body, rows[0])
        shape = (len(ids), *first.shape[1:])
        result = into(shape) if into else first.new_empty(shape)  # (n, l, d)
        for part, place in zip(rows, result.split(batch), strict=True):
            place.copy_(first if part is rows[0] else self._first_input(body, part))
        return result

    @torch.inference_mode()
    def forward(
        self, block: nn.Module, i: int, hidden: torch.Tensor, *, batch: int = BATCH, into: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run block `i` on hidden states `(n, l, d)`, `batch` sequences at a time; returns `(n, l, d)`.

        The hidden states may rest on another device than the walk's; the result rests where they do, or in `into`,
        which may be `hidden` itself.
        """
        result = torch.empty_like(hidden) if into is None else into  # (n, l, d)
        for output, place in zip(self.outputs(block, i, hidden, batch=batch), result.split(batch), strict=True):
            place.copy_(output)
        return result

    @torch.inference_mode()
    def outputs(self, block: nn.Module, i: int, hidden: torch.Tensor, *, batch: int = BATCH) -> Iterator[torch.Tensor]:
        """What block `i` puts out for `batch` sequences after the other."""
        for part in hidden.split(batch):
            yield self._output(block, i, part)

    @torch.inference_mode()
    def inputs(
        self, block: nn.Module, i: int, hidden: torch.Tensor, path: str, *, batch: int = BATCH
    ) -> Iterator[None]:
        """Block `i` for `batch` sequences after the other, only until the module at `path` has received its input."""

        def stop(*_: Any) -> None:
            raise Received

        handle = block.get_submodule(path).register_forward_pre_hook(stop)
        try:
            for part in hidden.split(batch):
                with suppress(Received):
                    self._output(block, i, part)
                yield
        finally:
            handle.remove()

    def _output(self, block: nn.Module, i: int, part: torch.Tensor) -> torch.Tensor:
        arguments = self._arguments_for(part.shape[0], part.shape[1])[i]
        return block(part.to(self.device, non_blocking=True), **arguments)

    def missing(self) -> list[str]:
        """Tensors that the model needs and the checkpoint does not hold."""
        blocks = (f"{self.family.blocks}.{i}." for i in range(len(self)))
        inside = [
            at + name for at, block in zip(blocks, self._empty_blocks, strict=True) for name in block.state_dict()
        ]
        return sorted(name for name in [*inside, *self._empty.state_dict()] if not self.checkpoint.holds(name))

    def ends(self) -> nn.Module:
        """The causal language model without its blocks: embedding, last norm and head, with their weights."""
        return self._filled(copy.deepcopy(self._empty), "")

    @torch.inference_mode()
    def logits(self, ends: nn.Module, ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """What the model puts out (b, l, v) where its last block puts out `hidden` (b, l, d)."""
        last = ends.get_submodule(self.family.blocks)[-1]
        last.instead = hidden.to(self.device)
        try:
            return ends(input_ids=ids.to(self.device), use_cache=False).logits
        finally:
            last.instead = None

    def _filled(self, module: nn.Module, prefix: str, saved: Checkpoint | None = None) -> nn.Module:
        source = saved or self.checkpoint
        names = {name: source.resolve(f"{prefix}.{name}".removeprefix(".")) for name in module.state_dict()}
        weights = {stored: self._weight(stored, source) for stored in set(names.values())}  # tied ones are one tensor
        module.load_state_dict({name: weights[stored] for name, stored in names.items()}, strict=True, assign=True)
        return module.to(self.device).eval().requires_grad_(False)

    def _weight(self, name: str, checkpoint: Checkpoint) -> torch.Tensor:
        return checkpoint.read(name).to(device=self.device, dtype=self.dtype)

    def _body(self) -> nn.Module:
        """The body with a recorder in the place of every block."""
        return self._filled(copy.deepcopy(self._empty_body), self.family.body)

    def _first_input(self, body: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """What the first block receives; the arguments of all blocks are kept by the shape of the input.

        They depend on nothing else, as no sequence is padded.
        """
        body(input_ids=ids.to(self.device), use_cache=False)
        recorders = list(body.get_submodule(self.family.blocks.removeprefix(f"{self.family.body}.")))
        self._arguments[tuple(ids.shape)] = [recorder.arguments for recorder in recorders]
        return recorders[0].received

    def _arguments_for(self, sequences: int, length: int) -> list[dict[str, Any]]:
        """The arguments of every block for one shape of input."""
        shape = (sequences, length)
        if shape not in self._arguments:
            self._first_input(self._body(), torch.zeros(shape, dtype=torch.int64))
        return self._arguments[shape]
