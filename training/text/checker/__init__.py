"""Checks the grammar and the consistency of a story, with a parser and a lexicon of its own.

Nothing here imports the generator, so a fault that the generator teaches is not thereby forgiven.
"""

from __future__ import annotations

from .consistency import check_consistency
from .reader import read_story
from .syntax import StoryError

__all__ = ["StoryError", "check_story", "fault_in"]

MINIMUM_SENTENCES = 3


def check_story(text: str) -> None:
    """Accept a story that is correct English and contradicts itself nowhere.

    Raises:
        StoryError: saying what is wrong in which sentence.
    """
    sentences = read_story(text)
    if len(sentences) < MINIMUM_SENTENCES:
        raise StoryError(f"only {len(sentences)} sentences")
    check_consistency(sentences)


def fault_in(text: str) -> str | None:
    """What is wrong with the story, or None."""
    try:
        check_story(text)
    except StoryError as error:
        return str(error)
    return None
