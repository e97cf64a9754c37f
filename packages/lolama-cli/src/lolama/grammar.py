"""What a text may be, as a grammar: any JSON object, a JSON schema, a regular expression, Lark, or GBNF.

    >>> llm = lolama.load("demo")
    >>> make = GrammarCompiler(llm.tokenizer, llm.model.generation_defaults.eos_ids, llm.model.vocab_size)
    >>> yes_or_no = make.compile(Grammar.regex("yes|no"))
    >>> llm.generator.generate("Is it?", constraint=yes_or_no).text
    'yes'

``llguidance`` does the work. A grammar may come from a stranger, so all that it can take up is limited, and
what it asks for but llguidance does not know is refused.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from lolama.grammar_text import checked_gbnf, checked_schema, kind_of_grammar, most_bytes
from lolama_core.protocols.checks import shown, words_of
from lolama_core.protocols.errors import LolamaError, ResourceError, UsageError
from lolama_core.protocols.locks import while_locked

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

    from lolama_core.protocols import ForcingConstraint, Tokenizer

Kind: TypeAlias = Literal["schema", "regex", "lark", "gbnf"]
"""What a grammar is written in."""

MOST_SECONDS = 5.0
"""A grammar that takes longer to compile is refused. The limits below end hostile ones far earlier."""

_STACK_BYTES = 256 << 20
"""The stack of the thread that compiles. llguidance calls itself for each rule that stands in another, with
some 4 kB each time. The 9,000 rules of 64 kB overflow an ordinary stack, which ends the process."""

_KEPT = 16
"""Compiled grammars that are kept: a server is asked for the same few again and again."""

_MOST_STATES = 20_000
"""States of a lexer: one takes 1 to 2 kB, so a text has up to 40 MB of them. The default admits 500 MB."""

_MOST_SYMBOLS = 100_000
"""Symbols of a grammar: a fifth of the default. A list of 4,000 values has fewer."""

_MOST_FUEL = 50_000
"""What one mask may take of a lexer: a quarter of the default, some 4 ms."""

_JSON: JsonCompileOptions = {
    # A model that feels done writes blanks to the end, where a grammar admits any number of them.
    "whitespace_flexible": False,
    # Otherwise what llguidance does not know would be left out, and what is no answer be accepted.
    "lenient": False,
    "coerce_one_of": False,
}
"""How schemas are read, whatever they say of it themselves (``x-guidance``)."""

_NAMES = {"schema": "JSON schema", "regex": "regex", "lark": "grammar", "gbnf": "grammar"}


@dataclass(frozen=True)
class Grammar:
    """What a text may be. Two that say the same in the same words are equal.

    Attributes:
        kind: What it is written in.
        source: Its text; a schema's as JSON.
    """

    kind: Kind
    source: str

    @classmethod
    def json_object(cls) -> Grammar:
        """Any JSON object, without blanks."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def json_schema(cls, schema: Mapping[str, object] | bool) -> Grammar:
        """JSON that a JSON schema describes, without blanks, its properties in the schema's order.

        Raises:
            UsageError: if it is too long, too deep, or no JSON.
        """
        return cls("schema", checked_schema(schema))

    @classmethod
    def regex(cls, text: str) -> Grammar:
        """A text that a regular expression matches as a whole, in the syntax of Rust's ``regex``.

        Raises:
            UsageError: if it is too long.
        """
        return cls("regex", most_bytes(text, "regex"))

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """A text of a grammar in llguidance's dialect of Lark; its first rule is ``start``.

        Raises:
            UsageError: if it is too long.
        """
        return cls("lark", most_bytes(text, "grammar"))

    @classmethod
    def gbnf(cls, text: str) -> Grammar:
        """A text of a grammar in llama.cpp's GBNF; its first rule is ``root``.

        Raises:
            UsageError: if it is too long, or has too many rules.
        """
        return cls("gbnf", checked_gbnf(text))

    @classmethod
    def by_first_rule(cls, text: str) -> Grammar:
        """`gbnf` for a text with a rule ``root ::=``, and `lark` for one with a rule ``start:``.

        Raises:
            UsageError: if it has neither, or as these do.
        """
        kind = kind_of_grammar(text)
        return cls.gbnf(text) if kind == "gbnf" else cls.lark(text)


