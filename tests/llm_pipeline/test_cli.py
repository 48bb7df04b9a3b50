"""The command line: frozen options, exit codes, one message for bad input and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from llm_pipeline import layer, output_folder, prune
from llm_pipeline.__main__ import app
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.output_folder import OutputFolder
from theory_checks import Certificate

MODEL = ["model", "--json"]
OPTIONS = {
    "inspect": MODEL,
    "prune": [
        *("model", "--method", "--sparsity", "--calibration", "--out", "--text", "--length", "--protocol", "--set"),
        *("--refine", "--swaps", "--refine-mu", "--error-correction", "--inputs"),
        *("--allocate", "--owl-lambda", "--owl-m", "--solver", "--precision"),
        *("--device", "--dtype", "--seed", "--hidden"),
        *("--engine", "--address", "--dry-run", "--as-if", "--json"),
    ],
    "resume": ["folder", "--hidden", "--engine", "--address", "--json"],
    "eval": ["model", "--text", "--length", "--protocol", "--device", "--dtype", "--json"],
    "verify": ["folder", "--sample", "--seed", "--json"],
    "synth": ["--like", "--out", "--blocks", "--seed", "--dtype", "--shard-size", "--tokens"],
}


def test_options_are_frozen() -> None:
    commands = typer.main.get_command(app).commands
    assert {name: [p.opts[0] for p in command.params] for name, command in commands.items()} == OPTIONS


@pytest.fixture
def home(tiny: Path, ids: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `llama`, `ids.npy`, and models and texts that are spoilt."""
    folder = ids.parent
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name in ("gpt_neox", "bloom"):
        shutil.copytree(tiny, folder / name)
        config = json.loads((tiny / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps({**config, "model_type": name}))
    shutil.copytree(tiny, folder / "nan")
    with (folder / "nan" / "model.safetensors").open("r+b") as file:
        file.seek(Checkpoint.open(tiny).entries["model.layers.1.mlp.up_proj.weight"].start)
        file.write(np.float32("nan").tobytes())
    (folder / "taken").mkdir()
    (folder / "short.txt").write_text("a few words")
    (folder / "m.bin").write_bytes(b"stub")
    return folder


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pruned(*arguments: object) -> Result:
    return invoke("prune", "llama", "--calibration", "ids.npy", "--out", "new/out", *arguments)


def assert_refused(found: Result, says: str, code: int = 2) -> None:
    assert isinstance(found.exception, SystemExit), repr(found.exception)
    assert found.exit_code == code
    assert found.stdout == ""
    assert re.match(says, found.stderr), found.stderr
    assert found.stderr.endswith("\n")
    assert found.stderr.count("\n") == 1


BAD = {
    "nowhere": "MODEL must be a Hugging Face model directory; nowhere is not one",
    "ids.npy": "MODEL must be a Hugging Face model directory; ids.npy is not one",
    "taken": r"a model directory needs config\.json",
    "absent.bin": r"MODEL must be .*there is no file absent\.bin",
    "m.bin": "must begin with the seven sizes",
    "gpt_neox": "model type 'gpt_neox' is not. Known: llama, mistral, opt",
    "bloom": "model type 'bloom' is not. Known: llama, mistral, opt",
    "nan": r"tensor model\.layers\.1\.mlp\.up_proj\.weight must be finite; 1 of its 1280 entries",
    "odd [/red] name": r"odd \[/red\] name is not one",
    "--calibration absent.txt": r"there is no file absent\.txt",
    "--calibration ids.npy:5x32": "5 x 32 = 160 tokens are required; ids.npy gives 128.*4x32",
    "--calibration ids.npy:4x16": "sequences of 16 tokens were asked for; those of ids.npy have 32",
    "--calibration ids.npy:0x32": "--calibration must be FILE or FILE:NxL",
    "--calibration ids.npy:4x65": "the model has 64 positions",
    "--calibration short.txt:1x8": "text needs a tokenizer; llama has none",
    "--calibration taken": "there is no file taken",
    "--sparsity 3:5": "3:5 needs an input dimension divisible by 5; this layer has 32",
    "--sparsity 16:64": "needs an input dimension divisible by 64",
    "--sparsity 5:16": "5:16 needs an input dimension divisible by 16; this layer has 40",
    "--sparsity 150%": "the share to remove must lie between 0% and 100%; got '150%'",
    "--sparsity 0.5": "A share needs its percent sign: 50%, not 0.5",
    "--sparsity channels:30%": "removes whole heads, channels or blocks",
    "--method maith": "unknown method 'maith'. Did you mean 'maiht'",
    "--method maiht-released": "maiht-released cannot meet .* it can do 50%/layer, 2:4",
    "--set itres=3": "maiht has no option 'itres'. Did you mean 'iters'",
    "--set iters": "--set takes key=value.*got 'iters'",
    "--set iters=many": "iters must be int.*got 'many'",
    "--set mu=-1": "mu, a ridge .* must be a number of at least 0; got '-1'",
    "--set iters=0": "iters >= 1",
    "--refine twice": "refine is one of none, gradient:30",
    "--text ids.npy --length 65": "--length must lie between 2 and the model's 64 positions; got 65",
    "--text ids.npy --length 1": "--length must lie between 2 and",
    "--text absent.txt": r"there is no file absent\.txt",
    "--dtype float8": "--dtype must be auto or one of float32",
    "--device cuda:7": "--device cuda:7 cannot be used here",
    "--hidden ram": "--hidden is one of auto, gpu, memory, disk; got 'ram'",
    "--hidden gpu --device cpu": "--hidden gpu needs a run on a GPU",
    "--seed -1": "--seed must be a whole number of at least 0",
    "--out taken": "the output folder must be new; .*taken exists already",
    "--out /": "--out names a new folder; got /, the root of the disk",
    "--owl-lambda 0.1": "--owl-lambda and --owl-m say how --allocate owl allots",
    "--owl-m -4": "--owl-m must be a number of at least 0; got '-4",
    "--length 5": "--length 5 cuts the evaluation text, and none is given",
    "--out ids.npy/out": "ids.npy/out could not be written",
    f"--out {'x' * 300}": "File name too long",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_input_gets_one_message_and_leaves_nothing(typed: str, home: Path) -> None:
    if typed == "--device cuda:7" and torch.cuda.device_count() > 7:
        pytest.skip("this machine has a cuda:7")
    before = everything(home)
    words = typed.split() if typed.startswith("--") else []
    model = "llama" if words else typed
    found = invoke("prune", model, "--calibration", "ids.npy", "--out", "new/out", *words)
    assert_refused(found, f"error: .*{BAD[typed]}")
    assert everything(home) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("eval", "llama"), "--text FILE is required"),
        (("eval", "llama", "--text", "ids.npy", "--protocol", "winodws"), "unknown protocol 'winodws'. Did you mean"),
        (("eval", "llama", "--text", "short.txt"), "text needs a tokenizer"),
        (("eval", "gpt_neox", "--text", "ids.npy"), "model type 'gpt_neox' is not"),
        (("inspect", "gpt_neox"), "model type 'gpt_neox' is not"),
        (("inspect", "nowhere"), "MODEL must be"),
        (("resume", "nowhere"), "resume takes the --out folder of an unfinished run; .*nowhere holds none"),
        (("resume", "llama"), "resume takes the --out folder of an unfinished run; .*llama holds none"),
        (("resume", "llama", "--hidden", "dsk"), "--hidden is one of auto, gpu, memory, disk; got 'dsk'. Did you mean"),
        (("prune", "llama"), "--calibration FILE.* is required for a model of your own"),
        (("verify", "llama"), r"holds a readable plan\.toml"),
        (("verify", "nowhere"), r"holds a readable plan\.toml"),
    ],
)
def test_every_command_refuses_in_one_line(words: tuple[str, ...], says: str, home: Path) -> None:
    before = everything(home)
    assert_refused(invoke(*words), f"error: .*{says}")
    assert everything(home) == before


