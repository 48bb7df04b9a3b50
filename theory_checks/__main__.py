"""python -m theory_checks: both sides of every claim, and the planted defects that each must notice."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from solvers.methods import near
from solvers.refusal import Refusal
from theory_checks.claims import CLAIMS
from theory_checks.evaluate import evaluate
from theory_checks.matrix import CHECKS, matrix, needed
from theory_checks.mutants import MUTANTS, kills
from theory_checks.scaling import EXPERIMENTS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
log = Console(stderr=True)
screen = Console(emoji=False)


@app.command()
def main(
    claims: Annotated[list[str] | None, typer.Argument(help="Claims to evaluate (default: all), or 'mutants'.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Synthetic layers per claim (100; mutants: 8).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the synthetic layers.")] = 0,
    named: Annotated[bool, typer.Option(help="With mutants: only the checks that each defect names, fast.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="With mutants: processes (one per core).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Evaluate claims on synthetic layers and print the worst case of each: measured against bound.

    Statistical claims run once, from the seed. `python -m theory_checks mutants` plants every known defect, tries every
    check on it and shows which notice it, and how soon; minutes, or seconds with --named.
    Exit code 1 if a claim fails or stays inconclusive, or if a planted defect survives.

    Example: python -m theory_checks sufficient-decrease safeguard --examples 500
    """
    try:
        if claims == ["mutants"]:
            good = _mutants(examples or 8, seed, as_json, named, workers)
        else:
            good = _claims(_known(claims or [*CLAIMS, *EXPERIMENTS]), examples or 100, seed, as_json)
    except Refusal as refusal:
        log.print(f"[red]error:[/] {refusal}", highlight=False)
        raise typer.Exit(2) from None
    raise typer.Exit(0 if good else 1)


def _known(names: list[str]) -> list[str]:
    for name in names:
        if name not in CLAIMS and name not in EXPERIMENTS:
            known = [*CLAIMS, *EXPERIMENTS, "mutants"]
            raise Refusal(f"unknown claim '{name}'.{near(name, known)} Known: {', '.join(known)}.")
    return list(dict.fromkeys(names))


def _claims(names: list[str], examples: int, seed: int, as_json: bool) -> bool:
    with Progress(console=log, transient=True) as bar:
        task = bar.add_task("synthetic layers", total=examples)
        rows = evaluate(names, examples, seed, lambda done, of: bar.update(task, completed=done))
    if as_json:
        print(json.dumps({"seed": seed, "examples": examples, "claims": rows}, indent=1))
    else:
        screen.print(
            f"the worst of {examples} synthetic layers (seed {seed}) for every claim: measured <= bound + rounding"
        )
        for row in rows:
            _print_claim(row)
    return all(row["outcome"] in ("holds", "not applicable") for row in rows)


def _evidence(row: dict[str, Any]) -> str:
    return row.get("inconclusive") or (f"{row['examples']} layers" if row["name"] in CLAIMS else row["worst_case"])


def _print_claim(row: dict[str, Any]) -> None:
    """Two lines of at most 100 columns: both sides and the outcome, then the statement and its source."""
    sides = f"{row['measured']:>11.4g} <= {row['bound']:<11.4g} + {row['allowance']:<8.1g}"
    verdict = f"not applicable because {row['applies']}" if row["applies"] else f"{row['outcome']}, {_evidence(row)}"
    colour = {"holds": "green", "fails": "bold red"}.get(row["outcome"], "yellow")
    screen.print(f"{row['name']:<21}{sides} [{colour}]{escape(verdict)}[/]", soft_wrap=True, highlight=False)
    screen.print(f"    {escape(row['claim'])}  ({escape(row['where'])})", soft_wrap=True, highlight=False, style="dim")


def _mutants(most: int, seed: int, as_json: bool, named: bool, workers: int | None) -> bool:
    with Progress(console=log, transient=True) as bar:
        task = bar.add_task("planted defects")
        if named:
            found = {mutant.name: kills(mutant, mutant.killed_by, most, seed) for mutant in bar.track(MUTANTS)}
        else:
            found = matrix(
                [mutant.name for mutant in MUTANTS],
                CHECKS,
                most=most,
                seed=seed,
                workers=workers,
                progress=lambda done, of: bar.update(task, completed=done, total=of),
            )
    survivors = [name for name, row in found.items() if not any(row.values())]
    idle = [check for check in CHECKS if not any(row.get(check) for row in found.values())]
    alone = {check: names for check, names in needed(found).items() if names}
    if as_json:
        document = {"seed": seed, "examples": most, "killed_after": found, "survivors": survivors}
        print(json.dumps({**document, "idle": idle, "alone": {} if named else alone}))
    else:
        screen.print(f"{len(MUTANTS)} planted defects, {len(CHECKS)} checks, up to {most} layers (seed {seed})")
        for name, row in found.items():
            screen.print(_verdict(name, row), soft_wrap=True, highlight=False)
        screen.print(f"survivors: {', '.join(survivors) or 'none'}", soft_wrap=True, highlight=False)
        screen.print(f"checks that noticed nothing: {', '.join(idle) or 'none'}", soft_wrap=True, highlight=False)
        if not named:
            told = f"{len(alone)} checks each notice a defect that no other notices: {', '.join(alone)}"
            screen.print(told, soft_wrap=True, highlight=False)
    return not survivors


def _verdict(name: str, row: dict[str, int | None]) -> str:
    """The check that noticed a defect first, and how many others did; the whole row is in --json."""
    kills = {check: n for check, n in row.items() if n}
    if not kills:
        return f"{escape(name):<56}[bold red]survives[/]"
    first = min(kills, key=lambda check: kills[check])
    others = f" and {len(kills) - 1} more" if len(kills) > 1 else ""
    return f"{escape(name):<56}{first} after {kills[first]}{others}"


if __name__ == "__main__":
    sys.exit(app())
