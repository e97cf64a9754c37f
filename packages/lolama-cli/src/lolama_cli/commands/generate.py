"""``lolama generate``: a prompt in, new text out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lolama_cli import options
from lolama_cli.answer_options import GrammarOption, JsonSchemaOption, RegexOption, read_grammar
from lolama_cli.batch.options import CACHE_MEMORY, BatchOptions
from lolama_cli.console import Output
from lolama_cli.draft import DraftChoice, DraftOption
from lolama_cli.errors import Settings
from lolama_cli.generation import GenerationRun, TextRun, with_seed
from lolama_cli.logprobs import check_logprobs
from lolama_cli.model_choice import ModelChoice, tell_unsupported
from lolama_cli.pictures import check_names, prepare_images
from lolama_cli.prompt_cache import OPTION as PROMPT_CACHE
from lolama_cli.prompt_cache import PromptCacheFile, PromptCacheOption, kept_prefixes
from lolama_cli.prompts import encode_prompt
from lolama_cli.quantize_option import Quantize
from lolama_cli.server_option import HERE, server_of
from lolama_cli.setting_options import RequestedSettings, with_models_own, with_settings
from lolama_cli.standard_input import NO_STDIN, read_prompt
from lolama_core.protocols.errors import UsageError

EXAMPLES = """\b
Examples:
  lolama generate -m demo "Once upon a time"
  lolama generate -m demo-vision --image drawing.png "What is in the picture?"
  lolama generate -m ./my-model --temperature 0 "The capital of France is"
  lolama generate -m demo --json --logprobs 3 --max-tokens 5 "Once upon a time"
  lolama generate -m demo --json-schema person.json "Describe a person as JSON."
  lolama generate -m demo --batch prompts.jsonl -o answers.jsonl
  echo "Explain transformers" | lolama generate -m ./my-model
  cat book.txt | lolama generate -m ./my-model --prompt-cache book.cache "Who is the hero?"
  lolama generate -m ./my-model --draft ./my-small-model "Once upon a time"
  cat notes.txt | lolama generate -m ./my-model "Summarize this:"
  lolama generate -m demo --server http://127.0.0.1:8080 "Once upon a time"
