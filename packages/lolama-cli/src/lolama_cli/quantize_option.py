"""``--quantize``, ``--quantize 4`` or ``--quantize 8``: an option whose number may be left out.

typer has none such: this one would take the prompt behind it for its value. So the arguments of a command
are completed before typer reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

import typer

from lolama.bits import number_of_bits

OPTION = "--quantize"
BITS = ("4", "8")
"""What may be given to it."""


def _bits(value: object) -> int:
    if not isinstance(value, str):  # a default
        return number_of_bits(value)
    if value not in BITS:
        raise ValueError(f"{value!r:.40} is no number of bits; use 4 or 8")
    return int(value)


def quantize_option(about: str) -> Any:
    """The option, with the help of one command."""
    return typer.Option(OPTION, help=about, metavar="[8|4]", parser=_bits, show_default=False)


Quantize = Annotated[
    int, quantize_option("Use int8 quantization, or 4 bits; the quantized model is kept.")
]
"""The number of bits; 0, or False, for weights as they are stored."""


def completed(arguments: Sequence[str], parameters: Sequence[Any]) -> list[str]:
    """The arguments of a command, each ``--quantize`` with its number.

    A whole number that is no possible one is a prompt, unless the command takes no further argument.

    Args:
        arguments: What stands behind the command's name.
        parameters: The command's parameters, as typer knows them.

    Example:
        >>> completed(["--quantize", "Hello"], parameters)
        ['--quantize=8', 'Hello']
    """
    valued = {name for one in parameters if not _is_flag(one) for name in one.opts}
    places = sum(one.param_type_name == "argument" for one in parameters)
    too_many = _count_words(arguments, valued - {OPTION}) > places
    rest, found = list(arguments), list[str]()
    while OPTION in valued and rest and rest[0] != "--":
        argument = rest.pop(0)
        if argument == OPTION:
            is_number = rest and (rest[0] in BITS or (too_many and rest[0].isdecimal()))
            bits = rest.pop(0) if is_number else "8"
            found.append(f"{OPTION}={bits}")
            continue
        found.append(argument)
        if argument in valued:  # the next is its value, whatever it spells
            found += rest[:1]
            del rest[:1]
    return found + rest


def _count_words(arguments: Sequence[str], valued: Collection[str]) -> int:
    """How many arguments are no options and no values of options."""
    count, rest = 0, iter(arguments)
    for argument in rest:
        if argument == "--":
            return count + len(list(rest))
        if argument in valued:
            next(rest, None)
        else:
            count += argument == "-" or not argument.startswith("-")
    return count


def _is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))
