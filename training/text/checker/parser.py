"""A backtracking parser for the English of the stories.

Every rule is a generator that yields each way in which it can match from a position, as
(next position, what was read). A sentence is grammatical if some way reaches its end. Agreement
(a/an, one shell / two shells, was / were) is checked while parsing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from . import lexicon as lex
from .syntax import Clause, Phrase

_TIME = re.compile(
    r"(once upon a time|long ago|just then|before long|not long after|later that day|after that|"
    r"from that day on|on the way|at (?:first|last|noon)|some time later|all day|"
    r"(?:a (?:moment|little)|an hour) later|after a (?:long walk|short rest|while)|"
    r"after (?:lunch|breakfast)|the day after|that (?:night|afternoon|same day)|"
    r"the next (?:morning|day|evening|afternoon)|(?:two|three) days later|"
    r"(?:after|for) (?:two|three|four|five|six|seven|eight|nine|ten) (?:days|hours|weeks)|"
    r"(?:two|three|four|five|six|seven|eight|nine|ten) times|"
    r"(?:early )?one (?:\w+ )?(?:morning|day|afternoon|evening)|"
    r"on an? \w+ (?:(?:spring|summer|autumn|winter) )?(?:morning|day|afternoon|evening)|"
    r"on (?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day(?: (?:morning|afternoon|evening))?|"
    r"last (?:spring|summer|autumn|winter)|every (?:morning|day|afternoon|evening)|"
    r"in the (?:spring|summer|autumn|winter|morning|afternoon|evening)|"
    r"soon|then|now|this time)(?= |$)"
)
_FIXED_ADVERBIALS = tuple(
    text.split() for text in "very much|more than anything|all alone|hide and seek".split("|")
)
_PLACE_PREPOSITIONS = ("behind", "under", "in", "on", "inside", "between", "beside", "next")
_WEATHER_WORDS = lex.ADJECTIVES


class Parser:
    """Parses one sentence's tokens (without its final mark)."""

    def __init__(self, tokens: list[str], quoted: bool = False) -> None:
        self.tokens = tokens
        self.quoted = quoted

    def at(self, i: int, *words: str) -> bool:
        return tuple(self.tokens[i : i + len(words)]) == words

    def word(self, i: int) -> str:
        return self.tokens[i] if i < len(self.tokens) else ""

    # Noun phrases ------------------------------------------------------------------------------

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
        j = self.time(i)
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

    def time(self, i: int) -> int | None:
        """The position after a time expression at i, if there is one."""
        match = _TIME.match(" ".join(self.tokens[i : i + 7]))
        if match is None:
            return None
        words = match[1].split()
        if words[:2] in (["on", "a"], ["on", "an"]):
            expected = "an" if words[2].startswith(lex.VOWELS) else "a"
            if words[1] != expected:
                return None
        described = words[-2] if words[-1] in lex.DAY_PARTS and len(words) > 2 else "warm"
        if words[0] in ("one", "early") and described not in _WEATHER_WORDS | lex.SEASONS | {"one"}:
            return None
        return i + len(words)

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
        j = self.time(i)
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
                    extra = self.time(k)
                    starts = [k] if extra is None else [k, extra]
                    for start in starts:
                        for m, rest in self.linked(start):
                            rest[0].link = words[-1] if words[-1] != "then" else "and"
                            yield m, clauses + rest
