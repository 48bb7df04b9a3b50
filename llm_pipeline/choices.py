"""What is chosen for a run beside model and texts: typed options into checked parts of a plan, and back into a spec.

A spec is ``METHOD`` or ``METHOD:key=value,key=value``: the options below by their names, mu, or a hyper-parameter of
the method; what is not written keeps its default. ``maiht:refine=exact,swaps=all``, ``fista:start=sparsegpt``.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import solvers
from llm_pipeline.plan import Allocation, MethodChoice, Plan
from solvers.allocate import LAMBDA, M, allot, share_of
from solvers.door import REFINE_MU, SOLVERS, precision_of
from solvers.methods import near
from solvers.refine import refinement
from solvers.refusal import Refusal
from solvers.swaps import most_of

CORRECTIONS = ("none", "block")
INPUTS = ("pruned", "dense")
ALLOCATIONS = ("uniform", "owl")
PLAIN = ("refine", "swaps", "refine_mu", "error_correction", "inputs", "solver", "precision")
OPTIONS = (*PLAIN, "allocate", "owl_lambda", "owl_m")
MU = 0.1


def choose(
    *,
    method: str = "maiht",
    sparsity: str = "50%",
    settings: dict[str, Any] | None = None,
    refine: str = "none",
    swaps: int | str = 0,
    refine_mu: float | str = REFINE_MU,
    error_correction: str = "none",
    inputs: str = "pruned",
    allocate: str = "uniform",
    owl_lambda: float | str = LAMBDA,
    owl_m: float | str = M,
    solver: str = "fast",
    precision: str = "auto",
    device: str = "cpu",
) -> dict[str, Any]:
    """Fields of a `Plan`; `settings` are mu and the method's hyper-parameters, as text or typed.

    `device` decides what the precision ``auto`` is.
    """
    chosen, target = solvers.find(method), solvers.parse(sparsity)
    refine, most = refinement(refine, swaps), most_of(swaps)
    _one_of("error-correction", error_correction, CORRECTIONS)
    _one_of("inputs", inputs, INPUTS)
    _one_of("allocate", allocate, ALLOCATIONS)
    _one_of("solver", solver, SOLVERS)
    options = dict(settings or {})
    mu, refine_mu = _ridge("mu", options.pop("mu", MU)), _ridge("refine-mu", refine_mu)
    allocation = Allocation(allocate)
    lam, m = _positive("owl-lambda", owl_lambda), _positive("owl-m", owl_m)
    if allocate != "owl" and (lam, m) != (LAMBDA, M):
        raise Refusal("--owl-lambda and --owl-m say how --allocate owl allots; with uniform they do nothing. Add it.")
    if allocate == "owl":
        share = share_of(target)
        allot([0], [1], share, lam)  # refuses a lambda that it could not follow
        allocation = Allocation(allocate, {"lambda": lam, "m": m})
    return {
        "method": MethodChoice(method, {**chosen.options(), **chosen.read_options(method, options)}),
        "sparsity": str(target),
        "refine": refine,
        "swaps": "all" if most is None else most,
        "mu": mu,
        "refine_mu": refine_mu,
        "error_correction": error_correction,
        "inputs": inputs,
        "allocation": allocation,
        "solver": solver,
        "precision": precision_of(solver, precision, device),
    }


def read_spec(text: str) -> dict[str, Any]:
    """A spec as arguments of `choose`; what it does not say is absent."""
    name, colon, rest = text.partition(":")
    known = (*OPTIONS, "mu", *solvers.find(name.strip()).options())
    read: dict[str, Any] = {"method": name.strip(), "settings": {}}
    for pair in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value:
            raise Refusal(f"a method is written NAME or NAME:key=value,key=value; got '{text}'. {EXAMPLES}")
        if key not in known:
            raise Refusal(f"{name} takes no '{key}' in '{text}'.{near(key, known)} Known: {', '.join(known)}.")
        into = read if key in OPTIONS else read["settings"]
        if key in into:
            raise Refusal(f"'{text}' says {key} twice; say it once.")
        into[key] = value
    return read


EXAMPLES = "For example maiht:refine=exact,swaps=all or fista:start=sparsegpt."


def split_specs(text: str) -> tuple[str, ...]:
    """Specs from one comma-separated text: a part ``key=value`` goes on with the spec before it.

    >>> split_specs("wanda, maiht:refine=gradient:30,swaps=0, iht")
    ('wanda', 'maiht:refine=gradient:30,swaps=0', 'iht')
    """
    specs: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if specs and re.match(r"[^:=]+=", part):
            specs[-1] += f",{part}"
        else:
            specs.append(part)
    return tuple(dict.fromkeys(specs))


def spec(plan: Plan) -> str:
    """The plan's method as a spec that says what differs from the defaults."""
    usual = {f.name: f.default for f in fields(Plan)} | {"precision": precision_of(plan.solver, "auto", plan.device)}
    said = {
        key: getattr(plan, key)
        for key in ("refine", "swaps", "refine_mu", "error_correction", "inputs", "mu", "solver", "precision")
    }
    different = {key: value for key, value in said.items() if value != usual[key]}
    if plan.allocation.name != "uniform":
        different["allocate"] = plan.allocation.name
        owl = {"lambda": LAMBDA, "m": M}
        different |= {f"owl_{k}": v for k, v in plan.allocation.options.items() if v != owl[k]}
    defaults = solvers.find(plan.method.name).options()
    different |= {key: value for key, value in plan.method.options.items() if value != defaults.get(key)}
    pairs = ",".join(f"{key}={value}" for key, value in different.items())
    return f"{plan.method.name}:{pairs}" if pairs else plan.method.name


def _one_of(option: str, typed: str, known: tuple[str, ...]) -> None:
    if typed not in known:
        raise Refusal(f"--{option} is one of {', '.join(known)}; got '{typed}'.{near(typed, known)}")


def _ridge(name: str, value: Any) -> float:
    return _number(
        value,
        f"{name}, a ridge on the unit-diagonal Gram, must be a number of at least 0; got '{value}'. "
        f"Usually mu is {MU}, refine-mu {REFINE_MU}.",
    )


def _positive(name: str, value: Any) -> float:
    usual = f"Usually owl-lambda is {LAMBDA}, owl-m {M}."
    return _number(value, f"--{name} must be a number of at least 0; got '{value}'. {usual}")


def _number(value: Any, otherwise: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise Refusal(otherwise)
    return number
