"""verify finds what was changed after the run, says where and what, and says what a sample leaves out."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from llm_pipeline import assemble, intact
from llm_pipeline.__main__ import app
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint, digest
from llm_pipeline.verify import Report, Sample, verify
from solvers.refusal import Refusal

LAYER, LATER = "model.layers.1.self_attn.v_proj.weight", "model.layers.2.mlp.down_proj.weight"
NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"
INDEX, SUMS = "model.safetensors.index.json", "SHA256SUMS"
SAMPLE = Sample.parse("10%", seed=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, save_model: Callable[..., Path]) -> Path:
    """A run on a sharded bfloat16 LLaMA; copies of it are spoilt."""
    place = tmp_path_factory.mktemp("tampered")
    model = save_model(place, "llama", dtype=torch.bfloat16, max_shard_size="20KB")
    np.save(place / "ids.npy", np.random.default_rng(3).integers(0, 97, size=(4, 32)))
    words = ["prune", str(model), "--calibration", f"{place}/ids.npy", "--out", f"{place}/original"]
    done = CliRunner().invoke(app, [*words, "--method", "maiht", "--set", "iters=8", "--refine", "exact"])
    assert done.exit_code == 0, done.output
    return place / "original"


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "run")


def verified(run: Path, sample: Sample | None = None) -> Report:
    plan, source, tokens = assemble.again(run)
    return verify(run, plan, source, tokens, sample=sample)


def patch(run: Path, name: str, entry: int, change: Callable[[np.ndarray], None]) -> str:
    """Change one bfloat16 entry of a stored tensor, as 16 bits; returns the file."""
    found = Checkpoint.open(run).entries[name]
    bits = np.memmap(run / found.file, np.uint16, "r+", found.start, (found.stop - found.start) // 2)
    change(bits[entry : entry + 1])
    bits.flush()
    return found.file


def flip(run: Path, name: str, entry: int, bit: int) -> None:
    patch(run, name, entry, lambda bits: np.bitwise_xor(bits, np.uint16(1 << bit), out=bits))


def place_of(run: Path, name: str, zero: bool, within: int = 0) -> int:
    """An entry of a layer that was removed, or kept."""
    values = Checkpoint.open(run).read(name).float().numpy().reshape(-1)
    return int(np.flatnonzero((values == 0) == zero)[within])


def flip_kept(bit: int, name: str = LAYER) -> Callable[[Path], None]:
    return lambda run: flip(run, name, place_of(run, name, zero=False), bit)


def fill_one(run: Path, name: str = LAYER, bits: int = 0x3A83) -> None:
    """A removed entry comes back, as 0.001."""
    patch(run, name, place_of(run, name, zero=True), lambda found: found.fill(bits))


def exchange(run: Path) -> None:
    """Two shards take each other's name."""
    a, b, spare = (run / f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 9))
    for old, new in ((a, spare), (b, a), (spare, b)):
        old.rename(new)


def index(run: Path, **changes: str | None) -> None:
    found = json.loads((run / INDEX).read_text())
    for name, file in changes.items():
        found["weight_map"][name] = file
        if file is None:
            del found["weight_map"][name]
    (run / INDEX).write_text(json.dumps(found, indent=2))


def exchange_in_index(run: Path) -> None:
    places = json.loads((run / INDEX).read_text())["weight_map"]
    assert places[LAYER] != places[LATER]
    index(run, **{LAYER: places[LATER], LATER: places[LAYER]})


def edit(run: Path, file: str, change: Callable[[dict[str, Any]], None], layer: str = LAYER, claim: str = "") -> None:
    """Edit the line of a layer, and of a claim, in a record; or the one document."""
    text = (run / file).read_text()
    rows = [json.loads(line) for line in text.splitlines()] if file.endswith("l") else [json.loads(text)]
    for row in rows:
        if file == "summary.json" or (row["layer"] == layer and row.get("claim", "") == claim):
            change(row)
    (run / file).write_text("".join(json.dumps(row) + "\n" for row in rows))


