"""Who is in the story, and whom a phrase means."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import lexicon as lex
from .syntax import Phrase, Sentence, StoryError


@dataclass(eq=False)
class Entity:
    """Someone in the story."""

    name: str
    gender: str
    kinds: set[str] = field(default_factory=set)
    main: bool = True  # Named, as opposed to "her mother" in passing.
    things: dict[str, int] = field(default_factory=dict)
    since: int = 0  # The sentence that introduced them.
    last: int = 0  # The sentence that last mentioned them.


class Cast:
    """The characters so far, and the rules by which names and pronouns refer to them."""

    def __init__(self) -> None:
        self.cast: dict[str, Entity] = {}
        self.previous: Entity | None = None  # Subject of the sentence before.
        self.number = 0
        self.sentence = Sentence("", [])
        self.speaker: Entity | None = None
        self.herds: dict[str, int] = {}  # Animals without names, by kind.
        self.counted: tuple[int, str] | None = None  # Last number with its noun.

    def fail(self, why: str) -> StoryError:
        return StoryError(f"{why}: {self.sentence.text!r}")

    def called(self, name: str) -> Entity:
        for entity in self.cast.values():
            if name in (entity.name, entity.name.capitalize()):
                return entity
        raise self.fail(f"nobody is called {name}")

    def entity(self, phrase: Phrase, inside: Entity | None, other: Entity | None) -> Entity | None:
        """Whom a phrase means: `inside` is the subject so far, `other` cannot be meant."""
        if phrase.kind == "name":
            if phrase.head not in self.cast:
                if self.number > 0:
                    raise self.fail(f"{phrase.head} has not been introduced")
                self.introduce(phrase.head, "")
            return self.cast[phrase.head]
        if phrase.kind == "pronoun":
            return self.pronoun(phrase.head, inside, other)
        if phrase.kind != "noun":
            return None
        if phrase.owner is not None:
            self.entity(phrase.owner, inside, None)
        if phrase.introduces:
            known = self.cast.get(phrase.name)
            if known is not None and known.since < self.number:
                raise self.fail(f"{phrase.name} is introduced twice")
            return self.introduce(phrase.name, phrase.head)
        if phrase.head in lex.KIN and phrase.owner is not None and not phrase.plural:
            if phrase.head not in self.cast:
                self.cast[phrase.head] = Entity(phrase.head, lex.KIN[phrase.head], main=False)
            self.cast[phrase.head].last = self.number
            return self.cast[phrase.head]
        if phrase.determiner == "the" and not phrase.plural and phrase.count is None:
            for one in self.cast.values():
                if phrase.head in one.kinds:
                    return one
        return None

    def introduce(self, name: str, kind: str) -> Entity:
        gender = "f" if name in lex.FEMALE_NAMES else "m"
        if {**lex.KIN, **lex.CHILDREN}.get(kind, gender) != gender:
            raise self.fail(f"{name} is no {kind}")
        entity = self.cast.setdefault(name, Entity(name, gender, since=self.number))
        if kind:
            if entity.kinds - {kind} and kind not in ("friend", *lex.KIN):
                raise self.fail(f"{name} is a {' and a '.join(entity.kinds)}, not a {kind}")
            entity.kinds.add(kind)
        return entity

    def pronoun(self, word: str, inside: Entity | None, other: Entity | None) -> Entity | None:
        if word in ("I", "me", "my"):
            return self.speaker
        gender = {"he": "m", "him": "m", "his": "m", "she": "f", "her": "f"}.get(word)
        if gender is None:
            if word in ("they", "them", "each") and not (
                len(self.cast) > 1 or self.herds or self.counted
            ):
                raise self.fail(f"nobody is meant by {word!r}")
            return None
        if inside is not None and inside is not other and inside.gender == gender:
            return inside
        fitting = [one for one in self.cast.values() if one.gender == gender and one is not other]
        main = [one for one in fitting if one.main]
        if len(main) == 1:
            return main[0]
        if not fitting:
            raise self.fail(f"nobody is meant by {word!r}")
        if not main:
            return max(fitting, key=lambda one: one.last)
        if self.previous in main:
            return self.previous
        raise self.fail(f"{word!r} may be {' or '.join(one.name for one in main)}")

    def someone(self, noun: str) -> bool:
        """Whether the noun is what a character is: `the frog`."""
        return any(noun in one.kinds for one in self.cast.values())

    def sharers(self, noun: str) -> list[Entity]:
        """Those who share: the owner, and everyone else in the story."""
        owner = self.owner_of(noun) or next(iter(self.cast.values()))
        others = [one for one in self.cast.values() if one is not owner]
        if not others:
            raise self.fail("nobody is there to share with")
        return [owner, max(others, key=lambda one: (noun in one.things, one.main, one.last))]

    def owner_of(self, noun: str) -> Entity | None:
        owners = [one for one in self.cast.values() if one.things.get(noun)]
        return owners[0] if len(owners) == 1 else None
