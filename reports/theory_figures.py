"""Figures of the theory: runs beside their bounds, risks beside their laws, who recovers, who notices which defect."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reports.canvas import legend, logarithmic, svg
from reports.load import Row
from reports.svg import COLOURS, INK, MARKERS
from reports.theory import Matrix, drawn

AGES = ((1, "after 1 layer", 1.0), (4, "2 to 4", 0.7), (10, "5 to 10", 0.45), (None, "later", 0.25))


def convex(rows: Sequence[Row]) -> str:
    """F(x_n) - F* of every method, a panel each, beside its bound."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        for axes, row in zip(panels, rows, strict=True):
            _beside(axes, row, "F(x) − F*", "bound")
            axes.set(title=f"{row['name']}: {row['bound_text']}", xlabel="iteration n")
            logarithmic(axes, "x")
        logarithmic(panels[0])
        legend(figure, panels, 2)

    worst = "; ".join(f"{row['name']} uses at most {_most_used(row):.3g} of its bound" for row in rows)
    return svg("theory convex", "Global rates with an L1 penalty", f"{worst}.", draw, 3.4)


def safeguard(rows: Sequence[Row]) -> str:
    """F above the least value of the same run: with the safeguard it never rises, without it it does."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, row in enumerate(rows):
            line = ("--", "-", "-")[index % 3]
            axes.plot(row["x"], drawn(row["y"]), line, color=COLOURS[(2, 0, 1)[index % 3]], label=_rises(row))
        axes.set(xlabel="iteration n", ylabel="F(x) − least F of the run")
        logarithmic(axes)
        legend(figure, [axes], 3)

    described = "; ".join(f"{_rises(row)}, least F {row['least']:.5g}" for row in rows)
    return svg("theory safeguard", "Acceleration with and without the safeguard, L0 penalty", described, draw, 3.4)


def supports(rows: Sequence[Row]) -> str:
    """Changes of the support so far, beside the bound on their number."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, row in enumerate(rows):
            look = {"color": COLOURS[index % 6]}
            axes.plot(row["x"], drawn(row["y"]), label=f"changes, {row['name']}", **look)
            axes.plot(row["x"], drawn(row["bound"]), "--", label=f"Lu's bound, {row['name']}", **look)
        axes.set(xlabel="iteration n", ylabel="changes of the support")
        logarithmic(axes, "x")
        logarithmic(axes)
        legend(figure, [axes], 3)

    described = "; ".join(f"{row['name']}: {row['y'][-1]:g} changes, at most {row['bound'][-1]:g}" for row in rows)
    return svg("theory supports", "How often the support of IHT changes", f"{described}.", draw, 3.4)


def local(rows: Sequence[Row]) -> str:
    """F(x_n) - F(X) from the iteration on in which the support rests, beside the linear rate."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        for axes, row in zip(panels, rows, strict=True):
            _beside(axes, row, "F(x) − F(X)", "(1 − s m_S)²ⁿ times the first value")
            axes.set(title=f"{row['name']}: at rest from {row['rests_from']} on", xlabel="iterations at rest")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        logarithmic(panels[0])
        legend(figure, panels, 2)

    described = "; ".join(f"{row['name']}: factor {row['factor']:.4f} an iteration" for row in rows)
    return svg("theory local", "Local linear rate once the support rests", f"{described}.", draw, 3.3)


def scaling(rows: Sequence[Row]) -> str:
    """Risk over n, k and p with standard errors and the fitted line."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(rows), squeeze=False)[0]
        for axes, row in zip(panels, rows, strict=True):
            axes.plot(row["x"], drawn(row["fit"]), "--", color=COLOURS[1], linewidth=1, label="fitted line")
            error = {"yerr": drawn(row["error"]), "fmt": MARKERS[0], "markersize": 4, "capsize": 2}
            axes.errorbar(row["x"], drawn(row["y"]), color=COLOURS[0], label="mean risk ± standard error", **error)
            axes.set(title=f"{row['law']}: slope {row['slope']:.3f}", xlabel=row["name"])
            logarithmic(axes, "x")
            if row["law"].startswith("log "):
                logarithmic(axes)
        panels[0].set_ylabel("risk / σ²")
        legend(figure, panels, 2)

    described = "; ".join(f"{row['law']}: slope {row['slope']:.4f}" for row in rows)
    return svg("theory scaling", "Scaling laws of the risk", f"{described}.", draw, 3.2)


