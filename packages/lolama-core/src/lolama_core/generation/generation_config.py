"""How to generate: what to sample from, and when to stop. The one table of all settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

from lolama_core.generation.setting_checks import (
    Biases,
    Integer,
    Number,
    OptionalInteger,
    Sequences,
    Texts,
    TextsOrIds,
    TokenIds,
    Truth,
)
from lolama_core.generation.setting_names import check_names
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.settings import (
    PENALTY_FACTOR,
    PROBABILITY,
    TEMPERATURE,
    setting,
)
from lolama_core.protocols.types import JSON

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# Below this a division by the temperature overflows float32 for any logits worth the name.
_SMALLEST_TEMPERATURE = 1e-5

_COUNT = Integer(0, "a number of tokens, 0 (off) or more")
_PROBABILITY = Number(*PROBABILITY, "a probability from 0 to 1")
_PENALTY = Number(-1e6, 1e6, "a number from -1,000,000 to 1,000,000")
_STRENGTH = Number(0.0, 1e6, "a number from 0 (off) to 1,000,000")
_SEED = OptionalInteger(Integer(0, "an integer from 0 to 2^63 - 1", 1 << 63))


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
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: str | int | Sequence[str | int]
    logit_bias: Mapping[int, float]
    temperature: float
    top_n_sigma: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    xtc_probability: float
    xtc_threshold: float
    stop: str | Sequence[str]
    seed: int | None
    ignore_eos: bool
    logprobs: int | None
    prompt_logprobs: int | None


def _refuses_other_names(table: type[T]) -> type[T]:
    """``table``, whose constructor refuses other names than its fields by `check_names`.

    A dataclass would raise a bare TypeError, which tells nobody the right name.
    """
    make = table.__init__
    known = frozenset(row.name for row in fields(table))

    @wraps(make)
    def __init__(self: T, *args: object, **settings: object) -> None:
        check_names(settings, known)
        make(self, *args, **settings)

    table.__init__ = __init__  # type: ignore[assignment]
    return table


@_refuses_other_names
@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of one generation. Processors apply in the order listed here, as in transformers.

    Everything else derives from this table: what is refused, the options of the command line with their
    defaults and help, ``/set``, the keys of batches, of JSON and of a user's own defaults.

    Args:
        max_new_tokens: At most this many tokens; 0 generates nothing.
        repetition_penalty: Divides positive and multiplies negative scores of tokens already seen, the
            prompt's included (Keskar et al. 2019). 1 is off.
        no_repeat_ngram_size: No run of this many tokens comes twice, the prompt included. 0 is off.
        bad_words_ids: Sequences of token ids that are never completed. An end token alone is no such
            sequence.
        min_new_tokens: End tokens are not chosen before this many tokens; stop texts still count. 0 is off.
        suppress_tokens: Token ids that are never chosen.
        presence_penalty: Subtracted once from each token generated so far. 0 is off.
        frequency_penalty: Subtracted for each time a token was generated so far. 0 is off.
        dry_multiplier: How strongly to keep from repeating what stands in the text, the prompt included; see
            `Dry`. 0 is off.
        dry_base: The factor by which that grows with each token of a repetition.
        dry_allowed_length: Repetitions of fewer tokens are left alone.
        dry_penalty_last_n: How far to look back, in tokens. -1 is all the way, 0 is off.
        dry_sequence_breakers: Texts or token ids that no repetition goes past. A token whose text holds one
            of the texts is meant.
        logit_bias: Token id → number added to its score.
        temperature: Divides the scores. 0 is greedy.
        top_n_sigma: Only tokens whose score is within this many standard deviations of the best
            (Tang et al. 2024). 0 is off.
        top_k: Only the k best tokens. 0 is off.
        top_p: Only the smallest set of tokens with this probability (Holtzman et al. 2019). 1 is off;
            0 leaves the best token.
        min_p: Only tokens at least this fraction as probable as the best (Nguyen et al. 2024). 0 is off.
        typical_p: Only the tokens nearest to the expected surprise, up to this probability
            (Meister et al. 2022). 1 is off.
        xtc_probability: How often the most probable tokens are left out; see `xtc`. 0 is off.
        xtc_threshold: Those are at least this probable. The least probable one of them stays. Above 0.5 is
            off.
        stop: Texts that end the generation; none of their characters is ever given out.
        seed: Makes sampling repeatable. None draws a fresh one.
        ignore_eos: Go on past end tokens (benchmarks).
        logprobs: Results hold each token's log-probability as the model gives it, before any setting, and
            those of this many of the most probable tokens, at most 100. None is off.
        prompt_logprobs: The same for each token of the prompt but the first, which then is run whole.

    Raises:
        UsageError: for a value out of its range, naming the setting; for a name that is no setting.
    """

    max_new_tokens: int = setting(
        256, Integer(0, "a number of tokens, 0 or more"), "Maximum tokens to generate."
    )
    repetition_penalty: float = setting(
        1.1,
        Number(*PENALTY_FACTOR, "a number above 0, and at most 1,000,000"),
        "Repetition penalty; 1 is off.",
    )
    no_repeat_ngram_size: int = setting(
        0, _COUNT, "Let no run of this many tokens come twice; 0 is off."
    )
    bad_words_ids: tuple[tuple[int, ...], ...] = setting(
        (), Sequences(), "Token ids that never follow one another."
    )
    min_new_tokens: int = setting(0, _COUNT, "Minimum tokens to generate; 0 is off.")
    suppress_tokens: tuple[int, ...] = setting((), TokenIds(), "Token ids that are never chosen.")
    presence_penalty: float = setting(
        0.0, _PENALTY, "Subtract from the score of each token generated so far; 0 is off."
    )
    frequency_penalty: float = setting(
        0.0, _PENALTY, "Subtract each time that a token was generated so far; 0 is off."
    )
    dry_multiplier: float = setting(
        0.0, _STRENGTH, "Keep from repeating what stands in the text (DRY); 0 is off, 0.8 is usual."
    )
    dry_base: float = setting(
        1.75,
        Number(1.0, 1e6, "a number from 1 to 1,000,000"),
        "DRY grows by this factor with each token of a repetition.",
    )
    dry_allowed_length: int = setting(
        2, Integer(1, "a number of tokens, 1 or more"), "DRY leaves shorter repetitions alone."
    )
    dry_penalty_last_n: int = setting(
        -1,
        Integer(-1, "a number of tokens, 0 (off) or more, or -1 (all)"),
        "DRY looks at the last N tokens; -1 is all, 0 is off.",
    )
    dry_sequence_breakers: tuple[str | int, ...] = setting(
        ("\n", ":", '"', "*"),
        TextsOrIds(),
        "No repetition goes past such a text for DRY.",
    )
    logit_bias: Mapping[int, float] = setting(
        {}, Biases(), "Add to the scores of tokens; may be repeated."
    )
    temperature: float = setting(
        0.7,
        Number(*TEMPERATURE, "a number from 0 (greedy) to 1,000,000"),
        "Sampling temperature; 0 is greedy.",
    )
    top_n_sigma: float = setting(
        0.0, _STRENGTH, "Sample within N standard deviations of the best score; 0 is off."
    )
    top_k: int = setting(0, _COUNT, "Sample from the k best tokens; 0 is off.")
    top_p: float = setting(0.9, _PROBABILITY, "Nucleus sampling threshold.")
    min_p: float = setting(
        0.0, _PROBABILITY, "Drop tokens less probable than this share of the best; 0 is off."
    )
    typical_p: float = setting(
        1.0, _PROBABILITY, "Sample from the most typical tokens, up to this probability; 1 is off."
    )
    xtc_probability: float = setting(
        0.0, _PROBABILITY, "How often to exclude the top choices (XTC); 0 is off."
    )
    xtc_threshold: float = setting(
        0.1, _PROBABILITY, "XTC drops tokens at least this probable, but for the last of them."
    )
    stop: tuple[str, ...] = setting((), Texts(), "Text that ends the output; may be repeated.")
    seed: int | None = setting(None, _SEED, "Make the same choices every time.")
    ignore_eos: bool = setting(False, Truth(), "Go on past end tokens.")
    logprobs: int | None = setting(
        None,
        OptionalInteger(Integer(0, "a number of tokens from 0 to 100", 101)),
        "Each token's log-probability, and the N most probable ones.",
    )
    prompt_logprobs: int | None = setting(
        None,
        OptionalInteger(Integer(0, "a number of tokens from 0 to 100", 101)),
        "The same for each token of the prompt but the first.",
    )

    if TYPE_CHECKING:  # lists do for tuples

        def __init__(self, **settings: Unpack[GenerationSettings]) -> None: ...

    def __post_init__(self) -> None:
        for row in fields(self):
            if check := row.metadata.get("check"):
                object.__setattr__(self, row.name, check(row.name, getattr(self, row.name)))

    @classmethod
    def greedy(cls, **settings: Unpack[GenerationSettings]) -> Self:
        """Always the best token, nothing penalized: what the model itself would say."""
        own = {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0}
        chosen: dict[str, Any] = {**own, **settings}
        return cls(**chosen)

    @classmethod
    def sampling(cls, **settings: Unpack[GenerationSettings]) -> Self:
        """The model's own distribution, unless settings say otherwise: nothing cut, nothing penalized."""
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
            UsageError: for a value out of its range; for a name that is no setting.
        """
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
