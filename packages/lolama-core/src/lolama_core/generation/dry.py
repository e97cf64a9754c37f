"""DRY, "don't repeat yourself": a token that continues a repetition becomes less likely."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.protocols import Tokenizer
from lolama_core.protocols.errors import UsageError

# The natural logarithm of float32's largest number.
_LARGEST_EXPONENT = 88.72


@dataclass
class Dry:
    """The penalty of DRY (p-e-w 2024: text-generation-webui, pull request 5677), as llama.cpp computes it.

    The last n tokens of a text may stand further to the front, too. There another token follows them. If n is
    at least ``allowed_length``, that token costs ``multiplier * base ** (n - allowed_length)`` now. If it
    follows them in several places, the longest repetition counts. A repetition contains no breaker, and a
    breaker costs nothing.

    Example: in ``a b c d a b c`` the last three tokens stand in front of ``d``. With a multiplier of 0.8, a
    base of 1.75 and an allowed length of 2, ``d`` costs 0.8 * 1.75 ** (3 - 2) = 1.4.

    It remembers the last history, so a step looks at each token once, not at each pair. A history that does
    not continue the last one is read anew. No result depends on what is remembered.

    Args:
        multiplier, base, allowed_length: See above.
        last_n: How many tokens at the end are looked at; -1 for all.
        is_breaker: Whether a token is one.
    """

    multiplier: float
    base: float
    allowed_length: int
    last_n: int
    is_breaker: Callable[[int], bool]
    # What the last call left, each (B, T): the history; which tokens are breakers; how many tokens up to each
    # place are the same as at the end.
    _history: Tensor | None = field(default=None, init=False, repr=False)
    _breakers: Tensor = field(default_factory=lambda: torch.empty(0), init=False, repr=False)
    _repeated: Tensor = field(default_factory=lambda: torch.empty(0), init=False, repr=False)

    @classmethod
    def from_config(cls, config: GenerationConfig, tokenizer: Tokenizer | None) -> Dry:
        """What the settings ask for.

        Args:
            config: The settings.
            tokenizer: Knows which tokens hold a breaker's text. Not needed if all breakers are ids.

        Raises:
            UsageError: if a breaker is a text, and there is no tokenizer.
        """
        ids = {each for each in config.dry_sequence_breakers if isinstance(each, int)}
        texts = [each for each in config.dry_sequence_breakers if isinstance(each, str)]
        if texts and tokenizer is None:
            reason = "are texts, which need a tokenizer"
            remedy = "give token ids, or use TextGenerator(model, tokenizer)"
            raise UsageError("dry_sequence_breakers", reason, remedy)

        @cache
        def is_breaker(token_id: int) -> bool:
            if token_id in ids or tokenizer is None:
                return token_id in ids
            text = tokenizer.decode([token_id], skip_special_tokens=False)
            return any(breaker in text for breaker in texts)

        return cls(
            config.dry_multiplier,
            config.dry_base,
            config.dry_allowed_length,
            config.dry_penalty_last_n,
            is_breaker,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """History (B, T) and scores (B, V) → scores (B, V)."""
        self._read(input_ids)
        length = input_ids.shape[1]
        first = 0 if self.last_n < 0 else max(length - self.last_n, 0)
        if length - first < 2:
            return scores
        # (B, places): for each place in sight but the last, how many tokens up to there are repeated.
        repeated = self._repeated[:, first : length - 1]
        in_sight = torch.arange(1, length - first, device=scores.device)
        repeated = repeated.minimum(in_sight).clamp(max=self._longest)
        following, breaks = input_ids[:, first + 1 :], self._breakers[:, first + 1 :]
        costs = self.multiplier * self.base ** (repeated - self.allowed_length).to(scores.dtype)
        costs = costs.masked_fill((repeated < self.allowed_length) | breaks, 0)
        return scores - torch.zeros_like(scores).scatter_reduce(1, following, costs, "amax")

    @property
    def _longest(self) -> int:
        """Longer repetitions cost no more: their cost would overflow float32."""
        if self.base == 1:
            return self.allowed_length
        return self.allowed_length + int(_LARGEST_EXPONENT / math.log(self.base))

    def _read(self, input_ids: Tensor) -> None:
        """Bring the state up to this history."""
        rows, length = input_ids.shape
        device = input_ids.device
        known = 0 if self._history is None else self._history.shape[1]
        if self._history is None or not torch.equal(self._history, input_ids[:, :known]):
            known = 0
            self._breakers = torch.empty((rows, 0), dtype=torch.bool, device=device)
        new = [[self.is_breaker(i) for i in row] for row in input_ids[:, known:].tolist()]
        more = torch.tensor(new, dtype=torch.bool, device=device).view(rows, length - known)
        self._breakers = torch.cat((self._breakers, more), 1)
        # Earlier tokens can make no repetition longer than the longest that counts.
        begin = max(length - self._longest, 0)
        if known <= begin:
            known = begin
            self._repeated = torch.zeros((rows, known), dtype=torch.int64, device=device)
        nothing = torch.zeros((rows, 1), dtype=torch.int64, device=device)
        for place in range(known, length):
            # Where the token is the same, the repetition is one token longer than at the place before.
            token, breaks = input_ids[:, place, None], self._breakers[:, place, None]
            same = (input_ids[:, : place + 1] == token) & ~breaks
            self._repeated = torch.where(same, torch.cat((nothing, self._repeated), 1) + 1, 0)
        self._history = input_ids.clone()
