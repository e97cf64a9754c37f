"""Every way a run can end badly → one line on standard error and an exit code."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

import typer

from lolama_cli.address_space import is_limited
from lolama_cli.command_words import about_options
from lolama_cli.console import ClosedPipeError, note
from lolama_core.protocols.errors import (
    EXIT_CLOSED_PIPE,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    FULL_DISK,
    LolamaError,
    ResourceError,
    UsageError,
    shortage,
)

_LONGEST_LINE = 1000
_TOKEN = re.compile(r"\bhf_\w{4,}")
_PASSWORD = re.compile(r"(?<=://)[^/\s]*@")
_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class Terminated(BaseException):
    """SIGTERM came. No ``except Exception`` may swallow it."""


@dataclass
class Settings:
    """What a whole run goes by. Filled while the command line is read; errors look at it.

    Attributes:
        verbose, debug: The options that every command takes.
        arguments: The whole command line.
        origins: Option whose value was not given there → the file or variable that set it.
        default_model: The model, if it was not given there but set by one of those.
    """

    verbose: bool = False
    debug: bool = False
    arguments: Sequence[str] = ()
    origins: dict[str, str] = field(default_factory=dict)
    default_model: str | None = None


def report(error: BaseException, settings: Settings) -> int:
    """Tell the user about ``error``; the exit code it calls for."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, Terminated):
        return EXIT_TERMINATED
    if isinstance(error, ClosedPipeError):
        return EXIT_CLOSED_PIPE
    if settings.debug:
        for line in "".join(traceback.format_exception(error)).splitlines():
            note(_without_secrets(line))
    reported = about_options(_as_lolama_error(error))
    origin = settings.origins.get(reported.subject)
    if origin is not None:  # nobody typed that option
        code = reported.exit_code
        reported = UsageError(origin, f"{reported.subject} {reported.reason}", reported.remedy)
        reported.exit_code = code
    elif settings.default_model and settings.default_model in reported.subject:
        where = f"{settings.origins['--model']} sets that model"
        remedy = f"{reported.remedy}; {where}" if reported.remedy else where
        code, reported = (
            reported.exit_code,
            type(reported)(reported.subject, reported.reason, remedy),
        )
        reported.exit_code = code
    note(error_line(reported))
    return reported.exit_code


def error_line(error: LolamaError) -> str:
    """``error: subject: reason; remedy``, on one line that is safe to print."""
    line = _without_secrets(f"error: {error}")
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def _without_secrets(text: str) -> str:
    """``text`` without tokens of Hugging Face, and without the user and password of an address."""
    return _PASSWORD.sub("…@", _TOKEN.sub("hf_…", text))


def _as_lolama_error(error: BaseException) -> LolamaError:
    if isinstance(error, LolamaError):
        return error
    if isinstance(error, typer.TyperException):
        return _usage_error(error)
    if isinstance(error, MemoryError):
        remedy = "raise the limit (`ulimit -v`)" if is_limited() else "use a smaller model"
        return ResourceError("memory", "there is not enough of it", remedy)
    found = _shortage(error)
    if found is not None:
        return found
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return ResourceError(str(error.filename or "disk"), str(error.strerror), "free some space")
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        remedy = "choose a place where you may write"
        return ResourceError(str(error.filename or "disk"), str(error.strerror), remedy)
    if isinstance(error, OSError) and error.errno in _PATHS and error.filename is not None:
        subject = str(error.filename)
        subject = subject if len(subject) <= 200 else subject[:199] + "…"
        return UsageError(subject, f"cannot be used: {error.strerror}", "give another path")
    return LolamaError(
        "lolama",
        f"{type(error).__name__}: {str(error) or 'no message'}"[:300] + ", which is a bug",
        "report it with what `lolama --debug ...` prints",
    )


def _shortage(error: BaseException) -> ResourceError | None:
    """What the system has run out of, if ``error`` or what led to it came of that."""
    cause: BaseException | None = error
    for _ in range(20):
        if cause is None:
            break
        named = getattr(cause, "filename", None) or getattr(cause, "path", None)
        found = shortage(cause, str(named or getattr(cause, "name", None) or "lolama"))
        if found is not None:
            return found
        cause = cause.__cause__ or cause.__context__
    return None


_NUMBER = re.compile(r"-[\d.]")

