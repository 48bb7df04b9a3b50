"""A planted defect: what is patched where, and which checks are known to notice it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch


class Patch(NamedTuple):
    owner: Any
    attribute: str
    replacement: Any


@dataclass(frozen=True)
class Mutant:
    """A defect, where it is planted, and the claims or contract clauses that are known to kill it."""

    name: str
    patches: tuple[Patch, ...]
    killed_by: tuple[str, ...]

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, attribute, replacement in self.patches:
                stack.enter_context(patch.object(owner, attribute, replacement))
            yield
