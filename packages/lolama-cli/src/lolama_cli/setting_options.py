"""Options for the settings of a generation, made of their table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from lolama import GenerationConfig
from lolama_cli.command_words import about_options
from lolama_cli.settings import COMMON, SETTINGS, from_words, option_of
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.settings import OF_COMMANDS, Kind, Setting

if TYPE_CHECKING:
    from lolama_core.protocols.types import JSON, ModelFiles

SECTION = "More settings of sampling"
"""Where the help of a command has the settings that few people use."""

# Options that are called otherwise, or have several names. The longest says what it is called elsewhere.
_NAMES = {
    "max_tokens": ("-n", "--max-tokens"),
    "temperature": ("--temp", "--temperature"),
    "dry_sequence_breakers": ("--dry-sequence-breaker", "--dry-sequence-breakers"),
}
# Kind → type of an option's value, and how help spells it.
_TYPES: Mapping[Kind, tuple[Any, str | None]] = {
    "integer": (int, "INT"),
    "integer or null": (int | None, "INT"),
    "number": (float, "FLOAT"),
    "boolean": (bool, None),
    "list of strings": (list[str] | None, "TEXT"),
    "list of integers": (list[str] | None, "ID,..."),
    "list of lists of integers": (list[str] | None, "ID,..."),
    "list of strings or integers": (list[str] | None, "TEXT"),
    "object": (list[str] | None, "ID=VALUE"),
}


@dataclass(frozen=True)
class RequestedSettings:
    """Settings as a user asked for them.

    Attributes:
        config: All of them.
        given: Names of those that were asked for. What a model's authors recommend leaves these alone.
    """

    config: GenerationConfig
    given: frozenset[str]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with an option for each setting, in the place of its parameter ``asked``.

    Args:
        command: Its first parameter is the context. It has a parameter ``asked``, a `RequestedSettings`.
    """
    return _with_options(command, {key: _option(key, row) for key, row in SETTINGS.items()})


def with_settings_of_requests(command: Callable[..., None]) -> Callable[..., None]:
    """`with_settings` for a command that has no defaults of its own: requests and models have them."""
    options = {}
    for key, row in SETTINGS.items():
        option = _option(key, row)
        [kind, told] = get_args(option.annotation)
        options[key] = option.replace(annotation=Annotated[kind | None, told], default=None)
    return _with_options(command, options)


def _with_options(
    command: Callable[..., None], options: Mapping[str, inspect.Parameter]
) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name == "asked":
            parameters += [options[key] for key in COMMON]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    parameters += [option for key, option in options.items() if key not in COMMON]

    @wraps(command)
    def with_options(context: typer.Context, **values: Any) -> None:
        asked = _asked(context, {key: values.pop(key) for key in SETTINGS})
        command(context, asked=asked, **values)

    with_options.__signature__ = signature.replace(  # type: ignore[attr-defined] # `inspect` looks there
        parameters=parameters
    )
    return with_options


def _option(key: str, row: Setting) -> inspect.Parameter:
    kind, metavar = _TYPES[row.kind]
    option = typer.Option(
        *_NAMES.get(key, (option_of(key),)),
        help=row.help,
        metavar=metavar,
        rich_help_panel=None if key in COMMON else SECTION,
    )
    listed = isinstance(row.default, tuple | dict)
    return inspect.Parameter(
        key,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, option],
        default=None if listed else row.default,
    )


def _asked(context: typer.Context, values: Mapping[str, Any]) -> RequestedSettings:
    given = [
        key
        for key in values
        if getattr(context.get_parameter_source(key), "name", "DEFAULT") != "DEFAULT"
    ]
    settings = {}
    for key in given:
        row, value = SETTINGS[key], values[key]
        if isinstance(value, list | tuple):
            value = tuple(value) if key == "stop" else from_words(row, value, option_of(key))
        settings[row.name] = value
    return RequestedSettings(generation_config(**settings), frozenset(settings))


def generation_config(**settings: object) -> GenerationConfig:
    """The settings of a generation, checked.

    Args:
        settings: Fields of `GenerationConfig`.

    Raises:
        UsageError: naming the option whose value is out of range.
    """
    try:
        return GenerationConfig(**settings)  # type: ignore[arg-type] # it checks its own fields
    except UsageError as error:
        raise about_options(error) from None


def with_models_own(
    config: GenerationConfig, files: ModelFiles, given: Collection[str]
) -> GenerationConfig:
    """The same settings, and those that a model's authors recommend and nobody asked for otherwise.

    Args:
        config: The settings.
        files: The model's files.
        given: Names of settings that were asked for; the command's own ones are never replaced.

    Raises:
        ModelError: for what makes no sense.
    """
    return with_recommended(config, files.config["generation"].get("sampling", {}), given)


def with_recommended(
    config: GenerationConfig, recommended: Mapping[str, JSON], given: Collection[str]
) -> GenerationConfig:
    """`with_models_own` for settings that are known without the model's files."""
    return config.with_recommended(recommended, but={*OF_COMMANDS, *given})
