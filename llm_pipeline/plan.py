"""Everything that determines a run, frozen; TOML out and in."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_origin, get_type_hints

from solvers.door import REFINE_MU
from solvers.refusal import Refusal

FILE = "plan.toml"


@dataclass(frozen=True)
class ModelSource:
    """The model to prune: its name, its folder, and the digest of every weight file."""

    name: str
    path: str
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodChoice:
    """A method's name and every hyper-parameter that it runs with, defaults included."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Allocation:
    """What decides how much each block keeps: ``uniform``, or ``owl`` with its options.

    Attributes
    ----------
    outliers, kept : entries of every block of the dense model that stand out, and that may stay; known once the run
        has measured them, empty under ``uniform``
    """

    name: str = "uniform"
    options: dict[str, Any] = field(default_factory=dict)
    outliers: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class CalibrationSource:
    """The calibration sequences: where they come from and how they were drawn."""

    source: str
    path: str
    sha256: str
    tokenizer_sha256: str
    sequences: int
    length: int
    protocol: str


@dataclass(frozen=True)
class Plan:
    """What a run is: two runs with equal plans on equal versions write equal weights.

    Attributes
    ----------
    sparsity : as typed, ``50%`` or ``2:4``
    refine : ``none``, ``gradient:N`` or ``exact``; ``exact`` where swaps are made
    swaps : exchanges that a row may make, or ``all``
    mu : ridge of the search on the unit-diagonal Gram
    refine_mu : ridge of refinement and swaps
    error_correction : ``block``, where layers make good for the sites pruned before them in their block; or ``none``
    solver : ``reference``, NumPy in float64; or ``fast``: whatever has a fast twin is done by it on `device`
    precision : of the solver's products with the Gram, a rung of `solvers.rungs`
    inputs : whose output a block receives, the ``pruned`` or the ``dense`` predecessors'
    allocation : how much each block keeps
    seed : of the calibration draw
    device, dtype : of the forward passes
    """

    model: ModelSource
    method: MethodChoice
    calibration: CalibrationSource
    sparsity: str
    refine: str = "none"
    swaps: int | str = 0
    mu: float = 0.1
    refine_mu: float = REFINE_MU
    error_correction: str = "none"
    inputs: str = "pruned"
    allocation: Allocation = field(default_factory=Allocation)
    solver: str = "fast"
    precision: str = "fp32"
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def last_mu(self) -> float:
        """The ridge of the last stage, on whose problem the saved weights are judged."""
        return self.mu if self.refine == "none" else self.refine_mu

    @property
    def needs_dense_block(self) -> bool:
        """Whether a block's dense copy runs beside it."""
        return self.error_correction == "block" or self.inputs == "dense"

    def to_toml(self) -> str:
        """Plain keys first, then one table a part."""
        parts = asdict(self)
        plain = {key: value for key, value in parts.items() if not isinstance(value, dict)}
        tables = {key: value for key, value in parts.items() if isinstance(value, dict)}
        return "\n\n".join([_lines(plain), *(_table(key, value) for key, value in tables.items())]) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan of a run folder."""
        try:
            parts = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))
            model, method, calibration = (parts.pop(key) for key in ("model", "method", "calibration"))
            parts["allocation"] = Allocation(**parts.pop("allocation", {}))
            found = cls(ModelSource(**model), MethodChoice(**method), CalibrationSource(**calibration), **parts)
            _require_kinds(found)
            return found
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refusal(
                f"a run folder holds a readable {FILE}; {folder} does not ({type(error).__name__}: {error}). "
                "Give the --out folder of a finished `python -m llm_pipeline prune`."
            ) from error


def _require_kinds(part: Any, place: str = "") -> None:
    """Every field of a plan is what its annotation says."""
    for name, kind in get_type_hints(type(part)).items():
        value, told = getattr(part, name), f"{place}{name}"
        plain = kind if isinstance(kind, UnionType) else get_origin(kind) or kind
        if is_dataclass(kind):
            _require_kinds(value, f"{told}.")
        elif not isinstance(value, int | float if plain is float else plain):
            raise TypeError(f"{told} = {value!r} is a {type(value).__name__}")


def _lines(plain: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(key) if '.' in key else key} = {_value(value)}" for key, value in plain.items())


def _table(name: str, values: dict[str, Any]) -> str:
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    inner = [_table(f"{name}.{key}", value) for key, value in values.items() if isinstance(value, dict)]
    return "\n\n".join([f"[{name}]\n{_lines(plain)}".rstrip(), *inner])


def _value(value: Any) -> str:
    """A TOML value; JSON's strings, booleans and numbers are TOML's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
