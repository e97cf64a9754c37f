"""Short passages with a question whose answer stands in them, or follows by a small sum."""

from __future__ import annotations

import random

from .knowledge import NUMBER_WORDS
from .smalltalk import invented_word
from .world import BOYS, COLORS, GIRLS, HIDING_PLACES, THINGS, Thing, an


def _person(rng: random.Random, taken: str = "") -> tuple[str, str]:
    """A name, and the pronoun that begins a sentence about its bearer."""
    while True:
        female = rng.random() < 0.5
        name = rng.choice(GIRLS if female else BOYS)
        if name != taken:
            return name, "She" if female else "He"


def make_reading(rng: random.Random) -> tuple[str, str, str]:
    """Return (passage and question, answer, key)."""
    name, pronoun = _person(rng)
    other, _ = _person(rng, taken=name)
    if rng.random() < 0.2:
        other = invented_word(rng, 2).capitalize()
    thing, thing2 = rng.sample(THINGS, 2)
    look, look2 = rng.sample(COLORS, 2)
    n, k = rng.randint(2, 10), rng.randint(1, 5)
    kind = rng.choice(
        ("count", "count_two", "colour", "who", "where", "give", "more", "both", "like", "first")
    )
    digits = rng.random() < 0.25

    def say(count: int) -> str:
        return str(count) if digits else NUMBER_WORDS[count]

    def counted(count: int, what: Thing, look: str = "") -> str:
        noun = what.singular if count == 1 else what.plural
        return " ".join(part for part in (say(count), look, noun) if part)

    key = f"{kind}/{name}/{other}/{thing.singular}/{thing2.singular}/{n}/{k}/{look}"
    if kind == "count":
        text = f"{name} has {counted(n, thing, look)}."
        question = f"How many {thing.plural} does {name} have?"
        answer = f"{name} has {counted(n, thing)}."
    elif kind == "count_two":
        text = f"{name} has {counted(n, thing, look)} and {counted(k, thing2, look2)}."
        asked, count = rng.choice(((thing, n), (thing2, k)))
        question = f"How many {asked.plural} does {name} have?"
        answer = f"{name} has {counted(count, asked)}."
    elif kind == "colour":
        text = f"{name} has a {look} {thing.singular} and a {look2} {thing2.singular}."
        asked, right = rng.choice(((thing, look), (thing2, look2)))
        question = f"What {rng.choice(('colour', 'color'))} is the {asked.singular}?"
        answer = f"The {asked.singular} is {right}."
    elif kind == "who":
        text = f"{name} has a {thing.singular}. {other} has a {thing2.singular}."
        asked, owner = rng.choice(((thing, name), (thing2, other)))
        question = f"Who has the {asked.singular}?"
        answer = f"{owner} has the {asked.singular}."
    elif kind == "where":
        spot, spot2 = rng.sample(HIDING_PLACES, 2)
        text = f"The {thing.singular} is {spot}. The {thing2.singular} is {spot2}."
        asked, place = rng.choice(((thing, spot), (thing2, spot2)))
        question = f"Where is the {asked.singular}?"
        answer = f"The {asked.singular} is {place}."
    elif kind == "give":
        k = min(k, n - 1)
        verb = rng.choice((f"gives {say(k)} to {other}", f"loses {say(k)}"))
        text = f"{name} has {counted(n, thing)}. {pronoun} {verb}."
        question = f"How many {thing.plural} does {name} have now?"
        answer = f"{name} has {counted(n - k, thing)} now."
    elif kind == "more":
        verb = rng.choice(("finds", "gets", "buys"))
        text = f"{name} has {counted(n, thing)}. {pronoun} {verb} {say(k)} more."
        question = f"How many {thing.plural} does {name} have now?"
        answer = f"{name} has {counted(n + k, thing)} now."
    elif kind == "both":
        text = f"{name} has {counted(n, thing)}. {other} has {counted(k, thing)}."
        question = f"How many {thing.plural} do they have together?"
        answer = f"They have {counted(n + k, thing)} together."
    elif kind == "like":
        text = f"{name} likes {thing.plural}. {other} likes {thing2.plural}."
        asked_name, liked = rng.choice(((name, thing), (other, thing2)))
        question = f"What does {asked_name} like?"
        answer = f"{asked_name} likes {liked.plural}."
    else:
        text = f"{name} ate a {thing.singular}. Then {other} ate a {thing2.singular}."
        asked_name, eaten = rng.choice(((name, thing), (other, thing2)))
        question = f"What did {asked_name} eat?"
        answer = f"{asked_name} ate a {eaten.singular}."
        if not (thing.food and thing2.food):
            text = text.replace(" ate ", " found ")
            question = f"What did {asked_name} find?"
            answer = f"{asked_name} found a {eaten.singular}."
    return an(f"{text} {question}"), an(answer), f"reading/{key}"
