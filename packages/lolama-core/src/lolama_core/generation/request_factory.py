"""From what a caller hands in to requests that can run: ids, settings and inputs, all checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import torch

from lolama_core.generation.end_tokens import end_ids
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.keywords import split_keywords, with_suggestion
from lolama_core.generation.request import Request
from lolama_core.generation.sampling import Sampler
from lolama_core.generation.text_stream import TextStream
from lolama_core.model.device import inference, memory_errors
from lolama_core.protocols import CausalLM, LogitsProcessor, Tokenizer
from lolama_core.protocols.arguments import listed
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import Prompt
from lolama_core.runtime.runner import runner_of
from lolama_core.text.token_ids import TokenIds, token_ids

TextOrIds: TypeAlias = "str | TokenIds"


@dataclass(frozen=True)
class RequestFactory:
    """Makes the requests for one model; without a tokenizer they have ids but no text."""

    model: CausalLM
    tokenizer: Tokenizer | None

    def requests(
        self,
        prompts: Sequence[TextOrIds],
        configs: Sequence[GenerationConfig | None],
        processors: Sequence[LogitsProcessor],
        keywords: Mapping[str, Any],
    ) -> list[tuple[Request, Prompt]]:
        """A request for each prompt, and the prompt as the model reads it: one row, without padding.

        Args:
            prompts: Text or ids of each.
            configs: Settings of each; None for the defaults with the model's recommendations over them.
            processors: Run before those of the settings.
            keywords: Settings, laid over all configs, and inputs of the model; see `Keywords`.

        Raises:
            UsageError: for settings, ids or inputs that make no sense.
            ResourceError: if the memory does not suffice for the embeddings.
        """
        named, inputs = split_keywords(keywords)
        reason = "is no list of functions (input_ids, scores) that return scores"
        remedy = "give one function as [function]"
        processors = listed("logits_processors", processors, remedy, reason)
        if not all(map(callable, processors)):
            raise UsageError("logits_processors", reason, remedy)
        chosen = [self._config(config, named) for config in configs]
        all_ids = [self.ids(prompt) for prompt in prompts]
        requests = [
            self._request(ids, config, processors)
            for ids, config in zip(all_ids, chosen, strict=True)
        ]
        lengths = [len(ids) for ids in all_ids]
        padded = torch.zeros((len(prompts), max(lengths)), dtype=torch.int64, device="cpu")
        for row, ids in enumerate(all_ids):
            padded[row, : len(ids)] = torch.tensor(ids, device="cpu")
        with memory_errors(self.model.device), inference(self.model.device):
            try:
                # What encodes pictures runs by fast products; looking at the model is for these alone.
                model = runner_of(self.model) if inputs else self.model
                prompt = model.embed_prompt(padded.to(self.model.device), lengths, **inputs)
            except UsageError as error:
                raise (with_suggestion(error) if error.subject in inputs else error) from None
        for length, request in zip(prompt.lengths, requests, strict=True):
            # A picture takes more positions than its ids.
            request.restrict(self._room_after(length))
        return [
            (request, Prompt(prompt.embeds[row : row + 1, :length], (length,), (keys,)))
            for row, (request, length, keys) in enumerate(
                zip(requests, prompt.lengths, prompt.keys, strict=True)
            )
        ]

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
        self, prompt_ids: list[int], config: GenerationConfig, processors: Sequence[LogitsProcessor]
    ) -> Request:
        defaults, device = self.model.generation_defaults, self.model.device
        stream = None
        if self.tokenizer is not None:
            stream = TextStream(self.tokenizer, prompt_ids, config.stop)
        eos_ids = end_ids(defaults, self.tokenizer, config)
        sampler = Sampler.from_config(
            config,
            prompt_length=len(prompt_ids),
            vocab_size=defaults.vocab_size,
            eos_ids=eos_ids,
            tokenizer=self.tokenizer,
            device=device,
        )
        sampler.chain = [*processors, *sampler.chain]
        return Request(
            prompt_ids,
            config,
            sampler,
            room=self._room_after(len(prompt_ids)),
            eos_ids=eos_ids,
            text_stream=stream,
            device=device,
        )


def too_long(length: int, limit: int) -> UsageError:
    """The error for a prompt that the model cannot attend over."""
    return UsageError(
        "prompt",
        f"has {length} tokens, more than the {limit} the model can attend over",
        "shorten it",
    )
