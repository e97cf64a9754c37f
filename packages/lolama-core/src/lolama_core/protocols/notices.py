"""What a user should be told of a model that can be used all the same."""

from __future__ import annotations

from lolama_core.protocols.types import ModelFiles


def unsupported(files: ModelFiles) -> str:
    """That the model's authors ask for settings in vain, with their names; empty if they do not."""
    names = ", ".join(files.config["generation"].get("unsupported", ()))
    return f"{files.name} asks for settings that lolama does not follow: {names}" if names else ""
