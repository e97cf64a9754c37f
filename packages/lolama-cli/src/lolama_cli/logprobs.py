"""``--logprobs``: how probable each token was, and what else might have come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from lolama_core.protocols import Tokenizer

_MOST = 100


def check_logprobs(count: int | None, *, as_json: bool) -> None:
    """Refuse a number that is out of range, or that has nowhere to be written.

    Raises:
        UsageError: naming the option.
    """
    if count is None:
        return
    if not 0 <= count <= _MOST:
        raise UsageError("--logprobs", f"{count} is out of range", f"use 0 to {_MOST}")
    if not as_json:
        raise UsageError("--logprobs", "has no place in plain text", "add --json")


@dataclass
class _Step:
    ids: list[int]
    values: list[float]
    chosen: float = math.nan


class LogprobRecorder:
    """A logits processor that changes nothing and remembers what the model gave.

    It comes first in the chain, so that it sees the model's own distribution. One for each prompt.

    Args:
        best: How many of the most probable tokens it remembers at each place.
    """

    def __init__(self, best: int) -> None:
        self._best = best
        self._steps: list[_Step] = []
        self._last: Tensor | None = None  # (V,) of the last step, whose choice is not known yet

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """History (1, T) and scores (1, V) → the same scores."""
        if self._last is not None:
            self._steps[-1].chosen = float(self._last[input_ids[0, -1]])
        self._last = scores[0].log_softmax(-1)
        top = self._last.topk(min(self._best, len(self._last)))
        self._steps.append(_Step(top.indices.tolist(), top.values.tolist()))
        return scores

    def facts(self, ids: Sequence[int], tokenizer: Tokenizer) -> list[dict[str, Any]]:
        """What ``--json`` tells about the ids that came of it."""
        if ids and len(ids) == len(self._steps) and self._last is not None:
            self._steps[-1].chosen = float(self._last[ids[-1]])

        def entry(token_id: int, value: float) -> dict[str, Any]:
            text = tokenizer.decode([token_id], skip_special_tokens=False)
            # JSON has no infinity: a token that cannot come.
            return {
                "id": token_id,
                "text": text,
                "logprob": value if math.isfinite(value) else None,
            }

        return [
            {
                **entry(token_id, step.chosen),
                "best": [entry(*pair) for pair in zip(step.ids, step.values, strict=True)],
            }
            for token_id, step in zip(ids, self._steps, strict=False)
        ]
