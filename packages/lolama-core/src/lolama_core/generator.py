"""The generation loop: prompts in, tokens out, one or many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lolama_core.device import memory_errors
from lolama_core.generation_config import GenerationConfig
from lolama_core.protocols import CausalLM, LogitsProcessor, Tokenizer
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import Prompt
from lolama_core.sampling import Sampler
from lolama_core.text_stream import TextStream

TokenIds: TypeAlias = Tensor | Sequence[int]
FinishReason = Literal["eos", "stop", "length"]

_SETTINGS = frozenset(field.name for field in fields(GenerationConfig))
_SCORE_CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one prompt led to.

    Attributes:
        ids: New tokens, without the end token and without any that touch a stop text.
        text: Their text after the prompt's; None if the generator has no tokenizer.
        finish_reason: ``eos`` the model ended it, ``stop`` a stop text did, ``length`` there was no room.
        context_full: With ``length``: the model's context was full before ``max_new_tokens``.
    """

    ids: tuple[int, ...]
    text: str | None
    finish_reason: FinishReason
    context_full: bool = False


class _Request:
    """One row of a generation: its settings, history and state."""

    def __init__(
        self,
        prompt_ids: list[int],
        config: GenerationConfig,
        sampler: Sampler,
        *,
        room: int,
        eos_ids: frozenset[int],
        text_stream: TextStream | None,
        device: torch.device,
    ) -> None:
        self.config = config
        self.limit = min(config.max_new_tokens, room)
        self.finish_reason: FinishReason | None = None
        self.released: list[int] = []
        self.pieces: list[str] = []
        self._sampler = sampler
        self._eos_ids = frozenset() if config.ignore_eos else eos_ids
        self._text_stream = text_stream
        self._held: list[tuple[int, int]] = []
        self._count = 0
        self._prompt_length = len(prompt_ids)
        self._history = torch.zeros((1, len(prompt_ids) + self.limit), dtype=torch.int64, device=device)
        self._history[0, : len(prompt_ids)] = torch.tensor(prompt_ids, dtype=torch.int64)
        if self.limit == 0:
            self._finish("length")

    @property
    def context_full(self) -> bool:
        return self.finish_reason == "length" and self.limit < self.config.max_new_tokens

    def step(self, logits: Tensor) -> int:
        """Choose from (1, V) logits, and note whether that was the last token."""
        length = self._prompt_length + self._count
        token_id = self._sampler(self._history[:, :length], logits, step=self._count)
        if token_id in self._eos_ids:
            self._finish("eos")
            return token_id
        self._history[0, length] = token_id
        self._count += 1
        self._release(token_id)
        if self._text_stream is not None and self._text_stream.stopped:
            self._finish("stop")
        elif self._count == self.limit:
            self._finish("length")
        return token_id

    def _release(self, token_id: int) -> None:
        """Give out the id and its text, unless a stop text may have begun in it."""
        if self._text_stream is None:
            self.released.append(token_id)
            return
        before = self._text_stream.decoded
        self._add(self._text_stream.push(token_id))
        self._held.append((token_id, -1))
        if self._text_stream.decoded > before or not self._text_stream.pending:
            # All ids waiting for their text have it now; it ends here.
            end = self._text_stream.decoded
            self._held = [(held, end if known < 0 else known) for held, known in self._held]
        self._release_held()

    def _release_held(self, *, everything: bool = False) -> None:
        assert self._text_stream is not None
        keep: list[tuple[int, int]] = []
        for held, end in self._held:
            certain = 0 <= end <= self._text_stream.emitted
            if self.config.stop and (keep or not (certain or everything)):
                keep.append((held, end))
            else:
                self.released.append(held)
        self._held = keep

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        if self._text_stream is not None:
            self._add(self._text_stream.finish())
            if self._text_stream.stopped:  # the last held characters completed a stop text
                self.finish_reason = "stop"
            self._release_held(everything=self.finish_reason != "stop")

    def _add(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)

    def result(self) -> Generation:
        assert self.finish_reason is not None
        text = "".join(self.pieces) if self._text_stream is not None else None
        return Generation(
            ids=tuple(self.released),
            text=text,
            finish_reason=self.finish_reason,
            context_full=self.context_full,
        )


