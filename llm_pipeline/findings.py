"""What verify says of a layer or a file: a certificate, and in words what differs where it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_pipeline.journal import certificate_line
from theory_checks import Certificate


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes
    ----------
    where : the layer or the file it is about
    certificate : both sides of the statement
    differs : where it fails, what is there and what should be
    """

    where: str
    certificate: Certificate
    differs: str = ""

    @property
    def failed(self) -> bool:
        """Whether the statement does not hold."""
        return self.certificate.outcome == "fails"

    def line(self) -> dict[str, Any]:
        """The check in the form of a line of certificates.jsonl, with `differs` where it fails."""
        found = certificate_line(self.where, self.certificate)
        return found | {"differs": self.differs} if self.failed and self.differs else found

    def __str__(self) -> str:
        sides = f"{self.certificate.measured:.4g} against {self.certificate.bound:.4g}"
        return f"{self.where}: {self.certificate.claim} ({self.differs or sides})"


def exact(where: str, name: str, claim: str, against: str, differs: str) -> Finding:
    """A statement that admits no rounding: it holds where nothing differs."""
    return Finding(where, Certificate(name, claim, against, float(bool(differs)), 0.0), differs)


def listed(found: list[str], most: int = 3) -> str:
    """The first few of what was found, and how many more there are."""
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
