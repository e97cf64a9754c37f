"""Time expressions: `one sunny morning`, `three days later`, `after a while`."""

from __future__ import annotations

import re

from . import lexicon as lex

_TIME = re.compile(
    r"(once upon a time|long ago|just then|before long|not long after|later that day|after that|"
    r"from that day on|on the way|at (?:first|last|noon)|some time later|all day|"
    r"(?:a (?:moment|little)|an hour) later|after a (?:long walk|short rest|while)|"
    r"after (?:lunch|breakfast)|the day after|that (?:night|afternoon|same day)|"
    r"the next (?:morning|day|evening|afternoon)|(?:two|three) days later|"
    r"(?:after|for) (?:two|three|four|five|six|seven|eight|nine|ten) (?:days|hours|weeks)|"
    r"(?:two|three|four|five|six|seven|eight|nine|ten) times|"
    r"(?:early )?one (?:\w+ )?(?:morning|day|afternoon|evening)|"
    r"on an? \w+ (?:(?:spring|summer|autumn|winter) )?(?:morning|day|afternoon|evening)|"
    r"on (?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day(?: (?:morning|afternoon|evening))?|"
    r"last (?:spring|summer|autumn|winter)|every (?:morning|day|afternoon|evening)|"
    r"in the (?:spring|summer|autumn|winter|morning|afternoon|evening)|"
    r"soon|then|now|this time)(?= |$)"
)


def time_end(tokens: list[str], i: int) -> int | None:
    """The position after a time expression at i, if there is one."""
    match = _TIME.match(" ".join(tokens[i : i + 7]))
    if match is None:
        return None
    words = match[1].split()
    if words[:2] in (["on", "a"], ["on", "an"]):
        expected = "an" if words[2].startswith(lex.VOWELS) else "a"
        if words[1] != expected:
            return None
    described = words[-2] if words[-1] in lex.DAY_PARTS and len(words) > 2 else "warm"
    if words[0] in ("one", "early") and described not in lex.ADJECTIVES | lex.SEASONS | {"one"}:
        return None
    return i + len(words)
