"""The words of the small world: who lives there, what they own, where they go.

Everything the generator says is put together from these tables, so the language model that is
trained on it has a closed world to master. The checker (`checker/`) deliberately does not read
this file: it has a lexicon of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

GIRLS = (
    "Anna Mia Lily Sara Emma Nora Lucy Ruby Ella Zoe Amy Kate Rosa Jane Molly Clara Maya Eva Nina "
    "Tara Alice Ivy Julia Leah Maria Olga Paula Sofia Wendy Grace Helen Iris"
).split()
BOYS = (
    "Tom Ben Max Leo Sam Jack Noah Finn Paul Peter Adam Carl David Eric Felix Hugo Ivan Jonas Karl "
    "Liam Mark Nick Oscar Philip Ralph Simon Theo Victor Walter Will Henry George"
).split()
MALE_PETS = "Rex Pip Bruno Otto Rusty Biscuit Bobo Toby Milo Rocky Ziggy Teddy".split()
FEMALE_PETS = "Bella Luna Coco Honey Poppy Dot Misty Pearl Trixie Tilly Minnie Kiki".split()

ANIMALS = (
    "dog cat rabbit fox bear mouse duck frog hen owl pig horse squirrel hedgehog turtle lamb goat "
    "otter"
).split()
FAMILY = {
    "f": ("mother", "grandmother", "aunt", "sister"),
    "m": ("father", "grandfather", "uncle", "brother"),
}

PERSON_ADJECTIVES = (
    "kind clever brave cheerful shy funny curious gentle happy quiet friendly lively polite "
    "careful patient honest"
).split()
SIZES = ["little", "small", "young"]
GENEROUS = "kind gentle friendly good generous nice".split()

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()


@dataclass(frozen=True)
class Thing:
    """Something that can be owned, counted and given away."""

    singular: str
    plural: str
    food: bool = False


def _things(text: str, food: bool) -> tuple[Thing, ...]:
    """Read `apple berry/berries` style lists: a bare word takes a plain -s."""
    pairs = (word.split("/") for word in text.split())
    return tuple(
        Thing(pair[0], pair[1] if len(pair) > 1 else pair[0] + "s", food) for pair in pairs
    )


FOODS = _things(
    "apple pear plum cookie cake berry/berries nut carrot bun cherry/cherries peach/peaches "
    "banana muffin pancake lemon tomato/tomatoes",
    food=True,
)
TOYS = _things(
    "shell stone button balloon ball leaf/leaves feather marble ribbon sticker bead block crayon "
    "pencil kite boat drum doll bell hat key cup flower coin candle brush/brushes rope book "
    "puppet mask scarf/scarves whistle",
    food=False,
)
THINGS = FOODS + TOYS

COLORS = "red blue green yellow white purple orange pink brown black grey golden".split()
TOY_QUALITIES = "shiny smooth tiny old pretty round new big small lovely strange beautiful".split()
FOOD_QUALITIES = "sweet fresh ripe big small round tasty soft little yellow red lovely".split()

CONTAINERS = "bag basket box bucket pocket sack jar drawer bowl case".split()
CONTAINER_ADJECTIVES = "old big small wooden green blue red brown round empty new little".split()

# How one says where something happens: "by the river", "on the hill".
PLACES = (
    "in the park|in the garden|in the forest|on the beach|by the river|by the lake|at the farm|"
    "on the hill|near the school|at the market|in the meadow|behind the barn|in the kitchen|"
    "in the yard|under the bridge|by the pond|in the village|near the library|in the field|"
    "near the mountain|in front of the cave|by the mill|at the playground|in the orchard|"
    "in the valley|near the well|under the tree|behind the house|beside the stream|near the castle|"
    "by the fence|at the station"
).split("|")
PLACE_ADJECTIVES = (
    "old quiet big little small pretty lovely lonely beautiful famous new busy"
).split()
# Where one goes to.
GOALS = (
    "park garden forest beach river lake farm hill school market meadow barn pond village library "
    "field playground orchard mill well castle station bridge shop"
).split()
# Where a lost thing may turn up.
HIDING_PLACES = (
    "under the bed|behind the door|in the cellar|on the shelf|beside the well|under the table|"
    "behind the curtain|in the grass|under a bush|between two rocks|in a hole|behind the stove|"
    "on the roof|inside a boot|under the stairs|next to the gate|on a branch|in the sand|"
    "behind the wall|inside the cupboard"
).split("|")

HOUSES = "house cottage cabin hut tower".split()
ANIMAL_HOMES = "den nest barn cave hut burrow".split()
HOME_ADJECTIVES = "small old cosy tiny big wooden white quiet warm little red narrow".split()
NEAR = "near by beside behind".split()

WEATHER = "sunny rainy warm cold windy snowy foggy bright quiet cloudy hot lovely".split()
DAY_PARTS = "morning day afternoon evening".split()
SEASONS = {
    "spring": "sunny rainy warm cold windy bright cloudy lovely",
    "summer": "sunny rainy warm windy bright cloudy hot lovely",
    "autumn": "sunny rainy cold windy foggy bright cloudy quiet",
    "winter": "sunny cold windy snowy foggy bright cloudy quiet",
}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

# Connectives that open a sentence in the middle of a story.
LATER = (
    "soon|then|after a while|a little later|later that day|just then|after lunch|before long|"
    "at noon|an hour later|after breakfast|a moment later|after a short rest|some time later|"
    "after a long walk|not long after"
).split("|")

SPEAKING = "quietly softly kindly happily politely calmly shyly bravely gladly cheerfully".split()
MOVING = "quickly slowly happily quietly carefully proudly gladly cheerfully eagerly calmly".split()
MANNERS = (
    "quickly slowly happily quietly gently carefully proudly kindly softly bravely gladly "
    "cheerfully eagerly politely calmly shyly"
).split()
SAD = "sad lonely upset unhappy tired worried gloomy".split()
GLAD = "happy glad proud cheerful pleased excited thankful joyful".split()

# Base form and past form of things one does for fun.
ACTIVITIES = {
    "play": "played",
    "run": "ran",
    "sing": "sang",
    "dance": "danced",
    "swim": "swam",
    "read": "read",
    "draw": "drew",
    "climb": "climbed",
    "jump": "jumped",
    "walk": "walked",
    "rest": "rested",
    "laugh": "laughed",
    "paint": "painted",
    "dig": "dug",
    "hop": "hopped",
    "skip": "skipped",
}
ING = {
    "playing": "play",
    "sitting": "sit",
    "waiting": "wait",
    "resting": "rest",
    "reading": "read",
    "singing": "sing",
    "walking": "walk",
    "standing": "stand",
    "sleeping": "sleep",
    "drawing": "draw",
}
MOVED = "walked ran skipped hopped hurried danced".split()
WENT = "went walked ran hurried".split()
JOBS = "baker farmer teacher sailor painter gardener doctor cook miller tailor".split()
TOOLS = "net ladder stick blanket lamp bucket".split()
TOOL_ADJECTIVES = "long strong big old short heavy".split()
# Animals one can watch, and how they leave.
BEASTS = {
    "ducks": "flew away|swam away",
    "birds": "flew away|hopped away",
    "rabbits": "hopped away|ran away",
    "frogs": "hopped away|jumped away",
    "butterflies": "flew away",
    "lambs": "ran away|walked away",
    "squirrels": "ran away|climbed away",
    "goats": "ran away|walked away",
    "horses": "ran away|walked away",
    "kittens": "ran away|walked away",
    "puppies": "ran away|jumped away",
    "bees": "flew away",
}
BEAST_SINGULAR = {"butterflies": "butterfly", "puppies": "puppy"}
BEAST_ADJECTIVES = (
    "little white brown young pretty noisy funny small grey black happy quiet".split()
)
SKILLS = (
    "swim|ride a horse|climb a tree|whistle a song|bake bread|tie a knot|skate on the ice|"
    "fly a kite|row a boat|catch a fish|draw a star|play the piano|jump over the stream|"
    "paint a picture|build a hut|dance a waltz|make soup|write a letter|sew a dress|plant a tree|"
    "milk a cow|read a map|throw a ball|bake a cake|sing a song|walk on a wall|play the flute|"
    "carve a spoon|draw a horse|count the stars"
).split("|")
SPOT_ADJECTIVES = "old big little wooden red small dark green".split()
KEEPING_PLACES = (
    "under the bed|on the shelf|in the cupboard|under the pillow|next to the window|in the attic|"
    "near the stove|by the door"
).split("|")
NEXT_TIME = (
    "the next morning|the next day|that same day|two days later|the next evening|three days later|"
    "the day after|that afternoon"
).split("|")
HEIGHTS = "tree wall rock tower roof".split()
TOO = "late early far cold wet hot dark windy".split()
HARD = "hard difficult fast slippery".split()
LOVELY = "lovely wonderful beautiful perfect happy pleasant".split()
DUSK = (
    "the sun went down|the moon came up|the stars came out|it was dark|it was time for bed|"
    "it was time for dinner|dinner was ready|the rain stopped|the wind stopped|the day was over"
).split("|")
SMILES = "big wide warm happy bright shy".split()
SONG_ADJECTIVES = "happy funny long short old merry silly quiet".split()
GAMES = "chess|tag|cards|ball|catch|hide and seek".split("|")


VOWEL_SOUNDS = ("a", "e", "i", "o", "u", "honest")


def an(text: str) -> str:
    """Turn `a` into `an` before a vowel sound, anywhere in the text."""
    words = text.split(" ")
    for index, word in enumerate(words[:-1]):
        if word in ("a", "A") and words[index + 1].startswith(VOWEL_SOUNDS):
            words[index] = word + "n"
    return " ".join(words)


def number_of(count: int, thing: Thing, before: str = "") -> str:
    """Say a count with its noun in the right number: `one red apple`, `three red apples`."""
    noun = thing.singular if count == 1 else thing.plural
    return " ".join(part for part in (NUMBERS[count], before, noun) if part)
