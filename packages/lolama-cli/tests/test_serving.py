"""Models of this machine, as a server uses them."""

from __future__ import annotations

import pytest

from lolama.prompts import going_on
from lolama.serving import Loading, LocalModels
from lolama_core import Tokenizer
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import Message
from lolama_core.testing import tiny

SWITCH = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<think>{% endif %}"
)


def test_the_first_model_is_called_by_its_aliases_alone() -> None:
    models = LocalModels(["demo"], aliases=["tiny", "small", "tiny"], tags=["stories"])
    assert models.given == ("tiny",)
    for name in ("tiny", "small"):
        found = models.find(name)
        assert (found.name, found.aliases, found.tags) == ("tiny", ("small",), ("stories",))
    assert models.find("demo-vision").aliases == ()
    assert models.load("tiny").name == "tiny"


@pytest.mark.parametrize(("default", "asked", "thinks"), [(None, None, False), (True, None, True)])
def test_a_server_has_a_default_for_thinking(
    default: bool | None, asked: bool | None, thinks: bool
) -> None:
    loading = Loading(template=SWITCH, thinking=default)
    model = LocalModels(["demo"], loading).load("demo")
    prompt = model.render([{"role": "user", "content": "Hello"}])
    assert prompt.endswith("<think>") is thinks
    ids = model.chat_prompt([{"role": "user", "content": "Hello"}], thinking=False).ids
    assert "<think>" not in model.tokenizer.decode(ids)


def test_the_default_for_thinking_needs_no_switch_and_a_request_does() -> None:
    model = LocalModels(["demo"], Loading(thinking=False)).load("demo")
    hello = [{"role": "user", "content": "Hello"}]
    assert "Hello" in model.render(hello)  # type: ignore[arg-type] # a message
    with pytest.raises(UsageError, match="no switch"):
        model.chat_prompt(hello, thinking=False)  # type: ignore[arg-type] # likewise


def test_a_chat_is_shown_as_it_is_answered_also_with_results_of_tools() -> None:
    model = LocalModels(["demo"]).load("demo")
    turns: list[Message] = [
        {"role": "user", "content": "Hello"},
        {"role": "tool", "content": "4 degrees", "tool_call_id": "1"},
    ]
    shown = model.render(turns)
    assert "4 degrees" in shown
    assert model.tokenizer.encode_ids(shown, add_special_tokens=False) == [
        *model.chat_prompt(turns).ids
    ]


def test_what_a_template_refuses_is_the_fault_of_the_request() -> None:
    refusing = Loading(template="{{ raise_exception('no') }}")
    model = LocalModels(["demo"], refusing).load("demo")
    hello: list[Message] = [{"role": "user", "content": "Hello"}]
    for ask in (model.render, model.chat_prompt):
        with pytest.raises(
            UsageError, match="messages: chat template refuses this conversation: no"
        ):
            ask(hello)


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """A tokenizer that begins each text with a space."""
    texts = ["we will see\n\nwhat will be", "what we see will be\n"]
    vocabulary, merges = tiny.learn_pieces(texts, 60)
    vocabulary["<unk>"] = len(vocabulary)
    return Tokenizer(tiny.with_pieces(vocabulary, merges, specials=["<end>"]))


@pytest.mark.parametrize("before", ["we see\n\n", "we see"])
def test_a_reply_goes_on_without_a_space_between(pieces: Tokenizer, before: str) -> None:
    ids = pieces.encode_ids(before, add_special_tokens=False)
    assert pieces.decode([*ids, *going_on(pieces, ids, "will be")]) == f"{before}will be"


def test_behind_a_control_token_a_text_begins(pieces: Tokenizer) -> None:
    end = pieces.encode_ids("<end>", add_special_tokens=False)[-1:]
    assert pieces.is_special(end[0])
    alone = pieces.encode_ids("will be", add_special_tokens=False)
    assert going_on(pieces, end, "will be") == alone
