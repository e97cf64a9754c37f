from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import transformers

from lolama_core import Tokenizer
from lolama_core.protocols.errors import EXIT_MODEL, ModelError
from lolama_core.protocols.types import Message
from lolama_core.testing.promises import Promises
from lolama_core.text import template_budget
from lolama_core.text.chat_template import ChatTemplate

SPECIALS = (
    "<s> </s> <|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|im_start|> <|im_end|> "
    "<|user|> <|assistant|> <|system|> <image> [INST] [/INST] <|endoftext|>"
).split()

# In the styles of published models, written for these tests.
TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted(Path(__file__).with_name("chat_templates").glob("*.jinja"))
}
PARTS_TEMPLATE = TEMPLATES.pop("llava")


def conversation(*contents: str, system: str | None = None) -> list[Message]:
    roles = ["user", "assistant"] * len(contents)
    messages: list[Message] = [{"role": "system", "content": system}] if system is not None else []
    return messages + [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=False)
    ]


CONVERSATIONS = [
    conversation("Hello, who are you?"),
    conversation("  spaced  out \n", "\n yes \n\n", "and\n\nthen?"),
    conversation("hi", "<think>\nhm\n</think>\n\nhello", "again", system="Be kind. "),
    conversation(
        "a < b > c [d] {{ bos_token }} {% x %} 'q' \"r\" \\n", "naïve 漢字 🙂\r\n\t", "", system="é"
    ),
    conversation("<think>typed</think>", "no", "x" * 3000),
]


@pytest.fixture(scope="module")
def tokenizer_json(byte_level_json: str) -> str:
    native = tokenizers.Tokenizer.from_str(byte_level_json)
    native.add_special_tokens(SPECIALS)
    return str(native.to_str())


@pytest.fixture(scope="module")
def reference(tokenizer_json: str) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer_json),
        bos_token="<s>",
        eos_token="</s>",
    )


def check(source: str, messages: list[Message], tokenizer_json: str, reference: Any) -> None:
    """The same text and the same ids as transformers gives."""
    ours = Tokenizer(tokenizer_json, chat_template=source, bos_token="<s>", eos_token="</s>")
    for prompt in (True, False):
        settings = {"chat_template": source, "add_generation_prompt": prompt}
        text = ChatTemplate(source).render(
            messages,
            add_generation_prompt=prompt,
            control_tokens={token: token for token in SPECIALS},
            special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
        )
        assert text == reference.apply_chat_template(messages, tokenize=False, **settings)
        assert ours.render_chat(
            messages, add_generation_prompt=prompt
        ) == reference.apply_chat_template(messages, tokenize=True, return_dict=False, **settings)


@pytest.mark.parametrize("index", range(len(CONVERSATIONS)))
@pytest.mark.parametrize("name", TEMPLATES)
def test_equals_transformers(name: str, index: int, tokenizer_json: str, reference: Any) -> None:
    check(TEMPLATES[name], CONVERSATIONS[index], tokenizer_json, reference)


def test_parts_equal_transformers(tokenizer_json: str, reference: Any) -> None:
    messages: list[Message] = [
        {"role": "system", "content": [{"type": "text", "text": "Look well."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A fox"}]},
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "image"},
                {"type": "text", "text": "And <these>?"},
            ],
        },
    ]
    check(PARTS_TEMPLATE, messages, tokenizer_json, reference)


def render(source: str, messages: list[Message] | None = None, **controls: str) -> str:
    return ChatTemplate(source).render(
        messages or conversation("hello"),
        add_generation_prompt=True,
        control_tokens={"</s>": "[END]", "<s>": "[BEGIN]"},
        special_tokens=controls,
    )


@pytest.mark.parametrize("name", ["llama-2", "mistral"])
def test_a_template_may_refuse(name: str) -> None:
    messages = [*conversation("a"), *conversation("b")]
    with pytest.raises(ModelError, match=r"refuses this conversation: .*must alternate"):
        render(TEMPLATES[name], messages, bos_token="<s>", eos_token="</s>")


def test_strftime_now() -> None:
    today = {datetime.now().strftime("%d %b %Y")}
    text = render("{{ strftime_now('%d %b %Y') }}")
    assert text in today | {datetime.now().strftime("%d %b %Y")}


