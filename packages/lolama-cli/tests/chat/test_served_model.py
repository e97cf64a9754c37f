"""`lolama chat --server`: the same conversation as without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawings import circle, encoded
from patience import until
from program import Outcome
from served import running, serving
from terminal import READY, Terminal
from warm_program import run

SIMPLE = "What is two plus three?\nAnd four plus four?\n/retry\n/tokens\n/undo\n/tokens\n"


def both(
    server: str, *arguments: str | Path, said: str, folder: Path | None = None
) -> tuple[Outcome, Outcome]:
    """The same chat without the server and with it."""
    command = ("chat", *arguments)
    return (
        run(*command, "--dtype", "float32", stdin=said.encode(), folder=folder),
        run(*command, "--server", server, stdin=said.encode(), folder=folder),
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seed", "3"), SIMPLE),
        (("--temp", "0", "--no-stream"), SIMPLE),
        (("--temp", "0", "--raw", "-n", "12"), SIMPLE),
        (("--temp", "0", "--system", "You are a pirate."), SIMPLE),
        (("--temp", "0"), "/system x\nWhat is two plus two?\n/image x.png\n/model nosuch\n"),
        (("--temp", "0", "--overflow", "slide", "-n", "9"), "word word word\n" * 12 + "/tokens\n"),
        (("--temp", "0"), "word " * 3000 + "\nWhat is two plus two?\n"),
        (("--no-think",), ""),
    ],
)
def test_it_is_the_same_with_a_server_as_without(
    server: str, arguments: tuple[str, ...], said: str
) -> None:
    here, there = both(server, "-m", "demo", *arguments, said=said)
    if "/model nosuch" in said:  # which names what there is here, and what to start the server with
        here, there = (
            Outcome(one.code, one.out, one.err.partition("error: model")[0])
            for one in (here, there)
        )
    assert there == here


def test_pictures_stay_in_the_conversation_and_another_model_takes_it_over(
    server: str, tmp_path: Path
) -> None:
    (tmp_path / "red.png").write_bytes(encoded(circle()))
    (tmp_path / "blue.png").write_bytes(encoded(circle("blue")))
    said = (
        "What is in the picture?\n/image blue.png\nWhat is in the picture?\nIs there a red circle?\n"
        "/tokens\n/model demo\n/save chat.json\n"
    )
    arguments = ("-m", "demo-vision", "--temp", "0", "-i", "red.png")
    here, there = both(server, *arguments, said=said + "\n", folder=tmp_path)
    # The second run finds the first one's file.
    assert there.out == here.out
    assert b"red circle" in there.out
    # Up to there: sizes, what both pictures take of the context, and why the other model cannot go on.
    assert there.err.rpartition("error:")[0] == here.err.partition("saved")[0]
    (tmp_path / "blue.png").write_bytes(encoded(circle()))
    here, there = both(server, "--load", "chat.json", said="Is it?\n", folder=tmp_path)
    assert there == here
    assert there.code == 3
    assert "is not the picture any more" in there.err


def test_a_model_that_cannot_be_told_first(tmp_path: Path) -> None:
    import known_model

    deaf = known_model.CHAT_TEMPLATE.replace(
        "{% for message in messages %}",
        "{% for message in messages if message.role != 'system' %}",
    )
    folder = known_model.write(tmp_path / "deaf", chat_template=deaf)
    with serving("-m", folder) as server:
        here, there = both(server, "-m", folder, said="/system Be brief.\nhello\n")
        assert there == here
        assert "leaves system messages out" in there.err
        here, there = both(server, "-m", folder, "--system", "Be brief.", said="hello\n")
        assert there == here
        assert there.code == 2


def test_ctrl_c_keeps_what_was_said_and_the_next_reply_comes(endless: Path) -> None:
    with serving("-m", endless) as server:
        chat = Terminal("chat", "-m", endless, "--server", server, "-n", "190000")
        chat.wait_for(READY)
        chat.ask("z")
        chat.wait_for(b"abcdefgh")
        chat.press_ctrl_c()
        chat.wait_for(b"stopped")
        until(lambda: running(server) == 0)
        chat.wait_for(READY)
        chat.say("/set max-tokens 3")
        assert "nop" in chat.say("m")
        chat.type("/exit\r")
        assert chat.end() == 0


def test_tools_are_for_a_model_of_this_process(server: str, tmp_path: Path) -> None:
    tools = tmp_path / "tools.py"
    tools.write_text("def f() -> int:\n    return 1\n")
    outcome = run("chat", "-m", "demo", "--server", server, "--tools", tools, "--yes-tools")
    outcome.refused(2, "--tools", "--server none")
    saved = tmp_path / "chat.json"
    step = {"text": "", "calls": [{"id": "1", "name": "f", "arguments": {}, "result": "1"}]}
    turns = [
        {"role": "user", "text": "a"},
        {"role": "assistant", "text": "b", "tool_steps": [step]},
    ]
    saved.write_text(json.dumps({"schema": "lolama.chat/1", "model": "demo", "turns": turns}))
    outcome = run("chat", "--server", server, "--load", saved)
    outcome.refused(2, "calls of tools", "--server none")


@pytest.mark.parametrize("option", ["--quantize", "--draft", "--prompt-cache", "--template"])
def test_what_the_server_decides_is_refused(option: str) -> None:
    given = (option,) if option == "--quantize" else (option, "x")
    outcome = run("chat", "--server", "http://127.0.0.1:1", *given)
    outcome.refused(2, f"error: {option}: is decided where")
