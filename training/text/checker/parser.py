"""A backtracking parser for the English of the stories.

Every rule is a generator that yields each way in which it can match from a position, as
(next position, what was read). A sentence is grammatical if some way reaches its end. Agreement
(a/an, one shell / two shells, was / were) is checked while parsing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import lexicon as lex
from .phrases import PhraseParser
from .syntax import Clause, Phrase
from .times import time_end

_FIXED_ADVERBIALS = tuple(
    text.split() for text in "very much|more than anything|all alone|hide and seek".split("|")
)
_PLACE_PREPOSITIONS = ("behind", "under", "in", "on", "inside", "between", "beside", "next")


class Parser(PhraseParser):
    """Parses one sentence's tokens (without its final mark)."""

    # Predicates --------------------------------------------------------------------------------

    def predicate(self, i: int, subject: Phrase, form: str) -> Iterator[tuple[int, list[Clause]]]:
        """A verb with its complements and adjuncts, or several joined by `and`."""
        for j, clause in self.single(i, subject, form):
            yield j, clause
            for words in (("and",), (",", "and")):
                if self.at(j, *words):
                    k = j + len(words)
                    k += self.at(k, "then")
                    for m, rest in self.predicate(k, subject, form):
                        if rest[0].verb != "be" or form != "base":
                            yield m, clause + rest

    def single(self, i: int, subject: Phrase, form: str) -> Iterator[tuple[int, list[Clause]]]:
        while self.word(i) in lex.MANNER or self.word(i) in ("still", "always", "each", "only"):
            i += 1
        word = self.word(i)
        plural = subject.plural
        if form == "past":
            if word in ("was", "were") and (word == "were") == plural:
                yield from self.be(i + 1, subject)
            if word in ("could", "did"):
                negated = self.at(i + 1, "not")
                if word == "could" or negated:
                    for j, rest in self.single(i + 1 + negated, subject, "base"):
                        rest[0].negated, rest[0].modal = negated, True
                        yield j, rest
            if word == "picked" and self.at(i + 1, "up"):
                yield from self.complements(i + 2, subject, "pick")
            if word in lex.PAST and word != "was":
                yield from self.complements(i + 1, subject, lex.PAST[word])
        elif form == "base":
            if word == "be":
                yield from self.be(i + 1, subject)
            elif word in lex.FRAMES:
                yield from self.complements(i + 1, subject, word)
        elif form == "present":
            am = {"I": "am", "you": "are", "we": "are"}.get(subject.head, "are" if plural else "is")
            if word == am:
                yield from self.be(i + 1, subject)
            if word in ("can", "will", "may"):
                negated = self.at(i + 1, "not")
                for j, rest in self.single(i + 1 + negated, subject, "base"):
                    rest[0].modal = True
                    yield j, rest
            if word in lex.FRAMES and word != "be" and subject.head in ("I", "you", "we"):
                yield from self.complements(i + 1, subject, word)

    def be(self, i: int, subject: Phrase) -> Iterator[tuple[int, list[Clause]]]:
        while self.word(i) in ("always", "only", "not", "still"):
            i += 1
        clause = Clause(subject, "be")
        yield from self.adjuncts(i, clause)
        for j in self.adjective(i):
            yield from self.adjuncts(j, clause)
        if self.at(i, "time"):
            yield from self.adjuncts(i + 1, clause)
        if self.word(i) in lex.PARTICIPLES:
            yield from self.adjuncts(i + 1, Clause(subject, lex.PARTICIPLES[self.word(i)]))
        for j, noun in self.simple(i):
            if noun.kind == "noun" and noun.determiner in ("a", "the"):
                whole = Clause(subject, "be", objects=[noun])
                for k, rest in self.adjuncts(j, whole):
                    yield k, rest + list(noun.clauses)

    def adjective(self, i: int) -> Iterator[int]:
        while self.word(i) in ("very", "so", "too", "all"):
            i += 1
        if self.word(i) in lex.ADJECTIVES:
            yield i + 1
            if self.at(i + 1, "and") and self.word(i + 2) in lex.ADJECTIVES:
                yield i + 3

    def complements(self, i: int, subject: Phrase, verb: str) -> Iterator[tuple[int, list[Clause]]]:
        for frame in sorted(lex.FRAMES[verb], key=len, reverse=True):
            for j, objects, more in self.frame(i, frame, subject):
                clause = Clause(subject, verb, objects=objects)
                for k, rest in self.adjuncts(j, clause):
                    yield k, rest + more

    def frame(
        self, i: int, frame: str, subject: Phrase
    ) -> Iterator[tuple[int, list[Phrase], list[Clause]]]:
        if frame == "":
            yield i, [], []
        elif frame == "A":
            for j in self.adjective(i):
                yield j, [], []
        elif frame == "T" and self.at(i, "to"):
            for j, clauses in self.predicate(i + 1, subject, "base"):
                for clause in clauses:
                    clause.modal = True
                yield j, [], clauses
                if self.at(j, "and", "to"):
                    for k, _, rest in self.frame(j + 1, "T", subject):
                        yield k, [], clauses + rest
        elif frame == "S" and self.at(i, "that"):
            for j, clauses in self.clause(i + 1):
                yield j, [], clauses
        elif frame in ("N", "NN", "NH"):
            for j, first in self.phrase(i):
                if first.head in ("he", "she", "they", "I", "we", "each"):
                    continue
                if frame == "N":
                    yield j, [first], list(first.clauses)
                elif frame == "NH" and self.at(j, "how", "to"):
                    for k, clauses in self.predicate(j + 2, subject, "base"):
                        for clause in clauses:
                            clause.modal = True
                        yield k, [first], clauses
                elif frame == "NN":
                    for k, second in self.phrase(j):
                        if second.kind in ("noun", "number"):
                            yield k, [first, second], []

    def adjuncts(self, i: int, clause: Clause) -> Iterator[tuple[int, list[Clause]]]:
        """Any number of adverbs, times and prepositional phrases after a verb."""
        yield i, [clause]
        for j, found in self.adjunct(i, clause.verb):
            yield from self.adjuncts(j, replace(clause, adjuncts=[*clause.adjuncts, *found]))

    def adjunct(self, i: int, verb: str) -> Iterator[tuple[int, list[tuple[str, Phrase]]]]:
        word = self.word(i)
        if word in lex.ADVERBS:
            yield i + 1, []
        if word == "left" and verb in ("have", "be"):
            yield i + 1, [("left", Phrase("pronoun", "left"))]
        for fixed in _FIXED_ADVERBIALS:
            if self.at(i, *fixed):
                yield i + len(fixed), []
        j = time_end(self.tokens, i)
        if j is not None and word not in ("now", "soon"):
            yield j, []
        for words in lex.PREPOSITIONS:
            if self.at(i, *words) and words != ("how", "to"):
                for k, noun in self.phrase(i + len(words)):
                    if noun.head not in ("he", "she", "they", "I", "we", "each"):
                        yield k, [(" ".join(words), noun)]
        if self.at(i, "and") and self.word(i + 1) in _PLACE_PREPOSITIONS:
            yield from self.adjunct(i + 1, verb)
        if word == "to" and verb in ("go", "walk", "run", "hurry", "come"):
            for k, _ in self.predicate(i + 1, Phrase("pronoun", "they"), "base"):
                yield k, []
        if verb == "play" and word in ("chess", "tag", "cards", "ball", "catch"):
            yield i + 1, []

    # Clauses and sentences ---------------------------------------------------------------------

    def clause(self, i: int) -> Iterator[tuple[int, list[Clause]]]:
        """Subject and predicate, or one of the inverted forms."""
        if self.word(i) == "so" or (self.word(i) == "then" and self.word(i + 1) != ","):
            yield from self.clause(i + 1)
        if self.word(i) == "there" and self.word(i + 1) in ("was", "were"):
            j = i + 2 + (self.word(i + 2) in ("once", "only"))
            for k, noun in self.phrase(j):
                if noun.plural == (self.word(i + 1) == "were"):
                    there = Clause(None, "be", objects=[noun])
                    for m, rest in self.adjuncts(k, there):
                        yield m, rest + list(noun.clauses)
        for j, place in self.fronted_place(i):
            k = j + self.at(j, ",")
            k += self.at(k, "there")
            if self.at(k, "lived"):
                for m, noun in self.phrase(k + 1):
                    yield m, [Clause(noun, "live", adjuncts=place), *noun.clauses]
        form = "present" if self.quoted else "past"
        for j, subject in self.phrase(i):
            if subject.head in ("him", "them", "me", "us") or (
                subject.kind == "pronoun" and subject.head == "her"
            ):
                continue
            for k, clauses in self.predicate(j, subject, form):
                yield k, [*subject.clauses, *clauses]

    def fronted_place(self, i: int) -> Iterator[tuple[int, list[tuple[str, Phrase]]]]:
        if self.word(i) == "in":
            for j, first in self.adjunct(i, "live"):
                yield j, first
                for k, second in self.adjunct(j, "live"):
                    yield k, first + second

    def sentence(self) -> list[Clause] | None:
        """All clauses of the whole token list, or None if it is not a sentence."""
        for i, before in self.openings(0):
            for j, clauses in self.linked(i):
                if j == len(self.tokens):
                    return before + clauses
        return None

    def openings(self, i: int) -> Iterator[tuple[int, list[Clause]]]:
        yield i, []
        j = time_end(self.tokens, i)
        if j is not None:
            if self.tokens[j - 1] == "way":
                for k, _ in self.adjunct(j, "go"):
                    if self.at(k, ","):
                        yield k + 1, []
            else:
                yield j + self.at(j, ","), []
        if self.at(i, "when"):
            for k, clauses in self.clause(i + 1):
                if self.at(k, ","):
                    yield k + 1, clauses

    def linked(self, i: int) -> Iterator[tuple[int, list[Clause]]]:
        """Clauses joined by conjunctions."""
        for j, clauses in self.clause(i):
            yield j, clauses
            for words in (
                (",", "and"),
                (",", "but"),
                (",", "so"),
                (",", "and", "then"),
                ("and",),
                ("but",),
                ("because",),
                ("when",),
                ("until",),
                ("that",),
            ):
                if self.at(j, *words):
                    k = j + len(words)
                    extra = time_end(self.tokens, k)
                    starts = [k] if extra is None else [k, extra]
                    for start in starts:
                        for m, rest in self.linked(start):
                            rest[0].link = words[-1] if words[-1] != "then" else "and"
                            yield m, clauses + rest