def test_only_the_templates_own_control_tokens_are_replaced() -> None:
    source = "<s>{{ messages[0].content }}</s>{{ eos_token }}"
    assert render(source, conversation("a</s>b"), eos_token="</s>") == "[BEGIN]a</s>b[END][END]"
    assert render(source, conversation("</</s>s>"), eos_token="") == "[BEGIN]</</s>s>[END]"
    assert render(source, conversation("a<"), eos_token="") == "[BEGIN]a<[END]"
    assert render(source, conversation("</s"), eos_token="") == "[BEGIN]</s[END]"


def test_roles_are_structure_not_text() -> None:
    """A template compares them, also if a control token begins like one."""
    source = "{% for m in messages if m.role == 'user' %}<s>{{ m.content }}{% endfor %}"
    for text in ("you there", "u>", "use <u>u>"):
        rendered = ChatTemplate(source).render(
            conversation(text),
            add_generation_prompt=True,
            control_tokens={"<s>": "[BEGIN]", "u>": "[U]"},
        )
        assert rendered == "[BEGIN]" + text


def test_private_characters_of_users_survive() -> None:
    """The mark that keeps texts apart is one that no message holds."""
    text = "".join(map(chr, range(0xF0000, 0xF0010))) + "</s>"
    assert render("{{ messages[0].content }}", conversation(text)) == text


def test_row_143_a_message_printed_as_a_value_is_itself() -> None:
    """The text of a list spells strange characters out, and the mark is one."""
    for source in (
        "{{ messages }}",
        "{{ messages | tojson(ensure_ascii=true) }}",
        "{{ messages | tojson }}",
        "{{ messages | string | upper }}",
        "{{ '%r' % messages[0].content }}",
        "{{ '%a' % messages[0].content }}",
    ):
        plain = conversation("a <b> \\U000f0000 \\udb80\\udc00")
        typed = conversation("a </s> \\U000f0000 \\udb80\\udc00")
        expected = render(source, plain).replace("<b>", "</s>").replace("<B>", "</S>")
        assert render(source, typed) == expected


def test_messages_are_not_changed() -> None:
    messages = conversation("</s> <s>", "b")
    before = [dict(message) for message in messages]
    render("{% for m in messages %}{{ m.content }}{% endfor %}", messages)
    assert messages == before


def test_a_long_conversation_is_within_the_budget() -> None:
    """200 turns of 5,000 characters, more than any context holds, in every style."""
    messages = conversation(*["word <b> " * 555] * 201)
    for name in ("llama-2", "llama-3", "chatml", "mistral", "qwen-3"):
        text = render(TEMPLATES[name], messages, bos_token="<s>", eos_token="</s>")
        assert len(text) > 950_000


def test_rendering_again_begins_a_new_budget() -> None:
    template = ChatTemplate("{{ 'a' * 600000 }}")
    for _ in range(100):
        text = template.render(conversation("x"), add_generation_prompt=True, control_tokens={})
        assert len(text) == 600_000


# ---------------------------------------------------------------------------------- hostile templates


def loop(start: str, step: str, end: str, times: int = 60) -> str:
    """``step`` again and again; with a doubling one, 2^60."""
    return f"{{% set ns = namespace({start}) %}}{{% for i in range({times}) %}}{step}{{% endfor %}}{end}"


