"""How much each block gave up, where that is not the same everywhere: a table of a run, a figure of several."""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reports.canvas import legend, svg
from reports.load import Run
from reports.svg import COLOURS, MARKERS
from reports.tables import Cell, Table


def blocks(run: Run) -> Table:
    """A row per block: its share of outliers, what it was allotted and what was counted; none under uniform."""
    source = run.source("summary.json: blocks")
    rows = [
        (Cell(row["block"]), *(Cell(row[key], "share", source) for key in ("outliers", "sparsity", "measured")))
        for row in run.summary.get("blocks") or []
    ]
    header = ("block", "outliers of the dense model", "sparsity allotted", "measured")
    note = "A block with more outliers keeps more; the total is that asked."
    return Table("Sparsity by block", header, rows, (note,))


def sparsities(run: Run) -> dict[int, float]:
    """The measured share of zeros of every block, from the layers."""
    kept: dict[int, int] = defaultdict(int)
    size: dict[int, int] = defaultdict(int)
    for row in run.layers:
        kept[row["block"]] += row["kept"]
        size[row["block"]] += row["shape"][0] * row["shape"][1]
    return {block: 1 - kept[block] / size[block] for block in size}


def by_block(runs: Sequence[Run]) -> str:
    """Sparsity against block, a line per run."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, run in enumerate(runs):
            shares = sparsities(run)
            look = {"color": COLOURS[place % 6], "marker": MARKERS[place % 7], "markersize": 4}
            axes.plot(list(shares), list(shares.values()), label=run.label, **look)
        axes.set(xlabel="block", ylabel="removed weights")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        legend(figure, [axes], 3)

    described = f"{len(runs)} runs; the share of zeros in all layers of a block."
    return svg(f"blocks {[run.name for run in runs]}", "Sparsity by block", described, draw, 3.0)
