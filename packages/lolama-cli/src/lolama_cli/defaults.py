"""Defaults of options that a user set: in the environment, or in a file.

An option on the command line comes first, then the environment (``LOLAMA_MAX_TOKENS`` for ``--max-tokens``),
then the file (``max-tokens``), then what the program says. Every command that has the option takes its
default from here, so a default is set once.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from lolama_cli import options, server_option
from lolama_cli.regular_files import check_regular
from lolama_cli.setting_options import generation_config
from lolama_cli.settings import SETTINGS
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.settings import Kind
from lolama_core.protocols.utf8 import decode_utf8

Value = bool | int | float | str

# Kinds of settings that can be set here. A list has no default of the user's.
_OF_SETTINGS: Mapping[Kind, type[Value]] = {
    "integer": int,
    "integer or null": int,
    "number": float,
    "boolean": bool,
}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_MOST_BYTES = 2**20
_PREFIX = "LOLAMA_"
_CORRECT = "correct it, or see lolama config --help"


@dataclass(frozen=True)
class Key:
    """Something that can be set.

    Attributes:
        name: As the file spells it.
        kind: bool, int, float or str.
        choices: What a str may be; empty for anything.
        numbers: Whole numbers that one of another kind may be, too.
    """

    name: str
    kind: type[Value]
    choices: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()

    @property
    def option(self) -> str:
        """The option whose default it is."""
        return f"--{self.name}"

    @property
    def parameter(self) -> str:
        """The option's name in Python."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{_PREFIX}{self.parameter.upper()}"

    def check(self, value: object, subject: str) -> Value:
        """``value``, if it can be one of this key.

        Raises:
            UsageError: about ``subject``, with what was expected.
        """
        if type(value) is int and value in self.numbers:
            return value
        right = isinstance(value, int | float) if self.kind is float else type(value) is self.kind
        expected = " or ".join(self.choices or (_KINDS[self.kind], *map(str, self.numbers)))
        if isinstance(value, bool) != (self.kind is bool) or not right:
            raise UsageError(subject, f"{self.name} is {value!r:.80}", f"expected {expected}")
        assert isinstance(value, bool | int | float | str)
        if self.choices and value not in self.choices:
            raise UsageError(subject, f"{self.name} is {value!r:.80}", f"expected {expected}")
        try:
            self._check_range(value)
        except UsageError as error:
            raise UsageError(subject, f"{self.name} {error.reason}", error.remedy) from None
        return value

    def parse(self, text: str, subject: str) -> Value:
        """What a user typed, as a value of this key.

        Raises:
            UsageError: about ``subject``, with what was expected.
        """
        value: object = text
        if self.kind is bool:
            words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
            value = words.get(text.lower(), text)
            if text in map(str, self.numbers):
                value = int(text)
        elif self.kind is not str:
            try:
                value = self.kind(text)
            except ValueError:
                value = text
        return self.check(value, subject)

    def _check_range(self, value: Value) -> None:
        if self.name == "device":
            options.check_device(str(value))
        elif self.name == "model" and not value:
            raise UsageError("--model", "is empty", "give a name or a folder")
        elif self.name == "system":
            options.check_system(str(value))
        elif self.name == "server":
            server_option.checked_address(str(value))
        elif self.kind in (int, float):
            generation_config(**{SETTINGS[self.parameter].name: value})


def _key(option: Any) -> Key:
    kind, info = get_args(option)[:2]
    # typer.Option takes a default first; inside Annotated the first of the names stands there.
    name = max((info.default, *info.param_decls), key=len).removeprefix("--")
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices:
        kind = str
    elif get_args(kind):  # X | None
        kind = get_args(kind)[0]
    return Key(name, kind, choices)