HOSTILE = {
    # reaching Python
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['__builtins__'] }}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "macro": "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__ }}",
    "attr filter": "{{ messages | attr('__class__') }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends 'x' %}",
    # changing what it was given
    "append": "{{ messages.append(1) }}",
    "update": "{{ messages[0].update({'role': 'system'}) }}",
    "pop": "{{ messages[0].pop('role') }}",
    "clear": "{{ messages.clear() }}",
    "setitem": "{{ messages[0].__setitem__('role', 'system') }}",
    # numbers
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": loop("x=9", "{% set ns.x = ns.x * ns.x %}", "{{ ns.x }}"),
    "division": "{{ 1 / 0 }}",
    "infinity": "{{ (1e308 * 10) | int }}",
    "range": "{% for a in range(999999999) %}{% endfor %}",
    # time
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "long loops": "{% for a in 'ab' * 400000 %}{% for b in 'ab' * 400000 %}{% endfor %}{% endfor %}",
    "calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "search": "{% set x = 'a' * 900000 %}{% for i in range(99999) %}{{ 'b' in x }}{% endfor %}",
    "backwards": "{{ ('a' * 1000000).rfind('ab' + 'a' * 400000) }}",
    "rsplit": "{{ ('a' * 1000000).rsplit('ab' + 'a' * 400000) }}",
    "generators": "{{ range(99999) | map('string') | map('upper') | join('x' * 1000) }}",
    "sorting": "{{ ('ab' * 450000) | sort | length }}",
    # memory
    "10^8": "{{ 'a' * 100000000 }}",
    "10^8 in pieces": "{% for i in range(10000) %}{{ 'a' * 10000 }}{% endfor %}",
    "10^8 of a list": "{{ ['a' * 10000] * 10000 }}",
    "10^8 joined": "{{ ['a' * 900000, 'b'] | join('x' * 900000) }}",
    "10^8 with ~": "{% set x = 'a' * 999999 %}{{ x ~ x ~ x }}",
    "repeated list": "{{ ([[]] * 999999) | length }}",
    "slices": "{% set x = 'a' * 900000 %}"
    + "".join(f"{{% set a{i} = x[1:] %}}" for i in range(300)),
    "filters": "{% set x = 'a' * 900000 %}"
    + "".join(f"{{% set a{i} = x | upper %}}" for i in range(300)),
    "variables": "".join(f"{{% set a{i} = 'a' * 900000 ~ {i} %}}" for i in range(300)),
    "blocks": "{% set x = 'a' * 900000 %}"
    + "".join(f"{{% set a{i} %}}{{{{ x }}}}b{{% endset %}}" for i in range(300)),
    "growing list": loop("x=[]", "{% set ns.x = ns.x + ['a' * 900] %}", "", 99999),
    "doubling +": loop("x='ab'", "{% set ns.x = ns.x + ns.x %}", ""),
    "doubling ~": loop("x='ab'", "{% set ns.x = ns.x ~ ns.x %}", ""),
    "doubling join": loop("x='ab'", "{% set ns.x = [ns.x, ns.x] | join %}", ""),
    "doubling .join": loop("x='ab'", "{% set ns.x = ns.x.join(['', '', '']) %}", ""),
    "doubling replace": loop("x='ab'", "{% set ns.x = ns.x.replace('a', 'aa') %}", ""),
    "doubling | replace": loop("x='ab'", "{% set ns.x = ns.x | replace('a', 'aab') %}", ""),
    "doubling tojson": loop("x='\"'", "{% set ns.x = ns.x | tojson %}", ""),
    "doubling indent": loop("x='a\\na'", "{% set ns.x = ns.x | indent(ns.x) %}", ""),
    "doubling block": loop(
        "x='ab'", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}", ""
    ),
    "doubling macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}"
    + loop("x='ab'", "{% set ns.x = f(ns.x) %}", ""),
    "list printed": loop("x=[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x }}"),
    "tuple as text": loop("x=[1]", "{% set ns.x = (ns.x, ns.x) %}", "{{ ns.x | string }}"),
    "dict as JSON": loop("x={}", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}", "{{ ns.x | tojson }}"),
    "items": loop("x={}", "{% set ns.x = {'a': ns.x, 'b': ns.x}.items() %}", "{{ ns.x }}"),
    "list * ": loop("x=[1]", "{% set ns.x = [ns.x] * 2 %}", "{{ ns.x | upper }}"),
    "lists compared": loop(
        "x=[1], y=[1]",
        "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}",
        "{{ ns.x == ns.y }}",
    ),
    "arguments compared": "{% macro f() %}{% set ns.x = varargs %}{% endmacro %}"
    "{% macro g() %}{% set ns.y = varargs %}{% endmacro %}"
    + loop("x=[1], y=[1]", "{{ f(ns.x, ns.x) }}{{ g(ns.y, ns.y) }}", "{{ ns.x < ns.y }}"),
    "namespaces": loop("x=1", "{% set ns.x = namespace(a=ns.x, b=ns.x) %}", "{{ ns.x }}"),
    "namespace in itself": "{% set a = namespace() %}{% set a.x = [a, a] %}{% set a.y = [a, a] %}{{ a }}",
    "deep list": loop("x=[]", "{% set ns.x = [ns.x] %}", "{{ ns.x }}", 99999),
    # widths
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "format_map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "center": "{{ 'a'.center(1000000000) }}",
    "center filter": "{{ 'a' | center(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "translate": "{{ 'a'.translate({97: 'b' * 1000000}) }}",
    "encode": "{{ 'a'.encode() }}",
    "indent": "{{ ('a\n' * 100000) | indent(1000000000) }}",
    "JSON indent": "{{ messages | tojson(indent=1000000000) }}",
    "JSON indent text": "{{ messages | tojson(indent='x' * 900000) }}",
    "JSON separators": "{{ ([1] * 9999) | tojson(separators=['x' * 900000, ':']) }}",
    "wordwrap": "{{ ('a ' * 1000) | wordwrap(1) }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "width of a value": "{{ '%*d' % (1000000000, 1) }}",
    "precision": "{{ '%.1000000000f' % 1.5 }}",
    "nested width": "{{ '{:{}}'.format(1, 1000000000) }}",
    "nested name": "{{ '%(a(b))1000000000d' % {'a(b)': 1} }}",
    "percent many times": "{{ ('%(a)s' * 5000) % {'a': 'x' * 900000} }}",
    "format many times": "{{ ('{0}' * 5000).format('x' * 900000) }}",
    "format of parts": "{{ ('{0[0]}' * 5000).format(['x' * 900000]) }}",
    "escaped": "{{ ('%r' * 40) % ('\U0001f600' * 900000,) }}",
    "center in a loop": "{% for i in range(9999) %}{{ 'a'.center(900000) }}{% endfor %}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "rpartition": "{{ ('a' * 1000000).rpartition('ab' + 'a' * 400000) }}",
    "round": "{{ 5 | round(-1000000000) }}",
    "ceil": "{{ 5.5 | round(1000000000, 'ceil') }}",
    "powers": loop("x=3", "{% set ns.x = ns.x ** 3 %}", "{{ ns.x }}"),
    "power of a float": "{{ 10.0 ** 100000 }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "sum of lists": "{{ ([[1] * 9999] * 999) | sum(start=[]) | length }}",
    "doubling format": loop("x='ab'", "{% set ns.x = '{0}{0}'.format(ns.x) %}", ""),
    "doubling percent": loop("x='ab'", "{% set ns.x = '%s%s' % (ns.x, ns.x) %}", ""),
    "format reaching Python": "{{ '{0.__class__.__mro__}'.format('').upper() + 1 }}",
    "percent reaching Python": "{{ '%(__class__)s' % '' }}",
    # the source itself
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "recursive loop": "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "negations": "{{ " + "not " * 5000 + "1 }}",
    "sums": "{{ " + "1 + " * 5000 + "1 }}",
    "conditions": "{% if x %}" * 1000 + "{% endif %}" * 1000,
    "nested loops": "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
    "so much to compile": "{{ x }}" * 100_000,
    "too long": " " * 1_000_001,
    "not Jinja": "{% if %}",
    "unknown tag": "{% include_raw %}",
    "unclosed": "{{ 'a",
    "unknown function": "{{ nope() }}",
    "wrong types": "{{ 'a' + 1 }}",
    "index": "{{ messages[0].content.index('zzz') }}",
    "no Unicode": "{{ '\\ud800' }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error, after a thousand steps at most: each counts as a millisecond of the second they have."""
    steps = itertools.count()

    def clock() -> float:
        return next(steps) / 1000

    monkeypatch.setattr(template_budget, "time", SimpleNamespace(thread_time=clock))
    messages = conversation("hello </s", "hi")
    with pytest.raises(ModelError) as caught:
        render(HOSTILE[name], messages)
    assert next(steps) <= 1000 + 3  # two for the beginning, and the one that is too many
    assert caught.value.exit_code == EXIT_MODEL
    assert caught.value.subject == "chat template"
    assert len(str(caught.value)) < 400
    assert messages == conversation("hello </s", "hi")


