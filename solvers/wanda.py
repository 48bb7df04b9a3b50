"""Wanda: weights go in the order of |W_ij| |x_j|, the rest stays as it is.

    score_ij = |W0_ij| * sqrt(H_jj)                                                               (1)

[1] M. Sun, Z. Liu, A. Bair, J. Z. Kolter. A Simple and Effective Pruning Approach for Large Language Models. ICLR 2024.
"""

from __future__ import annotations

import numpy as np

from solvers.problem import LayerProblem
from solvers.solution import Solution
from solvers.sparsity import Budget


def wanda(problem: LayerProblem, sparsity: Budget) -> Solution:
    """Keep the largest scores (1); for a diagonal Gram this is the optimal mask, and W0 the optimal weight on it."""
    return Solution(np.where(sparsity.mask(np.abs(problem.W0) * problem.norms), problem.W0, 0.0))
