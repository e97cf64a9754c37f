"""Conversations and pictures in the lines of a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from drawings import circle, encoded
from warm_program import run

from lolama import TextGenerator, load_model, load_tokenizer
from lolama.prompts import render
from lolama_core.protocols.types import Message

GREEDY = ("--temperature", "0", "--repetition-penalty", "1", "--max-tokens", "20", "--seed", "1")
ASKED = "What is in the picture?"
RED, BLUE = "A large red circle in the centre.", "A large blue circle in the centre."
USER = {"role": "user", "content": "a"}
REPLIED = {"role": "assistant", "content": "b"}
TOLD = {"role": "system", "content": "c"}


def answered(
    model: str | Path, lines: list[Any], *options: str | Path
) -> tuple[int, list[dict[str, Any]]]:
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    outcome = run("generate", "-m", model, *GREEDY, *options, "--batch", "-", stdin=data)
    assert outcome.code or not outcome.err
    return outcome.code, [json.loads(line) for line in outcome.out.splitlines()]


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, str]:
    """Paths of a red and a blue circle."""
    red, blue = tmp_path / "red.png", tmp_path / "blue.png"
    red.write_bytes(encoded(circle()))
    blue.write_bytes(encoded(circle("blue")))
    return str(red), str(blue)


def test_messages_are_asked_in_the_template_of_the_model() -> None:
    conversation: list[Message] = [
        {"role": "user", "content": "What is two plus three?"},
        {"role": "assistant", "content": "Two plus three is five."},
        {"role": "user", "content": "Tell me a story about a dog."},
    ]
    lines = [{"messages": conversation, "id": "talk"}, {"messages": conversation[:1]}]
    lines.append({"prompt": conversation[0]["content"]})
    code, found = answered("demo", lines, "--dtype", "float32")
    assert code == 0
    tokenizer = load_tokenizer("demo")
    ids = render(tokenizer, conversation)
    generator = TextGenerator(load_model("demo", dtype="float32"), tokenizer)
    expected = generator.generate(ids, temperature=0.0, repetition_penalty=1.0, max_new_tokens=20)
    assert found[0]["prompt_tokens"] == len(ids)
    assert (found[0]["id"], found[0]["text"]) == ("talk", expected.text)
    assert found[1]["text"] == found[2]["text"] == "Two plus three is five."
    assert found[1]["prompt_tokens"] == found[2]["prompt_tokens"]


def test_a_system_message_may_stand_in_either_place(chatty: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}")
    lines = [
        {"messages": [TOLD, USER, REPLIED, USER]},
        {"messages": [USER, REPLIED, USER], "system": "c"},
        {"messages": [USER, REPLIED, USER], "system": None},
        {"messages": [TOLD, USER, REPLIED, USER]},
    ]
    code, found = answered(chatty, lines, "--template", template)
    assert code == 0
    counts = [answer["prompt_tokens"] for answer in found]
    assert counts[0] == counts[1] == counts[3] == counts[2] + 2
    # The line's own message goes before that of the command.
    code, found = answered(chatty, lines[:3], "--template", template, "--system", "longer")
    assert (code, [answer["prompt_tokens"] for answer in found]) == (0, counts[:3])


def test_pictures_run_together_with_texts(pictures: tuple[str, str], tmp_path: Path) -> None:
    red, blue = pictures
    lines = [
        {"prompt": ASKED, "images": [red]},
        {"prompt": ASKED, "images": [blue], "id": 7},
        {"prompt": ASKED, "images": [str(tmp_path / "none.png")]},
        {"messages": [{"role": "user", "content": ASKED}], "images": [red]},
        {"prompt": ASKED, "images": []},
        {"prompt": ASKED},
        {"prompt": ASKED, "images": [red, blue]},
    ]
    code, found = answered("demo-vision", lines)
    assert code == 3
    assert "error" in found[2] and "does not exist" in found[2]["error"]["message"]
    assert found[2]["error"]["exit_code"] == 3
    assert [found[n]["text"] for n in (0, 1, 3)] == [RED, BLUE, RED]
    assert found[4]["text"] == found[5]["text"]
    assert found[0]["prompt_tokens"] == found[3]["prompt_tokens"] == found[5]["prompt_tokens"] + 37
    assert "text" in found[6]
    code, padded = answered("demo-vision", lines[:2], "--image-mode", "pad")
    assert (code, [answer["text"] for answer in padded]) == (0, [RED, BLUE])
    assert padded[0]["key"] != found[0]["key"]


def test_an_answer_is_that_of_the_picture_that_was_shown(
    pictures: tuple[str, str], tmp_path: Path
) -> None:
    red, blue = map(Path, pictures)
    prompts, out = tmp_path / "in", tmp_path / "out"
    prompts.write_text(json.dumps({"prompt": ASKED, "images": [str(red)]}) + "\n")
    command = ("generate", "-m", "demo-vision", *GREEDY, "--batch", prompts, "-o", out)
    assert run(*command).code == 0
    before = out.read_bytes()
    assert run(*command).code == 0
    assert out.read_bytes() == before
    red.write_bytes(blue.read_bytes())
    run(*command).refused(2, str(out), "another prompt, setting or model")
    assert out.read_bytes() == before


ODD: dict[str, tuple[Any, str]] = {
    "both": ({"prompt": "a", "messages": [USER]}, "messages and a prompt"),
    "no list": ({"messages": "a"}, "messages is no list"),
    "empty": ({"messages": []}, "messages is no list of messages"),
    "no object": ({"messages": [USER, "a", USER]}, "messages[1] is no object"),
    "no role": ({"messages": [{"content": "a"}]}, "messages[0] has no role"),
    "role": ({"messages": [{"role": "usr", "content": "a"}]}, "did you mean user?"),
    "list role": ({"messages": [{"role": [1], "content": "a"}]}, "has the role [1]"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0] has no content"),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        "pictures go into images",
    ),
    "key": ({"messages": [{**USER, "name": "b"}]}, "messages[0] has the key 'name'"),
    "empty content": ({"messages": [{"role": "user", "content": ""}]}, "messages[0] is empty"),
    "NUL": ({"messages": [{"role": "user", "content": "a\0"}]}, "NUL"),
    "half a pair": ({"messages": [{"role": "user", "content": "\ud83d"}]}, "surrogate"),
    "late system": ({"messages": [USER, REPLIED, TOLD, USER]}, "messages[2] is of the system"),
    "reply last": ({"messages": [USER, REPLIED]}, "ends with a message of the assistant"),
    "system alone": ({"messages": [TOLD]}, "ends with a message of the system"),
    "two systems": ({"messages": [TOLD, USER], "system": "d"}, "messages begin with another"),
    "too long": ({"messages": [{"role": "user", "content": "a" * 90_000}]}, "attends over"),
    "picture": ({"prompt": "a", "images": ["b.png"]}, "images: 1 picture for"),
    "no paths": ({"prompt": "a", "images": "b.png"}, "images is no list of paths"),
    "URL": ({"prompt": "a", "images": ["http://127.0.0.1:1/a.png"]}, "is a URL"),
    "stdin": ({"prompt": "a", "images": ["-"]}, "images - stands for standard input"),
    "no path": ({"prompt": "a", "images": [""]}, "images is empty"),
    "many": ({"prompt": "a", "images": ["a"] * 65}, "65 pictures"),
}


def test_row_162_what_makes_no_sense_is_that_lines_error(chatty: Path) -> None:
    lines = [line for line, _ in ODD.values()]
    code, found = answered(chatty, [*lines, {"messages": [USER], "id": "last"}])
    assert code == 2
    for (name, (_, words)), answer in zip(ODD.items(), found, strict=False):
        assert words in answer["error"]["message"], name
        assert answer["error"]["exit_code"] == 2, name
        assert answer["error"]["message"].isprintable(), name
    assert (found[-1]["id"], "text" in found[-1]) == ("last", True)


def test_row_162_messages_need_a_template(base: Path, chatty: Path) -> None:
    for model, options in ((base, ()), (chatty, ("--raw",))):
        code, found = answered(model, [{"messages": [USER]}, "a"], *options)
        assert code == 2
        assert "template" in found[0]["error"]["message"]
        assert "text" in found[1]


def test_row_162_a_key_that_stands_twice(base: Path) -> None:
    data = b'{"prompt": "a", "prompt": "b"}\n'
    outcome = run("generate", "-m", base, "--batch", "-", stdin=data)
    assert outcome.code == 2
    assert "a key stands twice" in json.loads(outcome.out)["error"]["message"]
