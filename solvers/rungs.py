"""The precisions in which a fast twin multiplies by the Gram, and what each loses with the digits of its factors.

Letters: fl(a) = a (1 + d), |d| <= u, the nearest number of b significant bits; h = fl(a), l = fl(a - h). P is the
product of A and B at a rung, before its sums are rounded in the rung's dtype.

    |P - A B| <= e |A| |B|                                                                        (1)
    fp64, fp32:   P = A B                                  e = 0                                  (2)
    tf32, bf16:   P = fl(A) fl(B)                          e = 2u + u^2                           (3)
    bf16x3:       P = h_A h_B + h_A l_B + l_A h_B          e = u^2 ((1 + u)^2 + 2 + u^2)          (4)

(4): |l| <= u (1 + u) |a|, and a - h - l, what the two parts leave, is at most u^2 |a|. tf32 has 11 significant bits,
and hardware may cut instead of round: u = 2^-10. bf16 has 8 and is always rounded: u = 2^-8.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from solvers.refusal import Refusal


class Rung(NamedTuple):
    """How products with the Gram are taken.

    Attributes
    ----------
    name : what a user types
    dtype : of the arrays and of the sums
    bits : significant bits of a factor, or of each of its parts
    parts : into how many parts a factor is split
    unit : u of the factors; 0 where they are multiplied as they are stored
    precision : what a trace says of rows that were taken on this rung
    """

    name: str
    dtype: str
    bits: int
    parts: int
    unit: float
    precision: str

    @property
    def loss(self) -> float:
        """e of (1)."""
        u = self.unit
        return 2 * u + u * u if self.parts == 1 else u * u * ((1 + u) ** 2 + 2 + u * u)  # (3), (4)


RUNGS = {
    rung.name: rung
    for rung in (
        Rung("fp64", "float64", 53, 1, 0.0, "float64"),
        Rung("fp32", "float32", 24, 1, 0.0, "float32"),
        Rung("bf16x3", "float32", 8, 2, 2.0**-8, "bf16x3"),
        Rung("tf32", "float32", 11, 1, 2.0**-10, "tf32"),
        Rung("bf16", "float32", 8, 1, 2.0**-8, "bf16"),
    )
}

AUTO = {
    "cpu": ("fp32", "no rung takes fewer seconds a step, lower ones are emulated (records of `precision-ladder`)"),
    "cuda": ("fp32", "unmeasured, for want of a GPU: the default of the CPU until a record says otherwise"),
}


def read(name: str) -> Rung:
    """The rung of a name, or of the dtype in which nothing is rounded: ``float64``, ``float32``."""
    known = {**RUNGS, **{rung.precision: rung for rung in RUNGS.values()}}
    if name not in known:
        raise Refusal(
            f"a fast twin computes in float64 or float32, or with products at one of {', '.join(RUNGS)}; got '{name}'. "
            "Leave the rounding of the weights to the end."
        )
    return known[name]


def resolve(name: str, device: Any) -> str:
    """`name` as a rung; ``auto`` is the cheapest that keeps the certificates on that type of device, see `AUTO`.

    Parameters
    ----------
    name : a rung, ``float64``, ``float32`` or ``auto``
    device : of any array library, or its name, ``cuda:1``
    """
    if name != "auto":
        return read(name).name
    of_type = str(getattr(device, "type", device)).lower()  # torch has types, CuPy says <CUDA Device 0>, others "cpu"
    return AUTO["cuda" if "cuda" in of_type else "cpu"][0]
