"""What all figures share: a canvas with fixed settings, one legend above the panels, log axes with few ticks."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from reports.svg import STYLE, WIDTH, accessible


def logarithmic(axes: Axes, which: str = "y") -> None:
    """A log scale with few ticks, written as plain numbers; values that are not positive leave gaps."""
    getattr(axes, f"set_{which}scale")("log", nonpositive="mask")
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    narrow = LogLocator(subs=(1.0, 2.0, 5.0)) if high > 3 * low else MaxNLocator(4)
    axis.set_major_locator(LogLocator(numticks=6) if high > 100 * low else narrow)
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def legend(figure: Figure, panels: Sequence[Axes], columns: int) -> None:
    """One entry per label, above all panels."""
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=max(columns, 1))


def svg(name: str, title: str, description: str, draw: Callable[[Figure], None], height: float) -> str:
    """The text of one figure: the same bytes for the same drawing, whatever the reader's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a reader's matplotlibrc must not change the bytes
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return accessible(buffer.getvalue(), name, title, description)
