"""What the small world knows: the facts behind the chat answers."""

from __future__ import annotations

COLOR_OF = {
    "the sky": "blue",
    "grass": "green",
    "snow": "white",
    "the sun": "yellow",
    "coal": "black",
    "milk": "white",
    "chocolate": "brown",
    "a banana": "yellow",
    "a carrot": "orange",
    "a tomato": "red",
    "a lemon": "yellow",
    "a leaf": "green",
    "a cloud": "white",
    "a crow": "black",
    "a frog": "green",
    "a pig": "pink",
    "a plum": "purple",
    "an elephant": "grey",
    "a strawberry": "red",
    "a cherry": "red",
    "a pea": "green",
    "a swan": "white",
    "a pumpkin": "orange",
    "a bear": "brown",
    "an orange": "orange",
    "a cucumber": "green",
    "a chick": "yellow",
    "salt": "white",
    "the sea": "blue",
    "a fire engine": "red",
}
LEGS = {
    "cat": "four",
    "dog": "four",
    "horse": "four",
    "cow": "four",
    "pig": "four",
    "bear": "four",
    "fox": "four",
    "mouse": "four",
    "rabbit": "four",
    "frog": "four",
    "lamb": "four",
    "goat": "four",
    "turtle": "four",
    "squirrel": "four",
    "hedgehog": "four",
    "duck": "two",
    "hen": "two",
    "owl": "two",
    "bird": "two",
    "girl": "two",
    "boy": "two",
    "bee": "six",
    "ant": "six",
    "butterfly": "six",
    "spider": "eight",
    "fish": "no",
    "snake": "no",
    "worm": "no",
    "chair": "four",
    "table": "four",
}
WHEELS = {
    "car": "four",
    "bicycle": "two",
    "tricycle": "three",
    "boat": "no",
    "cart": "two",
    "bus": "six",
    "sledge": "no",
}
SOUNDS = {
    "cow": "moo",
    "dog": "woof",
    "cat": "meow",
    "duck": "quack",
    "pig": "oink",
    "sheep": "baa",
    "owl": "hoot",
    "horse": "neigh",
    "lion": "roar",
    "mouse": "squeak",
    "hen": "cluck",
    "bee": "buzz",
    "frog": "croak",
    "snake": "hiss",
}
HOMES = {
    "fish": "in the water",
    "bird": "in a nest",
    "bear": "in a cave",
    "bee": "in a hive",
    "rabbit": "in a burrow",
    "fox": "in a den",
    "horse": "in a stable",
    "duck": "on a pond",
    "owl": "in a tree",
    "squirrel": "in a tree",
    "cow": "on a farm",
    "pig": "on a farm",
    "whale": "in the sea",
    "dog": "in a house",
    "worm": "in the ground",
    "spider": "in a web",
}
FOOD_OF = {
    "cow": "grass",
    "rabbit": "carrots",
    "mouse": "cheese",
    "squirrel": "nuts",
    "cat": "fish",
    "bird": "seeds",
    "horse": "hay",
    "bear": "honey",
    "dog": "bones",
    "monkey": "bananas",
    "hen": "corn",
    "goat": "leaves",
    "frog": "flies",
    "owl": "mice",
    "otter": "fish",
    "sheep": "grass",
}
BABIES = {
    "dog": "puppy",
    "cat": "kitten",
    "cow": "calf",
    "hen": "chick",
    "sheep": "lamb",
    "duck": "duckling",
    "horse": "foal",
    "bear": "cub",
    "goat": "kid",
    "pig": "piglet",
    "owl": "owlet",
    "fox": "cub",
}
OPPOSITES = (
    "big small|hot cold|happy sad|old new|day night|up down|fast slow|tall short|wet dry|"
    "open closed|full empty|good bad|light dark|early late|loud quiet|hard soft|left right|"
    "long short|clean dirty|strong weak|high low|near far|thick thin|yes no"
).split("|")
GROUPS = {
    "fruit": "apple pear plum banana lemon cherry peach strawberry orange".split(),
    "animal": (
        "dog cat rabbit fox bear mouse duck frog hen owl pig horse squirrel hedgehog turtle lamb "
        "goat otter cow sheep"
    ).split(),
    "toy": "ball doll kite puppet drum balloon block".split(),
    "colour": "red blue green yellow white purple pink brown black grey".split(),
    "season": "spring summer autumn winter".split(),
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "tool": "rope ladder hammer saw".split(),
}
FLIERS = "bird owl bee butterfly duck crow".split()
WALKERS = "dog cat horse pig mouse rabbit cow bear fox hedgehog".split()
SWIMMERS = "fish duck frog otter whale turtle".split()
SIZES_IN_ORDER = "ant bee mouse frog duck cat dog lamb pig bear horse elephant whale".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
SEASONS = "spring summer autumn winter".split()
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
FIXED = {
    "How many days are there in a week?": "There are seven days in a week.",
    "How many days does a week have?": "There are seven days in a week.",
    "How many months are there in a year?": "There are twelve months in a year.",
    "How many months does a year have?": "There are twelve months in a year.",
    "How many seasons are there?": "There are four seasons.",
    "What are the seasons?": "The seasons are spring, summer, autumn and winter.",
    "How many fingers does a hand have?": "A hand has five fingers.",
    "How many fingers are there on a hand?": "A hand has five fingers.",
    "How many eyes does a cat have?": "A cat has two eyes.",
    "How many ears does a rabbit have?": "A rabbit has two ears.",
    "When does the sun come up?": "The sun comes up in the morning.",
    "When does the sun go down?": "The sun goes down in the evening.",
    "When do we see the moon?": "We see the moon at night.",
    "When do the stars come out?": "The stars come out at night.",
    "Is snow cold?": "Yes, snow is cold.",
    "Is fire hot?": "Yes, fire is hot.",
    "Is ice hot?": "No, ice is cold.",
    "Is fire cold?": "No, fire is hot.",
    "When does it snow?": "It snows in winter.",
    "What falls from the clouds?": "Rain falls from the clouds.",
    "What do bees make?": "Bees make honey.",
    "What do hens lay?": "Hens lay eggs.",
    "What do cows give us?": "Cows give us milk.",
}
