"""Which models think before they answer, as their chat templates tell.

A template may have a switch: a variable by which its caller turns thinking on or off. Others only spell the
tags between which a thought stands, since they leave the thoughts of earlier replies out.
"""

from __future__ import annotations

from typing import Any

TAGS = ("<think>", "</think>")
"""What begins a thought, and what ends it."""

_SWITCHES = ("enable_thinking", "thinking")


def thinking_switch(source: str, environment: Any) -> str | None:
    """The variable by which a template's caller turns thinking on and off; None if it has none.

    Args:
        source: The Jinja source, which is valid.
        environment: What parses it.
    """
    if not any(name in source for name in _SWITCHES):
        return None
    from jinja2.meta import find_undeclared_variables

    read = find_undeclared_variables(environment.parse(source))
    return next((name for name in _SWITCHES if name in read), None)
