"""The sentences of the stories, as templates with slots.

A slot in braces is filled by `scene.Scene`: `{hero}` and `{pal}` are whoever the story is about (a
name, a pronoun or "the fox", whichever is clear at that point), `{things}` is what they own,
`{n.things}` counts it, and the rest pick a word of the world. Templates in one tuple are
interchangeable, and each should have several free slots: the stories must not repeat each other.
"""

from __future__ import annotations

INTRO = (
    "once upon a time, there was {hero.intro}.",
    "once upon a time, there was {hero.intro} who lived {home}.",
    "once upon a time there was {hero.intro}.",
    "once upon a time, {hero.intro} lived {home}.",
    "once upon a time, {hero.intro} lived {home} with {hero.poss} {adj} {relative}.",
    "there was once {hero.intro} who loved to {act} {place}.",
    "long ago, {hero.intro} lived {home}.",
    "{home} lived {hero.intro}.",
    "{home}, there lived {hero.intro}.",
    "{hero.name} was a {adj} {hero.kind} who lived {home}.",
    "{hero.name} was a {adj} and {adj} {hero.kind} who liked to {act}.",
    "the {adj} {hero.kind} {hero.name} lived {home}.",
    "{hero.intro} lived {home}.",
    "{hero.intro} loved to {act} and {act} {place}.",
    "one day, {hero.intro} {went} to the {goal}.",
    "{day}, {hero.intro} {went} to the {goal} with {hero.poss} {relative}.",
    "{day}, {hero.intro} was {doing} {place}.",
    "{day}, {hero.name} {went} to the {goal} to {act}.",
    "every {daypart}, {hero.name} {did} {place}.",
    "it was a {weather} {daypart}, and {hero.name} was {doing} {place}.",
    "it was a {season.day}, and {hero.intro} was {doing} {place}.",
    "{hero.name} lived {home} with {hero.poss} {adj} {relative}.",
)

HOBBY = (
    "{hero} loved to {act} {place}.",
    "{hero} liked {kind.things} and {kind.things} very much.",
    "{hero} loved {things} more than anything.",
    "every {daypart}, {hero} {did} {place} and {did} {place}.",
    "{hero} was always {glad} when it was {weather}.",
    "{hero} liked to {act} {place} and to {act} {place}.",
    "{hero} wanted to {act} {place}, but it was too {late}.",
    "{hero.owner} {relative} was a {adj} {job}.",
)

# The hero comes to own {n} things.
HAVE = (
    "{day}, {hero} found {n.things} {place}.",
    "{day}, {hero} had {n.things} in a {container}.",
    "{day}, {hero} {adv} collected {n.things} {place}.",
    "{day}, {hero} went to the {goal} and found {n.things} {place}.",
    "{hero} had {n.things} in {hero.poss} {own.container}.",
    "{hero.owner} {relative} gave {hero.obj} {n.things} {season.when}.",
    "{day}, {hero} bought {n.things} at the market.",
    "{day}, {hero} took a {container} to the {goal} and {adv} gathered {n.things}.",
    "{hero} kept {n.things} in a {container} {spot}.",
)

MEET = (
    "{later}, {hero} met {pal.intro} {place}.",
    "{later}, {pal.intro} came to the {goal}.",
    "{later}, {hero} saw {pal.intro} {place}.",
    "{pal.intro} was {doing} {place}.",
    "{later}, {pal.intro} {moving} walked up to {hero.obj}.",
    "{pal.intro} was {doing} {place} and looked very {sad}.",
    "on the way to the {goal}, {hero} met {pal.intro}.",
)

# The pal would like some of the things.
WANT = (
    "{pal} looked {sad} because {pal.subj} had no {plain.things}.",
    "{pal} wanted some {plain.things} too.",
    "{pal} {adv} looked at the {things} and felt {sad}.",
    '"may I have some of your {plain.things}, {hero.call}?" {pal.name} asked {speaking}.',
    '"I have no {plain.things}," {pal.name} said {speaking}.',
    '"what {quality} {plain.things}!" said {pal.name} {speaking}.',
    "{pal} had no {plain.things} and was {sad}.",
    '"I am so {sad}," said {pal.name}. "I have no {plain.things}."',
    "{pal} asked {hero.obj} for some {plain.things}.",
)

GIVE = (
    "{hero} {adv} gave {k.things} to {pal.obj}.",
    "{hero} gave {pal.obj} {k} of the {things}.",
    "{hero} was {generous}, so {hero.subj} gave {pal.obj} {k.plain}.",
    "so {hero} {adv} gave {pal.obj} {k.plain}.",
    "{hero} smiled and gave {k} of {hero.poss} {plain.things} to {pal.obj}.",
    "{hero} wanted to help, so {hero.subj} {adv} gave {pal.obj} {k} of the {plain.things}.",
    '"you can have {k.plain}," {hero.name} said, and gave {k.them} to {pal.obj}.',
)

