"""The slots that any sentence may have: places, times, manners, feelings.

What depends on who is in the story and what they own is in `scene.py`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import world

SIMPLE: dict[str, Sequence[str]] = {
    "adj": world.PERSON_ADJECTIVES,
    "act": tuple(world.ACTIVITIES),
    "did": tuple(world.ACTIVITIES.values()),
    "doing": tuple(world.ING),
    "moved": world.MOVED,
    "went": world.WENT,
    "weather": world.WEATHER,
    "daypart": world.DAY_PARTS,
    "later": world.LATER,
    "adv": world.MANNERS,
    "speaking": world.SPEAKING,
    "moving": world.MOVING,
    "generous": world.GENEROUS,
    "content": ("happy", "pleased", "delighted", "content"),
    "late": world.TOO,
    "hard": world.HARD,
    "lovely": world.LOVELY,
    "days": ("days", "hours", "weeks"),
    "keeping": world.KEEPING_PLACES,
    "height": world.HEIGHTS,
    "sad": world.SAD,
    "glad": world.GLAD,
    "quality": world.TOY_QUALITIES,
    "foodlike": world.FOOD_QUALITIES,
    "smile": world.SMILES,
    "songlike": world.SONG_ADJECTIVES,
    "dusk": world.DUSK,
    "game": world.GAMES,
    "job": world.JOBS,
    "count": world.NUMBERS[2:11],
}


class Words:
    """Draws words for slots that need nothing but chance, and a memory against repetition.

    Args:
        rng: Source of every choice.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._said: set[str] = set()  # Words already drawn for the current sentence.
        self._stage = ""
        self._day_named = False

    def start_sentence(self, template: str) -> None:
        """Forget the words of the sentence before, and note whether this one names the day."""
        self._said.clear()
        self._day_named |= "{weather}" in template or "{season.day}" in template

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.random() * len(options))]

    def fresh(self, options: Sequence[str]) -> str:
        """Pick a word that this sentence has not used yet."""
        word = self.pick(options)
        while word in self._said:
            word = self.pick(options)
        self._said.add(word)
        return word

    def draw(self, slot: str) -> str:
        """Fill a slot: by its method if it has one, from its list of words otherwise."""
        method = getattr(self, "slot_" + slot.replace(".", "_"), None)
        return str(method()) if method is not None else self.fresh(SIMPLE[slot])

    def slot_place(self) -> str:
        place = self.pick(world.PLACES)
        if self.rng.random() < 0.6:
            words = place.split(" ")
            place = " ".join((*words[:-1], self.pick(world.PLACE_ADJECTIVES), words[-1]))
        return place

    def slot_goal(self) -> str:
        goal = self.pick(world.GOALS)
        return goal if self.rng.random() < 0.5 else f"{self.pick(world.PLACE_ADJECTIVES)} {goal}"

    def slot_stage(self) -> str:
        """The place of a scene that goes on, said the same way each time."""
        self._stage = self._stage or self.slot_place()
        return self._stage

    def slot_day(self) -> str:
        if self._day_named:
            return self.pick(world.NEXT_TIME if self.rng.random() < 0.5 else world.LATER)
        self._day_named = True
        weather, part = self.pick(world.WEATHER), self.pick(world.DAY_PARTS)
        return self.pick(
            (
                f"one {weather} {part}",
                f"one {weather} {part}",
                f"one {self.pick(tuple(world.SEASONS))} {part}",
                f"on a {weather} {part}",
                f"on {self.pick(world.DAYS)} {part if part != 'day' else 'morning'}",
                f"early one {weather} morning",
                "one day",
                f"on a {self.slot_season_day()}",
            )
        )

    def slot_season_day(self) -> str:
        season = self.pick(tuple(world.SEASONS))
        weather = self.pick(world.SEASONS[season].split())
        return f"{weather} {season} {self.pick(world.DAY_PARTS)}"

    def slot_spot(self) -> str:
        spot = self.fresh(world.HIDING_PLACES)
        if self.rng.random() < 0.4 and spot not in ("between two rocks", "on a branch"):
            words = spot.split(" ")
            return " ".join((*words[:-1], self.pick(world.SPOT_ADJECTIVES), words[-1]))
        return spot

    def slot_season_when(self) -> str:
        return self.pick(
            (
                f"in the {self.pick(tuple(world.SEASONS))}",
                f"on {self.pick(world.DAYS)}",
                f"one {self.pick(world.WEATHER)} {self.pick(world.DAY_PARTS)}",
                f"last {self.pick(tuple(world.SEASONS))}",
            )
        )

    def slot_tool(self) -> str:
        return f"{self.pick(world.TOOL_ADJECTIVES)} {self.pick(world.TOOLS)}"

    def slot_mood(self) -> str:
        return self.pick(world.SAD if self.rng.random() < 0.5 else world.GLAD)
