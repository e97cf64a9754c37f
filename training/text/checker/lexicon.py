"""The checker's own dictionary of English: word classes, number, gender and verb frames.

Written down independently of the generator. A word that is not here is an error of the text.
"""

from __future__ import annotations

FEMALE_NAMES = frozenset(
    "Alice Amy Anna Clara Ella Emma Eva Grace Helen Iris Ivy Jane Julia Kate Leah Lily Lucy Maria "
    "Maya Mia Molly Nina Nora Olga Paula Rosa Ruby Sara Sofia Tara Wendy Zoe "
    "Bella Coco Dot Honey Kiki Luna Minnie Misty Pearl Poppy Tilly Trixie".split()
)
MALE_NAMES = frozenset(
    "Adam Ben Carl David Eric Felix Finn George Henry Hugo Ivan Jack Jonas Karl Leo Liam Mark Max "
    "Nick Noah Oscar Paul Peter Philip Ralph Sam Simon Theo Tom Victor Walter Will "
    "Biscuit Bobo Bruno Milo Otto Pip Rex Rocky Rusty Teddy Toby Ziggy".split()
)
NAMES = FEMALE_NAMES | MALE_NAMES

KIN = {
    "mother": "f",
    "grandmother": "f",
    "aunt": "f",
    "sister": "f",
    "father": "m",
    "grandfather": "m",
    "uncle": "m",
    "brother": "m",
}
CHILDREN = {"girl": "f", "boy": "m"}
CREATURES = frozenset(
    "dog cat rabbit fox bear mouse duck frog hen owl pig horse squirrel hedgehog turtle lamb goat "
    "otter".split()
)
PEOPLE = frozenset(
    "friend baker farmer teacher sailor painter gardener doctor cook miller tailor".split()
)
HERDS = frozenset(
    "duck bird rabbit frog butterfly lamb squirrel goat horse kitten puppy bee".split()
)
THINGS = frozenset(
    "apple pear plum cookie cake berry nut carrot bun cherry peach banana muffin pancake lemon tomato "
    "shell stone button balloon ball leaf feather marble ribbon sticker bead block crayon pencil kite "
    "boat drum doll bell hat key cup flower coin candle brush rope book puppet mask scarf "
    "whistle".split()
)
CONTAINERS = frozenset("bag basket box bucket pocket sack jar drawer bowl case".split())
PLACES = frozenset(
    "park garden forest beach river lake farm hill school market meadow barn pond village library "
    "field playground orchard mill well castle station bridge shop kitchen yard mountain cave valley "
    "tree house stream fence bed door shelf table curtain grass bush rock hole stove roof boot stair "
    "gate branch sand wall cupboard pillow window attic cottage cabin hut tower den nest burrow "
    "ice cellar".split()
)
OTHER_NOUNS = frozenset(
    "smile song hand foot storm ladder stick blanket lamp spoon map waltz knot picture letter dress "
    "flute piano net star cow fish day morning afternoon evening night hour week month time moon sun rain "
    "wind "
    "dinner bed way friend while moment rest walk lunch breakfast road".split()
)
MASS = frozenset(
    "bread soup milk ice noon lunch breakfast dinner bed grass sand chess tag spring summer autumn "
    "winter".split()
)
IRREGULAR_PLURALS = {
    "leaves": "leaf",
    "scarves": "scarf",
    "mice": "mouse",
    "foxes": "fox",
    "feet": "foot",
    "puppies": "puppy",
    "butterflies": "butterfly",
}
NOUNS = (
    frozenset(KIN)
    | frozenset(CHILDREN)
    | CREATURES
    | PEOPLE
    | HERDS
    | THINGS
    | CONTAINERS
    | PLACES
    | OTHER_NOUNS
)


def _plural(noun: str) -> str:
    for plural, singular in IRREGULAR_PLURALS.items():
        if singular == noun:
            return plural
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "ch", "sh")) or noun == "tomato":
        return noun + "es"
    return noun + "s"


