"""What a caller wants a text to be, by keyword, and the constraint that makes it so."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lolama.answer_types import schema_of
from lolama.grammar import Grammar, GrammarCompiler
from lolama_core import Keywords
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.locks import while_locked

if TYPE_CHECKING:
    from lolama.thinking import ThoughtFormat
    from lolama_core.protocols import CausalLM, Constraint, Tokenizer

KINDS = ("schema", "regex", "grammar")
"""The keywords that say what a text may be."""


class AnswerKeywords(Keywords, total=False):
    """What `LanguageModel.generate` and its siblings take by name: settings, and at most one of these.

    ``schema``: a JSON schema, or a class with annotations that JSON can hold, such as a dataclass. The text
    is JSON that it describes, unless ``finish_reason`` is "length": then it is broken off. Tell the model
    what you want as well. ``regex``: a regular expression that the whole text matches. ``grammar``: a
    `Grammar`, or the text of one in Lark or GBNF.
    """

    schema: object
    regex: str | None
    grammar: Grammar | str | None


def grammar_in(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], Grammar | None]:
    """The settings among keywords, and the grammar that they ask for.

    Raises:
        UsageError: if they ask for several, or for what is none.
    """
    settings = {name: value for name, value in keywords.items() if name not in KINDS}
    asked = {name: keywords[name] for name in KINDS if keywords.get(name) is not None}
    if len(asked) > 1:
        first, second, *_ = asked
        raise UsageError(second, f"and {first} are both given", "give one of them")
    if "schema" in asked:
        return settings, Grammar.json_schema(schema_of(asked["schema"]))
    if "regex" in asked:
        return settings, Grammar.regex(asked["regex"])
    grammar = asked.get("grammar")
    if grammar is None or isinstance(grammar, Grammar):
        return settings, grammar
    return settings, Grammar.by_first_rule(grammar)


class Constraints:
    """Makes constraints for one model. What that takes is made when the first one is asked for.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: CausalLM, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._compiler: GrammarCompiler | None = None
        self._making = threading.Lock()

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a text of the model."""
        return self._model.generation_defaults.eos_ids | self._tokenizer.eos_ids

    @property
    def compiler(self) -> GrammarCompiler:
        """The compiler of the model's grammars."""
        return while_locked(self._making, self._compiler_once)

    def _compiler_once(self) -> GrammarCompiler:
        if self._compiler is None:
            size = self._model.vocab_size
            self._compiler = GrammarCompiler(self._tokenizer, self.ends, size)
        return self._compiler

    def make(
        self, grammar: Grammar | None, thoughts: ThoughtFormat | None = None
    ) -> Constraint | None:
        """A constraint for one text; none without a grammar.

        Args:
            grammar: What the text may be.
            thoughts: The thought that may come before it, which is no part of it.

        Raises:
            UsageError: see `GrammarCompiler.compile`.
        """
        if grammar is None:
            return None
        constraint = self.compiler.compile(grammar)
        if thoughts is None:
            return constraint
        from lolama.after_thought import AfterThought

        size = self._model.vocab_size
        return AfterThought(constraint, thoughts, self._tokenizer, self.ends, size)

    def settings(
        self, keywords: Mapping[str, Any], thoughts: ThoughtFormat | None = None
    ) -> dict[str, Any]:
        """Keywords of a `TextGenerator`: the settings among ``keywords``, and the constraint of the rest."""
        settings, grammar = grammar_in(keywords)
        constraint = self.make(grammar, thoughts)
        return settings if constraint is None else {**settings, "constraint": constraint}