def forge(run: Path, *layers: str) -> None:
    """Make digests and counts in layers.jsonl, the summary and SHA256SUMS fit what lies there."""
    for name in layers:
        tensor = Checkpoint.open(run).read(name)
        kept = int(tensor.float().count_nonzero())
        facts = {"sha256": digest(tensor), "kept": kept, "sparsity": float((tensor.float().numpy() == 0).mean())}
        edit(run, "layers.jsonl", lambda row, f=facts: row.update(f if row["sha256"] != f["sha256"] else {}), name)
    lines = (run / SUMS).read_text().splitlines()
    names = [line.split("  ", 1)[1] for line in lines]
    forged = [f"{hashlib.sha256((run / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (run / SUMS).write_text("".join(forged))


def dense_shard(run: Path) -> None:
    """A shard of the source in the place of the pruned one."""
    shutil.copy(assemble.again(run)[1].path / Checkpoint.open(run).entries[LAYER].file, run)


def of_another_run(run: Path) -> None:
    """A shard whose tensors have the right names and shapes and are of another run."""
    file = Checkpoint.open(run).entries[LAYER].file
    for name, entry in Checkpoint.open(run).entries.items():
        if entry.file == file and "proj" in name:
            patch(run, name, 0, lambda bits: np.bitwise_xor(bits, np.uint16(1), out=bits))


SHARD, SHARDS = r"model-0000\d-of-00003\.safetensors", r"model-0000[12]-of-00003\.safetensors"
SHA = rf"those that were certified \({SHARD}: its SHA-256 is \w+\.\.\., layers\.jsonl records \w+\.\.\."
FOUND_BY_BYTES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lowest bit of a weight": (flip_kept(0), f"{LAYER}: .*{SHA}"),
    "lowest bit of the last layer": (flip_kept(0, LATER), f"{LATER}: .*{SHA}"),
    "sign of a weight": (flip_kept(15), f"{LAYER}: .*{SHA}"),
    "exponent of a weight": (flip_kept(14), f"{LAYER}: .*{SHA}"),
    "lowest bit of a norm": (
        lambda run: flip(run, NORM, 3, 0),
        rf"{NORM}: .*bit for bit \({SHARD}: 1 of 32 entries differ, the first at \[3\]: 0\.94\d+, in the source 0\.93",
    ),
    "lowest bit of the embedding": (
        lambda run: flip(run, EMBEDDING, 37, 0),
        rf"{EMBEDDING}: .*1 of 3104 entries differ, the first at \[1, 5\]",
    ),
    "one entry too many": (fill_one, rf"{LAYER}: every window .*\({SHARD}: window 0 keeps 17 of 32, not 16; 1 of 16"),
    "a negative zero": (lambda run: fill_one(run, bits=0x8000), f"{LAYER}: every window .*1 zeros are negative"),
    "not a number": (lambda run: fill_one(run, bits=0x7FC0), f"{LAYER}: every saved weight is a number \\(.*1 of 512"),
    "two shards exchanged": (
        exchange,
        f"{SHARDS}: .*it holds the tensors of {SHARDS}; the two files were probably exch",
    ),
    "a shard of the source": (dense_shard, f"{LAYER}: .*{SHA}"),
    "a shard of another run": (of_another_run, f"{LAYER}: .*{SHA}"),
    "a header with other metadata": (
        lambda run: (
            (path := run / "model-00002-of-00003.safetensors"),
            path.write_bytes(path.read_bytes().replace(b'"format":"pt"', b'"format":"tf"', 1)),
        ),
        r"model-00002-of-00003\.safetensors: .*its header has other metadata",
    ),
    "an index entry": (
        lambda run: index(run, **{NORM: "model-00001-of-00003.safetensors"}),
        rf"{re.escape(INDEX)}: .*it says model-00001-of-00003\.safetensors of {NORM}, which lies in model-00003",
    ),
    "two index entries": (exchange_in_index, rf"{re.escape(INDEX)}: .*of {LAYER}, .*of {LATER}, which lies in {SHARD}"),
    "an index entry that names no file": (
        lambda run: index(run, **{NORM: "model-00004-of-00003.safetensors"}),
        rf"{re.escape(INDEX)}: .*it says model-00004-of-00003\.safetensors of {NORM}",
    ),
    "a missing index entry": (
        lambda run: index(run, **{LAYER: None}),
        f"{re.escape(INDEX)}: .*it says nothing of {LAYER}",
    ),
    "an index entry too many": (
        lambda run: index(run, ghost="model-00001-of-00003.safetensors"),
        f"{re.escape(INDEX)}: .*of ghost, which lies in no file",
    ),
    "weights that load instead": (
        lambda run: shutil.copy(run / "model-00001-of-00003.safetensors", run / "model.safetensors"),
        r"model\.safetensors: no further file would be loaded as weights",
    ),
    "an adapter": (
        lambda run: (run / "adapter_config.json").write_text("{}"),
        r"adapter_config\.json: no further file",
    ),
    "the configuration": (
        lambda run: edit_config(run, rms_norm_eps=1e-3),
        r"config\.json: .*rms_norm_eps is 0\.001, in the source 1e-06",
    ),
    "a shard without a tensor": (
        lambda run: shutil.copy(run / "model-00001-of-00003.safetensors", run / "model-00002-of-00003.safetensors"),
        r"model-00002-of-00003\.safetensors: .*it holds the tensors of model-00001",
    ),
}


