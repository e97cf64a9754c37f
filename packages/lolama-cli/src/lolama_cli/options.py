"""Options that several commands take, each with one name, one meaning and one check.

`setting_options` has those of a generation's settings, `quantize_option` one whose value may be left out,
`app` those of all commands, and each module of `commands` those that it alone takes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from lolama_cli.console import checked_text
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.utf8 import decode_utf8


def model_names(incomplete: str) -> list[str]:
    """Names that a shell may complete; in the place of paths, which it knows itself."""
    from lolama import names

    return [info.alias for info in names.known_models() if info.alias.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        help="Model alias or local path.",
        metavar="TEXT",
        autocompletion=model_names,
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model alias, local path, or owner/name of the Hugging Face Hub.",
        autocompletion=model_names,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="TEXT")
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option("--dtype", help="auto, float32, bfloat16 or float16.", metavar="TEXT"),
]
CacheDtype = Annotated[
    Literal["auto", "int8"],
    typer.Option(
        "--cache-dtype",
        help="auto, or int8: keys and values in half the memory, at some loss of quality.",
        metavar="TEXT",
    ),
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Download without asking.")]

System = Annotated[
    str | None,
    typer.Option("--system", help="What the model is told before the prompt.", metavar="TEXT"),
]
NoThink = Annotated[
    bool,
    typer.Option(
        "--no-think",
        help="Turn off the thinking of a model that thinks before it replies.",
        show_default=False,
    ),
]
Template = Annotated[
    Path | None,
    typer.Option(
        "--template", help="Chat template (Jinja) in the place of the model's.", metavar="FILE"
    ),
]
ImageMode = Annotated[
    Literal["auto", "crop", "pad"],
    typer.Option(
        "--image-mode",
        help="Cut pictures square or pad them; auto as the model was trained.",
        metavar="TEXT",
    ),
]

Json = Annotated[
    bool, typer.Option("--json", help="One JSON object (docs/json.md says what is in it).")
]
NoStream = Annotated[
    bool, typer.Option("--no-stream", help="Disable streaming (wait for full response).")
]

Server = Annotated[
    str,
    typer.Option(
        "--server",
        help="Have a running lolama serve at this address answer; none answers here (docs/serve.md).",
        metavar="URL",
    ),
]

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_MOST_TEMPLATE_BYTES = 1_000_000


def check_device(device: str) -> None:
    """Refuse what cannot name a device anywhere, before torch is imported to look for it here.

    Raises:
        UsageError: with the names that can.
    """
    if not _DEVICE.fullmatch(device):
        raise UsageError(
            "--device", f"{device!r:.40} is not a device", "use cpu, cuda, cuda:N or mps"
        )


def check_no_think(no_think: bool, *, raw: bool) -> None:
    """Refuse ``--no-think`` with ``--raw``, which leaves out the template that has the switch.

    Raises:
        UsageError: if both are given.
    """
    if no_think and raw:
        reason = "is a switch of a chat template, which --raw leaves aside"
        raise UsageError("--no-think", reason, "leave one of them out")


def check_system(system: str | None, *, raw: bool = False) -> str | None:
    """The system message as text.

    Raises:
        UsageError: if it is no text, or goes with ``--raw``, which leaves out the template it belongs to.
    """
    if system is None:
        return None
    if raw:
        reason = "is part of a chat template, which --raw leaves aside"
        raise UsageError("--system", reason, "leave one of them out")
    return checked_text(system, "--system")


def read_template(path: Path | None, *, raw: bool = False) -> str | None:
    """The source of a chat template. Whether it is valid Jinja is for the tokenizer to say.

    Raises:
        UsageError: if it cannot be read, is no text, or goes with ``--raw``.
    """
    if path is None:
        return None
    if raw:
        reason = "is a chat template, and --raw leaves it aside"
        raise UsageError("--template", reason, "leave one of them out")
    return read_text(path, "give a Jinja file to --template", _MOST_TEMPLATE_BYTES)


def read_text(path: Path, remedy: str, most_bytes: int) -> str:
    """The text in a file.

    Raises:
        UsageError: with ``remedy``, if it cannot be read, is larger than ``most_bytes``, or is no text.
    """
    try:
        if not path.is_file():
            reason = "is not a regular file" if path.exists() else "there is no such file"
            raise UsageError(str(path), reason, remedy)
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise UsageError(str(path), reason, remedy) from None
    if len(data) > most_bytes:
        raise UsageError(str(path), f"is larger than {most_bytes:,} bytes", remedy)
    try:
        return decode_utf8(data)
    except ValueError as error:
        remedy = "convert it, for example with iconv"
        raise UsageError(str(path), str(error), remedy) from None
