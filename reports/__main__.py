"""Command line of the pages: build one from runs and records, or check the README against its records."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from reports.generated import rebuilt, repository
from reports.load import Row, Run, load
from solvers.refusal import Refusal

app = typer.Typer(help="Pages out of runs and records.", no_args_is_help=True, add_completion=False)

THEORY = Path("theory")
PACKAGED = Path(__file__).parent / "reference" / "theory.jsonl"

Places = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN_OR_RECORDS ...",
        help="Run folders, record files (.jsonl), or the word theory: the committed records of the theory.",
    ),
]


@app.command()
def build(
    places: Places,
    out: Annotated[Path | None, typer.Option(help="The page; by default report.html beside what it tells of.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Build one self-contained page."""
    target = out or (Path("theory.html") if places == [THEORY] else _beside(places))
    runs, found = load([_packaged() if place == THEORY else place for place in places])
    if not runs and not found:
        raise Refusal("nothing to tell: no run, and no record in the files given.")
    _write(target, _page()(runs, found))
    typer.echo(json.dumps({"written": str(target)}) if as_json else str(target))


@app.command()
def check(
    write: Annotated[bool, typer.Option("--write", help="Rewrite the parts instead of comparing them.")] = False,
) -> None:
    """Compare the generated parts of the README with what the records give; 1 if one differs."""
    root = repository()
    readme = root / "README.md"
    fresh, stale = rebuilt(readme.read_text("utf-8"), root)
    if write and stale:
        _write(readme, fresh)
    for name in stale:
        typer.echo(f"README.md: part '{name}' " + ("was rewritten." if write else "differs; run check --write."))
    if stale and not write:
        raise typer.Exit(1)
    if not stale:
        typer.echo("README.md is what the records give.")


def main() -> None:
    """Run the command line; a refusal is one message on stderr and exit code 2."""
    try:
        app()
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(2)


def _packaged() -> Path:
    """The committed records of the theory; refused where a file or folder here has the same name."""
    if THEORY.exists():
        raise Refusal(
            "'theory' means the committed records of the theory, and something of that name is here as well; "
            "give the record file itself (theory/records.jsonl), or build from another folder."
        )
    if not PACKAGED.is_file():
        raise Refusal("no records of the theory are committed here; measure: python -m benchmarks run theory.")
    return PACKAGED


def _beside(places: list[Path]) -> Path:
    """Inside a single run; otherwise in the folder that all places share."""
    resolved = [place.resolve() for place in places]
    if len(places) == 1 and resolved[0].is_dir():
        return places[0] / "report.html"
    shared = Path(os.path.commonpath([place.parent for place in resolved]))
    if shared == Path(shared.anchor):
        raise Refusal("these places share no folder but the root of the file system; say --out FILE.html.")
    return shared / "report.html"


def _page() -> Callable[[Sequence[Run], Sequence[Row]], str]:
    try:
        from reports.page import page  # the README check needs neither matplotlib nor jinja2
    except ImportError as error:
        raise Refusal(f"a page needs {error.name}: pip install 'certified-pruning[report]'.") from error
    return page


def _write(target: Path, text: str) -> None:
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, "utf-8")
        partial.replace(target)
    except OSError as error:
        raise Refusal(f"cannot write {target}: {error.strerror}.") from error


if __name__ == "__main__":
    main()
