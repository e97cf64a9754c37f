"""What the parser hands to the consistency check: phrases and clauses."""

from __future__ import annotations

from dataclasses import dataclass, field


class StoryError(Exception):
    """A fault in a story: what is wrong, and in which sentence."""


@dataclass
class Phrase:
    """A noun phrase.

    Args:
        kind: "name", "pronoun", "noun", "number" (a bare count: "she had two") or "group" (A and B).
        head: The name, the pronoun, or the noun in the singular.
        plural: Its grammatical number.
        determiner: "a", "the", "no", "some", ... or "" if there is none.
        adjectives: Attributes before the noun.
        count: The value of a numeral.
        owner: Whose it is ("her", "Mia's").
        name: A name given with the noun ("a girl named Mia", "her brother Tom").
        introduces: The name is new by this phrase.
        members: The members of a group.
        of: "two of *the shells*".
        more: "two *more* shells".
        clauses: Relative clauses.
    """

    kind: str
    head: str
    plural: bool = False
    determiner: str = ""
    adjectives: tuple[str, ...] = ()
    count: int | None = None
    owner: Phrase | None = None
    name: str = ""
    introduces: bool = False
    members: tuple[Phrase, ...] = ()
    of: Phrase | None = None
    more: bool = False
    clauses: tuple[Clause, ...] = ()


@dataclass
class Clause:
    """One predicate with what belongs to it."""

    subject: Phrase | None
    verb: str
    objects: list[Phrase] = field(default_factory=list)
    adjuncts: list[tuple[str, Phrase]] = field(default_factory=list)
    link: str = ""  # The conjunction in front of it.
    quoted: bool = False
    negated: bool = False
    modal: bool = False  # "could swim", "to swim": nothing has happened.


@dataclass
class Sentence:
    """A parsed sentence or quotation, in the order of its text."""

    text: str
    clauses: list[Clause]
    speaker: Phrase | None = None
    addressees: tuple[str, ...] = ()