def recovery(rows: Sequence[Row]) -> str:
    """Share of truths whose support is found exactly: a heat map per method, its 50 % contour drawn in."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        colours = matplotlib.colormaps["cividis"].resampled(10)
        seamless = {"edgecolors": "face", "linewidth": 0.3}
        for axes, row in zip(panels, rows, strict=True):
            shares = np.array(row["success"], dtype=float)
            place = (row["undersampling"], row["sparsity"])
            image = axes.pcolormesh(*place, shares, cmap=colours, vmin=0, vmax=1, shading="nearest", **seamless)
            if shares.min() < 0.5 < shares.max():
                axes.contour(*place, shares, levels=[0.5], colors=COLOURS[1], linewidths=2)
            axes.set(title=row["method"], xlabel="n / p")
            axes.grid(visible=False)
        panels[0].set_ylabel("k / n")
        bar = figure.colorbar(image, ax=list(panels), format=PercentFormatter(1.0), fraction=0.05)
        bar.set_label("support found")

    described = "; ".join(f"{row['method']}: {np.mean(row['success']):.1%} of all trials" for row in rows)
    told = f"p = {rows[0]['p']}, {rows[0]['trials']} trials a cell, no noise; line: 50 %. {described}."
    return svg("theory recovery", "Exact recovery of the support", told, draw, 3.3)


def mutants(matrix: Matrix) -> str:
    """Planted defects by checks: a square where a check notices a defect, darker the sooner; survivors in red."""
    row_of = {name: place for place, name in enumerate(matrix.defects)}
    column_of = {name: place for place, name in enumerate(matrix.checks)}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name in matrix.survivors:
            axes.axhspan(row_of[name] - 0.5, row_of[name] + 0.5, color=COLOURS[1], alpha=0.35, linewidth=0)
        for (last, label, strength), first in zip(AGES, (1, 2, 5, 11), strict=True):
            shown = [key for key, n in matrix.kills.items() if first <= n and (last is None or n <= last)]
            x, y = [column_of[check] for _, check in shown], [row_of[defect] for defect, _ in shown]
            axes.scatter(x, y, s=22, marker="s", color=COLOURS[0], alpha=strength, linewidths=0, label=label)
        axes.set_xticks(range(len(matrix.checks)), matrix.checks, rotation=90, fontsize=5)
        axes.set_yticks(range(len(matrix.defects)), matrix.defects, fontsize=6)
        for label in axes.get_yticklabels():
            if label.get_text() in matrix.survivors:
                label.set(color=COLOURS[1], fontweight="bold")
        axes.tick_params(length=0, pad=1)
        axes.set(xlim=(-0.7, len(matrix.checks) - 0.3), ylim=(len(matrix.defects) - 0.3, -0.7))
        axes.grid(linewidth=0.3)
        axes.spines[:].set(visible=True, color=INK, linewidth=0.5)
        legend(figure, [axes], 4)

    survivors = ", ".join(matrix.survivors) or "none"
    described = f"{len(matrix.defects)} defects, {len(matrix.checks)} checks. Survivors: {survivors}."
    height = 2.0 + 0.125 * len(matrix.defects)
    return svg("theory mutants", "Which check notices which planted defect", described, draw, height)


def _beside(axes: Axes, row: Row, measured: str, bound: str) -> None:
    axes.plot(row["x"], drawn(row["y"]), color=COLOURS[0], label=measured)
    axes.plot(row["x"], drawn(row["bound"]), "--", color=COLOURS[1], label=bound)


def _most_used(row: Row) -> float:
    shares = [y / bound for y, bound in zip(row["y"], row["bound"], strict=True) if y is not None and bound]
    return max(shares, default=0.0)


def _rises(row: Row) -> str:
    return f"{row['name']}: {row['rises']} rises"


CURVES = {
    "convex": (
        "Rates",
        convex,
        "A layer with 24 inputs and condition 1000, an L1 penalty, s = 1/L, from a far start: the gap to the minimum "
        "beside the bound that the claims of the same names check.",
    ),
    "safeguard": (
        "Safeguard",
        safeguard,
        "The same layer with an L0 penalty, s = 0.95/L. Acceleration without the safeguard is a counter-example, not a "
        "method: its objective rises again and again. That of mAIHT never does.",
    ),
    "supports": (
        "Support",
        supports,
        "IHT at s = 0.5/L on a layer of condition 100: changes of the support after the first step, counted up to n, "
        "and the number that the penalty can pay for.",
    ),
    "local": (
        "Local rate",
        local,
        "From the iteration on in which the supports rest, the gap to the least squares on the support falls at least "
        "by the factor (1 − s m_S)², m_S the least curvature on it.",
    ),
    "scaling": (
        "Risk",
        scaling,
        "Mean risk of the samples from which the claims of scaling are decided, with the line fitted to them.",
    ),
}
RECOVERY = (
    "Sparse truths seen through normal designs, without noise; a cell is the share whose support came out exactly. "
    "IHT and mAIHT keep k inputs from the start 0 with s = 0.95/L; FISTA solves the Lasso with a small penalty and "
    "keeps the k largest; the line marks 50 %."
)
MUTANTS = (
    "A square where a check (column) notices a planted defect (row), the darker the sooner. Rows are ordered by the "
    "check that is named for them; a red row survives every check that was tried."
)
