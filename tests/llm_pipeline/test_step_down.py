"""Hidden states leave a GPU that runs out of memory, once, visibly, and no result changes; the GPU is a simulated one.

A walk on the CPU whose hidden states are said to be ``gpu`` goes through every step of the real case but the device.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm_pipeline import hidden, prune
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.hidden import HiddenStates
from solvers.refusal import Refusal

IDS = np.arange(9 * 16).reshape(9, 16) % 97
FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let a callable run out of GPU memory at the calls of the given numbers."""

    def plant(owner: Any, name: str, *at: int) -> list[int]:
        right, calls = getattr(owner, name), [0]

        def full(*given: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] in at:
                raise torch.OutOfMemoryError(f"{FULL}\nGPU 0 has a total capacity of ...")
            return right(*given, **options)

        monkeypatch.setattr(owner, name, full)
        return calls

    return plant


def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "place_of_hidden", lambda *_: "gpu")


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


PLACES = [  # what fails, in which of its calls, and in which block that is
    (BlockWalk, "embed", 1, 0),
    (prune, "see", 3, 0),
    (prune, "prune_layer", 9, 1),
    (BlockWalk, "_output", 5, 0),  # after four sites
]


@pytest.mark.parametrize(("owner", "name", "call", "block"), PLACES, ids=[name for _, name, _, _ in PLACES])
def test_a_run_goes_on_in_memory_with_the_same_bytes(
    owner: Any,
    name: str,
    call: int,
    block: int,
    small: Callable[..., Any],
    tiny: Path,
    prune_to: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, dense = prune_to(tiny, "plain", method="wanda")
    on_gpu(monkeypatch)
    small(owner, name, call)
    found, summary = prune_to(tiny, "stepped", method="wanda")
    said = f"block {block}: the GPU ran out of memory ({FULL}); hidden states go on in memory"
    assert weights(found) == weights(plain)
    assert (summary["hidden_states"], summary["stepped_down"]) == ("memory", [said])
    assert capsys.readouterr().err.count(said) == 1
    assert dense["stepped_down"] == []


def test_a_second_time_is_told_with_what_to_do(
    small: Callable[..., Any], tiny: Path, prune_to: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch)
    small(prune, "see", 2, 3)
    with pytest.raises(Refusal, match=r"out of memory \(CUDA out of memory.*Use --hidden disk"):
        prune_to(tiny, method="wanda")


@pytest.mark.parametrize("room", [2**40, 0], ids=["memory", "disk"])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
def test_a_block_goes_on_at_the_batch_that_failed(
    batch: int,
    room: int,
    tiny: Path,
    tmp_path: Path,
    small: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What has passed the block does not pass it twice, and nothing is left out."""
    walk = BlockWalk(Checkpoint.open(tiny), "cpu")
    expected = walk.forward(walk.load(0), 0, walk.embed(IDS, batch=2), batch=2)
    monkeypatch.setattr(hidden, "free_memory", lambda: room)
    states = HiddenStates(walk, "gpu", tmp_path, batch=2)
    states.embed(IDS)
    calls = small(BlockWalk, "_output", batch)
    states.advance(walk.load(0), 0)
    assert torch.equal(states.now, expected)
    assert (states.place, calls[0]) == ("memory" if room else "disk", 5 + 1)
    assert len(states.told()) == 1
    assert states.told() == []


def test_a_block_that_begins_anew_is_noticed(
    tiny: Path, tmp_path: Path, small: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect: batches that have passed the block pass it once more."""
    walk = BlockWalk(Checkpoint.open(tiny), "cpu")
    expected = walk.forward(walk.load(0), 0, walk.embed(IDS, batch=2), batch=2)
    right = HiddenStates._output

    def anew(self: HiddenStates, block: torch.nn.Module, i: int) -> torch.Tensor:
        self._passed = 0
        return right(self, block, i)

    monkeypatch.setattr(HiddenStates, "_output", anew)
    states = HiddenStates(walk, "gpu", tmp_path, batch=2)
    states.embed(IDS)
    small(BlockWalk, "_output", 3)
    states.advance(walk.load(0), 0)
    assert not torch.equal(states.now, expected)


def test_nothing_of_the_failed_call_is_alive_when_it_is_made_again(tiny: Path) -> None:
    """Else its arrays would stand where the second call needs the room."""
    import gc
    import weakref

    states, made = HiddenStates(BlockWalk(Checkpoint.open(tiny), "cpu"), "gpu"), []
    gc.disable()

    def call() -> bool:
        if made:
            return made[0]() is None
        scratch = torch.zeros(3)
        made.append(weakref.ref(scratch))
        raise torch.OutOfMemoryError(FULL)

    try:
        assert states.sparing(call)
    finally:
        gc.enable()
