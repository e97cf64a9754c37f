"""Values of options that need no library to be read: texts, choices and numbers as most people write them.

typer has pydantic read every value, and importing pydantic takes longer than all else that a command imports
before it begins. What is plain is read here; typer reads the rest, and refuses what makes no sense.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin

from lolama_core.protocols.utf8 import is_unicode

# Both read these alike. Numbers of this length need no rounding.
_NUMBERS = {
    int: re.compile(r"-?[0-9]{1,9}"),
    float: re.compile(r"-?[0-9]{1,6}(\.[0-9]{1,9})?"),
}


def read_plain_values(command: Any) -> None:
    """Let the parameters of a typer command leave a value to typer only if it is not plain."""
    all_of = command.get_params  # those that were declared, and --help

    def get_params(context: Any) -> list[Any]:
        parameters: list[Any] = all_of(context)
        for parameter in parameters:
            if "get_runtime_param" not in vars(parameter):  # the first time
                parameter.get_runtime_param = _PlainFirst(parameter).itself
        return parameters

    command.get_params = get_params


class _PlainFirst:
    """Reads the values of one parameter, in the place of what typer makes for that."""

    def __init__(self, parameter: Any) -> None:
        self._descriptor = parameter.type_descriptor
        self._of_typer = parameter.get_runtime_param

    def itself(self) -> _PlainFirst:
        """What reads the values, as typer asks a parameter for it."""
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the command takes it."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        try:
            return _plain(self._descriptor.annotation, self._descriptor.parameter_info, value)
        except ValueError:
            return self._of_typer().coerce(value, param=param, ctx=ctx)


def _plain(kind: Any, told: Any, value: Any) -> Any:
    """``value`` as a ``kind``.

    Args:
        kind: The parameter's type.
        told: What else typer was told of the parameter.
        value: A text, several, or a default.

    Raises:
        ValueError: if it is not plain, right or wrong.
    """
    if get_origin(kind) is list and isinstance(value, list | tuple):
        return [_plain(get_args(kind)[0], told, one) for one in value]
    if told.parser is not None:
        return told.parser(value)
    if told.min is None and told.max is None:
        if kind in _NUMBERS and isinstance(value, str) and _NUMBERS[kind].fullmatch(value):
            return kind(value)
        if type(value) is kind and kind in (bool, int, float):
            return value
    is_text = isinstance(value, str) and is_unicode(value)
    if is_text and (kind is str or (get_origin(kind) is Literal and value in get_args(kind))):
        return value
    raise ValueError
