"""The fields of a request that say how tokens are chosen, which several APIs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from lolama_core.protocols import Tokenizer
from lolama_core.protocols.types import JSON
from lolama_serve.errors import APIError

MOST_STOPS = 64
"""Texts that may end an answer; each costs a search at every token."""

MOST_STOP_LENGTH = 1_000
"""Characters of one of them."""

MOST_BIASES = 1_024
"""Tokens that may have a bias."""

MOST_LOGPROBS = 20
"""Tokens in the place of one whose log-probabilities are told: OpenAI's limit."""

Count = Annotated[int, msgspec.Meta(ge=0)]

# What APIs call a setting → what lolama calls it. A name that is missing is the same.
_NAMES = {
    "repeat_penalty": "repetition_penalty",
    "min_tokens": "min_new_tokens",
}
_SETTINGS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "repeat_penalty",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "presence_penalty",
    "frequency_penalty",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "xtc_probability",
    "xtc_threshold",
    "seed",
    "ignore_eos",
    "min_tokens",
)


class Sampling(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of a generation; what is None is left to the server and the model.

    They mean what they mean in `lolama_core.GenerationConfig`; OpenAI's and llama.cpp's names are understood.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    seed: int | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float | bool] | list[tuple[int | str, float | bool]] | None = None

    def settings(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What is given, by lolama's names.

        Raises:
            APIError: for too many stop texts or biases, or a bias for what is no token.
        """
        given: dict[str, Any] = {}
        for name in _SETTINGS:
            value = getattr(self, name)
            if (name, value) == ("seed", -1):  # llama.cpp's clients mean a random one
                continue
            if name == "top_k" and value is not None and value < 0:  # and none at all
                value = 0
            if value is not None:
                given[_NAMES.get(name, name)] = value
        if self.stop is not None:
            given["stop"] = checked_stop(self.stop)
        if self.logit_bias is not None:
            given["logit_bias"] = biases(self.logit_bias, tokenizer)
        return given


def checked_stop(stop: str | Sequence[str]) -> list[str]:
    """Texts that end an answer, as a list.

    Raises:
        APIError: if they are too many, or one is too long. One without a character is left out.
    """
    texts = [stop] if isinstance(stop, str) else [*stop]
    if len(texts) > MOST_STOPS or any(len(text) > MOST_STOP_LENGTH for text in texts):
        reason = f"at most {MOST_STOPS} texts of {MOST_STOP_LENGTH} characters each"
        raise APIError(400, f"stop: give {reason}", param="stop")
    return [text for text in texts if text]


def biases(
    given: dict[str, float | bool] | list[tuple[int | str, float | bool]], tokenizer: Tokenizer
) -> dict[int, float]:
    """Token id → what is added to its score. A text means each of its tokens; False forbids them.

    Raises:
        APIError: if they are too many.
    """
    pairs = [*given.items()] if isinstance(given, dict) else given
    if len(pairs) > MOST_BIASES:
        raise APIError(400, f"logit_bias: give at most {MOST_BIASES} tokens", param="logit_bias")
    made: dict[int, float] = {}
    for token, bias in pairs:
        if bias is True:
            raise APIError(400, "logit_bias: true is no bias", param="logit_bias")
        value = -1e6 if bias is False else float(bias)
        if isinstance(token, int) or token.isdecimal():
            ids = [int(token if isinstance(token, int) else token[:20])]  # no id has more digits
        else:
            ids = tokenizer.encode_ids(token, add_special_tokens=False, split_special_tokens=True)
        for token_id in ids:
            made[token_id] = value
    return made


def answer_length(*asked: int | None) -> dict[str, JSON]:
    """The setting of the first length that a request gives; -1 is none, as in llama.cpp.

    Raises:
        APIError: for another number below 0.
    """
    for count in asked:
        if count is None or count == -1:
            continue
        if count < 0:
            raise APIError(400, f"max_tokens: is {count}; give 0 or more", param="max_tokens")
        return {"max_new_tokens": count}
    return {}


def checked_logprobs(count: int, name: str) -> int:
    """How many tokens are told in the place of each.

    Raises:
        APIError: if they are too many.
    """
    if not 0 <= count <= MOST_LOGPROBS:
        raise APIError(400, f"{name}: is {count}; give 0 to {MOST_LOGPROBS}", param=name)
    return count


def logprob_settings(wanted: bool | None, best: int | None) -> dict[str, JSON]:
    """The setting of a chat that may ask for log-probabilities.

    Args:
        wanted: ``logprobs`` of the request.
        best: Its ``top_logprobs``.

    Raises:
        APIError: for too many, or a number without the wish.
    """
    if best is not None and not wanted:
        raise APIError(400, "top_logprobs: needs logprobs: true", param="top_logprobs")
    return {"logprobs": checked_logprobs(best or 0, "top_logprobs")} if wanted else {}


def checked_n(n: int | None) -> int:
    """How many answers a request asks for; one if it does not say.

    Raises:
        APIError: if it asks for none.
    """
    if n is None:
        return 1
    if n < 1:
        raise APIError(400, f"n: is {n}; give 1 or more", param="n")
    return n