def _keys() -> Iterator[Key]:
    yield _key(options.Model)
    yield Key("quantize", bool, numbers=(4, 8))
    for option in (options.Device, options.Dtype, options.System):
        yield _key(option)
    for name, row in SETTINGS.items():
        if row.kind in _OF_SETTINGS:
            yield Key(name.replace("_", "-"), _OF_SETTINGS[row.kind])
    yield _key(options.NoStream)
    yield _key(options.Server)


KEYS: Mapping[str, Key] = {key.name: key for key in _keys()}


def path() -> Path:
    """Where the file is, or would be: ``LOLAMA_CONFIG``, else ``config.toml`` in the user's directory."""
    chosen = os.environ.get("LOLAMA_CONFIG")
    if chosen:
        from lolama.files import expanded

        return expanded(chosen)
    import platformdirs

    return platformdirs.user_config_path("lolama") / "config.toml"


def key_of(name: str, subject: str = "config") -> Key:
    """The key of that name.

    Raises:
        UsageError: with the closest name there is.
    """
    if name in KEYS:
        return KEYS[name]
    close = get_close_matches(name.replace("_", "-").lstrip("-"), KEYS, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(KEYS)}"
    raise UsageError(subject, f"has no key {name[:80]!r}", remedy)


def of_file() -> dict[str, Value]:
    """What the file says; nothing if there is none.

    Raises:
        UsageError: naming the file and the line or key that makes no sense.
    """
    subject = str(path())
    try:
        values = tomllib.loads(text_of_file())
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = f"is not valid TOML ({error})"[:200]
        raise UsageError(subject, reason, _CORRECT) from None
    return {name: key_of(name, subject).check(value, subject) for name, value in values.items()}


def text_of_file() -> str:
    """The file as it is written; nothing if there is none.

    Raises:
        UsageError: if it cannot be read, or is no text. A pipe or a device is not opened.
    """
    file = path()
    try:
        if not check_regular(file, _CORRECT):
            return ""
        if file.stat().st_size > _MOST_BYTES:
            raise UsageError(str(file), "is larger than 1 MiB", _CORRECT)
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(str(file), f"cannot be read: {error.strerror}", _CORRECT) from None
    try:
        return decode_utf8(data)
    except ValueError as error:
        raise UsageError(str(file), str(error), _CORRECT) from None


def of_environment() -> dict[str, Value]:
    """What the environment says.

    Raises:
        UsageError: naming the variable that makes no sense.
    """
    found = {key: os.environ.get(key.variable, "") for key in KEYS.values()}
    return {key.name: key.parse(text, key.variable) for key, text in found.items() if text}


def misspelled_variables() -> dict[str, str]:
    """Variables that set nothing → the variables that were meant, it seems."""
    known = [key.variable for key in KEYS.values()] + [
        "LOLAMA_CONFIG",
        "LOLAMA_HOME",
        server_option.KEY,
    ]
    bare = {_bare(name): name for name in known}
    found = {}
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            begun = [each for each in bare if len(_bare(name)) > 3 and each.startswith(_bare(name))]
            close = begun or get_close_matches(_bare(name), bare, n=1, cutoff=0.75)
            if close:
                found[name] = bare[close[0]]
    return found


def _bare(variable: str) -> str:
    return variable.removeprefix(_PREFIX).replace("_", "").upper()


def apply(parameters: Iterable[Any]) -> tuple[dict[str, Value], dict[str, str]]:
    """The defaults of a command's options.

    Args:
        parameters: The command's parameters, as typer knows them.

    Returns:
        Name of a parameter → its default; and its option → where that default comes from.

    Raises:
        UsageError: as `of_file` and `of_environment`.
    """
    names = {name for parameter in parameters for name in parameter.opts}
    taken = {key.name: key for key in KEYS.values() if key.option in names}
    if not taken:
        return {}, {}
    values, origins = {}, {}
    for source, origin in ((of_file(), str(path())), (of_environment(), "")):
        for name, value in source.items():
            if name in taken:
                values[taken[name].parameter] = value
                origins[taken[name].option] = origin or taken[name].variable
    return values, origins
