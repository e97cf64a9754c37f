"""``--draft``: what guesses tokens ahead of their turn, so that several of them run in one pass."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Literal, TypeGuard

import typer

from lolama_cli.console import note
from lolama_cli.options import model_names
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama import Drafting
    from lolama_cli.model_choice import ModelChoice
    from lolama_core.protocols import CausalLM, Tokenizer
    from lolama_core.protocols.types import ModelFiles

OPTION = "--draft"
_Word = Literal["auto", "lookup", "off"]
_WORDS = ("auto", "lookup", "off")


def _completions(incomplete: str) -> list[str]:
    words = [word for word in _WORDS if word.startswith(incomplete)]
    return words + model_names(incomplete)


DraftOption = Annotated[
    str,
    typer.Option(
        OPTION,
        help="What tries tokens ahead, for speed: a smaller model with the same tokens, loaded with the same "
        "--device, --dtype and --quantize; lookup, where the text repeats itself; off; auto, which looks up "
        "where no text changes by it.",
        metavar="MODEL",
        autocompletion=_completions,
    ),
]


class DraftChoice:
    """What guesses, as the option names it: a word, or a model, of which first the small files are read.

    Args:
        name: As it was given.
        main: A model that it guesses for. The draft is loaded like it.

    Attributes:
        load_seconds: How long loading its weights took; 0 for a word.
    """

    def __init__(self, name: str, main: ModelChoice) -> None:
        self._name = name
        self._chosen = (
            None if _is_word(name) else replace(main, name=name, template=None, no_think=False)
        )
        self._opened: tuple[ModelFiles, Tokenizer] | None = None
        self._model: CausalLM | None = None
        self.load_seconds = 0.0

    def open(self, files: ModelFiles, tokenizer: Tokenizer) -> None:
        """Read its small files, and refuse what cannot guess for a model. No weight is read.

        Args:
            files, tokenizer: That model.

        Raises:
            LolamaError: as `ModelChoice.open` for the draft.
            UsageError: if it cannot guess for that model.
        """
        from lolama import drafts

        if self._name in ("auto", "off"):
            return
        drafts.check_tried(files)
        if self._chosen is not None:
            self._opened = self._opened or self._open(self._chosen)
            drafts.check_draft(*self._opened, files, tokenizer)

    def _open(self, chosen: ModelChoice) -> tuple[ModelFiles, Tokenizer]:
        try:
            return chosen.open()
        except UsageError as error:
            close = get_close_matches(self._name.lower(), _WORDS, n=1)
            if not close:
                raise
            raise UsageError(error.subject, error.reason, f"did you mean {close[0]}?") from None

    def load(self, *, verbose: bool = False) -> Drafting:
        """What a generator takes. Weights are loaded once, whatever models it guesses for."""
        if _is_word(self._name):
            return self._name
        if self._model is None:
            assert self._chosen is not None and self._opened is not None
            if verbose:
                note(f"tokens are tried ahead by {self._name}:")
            files, _ = self._opened
            self._model = self._chosen.load(files, verbose=verbose, is_draft=True)
            self.load_seconds = self._chosen.load_seconds
        return self._model


def _is_word(name: str) -> TypeGuard[_Word]:
    return name in _WORDS


def tried_ahead(drafted: int, accepted: int) -> str:
    """What ``-v`` tells of drafts."""
    if not drafted:
        return "no token tried ahead"
    return f"{drafted:,} tokens tried ahead, {accepted:,} of them right"