def edit_config(run: Path, **changes: Any) -> None:
    found = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(found | changes, indent=2))


def said(report: Report) -> str:
    return "\n".join(map(str, report.failed))


@pytest.mark.parametrize("sample", [None, SAMPLE], ids=["all", "sample"])
def test_a_run_as_it_was_written_holds(sample: Sample | None, run: Path) -> None:
    report = verified(run, sample)
    assert not report.failed, said(report)
    assert all(line["outcome"] == "holds" for line in report.verdicts())
    assert len(report.layers) == 21
    assert len(report.evaluated) == (3 if sample else 21)


@pytest.mark.parametrize("sample", [None, SAMPLE], ids=["all", "sample"])
@pytest.mark.parametrize("what", FOUND_BY_BYTES)
def test_every_change_is_found_and_told(what: str, sample: Sample | None, run: Path) -> None:
    spoil, says = FOUND_BY_BYTES[what]
    spoil(run)
    if sample:
        assert not {LAYER, LATER} & set(sample.of(list(json_lines(run, "layers.jsonl", "layer"))))
    report = verified(run, sample)
    assert any(re.match(says, str(finding)) for finding in report.failed), said(report)
    bad = {line["layer"] for line in report.verdicts() if line["outcome"] == "fails"}
    assert bad >= {name for name in report.layers if says.startswith(f"{name}: ")}


def json_lines(run: Path, file: str, key: str) -> Iterator[str]:
    return (json.loads(line)[key] for line in (run / file).read_text().splitlines())


