"""``lolama gc``: delete what no command will use again."""

from __future__ import annotations

from lolama_cli import options
from lolama_cli.console import Output, note
from lolama_cli.schemas import GC

EXAMPLES = """\b
Examples:
  lolama gc
  lolama gc --json
"""


def gc(as_json: options.Json = False) -> None:
    """Delete what no command will use again.

    Interrupted downloads, replaced versions of models, quantized models whose source is gone, and leftovers.
    """
    from lolama import downloads, removal

    output = Output() if as_json else None
    freed = removal.collect_garbage()
    if output is not None:
        GC.write(output, {"freed_bytes": freed})
    else:
        note(f"{downloads.size_text(freed)} freed")
