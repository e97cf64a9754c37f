"""What a user should be told of a model that can be used all the same."""

from __future__ import annotations

from lolama_core.protocols.checks import shown
from lolama_core.protocols.types import ModelFiles

_MOST_NAMES = 40


def unsupported(files: ModelFiles) -> str:
    """That the model's authors ask for settings in vain, with their names; empty if they do not."""
    asked = files.config["generation"].get("unsupported", ())
    # Anyone may have written the file, so `shown` escapes and cuts each name. Its quotes are left out.
    names = ", ".join(shown(name, 40)[1:-1] for name in asked[:_MOST_NAMES])
    if len(asked) > _MOST_NAMES:
        names += f" and {len(asked) - _MOST_NAMES:,} more"
    return f"{files.name} asks for settings that lolama does not follow: {names}" if names else ""
