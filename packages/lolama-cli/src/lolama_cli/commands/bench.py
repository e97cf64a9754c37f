"""``lolama bench``: how fast a model runs here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output
from lolama_cli.errors import Settings
from lolama_cli.model_choice import ModelChoice, weights_in_words
from lolama_cli.progress_line import progress_line
from lolama_cli.quantize_option import Quantize
from lolama_cli.schemas import BENCH
from lolama_cli.tables import write_facts
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama.bench import Speed, Spread

EXAMPLES = """\b
Examples:
  lolama bench -m demo
  lolama bench -m ./my-model --quantize
  lolama bench -m ./my-model --prompt-tokens 1024 --max-tokens 256 --repeats 10 --json
"""

_PROMPT, _NEW = 512, 64
_MOST_REPEATS = 10_000


def bench(
    context: typer.Context,
    model: options.Model = "tinyllama",
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--prompt-tokens",
            help=f"Length of the prompt; {_PROMPT} if not given, or half of a shorter context.",
            metavar="INT",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            help=f"Tokens to generate; {_NEW} if not given, or as many as there is room for.",
            metavar="INT",
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option("--repeats", help="Runs; one more before them warms up.", metavar="INT"),
    ] = 5,
    quantize: Quantize = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
    yes: options.Yes = False,
) -> None:
    """Measure how fast a model runs here.

    Medians of several runs: the time to the first token, the tokens of the prompt per second of it, and new
    tokens per second after it. Whatever else the machine does meanwhile is measured, too.
    """
    if prompt_tokens is not None and prompt_tokens < 1:
        reason = f"{prompt_tokens} is no length of a prompt"
        raise UsageError("--prompt-tokens", reason, "use 1 or more")
    if max_tokens is not None and max_tokens < 1:
        raise UsageError("--max-tokens", f"{max_tokens} leaves nothing to measure", "use 1 or more")
    if not 1 <= repeats <= _MOST_REPEATS:
        raise UsageError("--repeats", f"{repeats} is out of range", f"use 1 to {_MOST_REPEATS:,}")
    options.check_device(device)
    output = Output()
    chosen = ModelChoice(name=model, quantize=quantize, device=device, dtype=dtype, yes=yes)
    files, tokenizer = chosen.open()
    from lolama import names, wiring
    from lolama.bench import measure, prompt_of

    length, new = _sizes(prompt_tokens, max_tokens, names.context_length(files))
    settings: Settings = context.obj
    loaded = chosen.load(files, verbose=settings.verbose)
    with progress_line(f"running {repeats + 1} times") as steps:
        ids = prompt_of(tokenizer, length)
        found = measure(loaded, ids, new_tokens=new, repeats=repeats, steps=steps)
    scheme = wiring.scheme_of(loaded)
    facts = {
        "model": model,
        "device": str(loaded.device),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "quantized": scheme is not None,
        "quantization": scheme,
        "load_seconds": round(chosen.load_seconds, 6),
    }
    if as_json:
        BENCH.write(output, {**facts, **_as_json(found)})
    else:
        write_facts(output, _rows(facts, found), header=("what", "median", "lowest to highest"))


def _sizes(prompt: int | None, new: int | None, context: int | None) -> tuple[int, int]:
    """Tokens of the prompt and new ones: what was asked for, or what the context has room for."""
    room = context if context is not None else _PROMPT + _NEW
    length = prompt if prompt is not None else max(1, min(_PROMPT, room // 2))
    if length + (new or 1) > room:
        reason = (
            f"{length:,} and {new or 1:,} new are more than the {room:,} the model attends over"
        )
        raise UsageError("--prompt-tokens" if prompt else "--max-tokens", reason, "give fewer")
    return length, new if new is not None else min(_NEW, room - length)


def _as_json(found: Speed) -> dict[str, object]:
    return {
        "prompt_tokens": found.prompt_tokens,
        "new_tokens": found.new_tokens,
        "first_token_seconds": dataclasses.asdict(found.first_token),
        "prefill_tokens_per_second": dataclasses.asdict(found.prefill),
        "decode_tokens_per_second": found.decode and dataclasses.asdict(found.decode),
        "runs": [dataclasses.asdict(run) for run in found.runs],
    }


def _rows(facts: dict[str, object], found: Speed) -> Iterator[tuple[str, ...]]:
    yield "model", f"{facts['model']}, {weights_in_words(facts)} on {facts['device']}"
    yield "loaded in", f"{facts['load_seconds']:.2f} s"
    yield "size", f"{found.prompt_tokens:,} tokens and {found.new_tokens:,} new"
    yield "first token", *_in_words(found.first_token, ".3f", "s")
    yield "prefill", *_in_words(found.prefill, ",.1f", "tokens/s")
    if found.decode is not None:
        yield "decode", *_in_words(found.decode, ",.1f", "tokens/s")


def _in_words(spread: Spread, form: str, unit: str) -> tuple[str, str]:
    low, high = format(spread.low, form), format(spread.high, form)
    return f"{spread.median:{form}} {unit}", f"{low} to {high}"
