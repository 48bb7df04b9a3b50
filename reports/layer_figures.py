"""Figures of layer records: errors through the depth of the model, and sorted ratios to a baseline."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.layer_summary import TEXTS, stages
from reports.canvas import legend, logarithmic, svg
from reports.layer_tables import WRITTEN
from reports.layers import STAGE, by_depth, methods, roles, sites, sorted_ratios
from reports.load import Row
from reports.svg import COLOURS, INK, MARKERS

LOOKS = {"calibration": "-", "held_out": ":"}


def depth(rows: Sequence[Row]) -> str:
    """Error of the last stage against the block, a panel per site, a colour per method; one pattern of one setting."""
    last, names, places = stages(rows)[-1], methods(rows), sites(rows)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
        for axes, site in zip(panels, places, strict=True):
            for index, name in enumerate(names):
                for text, line in LOOKS.items():
                    points = by_depth(rows, site, name, last, text)
                    blocks, values = [block for block, _ in points], [value for _, value in points]
                    label = name if text == "calibration" else None
                    axes.plot(blocks, values, line, **_look(index), label=label)
            axes.set(title=site, xlabel="block")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for text, line in LOOKS.items():
            panels[0].plot([], [], line, color=INK, label=WRITTEN[text])
        panels[0].set_ylabel(f"relative error, {last}")
        logarithmic(panels[0])
        legend(figure, panels, 8)

    told = f"{', '.join(names)}; solid on calibration, dotted on held-out text; log scale."
    return svg(f"layer depth {_setting(rows)}", f"Relative error by depth, {rows[0]['sparsity']}", told, draw, 3.6)


def ratios(rows: Sequence[Row]) -> str:
    """Errors over the refitted baseline's, layers sorted by their ratio; one pattern of one setting."""
    names, (_, baseline) = methods(rows), roles(rows)
    assert baseline is not None
    measured = [stage for stage in stages(rows) if stage != "found"]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(TEXTS), sharey=True, squeeze=False)[0]
        for axes, text in zip(panels, TEXTS, strict=True):
            for index, name in enumerate(names):
                for stage in measured:
                    values = sorted_ratios(rows, name, baseline, stage, text)
                    if (name, stage) == (baseline, STAGE) or not values:
                        continue
                    label = name if stage == STAGE else f"{name}, {stage}"
                    line = "-" if stage == STAGE else "--"
                    axes.plot(range(1, len(values) + 1), values, line, **_look(index), label=label)
            axes.axhline(1.0, color=INK, linewidth=1)
            axes.set(title=WRITTEN[text], xlabel="layers, sorted")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panels[0].set_ylabel(f"error / error of {baseline}, refined")
        logarithmic(panels[0])
        legend(figure, panels, 6)

    told = "; ".join(_share_below(rows, name, baseline) for name in names if name != baseline)
    title = f"Error over that of {baseline}, refined, {rows[0]['sparsity']}"
    return svg(f"layer ratios {_setting(rows)}", title, told, draw, 3.6)


def _look(index: int) -> dict[str, object]:
    return {"color": COLOURS[index % 6], "marker": MARKERS[index % 7], "markersize": 3.5}


def _setting(rows: Sequence[Row]) -> str:
    """A name that no other figure of a page has: the first record's."""
    return f"{rows[0]['sparsity']} {rows[0]['id']}"


def _share_below(rows: Sequence[Row], name: str, baseline: str) -> str:
    values = sorted_ratios(rows, name, baseline, STAGE, "calibration")
    return f"{name} is below on {sum(value < 1 for value in values)} of {len(values)} layers"
