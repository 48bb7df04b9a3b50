"""Magnitude pruning: the smallest weights go, the rest stays as it is (Hagiwara 1994; Han et al. 2015)."""

from __future__ import annotations

import numpy as np

from solvers.problem import LayerProblem
from solvers.solution import Solution
from solvers.sparsity import Budget


def magnitude(problem: LayerProblem, sparsity: Budget) -> Solution:
    """Keep the largest |W0|; the nearest point of the pattern to W0."""
    return Solution(np.where(sparsity.mask(np.abs(problem.W0)), problem.W0, 0.0))


def dense(problem: LayerProblem, sparsity: Budget) -> Solution:
    """The null method: returns W0. Whatever a run with it changes is a defect of the pipeline."""
    return Solution(problem.W0.copy())
