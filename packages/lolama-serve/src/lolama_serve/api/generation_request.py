"""The fields that the requests of OpenAI's and llama.cpp's APIs share, settings of sampling aside."""

from __future__ import annotations

from typing import Any

from lolama_core.protocols.serving import GrammarKind
from lolama_core.protocols.types import JSON
from lolama_serve.api.grammars import grammar_of
from lolama_serve.api.sampling import Sampling


class GenerationRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """Which model generates, how much at most, and within which grammar.

    ``cache_prompt`` and ``id_slot`` change no answer, and are not looked at.
    """

    model: str | None = None
    max_tokens: int | None = None
    n_predict: int | None = None
    json_schema: dict[str, Any] | bool | None = None
    regex: str | None = None
    grammar: str | None = None
    lark: str | None = None
    cache_prompt: bool | None = None
    id_slot: int | None = None

    def asked_grammar(
        self, response_format: dict[str, Any] | None = None
    ) -> tuple[GrammarKind, JSON] | None:
        """The one grammar that the request gives; None if it gives none.

        Args:
            response_format: The field of that name, which not every API has.

        Raises:
            APIError: for several grammars, or a format that is unknown.
        """
        return grammar_of(response_format, self.json_schema, self.regex, self.grammar, self.lark)
