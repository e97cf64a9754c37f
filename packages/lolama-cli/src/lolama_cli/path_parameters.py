"""Options and arguments that take a path or the name of a model: an empty one is refused before it is a path.

A shell makes one of a variable that is not set, as in ``lolama convert demo "$NAME"``. For `pathlib` it is
the current folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from typer import Context

_WHAT = {
    "DIR": "the folder's name is empty",
    "FILE": "the file's name is empty",
    "MODEL": "the model's name is empty",
    "OUTPUT": "the output's name is empty",
}


def refuse_empty_path(parameter: Any) -> None:
    """Let a parameter of a typer command refuse the empty text, if it takes a path or a model."""
    kind = "MODEL" if parameter.name == "model" else parameter.metavar
    if kind not in _WHAT:
        return
    name = max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else kind
    take = parameter.process_value

    def process_value(context: Context, value: Any) -> Any:
        if "" in (value if isinstance(value, list | tuple) else (value,)):
            raise UsageError(name, _WHAT[kind], "give one")
        return take(context, value)

    parameter.process_value = process_value