def test_a_disk_that_is_too_small_is_refused_before_writing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(home)
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert_refused(pruned(), r"error: the output needs \d+ bytes and .* has 1000 available")
    assert everything(home) == before


def after(calls: int, error: BaseException, original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, which raises from its `calls`-th call on."""
    left = [calls]

    def failing(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            raise error
        return original(*arguments, **options)

    return failing


@pytest.mark.parametrize(
    ("place", "calls", "kept"),
    [("put", 5, 0), ("put", 9, 1), ("finish", 1, 0), ("finish", 3, 2), ("write_text", 1, 0), ("write_text", 3, 3)],
)
def test_a_disk_that_fills_up_while_writing_keeps_the_finished_blocks(
    place: str, calls: int, kept: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(home)
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, place, after(calls, full, getattr(OutputFolder, place)))
        found = pruned()
    says = f"{kept} of 3 blocks are kept" if kept else "nothing was kept"
    assert_refused(found, f"error: the disk of .* filled up while writing; {says}")
    if kept:
        command = found.stderr.strip().split("python -m llm_pipeline ")[1].split()
        assert invoke(*command).exit_code == 0
        assert (home / "new/out/summary.json").is_file()
    else:
        assert everything(home) == before


def test_an_interruption_leaves_with_three_and_keeps_its_work(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(prune, "prune_layer", after(9, KeyboardInterrupt(), prune.prune_layer))
        found = pruned()
    assert_refused(found, "interrupted; 1 of 3 blocks are kept. Go on with: python -m llm_pipeline resume ", code=3)
    assert not (home / "new/out").exists()
    assert_refused(pruned(), "error: the output folder must be new; .* holds an unfinished run")
    assert invoke("resume", "new/out").exit_code == 0


def test_a_termination_is_an_interruption_and_its_handler_goes_with_the_command(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As job schedulers send it, twice; before and after the command SIGTERM is what it was."""

    def solve(*arguments: Any) -> Any:
        left[0] -= 1
        for _ in range(2 if left[0] == 0 else 0):
            os.kill(os.getpid(), signal.SIGTERM)
        return prune_layer(*arguments)

    left, prune_layer, before = [9], prune.prune_layer, signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(prune, "prune_layer", solve)
        found = pruned()
    assert_refused(found, "interrupted; 1 of 3 blocks are kept. Go on with: python -m llm_pipeline resume ", code=3)
    assert signal.getsignal(signal.SIGTERM) == before
    assert invoke("resume", "new/out").exit_code == 0


def test_a_failing_certificate_leaves_with_one_is_named_and_the_model_is_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Certificate("planted", "1 <= 0", "nowhere", 1.0, 0.0)
    monkeypatch.setattr(layer, "judge", lambda *_: [failing])
    found = pruned("--method", "magnitude")
    assert found.exit_code == 1
    assert "fails model.layers.0.self_attn.q_proj.weight: planted: 1 <= 0" in found.stdout
    assert "0 holds, 21 fails" in found.stdout
    assert json.loads((home / "new/out/summary.json").read_text())["certificates"]["fails"] == 21


def test_a_run_without_out_goes_to_a_folder_named_after_what_was_asked(home: Path) -> None:
    found = invoke("prune", "llama", "--calibration", "ids.npy", "--method", "wanda", "--sparsity", "2:4")
    assert found.exit_code == 0, found.output
    assert (home / "runs" / "llama-wanda-2of4" / "model.safetensors").is_file()
    assert "written to runs/llama-wanda-2of4; the page: python -m reports build runs/llama-wanda-2of4" in found.stdout


def test_settings_reach_the_plan_with_their_types(home: Path) -> None:
    found = pruned("--set", "iters=7", "--set", "mu = 0.25", "--set", "tol=1e-3", "--refine", "gradient:2")
    assert found.exit_code == 0, found.output
    text = (home / "new/out/plan.toml").read_text()
    for line in ("iters = 7", "mu = 0.25", "tol = 0.001", "safety = 0.95", 'refine = "gradient:2"'):
        assert f"\n{line}\n" in text


def test_names_with_spaces_brackets_and_letters_of_the_world_pass_through(home: Path) -> None:
    folder = home / "models" / "mein [b] Modell 漢 :smile: 'q\""
    folder.mkdir(parents=True)
    for path in (home / "llama").iterdir():
        (folder / path.name).symlink_to(path)
    found = invoke("prune", folder, "--calibration", "ids.npy", "--method", "wanda", "--out", "out [i] é")
    assert found.exit_code == 0, found.output
    assert "written to out [i] é; " in found.stdout
    assert not any(path.is_symlink() for path in (home / "out [i] é").iterdir())
    assert folder.name in invoke("inspect", folder).stdout
    assert invoke("verify", "out [i] é").exit_code == 0