# What other programs call things → what to do here.
_COMMANDS_ELSEWHERE = {
    "run": "did you mean chat, or generate for one answer?",
    "list": "did you mean models?",
    "ls": "did you mean models?",
    "show": "did you mean info?",
    "ps": "a server tells it at /api/ps; did you mean models?",
    "stop": "a server lets models leave by --sleep-idle, and ends by Ctrl-C",
    "delete": "did you mean rm?",
    "download": "did you mean pull?",
}
_GIVE_PROMPT = 'give the prompt without an option, as in lolama generate "Hello", or spell --top-p'
_MODEL_OPTION = ("-m", "--model")
# Option there → the option of ours that it may mean, and what to do.
_OPTIONS_ELSEWHERE = {
    "-p": ("--top-p", _GIVE_PROMPT),
    "--prompt": ("--top-p", _GIVE_PROMPT),
    "-t": ("--temperature", "did you mean --temp?"),
    "--predict": ("--max-tokens", "did you mean --max-tokens?"),
    "--n-predict": ("--max-tokens", "did you mean --max-tokens?"),
    "-c": ("--context", "did you mean --context?"),
    "--ctx-size": ("--context", "did you mean --context?"),
    "--model-draft": ("--draft", "did you mean --draft?"),
}


def _usage_error(error: typer.TyperException) -> UsageError:
    """What typer says about a command line, in the shape of every other error."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "lolama"
    remedy = f"see {command} --help"
    option = getattr(error, "option_name", None)
    parameter = getattr(error, "param", None)
    message = error.message.rstrip(".")
    if option is not None:
        possible: Sequence[str] = getattr(error, "possibilities", None) or ()
        if message.startswith("No such option"):
            known = [name for p in context.command.params for name in p.opts] if context else []
            # What is only cut short comes before what is only similar.
            close = sorted(name for name in known if name.startswith(option)) or possible[:1]
            meant, advice = _OPTIONS_ELSEWHERE.get(option, ("", ""))
            if option in _MODEL_OPTION and context is not None and _takes(context, "model"):
                remedy = f"name the model without it: {command} MODEL"
            elif _NUMBER.match(option):
                remedy = "if it is a value, put -- in front of it"
            elif meant in known:
                remedy = advice
            elif close and len(option) > 2:
                remedy = f"did you mean {' or '.join(close[:3])}?"
            return UsageError(_short(option), "no such option", remedy)
        reason = re.sub(r"^Option '[^']*' ", "", message)
        return UsageError(_short(option), reason[:1].lower() + reason[1:], remedy)
    if parameter is not None:
        # Nothing is said about an argument that is not there.
        return UsageError(_name_of(parameter), _plain(message) or "is missing", remedy)
    if message.startswith("Got unexpected extra argument"):
        return _too_many(command, context)
    unknown = re.match(r"No such command '(\w+)'", message)
    if unknown is not None and command == "lolama" and unknown[1] in _COMMANDS_ELSEWHERE:
        return UsageError(
            command, f"no such command '{unknown[1]}'", _COMMANDS_ELSEWHERE[unknown[1]]
        )
    reason, _, command_like = message.partition(". Did you mean ")
    remedy = f"did you mean {command_like.replace(chr(39), '')}" if command_like else remedy
    return UsageError(command, _short(reason[:1].lower() + reason[1:]), remedy)


def _too_many(command: str, context: typer.Context | None) -> UsageError:
    """The error for more arguments than a command takes."""
    parameters = context.command.params if context is not None else []
    count = sum(parameter.param_type_name == "argument" for parameter in parameters)
    if count > 1:
        remedy = "put quotes around one that has spaces in it"
        return UsageError(command, f"takes {count} arguments", remedy)
    reason, remedy = (
        ("takes one argument", "put quotes around it")
        if count
        else ("takes no argument", "leave it out")
    )
    if context is not None and _takes(context, "-m"):
        remedy += f", {'and' if count else 'or'} name a model by -m"
    return UsageError(command, reason, remedy)


def _takes(context: typer.Context, name: str) -> bool:
    """Whether a command has an option or argument of this name."""
    return any(name in parameter.opts for parameter in context.command.params)


def _name_of(parameter: object) -> str:
    names: Sequence[str] = getattr(parameter, "opts", ())
    return max(names, key=len, default="argument")


_VALIDATION = (
    (r"Input should be a valid integer.*", "is not a whole number"),
    (r"Input should be a valid number.*", "is not a number"),
    (r"Value error, (.*)", r"\1"),
)


def _plain(message: str) -> str:
    """What the library that checks values says, as a reader of an error line would say it."""
    for pattern, plain in _VALIDATION:
        message = re.sub(pattern, plain, message)
    return _short(message)


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"
