"""From what a caller hands in to requests that can run: ids, settings and inputs, all checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import torch

from lolama_core.generation.constrained import Constrained
from lolama_core.generation.end_tokens import end_ids
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.keywords import split_keywords, with_suggestion
from lolama_core.generation.logprobs import PromptLogprobs
from lolama_core.generation.request import Request
from lolama_core.generation.sampling import Sampler
from lolama_core.generation.text_stream import TextStream
from lolama_core.model.device import memory_errors
from lolama_core.protocols import CausalLM, Constraint, LogitsProcessor, Tokenizer
from lolama_core.protocols.arguments import listed
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.inference import run_inference
from lolama_core.protocols.types import Prompt, PromptKey
from lolama_core.runtime.runner import runner_of
from lolama_core.text.plain_numbers import whole_number
from lolama_core.text.token_ids import TokenIds, token_ids

TextOrIds: TypeAlias = "str | TokenIds"

_SEEDS = 1 << 63
"""Seeds are below this."""


@dataclass(frozen=True)
class RequestFactory:
    """Makes the requests for one model; without a tokenizer they have ids but no text.

    Raises:
        UsageError: for what is no model, or no tokenizer.
    """

    model: CausalLM
    tokenizer: Tokenizer | None

    def __post_init__(self) -> None:
        if not hasattr(self.model, "forward_embeds"):
            remedy = "give what load_model() returns, or the model of what load() returns"
            raise UsageError("model", f"{shown(self.model)} is no model", remedy)
        if self.tokenizer is not None and not hasattr(self.tokenizer, "encode_ids"):
            reason = f"{shown(self.tokenizer)} is no tokenizer"
            raise UsageError("tokenizer", reason, "give what load_tokenizer() returns")

    def requests(
        self,
        prompts: Sequence[TextOrIds],
        configs: Sequence[GenerationConfig | None],
        processors: Sequence[LogitsProcessor] = (),
        keywords: Mapping[str, Any] | None = None,
        *,
        n: int = 1,
        constraint: Constraint | None = None,
        visible_ids: Collection[int] = (),
    ) -> list[tuple[Request, Prompt]]:
        """``n`` requests for each prompt, and the prompt as the model reads it: one row, without padding.

        It changes nothing that others use, so it may run in a thread of its own.

        Args:
            prompts: Text or ids of each.
            configs: Settings of each; None for the defaults with the model's recommendations over them.
            processors: Run before those of the settings.
            keywords: Settings, laid over all configs, and inputs of the model; see `Keywords`.
            n: With a seed, each request of a prompt has the next one.
            constraint: What the text may be, if there is one prompt and one request.
            visible_ids: Control tokens that are part of the text; see `TextStream`.

        Raises:
            UsageError: for settings, ids or inputs that make no sense.
            ResourceError: if the memory does not suffice for the embeddings.
        """
        named, inputs = split_keywords(keywords or {})
        reason = "is no list of functions (input_ids, scores) that return scores"
        remedy = "give one function as [function]"
        processors = listed("logits_processors", processors, remedy, reason)
        if not all(map(callable, processors)):
            raise UsageError("logits_processors", reason, remedy)
        if len(configs) != len(prompts):
            raise UsageError("config", f"{len(configs)} configs for {len(prompts)} prompts", "")
        if not prompts:
            return []
        chosen = [self._config(config, named) for config in configs]
        all_ids = [self.ids(prompt) for prompt in prompts]
        if (whole_number(n) or 0) < 1:
            raise UsageError("n", f"is {shown(n)}", "give a whole number, 1 or more")
        if constraint is not None and not isinstance(constraint, Constraint):
            reason = f"{shown(constraint)} has no mask, accept and rollback"
            raise UsageError("constraint", reason, "give a Constraint")
        if constraint is not None and len(prompts) * n > 1:
            reason = f"is for one text, and {len(prompts) * n} are asked for"
            raise UsageError("constraint", reason, "give each request one of its own")
        make = partial(self._request, processors, constraint, visible_ids)
        requests = [
            [make(ids, each) for each in _varied(config, n)]
            for ids, config in zip(all_ids, chosen, strict=True)
        ]
        lengths = [len(ids) for ids in all_ids]
        padded = torch.zeros((len(prompts), max(lengths)), dtype=torch.int64, device="cpu")
        for row, ids in enumerate(all_ids):
            padded[row, : len(ids)] = torch.tensor(ids, device="cpu")

        def embed() -> Prompt:
            # What encodes pictures runs by fast products; looking at the model is for these alone.
            model = runner_of(self.model) if inputs else self.model
            return model.embed_prompt(padded.to(self.model.device), lengths, **inputs)

        try:
            with memory_errors(self.model.device):
                prompt = run_inference(self.model.device, embed)
        except UsageError as error:
            raise (with_suggestion(error) if error.subject in inputs else error) from None
        made = []
        for row, (length, keys) in enumerate(zip(prompt.lengths, prompt.keys, strict=True)):
            spans = prompt.spans[row : row + 1]
            own = Prompt(prompt.embeds[row : row + 1, :length], (length,), (keys,), spans)
            for request in requests[row]:
                # A picture takes more positions than its ids.
                request.restrict(self._room_after(length))
                request.has_inputs = bool(inputs)
                if request.config.prompt_logprobs is not None:
                    request.prompt_reader = _prompt_logprobs(own, request)
                made.append((request, own))
        return made

    def ids(self, prompt: TextOrIds) -> list[int]:
        """The ids of one prompt, checked.

        A text is encoded as ``tokenizer.encode`` does by default: with BOS, if the model begins texts with
        one; what spells a control token in it is one.

        Raises:
            UsageError: if it is empty, several rows, or holds what is no id of this model, or is a text and
                there is no tokenizer.
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise UsageError(
                    "tokenizer",
                    "is needed to read a text",
                    "use TextGenerator(model, tokenizer), or give token ids",
                )
            prompt = self.tokenizer.encode_ids(prompt)
        ids = token_ids(prompt)
        if not ids:
            raise UsageError("prompt", "is empty", "give some text")
        self._check_ids("input_ids", ids)
        return ids

    def _check_ids(self, subject: str, ids: Iterable[int]) -> None:
        """Refuse ids that no token of this model has."""
        limit = self.model.vocab_size
        wrong = next((i for i in ids if not 0 <= i < limit), None)
        if wrong is not None:
            reason = f"{shown(wrong)} is not a token id below {limit}, the size of the vocabulary"
            raise UsageError(subject, reason, "")

    def _recommended(self) -> GenerationConfig:
        """The defaults, with what the model's authors recommend laid over them."""
        return GenerationConfig().with_recommended(self.model.generation_defaults.sampling)

    def _room_after(self, length: int) -> int:
        """Positions left in the model's context; a prompt that is longer is refused, never cut."""
        if length > self.model.max_seq_len:
            raise too_long(length, self.model.max_seq_len)
        return self.model.max_seq_len - length

    def _config(self, config: GenerationConfig | None, named: dict[str, Any]) -> GenerationConfig:
        if config is None:
            config = self._recommended()
        if not isinstance(config, GenerationConfig):
            remedy = "give settings by name, as in `temperature=0`, or a GenerationConfig"
            raise UsageError("config", f"{shown(config)} is not a GenerationConfig", remedy)
        chosen = config.with_settings(**named) if named else config
        if chosen.stop and self.tokenizer is None:
            raise UsageError(
                "stop", "stop texts need a tokenizer", "use TextGenerator(model, tokenizer)"
            )
        self._check_ids_of_settings(chosen)
        return chosen

    def _check_ids_of_settings(self, config: GenerationConfig) -> None:
        """Refuse settings with ids that no token has, unless the model's authors recommend them."""
        breakers = config.dry_sequence_breakers
        named: dict[str, Iterable[int]] = {
            "bad_words_ids": chain.from_iterable(config.bad_words_ids),
            "suppress_tokens": config.suppress_tokens,
            "logit_bias": config.logit_bias,
            "dry_sequence_breakers": [each for each in breakers if isinstance(each, int)],
        }
        for name, ids in named.items():
            try:
                self._check_ids(name, ids)
            except UsageError:
                # transformers ignores such ids in a model's files, but for those of words.
                own = getattr(self._recommended(), name)
                if name == "bad_words_ids" or getattr(config, name) != own:
                    raise

    def _request(
        self,
        processors: Sequence[LogitsProcessor],
        constraint: Constraint | None,
        visible_ids: Collection[int],
        prompt_ids: list[int],
        config: GenerationConfig,
    ) -> Request:
        defaults, device = self.model.generation_defaults, self.model.device
        stream = None
        if self.tokenizer is not None:
            stream = TextStream(self.tokenizer, prompt_ids, config.stop, visible_ids)
        eos_ids = end_ids(defaults, self.tokenizer, config)
        sampler = Sampler.from_config(
            config,
            prompt_length=len(prompt_ids),
            vocab_size=defaults.vocab_size,
            eos_ids=eos_ids,
            tokenizer=self.tokenizer,
            device=device,
        )
        constrained = None if constraint is None else Constrained(constraint)
        # No processor of the settings allows a token again, and any other may.
        own = [] if constrained is None else [constrained]
        guesser = replace(sampler)
        sampler.chain = [*processors, *own, *sampler.chain]
        return Request(
            prompt_ids,
            config,
            sampler,
            room=self._room_after(len(prompt_ids)),
            eos_ids=eos_ids,
            text_stream=stream,
            device=device,
            constrained=constrained,
            guesser=guesser,
        )


