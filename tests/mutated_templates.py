"""Chat templates, changed at random as people change them: a statement more or less, another filter, a dash.

A seed alone decides what comes of it. No change makes a template that runs long: the oracle has no budget.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from lolama_core.protocols.types import Message

ROOT = Path(__file__).resolve().parents[1]
# In the styles of published models.
TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "packages/lolama-core/tests/text/chat_templates").glob("*.jinja"))
}
TOKENS = (
    "<s> </s> <|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|im_start|> <|im_end|> "
    "<|user|> <|assistant|> <|system|> <image> [INST] [/INST] <|endoftext|>"
).split()

# Each may stand anywhere between two tags, also where nothing is a loop's or a message's.
SNIPPETS = [
    "{{ messages | length }}", "{{ messages | tojson }}", "{{ messages | tojson(indent=2) }}",
    "{{ messages[0] | tojson(sort_keys=true) }}", "{{ messages[-1]['content'] | upper }}",
    "{{ messages[0].role | capitalize }}", "{{ messages | map(attribute='role') | join(', ') }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages | rejectattr('role', 'eq', 'system') | map(attribute='role') | list }}",
    "{{ (messages | first).role }}", "{{ (messages | last).role }}", "{{ messages[1:] | length }}",
    "{{ messages[::-1] | map(attribute='role') | join }}", "{{ messages[:1][0].role }}",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.found = true %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.found }}{{ ns.n }}",
    "{% macro show(m, end='!') %}{{ m.role }}{{ end }}{% endmacro %}{{ show(messages[0]) }}"
    "{{ show(messages[-1], end='?') }}",
    "{% macro each() %}{{ varargs | length }}{{ kwargs | length }}{% endmacro %}{{ each(1, 2, a=3) }}",
    "{% macro wrap() %}[{{ caller() }}]{% endmacro %}{% call wrap() %}in{% endcall %}",
    "{% if tools %}tools{% else %}none{% endif %}",
    "{% if tools is defined and tools %}T{% endif %}",
    "{% if documents is none %}no documents{% endif %}", "{{ pad_token is defined }}",
    "{{ nothing }}", "{{ nothing | default('dflt') }}", "{{ '' | default('x', true) }}",
    "{{ none }}", "{{ true }}", "{{ messages[0].nothing }}",
    "{{ messages[0]['nothing'] is defined }}", "{{ messages[0].get('nothing', 'no') }}",
    "{{ messages[99] }}", "{{ messages[99].role }}", "{{ nothing.role }}", "{{ 1 / 0 }}",
    "{{ 'a' + 1 }}", "{{ raise_exception('not this one') }}",
    "{% if messages | length > 3 %}{{ raise_exception('too many') }}{% endif %}",
    "{{ strftime_now('%Y') }}",
    "{% set year = strftime_now('%Y') if strftime_now is defined else '' %}{{ year }}",
    "{% generation %}{{ messages[0].role }}{% endgeneration %}",
    "{% generation %}{% endgeneration %}",
    "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
    "{% for m in messages %}{% if loop.first %}first{% elif loop.last %}last{% endif %}"
    "{{ loop.index0 }}{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role }}{{ loop.nextitem is defined }}"
    "{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% if m.role != 'user' %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
    "{% for m in messages if m.role == 'assistant' %}{{ m.role }}{% else %}nobody{% endfor %}",
    "{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}",
    "{% for key, value in messages[0] | items %}{{ key }}{% endfor %}",
    "{% for key, value in messages[0] | dictsort %}{{ key }}{% endfor %}",
    "{% for i in range(3) %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{{ range(5) | list }}",
    "{% for group in messages | groupby('role') %}{{ group.grouper }}{{ group.list | length }}{% endfor %}",
    "{% for row in range(5) | batch(2, 'x') %}{{ row }}{% endfor %}",
    "{% for row in range(5) | slice(2) %}{{ row }}{% endfor %}", "{{ loop.index }}",
    "{{ message.role }}", "{{ message['content'] }}", "{{ loop_messages | length }}",
    "{% set x = messages[0].role %}{{ x }}{{ x | length }}", "{% set a, b = 1, 2 %}{{ b }}{{ a }}",
    "{% set block %}  kept {{ 1 }}  {% endset %}{{ block }}|{{ block | trim }}",
    "{% set f | upper %}loud{% endset %}{{ f }}", "{% filter upper %}in{% endfilter %}",
    "{% with q = 3 %}{{ q }}{% endwith %}", "{{ 'a-b-c'.split('-') }}",
    "{{ 'a-b-c'.split('-')[-1] }}", "{{ 'a-b'.partition('-') }}", "{{ ' x '.strip() ~ '|' }}",
    "{{ 'xxabxx'.strip('x') }}", "{{ 'abc'.startswith(('a', 'b')) }}",
    "{{ 'abc'.replace('b', 'd') }}", "{{ 'abc'[::-1] }}", "{{ 'abc' in 'xabcx' }}",
    "{{ 'a' ~ 1 ~ none ~ true }}", "{{ 'a' * 3 }}", "{{ '%s-%d' % ('a', 3) }}",
    "{{ '%s' | format('a') }}", "{{ '{}-{x}'.format(1, x=2) }}", "{{ 'aXb'.lower() }}",
    "{{ 'a b'.title() }}", "{{ 'abc'.find('c') }}", "{{ 'a\nb'.splitlines() }}",
    "{{ 'ab'.center(6, '*') }}", "{{ 'abc'.index('q') }}", "{{ 'abc'.removeprefix('a') }}",
    "{{ 'a'.join(['1', '2']) }}", "{{ 'é'.encode() }}", "{{ 'abc'.zfill(5) }}",
    "{{ [1, 2, 3] | sum }}", "{{ [3, 1, 2] | sort }}", "{{ [3, 1] | max }}",
    "{{ [1, 1, 2] | unique | list }}", "{{ ['b', 'A'] | sort(case_sensitive=true) }}",
    "{{ [1, [2, 'x']] }}", "{{ (1, 'a') }}", "{{ (1,) }}", "{{ {'a': [1]} }}",
    "{{ {'a': 1} | tojson }}", "{{ 'é<>&\\'' | tojson }}", "{{ 'é' | tojson(ensure_ascii=true) }}",
    "{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':')) }}",
    "{{ [1.5, 2.0, 1e30, true, none] | tojson }}",
    "{{ 1.0 }}|{{ 7 // 2 }}|{{ 7 / 2 }}|{{ 7 % 3 }}|{{ 2 ** 5 }}|{{ -7 // 2 }}",
    "{{ 3.14159 | round(2) }}", "{{ 42 | string + 'x' }}", "{{ '3' | int + 1 }}",
    "{{ 'x' | int(7) }}", "{{ '1.5' | float }}", "{{ -3 | abs }}", "{{ 'a' | list }}",
    "{{ 'abc' | first }}", "{{ 'abc' | last }}", "{{ 'abc' | reverse }}",
    "{{ [1, 2] | reverse | list }}", "{{ 'a b c' | wordcount }}", "{{ 'hello' | title }}",
    "{{ 'a,b' | replace(',', ';') }}", "{{ '<b>' | escape }}", "{{ '<b>' | e }}",
    "{{ '<b>' | safe }}", "{{ '<b>&' | forceescape }}", "{{ '<p>a</p>' | striptags }}",
    "{{ 'one two three' | truncate(7) }}", "{{ 'one two three' | wordwrap(5) }}",
    "{{ 'a b' | urlencode }}", "{{ 'a\nb' | indent(2) }}", "{{ 'a\nb' | indent(2, true) }}",
    "{{ 12345 | filesizeformat }}", "{{ {'a': 1} | xmlattr }}", "{{ messages | pprint }}",
    "{{ [1, 2] | random is number }}", "{{ 'x' | center(5) }}",
    "{{ messages | attr('append') is callable }}", "{{ 'http://a.b' | urlize }}",
    "{{ messages is iterable }}{{ messages is sequence }}{{ messages is mapping }}{{ messages is string }}",
    "{{ 1 is odd }}{{ 2 is even }}{{ 4 is divisibleby 2 }}{{ 1 is number }}{{ 1.5 is float }}"
    "{{ 1 is integer }}",
    "{{ true is boolean }}{{ true is true }}{{ none is none }}{{ 'a' is lower }}"
    "{{ 'A' is upper }}{{ 'a' is in ['a'] }}",
    "{{ 1 is sameas 1 }}{{ 'x' is filter }}{{ 'upper' is filter }}{{ 'odd' is test }}"
    "{{ messages is callable }}{{ 'a' is escaped }}",
    "{{ 1 is nothing }}", "{{ 'a' | nothing }}", "{% nothing %}", "{% endif %}",
    "{{ 'a' if false }}", "{{ 'a' if true else 'b' }}", "{{ not true or 1 < 2 <= 3 }}",
    "{{ dict(a=1, b='x') }}", "{{ joiner(', ')() }}", "{% set j = joiner('-') %}{{ j() }}{{ j() }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}",
    "{{ lipsum(1) | length > 0 }}", "{{ namespace(a=1).a }}", "{{ namespace(a=1, b=['x']) }}",
    "{% set ns = namespace() %}{% set ns.x = messages[0].role %}{{ ns }}{{ [ns] }}",
    "{{ dict(a=namespace(b=none)) }}{{ namespace() | string | length }}", "{# a note #}",
    "{#- a note -#}", "\n", "  ", "\t\n  \n", "{% raw %}{{ x }}{% endraw %}", "{{ '{{ x }}' }}",
    "{{ \"it's\" }}", "{{ 'a\\nb' }}", "{{ '\\u00e9\\x41' }}", "{{ 'a' 'b' }}", "{{ bos_token }}",
    "{{ eos_token }}", "{{ bos_token + eos_token }}", "{{ '<|im_' ~ 'end|>' }}", "{{ unk_token }}",
    "{{ '<s>' | length }}", "{{ bos_token | length }}", "{{ eos_token[0] }}",
    "{{ eos_token.upper() }}",
    "{% if messages[0].content is string %}text{% else %}parts{% endif %}",
    "{{ messages[0].content[:3] }}", "{{ messages[0].content[2] }}",
    "{{ messages[0].content.split('</think>')[-1].lstrip('\n') }}", "{{ messages.append(1) }}",
    "{{ messages.copy() | length }}", "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages.pop() }}", "{{ messages + [1] | length }}", "{{ (messages + messages) | length }}",
    "{% do messages.append(1) %}", "{% include 'x' %}", "{% import 'x' as y %}",
    "{% extends 'x' %}", "{% block b %}in a block{% endblock %}",
    "{% block b %}{{ messages | length }}{% endblock %}{{ self.b() }}", "{{ super() }}",
    "{% trans %}a{% endtrans %}", "{% debug %}", "{{ self }}", "{{ messages.__class__ }}",
    "{{ ''.__class__.__mro__ }}", "{{ range.__init__ }}", "{{ range }}", "{{ caller }}",
    "{{ namespace }}", "{% set messages = messages[1:] %}",
    "{% set add_generation_prompt = true %}", "{% set eos_token = '' %}",
    "{{ add_generation_prompt }}", "{% for m in messages recursive %}{{ m.role }}{% endfor %}",
    "{% for a in [[1, [2]], [3]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}",
    "{% for m in messages %}{% set last = m.role %}{% endfor %}{{ last }}",
    "{% if true %}{% set inside = 1 %}{% endif %}{{ inside }}",
    "{{ messages | map('upper') | list }}", "{{ ['a', 'b'] | map('upper') | list }}",
    "{{ [0, 1, ''] | select | list }}", "{{ [1, 2, 3] | select('odd') | list }}",
    "{{ messages | map(attribute='nothing') | list }}",
    "{{ messages | map(attribute='nothing', default='d') | list }}",
    "{{ messages | map(attribute='role') }}", "{{ messages | sum(attribute='nothing') }}",
    "{{ messages | sort(attribute='role') | map(attribute='role') | list }}",
    "{{ messages | min(attribute='role') }}",
]  # fmt: skip
FILTERS = [
    "trim", "upper", "lower", "tojson", "string", "length", "title", "capitalize", "default('d')",
    "default('d', true)", "list", "first", "last", "join(' ')", "replace('a', 'b')", "indent(2)",
    "int", "safe", "escape", "reverse", "items", "map('string') | join", "tojson(indent=2)", "sort",
    "unique | list", "select | list", "striptags", "truncate(5)", "wordcount", "center(9)", "count",
    "nope", "trim('u')",
]  # fmt: skip
METHODS = [
    ".strip()", ".lstrip()", ".rstrip('\\n')", ".upper()", ".split()", ".split('\\n')",
    ".split(' ')[0]", "[0]", "[1:]", "[:-1]", "[-1]", "['text']", ".text", ".title()", ".items()",
    ".keys()", ".get('role')", ".replace('e', '')", ".startswith('a')", ".format(1)",
    ".splitlines()", ".nope()", ".count('l')",
]  # fmt: skip
SWAPS = [
    ("==", "!="), (" and ", " or "), ("not ", ""), ("'role'", "'content'"),
    ("'user'", "'assistant'"), ("'system'", "'tool'"), ("content", "role"), ("message", "m"),
    ("[0]", "[1]"), ("[0]", "[-1]"), ("loop.index0", "loop.index"), ("loop.first", "loop.last"),
    ("messages", "messages[1:]"), ("messages", "messages[::-1]"), (" + ", " ~ "), (" ~ ", " + "),
    ("|", "| string |"), ("is not", "is"), (" is string", " is mapping"), ("% 2", "% 3"),
    ("'", '"'), ("\\n", "\n"), ("elif", "else"), ("endfor", "endif"), ("endif", "endfor"),
    ("if ", "if not "), ("set ", ""), ("trim", "upper"), ("false", "true"),
    ("bos_token", "pad_token"), ("eos_token", "eos_token | default('')"),
]  # fmt: skip
_TAGS = re.compile(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", re.DOTALL)


def mutated_template(chance: random.Random) -> str:
    """A template with one to four changes; sometimes a template of snippets alone."""
    if chance.random() < 0.15:
        return "".join(chance.choices(SNIPPETS, k=chance.randint(1, 6)))
    pieces = [piece for piece in _TAGS.split(chance.choice(list(TEMPLATES.values()))) if piece]
    for _ in range(chance.choice([1, 1, 2, 2, 3, 4])):
        _change(pieces, chance)
    return "".join(pieces)


def _change(pieces: list[str], chance: random.Random) -> None:
    """One change, in place."""
    place = chance.randrange(len(pieces))
    piece = pieces[place]
    kind = chance.random()
    if kind < 0.35:
        pieces.insert(place, chance.choice(SNIPPETS))
    elif kind < 0.42:
        if len(pieces) > 1:
            del pieces[place]
    elif kind < 0.47:
        pieces.insert(chance.randrange(len(pieces)), piece)
    elif kind < 0.52:
        other = chance.randrange(len(pieces))
        pieces[place], pieces[other] = pieces[other], piece
    elif kind < 0.64:
        pieces[place] = _whitespace(piece, chance)
    elif kind < 0.84:
        shown = [i for i, each in enumerate(pieces) if each.startswith("{{")]
        if shown:
            place = chance.choice(shown)
            start, inner, end = (
                re.split(r"^(\{\{[-+]?)|([-+]?\}\})$", pieces[place])[1::1][0],
                "",
                "",
            )
            inner = pieces[place][len(start) :]
            closing = re.search(r"[-+]?\}\}$", inner)
            assert closing is not None
            inner, end = inner[: closing.start()].strip(), closing[0]
            if chance.random() < 0.5:
                change = f"{inner} | {chance.choice(FILTERS)}"
            elif chance.random() < 0.5:
                change = f"({inner}){chance.choice(METHODS)}"
            else:
                change = inner + chance.choice(METHODS)
            pieces[place] = f"{start} {change} {end}"
    else:
        source = "\0".join(pieces)
        usable = [swap for swap in SWAPS if swap[0] in source]
        if usable:
            old, new = chance.choice(usable)
            parts = source.split(old)
            cut = chance.randrange(1, len(parts))
            source = old.join(parts[:cut]) + new + old.join(parts[cut:])
            pieces[:] = source.split("\0")


def _whitespace(piece: str, chance: random.Random) -> str:
    """Whitespace control of a tag put in or taken away; of text, another whitespace."""
    if not piece.startswith("{"):
        return chance.choice(
            [piece.strip(), piece + "\n", "  " + piece, "\n\n" + piece, piece.replace("\n", "\r\n")]
        )
    start, inner, end = piece[:2], piece[2:-2].strip("-+"), piece[-2:]
    return (
        start
        + chance.choice(["", "-", "+"])
        + inner
        + chance.choice(["", "-", "+" if start == "{%" else ""])
        + end
    )


def _talk(*contents: str, system: str | None = None) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": system}] if system is not None else []
    for number, content in enumerate(contents):
        messages.append({"role": "assistant" if number % 2 else "user", "content": content})
    return messages


_IMAGE: list[Message] = [
    {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "image"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A fox"}]},
    {"role": "user", "content": [{"type": "text", "text": "And this?"}]},
]
CONVERSATIONS: list[list[Message]] = [
    _talk("Hello, who are you?"),
    _talk(" spaced \n", "\n yes\n", "and\n\nthen?", system="Be kind. "),
    _talk(
        "a < b > c 'q' \"r\" \\n {{ x }}", "<think>\nhm\n</think>\n\nnaïve 漢字 🙂", "é\r\n\tend"
    ),
    _IMAGE,
]
