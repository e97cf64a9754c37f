"""Seeded dialogues: questions of the small world with their one right answer.

The makers of factual questions are in `questions.py`. Every exchange has a key naming what it asks
(kind, form, items). The key's hash decides whether it is held out, so the evaluation asks only
questions that training never saw, although it saw the same form about other items and the same item
in other forms.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from . import reading
from .questions import (
    Exchange,
    ability,
    bigger,
    body,
    color,
    fixed,
    group,
    nature,
    number,
    opposite,
    sentence,
    sequence,
)
from .smalltalk import DECLINE, DECLINE_STORY, TALK, invented_word, unknown_question
from .stories import Story, make_story
from .world import ANIMALS, BOYS, COLORS, FEMALE_PETS, GIRLS, MALE_PETS, THINGS, an

Message = dict[str, str]


def talk(rng: random.Random) -> Exchange:
    answer, questions = rng.choice(list(TALK.items()))
    return Exchange(rng.choice(questions.split("|")), answer, "talk")


def unknown(rng: random.Random) -> Exchange:
    question, key = unknown_question(rng)
    return Exchange(question, DECLINE, key)


def passage(rng: random.Random) -> Exchange:
    question, answer, key = reading.make_reading(rng)
    return Exchange(question, answer, key)


def story_request(rng: random.Random) -> Exchange:
    seed = f"chat{rng.getrandbits(64)}"
    ask = rng.choice(
        (
            "Tell me a story{x}.|Tell me a short story{x}.|Can you tell me a story{x}?|"
            "Please tell me a story{x}.|Write a story{x}.|I would like a story{x}.|"
            "Write a short story{x}.|Can you write a story{x}?|A story{x}, please.|"
            "Do you know a story{x}?|Make up a story{x}.|Now tell me a story{x}."
        ).split("|")
    )
    choice = rng.random()
    if choice < 0.08:
        topic = rng.choice((f"a {invented_word(rng)}", *_FAR_TOPICS))
        return Exchange(an(ask.replace("{x}", f" about {topic}")), DECLINE_STORY, "decline_story")
    if choice < 0.3:
        story, topic = make_story(seed), ""
    elif choice < 0.55:
        kind = rng.choice((*ANIMALS, "girl", "boy"))
        look = rng.choice(("", "", "little ", "brave "))
        story, topic = make_story(seed, kind=kind), f" about a {look}{kind}"
    elif choice < 0.7:
        name = rng.choice((*GIRLS, *BOYS))
        kind = "girl" if name in GIRLS else "boy"
        said = name if rng.random() < 0.5 else f"a {kind} named {name}"
        story, topic = make_story(seed, name=name), f" about {said}"
    elif choice < 0.8:
        kind = rng.choice(ANIMALS)
        name = rng.choice((*FEMALE_PETS, *MALE_PETS))
        story = make_story(seed, kind=kind, name=name)
        topic = f" about a {kind} named {name}"
    elif choice < 0.9:
        thing = rng.choice(THINGS)
        kind = rng.choice((*ANIMALS, "girl", "boy"))
        story = make_story(seed, kind=kind, thing=thing)
        topic = f" about a {kind} and {rng.choice((thing.plural, 'a ' + thing.singular))}"
    else:
        # A user types the beginning: the story starts with exactly these words.
        story = make_story(seed)
        words = story.text.split(" ")
        opening = " ".join(words[: rng.randint(1, 9)]).rstrip(",")
        return Exchange(opening, story.text, "opening", story)
    return Exchange(an(ask.replace("{x}", topic)), story.text, "story", story)


_FAR_TOPICS = (
    "spaceships|dragons|a robot|the war|politics|aliens|a lawyer|zombies|computers|the president|"
    "a wizard|a pirate|vampires|a superhero|a princess|unicorns"
).split("|")


def follow_up(rng: random.Random, story: Story) -> Exchange:
    """A question about the story that has just been told."""
    pronoun = "Her" if story.hero_gender == "f" else "His"
    kind, name = story.hero_kind, story.hero_name
    questions = (
        ("Who was the story about?", f"It was about a {kind} named {name}."),
        (f"What was the {kind}'s name?", f"{pronoun} name was {name}."),
        (f"What was the name of the {kind}?", f"{pronoun} name was {name}."),
    )
    question, answer = rng.choice(questions)
    return Exchange(question, answer, f"follow_up/{question}/{kind}/{name}")


def remember(rng: random.Random) -> tuple[Exchange, Exchange]:
    """Something the user says about themselves, and the question that asks for it later."""
    name = rng.choice((*GIRLS, *BOYS)) if rng.random() < 0.5 else invented_word(rng, 2).capitalize()
    choice = rng.random()
    if choice < 0.5:
        said = rng.choice(("My name is {x}.", "I am {x}.", "I am called {x}.", "Hello, I am {x}."))
        asked = rng.choice(
            ("What is my name?", "Do you know my name?", "Who am I?", "What am I called?")
        )
        return (
            Exchange(
                said.replace("{x}", name), f"Hello, {name}! Nice to meet you.", f"tell/{name}"
            ),
            Exchange(asked, f"Your name is {name}.", f"remember/{asked}/{name}"),
        )
    if choice < 0.75:
        color_name = rng.choice(COLORS)
        word = rng.choice(("colour", "color"))
        return (
            Exchange(
                f"My favourite {word} is {color_name}.",
                f"{sentence(color_name)} is a lovely colour.",
                f"tell/{color_name}",
            ),
            Exchange(
                f"What is my favourite {word}?",
                f"Your favourite colour is {color_name}.",
                f"remember/{word}/{color_name}",
            ),
        )
    pet = rng.choice(ANIMALS)
    pet_name = rng.choice((*FEMALE_PETS, *MALE_PETS, name))
    return (
        Exchange(
            an(f"I have a {pet} named {pet_name}."),
            an(f"{pet_name} is a lovely name for a {pet}."),
            f"tell/{pet}/{pet_name}",
        ),
        Exchange(
            f"What is my {pet} called?",
            f"Your {pet} is called {pet_name}.",
            f"remember/{pet}/{pet_name}",
        ),
    )


# Each maker with its weight among single exchanges.
MAKERS: dict[Callable[[random.Random], Exchange], int] = {
    color: 8,
    body: 7,
    nature: 10,
    opposite: 4,
    group: 7,
    ability: 3,
    bigger: 5,
    sequence: 5,
    number: 14,
    fixed: 3,
    talk: 8,
    unknown: 16,
    passage: 30,
    story_request: 25,
}


def single(rng: random.Random, held_out: bool) -> Exchange:
    """Draw one exchange of the wanted split."""
    makers, weights = list(MAKERS), list(MAKERS.values())
    while True:
        exchange = rng.choices(makers, weights)[0](rng)
        if exchange.held_out == held_out:
            return exchange


def _typed(rng: random.Random, text: str) -> str:
    """The way people type: sometimes without capitals or the final mark."""
    if rng.random() < 0.1:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.12 and text[-1] in ".?!":
        text = text[:-1]
    return text


def make_dialogue(seed: str) -> list[Message]:
    """A training dialogue of one to five exchanges; nothing in it is held out."""
    rng = random.Random(seed)
    exchanges: list[Exchange] = []
    recall: Exchange | None = None
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4, 5))):
        previous = exchanges[-1].story if exchanges else None
        if previous is not None and rng.random() < 0.5:
            extra = follow_up(rng, previous)
        elif recall is None and rng.random() < 0.2:
            extra, recall = remember(rng)
            while extra.held_out or recall.held_out:
                extra, recall = remember(rng)
        else:
            extra = single(rng, held_out=False)
            while recall is not None and "name yet" in extra.answer:
                extra = single(rng, held_out=False)
        if not extra.held_out:
            exchanges.append(extra)
    if recall is not None:
        exchanges.append(recall)
    messages: list[Message] = []
    if rng.random() < 0.1:
        messages.append({"role": "system", "content": rng.choice(_SYSTEM)})
    for exchange in exchanges:
        messages.append({"role": "user", "content": _typed(rng, exchange.question)})
        messages.append({"role": "assistant", "content": exchange.answer})
    return messages if exchanges else make_dialogue(seed + "+")


_SYSTEM = (
    "You are a helpful assistant.|You are a friendly storyteller.|Answer in short sentences.|"
    "You are demo, a small language model.|Be kind and brief.|You help children."
).split("|")
