"""Questions about a scene, each with its one right answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from .scene import COLOURS, PLACES, SHAPES, Scene, Thing

NUMBERS = ("no", "one", "two", "three", "four")


@dataclass(frozen=True)
class Exchange:
    kind: str
    question: str
    answer: str


def describe(scene: Scene, rng: random.Random) -> Exchange:
    """Everything in reading order."""
    asked = rng.choice(
        (
            "What is in the picture?",
            "What is in this picture?",
            "What do you see?",
            "What do you see in this image?",
            "Describe the picture.",
            "Describe this image.",
            "Describe this image in detail.",
        )
    )
    if not scene:
        return Exchange("describe", asked, "There is nothing in the picture.")
    parts = [f"a {thing.full_name} {thing.where}" for thing in scene]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return Exchange("describe", asked, f"{text[0].upper()}{text[1:]}.")


def count_all(scene: Scene, rng: random.Random) -> Exchange:
    asked = rng.choice(
        ("How many shapes are there?", "How many things are there?", "How many shapes do you see?")
    )
    return Exchange("count all", asked, _there_are(len(scene), "shape"))


def count_shape(scene: Scene, rng: random.Random) -> Exchange:
    shape = rng.choice([*SHAPES, *(thing.shape for thing in scene)])
    number = sum(thing.shape == shape for thing in scene)
    asked = f"How many {shape}s {rng.choice(('are there', 'do you see'))}?"
    return Exchange("count shapes", asked, _there_are(number, shape))


def count_colour(scene: Scene, rng: random.Random) -> Exchange:
    colour = rng.choice([*COLOURS, *(thing.colour for thing in scene for _ in range(2))])
    number = sum(thing.colour == colour for thing in scene)
    return Exchange(
        "count colours",
        f"How many {colour} shapes are there?",
        _there_are(number, f"{colour} shape"),
    )


def colour_of(scene: Scene, rng: random.Random) -> Exchange | None:
    thing = _only(scene, rng, lambda thing: thing.shape)
    if thing is None:
        return None
    return Exchange(
        "colour",
        f"What {rng.choice(('colour', 'color'))} is the {thing.shape}?",
        f"The {thing.shape} is {thing.colour}.",
    )


def shape_of(scene: Scene, rng: random.Random) -> Exchange | None:
    thing = _only(scene, rng, lambda thing: thing.colour)
    if thing is None:
        return None
    return Exchange(
        "shape",
        f"What is the {thing.colour} shape?",
        f"The {thing.colour} shape is a {thing.shape}.",
    )


def size_of(scene: Scene, rng: random.Random) -> Exchange | None:
    if not scene:
        return None
    thing = rng.choice(scene)
    asked = rng.choice((f"How big is the {thing.name}?", f"Is the {thing.name} small or large?"))
    return Exchange("size", asked, f"The {thing.name} is {thing.size}.")


def where_is(scene: Scene, rng: random.Random) -> Exchange | None:
    if not scene:
        return None
    thing = rng.choice(scene)
    return Exchange("where", f"Where is the {thing.name}?", f"The {thing.name} is {thing.where}.")


def what_is_at(scene: Scene, rng: random.Random) -> Exchange:
    taken = {thing.place: thing for thing in scene}
    free = not scene or rng.random() < 0.3
    place = rng.choice([p for p in range(len(PLACES)) if (p in taken) is not free])
    asked = f"What is {PLACES[place]}?"
    if place in taken:
        return Exchange("what is there", asked, f"A {taken[place].full_name}.")
    return Exchange("what is there", asked, "Nothing.")


def is_there(scene: Scene, rng: random.Random) -> Exchange:
    names = {thing.name for thing in scene}
    if names and rng.random() < 0.5:
        name = rng.choice(sorted(names))
    else:
        # Often nearly right: the color of one, the shape of another.
        colours, shapes = [t.colour for t in scene], [t.shape for t in scene]
        near = rng.random() < 0.6
        while (
            name := f"{rng.choice([*(colours if near else COLOURS), *COLOURS])} "
            f"{rng.choice([*(shapes if near else SHAPES), *SHAPES])}"
        ) in names:
            pass
    asked = f"Is there a {name}?"
    if name in names:
        return Exchange("is there", asked, f"Yes, there is a {name}.")
    return Exchange("is there", asked, f"No, there is no {name}.")


def relation(scene: Scene, rng: random.Random) -> Exchange | None:
    if len(scene) < 2:
        return None
    one, other = rng.sample(scene, 2)
    (row, column), (row_2, column_2) = divmod(one.place, 3), divmod(other.place, 3)
    truths = {
        "to the left of": column < column_2,
        "to the right of": column > column_2,
        "above": row < row_2,
        "below": row > row_2,
    }
    words = rng.choice(list(truths))
    asked = f"Is the {one.name} {words} the {other.name}?"
    return Exchange("relation", asked, "Yes, it is." if truths[words] else "No, it is not.")


MAKERS: tuple[Callable[[Scene, random.Random], Exchange | None], ...] = (
    describe,
    count_all,
    count_shape,
    count_colour,
    colour_of,
    shape_of,
    size_of,
    where_is,
    what_is_at,
    is_there,
    relation,
)


def ask(
    scene: Scene,
    rng: random.Random,
    number: int,
    *,
    described_first: float = 0.5,
    finding: int = 0,
) -> list[Exchange]:
    """``count`` different questions.

    ``described_first`` is the share of dialogues that begin with a description. What follows one can be
    read off the text, so where none does, it comes last: the picture has to be looked at. Each kind of
    question is drawn at most twice, those that need a thing to be found ``finding`` times more.
    """
    makers = [*MAKERS * 2, *(where_is, relation) * finding]
    rng.shuffle(makers)
    first = rng.random() < described_first
    if first:
        makers.insert(0, describe)
    exchanges: dict[str, Exchange] = {}
    described = False
    for maker in makers:
        if len(exchanges) == number:
            break
        if maker is describe and described:
            continue  # later ones could be copied
        exchange = maker(scene, rng)
        if exchange is not None and exchange.question not in exchanges:
            exchanges[exchange.question] = exchange
            described |= maker is describe
    return sorted(exchanges.values(), key=lambda e: (e.kind == "describe") is not first)


def _there_are(number: int, noun: str) -> str:
    return f"There {'is' if number == 1 else 'are'} {NUMBERS[number]} {noun}{'' if number == 1 else 's'}."


def _only(scene: Scene, rng: random.Random, key: Callable[[Thing], str]) -> Thing | None:
    """A thing that is the only one of its kind."""
    keys = [key(thing) for thing in scene]
    alone = [thing for thing in scene if keys.count(key(thing)) == 1]
    return rng.choice(alone) if alone else None
