"""Windows that calibration has not seen, to hold every layer's error against: of another text, or of the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llm_pipeline import assemble, sources
from llm_pipeline.calibration import Tokens, parse_calibration
from llm_pipeline.checkpoint import Checkpoint
from solvers.refusal import Refusal


def held_out(text: str | None, calibration: str | None, drawn: Tokens, source: Checkpoint, seed: int) -> Tokens:
    """As many windows as `drawn` has, none of which is one of its windows.

    Parameters
    ----------
    text : ``FILE[:NxL]``; by default the calibration text itself, or the held-out part of the embedded text
    calibration : as typed
    drawn : the calibration windows
    seed : of the calibration draw; these are drawn with the next one
    """
    path, n, length = parse_calibration(text or calibration or sources.EMBEDDED)
    n, length = n if text else None, length if text else None
    if length is None and path.suffix != ".npy":
        length = drawn.ids.shape[1]
    pool = assemble.evaluation_windows(sources.evaluation_text(str(path), source), source, length)
    if pool is None:
        raise Refusal("layers are judged on held-out text too; give --text FILE[:NxL], or leave it out.")
    seen = {row.tobytes() for row in drawn.ids}
    rest = pool.ids[[row.tobytes() not in seen for row in pool.ids]]  # (m, l)
    n = n or len(drawn.ids)
    if n > len(rest):
        raise Refusal(
            f"{n} held-out windows of {pool.ids.shape[1]} tokens are required; {pool.source} has {len(rest)} that "
            "calibration does not use. Give a longer --text, fewer of its windows (FILE:NxL), or calibrate on fewer."
        )
    ids = rest[np.random.default_rng(seed + 1).permutation(len(rest))[:n]]
    how = f"{n} of {len(rest)} {pool.protocol}, without those of the calibration; drawn with seed {seed + 1}"
    return replace(pool, ids=ids, protocol=how)
