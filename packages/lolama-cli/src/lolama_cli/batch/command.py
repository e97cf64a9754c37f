"""``--batch``: the lines of a file answered, here or by a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from lolama_cli.batch.answers import AnswerFile, Answers, StandardOutput
from lolama_cli.batch.local import LocalAnswers
from lolama_cli.batch.messages import in_line
from lolama_cli.batch.options import BatchOptions
from lolama_cli.batch.prompts import BatchPrompt, BatchSettings, read_lines
from lolama_cli.batch.run import Answering, Batch, Tally, answer_all
from lolama_cli.console import Output, note
from lolama_cli.draft import DraftChoice
from lolama_cli.model_choice import ModelChoice, tell_unsupported
from lolama_cli.pictures import prepare_images
from lolama_cli.setting_options import RequestedSettings, with_models_own
from lolama_core.protocols.errors import LolamaError, UsageError

if TYPE_CHECKING:
    from lolama.command_prompts import PreparedImages
    from lolama.grammar import Grammar
    from lolama_cli.server_run import ServedChoice, ServedPrompt

_ROWS = 16


def generate_batch(
    options: BatchOptions,
    chosen: ModelChoice,
    draft: DraftChoice,
    asked: RequestedSettings,
    stdout: Output,
    system: str | None,
    raw: bool,
    logprobs: int | None,
    *,
    image_mode: str | None,
    grammar: Grammar | None,
    verbose: bool,
) -> None:
    """Answer a file of prompts.

    Args:
        options: Where they come from, and where answers go.
        chosen: The model.
        draft: What tries tokens ahead.
        asked: Settings of lines that have none of their own.
        stdout: Takes answers that go nowhere else.
        system, raw, logprobs: As for `generate`.
        image_mode: How pictures are prepared; None as the model was trained.
        grammar: What answers of lines may be that do not say otherwise.
        verbose: Tell how fast it was.

    Raises:
        LolamaError: of the kind of the first prompt that could not be answered, after all others were.
    """
    from lolama import names
    from lolama.command_prompts import encode_messages

    files, tokenizer = chosen.open()
    draft.open(files, tokenizer)
    identity = _identity(
        [files.name, files.revision],
        chosen.quantize,
        chosen.dtype,
        chosen.template,
        chosen.stored,
        logprobs=logprobs,
        image_mode=image_mode,
        no_think=chosen.no_think,
        grammar=grammar,
    )
    config = replace(with_models_own(asked.config, files, asked.given), logprobs=logprobs)
    common = BatchSettings(config, system, raw, identity, grammar)
    most = names.context_length(files)

    def encode(prompt: BatchPrompt) -> tuple[Sequence[int], PreparedImages | None]:
        try:
            images = prepare_images(files, prompt.images, image_mode)
        except UsageError as error:
            raise in_line(error) from None
        ids = encode_messages(
            prompt.messages, files, tokenizer, raw=raw, alone=prompt.alone, images=images, most=most
        )
        return ids, images

    def begin() -> LocalAnswers:
        tell_unsupported(files)
        model = chosen.load(files, verbose=verbose)
        return LocalAnswers(
            model,
            tokenizer,
            encode,
            raw=raw,
            rows=options.size or _ROWS,
            cache_bytes=options.cache_bytes,
            draft=draft.load(verbose=verbose),
            cache_dtype=chosen.stored,
        )

    _answer_lines(options, common, stdout, begin, verbose=verbose)


def generate_batch_served(
    options: BatchOptions,
    chosen: ServedChoice,
    question: ServedPrompt,
    asked: RequestedSettings,
    stdout: Output,
    *,
    verbose: bool,
) -> None:
    """`generate_batch` with a server that has the model. Its answers go on with those of this process.

    Args:
        options: Where prompts come from, and where answers go.
        chosen: The model.
        question: What holds for every prompt.
        asked: Settings of lines that have none of their own.
        stdout: Takes answers that go nowhere else.
        verbose: Tell how fast it was.

    Raises:
        LolamaError: as `generate_batch`; and if the server stops answering, which no line is answered with.
    """
    from lolama_cli.batch.served import ServedAnswers

    loaded = chosen.facts["identity"]
    identity = _identity(
        loaded["model"],
        loaded["bits"],
        loaded["dtype"],
        loaded["template"],
        loaded["cache_dtype"],
        logprobs=question.logprobs,
        image_mode=question.image_mode,
        no_think=chosen.no_think,
        grammar=question.grammar,
    )
    config = replace(chosen.settings(asked.config, asked.given), logprobs=question.logprobs)
    common = BatchSettings(config, question.system, question.raw, identity, question.grammar)

    def begin() -> ServedAnswers:
        chosen.tell()
        return ServedAnswers(chosen, question, options.size or _ROWS)

    _answer_lines(options, common, stdout, begin, verbose=verbose)


def _identity(
    model: object,
    bits: int,
    dtype: str,
    template: str | None,
    cache_dtype: str | None,
    *,
    logprobs: int | None,
    image_mode: str | None,
    no_think: bool,
    grammar: Grammar | None,
) -> dict[str, object]:
    """What identifies all that shapes the answers beside prompts and settings."""
    return {
        "model": model,
        # Answers of 0.1 were made with a truth in the place of the bits.
        "settings": [bits if bits == 4 else bits == 8, dtype, template, logprobs],
        **({} if image_mode is None else {"image_mode": image_mode}),
        **({"thinking": False} if no_think else {}),
        **({} if cache_dtype is None else {"cache_dtype": cache_dtype}),
        **({} if grammar is None else {"grammar": [grammar.kind, grammar.source]}),
    }


def _answer_lines(
    options: BatchOptions,
    common: BatchSettings,
    stdout: Output,
    begin: Callable[[], Answering],
    *,
    verbose: bool,
) -> None:
    """Answer the lines that have no answer yet; ``begin`` makes what answers, if there are any."""
    assert options.prompts is not None
    source = None if str(options.prompts) == "-" else options.prompts
    lines = read_lines(source, common)
    # No file of answers is made for prompts that cannot be read.
    first = next(lines, None)
    lines = chain(() if first is None else (first,), lines)
    answers: Answers = StandardOutput(stdout)
    if options.output is not None:
        answers = AnswerFile(options.output)
    tally = Tally()
    for answer in answers.done(lines):
        tally.add(answer)
    if tally.answers:
        note(f"{tally.answers:,} answers are there")
    following = next(lines, None)
    if following is not None:
        batch = Batch(begin(), common)
        answer_all(batch, chain((following,), lines), answers, tally, verbose=verbose)
    answers.close()
    _tell_failures(tally, str(source or "standard input"))


def _tell_failures(tally: Tally, subject: str) -> None:
    if tally.first_failure is None:
        return
    line, message, exit_code = tally.first_failure
    error = LolamaError(
        subject,
        f"{tally.failed:,} of {tally.answers:,} lines have no answer but an error",
        f"the first: {message}"
        if message.startswith("line")
        else f"the first: line {line}: {message}",
    )
    error.exit_code = exit_code
    raise error
