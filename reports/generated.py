"""The generated parts of the README: rebuilt from the committed records and compared with what stands there."""

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import records
from reports.kernel_tables import ladder, twins
from reports.layer_tables import overview
from reports.layer_targets import missed
from reports.layers import settings
from reports.protocols import by_protocol, perplexity_records
from reports.record_tables import comparisons, perplexity_grid
from reports.render import markdown
from reports.theory_tables import summary
from reports.tree import tree
from solvers.refusal import Refusal

PART = re.compile(r"(<!-- generated: (?P<name>\S+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
OPENING = "<!-- generated:"
LONGEST = 24  # lines of a command's output


def repository() -> Path:
    """The folder of `pyproject.toml` and README, which only a checkout has."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        raise Refusal("the README can be checked only in a checkout of the repository, not in an installed package.")
    return root


def tree_part(root: Path) -> str:
    """The file tree as a block of text."""
    return f"```text\n{tree(root)}\n```"


def results_part(root: Path) -> str:
    """Perplexity by method from the committed records, a table per protocol."""
    found = _reference(root)
    rows = perplexity_records(found)
    if not rows:
        return "No reference record of a perplexity has been committed yet."
    return "\n\n".join(markdown(perplexity_grid(group, comparisons(found))) for group in by_protocol(rows))


def commands_part(root: Path) -> str:
    """The README's commands with what they printed when they were last recorded."""
    rows = [row for row in _reference(root) if row["benchmark"] == "command"]
    if not rows:
        return "No reference record of a command has been committed yet."
    newest = {row["line"]: row for row in sorted(rows, key=lambda row: row["when"])}
    ordered = sorted(newest.values(), key=lambda row: row["number"])
    return "\n\n".join(f"```console\n$ {row['line']}\n{_shortened(row['output'])}\n```" for row in ordered)


def theory_part(root: Path) -> str:
    """How many claims there are and how they ended, how many planted defects and how many survive."""
    table = summary(_reference(root))
    return markdown(table) if table.rows else "No reference record of the theory has been committed yet."


def layers_part(root: Path) -> str:
    """Layer errors from the committed records and where the target is missed, for each model and calibration."""
    groups = settings(_reference(root))
    told = [markdown(table) for group in groups for table in (overview(group), *missed(group))]
    return "\n\n".join(told) or "No reference record of layers exists yet."


def kernels_part(root: Path) -> str:
    """Fast twins beside their products and their references, and rungs of precision beside float64."""
    found = _reference(root)
    told = [markdown(table) for table in (twins(found), ladder(found)) if table.rows]
    return "\n\n".join(told) or "No reference record of kernels exists yet."


def predictions_part(root: Path) -> str:
    """What the planner foresees for known models on known GPUs."""
    from reports.prediction_table import predictions  # with torch, which no other part needs

    return markdown(predictions())


def _shortened(output: str) -> str:
    """The first and the last lines of a long output, and how many are left out between them."""
    lines = output.strip().splitlines()
    if len(lines) <= LONGEST:
        return "\n".join(lines)
    return "\n".join([*lines[: LONGEST - 8], f"[{len(lines) - LONGEST + 4} lines more]", *lines[-4:]])


def _reference(root: Path) -> list[records.Record]:
    return records.read(sorted((root / "reports" / "reference").glob("*.jsonl")))


PARTS: dict[str, Callable[[Path], str]] = {
    "tree": tree_part,
    "results": results_part,
    "layers": layers_part,
    "kernels": kernels_part,
    "theory": theory_part,
    "commands": commands_part,
    "predictions": predictions_part,
}


def rebuilt(text: str, root: Path) -> tuple[str, list[str]]:
    """The text with every generated part made anew, and the names of the parts that changed.

    Parameters
    ----------
    text : str
        A page with parts between ``<!-- generated: NAME -->`` and ``<!-- end -->``.
    root : Path
        The repository that the parts tell of.
    """
    found = list(PART.finditer(text))
    if not found or len(found) != text.count(OPENING):
        raise Refusal(
            "the page needs parts between '<!-- generated: NAME -->' and '<!-- end -->', each on its own line, "
            f"and every part closed; {text.count(OPENING)} opened, {len(found)} closed."
        )
    fresh = {match["name"]: _make(match["name"], root) for match in found}
    stale = [match["name"] for match in found if match["body"] != fresh[match["name"]]]
    return PART.sub(lambda match: match[1] + fresh[match["name"]] + match[4], text), stale


def _make(name: str, root: Path) -> str:
    if name not in PARTS:
        raise Refusal(f"no generated part is called {name!r}; known: {', '.join(PARTS)}.")
    # Blank lines around the part keep its Markdown apart from the comments.
    return f"\n{PARTS[name](root)}\n\n"