# After giving: the hero has {m}, the pal {k}.
LEFT = (
    "now {hero} had {m.plain} left, and {pal} had {k}.",
    "after that, {hero} had {m.things} in {hero.poss} {own.container}.",
    "{hero} still had {m.plain} in {hero.poss} {own.container}.",
    "now {pal} had {k.plain} and {hero} had {m}.",
    "{hero} put the other {m.other} in a {container}.",
    "that left {hero.obj} with {m.things}.",
    "{hero} counted {hero.poss} {plain.things} and had {m} left.",
)

THANK = (
    '"thank you, {hero.call}!" said {pal.name} with a {smile} smile.',
    '"thank you very much, {hero.call}," {pal.name} said {speaking}.',
    '"you are very {adj}, {hero.call}," said {pal.name}.',
    "{pal} thanked {hero.obj} and {adv} hugged {hero.again}.",
    "{pal} was so {glad} that {pal.subj} {did} {place}.",
    "{pal} {adv} thanked {hero.obj} and gave {hero.again} a {smile} smile.",
    '"now I am {glad}," said {pal.name}, and {pal.subj} smiled {speaking}.',
    "{pal} felt {glad} and {did} {moving} {place}.",
)

END = (
    "{they} {did} and {did} together {place} until {dusk}.",
    "{they} {did} {place} until {dusk}.",
    "from that day on, {they} {did} {place} every {daypart}.",
    "{hero} went home {moving} and told {hero.poss} {relative} about {pal.whom}.",
    "that night, {hero} slept well and dreamed of {kind.things} and {kind.things}.",
    "{they} sang a {songlike} song about {kind.things} and {moved} home.",
    "{hero} and {pal.name} became {adj} friends and {did} together {place}.",
    "when {dusk}, {they} {moving} walked home.",
    "{they} shared a {foodlike} {food} {place} and were {glad}.",
    "it was a {lovely} {daypart}, and {they} were very {glad}.",
    "{they} went home {moving} and played {game} until {dusk}.",
    "after that, {they} {did} {place} and were always {glad} together.",
    "in the evening, {they} sat {place} and sang a {songlike} song.",
)

END_ALONE = (
    "{hero} {did} and {did} {place} until {dusk}.",
    "{hero} went home {moving} and told {hero.poss} {adj} {relative} about the {topic}.",
    "that night, {hero} slept well and dreamed of {kind.things} and {kind.things}.",
    "{hero} sang a {songlike} song about {kind.things} and {moved} home.",
    "when {dusk}, {hero} {moving} walked home.",
    "{hero} ate a {foodlike} {food} {place} and was {glad}.",
    "it was a {lovely} {daypart}, and {hero} was very {glad}.",
    "from that day on, {hero} {did} {place} every {daypart}.",
    "{hero} was {glad}, and {did} {moving} until {dusk}.",
)

# The pal adds {k} to the hero's {n}.
OFFER = (
    "{pal} {adv} gave {hero.obj} {k.more}.",
    '"here you are, {hero.call}," {pal.name} said, and gave {hero.obj} {k.more}.',
    "{pal} wanted to help and {adv} gave {hero.obj} {k.more}.",
    "{pal} opened a {container} and gave {hero.obj} {k.more}.",
    "{later}, {pal} found {k.more} {spot} and gave {k.them} to {hero.obj}.",
)
FIND_MORE = (
    "{later}, {hero} found {k.more} {spot}.",
    "{later}, {hero} {adv} picked up {k.more} {place}.",
    "{hero} looked {spot} and found {k.more}.",
    "{later}, {hero.owner} {relative} gave {hero.obj} {k.more}.",
)
SUM = (
    "now {hero} had {m.things}.",
    "now {hero} had {m.plain} in {hero.poss} {own.container}.",
    "{hero} {adv} counted {hero.poss} {plain.things} and had {m}.",
    "{hero} put {m.all} in a {container} {spot}.",
    "after that, {hero} had {m.things} and felt {glad}.",
    '"now I have {m.plain}!" {hero.name} said {speaking}.',
)

# The same thanks, from the hero to the pal.
THANK_PAL = tuple(
    text.replace("{hero", "{?").replace("{pal", "{hero").replace("{?", "{pal") for text in THANK
)

