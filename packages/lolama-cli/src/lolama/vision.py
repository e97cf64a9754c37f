"""Pictures: ``from lolama.vision import CLIPImageProcessor``. Not in this version."""

from typing import Any

from lolama.wiring import refuse_pictures


def __getattr__(name: str) -> Any:
    if name == "CLIPImageProcessor":
        refuse_pictures()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
