"""Templates that have a switch for thinking, and prompts that end within a thought."""

from __future__ import annotations

import pytest

from lolama_core import Tokenizer
from lolama_core.protocols import Tokenizer as TokenizerProtocol
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.text import ThinkingTokenizer
from lolama_core.protocols.types import Message
from lolama_core.text.chat_template import ChatTemplate

TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
REPLY = "{% if add_generation_prompt %}[assistant]{% endif %}"
# In the styles of Qwen3, SmolLM3 and Granite, written for these tests.
OFF = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
DEFAULT_ON = (
    "{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}"
    "{{ '/think' if enable_thinking else '/no_think' }}"
)
ON = "{% if thinking %}Think first.{% endif %}"
OPENED = TURNS + REPLY + "{% if add_generation_prompt %}<think>\n{% endif %}"
SPLITS = "{{ messages[-1].content.split('</think>')[-1] }}"
HI: list[Message] = [{"role": "user", "content": "hi"}]


def tokenizer(template: str | None, byte_level_json: str) -> Tokenizer:
    return Tokenizer(byte_level_json, chat_template=template)


def asked(tokens: Tokenizer, text: str = "hi") -> str:
    messages: list[Message] = [{"role": "user", "content": text}]
    rendered = tokens.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert isinstance(rendered, str)
    return rendered


@pytest.mark.parametrize(
    ("source", "switch", "thinks"),
    [
        (TURNS + REPLY + OFF, "enable_thinking", True),
        (DEFAULT_ON + TURNS, "enable_thinking", True),
        (ON + TURNS, "thinking", True),
        (TURNS + "{# enable_thinking #}", None, False),
        (TURNS + "{{ messages[0].thinking }}", None, False),
        ("{% set thinking = true %}" + TURNS, None, False),
        (SPLITS, None, True),
        (TURNS, None, False),
    ],
)
def test_switches_are_variables_that_a_template_reads(
    source: str, switch: str | None, thinks: bool
) -> None:
    template = ChatTemplate(source)
    assert (template.switch, template.thinks) == (switch, thinks)


@pytest.mark.parametrize(
    ("template", "default", "on", "off"),
    [
        (
            *(TURNS + REPLY + OFF, "[user]hi[assistant]", "[user]hi[assistant]"),
            "[user]hi[assistant]<think>\n\n</think>\n\n",
        ),
        (DEFAULT_ON + TURNS, "/think[user]hi", "/think[user]hi", "/no_think[user]hi"),
        (ON + TURNS, "[user]hi", "Think first.[user]hi", "[user]hi"),
    ],
)
def test_the_switch_does_what_the_template_says(
    template: str, default: str, on: str, off: str, byte_level_json: str
) -> None:
    tokens = tokenizer(template, byte_level_json)
    assert tokens.thought_tags == ("<think>", "</think>")
    assert asked(tokens.with_thinking(True)) == on
    assert asked(tokens.with_thinking(False)) == off
    assert asked(tokens) == default
    assert tokens.with_thinking(False).render_chat(HI) != tokens.with_thinking(True).render_chat(HI)


@pytest.mark.parametrize("template", [None, TURNS, SPLITS])
def test_row_344_no_switch_is_an_error(template: str | None, byte_level_json: str) -> None:
    with pytest.raises(UsageError, match="no switch to turn thinking on or off"):
        tokenizer(template, byte_level_json).with_thinking(False)


def test_row_417_a_model_without_a_chat_template_is_said_to_have_none(byte_level_json: str) -> None:
    with pytest.raises(UsageError, match="the model has no chat template, and so no switch"):
        tokenizer(None, byte_level_json).with_thinking(False)


def test_row_343_only_the_template_opens_a_thought(byte_level_json: str) -> None:
    opened = tokenizer(OPENED, byte_level_json)
    assert opened.opens_thought(opened.render_chat(HI))
    assert not opened.opens_thought(opened.render_chat(HI, add_generation_prompt=False))
    # This template writes nothing behind what a user says.
    bare = tokenizer(TURNS + "{# </think> #}", byte_level_json)
    typed: list[Message] = [{"role": "user", "content": "<think>\n"}]
    assert not bare.opens_thought(bare.render_chat(typed))
    switched = tokenizer(TURNS + REPLY + OFF, byte_level_json)
    assert not switched.opens_thought(switched.with_thinking(False).render_chat(HI))


def test_the_tokenizer_is_a_thinking_one(byte_level_json: str) -> None:
    plain = tokenizer(None, byte_level_json)
    assert isinstance(plain, ThinkingTokenizer) and isinstance(plain, TokenizerProtocol)
    assert plain.thought_tags is None
    assert plain.opens_thought(plain.encode_ids("<think>")) is False
