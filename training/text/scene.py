"""One story's state: who is in it, what is owned, and how each may be referred to right now.

The rule of reference is the heart of the stories' consistency: a pronoun is used only where
exactly one person of that gender is in play, otherwise the name is said again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from . import world
from .characters import Character
from .words import Words
from .world import Thing, an, number_of

_SLOT = re.compile(r"\{([a-z0-9.]+)\}")
_SENTENCE_START = re.compile(r'(^"?|[.!?] "?|[.!?,]" ")([a-z])')


class Scene(Words):
    """Fills the slots of templates for one story.

    Args:
        rng: Source of every choice.
        hero: The main character.
        pal: The second character, if the plot has one.
        thing: What is found, given, lost.
        numbers: n (at the start), k (the change) and m (at the end).
    """

    def __init__(
        self,
        rng: random.Random,
        hero: Character,
        pal: Character | None,
        thing: Thing,
        other: Thing,
        numbers: tuple[int, int, int],
    ) -> None:
        super().__init__(rng)
        self.hero, self.pal = hero, pal
        self.thing, self.other = thing, other
        self.numbers = dict(zip("nkm", numbers, strict=True))
        self.looks = {False: self.look_of(thing), True: self.look_of(other)}
        self.own_container: tuple[str, str] | None = None
        self.skill = self.pick(world.SKILLS)
        others = [beasts for beasts in world.BEASTS if beasts != hero.kind + "s"]
        self.beasts = self.pick(others)
        self.beast_look = self.pick(world.BEAST_ADJECTIVES)
        self.sentences: list[str] = []
        self._used: set[str] = set()
        self.topic = self.slot_things()
        self._dreamed = [thing, other]  # Things that no longer serve as just any thing.

    def look_of(self, thing: Thing) -> str:
        if thing.food:
            return self.pick(world.FOOD_QUALITIES)
        return self.pick(world.COLORS if self.rng.random() < 0.6 else world.TOY_QUALITIES)

    def say(self, templates: Sequence[str]) -> None:
        """Add one sentence (or quoted exchange) from interchangeable templates."""
        template = self.pick(templates)
        while template in self._used or (
            "{container.noun}" in template and self.own_container is None
        ):
            template = self.pick(templates)
        self._used.add(template)
        self.start_sentence(template)
        text = an(_SLOT.sub(lambda match: self.fill(match[1]), template))
        text = _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)
        self.sentences.append(text)

    def text(self) -> str:
        return " ".join(self.sentences)

    # Slots ---------------------------------------------------------------------------------

    def fill(self, slot: str) -> str:
        head, _, form = slot.partition(".")
        if head in ("hero", "pal"):
            character = self.hero if head == "hero" else self.pal
            if character is None:
                raise ValueError(f"the template needs a pal: {{{slot}}}")
            return self.character(character, form)
        if head in ("n", "k", "m"):
            return self.counted(self.numbers[head], form)
        return self.draw(slot)

    def clear(self, character: Character) -> bool:
        """Whether a pronoun can only mean this character."""
        cast = [one for one in (self.hero, self.pal) if one is not None and one.mentioned]
        return character in cast and sum(one.gender == character.gender for one in cast) == 1

    def character(self, who: Character, form: str) -> str:
        if form in ("kind", "call"):
            who.kind_known |= form == "kind"
            return who.kind if form == "kind" else who.name or who.kind.capitalize()
        if form in ("subj", "poss", "again"):  # Used where the same sentence has just named them.
            return {"subj": who.subject, "poss": who.possessive, "again": who.object}[form]
        chance = self.rng.random()
        if form in ("", "obj", "owner") and self.clear(who) and chance < 0.6:
            return {"": who.subject, "obj": who.object, "owner": who.possessive}[form]
        first, who.mentioned = not who.mentioned, True
        if form == "intro":
            return self.introduction(who)
        if who.name is None:
            return f"{self.hero.possessive} {who.kind}"
        other = self.pal if who is self.hero else self.hero
        by_kind = form in ("", "obj") and not first and chance > 0.9
        if by_kind and who.kind_known and (other is None or other.kind != who.kind):
            return f"the {who.kind}"
        return who.name + "'s" if form == "owner" else who.name

    def introduction(self, who: Character) -> str:
        if who.name is None:
            return f"{self.hero.possessive} {who.kind}"
        sized = self.rng.random() < 0.25
        look = self.pick(world.SIZES if sized else world.PERSON_ADJECTIVES)
        if who.relation:
            look = look + " " if self.rng.random() < 0.5 else ""
            return f"{self.hero.possessive} {look}{who.relation} {who.name}"
        who.kind_known = True
        return f"a {look} {who.kind} named {who.name}"

    def counted(self, count: int, form: str) -> str:
        if form == "":
            return world.NUMBERS[count]
        if form == "all":
            number = "both" if count == 2 else f"all {world.NUMBERS[count]}"
            return f"{number} {self.thing.plural}"
        if form == "otherbeasts" and count == 1:
            return world.BEAST_SINGULAR.get(self.beasts, self.beasts[:-1])
        if form == "other" and count == 1:
            return self.thing.singular
        if form in ("beasts", "plainbeasts", "otherbeasts"):
            plural = self.beasts
            noun = world.BEAST_SINGULAR.get(plural, plural[:-1]) if count == 1 else plural
            look = self.beast_look + " " if form == "beasts" else ""
            return f"{world.NUMBERS[count]} {look}{noun}"
        if form == "more":
            noun = self.thing.singular if count == 1 else self.thing.plural
            return f"{world.NUMBERS[count]} more {noun}"
        if form == "was":
            return "was" if count == 1 else "were"
        if form == "them":
            return "it" if count == 1 else "them"
        return number_of(count, self.thing, self.looks[False] if form == "things" else "")

    def slot_things(self) -> str:
        return f"{self.looks[False]} {self.thing.plural}"

    def slot_topic(self) -> str:
        return self.topic

    def slot_plain_things(self) -> str:
        return self.thing.plural

    def slot_plain_beasts(self) -> str:
        return self.beasts

    def slot_away(self) -> str:
        return self.pick(world.BEASTS[self.beasts].split("|"))

    def slot_thing(self) -> str:
        return f"{self.looks[False]} {self.thing.singular}"

    def slot_noun(self) -> str:
        return self.thing.singular

    def slot_thing2(self) -> str:
        return f"{self.looks[True]} {self.other.singular}"

    def slot_noun2(self) -> str:
        return self.other.singular

    def slot_kind_things(self) -> str:
        thing = self.rng.choice(world.THINGS)
        while thing in self._dreamed:
            thing = self.rng.choice(world.THINGS)
        self._dreamed.append(thing)
        return f"{self.look_of(thing)} {thing.plural}" if self.rng.random() < 0.5 else thing.plural

    def slot_food(self) -> str:
        food = self.rng.choice(world.FOODS)
        while food in self._dreamed:
            food = self.rng.choice(world.FOODS)
        self._dreamed.append(food)
        return food.singular

    def slot_they(self) -> str:
        pal = self.pal
        if pal is None:
            raise ValueError("the template needs a pal: {they}")
        if self.rng.random() < 0.5 and self.hero.mentioned and pal.mentioned:
            return "they"
        return f"{self.character(self.hero, 'name')} and {self.character(pal, 'name')}"

    def slot_relative(self) -> str:
        taken = self.pal.kind if self.pal and self.pal.name is None else ""
        relation = self.pal.relation if self.pal else ""
        kin = (*world.FAMILY["f"], *world.FAMILY["m"])
        return self.pick([one for one in kin if one not in (taken, relation)])

    def slot_container(self) -> str:
        self.own_container = (
            self.pick(world.CONTAINER_ADJECTIVES),
            self.pick(world.CONTAINERS),
        )
        return " ".join(self.own_container)

    def slot_own_container(self) -> str:
        if self.own_container is None:
            return self.slot_container()
        return " ".join(self.own_container) if self.rng.random() < 0.5 else self.own_container[1]

    def slot_container_noun(self) -> str:
        if self.own_container is None:
            raise ValueError("no container has been mentioned")
        return self.own_container[1]

    def slot_home(self) -> str:
        houses = world.HOUSES if self.hero.kind in ("girl", "boy") else world.ANIMAL_HOMES
        home = f"in a {self.pick(world.HOME_ADJECTIVES)} {self.pick(houses)}"
        if self.rng.random() < 0.3:
            return f"{home} {self.slot_place()}"
        return f"{home} {self.pick(world.NEAR)} the {self.slot_goal()}"

    def slot_skill(self) -> str:
        return self.skill