class GrammarCompiler:
    """Makes constraints of grammars, for one model. Several threads may use it at once.

    Making it reads the whole vocabulary, so make one for each model and keep it. `compile` may take seconds,
    too: an event loop leaves it to another thread.

    Args:
        tokenizer: The model's tokenizer.
        eos_ids: Ids that end a text. They are allowed where the grammar's text may end, and nowhere else.
        vocab_size: The number of the model's logits, V.

    Raises:
        UsageError: if nothing ends a text, or the bytes of the tokens cannot be told.
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: Iterable[int], vocab_size: int) -> None:
        from lolama.grammar_vocabulary import vocabulary_of

        self._vocabulary, self._vocab_size = (
            vocabulary_of(tokenizer, eos_ids, vocab_size),
            vocab_size,
        )
        self._kept: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._in_use = threading.Lock()

    def compile(self, grammar: Grammar) -> ForcingConstraint:
        """A constraint for one text. The grammar itself is kept, so that the next text has it at once.

        Raises:
            UsageError: if the grammar is wrong, impossible, more than the limits, or asks for what is not
                known here, such as a schema at another address.
        """
        from lolama.matched import Matched

        if not isinstance(grammar, Grammar):
            raise UsageError(
                "grammar", f"{shown(grammar)} is no Grammar", "give Grammar.regex(...)"
            )
        matcher = while_locked(self._in_use, partial(self._copy, grammar))
        if matcher is None:
            made = _in_time(partial(_compiled, grammar, self._vocabulary), _NAMES[grammar.kind])
            matcher = while_locked(self._in_use, partial(self._keep, grammar, made))
        return Matched(matcher, self._vocab_size, _NAMES[grammar.kind])

    def _copy(self, grammar: Grammar) -> LLMatcher | None:
        """A fresh matcher of a grammar that is kept."""
        kept = self._kept.get(grammar)
        if kept is None:
            return None
        self._kept.move_to_end(grammar)
        return kept.deep_copy()

    def _keep(self, grammar: Grammar, made: LLMatcher) -> LLMatcher:
        self._kept[grammar] = made
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return made.deep_copy()


def _compiled(grammar: Grammar, vocabulary: LLTokenizer) -> LLMatcher:
    """The matcher of a grammar, at the beginning of a text, once something may stand there."""
    from llguidance import LLMatcher, LLParserLimits

    from lolama.grammar_text import lark_of_gbnf
    from lolama.matched import failure

    name = _NAMES[grammar.kind]
    if grammar.kind == "schema":
        text = LLMatcher.grammar_from_json_schema(grammar.source, overrides=_JSON)
    elif grammar.kind == "regex":
        text = LLMatcher.grammar_from_regex(grammar.source)
    else:
        lark = grammar.source if grammar.kind == "lark" else lark_of_gbnf(grammar.source)
        text = LLMatcher.grammar_from_lark(lark)
    limits = LLParserLimits(
        max_lexer_states=_MOST_STATES,
        max_grammar_size=_MOST_SYMBOLS,
        step_lexer_fuel=_MOST_FUEL,
        verbose_errors=False,
    )
    matcher = LLMatcher(vocabulary, text, log_level=0, limits=limits)
    matcher.compute_bitmask()  # some grammars turn out to have no text only here
    if problem := matcher.get_error():
        raise failure(name, problem)
    warnings = matcher.get_grammar_warnings()
    if warnings and grammar.kind == "schema":
        raise failure(name, warnings[0])
    return matcher


_starting = threading.Lock()
_threads = threading.BoundedSemaphore(4)
"""Threads that compile, of the whole process: nothing stops one that has taken too long."""


def _in_time(work: partial[LLMatcher], name: str) -> LLMatcher:
    """What ``work`` makes in a thread of its own, which has room for what calls itself."""
    made: list[LLMatcher] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(work())
        except BaseException as error:  # a Rust panic derives from BaseException alone
            failed.append(error)
        finally:
            threads.release()

    threads = _threads
    if not threads.acquire(timeout=MOST_SECONDS):
        reason = "too many grammars are compiled at this moment"
        raise UsageError(name, reason, "try again in some seconds")
    worker = threading.Thread(target=run, name="lolama-grammar", daemon=True)
    try:
        while_locked(_starting, partial(_start_with_stack, worker, name))
    except BaseException:
        threads.release()
        raise
    worker.join(MOST_SECONDS)
    if failed:
        if isinstance(failed[0], LolamaError | KeyboardInterrupt | SystemExit):
            raise failed[0]
        reason = f"cannot be compiled: {words_of(failed[0])}"
        raise UsageError(name, reason, "correct it, or make it simpler") from None
    if not made:
        reason = f"takes longer than {MOST_SECONDS:g} s to compile"
        raise UsageError(name, reason, "make it simpler")
    return made[0]


def _start_with_stack(worker: threading.Thread, name: str) -> None:
    """Start a thread; the size of stacks is the whole process's until it has."""
    before = threading.stack_size(_STACK_BYTES)
    try:
        worker.start()
    except RuntimeError as error:
        reason = f"no thread can be started to compile it: {error}"
        raise ResourceError(name, reason, "free some memory") from None
    finally:
        threading.stack_size(before)
