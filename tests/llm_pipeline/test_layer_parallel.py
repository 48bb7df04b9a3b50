"""Whole runs on workers that reorder and die, without Ray: the bytes of one process, in both directions of `resume`."""

from __future__ import annotations

import json
import pickle
import random
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from llm_pipeline import assemble, engines, layer_parallel, prune, resume
from llm_pipeline.__main__ import app
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.dispatch import Done, Failed, Lost, Outcome
from llm_pipeline.layer_parallel import DensePass, Job, in_parallel, prune_alone
from solvers.refusal import Refusal

FISTA = {"method": "fista", "settings": {"iters": "4"}, "inputs": "dense"}
WANDA = {"method": "wanda", "inputs": "dense"}
VARYING = ("engine",)  # fields of the summary beside its times


class Unruly:
    """An engine: workers in this process, of which a random one ends next, and each block's first `losses` die."""

    def __init__(self, seed: int = 0, most: int = 3, losses: int = 0) -> None:
        self.chance, self.most, self.losses = random.Random(seed), most, losses
        self.job: Job | None = None
        self.running: dict[int, Any] = {}
        self.died: dict[int, int] = {}
        self.alive: set[int] = set()
        self.most_alive = 0

    def __call__(self, states: Any, kept: Any, tokens: Any, folder: Any, journal: Any, progress: Any) -> None:
        self.job = pickle.loads(pickle.dumps(Job.of(journal.plan, folder, kept)))
        in_parallel(states, tokens, folder, journal, progress, self, self.most)

    def keep(self, bits: np.ndarray) -> np.ndarray:
        copy = bits.copy()
        copy.flags.writeable = False
        self.alive.add(id(copy))
        weakref.finalize(copy, self.alive.discard, id(copy))
        self.most_alive = max(self.most_alive, len(self.alive))
        return copy

    def start(self, i: int, given: np.ndarray) -> None:
        self.running[i] = given

    def next(self) -> tuple[int, Outcome]:
        i = self.chance.choice(sorted(self.running))
        given = self.running.pop(i)
        self.died[i] = self.died.get(i, 0) + 1
        if self.died[i] <= self.losses:
            return i, Lost("its worker died")
        try:
            answer = prune_alone(i, given, self.job)
        except Exception as error:
            return i, Failed(error)
        return i, Done(pickle.loads(pickle.dumps(answer)))


@pytest.fixture
def run(ids: Path, tmp_path: Path) -> Callable[..., Path]:
    """`run(model, name, engine, hidden, **options)` prunes on `ids`; returns the folder."""

    def pruned(model: Path, name: str, engine: Any = None, hidden: str = "auto", **options: Any) -> Path:
        job = assemble.job(str(model), calibration=str(ids), **options)
        prune.prune(job.plan, job.source, job.tokens, tmp_path / name, text=job.text, engine=engine, hidden=hidden)
        return tmp_path / name

    return pruned


@pytest.mark.parametrize(
    ("kind", "options", "most", "hidden"),
    [
        ("llama tied", {**FISTA, "error_correction": "block"}, 3, "memory"),
        ("llama", {**WANDA, "allocate": "owl", "sparsity": "50%/layer"}, 2, "disk"),
        (
            "opt",
            {"method": "maiht", "settings": {"iters": "4"}, "refine": "gradient:2", "inputs": "dense"},
            1,
            "memory",
        ),
        ("qwen2 sliding", {**WANDA, "dtype": "float32", "sparsity": "2:4"}, 9, "memory"),
    ],
    ids=["fista, error correction", "owl, on disk", "one block held", "all blocks held"],
)
def test_the_bytes_are_those_of_one_process(
    contents: Callable,
    kind: str,
    options: dict[str, Any],
    most: int,
    hidden: str,
    save_tiny: Callable[..., Path],
    run: Callable[..., Path],
) -> None:
    model = save_tiny(kind, dtype=torch.bfloat16, max_shard_size="20KB")
    expected = contents(run(model, "alone", hidden=hidden, **options), VARYING)
    engine = Unruly(seed=most, most=most, losses=1)
    assert contents(run(model, "beside", engine, hidden, **options), VARYING) == expected
    assert engine.most_alive == min(most, 3)
    assert set(engine.died.values()) == {2}


def stops_at(monkeypatch: pytest.MonkeyPatch, block: int, error: BaseException) -> None:
    """No layer of this block or a later one can be solved."""
    solve = prune.prune_layer

    def stopped(walk: Any, i: int, *more: Any) -> Any:
        if i >= block:
            raise error
        return solve(walk, i, *more)

    monkeypatch.setattr(prune, "prune_layer", stopped)