class TokenStream:
    """Iterates over token ids as they are generated; `text` iterates over pieces of text instead.

    Dropping it, closing it or leaving its ``with`` block ends the generation and frees its cache.

    Attributes:
        result: The whole `Generation`, once the stream has ended by itself.
    """

    def __init__(self, request: _Request, steps: Iterator[None]) -> None:
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
                    self.result = self._request.result()
                    return
        finally:
            self.close()

    def __iter__(self) -> Iterator[int]:
        return self._outputs("released")

    def text(self) -> Iterator[str]:
        """Pieces of text, as soon as each is certain. Their sum is `Generation.text`."""
        if self._request._text_stream is None:
            raise UsageError("tokenizer", "is needed to stream text", "use TextGenerator(model, tokenizer)")
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
        stream = self.generate_stream(input_ids, config, logits_processors=logits_processors, **settings)
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
        request = self._request(prompt_ids, chosen, logits_processors, self._context_for([prompt_ids]))
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
        if not prompts:
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
        cache = self.model.make_cache(1, len(ids))
        scores = []
        # In chunks: the logits of a long text are larger than many a model.
        for chunk in tokens[:, :-1].split(_SCORE_CHUNK, dim=1):
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
            named = {**self.model.generation_defaults.sampling, **named}
            config = GenerationConfig()
        chosen = config.with_settings(**named) if named else config
        if chosen.stop and self.tokenizer is None:
            raise UsageError("--stop", "stop texts need a tokenizer", "use TextGenerator(model, tokenizer)")
        return chosen, inputs

    def _prompt_ids(self, input_ids: TokenIds) -> list[int]:
        """One row of ids, checked."""
        if isinstance(input_ids, Tensor):
            if input_ids.is_floating_point() or input_ids.dim() > 2 or (input_ids.dim() == 2 and len(input_ids) != 1):
                raise UsageError(
                    "input_ids",
                    f"has shape {tuple(input_ids.shape)} and dtype {input_ids.dtype}, expected (1, T) whole numbers",
                    "use generate_batch for several prompts",
                )
            input_ids = input_ids.flatten().tolist()
        ids = list(input_ids)
        if not ids:
            raise UsageError("prompt", "is empty", "give some text")
        limit = self.model.vocab_size
        wrong = next((i for i in ids if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < limit), None)
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
    ) -> _Request:
        defaults, device = self.model.generation_defaults, self.model.device
        sampler = Sampler.from_config(
            config, prompt_length=len(prompt_ids), vocab_size=defaults.vocab_size, device=device
        )
        sampler.chain = [*processors, *sampler.chain]
        stream, eos_ids = None, defaults.eos_ids
        if self.tokenizer is not None:
            stream = TextStream(self.tokenizer, prompt_ids, config.stop)
            eos_ids = eos_ids | self.tokenizer.eos_ids
        return _Request(
            prompt_ids,
            config,
            sampler,
            room=context - len(prompt_ids),
            eos_ids=eos_ids,
            text_stream=stream,
            device=device,
        )

    def _steps(
        self, prompts: list[list[int]], requests: list[_Request], inputs: dict[str, Any]
    ) -> Iterator[None]:
        """Run the requests to their ends; yields after each step."""
        active = [request for request in requests if request.finish_reason is None]
        if not active:
            return
        with memory_errors(self.model.device):
            cache, logits = self._prefill(prompts, requests, inputs)
            rows = [row for row, request in enumerate(requests) if request.finish_reason is None]
        while active:
            chosen = [request.step(logits[row : row + 1]) for row, request in zip(rows, active, strict=True)]
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
                logits = self._decode(cache.rows(rows), chosen)

    @torch.inference_mode()
    def _prefill(
        self, prompts: list[list[int]], requests: list[_Request], inputs: dict[str, Any]
    ) -> tuple[Any, Tensor]:
        """Run all prompts; the cache, and logits of each row's last position (B, V)."""
        lengths = [len(ids) for ids in prompts]
        padded = torch.zeros((len(prompts), max(lengths)), dtype=torch.int64)
        for row, ids in enumerate(prompts):
            padded[row, : len(ids)] = torch.tensor(ids)
        prompt: Prompt = self.model.embed_prompt(padded.to(self.model.device), lengths, **inputs)
        longest = max(
            length + request.limit for length, request in zip(prompt.lengths, requests, strict=True)
        )
        cache = self.model.make_cache(len(prompts), min(longest, self.model.max_seq_len))
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
        "prompt", f"has {length} tokens, more than the {limit} the model can attend over", "shorten it"
    )
