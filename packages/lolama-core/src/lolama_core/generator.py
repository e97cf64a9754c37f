"""The generation loop: prompts in, tokens out, one or many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lolama_core.device import memory_errors
from lolama_core.generation_config import GenerationConfig
from lolama_core.protocols import CausalLM, LogitsProcessor, Tokenizer
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import Prompt
from lolama_core.request import Generation, Request
from lolama_core.sampling import Sampler
from lolama_core.text_stream import TextStream

TokenIds: TypeAlias = Tensor | Sequence[int]
_SETTINGS = frozenset(field.name for field in fields(GenerationConfig))
_SCORE_CHUNK = 512


class TokenStream:
    """Iterates over token ids as they are generated; `text` iterates over pieces of text instead.

    Dropping it, closing it or leaving its ``with`` block ends the generation and frees its cache.

    Attributes:
        result: The whole `Generation`, once the stream has ended by itself.
    """

    def __init__(self, request: Request, steps: Iterator[None]) -> None:
        self._request, self._steps = request, steps
        self.result: Generation | None = None

    def _outputs(self, kind: Literal["released", "pieces"]) -> Iterator[Any]:
        given = 0
        try:
            while True:
                ended = next(self._steps, self) is self
                ready = getattr(self._request, kind)
                yield from ready[given:]
                given = len(ready)
                if ended:
                    if self._request.finish_reason is not None:  # else it was closed, or failed
                        self.result = self._request.result()
                    return
        finally:
            self.close()

    def __iter__(self) -> Iterator[int]:
        return self._outputs("released")

    def text(self) -> Iterator[str]:
        """Pieces of text, as soon as each is certain. Their sum is `Generation.text`."""
        if self._request.text_stream is None:
            raise UsageError(
                "tokenizer", "is needed to stream text", "use TextGenerator(model, tokenizer)"
            )
        return self._outputs("pieces")

    def close(self) -> None:
        """End the generation."""
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class TextGenerator:
    """Generates with any `CausalLM`.

    Args:
        model: The model.
        tokenizer: Needed for stop texts and for text in results; ids work without.

    Settings come from a `GenerationConfig`, from keywords named like its fields, or both; without a
    config, from the defaults with what the model's authors recommend laid over them.

    Example:
        >>> generator = TextGenerator(model, tokenizer)
        >>> result = generator.generate(tokenizer.encode("Once upon a time"), max_new_tokens=50, seed=1)
        >>> print(result.text)
    """

    def __init__(self, model: CausalLM, tokenizer: Tokenizer | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer

    def generate(
        self,
        input_ids: TokenIds,
        config: GenerationConfig | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Any,
    ) -> Generation:
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
        input_ids: TokenIds,
        config: GenerationConfig | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Any,
    ) -> TokenStream:
        """Continue one prompt, giving out tokens as they come.

        Args:
            input_ids: (1, T) or (T,) tensor, or a list of ids.
            config: Settings.
            logits_processors: Further processors, run before those of the settings.
            **settings: Settings by name; anything else goes to the model (``pixel_values``, ...).

        Raises:
            UsageError: for settings, ids or inputs that make no sense, at once; nothing has run yet.
            ModelError: while iterating, if the model's logits are not finite.
        """
        chosen, inputs = self._settings(config, settings)
        prompt_ids = self._prompt_ids(input_ids)
        request = self._request(
            prompt_ids, chosen, logits_processors, self._context_for([prompt_ids])
        )
        return TokenStream(request, self._steps([prompt_ids], [request], inputs))

    def generate_batch(
        self,
        prompts: Sequence[TokenIds],
        config: GenerationConfig | Sequence[GenerationConfig] | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Any,
    ) -> list[Generation]:
        """Continue several prompts together, each as it would be alone.

        Rows may differ in length; each stops at its own end and then takes no more time. With a seed,
        every row draws from a generator of its own with that seed; give one config a row to vary it.

        Returns:
            One `Generation` for each prompt, in order.
        """
        if len(prompts) == 0:
            return []
        per_row = config if isinstance(config, Sequence) else [config] * len(prompts)
        if len(per_row) != len(prompts):
            raise UsageError("config", f"{len(per_row)} configs for {len(prompts)} prompts", "")
        all_ids = [self._prompt_ids(prompt) for prompt in prompts]
        rows = [self._settings(row_config, settings) for row_config in per_row]
        inputs = rows[0][1]
        context = self._context_for(all_ids)
        requests = [
            self._request(ids, chosen, logits_processors, context)
            for ids, (chosen, _) in zip(all_ids, rows, strict=True)
        ]
        for _ in self._steps(all_ids, requests, inputs):
            pass
        return [request.result() for request in requests]

    @torch.inference_mode()
    def score(self, input_ids: TokenIds) -> Tensor:
        """Log-probability of each token given those before it.

        Args:
            input_ids: (1, T) or (T,) tensor, or a list, of at least two ids.

        Returns:
            (T - 1,) float32, natural logarithm, on the CPU; entry t is that of token t + 1. Perplexity is
            ``score(ids).mean().neg().exp()``.
        """
        ids = self._prompt_ids(input_ids)
        if len(ids) < 2:
            raise UsageError("input_ids", "scoring needs at least two tokens", "")
        if len(ids) > self.model.max_seq_len:
            raise _too_long(len(ids), self.model.max_seq_len)
        tokens = torch.tensor([ids], device=self.model.device)
        scores = []
        with memory_errors(self.model.device):
            cache = self.model.make_cache(1, len(ids))
            # In chunks: the logits of a long text are larger than many a model.
            for chunk in torch.split(tokens[:, :-1], _SCORE_CHUNK, dim=1):
                width, start = chunk.shape[1], cache.lengths[0]
                logits = self.model.forward_embeds(self.model.embed(chunk), cache, logits="all")
                cache.advance([width])
                following = tokens[:, start + 1 : start + 1 + width, None]
                scores.append(logits.log_softmax(-1).gather(-1, following)[0, :, 0].cpu())
        return torch.cat(scores)

    def _settings(
        self, config: GenerationConfig | None, settings: dict[str, Any]
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Split keywords into settings and model inputs."""
        named = {name: value for name, value in settings.items() if name in _SETTINGS}
        inputs = {name: value for name, value in settings.items() if name not in _SETTINGS}
        if config is None:
            recommended = self.model.generation_defaults.sampling
            try:
                config = GenerationConfig().with_settings(**recommended)
            except UsageError as error:
                raise ModelError(
                    "the model's sampling defaults", str(error), "give a GenerationConfig"
                ) from None
        chosen = config.with_settings(**named) if named else config
        if chosen.stop and self.tokenizer is None:
            raise UsageError(
                "--stop", "stop texts need a tokenizer", "use TextGenerator(model, tokenizer)"
            )
        return chosen, inputs

    def _prompt_ids(self, input_ids: TokenIds) -> list[int]:
        """One row of ids, checked."""
        if isinstance(input_ids, Tensor):
            if (
                input_ids.is_floating_point()
                or input_ids.dim() > 2
                or (input_ids.dim() == 2 and len(input_ids) != 1)
            ):
                raise UsageError(
                    "input_ids",
                    f"is {tuple(input_ids.shape)} {input_ids.dtype}, expected (1, T) whole numbers",
                    "use generate_batch for several prompts",
                )
            input_ids = input_ids.flatten().tolist()
        ids = list(input_ids)
        if not ids:
            raise UsageError("prompt", "is empty", "give some text")
        limit = self.model.vocab_size
        wrong = next(
            (i for i in ids if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < limit),
            None,
        )
        if wrong is not None:
            raise UsageError("input_ids", f"{wrong!r:.40} is not a token id below {limit}", "")
        return ids

    def _context_for(self, prompts: list[list[int]]) -> int:
        """Positions of the model's context; a prompt that is longer is refused, never cut."""
        room = self.model.max_seq_len
        longest = max(map(len, prompts))
        if longest > room:
            raise _too_long(longest, room)
        return room

    def _request(
        self,
        prompt_ids: list[int],
        config: GenerationConfig,
        processors: Sequence[LogitsProcessor],
        context: int,
    ) -> Request:
        defaults, device = self.model.generation_defaults, self.model.device
        sampler = Sampler.from_config(
            config, prompt_length=len(prompt_ids), vocab_size=defaults.vocab_size, device=device
        )
        sampler.chain = [*processors, *sampler.chain]
        stream, eos_ids = None, defaults.eos_ids
        if self.tokenizer is not None:
            stream = TextStream(self.tokenizer, prompt_ids, config.stop)
            eos_ids = eos_ids | self.tokenizer.eos_ids
        return Request(
            prompt_ids,
            config,
            sampler,
            room=context - len(prompt_ids),
            eos_ids=eos_ids,
            text_stream=stream,
            device=device,
        )

    def _steps(
        self, prompts: list[list[int]], requests: list[Request], inputs: dict[str, Any]
    ) -> Iterator[None]:
        """Run the requests to their ends; yields after each step."""
        if all(request.finish_reason is not None for request in requests):
            return
        with memory_errors(self.model.device):
            cache, logits = self._prefill(prompts, requests, inputs)
        rows = [row for row, request in enumerate(requests) if request.finish_reason is None]
        active = [requests[row] for row in rows]
        while active:
            chosen = [
                request.step(logits[row : row + 1])
                for row, request in zip(rows, active, strict=True)
            ]
            yield
            going = [place for place, request in enumerate(active) if request.finish_reason is None]
            if len(going) < len(rows) or rows != list(range(len(rows))):
                # Rows still going move to the front, so that they remain one slice of the cache.
                moves = [(rows[place], to) for to, place in enumerate(going) if rows[place] != to]
                for source, target in moves:
                    cache.copy_rows([source], [target])
                rows = list(range(len(going)))
                active = [active[place] for place in going]
                chosen = [chosen[place] for place in going]
            if active:
                with memory_errors(self.model.device):
                    logits = self._decode(cache.rows(rows), chosen)

    @torch.inference_mode()
    def _prefill(
        self, prompts: list[list[int]], requests: list[Request], inputs: dict[str, Any]
    ) -> tuple[Any, Tensor]:
        """Run all prompts; the cache, and logits of each row's last position (B, V)."""
        lengths = [len(ids) for ids in prompts]
        padded = torch.zeros((len(prompts), max(lengths)), dtype=torch.int64)
        for row, ids in enumerate(prompts):
            padded[row, : len(ids)] = torch.tensor(ids)
        prompt: Prompt = self.model.embed_prompt(padded.to(self.model.device), lengths, **inputs)
        context, capacity = self.model.max_seq_len, 0
        for length, request in zip(prompt.lengths, requests, strict=True):
            if length > context:  # a picture takes more positions than ids
                raise _too_long(length, context)
            request.restrict(context - length)
            capacity = max(capacity, length + request.limit)
        cache = self.model.make_cache(len(prompts), capacity)
        logits = self.model.forward_embeds(prompt.embeds, cache, prompt.lengths)
        cache.advance(prompt.lengths)
        return cache, logits

    @torch.inference_mode()
    def _decode(self, cache: Any, token_ids: list[int]) -> Tensor:
        """One token a row; logits (B, V)."""
        tokens = torch.tensor(token_ids, device=self.model.device)[:, None]
        logits = self.model.forward_embeds(self.model.embed(tokens), cache)
        cache.advance([1] * len(token_ids))
        return logits


def _too_long(length: int, limit: int) -> UsageError:
    return UsageError(
        "prompt",
        f"has {length} tokens, more than the {limit} the model can attend over",
        "shorten it",
    )
