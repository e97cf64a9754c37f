"""Prompts in, tokens out: one as a stream, or many at a time.

This is the loop. The cache holds what was run, so that each pass after the prompt's runs one token:

    >>> import torch
    >>> from lolama_core import load
    >>> model, tokenizer = load("demo", device="cpu", dtype="float32")
    >>> tokens = tokenizer.encode("Once upon a time", return_tensors="pt")  # (1, T)
    >>> cache, new_ids = model.make_cache(batch_size=1, capacity=64), []
    >>> with torch.inference_mode():
    ...     for _ in range(16):
    ...         logits = model.forward_embeds(model.embed(tokens), cache)  # (1, V), of the last position
    ...         cache.advance([tokens.shape[1]])
    ...         tokens = logits.argmax(-1, keepdim=True)  # (1, 1)
    ...         new_ids.append(tokens.item())
    >>> tokenizer.decode(new_ids)
    ', there was a little girl named Lily. She loved to laugh in the new'

`steps` is the same loop with all that a `Request` decides: how a token is chosen, where the text ends, and
what of it may be given out. `TextGenerator` adds what is kept from one text to the next.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from typing import Generic, Unpack, cast, overload

import torch
from torch import Tensor

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.keywords import Keywords
from lolama_core.generation.prefix_cache import PrefixCache
from lolama_core.generation.request import Emission, Generation, Request, Text
from lolama_core.generation.request_factory import RequestFactory, TextOrIds
from lolama_core.generation.scoring import score
from lolama_core.generation.token_stream import TokenStream
from lolama_core.generation.whole_batch import generate_batch
from lolama_core.model.device import memory_errors
from lolama_core.model.kv_cache import KVCache
from lolama_core.protocols import CausalLM, LogitsProcessor, Tokenizer
from lolama_core.protocols.types import Prompt, PromptKey
from lolama_core.runtime.recorded_step import DecodingSteps
from lolama_core.runtime.runner import runner_of
from lolama_core.runtime.step import Decode, run

_PREFILL_CHUNK = 512
"""Positions of a prompt that run in one pass: the activations of a long one need not fit."""


def steps(
    model: CausalLM, request: Request, embeds: Tensor, cache: KVCache, decode: Decode
) -> Iterator[Emission]:
    """Run a request to its end, and give out what comes of each token.

    Args:
        model: Runs the prompt.
        request: Chooses the tokens.
        embeds: (1, T, D), what of the prompt is not in the cache yet.
        cache: One row, with room for the prompt and all that the request may add.
        decode: Runs a token with the same cache.
    """
    with memory_errors(model.device):
        logits = prefill(model, embeds, cache)
    while True:
        emission = request.step(logits)
        yield emission
        if emission.finish_reason is not None:
            return
        with memory_errors(model.device):
            logits = decode(emission.token)


def prefill(model: CausalLM, embeds: Tensor, cache: KVCache) -> Tensor:
    """Run a prompt (1, T, D) in chunks; the logits (1, V) of its last position."""
    # A row that is not stable runs from its beginning for each chunk.
    width = _PREFILL_CHUNK if cache.stable else embeds.shape[1]
    *first, last = torch.split(embeds, width, dim=1)
    for chunk in first:
        run(model, chunk, cache)
    return run(model, last, cache)


class TextGenerator(Generic[Text]):
    """Generates with any `CausalLM`.

    Args:
        model: The model.
        tokenizer: Needed for texts, as prompts, as stop texts and in results; ids work without.
        prefix_cache: Where what `generate` and `generate_stream` run is kept, and reused by a prompt that
            begins like it; None to run every prompt from its beginning. `generate_batch` does without.

    Settings come from a `GenerationConfig`, from keywords named like its fields, or both; without a
    config, from the defaults with what the model's authors recommend laid over them.

    Example:
        >>> generator = TextGenerator(model, tokenizer)
        >>> result = generator.generate("Once upon a time", max_new_tokens=50, seed=1)
        >>> print(result.text)
    """

    @overload
    def __init__(
        self: TextGenerator[None],
        model: CausalLM,
        tokenizer: None = None,
        *,
        prefix_cache: PrefixCache | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: TextGenerator[str],
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        prefix_cache: PrefixCache | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: TextGenerator[str | None],
        model: CausalLM,
        tokenizer: Tokenizer | None,
        *,
        prefix_cache: PrefixCache | None = ...,
    ) -> None: ...
    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer | None = None,
        *,
        prefix_cache: PrefixCache | None = None,
    ) -> None:
        self.model, self.tokenizer, self.prefix_cache = model, tokenizer, prefix_cache
        self._factory = RequestFactory(model, tokenizer)
        self._steps_of = DecodingSteps()

    def generate(
        self,
        input_ids: TextOrIds,
        config: GenerationConfig | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[Keywords],
    ) -> Generation[Text]:
        """Continue one prompt to its end. Arguments as for `generate_stream`."""
        stream = self.generate_stream(
            input_ids, config, logits_processors=logits_processors, **settings
        )
        for _ in stream:
            pass
        assert stream.result is not None
        return stream.result

    def generate_stream(
        self,
        input_ids: TextOrIds,
        config: GenerationConfig | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[Keywords],
    ) -> TokenStream[Text]:
        """Continue one prompt, giving out tokens as they come.

        Args:
            input_ids: A text, which the tokenizer encodes as its ``encode`` does, or ids: a (1, T) or (T,)
                tensor or array, or a list.
            config: Settings.
            logits_processors: Further processors, run before those of the settings.
            **settings: Settings by name; anything else goes to the model (``pixel_values``, ...). Some names
                of other libraries are understood, such as ``max_tokens`` and ``eos_token_id=None``.

        Raises:
            UsageError: for settings, ids or inputs that make no sense, at once; nothing has run yet.
            ModelError: while iterating, if the model's logits are not finite.
            ResourceError: while iterating, if memory runs out.
        """
        [(request, prompt)] = self._factory.requests(
            [input_ids], [config], logits_processors, settings
        )
        return TokenStream(request, self._steps(request, prompt))

    def generate_batch(
        self,
        prompts: Sequence[TextOrIds],
        config: GenerationConfig | Sequence[GenerationConfig] | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[Keywords],
    ) -> list[Generation[Text]]:
        """Continue several prompts together.

        In float32 each gets the tokens that it would get alone. In sixteen bits, and with int8 weights, rows
        beside each other may be rounded differently, so what is chosen, sampled above all, may differ.

        Rows may differ in length; each stops at its own end and then takes no more time. With a seed,
        every row draws from a generator of its own with that seed; give one config a row to vary it.

        Args:
            prompts: Texts, or ids of each, as for `generate_stream`.
            config: Settings of all, or of each.
            logits_processors: As for `generate_stream`; they run for one row at a time.
            **settings: Likewise; inputs of the model are those of all prompts together.

        Returns:
            One `Generation` for each prompt, in order.

        Raises:
            UsageError, ModelError, ResourceError: as `generate_stream`; then no prompt has a result.
        """
        together = generate_batch(
            self.model, self.tokenizer, prompts, config, logits_processors, settings
        )
        return cast("list[Generation[Text]]", together)

    def score(self, input_ids: TextOrIds) -> Tensor:
        """Log-probability of each token given those before it.

        Args:
            input_ids: As for `generate_stream`, of at least two tokens.

        Returns:
            (T - 1,) float32, natural logarithm, on the CPU; entry t is that of token t + 1. Perplexity is
            ``score(ids).mean().neg().exp()``.
        """
        return score(self.model, self._factory.ids(input_ids))

    def _steps(self, request: Request, prompt: Prompt) -> Generator[Emission, None, None]:
        """`steps` with this generator's model, caches and kept prefixes."""
        if request.finish_reason is not None:
            return
        model, prefixes = runner_of(self.model), self.prefix_cache
        keys: list[PromptKey] = list(prompt.keys[0])
        with ExitStack() as held:
            with memory_errors(model.device):
                positions = prompt.lengths[0] + request.limit
                cache, decode = held.enter_context(self._steps_of.lend(model, positions))
                if prefixes is not None:
                    request.cached_tokens = prefixes.restore(model, keys, cache)
            if prefixes is not None:
                held.enter_context(prefixes.keeping(model, keys, cache))
            embeds = prompt.embeds[:, request.cached_tokens :]
            for emission in steps(model, request, embeds, cache, decode):
                yield emission
                keys.append(emission.token)
