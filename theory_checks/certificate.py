"""A verdict with both sides of its inequality, and the only tolerance of the project."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.rungs import RUNGS


def allowance(scale: float, size: int, dtype: npt.DTypeLike = np.float64) -> float:
    """What rounding may contribute to a computed sum of `size` terms whose magnitudes add up to `scale`.

    The standard model bounds the error of a sum of products by gamma_m times the sum of magnitudes,
    gamma_m = m u / (1 - m u) [Higham 2002, eq. 3.5]. Both sides of an inequality are such sums, each of at most two
    nested ones, so m = 4 (size + 8) covers them. On a rung of `solvers.rungs`, named instead of a dtype, every product
    also loses a share e of the magnitudes with the digits of its factors: 4 e for the same four.
    """
    rung = RUNGS.get(dtype) if isinstance(dtype, str) else None
    m = 4 * (size + 8)
    u = float(np.finfo(rung.dtype if rung else dtype).eps) / 2
    lost = 4 * rung.loss if rung else 0.0
    return (lost + m * u / (1 - m * u)) * scale if m * u < 1 else float("inf")


@dataclass(frozen=True)
class Certificate:
    """One statement evaluated: `measured <= bound + allowance`, or the reason why it says nothing here.

    Attributes
    ----------
    name : short name, unique among claims
    claim : the inequality in words and letters
    where : its source, with the theorem's number where the source could be read
    measured, bound : its two sides
    allowance : what rounding may add, from `allowance`
    applies : empty, or the assumption that is not met, with its number
    inconclusive : empty, or why a sample that does not contradict the claim is too small to support it
    """

    name: str
    claim: str
    where: str
    measured: float
    bound: float
    allowance: float = 0.0
    applies: str = ""
    inconclusive: str = ""

    @property
    def slack(self) -> float:
        return self.bound - self.measured

    @property
    def excess(self) -> float:
        """How far the inequality is missed beyond the allowance; negative or zero where it holds."""
        return self.measured - self.bound - self.allowance

    @property
    def outcome(self) -> str:
        """``holds``, ``fails``, ``inconclusive`` or ``not applicable``; a nan on either side fails."""
        if self.applies:
            return "not applicable"
        if not self.measured <= self.bound + self.allowance:
            return "fails"
        return "inconclusive" if self.inconclusive else "holds"

    def as_dict(self) -> dict[str, Any]:
        """A flat dictionary for records and ``--json``."""
        facts = {key: value for key, value in asdict(self).items() if value or key != "inconclusive"}
        return {**facts, "outcome": self.outcome}

    def __str__(self) -> str:
        why = self.applies or (self.inconclusive if self.outcome == "inconclusive" else "")
        verdict = f"{self.outcome} because {why}" if why else self.outcome
        return f"{self.name}: {self.measured:.4g} <= {self.bound:.4g} + {self.allowance:.1g}: {verdict}"