def embedded_again(request: Request, prompt: Prompt, model: CausalLM) -> Prompt:
    """The prompt as the model reads it now, if it is ids alone; what became of a picture stays."""
    if request.has_inputs:
        return prompt
    ids = torch.tensor([request.prompt_ids], dtype=torch.int64, device=model.device)
    return model.embed_prompt(ids, [len(request.prompt_ids)])


def _varied(config: GenerationConfig, n: int) -> Iterable[GenerationConfig]:
    """The settings of ``n`` requests that differ in their seeds alone."""
    if config.seed is None:
        return [config] * n
    return (replace(config, seed=(config.seed + i) % _SEEDS) for i in range(n))


def _prompt_logprobs(prompt: Prompt, request: Request) -> PromptLogprobs:
    assert request.config.prompt_logprobs is not None
    ways: list[Sequence[PromptKey]] = [prompt.keys[0], request.prompt_ids]
    known = next((keys for keys in ways if len(keys) == prompt.lengths[0]), None)
    if known is None:
        reason = "needs a model that tells which token is at which position"
        raise UsageError("prompt_logprobs", reason, "let its embed_prompt give keys")
    return PromptLogprobs(known, request.config.prompt_logprobs)


def too_long(length: int, limit: int) -> UsageError:
    """The error for a prompt that the model cannot attend over."""
    return UsageError(
        "prompt",
        f"has {length} tokens, more than the {limit} the model can attend over",
        "shorten it",
    )
