"""The recipe of the embedded model: a tokenizer and a small LLaMA, from the training part of the embedded text.

Minutes on one core. Run as `python -m llm_pipeline.bundled.train`; the same versions of Python, torch and
tokenizers and the same seed give the same files.
"""

import argparse
import copy
import hashlib
import itertools
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
import torch
import transformers
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llm_pipeline.bundled import MODEL, text
from solvers.refusal import Refusal

SEPARATOR = "<s>"
VOCABULARY = 1024
LENGTH = 256  # tokens per window, in training and in evaluation
BATCH = 8  # windows per step
STEPS = 1800
WARM_UP = 100  # steps
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
LARGEST_GRADIENT = 1.0  # global Euclidean norm
THREADS = 1  # sums come in one order on every machine, and a busy neighbour stalls no barrier
REPORT_EVERY = 100  # steps


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `VOCABULARY` tokens that opens every text with the separator, token 0."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[SEPARATOR], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{SEPARATOR} $A", pair=f"{SEPARATOR} $A {SEPARATOR} $B", special_tokens=[(SEPARATOR, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=SEPARATOR, eos_token=SEPARATOR)


def token_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Token ids of all texts one after another, each text opened by the separator.

    Returns
    -------
    Tensor (T,) of int64
    """
    return torch.tensor(list(itertools.chain.from_iterable(tokenizer(texts)["input_ids"])))


def architecture() -> LlamaConfig:
    """Grouped-query attention, SwiGLU, RMSNorm and tied embeddings: every part of a LLaMA, under 4 MB in float32."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )


def train(
    model: LlamaForCausalLM,
    tokens: torch.Tensor,
    *,
    steps: int,
    generator: torch.Generator,
    report: Callable[[int, float], None],
) -> None:
    """Train in place by AdamW, a linear warm-up and a cosine to zero.

    Parameters
    ----------
    model : LlamaForCausalLM
    tokens : Tensor (T,) of int64
    steps : int
        Updates, of `BATCH` windows of `LENGTH` tokens each.
    generator : torch.Generator
        Draws the order of the windows.
    report : callable (step, loss in nats per token) -> None
    """
    optimizer = _optimizer(model)
    schedule = LambdaLR(optimizer, lambda step: _learning_rate(step, steps))
    for step, windows in enumerate(itertools.islice(_batches(tokens, generator), steps), start=1):
        loss = _losses(model, windows).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report(step, loss.item())


def perplexity(model: LlamaForCausalLM, tokens: torch.Tensor, *, length: int = LENGTH) -> float:
    """Perplexity per token over disjoint windows, each scored from its second token; a short tail is left out.

    Parameters
    ----------
    model : LlamaForCausalLM
    tokens : Tensor (T,) of int64
        T at least `length`.
    length : int
        Tokens per window.
    """
    windows = tokens.unfold(0, length, length)
    with torch.no_grad():
        losses = [_losses(model, batch).double() for batch in windows.split(BATCH)]
    return math.exp(torch.cat(losses).mean())


def unigram_perplexity(training: torch.Tensor, tokens: torch.Tensor, *, length: int = LENGTH) -> float:
    """Perplexity of the add-one token frequencies of `training` (T',), on the positions that `perplexity` scores."""
    counts = torch.bincount(training, minlength=VOCABULARY).double() + 1
    scored = tokens.unfold(0, length, length)[:, 1:]
    return math.exp(-torch.log(counts / counts.sum())[scored].mean())


def shuffled(model: LlamaForCausalLM, *, seed: int) -> LlamaForCausalLM:
    """A copy in which the entries of every weight matrix are permuted: the same numbers, nothing learned."""
    generator = torch.Generator().manual_seed(seed)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for weight in copied.parameters():
            if weight.ndim == 2:
                order = torch.randperm(weight.numel(), generator=generator)
                weight.copy_(weight.flatten()[order].view_as(weight))
    return copied


def fingerprint(documents: list[text.Document]) -> str:
    """The sha256 of all names and texts, in hexadecimal: figures are comparable where it is the same."""
    return hashlib.sha256("\0".join(itertools.chain.from_iterable(documents)).encode()).hexdigest()


def _losses(model: LlamaForCausalLM, windows: torch.Tensor) -> torch.Tensor:
    """Nats of every token but the first of each window: (b, length) ids -> (b * (length - 1),)."""
    logits = model(windows[:, :-1], use_cache=False).logits  # (b, length - 1, vocabulary)
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")


def _batches(tokens: torch.Tensor, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Windows (BATCH, LENGTH + 1); each pass over the text cuts it at another offset and takes another order."""
    while True:
        offset = int(torch.randint(LENGTH, (), generator=generator))
        windows = tokens[offset:].unfold(0, LENGTH + 1, LENGTH)
        order = torch.randperm(len(windows), generator=generator)
        yield from (windows[rows] for rows in order.split(BATCH) if len(rows) == BATCH)


def _optimizer(model: LlamaForCausalLM) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    norms = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS)


def _learning_rate(step: int, steps: int) -> float:
    """Share of `LEARNING_RATE` at a step."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def _progress(steps: int) -> Callable[[int, float], None]:
    started = time.perf_counter()

    def report(step: int, loss: float) -> None:
        if step % REPORT_EVERY == 0 or step == steps:
            seconds = time.perf_counter() - started
            print(f"step {step}/{steps}  loss {loss:.3f} nats/token  {seconds:.0f} s", file=sys.stderr, flush=True)

    return report


def _build(*, steps: int, seed: int, out: Path) -> dict[str, float | int | str]:
    """Train, save to `out`, and return the record of the training."""
    started = time.perf_counter()
    parts = text.training_text(), text.held_out_text()
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(parts[0])
    training, held_out = (token_stream(tokenizer, part) for part in parts)
    tokenizer.save_pretrained(out)
    model = LlamaForCausalLM(architecture())
    generator = torch.Generator().manual_seed(seed)
    train(model, training, steps=steps, generator=generator, report=_progress(steps))
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.save_pretrained(out)
    return {
        "held_out_perplexity": perplexity(model, held_out),
        "unigram_perplexity": unigram_perplexity(training, held_out),
        "shuffled_perplexity": perplexity(shuffled(model, seed=seed), held_out),
        "window_tokens": LENGTH,
        "training_tokens": len(training),
        "held_out_tokens": len(held_out),
        "parameters": model.num_parameters(),
        "steps": steps,
        "tokens_per_step": BATCH * LENGTH,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - started, 1),
        "text_sha256": fingerprint(text.documents()),
        **_versions(),
    }


def _versions() -> dict[str, str]:
    libraries = {library.__name__: str(library.__version__) for library in (torch, transformers, tokenizers)}
    return {"python": platform.python_version(), **libraries}


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"needs a whole number of at least 1; got {word!r}")
    return int(word)


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m llm_pipeline.bundled.train",
        description="Train the embedded tokenizer and model from the text that CPython carries; no network.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=MODEL, help="folder of the model's files, made if absent")
    parser.add_argument("--steps", type=_positive, default=STEPS, help="updates of the weights, a fixed number")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of the order of the text")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run the recipe; the record goes to stdout and to `training.json` beside the model."""
    arguments = _arguments(words)
    torch.set_num_threads(THREADS)
    try:
        record = _build(steps=arguments.steps, seed=arguments.seed, out=arguments.out)
    except (Refusal, OSError) as refusal:
        print(refusal, file=sys.stderr)
        return 2
    page = json.dumps(record, indent=2)
    (arguments.out / "training.json").write_text(page + "\n")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
