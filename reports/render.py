"""Tables into Markdown and HTML; every number is written by one function."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.tables import Cell, Table

if TYPE_CHECKING:
    from jinja2 import Environment

ABSENT = "–"
GIB = 2**30
WRITTEN: dict[str, Callable[[Any], str]] = {
    "text": str,
    "hash": lambda value: str(value)[:12],
    "count": lambda value: f"{value:,}",
    "real": lambda value: f"{value:#.4g}".rstrip("."),  # trailing zeros stay: they were measured
    "used": lambda value: f"{value:.3f}",
    "share": lambda value: f"{value:.2%}",
    "seconds": lambda value: f"{value:.2f} s",
    "bytes": lambda value: f"{value / GIB:.2f} GiB",
}
NUMBERS = ("count", "real", "used", "share", "seconds", "bytes")


def written(cell: Cell) -> str:
    """The cell as a reader sees it: ``12.35 [11.90, 12.80]``, ``50.00%``, or a dash where nothing was measured."""
    if cell.value is None:
        return ABSENT
    write = WRITTEN[cell.kind]
    if cell.interval is None:
        return write(cell.value)
    low, high = cell.interval
    return f"{write(cell.value)} [{write(low)}, {write(high)}]"


def numeric(table: Table) -> list[bool]:
    """For each column whether it is aligned to the right."""
    return [any(row[place].kind in NUMBERS for row in table.rows) for place in range(len(table.header))]


def tooltip(cell: Cell) -> str:
    """What hovering shows: the source, and a hash in full."""
    full = [cell.value] if cell.kind == "hash" and cell.value else []
    return " · ".join([*full, *([cell.source] if cell.source else [])])


def bar(cell: Cell) -> float | None:
    """The length of the bar beside a used share, in per cent of its frame; none beside anything else."""
    if cell.kind != "used" or cell.value is None:
        return None
    return round(100 * min(max(cell.value, 0.0), 1.0), 2)


def markdown(table: Table) -> str:
    """A pipe table with its notes underneath.

    Parameters
    ----------
    table : Table
        Any; one without rows becomes its notes.

    Returns
    -------
    str
        Lines without a trailing newline.
    """
    notes = "\n\n".join(table.notes)
    if not table.rows:
        return notes
    rule = ["---:" if right else "---" for right in numeric(table)]
    body = [[_marked(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(line)} |" for line in [list(table.header), rule, *body]]
    return "\n".join(lines) + (f"\n\n{notes}" if notes else "")


def html(table: Table) -> str:
    """The table as HTML, every cell with its source as tooltip."""
    module = environment().get_template("table.html").module
    return str(module.table(table))  # type: ignore[attr-defined]


@cache
def environment() -> "Environment":
    """The templates, escaping everything that is not marked as safe."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # the README check needs no templates

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals.update(written=written, tooltip=tooltip, numeric=numeric, bar=bar)
    return made


def _marked(cell: Cell) -> str:
    text = _escaped(written(cell))
    return f"**{text}**" if cell.mark == "best" else text


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