PLURALS = {_plural(noun): noun for noun in NOUNS} | {"cards": "card"}

ADJECTIVES = frozenset(
    "kind clever brave cheerful shy funny curious gentle happy quiet friendly lively polite careful "
    "patient honest little small young good generous nice red blue green yellow white purple orange "
    "pink brown black grey golden shiny smooth tiny old pretty round new big lovely strange beautiful "
    "sweet fresh ripe tasty soft wooden empty lonely famous busy cosy warm narrow sunny rainy cold "
    "windy snowy foggy bright cloudy hot sad upset tired unhappy worried gloomy glad proud pleased "
    "excited thankful joyful wide long short merry silly strong heavy tall hard difficult fast "
    "slippery wonderful perfect pleasant delighted content late early far wet dark stuck safe lost "
    "spring summer autumn winter gone noisy ready other same next last alone hungry".split()
)
ADVERBS = frozenset(
    "quickly slowly happily quietly gently carefully proudly kindly softly bravely gladly cheerfully "
    "eagerly politely calmly shyly together again too home away out down up very much always only "
    "there alone over well".split()
)
MANNER = frozenset(word for word in ADVERBS if word.endswith("ly") and word != "only")

NUMBERS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()
    )
}
SEASONS = frozenset("spring summer autumn winter".split())
WEEKDAYS = frozenset("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
DAY_PARTS = frozenset("morning day afternoon evening night".split())

SUBJECT_PRONOUNS = {"he": "m", "she": "f"}
OBJECT_PRONOUNS = {"him": "m", "her": "f"}
POSSESSIVES = {"his": "m", "her": "f"}

PREPOSITIONS = tuple(
    tuple(text.split())
    for text in (
        "in front of|next to|up to|how to|in|on|at|by|near|behind|under|beside|inside|between|with|to|"
        "into|from|for|about|of|like|over|around"
    ).split("|")
)

# Base form -> past form, and the complements it takes: "" none, "N" a noun phrase, "NN" two,
# "A" an adjective, "T" to + base form, "G" an -ing form, "S" that + clause, "H" how to + base form.
# Prepositional and adverbial adjuncts may always follow.
_VERBS = """
play played ,N|run ran |sing sang ,N|dance danced ,N|swim swam |read read ,N|draw drew ,N
climb climbed ,N|jump jumped |walk walked |rest rested |laugh laughed |paint painted ,N|dig dug
hop hopped |skip skipped |hurry hurried |go went |come came |live lived |love loved N,T
like liked N,T|want wanted N,T|find found N|have had N|collect collected N|take took N
gather gathered N|give gave NN,N|buy bought N|keep kept N|meet met N|see saw N,NG|look looked ,A
feel felt A|smile smiled |say said |ask asked ,N|cry cried |help helped ,N|put put N|leave left N
count counted N|thank thanked N|hug hugged N|tell told N|sleep slept |dream dreamed ,S
share shared N|become became N|eat ate N|sit sat |open opened N|pick picked N|fall fell
lose lost N|blow blew |try tried ,T|work worked |show showed NH|learn learned ,T|do did N
bring brought N|watch watched N|stay stayed |fly flew ,N|swap swapped ,N
hurt hurt N|call called |carry carried N|drink drank N|stop stopped |ring rang |get got
ride rode N|whistle whistled ,N|bake baked N|tie tied N|skate skated |row rowed N|catch caught N
build built N|make made N|write wrote N|sew sewed N|plant planted N|milk milked N|throw threw N
carve carved N|wait waited |stand stood |be was A,N,G
"""
PAST: dict[str, str] = {}
FRAMES: dict[str, frozenset[str]] = {}
for _entry in _VERBS.replace("\n", "|").split("|"):
    if _entry.strip():
        _base, _past, *_frames = _entry.strip().split(" ")
        PAST[_past] = _base
        FRAMES[_base] = frozenset((_frames[0] if _frames else "").split(","))

PARTICIPLES = {
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
VOWELS = ("a", "e", "i", "o", "u", "honest", "hour")
