"""Write the text that lolama-quant measures quality on:

    python -m training.text.held_out

Stories whose parameters training never saw, one a paragraph.
"""

from __future__ import annotations

from pathlib import Path

from .corpus import held_out_stories

OUTPUT = Path(__file__).resolve().parents[2] / "packages/lolama-quant/src/lolama_quant/held_out.txt"
SEED = 2  # another one than evaluate.py's
STORIES = 240


def text() -> str:
    """All of it."""
    stories = [" ".join(story.split()) for story in held_out_stories(STORIES, SEED)]
    return "\n\n".join(stories) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text(), encoding="utf-8")
