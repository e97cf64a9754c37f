"""Whether a model is to think before it answers, for APIs whose clients ask it of every model."""

from __future__ import annotations

from lolama_core.protocols import Tokenizer
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.text import ThinkingTokenizer


def thinks(tokenizer: Tokenizer) -> bool:
    """Whether a model may think before it answers."""
    return isinstance(tokenizer, ThinkingTokenizer) and tokenizer.thought_tags is not None


def thinking_switch(tokenizer: Tokenizer, wanted: bool | None) -> bool | None:
    """What `ServedModel.chat_prompt` is told; None where there is nothing to turn on or off.

    A model that never thinks answers without a thought, and one that always does thinks.

    Args:
        tokenizer: That of the model.
        wanted: What the request says; None for nothing.

    Raises:
        UsageError: if the model is to answer without a thought, and its chat template cannot tell it so.
    """
    if wanted is None or not isinstance(tokenizer, ThinkingTokenizer) or not thinks(tokenizer):
        return None
    try:
        tokenizer.with_thinking(wanted)
    except UsageError:
        if wanted:
            return None
        raise
    return wanted
