"""What a text may be: ``--json-schema``, ``--regex``, ``--grammar``, and these keys in lines of a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lolama_cli.options import read_text
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama.grammar import Grammar

KEYS = ("json_schema", "regex", "grammar")
"""The keys of a line of a batch."""

BROKEN_OFF = (
    "the text is broken off, so it is not yet what was asked for; more --max-tokens may help"
)
"""What to say of a text that had no room to become what it was to be."""

JsonSchemaOption = Annotated[
    Path | None,
    typer.Option(
        "--json-schema",
        help="Write JSON that the JSON schema in FILE describes.",
        metavar="FILE",
    ),
]
RegexOption = Annotated[
    str | None,
    typer.Option(
        "--regex", help="Write a text that the regular expression matches.", metavar="TEXT"
    ),
]
GrammarOption = Annotated[
    Path | None,
    typer.Option(
        "--grammar", help="Write a text of the grammar in FILE, Lark or GBNF.", metavar="FILE"
    ),
]


def read_grammar(schema: Path | None, regex: str | None, grammar: Path | None) -> Grammar | None:
    """The grammar that options ask for; none without them.

    Raises:
        UsageError: if there are several, or a file that cannot be read, or is too long, or no JSON.
    """
    given = [
        option
        for option, value in (("--json-schema", schema), ("--regex", regex), ("--grammar", grammar))
        if value is not None
    ]
    if len(given) > 1:
        raise UsageError(given[1], f"does not go with {given[0]}", "leave one of them out")
    if not given:
        return None
    from lolama.grammar import Grammar
    from lolama.grammar_text import MOST_BYTES

    if regex is not None:
        return _named(lambda: Grammar.regex(regex), "--regex")
    path = schema or grammar
    assert path is not None
    if schema is not None and str(schema).lstrip().startswith("{"):  # as other programs take it
        raise UsageError("--json-schema", "is a schema itself", "write it to a file, and name that")
    text = read_text(path, f"give another file to {given[0]}", MOST_BYTES)
    if schema is not None:
        return _named(lambda: Grammar.json_schema(_from_json(text)), str(path))
    by_ending = {".gbnf": Grammar.gbnf, ".lark": Grammar.lark}
    make = by_ending.get(path.suffix.lower(), Grammar.by_first_rule)
    return _named(lambda: make(text), str(path))


def grammar_of_line(values: Mapping[str, Any]) -> Grammar | None:
    """The grammar that a line of a batch has for itself.

    Raises:
        UsageError: if it has several, or one that makes no sense.
    """
    given = [key for key in KEYS if key in values]
    if len(given) > 1:
        reason = f"and {given[0]} are both there"
        raise UsageError(given[1], reason, "leave one of them out")
    if not given:
        return None
    from lolama.grammar import Grammar

    makers = (Grammar.json_schema, Grammar.regex, Grammar.by_first_rule)
    make: Any = dict(zip(KEYS, makers, strict=True))[given[0]]
    return _named(lambda: make(values[given[0]]), given[0])


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        reason = "is nested too deeply"
        raise UsageError("JSON schema", reason, "give parts of it a name in $defs") from None
    except ValueError as error:
        raise UsageError("JSON schema", f"is not JSON ({str(error)[:80]})", "correct it") from None


def _named(make: Callable[[], Grammar], subject: str) -> Grammar:
    """What ``make`` returns; its errors are about ``subject``."""
    try:
        return make()
    except UsageError as error:
        raise UsageError(subject, error.reason, error.remedy) from None
