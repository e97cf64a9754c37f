"""Who is in a story: children, animals with names, and relatives."""

from __future__ import annotations

import random
from dataclasses import dataclass

from . import world


@dataclass
class Character:
    """A person or an animal of the story.

    Args:
        name: The proper name, or None for a relative ("her mother").
        kind: "girl", "fox", "mother": what the character is.
        gender: "f" or "m".
        relation: What a pal is: "friend", "brother" or "" for a stranger.
    """

    name: str | None
    kind: str
    gender: str
    relation: str = ""
    mentioned: bool = False
    kind_known: bool = False

    @property
    def subject(self) -> str:
        return "she" if self.gender == "f" else "he"

    @property
    def object(self) -> str:
        return "her" if self.gender == "f" else "him"

    @property
    def possessive(self) -> str:
        return "her" if self.gender == "f" else "his"


def new_hero(rng: random.Random, kind: str | None = None, name: str | None = None) -> Character:
    gender = rng.choice("fm")
    if kind is None:
        kind = (
            {"f": "girl", "m": "boy"}[gender] if rng.random() < 0.6 else rng.choice(world.ANIMALS)
        )
    if name is not None:
        gender = "f" if name in world.GIRLS or name in world.FEMALE_PETS else "m"
        kind = "girl" if name in world.GIRLS else "boy" if name in world.BOYS else kind
    if kind in ("girl", "boy"):
        gender = "f" if kind == "girl" else "m"
    names = {
        ("f", True): world.GIRLS,
        ("m", True): world.BOYS,
        ("f", False): world.FEMALE_PETS,
        ("m", False): world.MALE_PETS,
    }
    return Character(name or rng.choice(names[gender, kind in ("girl", "boy")]), kind, gender)


def new_pal(rng: random.Random, hero: Character) -> Character:
    """A second character: a relative, a friend or a stranger; mostly of the other gender."""
    if rng.random() < 0.2:
        gender = rng.choice("fm")
        return Character(None, rng.choice(world.FAMILY[gender]), gender)
    while True:
        pal = new_hero(rng)
        if pal.name == hero.name or (pal.gender == hero.gender and rng.random() < 0.4):
            continue
        human = pal.kind in ("girl", "boy")
        if human and hero.kind in ("girl", "boy") and rng.random() < 0.25:
            pal.relation = "sister" if pal.gender == "f" else "brother"
        elif human == (hero.kind in ("girl", "boy")) and rng.random() < 0.5:
            pal.relation = "friend"
        return pal
