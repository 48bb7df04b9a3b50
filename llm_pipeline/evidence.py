"""What the layers of a site see: the Gram of their inputs, and its drift from the inputs of the dense block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from llm_pipeline.blocks import BlockWalk
from llm_pipeline.families import Site
from llm_pipeline.gram import MeanDrift, MeanGram, recording, watching
from solvers.linalg import require_positive_semidefinite
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal

BATCH = 8  # sequences that both blocks run at a time


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
    means = {site.readers[0]: MeanGram(block.get_submodule(site.readers[0]).in_features) for site in sites}
    drifts = {path: MeanDrift(mean.width) for path, mean in means.items() if dense is not None}
    with watching(block, means):
        output = walk.forward(block, i, hidden) if dense is None else _run_both(walk, dense, block, i, hidden, drifts)
    grams = [_checked(means[site.readers[0]], site, i) for site in sites]
    moved = [drifts[site.readers[0]].value() if drifts else None for site in sites]
    return [Inputs(g, d if d and d[1].any() else None) for g, d in zip(grams, moved, strict=True)], output


def _run_both(
    walk: BlockWalk, dense: nn.Module, block: nn.Module, i: int, hidden: torch.Tensor, drifts: dict[str, MeanDrift]
) -> torch.Tensor:
    """Both blocks on the same hidden states, a few sequences at a time."""
    output = torch.empty_like(hidden)
    with recording(dense, drifts) as before, recording(block, drifts) as after:
        for part, into in zip(hidden.split(BATCH), output.split(BATCH), strict=True):
            walk.forward(dense, i, part)
            into.copy_(walk.forward(block, i, part))
            for path, drift in drifts.items():
                drift.add(before[path], after[path])
    return output


def _checked(mean: MeanGram, site: Site, i: int) -> Gram:
    try:
        gram = Gram(mean.value())
        require_positive_semidefinite(gram.H)
    except Refusal as refusal:
        raise Refusal(f"block {i}, {site.name}: {refusal}") from refusal
    return gram