class Meanwhile:
    """A value whose text a template asks for: something else happens first."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens

    def __str__(self) -> str:
        self.happens()
        return "told"


def test_row_425_time_in_which_nothing_is_computed_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that is stopped, or that others keep waiting, is not the template's fault."""
    monkeypatch.setattr(template_budget, "_SECONDS", 0.2)
    wait: Any = Meanwhile(lambda: sleep(0.4))
    source = "{{ bos_token }}{% for message in messages %}, {{ message.content }}{% endfor %}"
    assert render(source, conversation("hello"), bos_token=wait) == "told, hello"


def test_row_442_threads_that_render_one_template_have_a_budget_each() -> None:
    """A short conversation, rendered in the midst of a long one, allows no more than it needs itself."""
    template = ChatTemplate("{{ bos_token }}{{ messages[0].content }}")

    def render_it(content: str, bos: Any) -> str:
        return template.render(
            conversation(content),
            add_generation_prompt=True,
            control_tokens={},
            special_tokens={"bos_token": bos},
        )

    def other() -> None:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(render_it, "short", "").result(60) == "short"

    long = "x" * 2_000_000
    assert render_it(long, Meanwhile(other)) == "told" + long


# Parts of Jinja that templates of transformers may use.
PARTS = [
    "{{ [1, 2] | max }} {{ ['b', 'A'] | min }} {{ [] | max }} {{ messages | max(attribute='role') }}",
    "{{ [1, 2.5] | sum }} {{ [[1], [2]] | sum(start=[]) }} {{ [{'a': 2}] | sum(attribute='a') }}",
    "{{ 2.5 | round | int }} {{ 2.345 | round(2) }} {{ 2.1 | round(method='ceil') }} {{ 15 | round(-1) }}",
    "{{ -2 | abs }} {{ (-2.5) | abs }} {{ 'a b, c' | wordcount }}",
    "{{ range(5) | batch(2) | list }} {{ range(5) | batch(2, 'x') | list }}",
    "{{ range(5) | slice(2) | list }} {{ range(5) | slice(2, 'x') | list }}",
    "{% for role, group in messages | groupby('role') %}{{ role }}{{ group | length }}{% endfor %}",
    "{{ '%s: %d, %05.1f' % ('a', 3, 2.25) }} {{ '%(a)s%%' % {'a': 1} }} {{ '%s' % [1] }} {{ 7 % 4 }}",
    "{{ '{}: {:>5} {a!r:.2}'.format('x', 3, a='yes') }} {{ '{0[0]}'.format([1]) }} {{ '{{}}'.format() }}",
    "{{ '{a}'.format_map({'a': 1}) }}",
    "{{ '%s-%s' | format('a', 1) }} {{ '%(a)s' | format(a=2) }}",
    "{{ 'a:b:c'.partition(':') }} {{ 'a:b:c'.rpartition(':')[0] }} {{ '7'.zfill(3) }}",
    "{{ 'a'.center(5, '*') }} {{ 'a'.ljust(3) }}| {{ 'a'.rjust(3) }} {{ 'a' | center(5) }}|",
    "{{ 2 ** 3 }} {{ 2 ** -1 }} {{ 2.0 ** 0.5 }} {{ 2 ** 100 }} {{ 0 ** 0 }}",
    "{% set j = joiner(', ') %}{% for m in messages %}{{ j() }}{{ m.role }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}",
    "{{ 'aB'.swapcase() }} {{ 'ß'.casefold() }} {{ 'a1'.isalnum() }} {{ 'aba'.rindex('a') }}",
    "{{ 'x'.isascii() }} {{ 'a b'.istitle() }} {{ {'a': 1}.copy() }} {{ '5'.isdecimal() }}",
    "{{ '{:%}'.format(0.5) }} {{ '%%' % () }} {{ '%c' % 'x' }} {{ '%x' % 255 }} {{ '{:,}'.format(12345) }}",
    "{{ messages[0].content ~ ('%s' % messages[0].content) ~ '{}'.format(messages[0].content) }}",
]


