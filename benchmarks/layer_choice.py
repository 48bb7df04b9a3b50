"""What the layer benchmark measures: blocks, sites and layers by name, and which method meets which pattern."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import solvers
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.choices import read_spec
from llm_pipeline.families import Family, Site, family_of
from solvers.methods import Method, near
from solvers.refusal import Refusal
from solvers.sparsity import Target
from solvers.swaps import most_of

EXAMPLE = "such as 'mlp input,q_proj'"


@dataclass(frozen=True)
class Attempt:
    """A method on a pattern; `refused` says why it cannot, where it cannot; `swaps` where its spec says how many."""

    name: str
    method: Method
    target: Target
    refused: str = ""
    swaps: int | str | None = None


@dataclass(frozen=True)
class Choice:
    """The layers of every measured block, by site, and what is tried on each of them."""

    sites: dict[int, tuple[Site, ...]]
    attempts: tuple[Attempt, ...]

    @property
    def layers(self) -> int:
        """How many layers are measured."""
        return sum(len(site.readers) for sites in self.sites.values() for site in sites)


def choose(
    source: Checkpoint, methods: tuple[str, ...], sparsities: tuple[str, ...], blocks: str | None, layers: str | None
) -> Choice:
    """Check every option against the model's headers; nothing is computed.

    Parameters
    ----------
    blocks : ``a:b``, the blocks a to b - 1, either end open; one number; None for all
    layers : comma-separated names of sites and regular expressions that the weight's name holds; None for all

    Raises
    ------
    Refusal
        For a name that is not known, a pattern that a layer cannot have, a filter that leaves nothing, or where no
        method can do anything that was asked.
    """
    family = family_of(source.config)
    chosen = sites_of(family, block_numbers(blocks, source.config.num_hidden_layers), layers)
    readers = [(i, reader) for i, sites in chosen.items() for site in sites for reader in site.readers]
    shapes = [source.shape(f"{family.blocks}.{i}.{reader}.weight") for i, reader in readers]
    targets = [solvers.parse(sparsity) for sparsity in sparsities]
    tried = [_attempt(name, target, shapes) for target, name in product(targets, methods)]
    if all(attempt.refused for attempt in tried):
        raise Refusal(tried[0].refused)
    return Choice(chosen, tuple(tried))


def _read(spec: str) -> tuple[Method, int | str | None]:
    """The method of a spec such as ``maiht:iters=50,swaps=all``, its hyper-parameters filled in, and its swaps."""
    read = read_spec(spec)
    name, options, swaps = read.pop("method"), read.pop("settings"), read.pop("swaps", None)
    if read or "mu" in options:
        raise Refusal(
            f"'{spec}' may set swaps and hyper-parameters of {name} only: this benchmark measures every stage itself, "
            "with the same ridges for all methods."
        )
    method = solvers.find(name)
    if options:
        method = replace(method, run=partial(method.run, **method.read_options(name, options)))
    return method, swaps if swaps is None or most_of(swaps) is None else int(swaps)


def _attempt(name: str, target: Target, shapes: list[tuple[int, ...]]) -> Attempt:
    method, swaps = _read(name)
    for rows, inputs in shapes:
        budget = target.on((rows, inputs))
        try:
            method.require(name, budget)
        except Refusal as refusal:
            return Attempt(name, method, target, str(refusal))
    return Attempt(name, method, target, swaps=swaps)


def block_numbers(typed: str | None, count: int) -> range:
    """The blocks that ``a:b`` names, of `count`.

    >>> block_numbers("1:3", 6), block_numbers("4:", 6), block_numbers("2", 6)
    (range(1, 3), range(4, 6), range(2, 3))
    """
    found = re.fullmatch(r"(\d*)(:?)(\d*)", ":" if typed is None else typed.strip())
    if found and (found[2] or found[1]):
        first = int(found[1] or 0)
        last = int(found[3] or count) if found[2] else first + 1
        if first < last <= count:
            return range(first, last)
    raise Refusal(f"--blocks is a:b with 0 <= a < b <= {count}, the model's blocks, or one number; got '{typed}'.")


def sites_of(family: Family, blocks: range, words: str | None) -> dict[int, tuple[Site, ...]]:
    """For each block the sites with those of their readers that a word names; blocks without any are left out."""
    asked = [word.strip() for word in ("." if words is None else words).split(",") if word.strip()]
    if not asked:
        raise Refusal(f"--layers is empty; give sites or regular expressions, {EXAMPLE}, or leave it out for all.")
    patterns = {word: _pattern(word) for word in asked}
    met: set[str] = set()

    def named(i: int, site: Site, reader: str) -> bool:
        name = f"{family.blocks}.{i}.{reader}"
        found = {word for word, pattern in patterns.items() if word == site.name or pattern.search(name)}
        met.update(found)
        return bool(found)

    chosen = {}
    for i in blocks:
        kept = [replace(s, readers=tuple(r for r in s.readers if named(i, s, r))) for s in family.sites]
        if sites := tuple(site for site in kept if site.readers):
            chosen[i] = sites
    if unmet := [word for word in asked if word not in met]:
        known = [*(site.name for site in family.sites), *(reader.split(".")[-1] for reader in family.readers)]
        raise Refusal(
            f"--layers '{unmet[0]}' names no layer of blocks {blocks.start}:{blocks.stop}.{near(unmet[0], known)} "
            f"Give sites or regular expressions: {', '.join(known)}."
        )
    return chosen


def _pattern(word: str) -> re.Pattern[str]:
    try:
        return re.compile(word)
    except re.error as error:
        raise Refusal(
            f"--layers takes names of sites and regular expressions; '{word}' is no expression ({error})."
        ) from error
