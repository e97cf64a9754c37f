"""What each setting of sampling does to the distribution of the next token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.sampling import build_chain
from lolama_core.protocols import Tokenizer


@dataclass(frozen=True)
class SamplingStep:
    """The distribution after one step of sampling.

    Attributes:
        name: What was done, such as ``temperature`` or ``top_p``; ``model`` for what the model predicts.
        probabilities: (V,) float32, which sum to one.
    """

    name: str
    probabilities: Tensor


def sampling_steps(
    config: GenerationConfig,
    ids: Sequence[int],
    logits: Tensor,
    *,
    prompt_length: int | None = None,
    eos_ids: Collection[int] = (),
    tokenizer: Tokenizer | None = None,
) -> list[SamplingStep]:
    """The distribution that the model predicts, then after each setting that changes something, in order.

    The last one is that from which `Sampler` draws. Greedy choice takes its most probable token.

    Args:
        config: The settings.
        ids: The text so far.
        logits: (V,), the model's for the token that follows.
        prompt_length: Tokens of ``ids`` that were not generated; None for all.
        eos_ids: Ids that end a text.
        tokenizer: Knows the texts of tokens, for `dry` and `xtc`.

    Raises:
        UsageError: as `build_chain`.
    """
    generator = torch.Generator().manual_seed(config.seed or 0)
    chain = build_chain(
        config,
        prompt_length=len(ids) if prompt_length is None else prompt_length,
        eos_ids=eos_ids,
        tokenizer=tokenizer,
        generator=generator,
    )
    scores, history = logits.float()[None], torch.tensor([[*ids]])
    steps = [SamplingStep("model", scores[0].softmax(-1))]
    for process in chain:
        scores = process(history, scores.clone())
        named = process.func if isinstance(process, partial) else type(process)
        steps.append(SamplingStep(named.__name__.lower(), scores[0].softmax(-1)))
    return steps
