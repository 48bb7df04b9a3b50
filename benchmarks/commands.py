"""The commands of the README, run one after another in an empty folder; a record each, with what they printed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.records import Record, make_record

COMMANDS = (
    "python -m llm_pipeline inspect",
    "python -m llm_pipeline prune --method maiht --sparsity 50% --out maiht50",
    "python -m llm_pipeline verify maiht50",
    "python -m llm_pipeline eval maiht50",
    "python -m llm_pipeline prune --method wanda --sparsity 2:4 --refine exact --text none --out wanda24",
    "python -m reports build maiht50 wanda24 --out report.html",
    "python -m reports build theory --out theory.html",
    "python -m theory_checks sufficient-decrease fixed-point top-k-expansion maiht-convex-rate risk-slope-n",
    "python -m theory_checks mutants --named",
    "python -m benchmarks list",
    "python -m llm_pipeline prune --method maith --out never",
)


def run_commands(progress: Callable[[int, int, str], None] = lambda done, of, what: None) -> Iterator[Record]:
    """Records of the benchmark ``command``: the line, its exit code, stdout and stderr, seconds."""
    with TemporaryDirectory() as folder:
        for number, line in enumerate(COMMANDS):
            progress(number, len(COMMANDS), line)
            start = time.perf_counter()
            done = _run(line, Path(folder))
            seconds = time.perf_counter() - start
            yield make_record(
                "command", number=number, line=line, exit=done.returncode, output=done.stdout.rstrip(), seconds=seconds
            )


def _run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    _, *arguments = shlex.split(line)
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
