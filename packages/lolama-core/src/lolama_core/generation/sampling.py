"""From logits to a token: a chain of pure functions on (history, scores).

Each processor has the signature that transformers uses, so its processors plug in and the other way
round. Scores are float32. Order: penalties, forbidden tokens and bias, temperature, top-k, top-p, min-p,
typical.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lolama_core.generation.forbidden_tokens import (
    NEVER,
    bad_words,
    by_length,
    mask_unused,
    min_new_tokens,
    no_repeat_ngram,
    suppress_tokens,
)
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.protocols import LogitsProcessor
from lolama_core.protocols.errors import ModelError, UsageError

_FEW_CANDIDATES = 1024


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


def top_k(input_ids: Tensor, scores: Tensor, *, k: int) -> Tensor:
    """Keep the k best; ties with the k-th stay, as in transformers."""
    smallest = scores.topk(min(k, scores.shape[-1])).values[:, -1:]
    return scores.masked_fill(scores < smallest, NEVER)


def top_p(input_ids: Tensor, scores: Tensor, *, p: float) -> Tensor:
    """Keep the best tokens until their probability reaches p; the one that reaches it stays."""
    if scores.device.type == "cpu" and scores.shape[-1] > 4 * _FEW_CANDIDATES:
        # Sorting a whole vocabulary takes a CPU a millisecond or more. The few best nearly always suffice.
        probabilities = scores.softmax(-1)
        best, order = probabilities.topk(_FEW_CANDIDATES)
        if bool((best.sum(-1) > p).all()):
            kept = torch.full_like(scores, NEVER)
            weak = (best.cumsum(-1) - best) >= p  # those before it are enough
            weak[:, 0] = False
            return kept.scatter(1, order, scores.gather(1, order).masked_fill(weak, NEVER))
    ordered, order = scores.sort(descending=False)
    below = ordered.softmax(-1).cumsum(-1) <= 1 - p
    below[:, -1] = False  # the best token always stays
    return scores.masked_fill(below.scatter(1, order, below), NEVER)


def min_p(input_ids: Tensor, scores: Tensor, *, p: float) -> Tensor:
    """Keep tokens at least p times as probable as the best."""
    probabilities = scores.softmax(-1)
    weak = probabilities < p * probabilities.amax(-1, keepdim=True)
    return scores.masked_fill(weak, NEVER)


def typical_p(input_ids: Tensor, scores: Tensor, *, p: float) -> Tensor:
    """Keep the tokens whose surprise is nearest to the expected one, until their probability reaches p."""
    log_probabilities = scores.log_softmax(-1)
    probabilities = log_probabilities.exp()
    entropy = -(probabilities * log_probabilities).nansum(-1, keepdim=True)
    distance = (-log_probabilities - entropy).abs()
    order = distance.argsort(-1)
    reached = probabilities.gather(1, order).cumsum(-1)
    last = (reached < p).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    farthest = distance.gather(1, order).gather(1, last)
    return scores.masked_fill(distance > farthest, NEVER)


def build_chain(
    config: GenerationConfig,
    *,
    prompt_length: int,
    vocab_size: int | None = None,
    eos_ids: Collection[int] = (),
) -> list[LogitsProcessor]:
    """The processors that ``config`` asks for, in order; none for a setting that changes nothing."""
    chain: list[LogitsProcessor] = []

    def add(wanted: bool, processor: Callable[..., Tensor], **settings: object) -> None:
        if wanted:
            chain.append(partial(processor, **settings))

    # An end token alone is never a bad word: nothing would end.
    words = [word for word in config.bad_words_ids if len(word) > 1 or word[0] not in eos_ids]
    penalised = config.presence_penalty != 0 or config.frequency_penalty != 0
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
        penalised,
        count_penalties,
        prompt_length=prompt_length,
        presence=config.presence_penalty,
        frequency=config.frequency_penalty,
    )
    add(bool(config.logit_bias), logit_bias, bias=config.logit_bias)
    add(vocab_size is not None, mask_unused, vocab_size=vocab_size)
    if config.is_greedy:
        return chain  # what follows keeps the best token the best
    add(config.temperature != 1, temperature, value=config.temperature)
    add(config.top_k > 0, top_k, k=config.top_k)
    add(config.top_p < 1, top_p, p=config.top_p)
    add(config.min_p > 0, min_p, p=config.min_p)
    add(config.typical_p < 1, typical_p, p=config.typical_p)
    return chain


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
        device: torch.device | str = "cpu",
    ) -> Sampler:
        """The sampler that ``config`` describes. Without a seed, a fresh one is drawn."""
        chain = build_chain(
            config, prompt_length=prompt_length, vocab_size=vocab_size, eos_ids=eos_ids
        )
        if config.is_greedy:
            return cls(chain, greedy=True)
        generator = torch.Generator(device=device)
        if config.seed is None:
            generator.seed()
        else:
            generator.manual_seed(config.seed)
        return cls(chain, greedy=False, generator=generator)

    def __call__(self, input_ids: Tensor, scores: Tensor, step: int = 0) -> int:
        """History (1, T) and float32 scores (1, V) → the chosen id.

        Args:
            input_ids: Prompt and what was generated since.
            scores: Logits of the next position.
            step: How many tokens came before, for the message.

        Raises:
            UsageError: naming the processor, if one returns anything but scores of the same shape.
            ModelError: if the logits hold NaN or +inf, or leave nothing to choose. ``argmax`` would quietly
                pick the NaN, and ``multinomial`` crash on it.
        """
        scores = (
            scores.float()
        )  # a model may not keep to float32, and ids travel in this dtype below
        # ``max`` propagates NaN, so one number tells NaN, +inf and all -inf apart from everything sound.
        highest, chosen = scores.max(-1)
        checks = [highest]
        if self.chain:
            scores = self._processed(input_ids, scores)
            highest, chosen = scores.max(-1)
            checks.append(highest)
        if not self.greedy:
            chosen = draw(scores.softmax(-1), self.generator)
        # Everything in one transfer: on a GPU each would wait for all that was launched. Ids are below 2^24,
        # which float32 holds exactly.
        *found, token_id = torch.cat((*checks, chosen.to(scores.dtype))).tolist()
        for check, best in enumerate(found):
            if not math.isfinite(best):
                raise _non_finite(step, best, processed=check > 0)
        return int(token_id)

    def _processed(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores after the whole chain, float32."""
        # A processor may write into its scores or learn from them, which tensors of inference mode forbid.
        with torch.inference_mode(False), torch.no_grad():
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
    found = str(result) if result is None else f"a {type(result).__name__}"
    if isinstance(result, Tensor):
        found = f"{tuple(result.shape)} {str(result.dtype)[6:]} on {result.device}"
    expected = f"{tuple(scores.shape)} floating-point scores on {scores.device}"
    raise UsageError(f"logits processor {name:.80}", f"returned {found}", f"return {expected}")


def draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """(B, V) → (B,) ids, each with its probability.

    The id that wins a race of exponential clocks, as `torch.multinomial` chooses too, but without its
    checks: they wait for a GPU, and on NaN bring it down.
    """
    clocks = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / clocks).argmax(-1)


def _non_finite(step: int, best: float, *, processed: bool) -> ModelError:
    if processed:
        reason = f"leave non-finite logits at step {step} (the best is {best})"
        return ModelError("logits processors", reason, "leave at least one token a finite score")
    return ModelError(
        "model",
        f"non-finite logits at step {step} (the best is {best})",
        'the weights are damaged, or overflow in this dtype: try `dtype="float32"`',
    )
