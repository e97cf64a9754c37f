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

`Engine` is the same loop for many texts, with all that a `Request` decides: how a token is chosen, where the
text ends, and what of it may be given out. `TextGenerator` makes engines, and waits for what comes of them.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from functools import partial
from typing import Generic, Unpack, overload

from torch import Tensor

from lolama_core.generation.engine import Engine, Prepared
from lolama_core.generation.engine_options import (
    EngineOptions,
    GeneratorOptions,
    chosen_cache_dtype,
)
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.keywords import Keywords
from lolama_core.generation.prefix_cache import PrefixCache
from lolama_core.generation.request_factory import RequestFactory, TextOrIds
from lolama_core.generation.scoring import score
from lolama_core.generation.speculation import Drafting, speculation_of
from lolama_core.generation.token_stream import TokenStream
from lolama_core.protocols import CausalLM, Constraint, LogitsProcessor, Tokenizer
from lolama_core.protocols.arguments import listed
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.generation import Emission, Generation, Text
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.row_memory import RowMemory

_MOST_ROWS = 64
"""Prompts of a batch that run at the same time."""

_CHUNK = 512
"""Positions of prompts that run in one pass. They are always as many, so the texts are always the same."""


class TextGenerator(Generic[Text]):
    """Generates with any `CausalLM`.

    Args:
        model: The model.
        tokenizer: Needed for texts, as prompts, as stop texts and in results; ids work without.
        prefix_cache: Where what was run is kept, and reused by a prompt that begins like it; None to run
            every prompt from its beginning. (Prompts of one batch share what they begin with in any case.)
        cache_dtype: What keys and values are stored in, see `Engine`. That of a ``prefix_cache`` is its own.
        draft: What guesses tokens that texts try ahead of their turn, which changes no text; see `Drafting`.

    Raises:
        UsageError: for a ``cache_dtype`` that the model, or the ``prefix_cache``, does not have.

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
        **options: Unpack[GeneratorOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: TextGenerator[str],
        model: CausalLM,
        tokenizer: Tokenizer,
        **options: Unpack[GeneratorOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: TextGenerator[str | None],
        model: CausalLM,
        tokenizer: Tokenizer | None,
        **options: Unpack[GeneratorOptions],
    ) -> None: ...
    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer | None = None,
        *,
        prefix_cache: PrefixCache | None = None,
        cache_dtype: CacheDtype | None = None,
        draft: Drafting = "auto",
    ) -> None:
        self.model, self.tokenizer, self.prefix_cache = model, tokenizer, prefix_cache
        self._cache_dtype = chosen_cache_dtype(cache_dtype, prefix_cache, model)
        # What one text has shown of costs and drafts is known to the next.
        kept = None if prefix_cache is None else partial(prefix_cache.memory_of, drafts=True)
        self._speculation, _ = speculation_of(draft, model, draft_memory_of=kept)
        self._factory = RequestFactory(model, tokenizer)
        self._idle: list[RowMemory] = []

    def generate(
        self,
        input_ids: TextOrIds,
        config: GenerationConfig | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        constraint: Constraint | None = None,
        visible_ids: Collection[int] = (),
        **settings: Unpack[Keywords],
    ) -> Generation[Text]:
        """Continue one prompt to its end. Arguments as for `generate_stream`."""
        stream = self.generate_stream(
            input_ids,
            config,
            logits_processors=logits_processors,
            constraint=constraint,
            visible_ids=visible_ids,
            **settings,
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
        constraint: Constraint | None = None,
        visible_ids: Collection[int] = (),
        **settings: Unpack[Keywords],
    ) -> TokenStream[Text]:
        """Continue one prompt, giving out tokens as they come.

        Args:
            input_ids: A text, which the tokenizer encodes as its ``encode`` does, or ids: a (1, T) or (T,)
                tensor or array, or a list.
            config: Settings.
            logits_processors: Further processors, run before those of the settings.
            constraint: Says which tokens may come next, such as those of a grammar. It serves one text.
            visible_ids: Control tokens that are part of the text, such as those that begin a call of a tool.
            **settings: Settings by name; anything else goes to the model (``pixel_values``, ...). Some names
                of other libraries are understood, such as ``max_tokens`` and ``eos_token_id=None``.

        Raises:
            UsageError: for settings, ids or inputs that make no sense, at once; nothing has run yet.
            ModelError: while iterating, if the model's logits are not finite.
            ResourceError: while iterating, if memory runs out.
        """
        [prepared] = self._factory.requests(
            [input_ids],
            [config],
            logits_processors,
            settings,
            constraint=constraint,
            visible_ids=visible_ids,
        )
        return TokenStream(prepared[0], self._emissions(prepared))

    def generate_batch(
        self,
        prompts: Sequence[TextOrIds],
        config: GenerationConfig | Sequence[GenerationConfig] | None = None,
        *,
        n: int = 1,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[Keywords],
    ) -> list[Generation[Text]]:
        """Continue several prompts together; see `Engine`.

        Rows may differ in length; each stops at its own end and then takes no more time. With a seed,
        every prompt draws from a generator of its own with that seed; give one config a prompt to vary it.

        Args:
            prompts: Texts, or ids of each, as for `generate_stream`.
            config: Settings of all, or of each.
            n: How many continuations of each prompt. The prompt is run once. With a seed, the second has the
                next seed, and so on.
            logits_processors: As for `generate_stream`; they run for one row at a time.
            **settings: Likewise; inputs of the model are those of all prompts together.

        Returns:
            ``n`` generations for each prompt, in order.

        Raises:
            UsageError, ModelError, ResourceError: as `generate_stream`; then no prompt has a result.
        """
        if isinstance(prompts, str):
            raise UsageError("prompts", "is one text", "give a list of prompts, or use generate")
        prompts = listed("prompts", prompts, "give a list of prompts")
        if not prompts:
            return []
        configs = config if isinstance(config, Sequence) else [config] * len(prompts)
        requests = self._factory.requests(prompts, configs, logits_processors, settings, n=n)
        engine = self._engine(min(len(requests), _MOST_ROWS))
        tickets = [engine.add(prepared) for prepared in requests]
        results: dict[int, Generation[Text]] = {}
        try:
            while True:
                for ticket, result in engine.collect().items():
                    if not isinstance(result, Generation):
                        raise result
                    results[ticket] = result
                if not engine.busy:
                    return [results[ticket] for ticket in tickets]
                engine.step()
        finally:
            # What an error has left over holds memory that others may share.
            for ticket in tickets:
                engine.cancel(ticket)

    def score(self, input_ids: TextOrIds) -> Tensor:
        """Log-probability of each token given those before it.

        Args:
            input_ids: As for `generate_stream`, of at least two tokens.

        Returns:
            (T - 1,) float32, natural logarithm, on the CPU; entry t is that of token t + 1. Perplexity is
            ``score(ids).mean().neg().exp()``.
        """
        return score(self.model, self._factory.ids(input_ids), self._cache_dtype)

    def _engine(self, rows: int = 1, positions: int | None = None) -> Engine[Text]:
        """An engine whose rows are where the kept prefixes are, if they are kept.

        With ``positions`` it is for one text, which has as many at most.
        """
        options: EngineOptions = {"rows": rows, "prefill_chunk": _CHUNK}
        options |= {"cache_dtype": self._cache_dtype, "draft": self._speculation}
        if self.prefix_cache is not None:
            options["memory_of"] = self.prefix_cache.memory_of
        elif positions is not None:
            options["memory_of"] = partial(self._lend, positions)
        return Engine(self.model, self.tokenizer, **options)  # type: ignore[return-value]

    def _lend(self, positions: int, runner: CausalLM) -> RowMemory:
        """Memory for one text; see `_take_back`."""
        idle = self._idle.pop() if self._idle else None
        if idle is not None and idle.model is runner and idle.positions >= positions:
            return idle
        return RowMemory(runner, 1, positions=positions, cache_dtype=self._cache_dtype)

    def _take_back(self, memory: RowMemory | None) -> None:
        """Keep it for the next text: making it, and recording steps with it, takes time."""
        if self.prefix_cache is None and memory is not None and memory.release():
            self._idle = [memory]

    def _emissions(self, prepared: Prepared) -> Generator[Emission, None, None]:
        """What an engine gives out for one request alone; dropping it ends the request."""
        request, prompt = prepared
        engine = self._engine(positions=prompt.lengths[0] + request.limit)
        ticket = engine.add(prepared)
        try:
            while engine.busy:
                for _, emission in engine.step():
                    yield emission
            result = engine.collect()[ticket]
            if not isinstance(result, Generation):
                raise result
        finally:
            engine.cancel(ticket)
            self._take_back(engine.memory)