@pytest.mark.parametrize("hidden", ["memory", "disk"])
@pytest.mark.parametrize("begun", ["beside each other", "in turn"])
def test_either_engine_goes_on_with_what_the_other_began(
    contents: Callable, begun: str, hidden: str, tiny: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(run(tiny, "alone", hidden=hidden, **WANDA), VARYING)
    first, second = (Unruly(), None) if begun == "beside each other" else (None, Unruly(losses=1))
    with monkeypatch.context() as patched:
        stops_at(patched, 1, Refusal("planted.") if first else KeyboardInterrupt())
        with pytest.raises((KeyboardInterrupt, Refusal), match="1 of 3 blocks are kept"):
            run(tiny, "out", first, hidden, **WANDA)
    monkeypatch.setattr(engines, "named", lambda *asked: second)
    resume.resume(tiny.parent / "out")
    assert contents(tiny.parent / "out", VARYING) == expected


def test_a_refusal_of_a_worker_keeps_the_blocks_before_its_own(
    tiny: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stops_at(monkeypatch, 2, Refusal("planted."))
    with pytest.raises(Refusal, match=r"planted\. 2 of 3 blocks are kept\. Go on with: python -m llm_pipeline resume"):
        run(tiny, "out", Unruly(seed=1, losses=2), **WANDA)


def test_a_block_whose_workers_always_die_is_given_up(tiny: Path, run: Callable[..., Path]) -> None:
    with pytest.raises(Refusal, match=r"block 0 was started 4 times and its worker was lost each time \(its worker"):
        run(tiny, "out", Unruly(losses=9), **WANDA)
    assert not (tiny.parent / "out.partial").exists()


def behind(self: DensePass, i: int) -> None:
    """A defect: the dense pass stands still."""
    self.at = i
    self._digests[i] = self.states.digest()


DEFECTS = {
    "a block receives what another should": (DensePass, "to", behind),
    "no copy is kept": (Unruly, "keep", lambda self, bits: bits),
    "a weight is written as it was": (
        layer_parallel,
        "tensor_of",
        lambda bits, dtype: torch.zeros(bits.shape, dtype=dtype),
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_changes_the_bytes(
    contents: Callable, defect: str, tiny: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(run(tiny, "alone", hidden="memory", **WANDA), VARYING)["model.safetensors"]
    monkeypatch.setattr(*DEFECTS[defect])
    assert contents(run(tiny, "beside", Unruly(), "memory", **WANDA), VARYING)["model.safetensors"] != expected


def test_the_seconds_of_all_processes_are_counted(tiny: Path, run: Callable[..., Path]) -> None:
    out = run(tiny, "beside", Unruly(), **WANDA)
    summary = json.loads((out / "summary.json").read_text())
    rows = [json.loads(line) for line in (out / "layers.jsonl").read_text().splitlines()]
    assert summary["seconds"]["solve"] >= sum(row["seconds"] for row in rows) > 0
    assert summary["seconds"].keys() == {"read", "write", "calibrate", "solve", "certify", "evaluate"}


def unlike(job: Job, **changed: Any) -> Job:
    return Job(job.plan, job.model, job.kept, json.dumps({**json.loads(job.recorded), **changed}))


def test_a_worker_that_would_round_otherwise_is_refused(
    tiny: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Unruly()
    run(tiny, "out", engine, **WANDA)
    assert engine.job is not None
    bits, recorded = np.zeros((4, 32, 32), dtype=np.int32), json.loads(engine.job.recorded)
    machine = {**recorded["machine"], "threads": 99}
    with pytest.raises(
        Refusal, match=r"a worker's machine must be .* threads \(99 in the run, \d+ there\)\. Give every"
    ):
        prune_alone(0, bits, unlike(engine.job, machine=machine))
    code = {**recorded["code"], "solvers/wanda.py": "another"}
    with pytest.raises(Refusal, match=r"a worker's code must be .* solvers/wanda\.py \(another in the run"):
        prune_alone(0, bits, unlike(engine.job, code=code))
    copied = unlike(engine.job, stamps={})  # other files: their contents decide
    assert prune_alone(0, bits + 1, copied).weights.keys() == {
        name for name in Checkpoint.open(tiny).names if "layers.0." in name and "norm" not in name
    }
    file = tiny / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    layer_parallel._walk.cache_clear()
    with pytest.raises(Refusal, match=r"a worker's weights must be .* model\.safetensors"):
        prune_alone(0, bits, copied)


ASKED = {
    "--engine ray": r"error: --engine ray prunes blocks independently .* has --inputs pruned\. Prune with --engine ray "
    r"--inputs dense, or leave --engine out\.",
    "--engine rey": r"error: --engine is one of in-process, ray; got 'rey'\. Did you mean 'ray'",
    "--address auto": r"error: --address auto is that of a Ray cluster\. Add --engine ray, or leave it out\.",
    "--engine ray --inputs dense --address 127.0.0.1:1": r"error: --address is auto, or HOST:PORT .* nobody answers at "
    r"127\.0\.0\.1:1 \(.*refused\)\. Take the address that `ray start --head` prints",
    "--engine ray --inputs dense --address cluster": r"error: --address is auto, or HOST:PORT .* at cluster \(",
    "--engine ray --inputs dense": r"error: --engine ray needs Ray, which cannot be imported \(.*\)\. Install it: pip "
    r"install 'certified-pruning\[ray\]'; or leave --engine out",
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_cannot_be_had_is_refused_with_what_to_type(
    asked: str, tiny: Path, ids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "llm_pipeline.ray_engine", raising=False)
    words = ["prune", str(tiny), "--calibration", str(ids), "--out", "new/out", *asked.split()]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2
    assert re.match(ASKED[asked], found.stderr), found.stderr
    assert not Path("new").exists()


def test_a_run_on_pruned_inputs_is_not_resumed_on_ray(
    tiny: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stops_at(patched, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(tiny, "out", method="wanda")
    refused = CliRunner().invoke(app, ["resume", str(tiny.parent / "out"), "--engine", "ray"])
    assert (refused.exit_code, "this run has --inputs pruned" in refused.stderr) == (2, True)
    assert CliRunner().invoke(app, ["resume", str(tiny.parent / "out")]).exit_code == 0


def test_a_prediction_is_of_one_process() -> None:
    with pytest.raises(Refusal, match="predicts a run in one process, not --engine ray"):
        engines.require_foreseen("ray")
