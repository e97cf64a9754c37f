"""The keywords of a generation: settings, inputs of the model, and what other libraries call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from lolama_core.generation.generation_config import GenerationConfig, GenerationSettings
from lolama_core.generation.setting_names import NAMES_ELSEWHERE
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
        elif name in NAMES_ELSEWHERE:
            reason = f"{shown(value)} is what another library calls so"
            raise UsageError(name, reason, f"here it is {NAMES_ELSEWHERE[name]}")
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