def leaves(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all numbers of a document; of a list of numbers the last."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from leaves(value, (*path, key))
    elif isinstance(found, list) and found:
        yield from leaves(found[-1], (*path, len(found) - 1))
    elif isinstance(found, int | float):
        yield path


def nudge(document: Any, path: tuple[Any, ...]) -> None:
    for key in path[:-1]:
        document = document[key]
    value = document[path[-1]]
    document[path[-1]] = float(np.nextafter(value, np.inf)) if isinstance(value, float) else int(value) + 1


@pytest.mark.parametrize("file", ["layers.jsonl", "certificates.jsonl", "summary.json"])
def test_every_number_of_a_record_is_guarded(file: str, run: Path) -> None:
    """Each moved to its neighbour, one after another; the file is named."""
    text = (run / file).read_text()
    lines = text.splitlines(keepends=True) if file.endswith("l") else [text]
    line, numbers = json.loads(lines[-1]), 0
    assert not any(finding.failed for finding in intact._checksums(run))
    for path in leaves(line):
        spoilt = json.loads(lines[-1])
        nudge(spoilt, path)
        end = json.dumps(spoilt) if file.endswith("l") else json.dumps(spoilt, indent=1)
        (run / file).write_text("".join([*lines[:-1], end]))
        numbers += 1
        failed = [finding.where for finding in intact._checksums(run) if finding.failed]
        assert failed == [file], path
    assert numbers >= {"layers.jsonl": 15, "certificates.jsonl": 3, "summary.json": 30}[file]


def replan(run: Path) -> None:
    text = (run / "plan.toml").read_text()
    (run / "plan.toml").write_text(text.replace("iters = 8", "iters = 9"))


EDITED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a certificate": (
        lambda run: edit(run, "certificates.jsonl", lambda row: row.update(measured=-1.0), claim="step-size"),
        r"certificates\.jsonl: the file has the digest .*its SHA-256 is \w+\.\.\., recorded \w+",
    ),
    "the plan": (replan, r"plan\.toml: the file has the digest"),
    "the card": (
        lambda run: (run / "README.md").write_text((run / "README.md").read_text().replace("50%", "60%", 1)),
        r"README\.md: the model card says .*\(line 1 reads '# llama, maiht at 60%', not '# llama, maiht at 50%'",
    ),
    "a tokenizer file": (
        lambda run: (run / "generation_config.json").unlink(),
        r"generation_config\.json: the file has the digest .*it is missing",
    ),
    "no checksums": (lambda run: (run / SUMS).unlink(), rf"{SUMS}: .*it cannot be read"),
    "a record without checksum": (
        lambda run: (run / SUMS).write_text(
            "".join(line for line in (run / SUMS).read_text().splitlines(True) if "summary" not in line)
        ),
        r"summary\.json: .*SHA256SUMS does not name it",
    ),
}


@pytest.mark.parametrize("what", EDITED)
def test_an_edited_record_is_named(what: str, run: Path) -> None:
    spoil, says = EDITED[what]
    spoil(run)
    report = verified(run, SAMPLE)
    assert any(re.match(says, str(finding)) for finding in report.failed), said(report)


def scaled(run: Path) -> None:
    """Every kept weight of a layer, a tenth smaller."""
    found = Checkpoint.open(run).entries[LAYER]
    values = (0.9 * Checkpoint.open(run).read(LAYER).float()).to(torch.bfloat16)
    with (run / found.file).open("r+b") as file:
        file.seek(found.start)
        file.write(values.view(torch.uint8).numpy().tobytes())


def on_line(file: str, of: str = "", **changes: Any) -> Callable[[Path], None]:
    return lambda run: edit(run, file, lambda row: row.update(changes), claim=of)


