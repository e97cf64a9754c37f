"""A model of a server, watched and with parts switched off; a part of an `ExplainedModel`."""

from __future__ import annotations

from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

import lolama_core
from lolama_core import GenerationConfig, TextGenerator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from lolama_core import CausalLMModule, Llama, Tokenizer
    from lolama_core.protocols.explaining import Explanation, PartsOff

_one_at_a_time = Lock()


class Explaining:
    """Explains a model through a second view of it: what runs texts meanwhile sees nothing of that.

    Attributes:
        tokenizer: Its tokenizer.
    """

    tokenizer: Tokenizer
    _model: CausalLMModule

    @property
    def reference(self) -> Mapping[str, str]:
        """The functions of `lolama_core.reference`; see `ExplainedModel`."""
        return lolama_core.reference_sources()

    def explain(self, text: str, off: PartsOff) -> Explanation:
        """What it computes for a text; see `ExplainedModel`."""
        ids = self.tokenizer.encode_ids(text)
        with _one_at_a_time, self._without(off):
            return lolama_core.explain(self._view, self.tokenizer, ids)

    def continued(self, text: str, off: PartsOff, tokens: int) -> str:
        """The most likely continuation of a text; see `ExplainedModel`."""
        config = GenerationConfig.greedy(max_new_tokens=tokens)
        with _one_at_a_time, self._without(off):
            return TextGenerator(self._view, self.tokenizer).generate(text, config).text

    def close_view(self) -> None:
        """Let go of what explaining has made; its weights are those of the model."""
        view = vars(self).pop("_view", None)
        if view is not None:
            lolama_core.forget(view)

    @cached_property
    def _view(self) -> Llama:
        return lolama_core.second_view(self._model)

    def _without(self, off: PartsOff) -> AbstractContextManager[None]:
        return lolama_core.ablate(
            self._view, layers=off.layers, heads=off.heads, neurons=off.neurons
        )
