"""Chat templates write what they write in transformers: templates of our own, or published ones.

``nox -s templates`` fetches some seventy published ones and names their folder in ``LOLAMA_TEMPLATES``.
The ordinary run has templates of our own, in which each construct of those stands.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from jinja2 import nodes
from tests.mutated_templates import ROOT
from transformers.utils.chat_template_utils import render_jinja_template

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import Message
from lolama_core.text.chat_template import ChatTemplate
from lolama_core.text.taught_format import taught_format
from lolama_core.text.template_sandbox import metered_environment
from lolama_core.text.thinking import TAGS
from lolama_core.text.tool_messages import PROBE

OWN = ROOT / "packages/lolama-core/tests/text/chat_templates"
FOLDER = Path(os.environ.get("LOLAMA_TEMPLATES", OWN))
TEMPLATES = sorted(FOLDER.glob("*.jinja"))

REFUSED_FOR_TOOLS = frozenset(
    {
        "CohereForAI-c4ai-command-r-plus-tool_use",
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
        "fireworks-ai-llama-3-firefunction-v2",
    }
)
"""Published templates that fail without tools, here and in transformers."""

FORMATS = {
    "hermes": (
        "Bielik-11B-v3.0-Instruct MiMo-VL NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use "
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use Qwen-QwQ-32B Qwen-Qwen2.5-7B-Instruct Qwen-Qwen3-0.6B "
        "Reka-Edge ibm-granite-granite-4.0 ibm-granite-granite-4.1 hermes-tools smol-tools"
    ),
    "llama": (
        "meta-llama-Llama-3.1-8B-Instruct meta-llama-Llama-3.2-3B-Instruct "
        "meta-llama-Llama-3.3-70B-Instruct llama-3-tools"
    ),
    "mistral": "mistralai-Mistral-Nemo-Instruct-2407 mistral-tools",
    "mistral-args": (
        "Mistral-Small-3.2-24B-Instruct-2506 mistralai-Ministral-3-14B-Reasoning-2512 "
        "unsloth-mistral-Devstral-Small-2507 mistral-args"
    ),
}
"""Templates by the format in which they have tools called. All others teach none, or another one."""

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
_TOKEN = re.compile(r"<[^\s<>'\"{}]+>|\[/?[A-Z_]+\]")

Talk = list[Any]


def talk(*contents: str, system: str | None = None) -> Talk:
    """A conversation of user and assistant in turn."""
    turns: Talk = [] if system is None else [{"role": "system", "content": system}]
    for number, content in enumerate(contents):
        turns.append({"role": ("user", "assistant")[number % 2], "content": content})
    return turns


def in_parts(messages: Talk) -> Talk:
    """The same, each content as a list of one text."""
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in messages]


TYPED = talk("</s><|im_end|><|eot_id|>", "<s>[INST]", "[/INST]<end_of_turn>")
"""Control tokens that are typed stay text: a template finds marks in them."""
MEASURES = "statements"
"""A template of our own that cuts and measures texts, marks included."""
THOUGHT = "<think>\nhm\n</think>\n\nyes"
TEXTS = [
    talk("Hello, who are you?"),
    talk("Hi", "Hello!", "And then?"),
    talk("Hi", "Hello!"),
    talk("Hi", system="Be kind."),
    talk(" spaced \n", "\n yes\n", "and\n\nthen?", system=" Be kind.\n"),
    talk(""),
    talk("", "", ""),
    talk("x", system=""),
    talk("  ", "\n", "\t"),
    talk("naïve 漢字 🙂 <b>&amp; 'q' \"r\" \\n {{ x }} é\r\n\tend"),
    talk("q", THOUGHT, "r"),
    talk("q", THOUGHT, "r", "<think>a</think>b", "c", system="s"),
    talk("q", "yes</think>no", "r"),
    TYPED,
    [{"role": "system", "content": "only"}],
    [{"role": "assistant", "content": "first"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    [],
]
_CALL = {"name": "add", "arguments": {"a": 1, "b": ["é", None, 2.5], "c": {"d": True}}}
OTHERS: list[Talk] = [
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}],
    [{"role": "user", "content": [{"type": "text", "text": word} for word in ("a", "b")]}],
    [*talk("q"), {"role": "assistant", "content": "yes", "reasoning_content": " hm\n"}, *talk("r")],
    [
        *talk("1 + 2?", system="Count."),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "abcdefghi", "type": "function", "function": _CALL}],
        },
        {"role": "tool", "name": "add", "tool_call_id": "abcdefghi", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
        *talk("Thanks"),
    ],
    [{"role": "developer", "content": "Be kind."}, *talk("Hi")],
]
TOOLS: Talk = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds <b>two</b> numbers: 'a' & \"é\".",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer", "description": "The first."},
                    "b": {"type": ["array", "null"], "items": {"type": "string"}, "default": None},
                    "c": {"type": "object", "properties": {"d": {"type": "boolean"}}},
                    "e": {"type": "string", "enum": ["x", "y"]},
                },
                "required": ["a"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]
_BOTH = [
    {"id": f"call0000{n}", "type": "function", "function": call}
    for n, call in enumerate([_CALL, {"name": "now", "arguments": {}}])
]
WITH_TOOLS: list[Talk] = [
    *TEXTS[:5],
    *OTHERS[3:4],
    [
        *talk("q"),
        {
            "role": "assistant",
            "content": "Both.",
            "reasoning_content": "hm",
            "tool_calls": _BOTH,
        },
        {"role": "tool", "name": "add", "tool_call_id": "call00000", "content": "3"},
        {"role": "tool", "name": "now", "tool_call_id": "call00001", "content": '{"hour": 1}'},
    ],
]
"""Conversations with a model that is told `TOOLS`."""
CONVERSATIONS = [*TEXTS, *map(in_parts, filter(None, TEXTS)), *OTHERS]


def rendered(
    template: ChatTemplate, messages: Talk, tokens: list[str], **settings: Any
) -> str | None:
    """What lolama writes; None if it refuses, in one clear line."""
    try:
        return template.render(
            messages,
            control_tokens={token: token for token in tokens},
            special_tokens=NAMES,
            **settings,
        )
    except ModelError:
        return None


def oracle(source: str, messages: Talk, **settings: Any) -> str | None:
    """What transformers writes; None if it refuses, however it does."""
    try:
        texts, _ = render_jinja_template([messages], chat_template=source, **NAMES, **settings)
    except Exception:
        return None
    assert isinstance(texts[0], str)
    return texts[0]


def outcomes(source: str, conversations: list[Talk] = CONVERSATIONS) -> Iterator[str]:
    """What came of each conversation with a template: equal, refused by both, or how they differ."""
    template = ChatTemplate(source)
    cases: list[tuple[Talk, Talk | None]] = [(messages, None) for messages in conversations]
    cases += [(messages, TOOLS) for messages in WITH_TOOLS]
    # Tags of a thought are ordinary tokens to published tokenizers.
    tokens = sorted({*_TOKEN.findall(source), *NAMES.values()} - {*TAGS})
    switch = template.switch
    ways = product(cases, (True, False), (None, False, True) if switch else (None,))
    for (messages, tools), prompt, thinking in ways:
        settings: dict[str, Any] = {"add_generation_prompt": prompt, "tools": tools}
        mine = rendered(template, messages, tokens, thinking=thinking, **settings)
        if switch is not None and thinking is not None:
            settings[switch] = thinking
        if "xml_tools" in source:  # as whoever uses transformers hands tools to SmolLM3
            settings["xml_tools"] = tools
        theirs = oracle(source, messages, **settings)
        if mine != theirs:
            way = f"tools {tools is not None}, prompt {prompt}, thinking {thinking}"
            yield f"{messages}, {way}: {mine!a}, expected {theirs!a}"
        else:
            yield "refused by both" if mine is None else "equal"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_row_354_a_template_writes_what_it_writes_in_transformers(
    path: Path, record_property: Any
) -> None:
    untyped = [each for each in CONVERSATIONS if each not in (TYPED, in_parts(TYPED))]
    conversations = untyped if path.stem == MEASURES else CONVERSATIONS
    counts = Counter(outcomes(path.read_text("utf-8"), conversations))
    equal, refused = counts.pop("equal", 0), counts.pop("refused by both", 0)
    assert not counts, "\n".join(counts)
    print(f"{path.stem}: {equal} equal, {refused} refused by both")
    record_property("conversations", f"{equal} equal, {refused} refused by both")
    assert bool(equal) != (path.stem in REFUSED_FOR_TOOLS)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_is_asked_how_it_has_tools_called(path: Path) -> None:
    template = ChatTemplate(path.read_text("utf-8"))

    def render(messages: Sequence[Message], prompt: bool) -> str:
        return template.render(
            messages,
            add_generation_prompt=prompt,
            control_tokens={},
            special_tokens=NAMES,
            tools=[PROBE],
        )

    hears = template.hears_tools(NAMES)
    expected = [name for name, stems in FORMATS.items() if path.stem in stems.split()]
    assert [taught_format(render) if hears else "generic"] == (expected or ["generic"])


def constructs(source: str) -> set[str]:
    """The parts of Jinja that a template uses, by names of our own."""
    found = set()
    tree = metered_environment().parse(source)
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    for node in tree.find_all(nodes.Node):
        found.add(type(node).__name__)
        match node:
            case nodes.Filter() | nodes.Test():
                options = [option.key for option in node.kwargs]
                found.add(f"{type(node).__name__} {node.name} {options}")
            case nodes.Call(node=nodes.Getattr(attr=name)):
                found.add(f".{name}()")
            case nodes.Call(node=nodes.Name(name=name)):
                found.add("a macro" if name in macros else f"{name}()")
            case nodes.Getattr(node=nodes.Name(name="loop"), attr=name):
                found.add(f"loop.{name}")
            case nodes.For():
                parts = ("test", "else_", "recursive")
                found |= {f"for {part}" for part in parts if getattr(node, part)}
                found.add(f"for {type(node.target).__name__}")
            case nodes.Slice():
                ends = [end is not None for end in (node.start, node.stop, node.step)]
                found.add(f"slice {ends}")
            case nodes.Operand():
                found.add(f"operator {node.op}")
            case nodes.Macro():
                found.add(f"macro {bool(node.defaults)}")
    return found


def test_the_constructs_of_these_templates_stand_in_our_own() -> None:
    """So that the ordinary run would find what the published ones do."""
    own = set().union(*(constructs(path.read_text("utf-8")) for path in OWN.glob("*.jinja")))
    for path in TEMPLATES:
        missing = constructs(path.read_text("utf-8")) - own
        assert not missing, (path.stem, missing)


def test_the_comparison_finds_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{{ messages | length }}{{ bos_token }}"
    assert set(outcomes(source)) == {"equal"}
    monkeypatch.setitem(NAMES, "bos_token", "<t>")
    before = ChatTemplate.render
    monkeypatch.setattr(ChatTemplate, "render", lambda *a, **k: before(*a, **k).upper())
    assert "equal" not in set(outcomes(source))

    def fail(*_args: Any, **_settings: Any) -> str:
        raise ModelError("chat template", "fails", "none")

    monkeypatch.setattr(ChatTemplate, "render", fail)
    assert "refused by both" not in set(outcomes(source))
