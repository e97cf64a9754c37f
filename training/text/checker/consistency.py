"""Does the story stay true to itself? People, pronouns, belongings, colors and counts."""

from __future__ import annotations

from . import lexicon as lex
from .cast import Cast, Entity
from .syntax import Clause, Phrase, Sentence, StoryError

_GETTING = frozenset(("find", "collect", "gather", "buy", "pick", "get"))
_KNOWN_THINGS = lex.THINGS | lex.CONTAINERS
_NEEDS_MENTION = lex.THINGS | lex.HERDS | lex.CREATURES | frozenset(lex.CHILDREN)


class Tracker(Cast):
    """Follows a story sentence by sentence and raises at the first contradiction."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: dict[str, set[str]] = {}  # Noun -> the adjectives it has been given.

    def follow(self, sentence: Sentence) -> None:
        """Take in the next sentence, or raise `StoryError`."""
        self.sentence = sentence
        inside = None
        if sentence.speaker is not None:
            inside = self.speaker = self.entity(sentence.speaker, None, None)
        called = [self.called(name) for name in sentence.addressees]
        for someone in called:
            if someone is self.speaker:
                raise self.fail(f"{someone.name} speaks to themselves")
        for clause in sentence.clauses:
            subject = self.clause(clause, None if clause.quoted else inside)
            if not clause.quoted and subject is not None:
                inside = subject
        self.previous = inside
        self.number += 1

    def clause(self, clause: Clause, inside: Entity | None) -> Entity | None:
        """Take in one clause; `inside` is the subject of the sentence so far. Returns its subject."""
        subject = None
        if clause.subject is not None:
            self.mention(clause.subject, inside)
            subject = self.entity(clause.subject, inside, None)
            for member in clause.subject.members:
                self.entity(member, inside, None)
        holder = subject or inside
        entities: list[Entity | None] = []
        for phrase in clause.objects:
            self.mention(phrase, holder)
            within = holder if phrase.kind != "pronoun" else None
            entities.append(self.entity(phrase, within, subject))
        to: Entity | None = None
        for preposition, phrase in clause.adjuncts:
            self.mention(phrase, holder)
            found = self.entity(phrase, holder if phrase.kind != "pronoun" else None, subject)
            to = found if preposition in ("to", "with") and found is not None else to
            for member in phrase.members:
                self.mention(member, holder)
        if clause.verb == "be" and subject is not None:
            subject.kinds |= {one.head for one in clause.objects if one.kind == "noun"}
        if clause.modal:
            for phrase in clause.objects:
                self.counted = self.quantity(phrase) or self.counted
        else:
            self.count(clause, subject, entities, to)
        return subject

    def mention(self, phrase: Phrase, inside: Entity | None) -> None:
        """Things must be known before they are `the` things, and keep their looks."""
        for part in (*phrase.members, *([phrase.of] if phrase.of else [])):
            self.mention(part, inside)
        if phrase.kind != "noun" or phrase.introduces:
            return
        if phrase.owner is not None:
            self.entity(phrase.owner, inside, None)
        noun = phrase.head
        known = noun in self.looks or noun in self.herds
        known |= self.someone(noun)
        definite = phrase.determiner in ("the", "the other", "all")
        if definite and noun in _NEEDS_MENTION and not known:
            raise self.fail(f"no {noun} has been mentioned")
        if noun in lex.CONTAINERS and definite and noun not in self.looks:
            raise self.fail(f"no {noun} has been mentioned")
        in_general = phrase.plural and not (definite or phrase.owner or phrase.count)
        if noun in _KNOWN_THINGS | lex.HERDS and not in_general and not self.someone(noun):
            anew = noun in lex.CONTAINERS and phrase.determiner == "a"
            looks = self.looks.setdefault(noun, set()) if not anew else set()
            new = set(phrase.adjectives) - {"other"}
            if looks and new and not new <= looks:
                raise self.fail(f"the {noun} was {' '.join(looks)}, not {' '.join(new)}")
            self.looks[noun] = looks | new

    def quantity(self, phrase: Phrase) -> tuple[int, str] | None:
        """A phrase as (count, noun); a bare number or `them` means the noun counted last."""
        if phrase.kind == "number" and phrase.count is not None:
            of = phrase.of
            if of is not None and of.head not in ("them", ""):
                return phrase.count, of.head
            return (phrase.count, self.counted[1]) if self.counted else None
        if phrase.kind == "pronoun" and phrase.head in ("them", "it") and self.counted:
            if (phrase.head == "it") != (self.counted[0] == 1):
                raise self.fail(f"{phrase.head!r} for {self.counted[0]}")
            return self.counted
        if phrase.kind == "noun" and phrase.head in lex.THINGS | lex.HERDS:
            if phrase.count is not None:
                return phrase.count, phrase.head
            if phrase.determiner == "no":
                return 0, phrase.head
            if not phrase.plural and phrase.head in lex.THINGS:
                return 1, phrase.head
        return None

    def count(
        self,
        clause: Clause,
        subject: Entity | None,
        objects: list[Entity | None],
        to: Entity | None,
    ) -> None:
        """Do the sums that a clause tells of, and compare what it claims."""
        verb = clause.verb
        if clause.subject is not None and verb != "be":
            self.herd(clause, self.quantity(clause.subject))
        phrases = [*clause.objects, *(p for w, p in clause.adjuncts if w == "with")]
        amounts = [(phrase, self.quantity(phrase)) for phrase in phrases]
        for phrase, amount in amounts:
            if amount is None:
                continue
            number, noun = amount
            if noun in lex.HERDS and (noun in self.herds or noun not in lex.THINGS):
                self.herd_seen(number, noun)
            elif verb in ("have", "keep", "share") and subject is None and self.each(clause):
                for one in self.sharers(noun):
                    self.claim(one, noun, number)
            elif verb == "take" and subject is None and self.each(clause):
                self.split(noun, number)
            elif verb == "give":
                receiver = next((one for one in objects if one is not None), to)
                self.give(subject, receiver, noun, number)
            elif subject is not None and verb in _GETTING:
                base = subject.things.get(noun, 0)
                if phrase.more or noun not in subject.things:
                    subject.things[noun] = base + number
            elif subject is not None and verb in ("lose", "eat") and noun in subject.things:
                self.take(subject, noun, number)
            elif subject is not None and verb in ("have", "keep") and not clause.negated:
                if noun not in subject.things and any(
                    word == "left" for word, _ in clause.adjuncts
                ):
                    raise self.fail(f"{subject.name} had no {noun} before")
                self.claim(subject, noun, number)
            elif verb in ("put", "leave", "be", "stay") and phrase.count is not None:
                owner = subject or to or self.owner_of(noun)
                if owner is not None and noun in owner.things:
                    self.claim(owner, noun, number)
            self.counted = (number, noun)
        if verb == "swap" or (verb == "give" and any(word == "for" for word, _ in clause.adjuncts)):
            self.swapped(clause, subject)
        if verb == "share" or (verb == "have" and self.each(clause)):
            self.shared(clause)

    def each(self, clause: Clause) -> bool:
        head = clause.subject
        return head is not None and (head.head in ("each", "they") or head.kind == "group")

    def claim(self, owner: Entity, noun: str, number: int) -> None:
        known = owner.things.setdefault(noun, number)
        if known != number:
            raise self.fail(f"{owner.name} has {known} {noun}, not {number}")

    def swapped(self, clause: Clause, owner: Entity | None) -> None:
        """One thing for another: the first changes hands by the verb `give`, the second here."""
        back = next((phrase for word, phrase in clause.adjuncts if word == "for"), None)
        if owner is None or back is None:
            return
        other = self.owner_of(back.head)
        if other is None or other is owner:
            raise self.fail(f"nobody else has a {back.head}")
        self.give(other, owner, back.head, 1)
        if clause.verb == "swap" and clause.objects:
            self.give(owner, other, clause.objects[0].head, 1)

    def take(self, owner: Entity, noun: str, number: int) -> None:
        owner.things[noun] -= number
        if owner.things[noun] < 0:
            raise self.fail(f"{owner.name} has not so many: {noun}")

    def give(self, giver: Entity | None, receiver: Entity | None, noun: str, number: int) -> None:
        if receiver is None or giver is None:
            return
        if giver is receiver:
            raise self.fail(f"{giver.name} gives to themselves")
        if noun in giver.things:
            self.take(giver, noun, number)
        receiver.things[noun] = receiver.things.get(noun, 0) + number

    def split(self, noun: str, number: int) -> None:
        """`They each took three`: what one had is now shared between two."""
        owner = self.owner_of(noun)
        if owner is not None and owner.things[noun] != 2 * number:
            raise self.fail(f"two times {number} is not {owner.things[noun]}")
        for one in self.sharers(noun):
            one.things[noun] = number

    def shared(self, clause: Clause) -> None:
        """`They shared the shells` hands half of them over."""
        if clause.verb != "share" or not clause.objects:
            return
        noun = clause.objects[0].head
        owner = self.owner_of(noun)
        if owner is None:
            return
        half, odd = divmod(owner.things[noun], 2)
        if odd:
            raise self.fail(f"{owner.things[noun]} {noun} cannot be shared evenly")
        for one in self.sharers(noun):
            one.things[noun] = half
        self.counted = (half, noun)

    def herd(self, clause: Clause, amount: tuple[int, str] | None) -> None:
        """Animals that come, stay or go away."""
        if amount is None or clause.subject is None or amount[1] not in lex.HERDS:
            return
        number, noun = amount
        if clause.subject.of is not None:
            left = self.herds.get(noun, number) - number
            if left < 0:
                raise self.fail(f"so many {noun} were not there")
            self.herds[noun] = left
        else:
            self.herd_seen(number, noun)
        self.counted = (number, noun)

    def herd_seen(self, number: int, noun: str) -> None:
        known = self.herds.setdefault(noun, number)
        if known != number:
            raise self.fail(f"there are {known} {noun}, not {number}")
        self.counted = (number, noun)


def check_consistency(sentences: list[Sentence]) -> None:
    """Follow a parsed story.

    Raises:
        StoryError: at the first contradiction.
    """
    tracker = Tracker()
    seen: set[str] = set()
    for sentence in sentences:
        if sentence.text in seen:
            raise StoryError(f"said twice: {sentence.text!r}")
        seen.add(sentence.text)
        tracker.follow(sentence)
