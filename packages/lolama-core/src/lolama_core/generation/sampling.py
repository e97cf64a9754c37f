"""From logits to a token: a chain of pure functions on (history, scores).

Each processor has the signature that transformers uses, so its processors plug in and the other way
round. Scores are float32. Penalties come first, then forbidden tokens and bias, temperature, top-k, top-p,
min-p and typical: that is the order of transformers. It has no DRY, top-n-sigma and XTC. These stand where
llama.cpp has them: behind the penalties, before top-k, and at the end. In llama.cpp the temperature follows
them all. Top-n-sigma does not depend on it. XTC compares probabilities after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lolama_core.generation.dry import Dry
from lolama_core.generation.forbidden_tokens import (
    bad_words,
    by_length,
    mask_unused,
    min_new_tokens,
    no_repeat_ngram,
    suppress_tokens,
)
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.truncation import (
    min_p,
    top_k,
    top_n_sigma,
    top_p,
    typical_p,
    xtc,
)
from lolama_core.protocols import LogitsProcessor, Tokenizer
from lolama_core.protocols.checks import kind_of
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.inference import ordinary


def repetition_penalty(input_ids: Tensor, scores: Tensor, *, penalty: float) -> Tensor:
    """Make every token seen before less likely: positive scores divided, negative ones multiplied."""
    seen = scores.gather(1, input_ids)
    return scores.scatter(1, input_ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def count_penalties(
    input_ids: Tensor, scores: Tensor, *, prompt_length: int, presence: float, frequency: float
) -> Tensor:
    """Subtract ``presence`` once and ``frequency`` per use, of tokens generated after the prompt."""
    generated = input_ids[:, prompt_length:]
    uses = torch.zeros_like(scores).scatter_add(
        1, generated, torch.ones_like(generated, dtype=scores.dtype)
    )
    return scores - presence * (uses > 0) - frequency * uses


def logit_bias(input_ids: Tensor, scores: Tensor, *, bias: Mapping[int, float]) -> Tensor:
    """Add to the scores of some tokens."""
    biased = scores.clone()
    for token_id, amount in bias.items():
        if token_id < scores.shape[1]:
            biased[:, token_id] += amount
    return biased


def temperature(input_ids: Tensor, scores: Tensor, *, value: float) -> Tensor:
    """Sharpen (below 1) or flatten (above 1)."""
    return scores / value


def build_chain(
    config: GenerationConfig,
    *,
    prompt_length: int,
    vocab_size: int | None = None,
    eos_ids: Collection[int] = (),
    tokenizer: Tokenizer | None = None,
    generator: torch.Generator | None = None,
) -> list[LogitsProcessor]:
    """The processors that ``config`` asks for, in order; none for a setting that changes nothing.

    Args:
        config: The settings.
        prompt_length: Tokens of the history that were not generated.
        vocab_size: Ids from here on are never chosen.
        eos_ids: Ids that end a text.
        tokenizer: Knows the texts of tokens, for `Dry` and `xtc`.
        generator: The request's own source of randomness.

    Raises:
        UsageError: for ``dry_sequence_breakers`` that are texts, if there is no tokenizer.
    """
    chain: list[LogitsProcessor] = []

    def add(wanted: bool, processor: Callable[..., Tensor], **settings: object) -> None:
        if wanted:
            chain.append(partial(processor, **settings))

    # An end token alone is never a bad word: nothing would end.
    words = [word for word in config.bad_words_ids if len(word) > 1 or word[0] not in eos_ids]
    penalized = config.presence_penalty != 0 or config.frequency_penalty != 0
    add(config.repetition_penalty != 1, repetition_penalty, penalty=config.repetition_penalty)
    add(config.no_repeat_ngram_size > 0, no_repeat_ngram, size=config.no_repeat_ngram_size)
    add(bool(words), bad_words, words=by_length(words))
    add(
        config.min_new_tokens > 0 and bool(eos_ids),
        min_new_tokens,
        count=config.min_new_tokens,
        prompt_length=prompt_length,
        eos_ids=eos_ids,
    )
    add(bool(config.suppress_tokens), suppress_tokens, ids=config.suppress_tokens)
    add(
        penalized,
        count_penalties,
        prompt_length=prompt_length,
        presence=config.presence_penalty,
        frequency=config.frequency_penalty,
    )
    if config.dry_multiplier > 0 and config.dry_penalty_last_n != 0:
        chain.append(Dry.from_config(config, tokenizer))
    add(bool(config.logit_bias), logit_bias, bias=config.logit_bias)
    add(vocab_size is not None, mask_unused, vocab_size=vocab_size)
    if config.is_greedy:
        return chain  # what follows keeps the best token the best
    add(config.temperature != 1, temperature, value=config.temperature)
    add(config.top_n_sigma > 0, top_n_sigma, n=config.top_n_sigma)
    add(config.top_k > 0, top_k, k=config.top_k)
    add(config.top_p < 1, top_p, p=config.top_p)
    add(config.min_p > 0, min_p, p=config.min_p)
    add(config.typical_p < 1, typical_p, p=config.typical_p)
    add(
        config.xtc_probability > 0
        and config.xtc_threshold <= 0.5,  # above, never two are so probable
        xtc,
        probability=config.xtc_probability,
        threshold=config.xtc_threshold,
        kept=(*eos_ids, *_line_break(tokenizer)),
        generator=generator,
    )
    return chain


def _line_break(tokenizer: Tokenizer | None) -> list[int]:
    """The token of a line break, if there is one."""
    ids = [] if tokenizer is None else tokenizer.encode_ids("\n", add_special_tokens=False)
    return [i for i in ids if tokenizer is not None and tokenizer.decode([i]) == "\n"]


@dataclass
class Sampler:
    """Chooses the next token of one request.

    Args:
        chain: Processors, in order.
        greedy: Take the best token instead of drawing one.
        generator: The request's own source of randomness, on the device of the scores.
    """

    chain: Sequence[LogitsProcessor]
    greedy: bool
    generator: torch.Generator | None = None

    @classmethod
    def from_config(
        cls,
        config: GenerationConfig,
        *,
        prompt_length: int,
        vocab_size: int | None = None,
        eos_ids: Collection[int] = (),
        tokenizer: Tokenizer | None = None,
        device: torch.device | str = "cpu",
    ) -> Sampler:
        """The sampler that ``config`` describes; see `build_chain`. Without a seed, a fresh one is drawn."""
        generator = None if config.is_greedy else torch.Generator(device=device)
        if generator is not None and config.seed is None:
            generator.seed()
        elif generator is not None and config.seed is not None:
            generator.manual_seed(config.seed)
        chain = build_chain(
            config,
            prompt_length=prompt_length,
            vocab_size=vocab_size,
            eos_ids=eos_ids,
            tokenizer=tokenizer,
            generator=generator,
        )
        return cls(chain, greedy=config.is_greedy, generator=generator)

    def __call__(self, input_ids: Tensor, scores: Tensor, step: int = 0) -> int:
        """History (1, T) and float32 scores (1, V) → the chosen id.

        Args:
            input_ids: Prompt and what was generated since.
            scores: Logits of the next position.
            step: How many tokens came before, for the message.

        Raises:
            UsageError: naming the processor, if one returns anything but scores of the same shape; if all of
                them together leave nothing to choose.
            ModelError: if the logits hold NaN or +inf. ``argmax`` would quietly pick the NaN, and
                ``multinomial`` crash on it.
        """
        # A model may not keep to float32, and ids travel in this dtype below.
        scores = scores.float()
        # ``max`` propagates NaN, so one number tells NaN, +inf and all -inf apart from everything sound.
        highest, chosen = scores.max(-1)
        checks = [highest]
        if self.chain:
            scores = self._processed(input_ids, scores)
            highest, chosen = scores.max(-1)
            checks.append(highest)
        if not self.greedy:
            chosen = draw(scores.softmax(-1), self.generator)
        *found, token_id = _numbers((*checks, chosen))
        for check, best in enumerate(found):
            if not math.isfinite(best):
                raise _non_finite(step, best, processed=check > 0)
        return int(token_id)

    def _processed(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores after the whole chain, float32."""
        # A processor may write into its scores or learn from them, which tensors of inference mode forbid.
        return ordinary(partial(self._run_chain, input_ids, scores))

    @torch.no_grad()
    def _run_chain(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if scores.is_inference():
            scores = scores.clone()
        for process in self.chain:
            scores = _checked(process, process(input_ids, scores), scores)
        return scores


def _checked(process: LogitsProcessor, result: object, scores: Tensor) -> Tensor:
    """What a processor returned, as float32, if it is scores."""
    if (
        isinstance(result, Tensor)
        and result.is_floating_point()
        and (result.shape, result.device) == (scores.shape, scores.device)
    ):
        return result.float()
    named = getattr(process, "func", process)  # a partial has no name of its own
    name = getattr(named, "__name__", type(named).__name__)
    found = str(result) if result is None else kind_of(result)
    if isinstance(result, Tensor):
        found = f"{tuple(result.shape)} {str(result.dtype)[6:]} on {result.device}"
    expected = f"{tuple(scores.shape)} floating-point scores on {scores.device}"
    raise UsageError(f"logits processor {name:.80}", f"returned {found}", f"return {expected}")


def _numbers(values: Sequence[Tensor]) -> list[float]:
    """One number of each (1,), in one transfer: on a GPU each would wait for all that was launched."""
    if values[0].device.type == "cpu":
        return [value.item() for value in values]
    # Ids are below 2^24, which float32 holds exactly.
    return torch.cat([value.float() for value in values]).tolist()


def draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """(B, V) → (B,) ids, each with its probability.

    The id that wins a race of exponential clocks, as `torch.multinomial` chooses too, but without its
    checks: they wait for a GPU, and on NaN bring it down.
    """
    clocks = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / clocks).argmax(-1)


def _non_finite(step: int, best: float, *, processed: bool) -> ModelError | UsageError:
    if processed and best == -math.inf:
        reason = f"leave no token to choose at step {step}"
        remedy = (
            "a constraint needs what is ruled out: leave out `min_new_tokens` or `suppress_tokens`"
        )
        return UsageError("settings and logits processors", reason, remedy)
    if processed:
        reason = f"leave non-finite logits at step {step} (the best is {best})"
        return ModelError("logits processors", reason, "leave at least one token a finite score")
    return ModelError(
        "model",
        f"non-finite logits at step {step} (the best is {best})",
        'the weights are damaged, or overflow in this dtype: try `dtype="float32"`',
    )
