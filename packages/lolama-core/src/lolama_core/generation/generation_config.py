"""How to generate: what to sample from, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Self, TypedDict, Unpack

from lolama_core.protocols.arguments import truth
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import JSON
from lolama_core.protocols.utf8 import is_unicode
from lolama_core.text.plain_numbers import real_number, whole_number
from lolama_core.text.token_ids import token_ids

# Below this a division by the temperature overflows float32 for any logits worth the name.
_SMALLEST_TEMPERATURE = 1e-5


def _refuse(name: str, value: object, expected: str) -> UsageError:
    try:
        huge = isinstance(value, int) and value.bit_length() > 100
        shown = "a huge integer" if huge else f"{value!s:.40}"
    except ValueError:  # Python refuses to spell an integer of more than 4300 digits
        shown = "a list with a huge integer"
    return UsageError(name, f"{shown} is not {expected}", "")


def _number(name: str, value: object, low: float, high: float, expected: str) -> float:
    # NaN is neither above nor below anything, and infinities are past every limit.
    number = real_number(value)
    if number is None or not low <= number <= high:
        raise _refuse(name, value, expected)
    return number


def _integer(name: str, value: object, low: int, expected: str, below: float = math.inf) -> int:
    number = whole_number(value)
    if number is None or not low <= number < below:
        raise _refuse(name, value, expected)
    return number


def _ids(name: str, value: object) -> tuple[int, ...]:
    try:
        ids = token_ids(value)  # type: ignore[arg-type] # it checks what it is given
    except (UsageError, ValueError):
        raise _refuse(name, value, "a list of token ids") from None
    return tuple(_integer(name, token_id, 0, "a token id") for token_id in ids)


def _sequences(name: str, value: object) -> tuple[tuple[int, ...], ...]:
    rows = getattr(value, "tolist", lambda: value)()
    sequences = [_ids(name, row) for row in rows] if isinstance(rows, list | tuple) else [()]
    if not all(sequences):
        raise _refuse(name, value, "a list of sequences of at least one token id")
    return tuple(sequences)


class GenerationSettings(TypedDict, total=False):
    """The fields of `GenerationConfig` as keywords."""

    max_new_tokens: int
    repetition_penalty: float
    no_repeat_ngram_size: int
    bad_words_ids: Sequence[Sequence[int]]
    min_new_tokens: int
    suppress_tokens: Sequence[int]
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    stop: str | Sequence[str]
    seed: int | None
    ignore_eos: bool


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of one generation. Processors apply in the order listed here, as in transformers.

    Args:
        max_new_tokens: At most this many tokens; 0 generates nothing.
        repetition_penalty: Divides positive and multiplies negative scores of tokens already seen, the
            prompt's included (Keskar et al. 2019). 1 is off.
        no_repeat_ngram_size: No run of so many tokens comes twice, the prompt included. 0 is off.
        bad_words_ids: Sequences of token ids that are never completed. An end token alone is no such
            sequence.
        min_new_tokens: End tokens are not chosen before so many tokens; stop texts still count. 0 is off.
        suppress_tokens: Token ids that are never chosen.
        presence_penalty: Subtracted once from each token generated so far. 0 is off.
        frequency_penalty: Subtracted for each time a token was generated so far. 0 is off.
        logit_bias: Token id → number added to its score.
        temperature: Divides the scores. 0 is greedy.
        top_k: Only the k best tokens. 0 is off.
        top_p: Only the smallest set of tokens with this probability (Holtzman et al. 2019). 1 is off;
            0 leaves the best token.
        min_p: Only tokens at least this fraction as probable as the best (Nguyen et al. 2024). 0 is off.
        typical_p: Only the tokens nearest to the expected surprise, up to this probability
            (Meister et al. 2022). 1 is off.
        stop: Texts that end the generation; none of their characters is ever given out.
        seed: Makes sampling repeatable. None draws a fresh one.
        ignore_eos: Go on past end tokens (benchmarks).

    Raises:
        UsageError: for a value out of its range, naming the setting.
    """

    max_new_tokens: int = 256
    repetition_penalty: float = 1.1
    no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    min_new_tokens: int = 0
    suppress_tokens: tuple[int, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        self._set("max_new_tokens", _integer, 0, "a number of tokens, 0 or more")
        self._set(
            "repetition_penalty", _number, 1e-6, 1e6, "a number above 0, and at most 1,000,000"
        )
        for name in ("no_repeat_ngram_size", "min_new_tokens"):
            self._set(name, _integer, 0, "a number of tokens, 0 (off) or more")
        self._set("suppress_tokens", _ids)
        self._set("bad_words_ids", _sequences)
        for name in ("presence_penalty", "frequency_penalty"):
            self._set(name, _number, -1e6, 1e6, "a number from -1,000,000 to 1,000,000")
        self._set("temperature", _number, 0.0, 1e6, "a number from 0 (greedy) to 1,000,000")
        self._set("top_k", _integer, 0, "a number of tokens, 0 (off) or more")
        for name in ("top_p", "min_p", "typical_p"):
            self._set(name, _number, 0.0, 1.0, "a probability from 0 to 1")
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(stop, list | tuple) or not all(isinstance(s, str) and s for s in stop):
            empty = isinstance(stop, list | tuple) and any(text == "" for text in stop)
            shown = "an empty text" if empty else self.stop
            raise _refuse("stop", shown, "a text of at least one character, or a list of such")
        for text in stop:
            if not is_unicode(text):
                raise _refuse("stop", repr(text), "Unicode: it holds half of a surrogate pair")
        object.__setattr__(self, "stop", tuple(stop))
        if self.seed is not None:
            self._set("seed", _integer, 0, "an integer from 0 to 2^63 - 1", 1 << 63)
        self._set("ignore_eos", truth)
        if not isinstance(self.logit_bias, Mapping):
            raise _refuse("logit_bias", self.logit_bias, "a mapping from token id to number")
        biases = {
            _integer("logit_bias", token_id, 0, "a token id"): _number(
                "logit_bias", bias, -1e6, 1e6, "a number from -1,000,000 to 1,000,000"
            )
            for token_id, bias in self.logit_bias.items()
        }
        object.__setattr__(self, "logit_bias", biases)

    def _set(self, name: str, check: Callable[..., object], *limits: object) -> None:
        """Keep a setting as Python's own numbers, of whatever kind they were given."""
        object.__setattr__(self, name, check(name, getattr(self, name), *limits))

    @classmethod
    def greedy(cls, **settings: Unpack[GenerationSettings]) -> Self:
        """Always the best token, nothing penalised: what the model itself would say."""
        own = {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0}
        chosen: dict[str, Any] = {**own, **settings}
        return cls(**chosen)

    @classmethod
    def sampling(cls, **settings: Unpack[GenerationSettings]) -> Self:
        """The model's own distribution, unless settings say otherwise: nothing cut, nothing penalised."""
        own = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
        chosen: dict[str, Any] = {**own, **settings}
        return cls(**chosen)

    @property
    def is_greedy(self) -> bool:
        """Whether no random number is drawn."""
        return self.temperature < _SMALLEST_TEMPERATURE or self.top_p == 0.0 or self.top_k == 1

    def with_settings(self, **settings: Unpack[GenerationSettings]) -> Self:
        """A copy with some settings changed.

        Raises:
            UsageError: for a setting that does not exist.
        """
        known = {f.name for f in fields(self)}
        for name in settings:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                remedy = f"did you mean {close[0]}? " if close else ""
                remedy += "known are " + ", ".join(sorted(known))
                raise UsageError(name, "is not a generation setting", remedy)
        return replace(self, **settings)  # type: ignore[arg-type] # its fields check themselves

    def with_recommended(self, sampling: Mapping[str, JSON], *, but: Collection[str] = ()) -> Self:
        """A copy with what the authors of a model recommend (`GenerationDefaults`) laid over it.

        Args:
            sampling: Field → value.
            but: Fields that stay as they are.

        Raises:
            ModelError: for what makes no sense, which is the checkpoint's fault.
        """
        settings: dict[str, Any] = {k: v for k, v in sampling.items() if k not in but}
        try:
            return self.with_settings(**settings)
        except UsageError as error:
            remedy = "correct generation.sampling in its config.json"
            raise ModelError("the model's sampling defaults", str(error), remedy) from None
