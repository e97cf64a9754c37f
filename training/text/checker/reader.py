"""Text to parsed sentences: spelling of sentences and quotations, and what is said in them."""

from __future__ import annotations

import re

from . import lexicon as lex
from .parser import Parser
from .syntax import Clause, Phrase, Sentence, StoryError

_TOKEN = re.compile(r"'s|[A-Za-z]+|[.,!?\"]")
_SPACING = re.compile(
    r'\s(?:\s|[.,!?]|$)|^\s|[.!?,][A-Za-z]|[^A-Za-z\s.,!?"\']|[A-Za-z]\s?"[A-Za-z]'
)
_UNIT = re.compile(r'"[^"]*"[^".!?]*(?:[.!?](?= |$)|(?<=[.!?]")(?= |$))|[^".!?]+[.!?](?= |$)')


def read_story(text: str) -> list[Sentence]:
    """Parse every sentence.

    Raises:
        StoryError: naming the first sentence that is not right, and why.
    """
    fault = _SPACING.search(text)
    if fault or text.count('"') % 2 or not text:
        raise StoryError(
            f"spacing or marks: {text[fault.start() :][:30] if fault else text[-30:]!r}"
        )
    units, position = [], 0
    for match in _UNIT.finditer(text):
        if text[position : match.start()].strip():
            break
        units.append(match[0].strip())
        position = match.end()
    if text[position:].strip():
        raise StoryError(f"not a whole sentence: {text[position:].strip()!r}")
    sentences: list[Sentence] = []
    for unit in units:
        sentences += _quotation(unit) if unit.startswith('"') else [_plain(unit)]
    return sentences


def _tokens(text: str) -> list[str]:
    """Words and marks; the first word loses its capital, any other stray capital is an error."""
    tokens = _TOKEN.findall(text)
    for index, token in enumerate(tokens):
        proper = token in lex.NAMES or token in lex.WEEKDAYS or token == "I"
        if index == 0 and token[0].isalpha():
            if not token[0].isupper():
                raise StoryError(f"no capital: {text!r}")
            if not proper:
                tokens[0] = token.lower()
        elif token[0].isupper() and not proper and token.lower() not in lex.KIN:
            raise StoryError(f"unknown name {token!r} in {text!r}")
    return tokens


def _plain(unit: str) -> Sentence:
    if unit[-1] == "?":
        raise StoryError(f"a question outside quotation marks: {unit!r}")
    clauses = Parser(_tokens(unit[:-1])).sentence()
    if clauses is None:
        raise StoryError(f"not grammatical: {unit!r}")
    return Sentence(unit, clauses)


def _quotation(unit: str) -> list[Sentence]:
    """A quotation with the clause that names its speaker.

    Without such a clause it goes on with the speaker of the sentence before, and what follows it is
    a sentence of its own.
    """
    said, after = unit[1:].split('"', 1)
    clauses, called = _speech(said, unit)
    if not after:
        if said[-1] not in ".!?":
            raise StoryError(f"an open quotation: {unit!r}")
        return [Sentence(unit, clauses, addressees=called)]
    tokens = _TOKEN.findall(after[:-1])
    if tokens[0] in ("He", "She", "They", "His", "Her", "The"):
        tokens[0] = tokens[0].lower()
    if tokens[:1] and tokens[0] in ("said", "asked", "cried"):
        # "Yes," said Mia softly: put the subject first and parse it as any other clause.
        size = 2 if tokens[1:2] and tokens[1] in ("his", "her", "the") else 1
        tokens = [*tokens[1 : 1 + size], tokens[0], *tokens[1 + size :]]
    parsed = Parser(tokens).sentence()
    verb = parsed[0].verb if parsed else ""
    expected = ("ask",) if said[-1] == "?" else () if said[-1] == "." else ("say", "cry")
    if parsed is None or verb not in expected:
        if said[-1] == ",":
            raise StoryError(f"not grammatical: {unit!r}")
        return [Sentence(f'"{said}"', clauses, addressees=called), _plain(after.strip())]
    return [Sentence(unit, clauses + parsed, speaker=parsed[0].subject, addressees=called)]


def _speech(said: str, unit: str) -> tuple[list[Clause], tuple[str, ...]]:
    """The sentences inside quotation marks, and who is called by name."""
    clauses: list[Clause] = []
    called: list[str] = []
    for piece in re.findall(r"[^.!?]+[.!?]?", said):
        tokens = _tokens(piece.strip().rstrip(".,!?"))
        if len(tokens) > 2 and tokens[-2] == ",":
            if tokens[-1] not in lex.NAMES and tokens[-1].lower() not in lex.KIN:
                raise StoryError(f"nobody is called {tokens[-1]!r}: {unit!r}")
            called.append(tokens[-1])
            tokens = tokens[:-2]
        question = piece.strip().endswith("?")
        found = _utterance(tokens, question)
        if found is None:
            raise StoryError(f"not grammatical: {unit!r}")
        clauses += found
    for clause in clauses:
        clause.quoted = True
    return clauses, tuple(called)


def _utterance(tokens: list[str], question: bool) -> list[Clause] | None:
    text = " ".join(tokens)
    if not question:
        if text in ("thank you", "thank you very much", "here you are", "look at me", "look"):
            return []
        if text in ("help me", "please help me"):
            return []
        if tokens[:3] == ["do", "not", "be"]:
            return [] if tokens[3] in lex.ADJECTIVES and len(tokens) == 4 else None
        if tokens[0] == "what":
            for end, noun in Parser(tokens, quoted=True).phrase(1):
                if end == len(tokens) and noun.plural and noun.adjectives:
                    return []
            return None
        start = 1 if tokens[0] == "now" else 0
        parser = Parser(tokens[start:], quoted=True)
        return parser.sentence()
    if tokens[:2] == ["where", "is"]:
        for end, noun in Parser(tokens, quoted=True).phrase(2):
            if end == len(tokens):
                return [Clause(None, "where", objects=[noun])]
        return None
    if (
        tokens[0] in ("can", "may", "do", "will")
        and len(tokens) > 2
        and tokens[1] in ("I", "you", "we")
    ):
        subject = Phrase("pronoun", tokens[1], plural=tokens[1] != "I")
        for end, found in Parser(tokens, quoted=True).predicate(2, subject, "base"):
            if end == len(tokens):
                for clause in found:
                    clause.modal = True
                return found
    return None
