"""Which models may guess for which (``draft=`` of a `TextGenerator`), told before their weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lolama_core
from lolama import names
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama_core.protocols import Tokenizer
    from lolama_core.protocols.types import ModelFiles

_REMEDY = 'use another draft, or `draft="off"`'


def check_tried(files: ModelFiles) -> None:
    """Refuse a model that can try no token ahead.

    Raises:
        UsageError: for dynamic RoPE and LongRoPE: what it holds of a text cannot be cut back.
    """
    changed_by = names.keys_changed_by(files)
    if changed_by is not None:
        reason = f"has {changed_by}, so it tries no token ahead"
        raise UsageError(files.name, reason, 'use `draft="off"`')


def check_draft(
    draft: ModelFiles, draft_tokenizer: Tokenizer, files: ModelFiles, tokenizer: Tokenizer
) -> None:
    """Refuse a model that cannot guess what another one says.

    A generator does not need this check: whatever is guessed, the text is the model's own. But guesses of a
    model with other tokens are never right, and take time.

    Args:
        draft, draft_tokenizer: What is to guess; its tokenizer as `wiring.tokenizer_of` gives it.
        files, tokenizer: The model whose text it is, likewise.

    Raises:
        UsageError: for a vision model, dynamic RoPE, LongRoPE, or other tokens.
    """
    if names.text_shape(draft) is not draft.config["model"]:
        reason = "is a vision model, and what guesses for another model reads text alone"
        raise UsageError(draft.name, reason, _REMEDY)
    changed_by = names.keys_changed_by(draft)
    if changed_by is not None:
        reason = f"has {changed_by}, so it cannot guess for another model"
        raise UsageError(draft.name, reason, _REMEDY)
    assert isinstance(draft_tokenizer, lolama_core.Tokenizer)
    assert isinstance(tokenizer, lolama_core.Tokenizer)
    difference = lolama_core.vocabulary_difference(draft_tokenizer, tokenizer)
    if difference is not None:
        reason = f"cannot guess for {files.name}, which has other tokens: {difference}"
        raise UsageError(draft.name, reason, _REMEDY)
