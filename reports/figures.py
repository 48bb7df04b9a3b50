"""Figures: one function per figure, rows in, the text of an inline SVG out, the same bytes every time."""

from collections.abc import Sequence
from math import isfinite

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reports.canvas import legend as _legend
from reports.canvas import logarithmic as _logarithmic
from reports.canvas import svg as _svg
from reports.curves import Curve, block_starts, curves, errors, outcome_bands, short, sites
from reports.load import Row, Run
from reports.protocols import protocol
from reports.svg import COLOURS, HATCHES, INK, MARKERS, OUTCOME, WIDE


def layer_errors(runs: Sequence[Run]) -> str:
    """Relative error of every layer: a panel per site, blocks along the axis, several runs overlaid."""
    places = sites(runs)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
        names: list[str] = []
        for axes, site in zip(panels, places, strict=True):
            names += [name for name in errors(runs, site) if name not in names]
            _points(axes, errors(runs, site), names)
            axes.set(title=site, xlabel="block")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels[0].set_ylabel("relative error")
        _logarithmic(panels[0])
        _legend(figure, panels, 7 if len(runs) == 1 else 3)

    described = f"{len(places)} sites, {sum(len(run.layers) for run in runs)} layers, {len(runs)} runs; log scale."
    return _svg(f"layer-errors {[run.name for run in runs]}", "Relative error by layer", described, draw, 3.6)


def objective(run: Run) -> str:
    """Objective against iteration for a few layers: accepted points, plain steps, ends of schedule stages."""
    shown = curves(run)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, curve in zip(panels, shown, strict=True):
            axes.plot(*_from_one(curve.objective), color=COLOURS[0], label="accepted F(x)")
            if curve.plain:
                axes.plot(
                    *_from_one(curve.plain), color=COLOURS[1], linestyle="--", linewidth=1, label="plain step F(v)"
                )
            _stages(axes, curve)
            axes.set(title=short(curve.layer), xlabel="iteration")
            _logarithmic(axes)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panels[0].set_ylabel("objective F")
        _legend(figure, panels, 3)

    described = f"Layers {', '.join(short(curve.layer) for curve in shown)}; dotted lines end a stage of the schedule."
    return _svg(f"objective {run.name}", "Objective against iteration", described, draw, 3.3)


def nonzeros(run: Run) -> str:
    """Share of weights that are not zero against iteration, for the layers of `objective`."""
    shown = curves(run)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, curve in enumerate(shown):
            line = ("-", "--", "-.", ":")[index % 4]
            axes.plot(*_from_one(curve.kept), color=COLOURS[index % 6], linestyle=line, label=short(curve.layer))
        axes.set(xlabel="iteration", ylabel="nonzero weights")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        _legend(figure, [axes], 4)

    return _svg(f"nonzeros {run.name}", "Nonzero weights against iteration", "A line per layer.", draw, 3.0)


def outcomes(run: Run) -> str:
    """Claims by layers: where each claim holds, fails or does not apply."""
    claims, layers, bands = outcome_bands(run)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for outcome, (colour, hatch) in OUTCOME.items():
            chosen = [band for band in bands if band.outcome == outcome]
            rows, widths = [band.claim for band in chosen], [band.width for band in chosen]
            look = {"color": colour, "hatch": hatch, "edgecolor": INK, "linewidth": 0}
            axes.barh(rows, widths, left=[band.first for band in chosen], height=0.8, label=outcome, **look)
        starts = block_starts(run)
        axes.set_xticks(list(starts.values()), [str(block) for block in starts])
        axes.set_yticks(range(len(claims)), claims)
        axes.set(xlabel="block", xlim=(0, len(layers)), ylim=(len(claims) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        _legend(figure, [axes], 3)

    counts = ", ".join(f"{outcome}: {run.outcomes()[outcome]}" for outcome in OUTCOME)
    return _svg(f"outcomes {run.name}", "Certificates by claim and layer", counts, draw, 1.4 + 0.3 * len(claims))


def seconds(runs: Sequence[Run]) -> str:
    """Seconds by stage, a stacked bar per run."""
    stages = list(dict.fromkeys(stage for run in runs for stage in run.summary.get("seconds", {})))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = [0.0] * len(runs)
        for index, stage in enumerate(stages):
            width = [run.summary.get("seconds", {}).get(stage) or 0.0 for run in runs]
            look = {"color": COLOURS[index % 6], "hatch": HATCHES[index % 6], "edgecolor": INK, "linewidth": 0.3}
            axes.barh(range(len(runs)), width, left=left, height=0.6, label=stage, **look)
            left = [start + length for start, length in zip(left, width, strict=True)]
        axes.set_yticks(range(len(runs)), [run.label for run in runs])
        axes.set(xlabel="seconds", ylim=(len(runs) - 0.5, -0.5))
        _legend(figure, [axes], 6)

    return _svg(
        f"seconds {[run.name for run in runs]}", "Seconds by stage", ", ".join(stages), draw, 1.4 + 0.4 * len(runs)
    )


def perplexity(rows: Sequence[Row]) -> str:
    """Perplexity with intervals, a line per measured model; the dense model as a dashed line."""
    shown = [row for row in rows if row["perplexity"] is not None]
    pruned = [row for row in shown if row["method"] != "dense"]
    values = [row["perplexity"] for row in shown if isfinite(row["perplexity"])]
    several = len({row["model"] for row in shown}) > 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row in shown:
            if row["method"] == "dense":
                axes.axvline(row["perplexity"], color=COLOURS[1], linestyle="--", linewidth=1)
        for place, row in enumerate(pruned):
            axes.plot(row.get("interval") or [], [place] * len(row.get("interval") or []), color=COLOURS[0])
            axes.plot(row["perplexity"], place, MARKERS[0], color=COLOURS[0])
        axes.set_yticks(range(len(pruned)), [_measured(row, several) for row in pruned])
        axes.set(xlabel="perplexity (dashed: dense)", ylim=(len(pruned) - 0.5, -0.5))
        if values and max(values) > WIDE * min(values):
            _logarithmic(axes, "x")

    described = "; ".join(f"{_measured(row, several)}: {row['perplexity']:.4g}" for row in shown)
    return _svg(f"perplexity {protocol(rows[0])}", "Perplexity by method", described, draw, 1.1 + 0.32 * len(pruned))


def _measured(row: Row, several: bool) -> str:
    return f"{row['model']} " * several + f"{row['method']} {row['sparsity']}"


def _points(axes: Axes, series: dict[str, list[tuple[float, float]]], names: Sequence[str]) -> None:
    for index, (name, points) in enumerate(series.items()):
        look = names.index(name)
        offset = 0.12 * (index - (len(series) - 1) / 2)
        x, y = zip(*points, strict=True)
        axes.plot(
            [block + offset for block in x], y, MARKERS[look % 7], color=COLOURS[look % 6], markersize=4, label=name
        )


def _from_one(values: Sequence[float]) -> tuple[range, Sequence[float]]:
    """Iterations are counted from 1: the first value is that after the first step."""
    return range(1, len(values) + 1), values


def _stages(axes: Axes, curve: Curve) -> None:
    for place, end in enumerate(curve.stages):
        label = "new stage" if place == 0 else None
        axes.axvline(end + 0.5, color=INK, linestyle=":", linewidth=0.8, alpha=0.6, label=label)
