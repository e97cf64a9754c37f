"""``lolama chat`` on a terminal: typing, Ctrl-C, Ctrl-D, and what is shown."""

from __future__ import annotations

import os
import random
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drawings import circle, encoded
from talk import GREEDY, model
from terminal import READY, Terminal
from warm_program import run

from lolama import GenerationConfig, TextGenerator
from lolama_cli.chat import transcript
from lolama_cli.chat.conversation import Conversation
from lolama_core.testing.promises import Promises

INTERRUPTS = int(os.environ.get("LOLAMA_INTERRUPTS", "5"))
LEAVES = int(os.environ.get("LOLAMA_LEAVES", "1"))
STORIES = ("Tell me a story about a dog.", "Tell me another story.", "Tell me a long story.")
QUESTIONS = ("Tell me a story about a dog.", "What is two plus three?", "Tell me another story.")
OPTIONS = tuple("--temperature 0 --repetition-penalty 1 --overflow slide --dtype float32".split())


def chat(home: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> Terminal:
    given = arguments if "-m" in arguments else ("-m", "demo", *arguments)
    terminal = Terminal("chat", *OPTIONS, *given, env={"LOLAMA_HOME": str(home), **(env or {})})
    if "--plain" not in arguments and "TERM" not in (env or {}):
        terminal.wait_for(READY)
    return terminal


def test_row_92_ctrl_c_keeps_what_was_said_errors_lose_nothing_and_ctrl_d_leaves(
    tmp_path: Path,
) -> None:
    terminal = chat(tmp_path)
    assert "demo: text, 512 tokens of context" in terminal.text
    assert "Two plus three is five." in terminal.say("What is two plus three?")
    stop_in_mid_reply(terminal, "Tell me a story about a dog.")
    for wrong, words in (
        ("/hlep", "no such command; did you mean /help?"),
        ("/image nowhere.png", "which is a text model and takes none"),
        ("/model nowhere", "nowhere"),
        ("/load nowhere.json", "does not exist"),
        ("/set temperature hot", "is not a number"),
        ("dog " * 600, "message: has"),
    ):
        shown = terminal.say(wrong)
        assert words in " ".join(shown.split()), shown
        assert shown.count("error: ") == 1
    terminal.say(f"/save {tmp_path / 'chat.json'}")
    saved = transcript.load(tmp_path / "chat.json").conversation
    assert [e.finish_reason for e in saved.exchanges] == ["eos", "interrupted"]
    assert saved.exchanges[1].reply.startswith("Once upon")
    expected = fresh(saved, QUESTIONS[1])
    assert expected in " ".join(terminal.say(QUESTIONS[1]).split())
    terminal.type("\x04")
    assert terminal.end() == 0


def stop_in_mid_reply(terminal: Terminal, question: str) -> None:
    """Ask for a story, and press Ctrl-C once it begins; one that has ended by then is asked for again."""
    while True:
        terminal.ask(question)
        terminal.wait_for(b"Once upon")
        terminal.type("\x03")
        if "stopped" in terminal.wait_for(READY):
            return
        terminal.type("/undo\r")
        terminal.wait_for(b"forgot: ")
        terminal.wait_for(READY)


def fresh(conversation: Conversation, question: str) -> str:
    """The reply of a process that never ran anything else."""
    demo = model("demo")
    prompt = demo.prompt(conversation, question)
    config: GenerationConfig = GREEDY.with_settings(max_new_tokens=256)
    text = TextGenerator(demo.model, demo.tokenizer).generate(prompt.ids, config).text
    assert text is not None
    return text


def test_rows_65_and_92_ctrl_c_at_random_moments(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The line comes back, and the next reply is that of a fresh run over what was said."""
    record_property("Ctrl-C at a random moment of a chat's reply", f"0 to {INTERRUPTS - 1}")
    terminal = chat(tmp_path)
    file = tmp_path / "chat.json"
    for seed in range(INTERRUPTS):
        chance = random.Random(f"chat {seed}")
        while not stopped(terminal, chance):
            begin_again(terminal)
        terminal.say(f"/save --force {file}")
        before = transcript.load(file).conversation
        assert [e.finish_reason for e in before.exchanges] in ([], ["interrupted"]), seed
        question = chance.choice(QUESTIONS)
        terminal.say(question)
        terminal.say(f"/save --force {file}")
        after = transcript.load(file).conversation
        assert after.exchanges[:-1] == before.exchanges, seed
        assert after.exchanges[-1].reply == fresh(before, question), seed
        terminal.say("/clear")
    leave_by_ctrl_c(terminal)


def begin_again(terminal: Terminal) -> None:
    """Forget what was said, after a Ctrl-C that may have come when the reply had ended.

    The editor may have opened then, been closed by the Ctrl-C, and opened again: so a command that is
    refused tells when all of that is over.
    """
    terminal.type("/over\r")
    terminal.wait_for(b"no such command")
    terminal.wait_for(READY)
    terminal.say("/clear")


def replies(terminal: Terminal, chance: random.Random) -> bool:
    """Ask something, and wait a little; False if the reply has ended by then."""
    terminal.ask(chance.choice(STORIES))
    terminal.wait(chance.uniform(0, 0.3))
    if terminal.is_raw() or terminal.has(READY):
        terminal.wait_for(READY)
        return False
    return True


def stopped(terminal: Terminal, chance: random.Random) -> bool:
    """Ask something and press Ctrl-C; False if the reply had ended by then."""
    if not replies(terminal, chance):
        return False
    os.kill(terminal.pid, signal.SIGINT)
    return "stopped" in terminal.wait_for(READY)


def interrupted_chats(home: Path) -> Iterator[Terminal]:
    """Chats in which Ctrl-C was pressed once, at a random moment of a reply."""
    for seed in range(LEAVES):
        chance = random.Random(f"leave {seed}")
        terminal = chat(home)
        terminal.ask(QUESTIONS[0])
        terminal.wait(chance.uniform(0, 0.4))
        terminal.press_ctrl_c()
        time.sleep(chance.uniform(0.02, 0.3))
        yield terminal


def test_row_92_ctrl_c_twice_leaves(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("chats left by Ctrl-C twice, at a random moment", f"0 to {LEAVES - 1}")
    for terminal in interrupted_chats(tmp_path):
        terminal.press_ctrl_c()
        assert terminal.end() == 130
        assert b"Traceback" not in terminal.out


@pytest.mark.promise
def test_rows_22_65_and_92_ctrl_c_is_obeyed_within_a_second(
    tmp_path: Path, promises: Promises
) -> None:
    terminal = chat(tmp_path)
    for seed in range(INTERRUPTS):
        chance = random.Random(f"chat {seed}")
        while not replies(terminal, chance):
            begin_again(terminal)
        with promises.within(1, "Ctrl-C in a chat, until the line is back", seed):
            os.kill(terminal.pid, signal.SIGINT)
            terminal.wait_for(READY)
        begin_again(terminal)
    leave_by_ctrl_c(terminal)
    for terminal in interrupted_chats(tmp_path):
        with promises.within(1, "Ctrl-C twice in a chat, until it has ended"):
            terminal.press_ctrl_c()
            assert terminal.end() == 130


def leave_by_ctrl_c(terminal: Terminal) -> None:
    """One at the prompt may have been meant for a reply; two in a row leave."""
    # One that comes between the prompt and the read behind it is seen with the next line alone.
    time.sleep(0.3)
    terminal.type("\x03")
    terminal.wait_for(b"Ctrl-C again, or /exit, leaves")
    terminal.wait_for(b"> ")
    terminal.type("\x03")
    assert terminal.end() == 130


def test_what_is_typed_is_remembered_edited_and_completed(tmp_path: Path) -> None:
    terminal = chat(tmp_path)
    terminal.type("/tok")
    terminal.wait_for(b"/tokens")  # the menu
    terminal.type("\t\r")
    terminal.type("\r")
    assert "of 512 tokens" in terminal.wait_for(READY)
    terminal.type("nonsense\x03")  # which empties the line
    terminal.say("/set max-tokens 5")
    terminal.type("one\\\rtwo\x1b\rthree\r")
    terminal.wait_for(READY)
    terminal.say(f"/save {tmp_path / 'chat.json'}")
    [exchange] = transcript.load(tmp_path / "chat.json").conversation.exchanges
    assert exchange.question == "one\ntwo\nthree"
    assert terminal.is_raw()
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == 143
    history = tmp_path / "chat" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+/set max-tokens 5\n" in history.read_text()
    again = chat(tmp_path)
    again.type("\x1b[A" * 5)  # up, two of them within the message of three lines
    assert "/set max-tokens 5" in again.say("")
    again.type("/exit\r")
    assert again.end() == 0


def test_rows_88_and_89_a_reply_on_a_terminal(base: Path, tmp_path: Path) -> None:
    """Markup of others stays text, and control characters are spelled out."""
    terminal = chat(tmp_path, "-m", base)
    shown = terminal.say("!")
    assert "[/foo][red]:smile:^[[31m^[]52;c;aGk=^G\\x9b2J^M^Hé✓" in shown.replace("\n", "")
    assert b"\x1b]52" not in terminal.out
    assert b"\x9b" not in terminal.out.replace("✓".encode(), b"")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_plain_is_text_alone(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(encoded(circle()))
    terminal = chat(tmp_path, "-m", "demo-vision", "--plain", env={"COLORTERM": "truecolor"})
    terminal.wait_for(b"> ")
    terminal.type(f"/image {tmp_path / 'red.png'}\n")
    terminal.wait_for(b"> ")
    terminal.type("What is in \\\n")
    terminal.wait_for(b". ")
    terminal.type("the picture?\n")
    assert "A large red circle in the centre." in terminal.wait_for(b"> ")
    leave_by_ctrl_c(terminal)
    assert b"\x1b" not in terminal.out


def test_a_picture_is_shown_small_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(encoded(circle()))
    options = ("-m", "demo-vision", "--image", tmp_path / "red.png")
    terminal = chat(tmp_path, *options, env={"COLORTERM": "truecolor"})
    terminal.type("\x04")
    assert terminal.end() == 0
    assert terminal.text.count("▀") == 24 * 12
    assert b"\x1b[38;2;214;38;38;" in terminal.out
    terminal = chat(tmp_path, *options, env={"COLORTERM": "truecolor", "NO_COLOR": "1"})
    terminal.type("\x04")
    assert terminal.end() == 0
    assert "▀" not in terminal.text


def test_row_174_on_a_terminal_a_full_context_slides_and_in_a_pipe_it_is_an_error(
    short: Path,
) -> None:
    terminal = Terminal("chat", "-m", short)
    terminal.wait_for(READY)
    assert "16 tokens is full; /retry" in " ".join(terminal.say("z").split())
    shown = terminal.say("z")
    assert "note: the chat forgot its first exchange to make room" in shown
    assert "abcdefghijklmn" in shown
    assert "overflow slide" in terminal.say("/set overflow")
    terminal.say("/set overflow error")
    assert "overflow error" in terminal.say("/set overflow")
    terminal.type("/exit\r")
    assert terminal.end() == 0
    for options, default in (((), "error"), (("--overflow", "slide"), "slide")):
        outcome = run("chat", "-m", short, *options, stdin=b"/set overflow\n")
        assert outcome.err.endswith(f"overflow {default}\n")


@pytest.mark.parametrize("more", [(), ("--no-stream",)])
def test_row_415_what_is_told_of_a_reply_comes_once_all_of_it_is_shown(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    """A word that may go on is held back, and the limit of tokens ends the reply within one."""
    terminal = chat(tmp_path, "--max-tokens", "5", *more)
    shown = terminal.say("dog " * 420)
    reply, note = shown.split("\nnote: the chat fills ")
    assert len(reply.split()[-1]) > 1
    assert note.endswith("its first exchanges\n")
    terminal.type("\x04")
    assert terminal.end() == 0
