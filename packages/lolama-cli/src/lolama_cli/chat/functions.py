"""Functions that a model may call in a chat: where they come from, and who is asked before one runs."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lolama.files import expanded
from lolama.tools import tool_definitions
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama_core.protocols.tools import ToolCall, ToolDefinition

MOST_STEPS = 10
"""How often a model may call tools before it replies."""

_REFUSED = "The user does not allow this call."
_MODULE = "lolama_chat_tools"


class ChatTools:
    """The functions of a chat.

    Args:
        functions: What may be called.
        ask: Is given a call as text; whether it may run: ``y``, ``n``, or ``a`` for all calls of this
            function. None to run every call.
        show: Is told of calls and of what came of them.
    """

    def __init__(
        self,
        functions: Sequence[Callable[..., object]],
        ask: Callable[[str], str] | None,
        show: Callable[[str], None],
    ) -> None:
        self._functions = {function.__name__: function for function in functions}
        self._ask, self._show = ask, show
        self._always: set[str] = set()

    @cached_property
    def definitions(self) -> list[ToolDefinition]:
        """What the model is told of them.

        Raises:
            UsageError: for a function that cannot be described.
        """
        return tool_definitions([*self._functions.values()])

    def run(self, call: ToolCall) -> str:
        """Run a call, if the user lets it; what the model is told came of it.

        An exception of the function is its result.
        """
        spelled = _spelled(call.name, call.arguments)
        if self._ask is None or call.name in self._always:
            self._show(spelled)
        else:
            answer = self._ask(spelled)
            if answer == "a":
                self._always.add(call.name)
            elif answer != "y":
                return _REFUSED
        try:
            result = _text(self._functions[call.name](**call.arguments))
        except Exception as error:
            result = f"error: {type(error).__name__}: {error}"
        self._show(f"→ {_shortened(result)}")
        return result


def load_functions(path: Path) -> list[Callable[..., object]]:
    """The public functions of a Python file, which is run.

    Raises:
        UsageError: if it cannot be read, fails, or has none.
    """
    file = expanded(path).absolute()
    spec = importlib.util.spec_from_file_location(_MODULE, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UsageError("--tools", f"{path} is no Python file", "give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # where type hints that are texts are looked up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        reason = f"{path} fails: {type(error).__name__}: {error}"
        raise UsageError("--tools", reason, "correct it") from None
    functions: list[Callable[..., object]] = [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == _MODULE and not name.startswith("_")
    ]
    if not functions:
        raise UsageError("--tools", f"{path} has no public function", "define one")
    return functions


def ask_on_terminal(call: str) -> str:
    """``y``, ``n`` or ``a``, as a person at the terminal says; ``n`` at the end of input."""
    assert sys.stdin is not None
    while True:
        if sys.stderr is not None:
            sys.stderr.write(f"run {call}? [y]es, [n]o, [a]lways: ")
            sys.stderr.flush()
        line = sys.stdin.buffer.readline(1000)
        answer = line.decode("utf-8", "replace").strip().lower()[:1]
        if answer in ("y", "n", "a") or not line:
            return answer or "n"


def _spelled(name: str, arguments: Mapping[str, object]) -> str:
    """A call as Python spells it, without control characters."""
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{name}({given})")


def _text(result: object) -> str:
    if isinstance(result, str):
        return result
    try:
        return json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(result)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:199]}…"