"""


@with_settings
def generate(
    context: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            hidden=True,  # from the list; the text above it says all
        ),
    ] = None,
    model: options.Model = "tinyllama",
    no_stdin: Annotated[
        bool, typer.Option(NO_STDIN, help="Leave standard input alone; PROMPT is the whole prompt.")
    ] = False,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--image",
            help="Picture for a vision model; may be repeated, - is standard input.",
            metavar="PATH",
        ),
    ] = None,
    image_mode: options.ImageMode = "auto",
    system: options.System = None,
    template: options.Template = None,
    no_think: options.NoThink = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text; leave the chat template aside.")
    ] = False,
    *,
    asked: RequestedSettings,
    json_schema: JsonSchemaOption = None,
    regex: RegexOption = None,
    grammar: GrammarOption = None,
    no_stream: options.NoStream = False,
    prompt_cache: PromptCacheOption = None,
    draft: DraftOption = "auto",
    as_json: options.Json = False,
    logprobs: Annotated[
        int | None,
        typer.Option(
            "--logprobs",
            help="With --json: each token's log-probability, and the N most probable ones.",
            metavar="N",
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch",
            help="Answer a file of JSON lines, many at a time (docs/batch.md); - is standard input.",
            metavar="FILE",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="With --batch: where answers go. Answers that are there are not made again.",
            metavar="FILE",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            help="With --batch: prompts that run at the same time, 16 if not given.",
            metavar="INT",
        ),
    ] = None,
    cache_memory: Annotated[
        str | None,
        typer.Option(
            CACHE_MEMORY,
            help="With --batch: memory for keys and values, such as 2GB; four fifths of what is free if "
            "not given.",
            metavar="SIZE",
        ),
    ] = None,
    quantize: Quantize = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    cache_dtype: options.CacheDtype = "auto",
    yes: options.Yes = False,
    server: options.Server = HERE,
) -> None:
    """Generate text from a prompt. Streams by default.

    What is piped in goes before PROMPT, with a blank line between them; without PROMPT, or with -, it is the
    prompt. A model that comes with a chat template is asked in it; a base model continues the text. Standard
    output is the new text and nothing else.
    """
    # From here on in the order of what things cost: options, the prompt, small files, and only then weights.
    address = server_of(context, server)
    options.check_device(device)
    pictures = image or []
    check_names(pictures, prompt_from_stdin=prompt in (None, "-"))
    if no_stdin and ("-" in pictures or str(batch) == "-"):
        raise UsageError(NO_STDIN, "- asks for standard input", "leave one of them out")
    mode = None if image_mode == "auto" else image_mode
    if mode and not pictures and batch is None:
        raise UsageError("--image-mode", "there is no picture to prepare", "give one with --image")
    check_logprobs(logprobs, as_json=as_json or batch is not None)
    wanted = read_grammar(json_schema, regex, grammar)
    system_message = options.check_system(system, raw=raw)
    options.check_no_think(no_think, raw=raw)
    chosen = ModelChoice(
        name=model,
        quantize=quantize,
        device=device,
        dtype=dtype,
        cache_dtype=cache_dtype,
        yes=yes,
        template=options.read_template(template, raw=raw),
        no_think=no_think,
    )
    settings: Settings = context.obj
    together = BatchOptions(batch, output, batch_size, cache_memory)
    together.check(prompt, pictures)
    if prompt_cache is not None and batch is not None:
        remedy = "leave it out: what several prompts begin with is run once anyway"
        raise UsageError(PROMPT_CACHE, "does not go with --batch", remedy)
    kept = None if prompt_cache is None else PromptCacheFile(prompt_cache, settings.verbose)
    stdout = Output()
    drafts = DraftChoice(draft, chosen)
    if address is not None:
        from lolama_cli.server_run import ServedChoice, ServedPrompt, answer

        question = ServedPrompt(system_message, raw, mode, logprobs, wanted)
        if together.prompts is not None:
            from lolama_cli.batch.command import generate_batch_served

            served = ServedChoice.at(address, model, no_think=no_think)
            generate_batch_served(
                together, served, question, asked, stdout, verbose=settings.verbose
            )
            return
        text = read_prompt(prompt, leave_stdin=no_stdin or "-" in pictures)
        served = ServedChoice.at(address, model, no_think=no_think)
        answered = answer(served, question, text, pictures, asked, stdout, seeded=as_json)
        _run(answered, model, as_json=as_json, stream=not no_stream)
        answered.tell(verbose=settings.verbose)
        return
    if together.prompts is not None:
        from lolama_cli.batch.command import generate_batch

        generate_batch(
            *(together, chosen, drafts, asked, stdout, system_message, raw, logprobs),
            image_mode=mode,
            grammar=wanted,
            verbose=settings.verbose,
        )
        return
    from lolama.thinking import thought_format

    text = read_prompt(prompt, leave_stdin=no_stdin or "-" in pictures)
    files, tokenizer = chosen.open()
    drafts.open(files, tokenizer)
    if kept is not None:
        kept.check(files, chosen.stored)
    config = with_models_own(asked.config, files, asked.given)
    images = prepare_images(files, pictures, mode)
    ids = encode_prompt(text, files, tokenizer, raw=raw, system=system_message, images=images)
    tell_unsupported(files)
    loaded = chosen.load(files, verbose=settings.verbose)
    tried = drafts.load(verbose=settings.verbose)
    config = replace(with_seed(config), logprobs=logprobs) if as_json else config
    with kept_prefixes(kept, loaded, chosen.stored, tried) as prefixes:
        run = GenerationRun(
            *(loaded, tokenizer, ids, config, stdout, images, prefixes, tried, chosen.stored),
            thoughts=None if raw else thought_format(tokenizer, ids),
            grammar=wanted,
            load_seconds=chosen.load_seconds + drafts.load_seconds,
        )
        _run(run, model, as_json=as_json, stream=not no_stream)
    run.tell(verbose=settings.verbose)


def _run(run: TextRun, model: str, *, as_json: bool, stream: bool) -> None:
    """Generate to the end, and write what was asked for."""
    run.generate(write=not as_json, stream=stream)
    if as_json:
        run.write_json(model)
