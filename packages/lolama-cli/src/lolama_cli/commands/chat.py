"""``lolama chat``: a conversation with a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lolama.files import expanded
from lolama_cli import options
from lolama_cli.console import note
from lolama_cli.draft import DraftChoice, DraftOption
from lolama_cli.errors import Settings
from lolama_cli.model_choice import ModelChoice
from lolama_cli.pictures import check_names
from lolama_cli.prompt_cache import PromptCacheFile, PromptCacheOption, writing
from lolama_cli.quantize_option import Quantize
from lolama_cli.server_option import HERE, server_of
from lolama_cli.setting_options import RequestedSettings, with_settings
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama_cli.chat.functions import ChatTools
    from lolama_cli.chat.loop import Reader
    from lolama_cli.chat.model import ChatModel
    from lolama_cli.chat.partner import ChatPartner

_DEFAULT_MODEL = "tinyllama"

EXAMPLES = """\b
Examples:
  lolama chat -m demo
  lolama chat -m demo-vision --image drawing.png
  lolama chat -m ./my-model --system "You answer in one sentence." --overflow slide
  lolama chat --load chat.json
  lolama chat -m demo --server http://127.0.0.1:8080
  printf 'What is two plus three?\\nAnd four plus four?\\n' | lolama chat -m demo
