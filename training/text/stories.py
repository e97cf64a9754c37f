"""Plots: which beats a story has, in which order, and with which numbers.

`make_story(seed)` is a pure function of its seed. The parameters of a story (plot, people, thing,
numbers) decide by hash whether it belongs to the training set or is held out, so no held-out
story shares its parameters with a story trained on.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from . import templates as t
from . import world
from .characters import new_hero, new_pal
from .scene import Scene
from .world import Thing

HELD_OUT_SHARE = 32  # One in this many parameter sets is held out.


@dataclass(frozen=True)
class Story:
    """A generated story and what it is about (for questions on it)."""

    text: str
    plot: str
    hero_kind: str
    hero_name: str
    hero_gender: str
    pal_name: str | None
    thing: Thing
    parameters: str

    @property
    def held_out(self) -> bool:
        return is_held_out(self.parameters)


def is_held_out(parameters: str) -> bool:
    """Whether these parameters are kept from training (a stable hash, not Python's)."""
    digest = hashlib.sha256(parameters.encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def _opening(scene: Scene, hobby: float = 0.5) -> None:
    scene.say(t.INTRO)
    if scene.rng.random() < hobby:
        scene.say(t.HOBBY)


def _ending(scene: Scene, alone: bool = False) -> None:
    if scene.rng.random() < 0.85:
        scene.say(t.END_ALONE if alone else t.END)


def _give(scene: Scene) -> None:
    _opening(scene)
    scene.say(t.HAVE)
    scene.say(t.MEET)
    scene.say(t.WANT)
    scene.say(t.GIVE)
    if scene.rng.random() < 0.7:
        scene.say(t.LEFT)
    if scene.rng.random() < 0.7:
        scene.say(t.THANK)
    _ending(scene)


def _gain(scene: Scene) -> None:
    _opening(scene)
    scene.say(t.HAVE)
    scene.say(t.MEET)
    scene.say(t.OFFER)
    scene.say(t.SUM)
    if scene.rng.random() < 0.5:
        scene.say(t.THANK_PAL)
    _ending(scene)


def _gather(scene: Scene) -> None:
    _opening(scene)
    scene.say(t.HAVE)
    scene.say(t.FIND_MORE)
    scene.say(t.SUM)
    _ending(scene, alone=True)


def _lose(scene: Scene) -> None:
    _opening(scene)
    scene.say(t.HAVE)
    scene.say(t.EAT if scene.thing.food and scene.rng.random() < 0.7 else t.LOSE)
    scene.say(t.REMAIN)
    _ending(scene, alone=True)


def _treasure(scene: Scene) -> None:
    scene.topic = scene.slot_thing()
    _opening(scene)
    scene.say(t.TREASURE)
    scene.say(t.MISSING)
    scene.say(t.SEARCH)
    if scene.pal is None:
        scene.say(t.FOUND_ALONE)
        _ending(scene, alone=True)
        return
    scene.say(t.MEET)
    scene.say(t.HELP)
    scene.say(t.FOUND)
    if scene.rng.random() < 0.5:
        scene.say(t.THANK_PAL)
    _ending(scene)


def _learn(scene: Scene) -> None:
    _opening(scene, hobby=0.3)
    scene.say(t.WISH)
    scene.say(t.FAIL)
    scene.say(t.MEET)
    scene.say(t.TEACH)
    scene.say(t.LEARNED)
    if scene.rng.random() < 0.4:
        scene.say(t.THANK_PAL)
    _ending(scene)


def _watch(scene: Scene) -> None:
    scene.topic = f"{scene.beast_look} {scene.beasts}"
    _opening(scene)
    scene.say(t.WATCH)
    scene.say(t.LEAVE)
    scene.say(t.STAY)
    _ending(scene, alone=True)


def _swap(scene: Scene) -> None:
    _opening(scene)
    scene.say(t.MEET)
    scene.say(t.SWAP_WANT)
    scene.say(t.SWAP_ASK)
    scene.say(t.SWAP_DO)
    scene.say(t.SWAP_NOW)
    _ending(scene)


def _share(scene: Scene) -> None:
    _opening(scene)
    scene.say(t.HAVE)
    scene.say(t.MEET)
    if scene.rng.random() < 0.4:
        scene.say(t.WANT)
    scene.say(t.SHARE)
    if scene.rng.random() < 0.5:
        scene.say(t.THANK)
    _ending(scene)


def _rescue(scene: Scene) -> None:
    _opening(scene)
    scene.say(t.MEET)
    scene.say(t.TROUBLE)
    scene.say(t.CRY)
    scene.say(t.RESCUE)
    if scene.rng.random() < 0.6:
        scene.say(t.SAFE)
    if scene.rng.random() < 0.6:
        scene.say(t.THANK)
    _ending(scene)


@dataclass(frozen=True)
class Plot:
    """How a plot is told, whether it has a pal, and how its numbers relate."""

    tell: Callable[[Scene], None]
    pal: bool
    arithmetic: str  # "minus", "plus", "half" or "none"


PLOTS = {
    "give": Plot(_give, True, "minus"),
    "gain": Plot(_gain, True, "plus"),
    "gather": Plot(_gather, False, "plus"),
    "lose": Plot(_lose, False, "minus"),
    "treasure": Plot(_treasure, True, "none"),
    "search": Plot(_treasure, False, "none"),
    "learn": Plot(_learn, True, "none"),
    "watch": Plot(_watch, False, "minus"),
    "swap": Plot(_swap, True, "none"),
    "share": Plot(_share, True, "half"),
    "rescue": Plot(_rescue, True, "none"),
}


def _numbers(rng: random.Random, arithmetic: str) -> tuple[int, int, int]:
    if arithmetic == "plus":
        n, k = rng.randint(1, 6), rng.randint(1, 6)
        return n, k, n + k
    if arithmetic == "half":
        k = rng.randint(1, 5)
        return 2 * k, k, k
    n = rng.randint(2, 10)
    k = rng.randint(1, min(n - 1, 5))
    return n, k, n - k


def make_story(
    seed: str, *, kind: str | None = None, name: str | None = None, thing: Thing | None = None
) -> Story:
    """Write the story of this seed, optionally about a given kind, name or thing."""
    rng = random.Random(seed)
    plot_name = rng.choice(list(PLOTS))
    if thing is not None:
        plot_name = rng.choice(["give", "gain", "gather", "lose", "treasure", "search", "share"])
    plot = PLOTS[plot_name]
    hero = new_hero(rng, kind, name)
    pal = new_pal(rng, hero) if plot.pal else None
    chosen = thing or rng.choice(world.THINGS)
    other = rng.choice([one for one in world.THINGS if one is not chosen])
    numbers = _numbers(rng, plot.arithmetic)
    scene = Scene(rng, hero, pal, chosen, other, numbers)
    plot.tell(scene)
    pal_name = (pal.name or pal.kind) if pal else None
    parameters = f"{plot_name}/{hero.kind}/{hero.name}/{pal_name}/{chosen.singular}/{numbers}"
    return Story(
        text=scene.text(),
        plot=plot_name,
        hero_kind=hero.kind,
        hero_name=hero.name or hero.kind,
        hero_gender=hero.gender,
        pal_name=pal_name,
        thing=chosen,
        parameters=parameters,
    )
