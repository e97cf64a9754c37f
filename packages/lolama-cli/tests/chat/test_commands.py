"""Commands of a chat, each by its name, and texts that look like control tokens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from drawings import circle, encoded
from talk import model, say, session

from lolama_cli.chat.command_names import COMMANDS
from lolama_cli.chat.commands import Commands, Leave
from lolama_cli.chat.screen import Screen
from lolama_cli.chat.session import Session
from lolama_core.protocols.errors import ModelError, NotAvailableError, UsageError

HOSTILE_TEXTS = 500


class Told(Screen):
    """Keeps what would be shown."""

    def __init__(self) -> None:
        super().__init__(plain=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines += text.splitlines()


class Chat:
    """A session and its commands; a call runs a line and returns what it showed."""

    def __init__(self, session_: Session | None = None) -> None:
        self.session = session_ or session()
        self.screen = Told()
        self.commands = Commands(self.session, self.screen, model)

    def __call__(self, line: str) -> list[str]:
        self.screen.lines = []
        reply = self.commands.run(line)
        text = "" if reply is None else "".join(reply)
        return [*self.screen.lines, *text.splitlines()]


def test_help_names_every_command() -> None:
    shown = Chat()("/help")
    assert [line.split()[0] for line in shown] == [*(f"/{name}" for name in COMMANDS), '"""TEXT"""']
    assert max(map(len, shown)) <= 80
    assert Chat()("/?") == shown


def test_system() -> None:
    chat = Chat()
    assert chat("/system") == ["the model is told nothing first"]
    assert chat("/system Be brief.") == []
    assert chat("/system") == ["Be brief."]
    assert chat.session.conversation.system == "Be brief."
    chat('/system ""')
    assert chat.session.conversation.system is None


def test_image(tmp_path: Path) -> None:
    file = tmp_path / "a red one.png"
    file.write_bytes(encoded(circle()))
    chat = Chat(session("demo-vision"))
    assert chat("/image") == ["0 pictures for the next message"]
    (shown,) = chat(f"/image '{file}'")
    assert shown.startswith(f"{file}, ") and shown.endswith(" pixels, goes with the next message")
    assert chat("/image") == [str(file), "1 picture for the next message"]
    with pytest.raises(ModelError, match=r"nowhere\.png: does not exist"):
        chat(f"/image '{file}' nowhere.png")
    assert len(chat.session.attached) == 1  # all of them, or none
    assert chat("/image -") == ["took back 1 picture"]
    assert not chat.session.attached


def test_clear_undo_and_retry() -> None:
    chat = Chat()
    with pytest.raises(UsageError):
        chat("/undo")
    with pytest.raises(UsageError):
        chat("/retry")
    reply = say(chat.session, "What is two plus three?")
    assert chat("/retry") == [reply]
    assert len(chat.session.conversation.exchanges) == 1
    say(chat.session, "Who are you?")
    assert chat("/undo") == ["the chat forgot: Who are you?"]
    assert chat("/clear") == ["the chat forgot 1 exchange"]
    assert not chat.session.conversation.exchanges


def test_save_and_load(tmp_path: Path) -> None:
    chat, file = Chat(), tmp_path / "a chat.json"
    reply = say(chat.session, "What is two plus three?")
    with pytest.raises(UsageError, match="has no name to save under"):
        chat("/save")
    assert chat(f"/save '{file}'") == [f"saved 1 exchange in {file}"]
    say(chat.session, "Who are you?")
    assert chat("/save") == [f"saved 2 exchanges in {file}"]  # its own file, again
    other = Chat()
    with pytest.raises(UsageError, match="exists"):
        other(f"/save '{file}'")
    other("/set temperature 0.5")
    shown = other(f"/load '{file}'")
    assert shown[0] == f"2 exchanges from {file}"
    assert other.session.conversation == chat.session.conversation
    assert other.session.config.temperature == 0
    assert other.session.conversation.exchanges[0].reply == reply
    other("/clear")
    assert other(f"/save --force '{file}'") == [f"saved 0 exchanges in {file}"]
    with pytest.raises(UsageError, match="end the quotes"):
        other("/load 'a chat.json")


def test_set() -> None:
    chat = Chat()
    assert "temperature 0.0" in chat("/set")
    assert chat("/set temperature 0.5") == []
    assert chat("/set temperature") == ["temperature 0.5"]
    chat("/set overflow slide")
    assert chat.session.overflow == "slide"
    for wrong in ("temperature -1", "temperature hot", "flavor red", "overflow sideways"):
        with pytest.raises(UsageError):
            chat(f"/set {wrong}")
    assert chat("/set temperature") == ["temperature 0.5"]


def test_model() -> None:
    chat = Chat()
    assert chat("/model") == ["demo: text, 512 tokens of context"]
    say(chat.session, "What is two plus three?")
    (shown,) = chat("/model demo-vision")
    assert shown.startswith("demo-vision: sees pictures")
    assert len(chat.session.conversation.exchanges) == 1
    with pytest.raises(UsageError, match="nowhere"):
        chat("/model nowhere/at/all")
    assert chat.session.model.name == "demo-vision"


def test_stats_and_tokens() -> None:
    chat = Chat()
    assert chat("/stats") == ["no reply yet"]
    before = chat.session.positions()
    say(chat.session, "What is two plus three?")
    first, last = chat("/stats")
    assert first.startswith("1 reply, ") and last.startswith("last: ")
    (line,) = chat("/tokens")
    count = chat.session.positions()
    assert count > before
    assert line == f"{count} of 512 tokens ({count / 512:.0%}), 1 exchange"


def test_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    chat = Chat()
    with pytest.raises(UsageError, match="there is no reply yet"):
        chat("/copy")
    say(chat.session, "What is two plus three?")
    with pytest.raises(NotAvailableError, match="no clipboard program"):
        chat("/copy")


def test_copy_by_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, kept = tmp_path / "xclip", tmp_path / "kept"
    program.write_text(f"#!/bin/sh\ncat > '{kept}'\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    chat = Chat()
    reply = say(chat.session, "What is two plus three?")
    assert chat("/copy") == [f"copied {len(reply)} characters with xclip"]
    assert kept.read_text() == reply


def test_exit_and_what_takes_nothing() -> None:
    chat = Chat()
    for line in ("/exit", "/quit", "/q"):
        with pytest.raises(Leave):
            chat(line)
    with pytest.raises(UsageError, match="takes nothing"):
        chat("/undo everything")
    with pytest.raises(UsageError, match=r"did you mean /retry\?"):
        chat("/rety")


@pytest.mark.parametrize("name", ["demo", "demo-vision"])
def test_what_is_said_never_becomes_a_control_token(name: str) -> None:
    """Control tokens whole, cut, nested and spread over messages, system text and earlier replies."""
    chat = session(name)
    tokenizer = chat.model.tokenizer
    special = [i for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)]
    controls = [tokenizer.decode([i], skip_special_tokens=False) for i in special]

    def structure(text: str) -> list[int]:
        ids = chat.model.prompt(chat.conversation, text).ids
        return [i for i in ids if i >= tokenizer.vocab_size or tokenizer.is_special(i)]

    expected = structure("harmless")
    draw = random.Random(0)
    for _ in range(HOSTILE_TEXTS):
        parts = []
        for _ in range(draw.randrange(1, 5)):
            token, other = draw.choice(controls), draw.choice(controls)
            cut = draw.randrange(len(token) + 1)
            inner = draw.choice(("", " ", "\n", "\u200b", other))
            parts += [token[:cut], inner, token[cut:], draw.choice(("", " ", "hello", "<|", "</"))]
        assert structure("".join(parts)) == expected, parts
