"""The keywords of a generation: settings, inputs of the model, and what other libraries call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from lolama_core.generation.generation_config import GenerationConfig, GenerationSettings
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.settings import rows

if TYPE_CHECKING:
    from torch import Tensor


class Keywords(GenerationSettings, total=False):
    """What `TextGenerator.generate` and its siblings take by name.

    These are the fields of `GenerationConfig`, the inputs of vision models (`ImageInputs`), and names that
    other libraries have for what is exactly the same here. A model of your own may take other inputs.
    """

    pixel_values: Tensor
    tiles_per_image: Sequence[int]
    image_sizes: Sequence[tuple[int, int]]
    tokens_per_image: Sequence[int]
    max_tokens: int
    eos_token_id: None
    pad_token_id: int | None
    num_return_sequences: Literal[1]
    num_beams: Literal[1]


SETTINGS = frozenset(rows(GenerationConfig))

# Names of transformers, vLLM, llama.cpp, ollama and OpenAI, which users type from habit.
_NAMES_ELSEWHERE = {
    "bad_words": "bad_words_ids, of token ids",
    "begin_suppress_tokens": "a function of yours in logits_processors",
    "do_sample": "temperature=0 for False, and a temperature above 0 for True",
    "dry_range": "dry_penalty_last_n",
    "dry_sequence_breaker": "dry_sequence_breakers",
    "early_stopping": "max_new_tokens and stop",
    "eos_token_id": "ignore_eos=True for None; end tokens are the model's own",
    "generation_config": "config",
    "images": "pixel_values, from the model's image processor",
    "logits_processor": "logits_processors",
    "manual_seed": "seed",
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens, which counts new tokens alone",
    "min_length": "min_new_tokens, which counts new tokens alone",
    "min_tokens": "min_new_tokens",
    "n": "generate_batch([prompt] * n)",
    "n_predict": "max_new_tokens",
    "num_beams": "one beam always",
    "num_predict": "max_new_tokens",
    "num_return_sequences": "generate_batch([prompt] * n)",
    "random_seed": "seed",
    "repeat_penalty": "repetition_penalty",
    "sampling_params": "config",
    "stop_sequences": "stop",
    "stop_strings": "stop, which is no part of the text",
    "stopping_criteria": "generate_stream, which may be left at any token",
    "stream": "generate_stream",
    "streamer": "generate_stream",
    "temp": "temperature",
    "top_nsigma": "top_n_sigma",
    "typical": "typical_p",
}


def split_keywords(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the generation, and inputs of the model: everything else.

    Raises:
        UsageError: for another library's name of something, with lolama's.
    """
    settings: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    for name, value in keywords.items():
        if name in SETTINGS:
            settings[name] = value
        elif (same := _equivalent(name, value)) is not None:
            for own in same:
                if own in keywords:
                    raise UsageError(
                        name, f"and {own} are given, which are one", "give one of them"
                    )
            settings |= same
        elif name in _NAMES_ELSEWHERE:
            reason = f"{shown(value)} is what another library calls so"
            raise UsageError(name, reason, f"here it is {_NAMES_ELSEWHERE[name]}")
        else:
            inputs[name] = value
    return settings, inputs


def _equivalent(name: str, value: object) -> dict[str, Any] | None:
    """The settings that do exactly what another library's keyword does; None if there are none."""
    if name == "max_tokens":
        return {"max_new_tokens": value}
    if name == "eos_token_id" and value is None:
        return {"ignore_eos": True}
    # Rows are never padded, and there is one sequence and one beam.
    if name == "pad_token_id" or (name in ("num_return_sequences", "num_beams") and value == 1):
        return {}
    return None


def with_suggestion(error: UsageError) -> UsageError:
    """The error of a model about an input that it does not know, with the keyword that was meant."""
    known = [*Keywords.__annotations__, "logits_processors", "config"]
    close = get_close_matches(error.subject, known, n=1, cutoff=0.75)
    if error.subject in known or not close:
        return error
    return UsageError(error.subject, error.reason, f"did you mean {close[0]}?")
