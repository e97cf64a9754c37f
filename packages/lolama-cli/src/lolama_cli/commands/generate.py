"""``lolama generate``: a prompt in, new text out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output, note, progress, read_prompt
from lolama_cli.errors import Settings
from lolama_cli.loaded import tell_loaded
from lolama_cli.pictures import Shown, check_names, show
from lolama_cli.prompts import encode_prompt
from lolama_cli.transfer_bars import transfer_bars
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama import GenerationConfig
    from lolama_core.protocols import CausalLM, Tokenizer

EXAMPLES = """\b
Examples:
  lolama generate -m demo "Once upon a time"
  lolama generate -m demo-vision --image drawing.png "What is in the picture?"
  lolama generate -m ./my-model --temperature 0 "The capital of France is"
  echo "Explain transformers" | lolama generate -m ./my-model
"""


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
    image: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--image",
            help="Picture for a model that sees; may be repeated, - is standard input.",
            metavar="PATH",
        ),
    ] = None,
    image_mode: options.ImageMode = "auto",
    system: options.System = None,
    template: options.Template = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text; leave the chat template aside.")
    ] = False,
    max_tokens: options.MaxTokens = 256,
    temperature: options.Temperature = 0.7,
    top_p: options.TopP = 0.9,
    top_k: options.TopK = 0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.1,
    stop: options.Stop = None,
    seed: options.Seed = None,
    no_stream: options.NoStream = False,
    quantize: options.Quantize = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    yes: options.Yes = False,
) -> None:
    """Generate text from a prompt. Streams by default.

    Without PROMPT, or with -, standard input is read. A model that comes with a chat template is asked in it;
    a base model continues the text. Standard output is the new text and nothing else.
    """
    # From here on in the order of what things cost: options, the prompt, small files, and only then weights.
    config = options.generation_config(
        max_new_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop or ()),
        seed=seed,
    )
    options.check_device(device)
    pictures = image or []
    check_names(pictures, prompt_from_stdin=prompt in (None, "-"))
    if image_mode != "auto" and not pictures:
        raise UsageError("--image-mode", "there is no picture to prepare", "give one with --image")
    told = options.check_system(system, raw=raw)
    own_template = options.read_template(template, raw=raw)
    output = Output()
    text = read_prompt(prompt)

    from lolama import wiring

    with transfer_bars() as bars:
        files = wiring.resolve(model, confirm=yes or None, progress=bars)
    shown = show(files, pictures, None if image_mode == "auto" else image_mode)
    tokenizer = wiring.tokenizer_of(
        files if own_template is None else wiring.with_chat_template(files, own_template)
    )
    ids = encode_prompt(
        text,
        tokenizer,
        raw=raw,
        system=told,
        context_length=wiring.context_length(files),
        shown=shown,
    )
    if quantize:
        files = wiring.quantized(files, tell=note)
    started = time.perf_counter()
    loaded = wiring.load_files(files, device=device, dtype=dtype)
    wiring.suit_threads(loaded)
    settings: Settings = context.obj
    if settings.verbose:
        tell_loaded(files, loaded, time.perf_counter() - started)
    run = _Run(loaded, tokenizer, ids, config, output, shown)
    run.generate(stream=not no_stream)
    run.tell(verbose=settings.verbose)


@dataclass
class _Run:
    """One generation: its text to standard output, what there is to say about it to standard error."""

    model: CausalLM
    tokenizer: Tokenizer
    ids: Sequence[int]
    config: GenerationConfig
    output: Output
    shown: Shown | None

    def generate(self, *, stream: bool) -> None:
        from lolama import TextGenerator

        self.started = time.perf_counter()
        self.first: float | None = None
        pieces = []
        generator = TextGenerator(self.model, self.tokenizer)
        shown = self.shown
        with progress(shown.progress if shown is not None else ""):
            stream_of = generator.generate_stream(
                self.ids, self.config, **(shown.model_inputs if shown is not None else {})
            )
        try:
            with stream_of as tokens:
                for piece in tokens.text():
                    if self.first is None:
                        self.first = time.perf_counter()
                    if stream:
                        self.output.write(piece)
                    else:
                        pieces.append(piece)
            self.output.write("".join(pieces))
        finally:
            # Before an error says anything, and where Ctrl-C leaves the cursor.
            self.output.end_line()
        assert tokens.result is not None
        self.result = tokens.result
        self.ended = time.perf_counter()

    @property
    def prompt_length(self) -> int:
        """Positions of the prompt, pictures included."""
        return len(self.ids) if self.shown is None else self.shown.count_positions(self.ids)

    def tell(self, *, verbose: bool) -> None:
        if self.result.context_full:
            note(
                f"note: the text ends here because the model's context of {self.model.max_seq_len:,} "
                f"tokens is full ({self.prompt_length:,} of the prompt, {len(self.result.ids):,} new)"
            )
        if not verbose:
            return
        why = {"eos": "the model ended it", "stop": "a stop text came", "length": "at the limit"}
        new = len(self.result.ids)
        line = (
            f"{self.prompt_length:,} prompt tokens, {new:,} new ({why[self.result.finish_reason]})"
        )
        if self.first is not None:
            line += f"; first text after {self.first - self.started:.2f} s"
            if new > 1:
                line += f", then {(new - 1) / max(self.ended - self.first, 1e-9):.1f} tokens/s"
        note(line)