"""


@with_settings
def chat(
    context: typer.Context,
    model: options.Model = _DEFAULT_MODEL,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--image",
            help="Picture to show with the first message; may be repeated.",
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
    load: Annotated[
        Path | None,
        typer.Option("--load", help="Go on with a conversation that /save wrote.", metavar="FILE"),
    ] = None,
    overflow: Annotated[
        Literal["auto", "error", "slide"],
        typer.Option(
            "--overflow",
            help="When the context is full: slide forgets the first exchanges, error refuses; "
            "auto slides on a terminal.",
            metavar="TEXT",
        ),
    ] = "auto",
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Text alone: no styles, colors, pictures or editing."),
    ] = False,
    *,
    asked: RequestedSettings,
    no_stream: options.NoStream = False,
    tools: Annotated[
        Path | None,
        typer.Option(
            "--tools",
            help="Python file whose public functions the model may call. Each call is asked about.",
            metavar="FILE",
        ),
    ] = None,
    yes_tools: Annotated[
        bool,
        typer.Option(
            "--yes-tools",
            help="Run every call of --tools without asking.",
            show_default=False,
        ),
    ] = False,
    prompt_cache: PromptCacheOption = None,
    draft: DraftOption = "auto",
    quantize: Quantize = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    cache_dtype: options.CacheDtype = "auto",
    yes: options.Yes = False,
    server: options.Server = HERE,
) -> None:
    """Talk with a model. Streams by default.

    What was said is remembered; /help lists what else there is. From a pipe each line is a message. Standard
    output is the replies and nothing else. A model without a chat template continues the text.
    """
    # From here on in the order of what things cost: options, small files, and only then weights.
    address = server_of(context, server)
    if address is not None and tools is not None:
        reason = "is for a model of this process, so far"
        raise UsageError("--tools", reason, "leave it out, or give --server none")
    options.check_device(device)
    pictures = image or []
    if "-" in pictures:
        reason = "- is standard input, which messages come from"
        raise UsageError("--image", reason, "give the path of a picture")
    check_names(pictures, prompt_from_stdin=True)
    system_message = options.check_system(system, raw=raw)
    options.check_no_think(no_think, raw=raw)
    own_template = options.read_template(template, raw=raw)
    settings: Settings = context.obj
    kept = None if prompt_cache is None else PromptCacheFile(prompt_cache, settings.verbose)

    from lolama_cli.chat import transcript

    load = None if load is None else expanded(load).absolute()
    saved = None if load is None else transcript.load(load)
    given = _given(context)
    if saved is not None and saved.model and "model" not in given:
        model = saved.model
    person = sys.stdin is not None and sys.stdin.isatty()
    functions = _functions(tools, ask=not yes_tools, person=person)

    from lolama_cli.chat.screen import Screen

    if plain:
        os.environ["NO_COLOR"] = "1"  # for notes and errors, too
    screen = Screen(plain=plain or os.environ.get("TERM") == "dumb")

    chosen = ModelChoice(
        name=model,
        quantize=quantize,
        device=device,
        dtype=dtype,
        cache_dtype=cache_dtype,
        yes=yes,
        template=own_template,
        no_think=no_think,
    )
    drafts = DraftChoice(draft, chosen)

    from lolama_cli.chat.models import ChatModels

    models = ChatModels(
        chosen,
        drafts,
        address,
        image_mode=None if image_mode == "auto" else image_mode,
        raw=raw,
        verbose=settings.verbose,
        tools=[] if functions is None else functions.definitions,
    )

    from lolama_cli.chat.commands import Commands, described
    from lolama_cli.chat.interrupts import Interrupts
    from lolama_cli.chat.loop import Chat
    from lolama_cli.chat.session import Session

    if overflow == "auto":
        overflow = "slide" if person else "error"
    session = Session(
        models.open(model),
        asked.config,
        overflow,
        given=asked.given,
        notice=lambda text: note(f"note: {text}"),
        tools=functions,
        pause=screen.pause,
    )
    if kept is not None:
        kept.check(_here(session.model).files, chosen.stored)
    commands = Commands(session, screen, models.open)
    if saved is not None:
        assert load is not None
        commands.resume(load, saved, keep=given)
    if system_message is not None:
        session.set_system(system_message)
    if pictures:
        commands.show(pictures)
    reader = _reader(person=person, editing=person and not plain)
    session.model.ready()  # weights last: they take longest
    if kept is not None:
        mine = _here(session.model)
        kept.read(mine.prefixes, mine.model)
        session.leave = lambda model: kept.write(_here(model).prefixes, _here(model).model)
    if person:
        note(f"{described(session.model)}; /help for help")
    elif session.model.continues_text and not raw:
        note(f"note: {described(session.model)}")
    interrupts = Interrupts(screen.leave) if person else None
    if interrupts is not None:
        interrupts.install()
        session.interruptible = interrupts.interruptible
    talk = Chat(
        session,
        reader,
        screen,
        commands,
        interrupts=interrupts,
        settings=settings,
        stream=not no_stream,
    )
    with writing(lambda: session.leave(session.model)):
        code = talk.run()
    if code:
        raise typer.Exit(code)


def _here(model: ChatPartner) -> ChatModel:
    """A model of this process, of which alone prompts are kept."""
    from lolama_cli.chat.model import ChatModel

    assert isinstance(model, ChatModel)
    return model


def _given(context: typer.Context) -> list[str]:
    """Options that stand on the command line, by their long names."""
    return [
        name.replace("_", "-")
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]


def _functions(path: Path | None, *, ask: bool, person: bool) -> ChatTools | None:
    """The functions of ``--tools``.

    Raises:
        UsageError: if there are none, or nobody could be asked about a call.
    """
    if path is None:
        return None
    if ask and not person:
        reason = "each call is asked about, and nobody is at a terminal"
        raise UsageError("--tools", reason, "give --yes-tools to run every call")
    from lolama_cli.chat.functions import ChatTools, ask_on_terminal, load_functions

    return ChatTools(load_functions(path), ask_on_terminal if ask else None, note)


def _reader(*, person: bool, editing: bool) -> Reader:
    """Where messages come from: an editor for a person at a terminal that can, else lines."""
    shown = any(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))
    if editing and shown and os.environ.get("TERM", "dumb") != "dumb":
        from lolama_cli.chat.command_names import completions
        from lolama_cli.chat.editor import Editor

        return Editor(completions)
    from lolama_cli.chat.lines import LineReader

    return LineReader(prompt=person)
