"""Prompts of a batch through a model of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from lolama.thinking import ThoughtFormat, thought_format
from lolama_cli.batch.prompts import BatchPrompt
from lolama_cli.generation import answer_facts
from lolama_core.protocols.errors import LolamaError

if TYPE_CHECKING:
    from lolama import Drafting, GenerationConfig
    from lolama.answers import Constraints
    from lolama.command_prompts import PreparedImages
    from lolama_core.protocols import CausalLM, Tokenizer


class LocalAnswers:
    """Answers prompts in the batch of a model; see `Answering`.

    Args:
        model, tokenizer: What answers.
        encode: A prompt → its ids, checked, and its pictures; None for a text model.
        raw: Whether chat templates are left aside.
        rows: Prompts that run at the same time.
        cache_bytes: Bytes that their keys and values may take; None for the default of `BatchGenerator`.
        draft: What tries tokens ahead.
        cache_dtype: What keys and values are stored in; None for the dtype of the model.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        encode: Callable[[BatchPrompt], tuple[Sequence[int], PreparedImages | None]],
        *,
        raw: bool,
        rows: int,
        cache_bytes: int | None,
        draft: Drafting,
        cache_dtype: Literal["int8"] | None,
    ) -> None:
        from lolama import BatchGenerator

        self._model, self._tokenizer, self._encode = model, tokenizer, encode
        self._raw, self.rows = raw, rows
        self._batch = BatchGenerator(
            model,
            tokenizer,
            rows=rows,
            cache_bytes=cache_bytes,
            cache_dtype=cache_dtype,
            draft=draft,
        )
        self._running: dict[int, tuple[int, GenerationConfig, ThoughtFormat | None]] = {}

    def submit(self, prompt: BatchPrompt, config: GenerationConfig) -> int:
        """Take a prompt on."""
        ids, images = self._encode(prompt)
        length = len(ids) if images is None else images.count_positions(ids)
        thoughts = None if self._raw else thought_format(self._tokenizer, ids)
        inputs = {} if images is None else images.model_inputs
        constraint = None
        if prompt.grammar is not None:
            constraint = self._constraints.make(prompt.grammar, thoughts)
        ticket = self._batch.submit(ids, config, constraint=constraint, **inputs)
        self._running[ticket] = length, config, thoughts
        return ticket

    @cached_property
    def _constraints(self) -> Constraints:
        """Makes those of lines that say what their answers may be."""
        from lolama.answers import Constraints

        return Constraints(self._model, self._tokenizer)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._batch.busy

    def step(self) -> None:
        """A token for each running prompt."""
        self._batch.step()

    def collect(self) -> Mapping[int, Mapping[str, object] | LolamaError]:
        """What ended since the last call."""
        found: dict[int, Mapping[str, object] | LolamaError] = {}
        for ticket, result in self._batch.collect().items():
            length, config, thoughts = self._running.pop(ticket)
            if isinstance(result, LolamaError):
                found[ticket] = result
                continue
            apart = result if thoughts is None else thoughts.apart(result)
            found[ticket] = answer_facts(apart, length, config, self._tokenizer)
        return found