ROWS, CLAIMS, SUMMARY = "layers.jsonl", "certificates.jsonl", "summary.json"
FORGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "one entry too many": (fill_one, f"{LAYER}: every window keeps exactly its budget"),
    "a scaled layer": (scaled, rf"{LAYER}: \|f\(saved weights\) - recorded objective\| = 0 \(.*layers\.jsonl records"),
    "an infinite weight": (lambda run: fill_one(run, bits=0x7F80), f"{LAYER}: every saved weight is a number"),
    "objective": (on_line(ROWS, objective=1e-9), rf"{LAYER}: \|f\(saved weights\) - recorded objective"),
    "relative error": (on_line(ROWS, relative_error=1e-9), rf"{LAYER}: \|f\(saved weights\) / f\(0\) - recorded rel"),
    "no relative error": (on_line(ROWS, relative_error=None), r"summary\.json: .*cannot be summed up"),
    "kept": (on_line(ROWS, kept=255), f"{LAYER}: layers.jsonl counts .*kept is 255, the file says 256"),
    "sparsity": (on_line(ROWS, sparsity=0.6), f"{LAYER}: layers.jsonl counts .*sparsity is 0.6, the file says 0.5"),
    "shape": (on_line(ROWS, shape=[16, 33]), rf"{LAYER}: layers.jsonl counts .*shape is \[16, 33\]"),
    "block": (on_line(ROWS, block=2), f"{LAYER}: layers.jsonl counts .*block is 2, the file says 1"),
    "lower bound": (
        on_line(CLAIMS, "lower-bound", measured=1e-3),
        rf"{LAYER}: .*lower-bound as it is found again \(recorded lower-bound: 0.001 <= .*; found again",
    ),
    "value in a certificate": (on_line(CLAIMS, "lower-bound", bound=9.0), f"{LAYER}: .*recorded lower-bound.*<= 9"),
    "allowance": (on_line(CLAIMS, "lower-bound", allowance=1.0), f"{LAYER}: .*recorded lower-bound.* \\+ 1: holds"),
    "count in a certificate": (on_line(CLAIMS, "exact-count", measured=1.0), f"{LAYER}: .*records exact-count"),
    "statement": (
        on_line(CLAIMS, "exact-count", statement="fine"),
        f"{LAYER}: .*exact-count: claim is 'fine', not 'every",
    ),
    "why it does not apply": (
        on_line(CLAIMS, "lower-bound", because="bad day", outcome="not applicable"),
        f"{LAYER}: .*applies is 'bad day', not ''",
    ),
    "sides of an outcome": (
        on_line(CLAIMS, "step-size", measured=2.0),
        rf"certificates\.jsonl: .*line \d+, step-size of {LAYER}: holds recorded, its numbers say fails",
    ),
    "outcome": (
        on_line(CLAIMS, "step-size", outcome="fails"),
        rf"certificates\.jsonl: .*step-size of {LAYER}: fails recorded, its numbers say holds",
    ),
    "another line instead": (
        on_line(CLAIMS, "exact-count", claim="x"),
        f"{LAYER}: .*certificates.jsonl has no line for it",
    ),
    "mean error": (
        on_line(SUMMARY, relative_error=1e-3),
        r"summary\.json: .*relative_error is 0\.001, the other records",
    ),
    "measured sparsity": (on_line(SUMMARY, sparsity_measured=0.6), r"summary\.json: .*sparsity_measured is 0\.6"),
    "counts of certificates": (
        on_line(SUMMARY, certificates={"holds": 210, "fails": 0, "not applicable": 0}),
        r'summary\.json: .*certificates is \{"holds": 210',
    ),
    "a method that was not": (
        on_line(SUMMARY, method="exact"),
        r'README\.md: the model card|summary\.json: .*method is "exa',
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_was_forged_with_its_checksums_is_found_by_its_values(what: str, run: Path) -> None:
    spoil, says = FORGED[what]
    spoil(run)
    forge(run, LAYER)
    report = verified(run)
    assert any(re.match(says, str(finding)) for finding in report.failed), said(report)
    assert not {"identity", "checksums"} & {finding.certificate.name for finding in report.failed}


def test_the_stream_ends_at_a_weight_that_is_no_number_and_what_follows_is_said(run: Path) -> None:
    fill_one(run, bits=0x7FC0)
    report = verified(run)
    assert re.search(r"block 1: the saved block runs .*\(block 1, attention output: the Gram holds NaN", said(report))
    assert len(report.evaluated) == 7
    assert report.not_evaluated[0] == "objective, relative error and certificates of 14 of 21 layers"


def test_a_sample_misses_values_of_other_layers_and_says_so(run: Path) -> None:
    """A scaled layer whose digest was forged: only the full check sees it, and the sample says what it left out."""
    scaled(run)
    forge(run, LAYER)
    report = verified(run, SAMPLE)
    assert LAYER not in report.evaluated
    assert not [finding for finding in report.failed if finding.where == LAYER]
    assert "objective, relative error and certificates of 18 of 21 layers" in report.not_evaluated


def test_a_sample_depends_on_its_seed_alone() -> None:
    names = [f"layer {k}" for k in range(224)]
    draws = [Sample.parse("10%", seed).of(names) for seed in range(20)]
    assert draws == [Sample.parse("10%", seed).of(names) for seed in range(20)]
    assert {len(draw) for draw in draws} == {23}
    assert len({tuple(draw) for draw in draws}) == 20
    assert len({name for draw in draws for name in draw}) > 180
    assert all(draw == sorted(draw, key=names.index) for draw in draws)
    assert Sample.parse("0.01%").of(names[:3]) == Sample.parse("1%").of(names[:3])
    assert Sample.parse("100%").of(names) == names
    assert Sample.parse(None) is None


@pytest.mark.parametrize("typed", ["0%", "10", "0.1", "101%", "10%/layer", "2:4", "some"])
def test_a_sample_that_is_no_share_is_refused(typed: str) -> None:
    with pytest.raises(Refusal, match=rf"--sample is a share of the layers.*got '{typed}'"):
        Sample.parse(typed)
    with pytest.raises(Refusal, match="--seed must be a whole number of at least 0; got -1"):
        Sample.parse("10%", -1)


def test_a_sample_streams_no_further_than_it_must(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    load = BlockWalk.load
    monkeypatch.setattr(BlockWalk, "load", lambda walk, i: (loaded.append(i), load(walk, i))[1])
    names = list(json_lines(run, "layers.jsonl", "layer"))
    seed = next(s for s in range(99) if all(".2." not in name for name in Sample.parse("10%", s).of(names)))
    report = verified(run, Sample.parse("10%", seed))
    assert loaded == list(range(max(int(name.split(".")[2]) for name in report.evaluated) + 1))
    assert len(loaded) < 3


def test_the_command_line_says_what_was_drawn_and_what_was_not(run: Path) -> None:
    found = CliRunner().invoke(app, ["verify", str(run), "--sample", "10%", "--seed", "1"])
    assert found.exit_code == 0
    assert re.search(r"(\d+) of \1 checks hold, 21 of 21 layers hold\n", found.stdout)
    assert "evaluated again: 3 of 21 layers (sample of 0.1, seed 1): model.layers." in found.stdout
    assert "not evaluated: objective, relative error and certificates of 18 of 21 layers\n" in found.stdout
    assert re.search(r"not evaluated: perplexity, seconds, .* \(168 certificates\): by checksum only\n", found.stdout)
    flip_kept(0)(run)
    found = CliRunner().invoke(app, ["verify", str(run), "--sample", "10%", "--json"])
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    assert document["outcome"] == "fails"
    assert document["sample"] == {"share": 0.1, "seed": 0}
    [verdict] = [line for line in document["layers"] if line["layer"] == LAYER]
    assert verdict["outcome"] == "fails"
    assert "identity" in verdict["fails"]
    [check] = [line for line in document["checks"] if line["outcome"] == "fails" and line["layer"] == LAYER][:1]
    assert "its SHA-256 is" in check["differs"]
    refused = CliRunner().invoke(app, ["verify", str(run), "--sample", "some"])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: --sample is a share")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: (run / CLAIMS).unlink(), r"holds a readable certificates\.jsonl"),
        (lambda run: (run / CLAIMS).write_bytes(b"\xff\xfe"), r"holds a readable certificates\.jsonl.*UnicodeDecode"),
        (lambda run: (run / SUMMARY).write_text("{"), r"holds a readable summary\.json"),
        (lambda run: (run / SUMMARY).write_text("[]"), r"holds a readable summary\.json"),
        (lambda run: (run / CLAIMS).write_text("{}\n"), r"holds a readable certificates\.jsonl.*KeyError"),
        (lambda run: (run / INDEX).write_text("{}"), "must be JSON with a weight_map"),
        (
            lambda run: (run / "model-00002-of-00003.safetensors").unlink(),
            "model-00002-of-00003.safetensors of .* are mis",
        ),
        (
            lambda run: (p := run / "model-00002-of-00003.safetensors").write_bytes(p.read_bytes()[:-1]),
            "bytes long by its own header and is",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(spoil: Callable[[Path], Any], says: str, run: Path) -> None:
    spoil(run)
    found = CliRunner().invoke(app, ["verify", str(run)])
    assert found.exit_code == 2, found.output
    assert re.match(f"error: .*{says}", found.stderr), found.stderr
    assert found.stderr.count("\n") == 1
    assert found.stderr.count("Give the --out folder") <= 1