# The hero loses {k} of {n}.
LOSE = (
    "{later}, {hero} {moving} ran {place} and lost {k.plain}.",
    "{later}, {hero} fell {place} and lost {k} of the {plain.things}.",
    "there was a hole in the {container.noun}, and {hero} lost {k.plain} {place}.",
    "the wind blew, and {hero} lost {k} of {hero.poss} {plain.things} {place}.",
)
EAT = (
    "{later}, {hero} was hungry and ate {k.plain} {place}.",
    "{later}, {hero} sat {place} and {adv} ate {k} of the {plain.things}.",
    "{hero} {adv} ate {k.plain} because {hero.subj} was hungry.",
)
REMAIN = (
    "now {hero} had only {m.plain} left.",
    "{hero} {adv} counted {hero.poss} {plain.things} and had only {m} left.",
    '"now I have only {m.plain}," {hero.name} said {speaking}.',
    "then there {m.was} only {m.plain} in the {container.noun}.",
    "after that, {hero} had {m.things} and felt {mood}.",
)

# One thing, precious, goes missing and is found again.
TREASURE = (
    "{hero} had a {thing} that {hero.subj} loved very much.",
    "{hero.owner} {relative} gave {hero.obj} a {thing} {season.when}.",
    "{day}, {hero} took {hero.poss} {thing} to the {goal}.",
    "{hero} loved {hero.poss} {thing} and kept it {keeping}.",
    "{day}, {hero} found a {thing} {place} and took it home.",
)
MISSING = (
    "{later}, {hero} could not find the {noun} {spot}.",
    "{later}, the {noun} was gone, and {hero} {adv} ran to the {goal}.",
    "{later}, {hero} {adv} {did} {place} and lost the {noun}.",
    '"where is my {thing}?" {hero.name} asked {hero.poss} {relative}.',
    "{later}, {hero} looked for the {noun} {spot}, but it was not there.",
)
SEARCH = (
    "{hero} {adv} looked {spot} and {spot}, but the {noun} was not there.",
    "{hero} {adv} looked {spot}, and then {hero.subj} looked {spot} {place}.",
    "{hero} looked {spot} {place}, but there was only a {thing2}.",
    "{hero} {adv} looked for the {thing} {place} until {dusk}.",
    "{hero} asked {hero.poss} {adj} {relative}, and {adv} looked {spot} {place}.",
    "there was a {thing2} {spot}, but the {noun} was not there.",
)
HELP = (
    '"can you help me, {pal.call}?" {hero.name} asked {speaking}.',
    '"I can help you, {hero.call}," {pal.name} said {speaking}.',
    "{pal} wanted to help {hero.obj} and {adv} looked {spot}.",
    "{hero} told {pal.obj} about the {thing}, and {pal} was {adj}.",
    '"I will help you," said {pal.name} with a {smile} smile.',
)
FOUND = (
    "{later}, {pal} found the {thing} {spot}.",
    "{pal} looked {spot}, and there was the {thing}!",
    '"I have your {noun}!" said {pal.name}, and {adv} gave it to {hero.obj}.',
    "{later}, {pal} {adv} brought the {noun} to {hero.obj}.",
    "the {thing} was {spot}, and {pal} {adv} gave it to {hero.obj}.",
)
FOUND_ALONE = (
    "{later}, {hero} found the {thing} {spot}.",
    "{hero} looked {spot}, and there was the {thing}!",
    "{later}, {hero} saw the {noun} {spot} and {adv} picked it up.",
)

# Learning something.
WISH = (
    "{hero} wanted to learn to {skill} {place}.",
    "{hero} saw {hero.poss} {adj} {relative} {place} and wanted to learn to {skill} too.",
    '"I want to {skill}," {hero.name} said {speaking} to {hero.poss} {relative}.',
    "{day}, {hero} {adv} tried to {skill} {place}.",
    "{hero} dreamed that {hero.subj} could {skill} {place}.",
)
FAIL = (
    "{hero} {adv} tried {count} times {place}, but it was too {hard}.",
    "{hero} tried {adv} {place}, but {hero.subj} fell and felt {sad}.",
    "at first it was very {hard}, and {hero} sat {place} and was {sad}.",
    "{hero} was {sad} and sat {place} for {count} hours.",
    "{hero} tried every {daypart} {place} for {count} days, but it did not work.",
)
TEACH = (
    '"do not be {sad}, {hero.call}," {pal.name} said {speaking}.',
    '"I can help you, {hero.call}," said {pal.name} with a {smile} smile.',
    "{pal} {adv} helped {hero.obj} {place} for {count} days.",
    "{pal} {adv} showed {hero.obj} how to {skill}.",
    "{later}, {pal} {adv} took {hero.owner} hand and helped {hero.again}.",
    '"look at me," {pal.name} said, and {adv} showed {hero.obj} how to do it.',
)
LEARNED = (
    "{later}, {hero} could {skill} all alone {place}.",
    "after {count} {days}, {hero} could {skill}, and {hero.subj} was very {glad}.",
    '"look, {pal.call}! I can do it!" {hero.name} said {speaking}.',
    "{hero} {adv} tried {place} again, and this time it worked.",
    "at last {hero} could {skill}, and {pal} {did} {place}.",
)

