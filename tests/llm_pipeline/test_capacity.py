"""How many blocks machines take: equations (1) to (3) on machines whose answer is known."""

from __future__ import annotations

import pytest

from llm_pipeline.capacity import LEAST_STORE, SPARE, STORE, Ask, environment, share_out, store_for
from solvers.refusal import Refusal

GIB = 2**30
ASK = Ask(threads=2, memory=4 * GIB, gpus=0, stored=GIB)


@pytest.mark.parametrize(
    ("machines", "ask", "store", "found"),
    [
        ([{"CPU": 8, "memory": 64 * GIB}], ASK, 64 * GIB, (4, 5)),
        ([{"CPU": 8, "memory": 9 * GIB}], ASK, 64 * GIB, (2, 3)),
        ([{"CPU": 8, "memory": 64 * GIB}, {"CPU": 3, "memory": 64 * GIB}], ASK, 64 * GIB, (5, 6)),
        ([{"CPU": 8, "memory": 64 * GIB}], ASK, 3.5 * GIB, (4, 3)),
        ([{"CPU": 8, "memory": 64 * GIB}], ASK, GIB / 2, (4, 1)),
        ([{"CPU": 8, "memory": 64 * GIB, "GPU": 1}, {"CPU": 8, "memory": 64 * GIB}], ASK._replace(gpus=1), GIB, (1, 1)),
    ],
    ids=["processors", "memory", "two machines", "a small store", "a store that holds none", "GPUs"],
)
def test_workers_and_held_blocks(
    machines: list[dict[str, float]], ask: Ask, store: float, found: tuple[int, int]
) -> None:
    assert share_out(machines, ask, store) == found


@pytest.mark.parametrize("machines", [[], [{"CPU": 1, "memory": 64 * GIB}], [{"CPU": 8, "memory": GIB}]])
def test_machines_too_small_for_a_block_are_refused(machines: list[dict[str, float]]) -> None:
    with pytest.raises(Refusal, match=r"takes 2 CPUs, 4\.0 GiB and 0 GPUs of one machine; at most .* Set OMP_NUM_"):
        share_out(machines, ASK, 64 * GIB)


@pytest.mark.parametrize("cores", [2, 8])
def test_the_store_holds_what_is_held_and_no_more_than_its_share(cores: int) -> None:
    store = store_for(cores, ASK, 10**12)
    workers, held = share_out([{"CPU": cores, "memory": 10**12}], ASK, store)
    assert held == workers + 1
    assert store == held * ASK.stored + SPARE
    assert store_for(cores, ASK, GIB) == int(STORE * GIB)
    assert store_for(cores, ASK._replace(stored=1), 10**12) == LEAST_STORE


def test_a_worker_gets_the_threads_of_the_run() -> None:
    found = environment({"threads": 3, "threads of NumPy": 5, "instructions": "AVX2", "GPU": "none"})
    assert (found["OMP_NUM_THREADS"], found["OPENBLAS_NUM_THREADS"]) == ("3", "5")
