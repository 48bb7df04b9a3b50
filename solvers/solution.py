"""What a solver hands back: weights, facts per iteration, and the sentence that says why it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from solvers.problem import LayerProblem
from solvers.sparsity import L1, Array


class Stop(Enum):
    """Why a solver stopped; the value is the sentence for the user."""

    CLOSED_FORM = "closed form: one pass, nothing to iterate"
    CONVERGED = "converged: neither the plain step nor the iterate moved by more than the tolerance"
    SETTLED = "settled: the support did not change between two checks"
    EXHAUSTED = "iterations exhausted"


@dataclass
class Trace:
    """Facts per iteration, never verdicts. Row t describes the step from x_t to x_{t+1}.

    Attributes
    ----------
    step : the step size s of every row
    tol : the relative move at which the run was told to stop
    first : F(x_0) under the sparsity of the first row; inf where x_0 breaks the budget
    objective : F(x_{t+1})
    plain : F(v_{t+1}), v the plain proximal step from x_t
    move : |v_{t+1} - x_t|^2, squared Frobenius norm
    nonzeros : nonzeros of x_{t+1}
    level : the keep count, or the penalty, in force in this row
    dtype : precision in which the steps were taken and their facts summed: a dtype, or a rung of `solvers.rungs`
    ramp_dtype : the same of the first `ramp_rows` rows, where a schedule was taken in another precision
    ramp_rows : how many rows those are
    """

    step: float
    tol: float
    first: float
    objective: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    move: list[float] = field(default_factory=list)
    nonzeros: list[int] = field(default_factory=list)
    level: list[float] = field(default_factory=list)
    dtype: str = "float64"
    ramp_dtype: str = ""
    ramp_rows: int = 0

    def __len__(self) -> int:
        return len(self.objective)

    def change_to(self, dtype: str) -> None:
        """From the next row on the precision is another."""
        self.ramp_dtype, self.ramp_rows, self.dtype = self.dtype, len(self), dtype


class Relaxed(NamedTuple):
    """A convex relaxation as it was solved: the problem, its penalty, and the weights (out, in) before rounding."""

    problem: LayerProblem
    penalty: L1
    weight: Array


@dataclass(frozen=True)
class Solution:
    """Weights (out, in) in the coordinates of the problem solved, and how they came about.

    `relaxed` is what was rounded to `weight`, for methods that solve a relaxation first.
    """

    weight: Array
    stop: Stop = Stop.CLOSED_FORM
    trace: Trace | None = None
    bias: Array | None = None
    relaxed: Relaxed | None = None
