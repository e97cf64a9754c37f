"""Arguments of types that Python cannot keep a caller from giving, and empty prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from warm_program import run

import lolama
from lolama import Conversation, LanguageModel, data, downloads
from lolama_core.protocols.errors import UsageError

NO_LIST: list[Any] = [
    None,
    1,
    1.5,
    True,
    object(),
    {},
    b"x",
    lambda: 0,
    torch.tensor(1),
    np.array(1),
]
NO_BOOLEAN: list[Any] = [
    "no",
    "",
    1,
    0.0,
    [1],
    {},
    object(),
    torch.tensor([1, 2]),
    np.array([1, 2]),
]


def kind(value: object) -> str:
    """A test's name; numbers of thousands of digits and lone surrogates have none of their own."""
    return type(value).__name__


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    return lolama.load("demo")


@pytest.mark.parametrize("value", NO_BOOLEAN, ids=kind)
def test_row_212_booleans_of_loading_and_saving(
    demo: LanguageModel, tmp_path: Path, value: Any
) -> None:
    for load in (lolama.load, lolama.load_model, data.load_llava_model):
        with pytest.raises(UsageError, match=r"^quantize: .* is no number of bits; give True"):
            load("demo-vision", quantize=value)
        with pytest.raises(UsageError, match=r"^confirm: .* is not a boolean"):
            load("demo-vision", confirm=value)
    with pytest.raises(UsageError, match=r"^confirm: .* is not a boolean"):
        lolama.load_tokenizer("demo-vision", confirm=value)
    with pytest.raises(UsageError, match=r"^confirm: "):
        downloads.decision(lambda _: value)(Any)  # type: ignore[arg-type] # it asks for no plan
    with pytest.raises(UsageError, match=r"^overwrite: .* is not a boolean"):
        lolama.save(demo, tmp_path / "saved", overwrite=value)
    with pytest.raises(UsageError, match=r"^stream: .* is not a boolean"):
        demo.chat("hi", stream=value)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("value", NO_LIST, ids=kind)
def test_row_212_messages_and_pictures_are_lists(demo: LanguageModel, value: Any) -> None:
    with pytest.raises(UsageError, match=r"^messages: .* is not a list; write"):
        demo.chat(value)
    for ask in (demo.generate, demo.stream, demo.chat, demo.conversation().ask):
        with pytest.raises(UsageError, match=r"^images: .* is not a list; give paths"):
            ask("hi", images=value)


@pytest.mark.parametrize("value", [*NO_LIST, [], "\ud800", "a\0b"], ids=kind)
def test_row_212_a_model_is_saved_under_a_path(
    demo: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^folder: .* is not a (path|possible file name)"):
        lolama.save(demo, value)
    assert not list(tmp_path.iterdir())


def test_row_213_a_prompt_that_is_empty_is_refused_everywhere(demo: LanguageModel) -> None:
    run("generate", "", "-m", "demo").refused(2, "prompt: is empty")
    user = {"role": "user", "content": ""}
    for ask in (demo.generate, demo.stream, demo.chat, demo.conversation().ask):
        with pytest.raises(UsageError, match=r"^prompt: is empty; give some text$"):
            ask("")
    for said in (user, {**user, "content": []}):
        with pytest.raises(UsageError, match=r"^prompt: is empty"):
            demo.chat([said])
    with pytest.raises(UsageError, match=r"^messages: is empty"):
        demo.chat([])
    with pytest.raises(UsageError, match=r"^system: is empty; leave it out$"):
        Conversation(demo, "")


def test_row_213_a_reply_may_be_empty(demo: LanguageModel) -> None:
    talk = demo.conversation()
    talk.ask("hi", max_new_tokens=0)
    assert talk.messages[-1] == {"role": "assistant", "content": ""}
    assert talk.ask("What is two plus three?", temperature=0).text