@pytest.mark.parametrize("source", PARTS)
def test_row_127_parts_of_jinja_equal_transformers(source: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = conversation("hello </s> you", "hi", "and", system="é")
    expected = render_jinja_template([messages], chat_template=source)[0][0]
    assert render(source, messages) == expected


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{{ 'a' | urlencode }}", "the filter urlencode"),
        ("{{ 'a' | wordwrap(3) }}", "the filter wordwrap"),
        ("{{ [1] | random }}", "the filter random"),
        ("{{ '<' | e }}", "the filter e"),
        ("{{ 'a'.encode() }}", "the method encode"),
        ("{{ 'a'.expandtabs() }}", "the method expandtabs"),
        ("{{ '%*d' % (3, 1) }}", "a width that is a value"),
        ("{{ '{:{}}'.format(1, 3) }}", "a width that is a value"),
    ],
)
def test_row_127_what_is_left_out_is_named(source: str, what: str) -> None:
    with pytest.raises(ModelError, match=f"uses {what}, which is not supported here"):
        render(source)
    # It is an error where it is used, not where it stands.
    assert render("{% if false %}" + source + "{% endif %}x") == "x"


@pytest.mark.parametrize("value", ["1", "none", "[]", "messages", "nothing"])
def test_row_422_what_is_no_text_is_not_indented(value: str) -> None:
    assert render("{{ messages[0].content | indent }}")
    with pytest.raises(ModelError):
        render(f"{{{{ {value} | indent(2) }}}}")


