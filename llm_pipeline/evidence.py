"""What the layers of a site see: the Gram of their inputs, and its drift from the inputs of the dense block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from llm_pipeline.blocks import BATCH, BlockWalk
from llm_pipeline.families import Site
from llm_pipeline.gram import MeanDrift, MeanGram, recording, watching
from solvers.linalg import require_positive_semidefinite
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal


@dataclass(frozen=True)
class Inputs:
    """What the layers of a site see: the Gram of their inputs, and how far those are from the dense block's.

    Attributes
    ----------
    gram : mean Gram of the inputs x~ that the pruned layer gets
    drift : means of (x~ - x) x~^T and (x~ - x)(x~ - x)^T, both (in, in); None where x~ = x or is not to be made good
    """

    gram: Gram
    drift: tuple[np.ndarray, np.ndarray] | None = None

    def problem(self, W0: np.ndarray) -> LayerProblem:
        """The layer whose output shall come near to W0 x."""
        if self.drift is None:
            return LayerProblem(W0, self.gram)
        cross, square = self.drift
        return LayerProblem(W0, self.gram, W0 @ cross, float(np.vdot(W0 @ square, W0)) / 2)


def measure(
    walk: BlockWalk,
    block: nn.Module,
    i: int,
    hidden: torch.Tensor,
    sites: tuple[Site, ...],
    dense: nn.Module | None = None,
) -> tuple[list[Inputs], torch.Tensor]:
    """Run block `i` on hidden (n, l, d); returns what each site sees and the block's output.

    With `dense`, the unpruned block, the drift of every site's input is measured as well.
    """
    output = torch.empty_like(hidden)
    return see(walk, block, i, hidden, sites, dense, output), output


@torch.inference_mode()
def see(
    walk: BlockWalk,
    block: nn.Module,
    i: int,
    hidden: torch.Tensor,
    sites: tuple[Site, ...],
    dense: nn.Module | None = None,
    output: torch.Tensor | None = None,
) -> list[Inputs]:
    """What each site sees while block `i` runs; its output is kept where a tensor is given, which may be `hidden`.

    Where it is not, the block runs only as far as the last of the sites, which come in the order in which they run.
    """
    means = {site.readers[0]: MeanGram(block.get_submodule(site.readers[0]).in_features) for site in sites}
    drifts = {path: MeanDrift(mean.width) for path, mean in means.items() if dense is not None}
    with watching(block, means):
        last = sites[-1].readers[0] if output is None else None
        after = _run(walk, block, i, hidden, last)
        outputs = after if dense is None else _of_both(_run(walk, dense, i, hidden, last), after, dense, block, drifts)
        for n, found in enumerate(outputs):
            if output is not None:
                output[BATCH * n : BATCH * (n + 1)].copy_(found)
    grams = [_checked(means[site.readers[0]], site, i) for site in sites]
    moved = [drifts[site.readers[0]].take() if drifts else None for site in sites]
    return [Inputs(g, d if d and d[1].any() else None) for g, d in zip(grams, moved, strict=True)]


def _run(
    walk: BlockWalk, block: nn.Module, i: int, hidden: torch.Tensor, last: str | None
) -> Iterator[torch.Tensor | None]:
    """Block `i` on the hidden states, a few sequences at a time; its outputs, or none where it stops at `last`."""
    return walk.outputs(block, i, hidden) if last is None else walk.inputs(block, i, hidden, last)


def _of_both(
    outputs_before: Iterator[torch.Tensor | None],
    outputs: Iterator[torch.Tensor | None],
    dense: nn.Module,
    block: nn.Module,
    drifts: dict[str, MeanDrift],
) -> Iterator[torch.Tensor | None]:
    """Both blocks on the same hidden states, a few sequences at a time; what the pruned one puts out."""
    with recording(dense, drifts) as before, recording(block, drifts) as after:
        for _, output in zip(outputs_before, outputs, strict=True):
            for path, drift in drifts.items():
                drift.add(before[path], after[path])
            yield output


def _checked(mean: MeanGram, site: Site, i: int) -> Gram:
    try:
        gram = Gram(mean.take())
        require_positive_semidefinite(gram.H)
    except Refusal as refusal:
        raise Refusal(f"block {i}, {site.name}: {refusal}") from refusal
    return gram