# Watching animals: {n} of them, {k} go away, {m} stay.
WATCH = (
    "{day}, {hero} saw {n.beasts} {stage}.",
    "{later}, {hero} {adv} watched {n.beasts} {stage}.",
    "there were {n.beasts} {stage}, and {hero} {adv} watched them.",
    "{day}, {hero} went to the {goal} and saw {n.beasts} {stage}.",
    "{n.beasts} were {doing} {stage} when {hero} came to the {goal}.",
)
LEAVE = (
    "{later}, {k} of them {away}.",
    "{later}, {k} of the {plain.beasts} {away} to the {goal}.",
    "when {dusk}, {k} of the {plain.beasts} {adv} {away}.",
)
STAY = (
    "then there {m.was} only {m.beasts} {stage}.",
    "now only {m.plainbeasts} stayed {stage}.",
    "the other {m.otherbeasts} stayed {stage} until {dusk}.",
    '"now I see only {m.plainbeasts}," {hero.name} said {speaking}.',
)

# Exchanging one thing for another.
SWAP_WANT = (
    "{hero} had a {thing}, and {pal} had a {thing2}.",
    "{pal} had a {thing2} in a {container}, and {hero} had a {thing}.",
)
SWAP_ASK = (
    '"your {noun} is very {quality}, {hero.call}," {pal.name} said {speaking}.',
    "{pal} {adv} looked at the {thing} and wanted to have it.",
    "{hero} liked the {thing2}, and {pal} liked the {noun}.",
    '"do you want to swap, {pal.call}?" {hero.name} asked {speaking}.',
)
SWAP_DO = (
    "so {hero} gave {pal.obj} the {noun}, and {pal} gave {hero.obj} the {noun2}.",
    "{hero} {adv} swapped {hero.poss} {noun} for the {thing2}.",
    "{later}, {hero} gave the {thing} to {pal.obj} for the {noun2}.",
)
SWAP_NOW = (
    "now {hero} had the {thing2}, and {pal} had the {thing}.",
    "{hero} put the {thing2} {spot}, and {pal} put the {noun} {spot}.",
    "{hero} was {content} with the {thing2}, and {pal} was {content} with the {noun}.",
    "now {pal} had a {thing}, and {hero} had a {noun2}.",
)

# Sharing {n} equally: {k} each.
SHARE = (
    "{they} {adv} shared the {things}, and each had {k}.",
    '"we can share them," {hero.name} said {speaking}. {they} each took {k.plain}.',
    "{hero} gave {k.plain} to {pal.obj} and kept {k}.",
    "{hero} shared the {things} with {pal.obj}, so each of them had {k}.",
)

# A fright, and a rescue.
TROUBLE = (
    "{later}, {pal} fell into a hole {place}.",
    "{later}, a big storm came, and {pal} was lost {place}.",
    "{later}, {pal} could not get down from a tall {height}.",
    "{later}, {pal} was stuck {spot} and could not get out.",
    "{later}, {pal} hurt {pal.poss} foot {place}.",
)
CRY = (
    '"help me, {hero.call}!" {pal.name} cried.',
    "{pal} was {sad} and cried {speaking}.",
    '"I am so {sad}," cried {pal.name}. "please help me, {hero.call}!"',
    "{pal} called {speaking} for {hero.obj}.",
)
RESCUE = (
    "{hero} {moving} ran to the {goal} and brought a {tool}.",
    "{hero} was {adj} and {adv} helped {pal.obj} with a {tool}.",
    "{hero} {adv} took a {tool} and {moving} came to help {pal.obj}.",
    "{hero} {moving} ran to {pal.obj} and carried {pal.again} to the {goal}.",
    "{hero} asked {hero.poss} {relative} for a {tool}, and they helped {pal.obj} {adv}.",
)
SAFE = (
    "now {pal} was safe and {glad}.",
    "at last {pal} was safe, and {they} {moved} home {moving}.",
    "{later}, {pal} was safe {place} and drank warm milk.",
    "{hero} gave {pal.obj} a {foodlike} {food}, and {pal} felt {glad}.",
)