def test_row_127_an_unknown_filter_is_no_jinja() -> None:
    with pytest.raises(ModelError, match="is not valid: No filter named 'nope'"):
        render("{{ 'a' | nope }}")


@pytest.mark.promise
def test_row_55_a_hostile_template_is_refused_soon(promises: Promises) -> None:
    for name, source in HOSTILE.items():
        with promises.within(2, "a hostile template", name), pytest.raises(ModelError):
            render(source, conversation("hello </s", "hi"))


INNOCUOUS = {
    "{{ messages.__class__ }}": "",  # what may not be seen is undefined
    "{{ ''['__class__'] }}": "",
    "{% for a in [1] %}{{ loop.__class__ }}{% endfor %}": "",
    "{{ self._TemplateReference__context }}": "",
    "{{ messages | map(attribute='__class__') | map('string') | join }}": "",
    "{{ strftime_now('%1000000000Y') | length < 1000 }}": "True",
    "{{ ('9' * 900000) | int }}": "0",
    "{{ 'a' * -5 }}": "",
}


@pytest.mark.parametrize("source", INNOCUOUS)
def test_tricks_that_lead_nowhere(source: str) -> None:
    assert render(source) == INNOCUOUS[source]


@pytest.mark.parametrize(
    "source",
    [
        "{{ namespace(a=1, b=['x', none]) }}",
        "{% set ns = namespace() %}{% set ns.role = messages[0].role %}{{ ns }}{{ [ns, {'n': ns}] }}",
        "{{ namespace() | string | length }}{{ 'a' ~ namespace(b=namespace(c=1)) }}",
        "{{ '%s' % namespace(a=1) }}{{ '{}'.format(namespace(a=1)) }}{{ [namespace()] | join }}",
    ],
)
def test_row_201_a_namespace_that_is_printed_says_what_it_holds(
    source: str, reference: Any
) -> None:
    messages = conversation("hello")
    expected = reference.apply_chat_template(messages, chat_template=source, tokenize=False)
    assert render(source, messages) == expected


def test_row_201_what_is_left_out_says_so() -> None:
    with pytest.raises(ModelError, match="uses lipsum, which is not supported here"):
        render("{{ lipsum(1) }}")


GREEDY = [
    *(name for name in HOSTILE if "10^8" in name or "doubling" in name),
    *("slices", "filters", "variables", "blocks", "sorting", "growing list"),
    *("JSON separators", "JSON indent text", "indent", "format", "percent many times", "batch"),
    *(
        "format many times",
        "format of parts",
        "escaped",
        "center in a loop",
        "slice",
        "sum of lists",
    ),
]


@pytest.mark.parametrize("name", GREEDY)
def test_hostile_templates_take_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            render(HOSTILE[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6
