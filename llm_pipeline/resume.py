"""Go on with a run that was killed, interrupted or stopped by an error, from its first unfinished block.

What no run changes is the source's, or is copied from it again. The finished blocks are taken as they lie on the disk,
once their bytes are found to be those that were recorded. What they pass on is computed again by running them, or taken
from the file that holds it under ``--hidden disk``; its bits must be those that the run had. So the weights come out as
if nothing had happened, byte for byte, and so do certificates.jsonl, plan.toml and README.md; layers.jsonl and
summary.json but for `seconds` and `peak_memory_bytes`, and SHA256SUMS but for the lines of those two.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from llm_pipeline import assemble, engines
from llm_pipeline.allocation import layers_of
from llm_pipeline.changes import require_same_files, require_unchanged
from llm_pipeline.checkpoint import Checkpoint, digest
from llm_pipeline.hidden import PLACES
from llm_pipeline.journal import Journal
from llm_pipeline.memory import keep_little
from llm_pipeline.output_folder import PARTIAL, OutputFolder, partial_of
from llm_pipeline.plan import Plan
from llm_pipeline.prune import Progress, Result, finish, place_of_hidden, silent
from llm_pipeline.unfinished import FOLDER, UnfinishedRun
from solvers.methods import near
from solvers.refusal import Refusal


@torch.inference_mode()
def resume(
    folder: Path,
    *,
    hidden: str | None = None,
    engine: str = "in-process",
    address: str | None = None,
    progress: Progress = silent,
) -> Result:
    """Finish a run; one that has ended already is only summed up.

    Parameters
    ----------
    folder : the --out of the run
    hidden : where the hidden states go from now on; by default as the run was told
    engine, address : of `engines.named`; the run may have begun under another one

    Raises
    ------
    Refusal
        If the folder holds no run, if another process writes to it, or if model, calibration, options, code or machine
        are not those of the run.
    """
    out = named(Path(folder)).absolute()
    if hidden is not None and hidden not in PLACES:
        raise Refusal(f"--hidden is one of {', '.join(PLACES)}; got '{hidden}'.{near(hidden, PLACES)}")
    run = UnfinishedRun(partial_of(out))
    if not run.begun:
        return _ended(out)
    run.lock(out)
    try:
        recorded, text = run.facts(), run.text()
        require_unchanged(recorded, Plan.read(partial_of(out)))
        chosen = engines.named(engine, address, Plan.read(partial_of(out)).inputs)
        plan, source, tokens = assemble.again(partial_of(out))
        require_same_files(recorded, source)
    except BaseException:
        run.release()
        raise
    keep_little()
    journal = Journal(plan)
    with OutputFolder(source, out, run=run) as output:
        with journal.stage("read"):
            output.copy()
            output.mend({name for block in layers_of(source) for name in block})
            for record in _sound(output, progress):
                journal.restore(record)
        place = place_of_hidden(hidden or recorded["hidden"], plan, source, tokens)
        told = {"text": text, "predicted": recorded.get("predicted"), "engine": chosen}
        return finish(output, journal, tokens, place, progress=progress, **told)


def named(folder: Path) -> Path:
    """The --out of a run, also where its partial folder was given."""
    partial = folder.name.endswith(PARTIAL) and UnfinishedRun(folder).begun
    return folder.with_name(folder.name.removesuffix(PARTIAL)) if partial else folder


def _ended(out: Path) -> Result:
    """The summary of a run that has ended; the kill may have come before its hidden folder was removed."""
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise Refusal(
            f"resume takes the --out folder of an unfinished run; {out} holds none. Probably a misspelt path, or the "
            "run was stopped before it began: prune again."
        ) from None
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return Result(summary, None, None)


def _sound(output: OutputFolder, progress: Progress) -> list[dict[str, Any]]:
    """The records of the finished blocks up to the first whose weights are not those that were recorded."""
    saved, records = Checkpoint.open(output.partial), output.run.blocks()
    for i, record in enumerate(records):
        progress(i, len(records), f"block {i}, compared with its record")
        if any(digest(saved.read(row["layer"])) != row["sha256"] for row in record["layers"]):
            progress(i, len(records), f"block {i} does not hold what was recorded: pruned again")
            output.run.forget(i)
            return records[:i]
    return records
