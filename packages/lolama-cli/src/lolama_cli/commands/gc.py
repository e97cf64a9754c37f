"""``lolama gc``: delete what no command will use again."""

from __future__ import annotations

from lolama_cli.console import note


def gc() -> None:
    """Delete interrupted downloads, replaced versions of models, and leftovers."""
    from lolama import downloads

    note(f"{downloads.size_text(downloads.collect_garbage())} freed")
