"""Questions about what the small world knows, each with its one right answer."""

from __future__ import annotations

import random
from dataclasses import dataclass

from . import knowledge as know
from .stories import Story, is_held_out
from .world import COLORS, an


@dataclass(frozen=True)
class Exchange:
    """One question with its answer."""

    question: str
    answer: str
    key: str
    story: Story | None = None

    @property
    def kind(self) -> str:
        return self.key.split("/")[0]

    @property
    def held_out(self) -> bool:
        return is_held_out(self.key) or (self.story is not None and self.story.held_out)


def sentence(text: str) -> str:
    """Begin with a capital."""
    return text[0].upper() + text[1:]


def _ask(rng: random.Random, kind: str, item: str, forms: str, answer: str) -> Exchange:
    """Ask for an item in one of several forms."""
    form = rng.choice(forms.split("|"))
    question = an(form.replace("{x}", item))
    return Exchange(question, sentence(an(answer)), f"{kind}/{form}/{item}")


def color(rng: random.Random) -> Exchange:
    thing, right = rng.choice(list(know.COLOR_OF.items()))
    word = rng.choice(("colour", "color"))
    if rng.random() < 0.4:
        guess = right if rng.random() < 0.5 else rng.choice(COLORS)
        yes = "Yes" if guess == right else "No"
        return Exchange(
            f"Is {thing} {guess}?", f"{yes}, {thing} is {right}.", f"colour/is/{thing}/{guess}"
        )
    forms = (
        f"What {word} is {{x}}?|Which {word} is {{x}}?|Tell me the {word} of {{x}}.|"
        f"What is the {word} of {{x}}?|Do you know what {word} {{x}} is?|What {word} does {{x}} have?"
    )
    return _ask(rng, "colour", thing, forms, f"{thing} is {right}.")


def body(rng: random.Random) -> Exchange:
    part, table = rng.choice((("legs", know.LEGS), ("legs", know.LEGS), ("wheels", know.WHEELS)))
    owner, count = rng.choice(list(table.items()))
    forms = (
        f"How many {part} does a {{x}} have?|How many {part} has a {{x}}?|"
        f"How many {part} are there on a {{x}}?|Tell me how many {part} a {{x}} has."
    )
    return _ask(rng, "body", owner, forms, f"a {owner} has {count} {part}.")


def nature(rng: random.Random) -> Exchange:
    """What animals say, eat, where they live, and what their young are called."""
    table, forms, answer = rng.choice(
        (
            (know.SOUNDS, "What does a {x} say?|What sound does a {x} make?", "a {x} says {y}."),
            (
                know.HOMES,
                "Where does a {x} live?|Where can I find a {x}?|Where is the home of a {x}?",
                "a {x} lives {y}.",
            ),
            (
                know.FOOD_OF,
                "What does a {x} eat?|What does a {x} like to eat?|What is the food of a {x}?",
                "a {x} eats {y}.",
            ),
            (
                know.BABIES,
                "What is a baby {x} called?|What do you call a baby {x}?|What is a young {x} called?",
                "a baby {x} is called a {y}.",
            ),
        )
    )
    animal, value = rng.choice(list(table.items()))
    return _ask(rng, "nature", animal, forms, answer.replace("{x}", animal).replace("{y}", value))


def opposite(rng: random.Random) -> Exchange:
    first, second = rng.choice(know.OPPOSITES).split()
    if rng.random() < 0.5 and "short" not in (first, second):
        first, second = second, first
    if first == "short":
        first, second = "tall", "short"
    forms = (
        "What is the opposite of {x}?|What is the opposite of the word {x}?|The opposite of {x} is?"
    )
    return _ask(rng, "opposite", first, forms, f"the opposite of {first} is {second}.")


