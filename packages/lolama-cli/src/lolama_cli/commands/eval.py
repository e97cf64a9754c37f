"""``lolama eval``: how well a model predicts a text, and what fewer bits change about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output
from lolama_cli.errors import Settings
from lolama_cli.model_choice import ModelChoice, weights_in_words
from lolama_cli.progress_line import progress_line
from lolama_cli.quantize_option import quantize_option
from lolama_cli.schemas import EVAL
from lolama_cli.tables import write_facts
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama.evaluate import Perplexity
    from lolama.quantize import QualityReport
    from lolama_core.protocols import CausalLM, Tokenizer
    from lolama_core.protocols.types import ModelFiles

EXAMPLES = """\b
Examples:
  lolama eval -m demo
  lolama eval -m ./my-model book.txt
  lolama eval -m ./my-model book.txt --quantize --json
  lolama eval -m ./my-model --quantize 4
"""

_MOST_BYTES = 64_000_000


def eval(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A text in UTF-8; if not given, stories that ship with lolama."
        ),
    ] = None,
    model: options.Model = "tinyllama",
    quantize: Annotated[
        int, quantize_option("Compare the model in 8 bits, or in 4, with the model as it is.")
    ] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    cache_dtype: options.CacheDtype = "auto",
    as_json: options.Json = False,
    yes: options.Yes = False,
) -> None:
    """Measure how well a model predicts a text.

    Its perplexity: lower is better. The text is read in pieces of 512 tokens, or of the context if that is
    shorter; perplexities compare only between models with the same tokenizer. With --quantize also how far
    the predictions of the model in 8 or 4 bits are from its own, and beside it the noise floor: what another
    order of summation does.
    """
    options.check_device(device)
    texts = None
    if file is not None:
        texts = [options.read_text(file, "give a text file", _MOST_BYTES)]
        if not texts[0].strip():
            raise UsageError(str(file), "is empty", "give a text file")
    output = Output()
    settings: Settings = context.obj
    chosen = ModelChoice(name=model, device=device, dtype=dtype, cache_dtype=cache_dtype, yes=yes)
    files, tokenizer = chosen.open()
    if quantize and "quantization" in files.config:
        reason = "is quantized already"
        raise UsageError(model, reason, "compare the model that it was made from")
    from lolama import evaluate, wiring

    loaded = chosen.load(files, verbose=settings.verbose)
    started = time.perf_counter()
    with progress_line("reading the text") as steps:
        read = texts or evaluate.default_texts()
        found = evaluate.perplexity(loaded, tokenizer, read, steps, chosen.stored)
    quality = None
    if quantize:
        quality = _compare(chosen, quantize, files, loaded, tokenizer, texts, settings)
    facts: dict[str, object] = {
        "model": model,
        "text": None if file is None else str(file),
        "device": str(loaded.device),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "quantization": wiring.scheme_of(loaded),
        "tokens": found.tokens,
        "window": found.window,
        "perplexity": found.perplexity,
        "seconds": round(time.perf_counter() - started, 6),
        "bits": quantize or None,
        "quality": None if quality is None else quality.to_json(),
    }
    if as_json:
        EVAL.write(output, facts)
    else:
        write_facts(output, _rows(facts, found, quality))


def _compare(
    chosen: ModelChoice,
    quantize: int,
    files: ModelFiles,
    loaded: CausalLM,
    tokenizer: Tokenizer,
    texts: Sequence[str] | None,
    settings: Settings,
) -> QualityReport:
    from lolama.quantize import measure

    chosen.quantize = quantize
    small = chosen.load(files, verbose=settings.verbose)
    with progress_line("comparing") as steps:
        return measure(loaded, small, tokenizer, texts, steps, chosen.stored)


def _rows(
    facts: dict[str, object], found: Perplexity, quality: QualityReport | None
) -> Iterator[tuple[str, ...]]:
    yield "model", f"{facts['model']}, {weights_in_words(facts)} on {facts['device']}"
    yield "text", str(facts["text"] or "stories that ship with lolama")
    yield "tokens", f"{found.tokens:,} in pieces of up to {found.window}"
    yield "perplexity", f"{found.perplexity:.4f}"
    if quality is not None:
        yield f"in int{facts['bits']}", f"{quality.perplexity:.4f}", "noise floor"
        yield from quality.rows()[1:]
