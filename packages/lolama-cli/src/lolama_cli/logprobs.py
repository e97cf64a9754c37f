"""``--logprobs``: how probable each token was, and what else might have come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lolama_cli.setting_options import generation_config
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama import TokenLogprobs
    from lolama_core.protocols import Tokenizer


def check_logprobs(count: int | None, *, as_json: bool) -> None:
    """Refuse a number that is out of range, or that has nowhere to be written.

    Raises:
        UsageError: naming the option.
    """
    generation_config(logprobs=count)
    if count is not None and not as_json:
        raise UsageError("--logprobs", "has no place in plain text", "add --json")


def logprob_facts(
    logprobs: Sequence[TokenLogprobs] | None, tokenizer: Tokenizer
) -> list[dict[str, Any]] | None:
    """What ``--json`` tells about each token."""
    if logprobs is None:
        return None

    def entry(token_id: int, value: float) -> dict[str, Any]:
        text = tokenizer.decode([token_id], skip_special_tokens=False)
        # JSON has no infinity: a token that cannot come.
        return {"id": token_id, "text": text, "logprob": value if math.isfinite(value) else None}

    return [
        {**entry(token.id, token.logprob), "best": [entry(*pair) for pair in token.best]}
        for token in logprobs
    ]