def group(rng: random.Random) -> Exchange:
    name = rng.choice(list(know.GROUPS))
    member = rng.choice(know.GROUPS[name])
    article = "" if name in ("colour", "season", "day") else "a "
    if rng.random() < 0.5:
        other = name if rng.random() < 0.5 else rng.choice(list(know.GROUPS))
        if member == "orange":
            other = name
        yes = "Yes" if other == name else "No"
        return Exchange(
            an(f"Is {article}{member} a {other}?"),
            an(f"{yes}, {article}{member} is a {name}."),
            f"group/is/{member}/{other}",
        )
    return _ask(rng, "group", member, f"What is {article}{{x}}?", f"{article}{member} is a {name}.")


def ability(rng: random.Random) -> Exchange:
    verb, able, unable = rng.choice(
        (("fly", know.FLIERS, know.WALKERS), ("swim", know.SWIMMERS, ["bee", "butterfly", "hen"]))
    )
    can = rng.random() < 0.5
    animal = rng.choice(able if can else unable)
    answer = f"Yes, a {animal} can {verb}." if can else f"No, a {animal} cannot {verb}."
    return Exchange(an(f"Can a {animal} {verb}?"), an(answer), f"ability/{verb}/{animal}")


def bigger(rng: random.Random) -> Exchange:
    one, two = rng.sample(know.SIZES_IN_ORDER, 2)
    big, small = sorted((one, two), key=know.SIZES_IN_ORDER.index, reverse=True)
    word, answer = rng.choice(
        (
            ("bigger", f"a {big} is bigger than a {small}."),
            ("smaller", f"a {small} is smaller than a {big}."),
        )
    )
    question = an(f"Which is {word}, a {one} or a {two}?")
    return Exchange(question, sentence(an(answer)), f"bigger/{word}/{one}/{two}")


def sequence(rng: random.Random) -> Exchange:
    names, noun = rng.choice(((know.DAYS, "day"), (know.MONTHS, "month"), (know.SEASONS, "season")))
    index = rng.randrange(len(names))
    step, word = rng.choice(((1, "after"), (-1, "before")))
    item, other = names[index], names[(index + step) % len(names)]
    forms = (
        f"What {noun} comes {word} {{x}}?|Which {noun} comes {word} {{x}}?|What comes {word} {{x}}?"
    )
    return _ask(rng, "sequence", item, forms, f"{other} comes {word} {item}.")


def number(rng: random.Random) -> Exchange:
    """Counting, and sums and differences in words or digits."""
    choice = rng.random()
    words = know.NUMBER_WORDS
    if choice < 0.1:
        last = rng.randint(2, 12)
        row = words[1 : last + 1]
        forms = "Count to {x}.|Can you count to {x}?|Please count to {x}."
        return _ask(rng, "count", words[last], forms, ", ".join(row[:-1]) + f" and {row[-1]}.")
    if choice < 0.2:
        index = rng.randint(1, 19)
        step, word = rng.choice(((1, "after"), (-1, "before")))
        forms = f"What number comes {word} {{x}}?|Which number comes {word} {{x}}?"
        return _ask(
            rng, "count", words[index], forms, f"{words[index + step]} comes {word} {words[index]}."
        )
    first, second = rng.randint(0, 10), rng.randint(0, 10)
    plus = rng.random() < 0.5
    if not plus and second > first:
        first, second = second, first
    total = first + second if plus else first - second
    spell = rng.random() < 0.5
    a, b, c = (words[n] if spell else str(n) for n in (first, second, total))
    sign = ("plus" if plus else "minus") if spell or rng.random() < 0.3 else "+" if plus else "-"
    form = rng.choice(
        ("What is {x}?", "How much is {x}?", "What is {x}", "{x}?", "Can you work out {x}?")
    )
    if rng.random() < 0.2:
        form = "What does {x} make?"
    problem = f"{a} {sign} {b}"
    question = sentence(form.replace("{x}", problem))
    return Exchange(question, sentence(f"{problem} is {c}."), f"sum/{form}/{problem}")


def fixed(rng: random.Random) -> Exchange:
    """A fact with one wording. Nothing could be held out, so it is never evaluated."""
    question, answer = rng.choice(list(know.FIXED.items()))
    return Exchange(question, answer, "fixed")
