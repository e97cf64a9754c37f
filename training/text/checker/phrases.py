"""Noun phrases: `a kind girl named Mia`, `her three red shells`, `two of them`.

Every rule is a generator that yields each way in which it can match from a position, as
(next position, what was read).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

from . import lexicon as lex
from .syntax import Clause, Phrase


class PhraseParser(ABC):
    """Parses the noun phrases of one sentence's tokens (without its final mark).

    Args:
        tokens: Words and commas; only names and the like keep their capitals.
        quoted: Inside quotation marks, where there are I and you.
    """

    def __init__(self, tokens: list[str], quoted: bool = False) -> None:
        self.tokens = tokens
        self.quoted = quoted

    def at(self, i: int, *words: str) -> bool:
        return tuple(self.tokens[i : i + len(words)]) == words

    def word(self, i: int) -> str:
        return self.tokens[i] if i < len(self.tokens) else ""

    @abstractmethod
    def predicate(self, i: int, subject: Phrase, form: str) -> Iterator[tuple[int, list[Clause]]]:
        """A verb with all that belongs to it: relative clauses need one."""

    def phrase(self, i: int) -> Iterator[tuple[int, Phrase]]:
        """A noun phrase, or two joined by `and`."""
        for j, first in self.simple(i):
            yield j, first
            if self.at(j, "and"):
                for k, second in self.simple(j + 1):
                    yield k, Phrase("group", "and", plural=True, members=(first, second))

    def simple(self, i: int) -> Iterator[tuple[int, Phrase]]:
        word = self.word(i)
        first_person = {"I", "me", "you", "we", "us"} if self.quoted else set()
        pronouns = {"he", "she", "they", "it", "him", "her", "them", "that"} | first_person
        if word in pronouns:
            yield i + 1, Phrase("pronoun", word, plural=word in ("they", "them", "we", "you"))
        if word in lex.NAMES:
            name = Phrase("name", word)
            if self.at(i + 1, "'s"):
                yield from self.owned(i + 2, name)
            else:
                yield i + 1, name
        possessives = {"his", "her"} | ({"my", "your", "our"} if self.quoted else set())
        if word in possessives:
            yield from self.owned(i + 1, Phrase("pronoun", word))
        if word in ("a", "an"):
            expected = "an" if self.word(i + 1).startswith(lex.VOWELS) else "a"
            if word == expected:
                for j, noun in self.nominal(i + 1, plural=False):
                    noun.determiner = "a"
                    yield j, noun
        if word in ("the", "some", "no", "every"):
            for plural in (False, True):
                if (word, plural) not in (("every", True), ("some", False)):
                    for j, noun in self.nominal(i + 1, plural=plural):
                        noun.determiner = word
                        yield j, noun
        if word == "each":
            yield i + 1, Phrase("pronoun", "each")
            if self.at(i + 1, "of", "them"):
                yield i + 3, Phrase("pronoun", "each")
        if self.at(i, "some", "of"):
            yield from self.simple(i + 2)
        yield from self.counted(i)
        for j, noun in self.nominal(i, plural=True):
            yield j, noun
        if word in lex.MASS:
            yield i + 1, Phrase("noun", word)
        if word in lex.ADJECTIVES and self.word(i + 1) in lex.MASS:
            yield i + 2, Phrase("noun", self.word(i + 1), adjectives=(word,))

    def owned(self, i: int, owner: Phrase) -> Iterator[tuple[int, Phrase]]:
        for plural in (False, True):
            for j, noun in self.nominal(i, plural=plural):
                noun.owner = owner
                yield j, noun

    def counted(self, i: int) -> Iterator[tuple[int, Phrase]]:
        """`three red shells`, `one more shell`, `the other four`, `two of them`, `two`."""
        start = i
        determiner = ""
        for words in (("the", "other"), ("all",), ("only",)):
            if self.at(i, *words):
                i, determiner = i + len(words), " ".join(words)
        count = 2 if self.at(i, "both") else lex.NUMBERS.get(self.word(i))
        if not count:
            return
        after = i + 1
        if self.at(after, "of"):
            for j, whole in self.simple(after + 1):
                known = whole.owner is not None or whole.determiner == "the" or whole.head == "them"
                if whole.plural and known:
                    yield j, Phrase("number", "", plural=count > 1, count=count, of=whole)
        more = self.at(after, "more")
        for j, noun in self.nominal(after + more, plural=count > 1):
            if not noun.name:
                noun.count, noun.more, noun.determiner = count, more, determiner
                yield j, noun
        if not more and (determiner != "all" or start == i):
            yield after, Phrase("number", "", plural=count > 1, count=count, determiner=determiner)

    def nominal(self, i: int, *, plural: bool) -> Iterator[tuple[int, Phrase]]:
        """Adjectives, a noun of the wanted number, and what may follow it."""
        adjectives: list[str] = []
        while self.word(i) in lex.ADJECTIVES or self.word(i) == "and":
            if self.word(i) == "and":
                if not adjectives or self.word(i + 1) not in lex.ADJECTIVES:
                    break
                i += 1
                continue
            if self.word(i) in adjectives:
                return
            yield from self.noun(i, plural, adjectives)
            adjectives.append(self.word(i))
            i += 1
        yield from self.noun(i, plural, adjectives)

    def noun(self, i: int, plural: bool, adjectives: list[str]) -> Iterator[tuple[int, Phrase]]:
        word = self.word(i)
        head = lex.PLURALS.get(word) if plural else word if word in lex.NOUNS else None
        if head is None:
            return
        j = i + 1
        if not plural and self.at(j, "named") and self.word(j + 1) in lex.NAMES:
            name = self.word(j + 1)
            phrase = Phrase("noun", head, name=name, introduces=True, adjectives=tuple(adjectives))
            yield from self.relative(j + 2, phrase)
            return
        if not plural and self.word(j) in lex.NAMES and not self.at(j + 1, "'s"):
            name = self.word(j)
            phrase = Phrase("noun", head, name=name, introduces=True, adjectives=tuple(adjectives))
            yield from self.relative(j + 1, phrase)
        plain = Phrase("noun", head, plural=plural, adjectives=tuple(adjectives))
        yield from self.relative(j, plain)

    def relative(self, j: int, phrase: Phrase) -> Iterator[tuple[int, Phrase]]:
        yield j, phrase
        if self.at(j, "who"):
            for k, clauses in self.predicate(j + 1, phrase, "past"):
                yield k, replace(phrase, clauses=tuple(clauses))
        if self.at(j, "that") and self.word(j + 1) in ("he", "she"):
            subject = Phrase("pronoun", self.word(j + 1))
            if self.word(j + 2) in ("loved", "liked"):
                clause = Clause(subject, "love", link="that")
                k = j + 5 if self.at(j + 3, "very", "much") else j + 3
                yield k, replace(phrase, clauses=(clause,))
