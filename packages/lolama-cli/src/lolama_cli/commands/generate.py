"""``lolama generate``: a prompt in, new text out."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lolama_cli.console import Output, note, progress, read_prompt
from lolama_cli.errors import Settings
from lolama_cli.loaded import tell_loaded
from lolama_cli.options import Model, Yes
from lolama_cli.pictures import Shown, check_names, show
from lolama_cli.transfer_bars import transfer_bars
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama import GenerationConfig
    from lolama_core.protocols import CausalLM, Tokenizer

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")

# So many characters a token that a text of them is longer than its share of the context nearly always.
_CHARACTERS_PER_TOKEN = 32

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
    model: Model = "tinyllama",
    image: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--image",
            help="Picture for a model that sees; may be repeated, - is standard input.",
            metavar="PATH",
        ),
    ] = None,
    image_mode: Annotated[
        Literal["auto", "crop", "pad"],
        typer.Option(
            "--image-mode",
            help="Cut pictures square or pad them; auto as the model was trained.",
            metavar="TEXT",
        ),
    ] = "auto",
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="Maximum tokens to generate.", metavar="INT")
    ] = 256,
    temperature: Annotated[
        float,
        typer.Option("--temperature", help="Sampling temperature; 0 is greedy.", metavar="FLOAT"),
    ] = 0.7,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Nucleus sampling threshold.", metavar="FLOAT")
    ] = 0.9,
    top_k: Annotated[
        int,
        typer.Option("--top-k", help="Sample from the k best tokens; 0 is off.", metavar="INT"),
    ] = 0,
    min_p: Annotated[
        float,
        typer.Option(
            "--min-p",
            help="Drop tokens less probable than this share of the best; 0 is off.",
            metavar="FLOAT",
        ),
    ] = 0.0,
    repetition_penalty: Annotated[
        float,
        typer.Option("--repetition-penalty", help="Repetition penalty; 1 is off.", metavar="FLOAT"),
    ] = 1.1,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", help="Text that ends the output; may be repeated.", metavar="TEXT"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Make the same choices every time.", metavar="INT"),
    ] = None,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Disable streaming (wait for full response).")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text; leave the chat template aside.")
    ] = False,
    quantize: Annotated[
        bool, typer.Option("--quantize", help="Use int8 quantization; the int8 model is kept.")
    ] = False,
    device: Annotated[
        str,
        typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="TEXT"),
    ] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option("--dtype", help="auto, float32, bfloat16 or float16.", metavar="TEXT"),
    ] = "auto",
    yes: Yes = False,
) -> None:
    """Generate text from a prompt. Streams by default.

    Without PROMPT, or with -, standard input is read. A model that comes with a chat template is asked in it;
    a base model continues the text. Standard output is the new text and nothing else.
    """
    # From here on in the order of what things cost: options, the prompt, small files, and only then weights.
    config = _config(
        max_new_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop or ()),
        seed=seed,
    )
    if not _DEVICE.fullmatch(device):
        raise UsageError(
            "--device", f"{device!r:.40} is not a device", "use cpu, cuda, cuda:N or mps"
        )
    pictures = image or []
    check_names(pictures, prompt_from_stdin=prompt in (None, "-"))
    if image_mode != "auto" and not pictures:
        raise UsageError("--image-mode", "there is no picture to prepare", "give one with --image")
    output = Output()
    text = read_prompt(prompt)

    from lolama import wiring

    with transfer_bars() as bars:
        files = wiring.resolve(model, confirm=yes or None, progress=bars)
    shown = show(files, pictures, None if image_mode == "auto" else image_mode)
    tokenizer = wiring.tokenizer_of(files)
    length = wiring.context_length(files)
    ids = _encode(text, tokenizer, raw=raw, context_length=length, shown=shown)
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


def _config(**settings: object) -> GenerationConfig:
    from lolama import GenerationConfig

    try:
        return GenerationConfig(**settings)  # type: ignore[arg-type] # it checks its own fields
    except UsageError as error:
        if error.subject == "--max-new-tokens":
            raise UsageError("--max-tokens", error.reason, error.remedy) from None
        raise


def _encode(
    text: str,
    tokenizer: Tokenizer,
    *,
    raw: bool,
    context_length: int | None,
    shown: Shown | None,
) -> Sequence[int]:
    """The prompt's ids, refused if they are more than the model can attend over."""
    if context_length is not None and len(text) > context_length * _CHARACTERS_PER_TOKEN:
        # Tokenising megabytes takes longer than it is worth to say by how much they are too many.
        start = text[: context_length * _CHARACTERS_PER_TOKEN]
        count = len(tokenizer.encode_ids(start, split_special_tokens=True))
        if count > 2 * context_length:
            estimate = float(f"{count * len(text) / len(start):.2g}")
            raise _too_long(f"about {estimate:,.0f}", context_length)
    ids: Sequence[int]
    if tokenizer.has_chat_template and not raw:
        # The template of a model that sees reads the parts of a message; text alone it may leave out.
        content = text if shown is None else shown.content(text)
        ids = tokenizer.ensure_bos(tokenizer.render_chat([{"role": "user", "content": content}]))
    elif shown is not None:
        ids = shown.without_template(text, tokenizer)
    else:
        ids = tokenizer.encode_ids(text, split_special_tokens=True)
    count = len(ids) if shown is None else shown.count_positions(ids)
    if context_length is not None and count > context_length:
        raise _too_long(f"{count:,}", context_length)
    return ids


def _too_long(count: str, limit: int) -> UsageError:
    return UsageError(
        "prompt",
        f"has {count} tokens, more than the {limit:,} the model attends over",
        "shorten it",
    )


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
