"""Thoughts: apart from the reply wherever they go, and turned off by the template's own switch."""

from __future__ import annotations

import json
import re
from itertools import combinations, pairwise
from pathlib import Path

import known_model
import pytest
from terminal import READY, Terminal
from warm_program import on_terminal, run

import lolama
from lolama.thinking import ThoughtFormat, ThoughtSplitter, is_thought
from lolama_core.protocols.errors import UsageError

THOUGHT, REPLY = "I wonder.", known_model.REPLY
WRITTEN = f"<think>\n{THOUGHT}\n</think>\n\n{REPLY}"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that thinks; its template has a switch."""
    directory = tmp_path_factory.mktemp("models") / "thinker"
    return known_model.write(
        directory, chat_template=known_model.THINKING_TEMPLATE, thinks=True, max_seq_len=256
    )


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template begins every thought, and has no switch."""
    directory = tmp_path_factory.mktemp("models") / "opened"
    return known_model.write(
        directory, chat_template=known_model.OPENED_TEMPLATE, thinks=True, max_seq_len=256
    )


def split(pieces: list[str], *, opened: bool = False) -> tuple[str, str, str | None]:
    """The thought and the reply, as pieces give them, and the thought as the splitter has it."""
    splitter = ThoughtSplitter(ThoughtFormat("<think>", "</think>", opened))
    parts = list(splitter.parts(iter(pieces)))
    assert all(parts)
    thought = "".join(part for part in parts if is_thought(part))
    return thought, "".join(part for part in parts if not is_thought(part)), splitter.thinking


@pytest.mark.parametrize(
    ("text", "opened", "thought", "reply"),
    [
        ("<think>\nA < b\n\n</think>\n\nC\n", False, "A < b", "C\n"),
        (" \n<think>a</think>b", False, "a", "b"),
        ("<think>\n\n</think>\n\nC", False, "", "C"),
        ("a\n</thi</think>\nb", True, "a\n</thi", "b"),
        ("<think>a\n\nb</thin", False, "a\n\nb</thin", ""),
        ("a\n", True, "a", ""),
        ("C <think>a</think>", False, "", "C <think>a</think>"),
        ("<think>a</think>b <think>c</think>", False, "a", "b <think>c</think>"),
        ("<thin", False, "", "<thin"),
        ("\n\nC", False, "", "\n\nC"),
        ("", False, "", ""),
    ],
)
def test_row_341_tags_are_found_however_pieces_cut_them(
    text: str, opened: bool, thought: str, reply: str
) -> None:
    expected = (thought, reply, thought or None)
    for count in (0, 1, 2):
        for cuts in combinations(range(len(text) + 1), count):
            ends = (0, *cuts, len(text))
            pieces = [text[a:b] for a, b in pairwise(ends)]
            assert split(pieces, opened=opened) == expected, pieces
    assert split(list(text), opened=opened) == expected


def test_a_model_that_does_not_think_says_what_it_says() -> None:
    splitter = ThoughtSplitter(None)
    assert list(splitter.parts(iter(["<think>a", "</think>b"]))) == ["<think>a", "</think>b"]
    assert splitter.thinking is None


def test_chat_keeps_the_thought_apart_and_can_leave_it_out(thinker: Path) -> None:
    llm = lolama.load(thinker, device="cpu")
    result = llm.chat("hi", temperature=0)
    assert (result.text, result.thinking, str(result)) == (REPLY, THOUGHT, REPLY)
    assert llm.tokenizer.decode(result.ids) == WRITTEN
    stream = llm.chat("hi", temperature=0, stream=True)
    assert "".join(stream) == REPLY
    assert stream.thinking == THOUGHT
    assert stream.result == result
    silent = llm.chat("hi", temperature=0, thinking=False)
    assert (silent.text, silent.thinking) == (REPLY, None)
    assert llm.chat("hi", temperature=0, thinking=True) == result
    # No template is involved, so nothing is taken apart.
    raw = llm.generate("<|assistant|>", temperature=0)
    assert (raw.text, raw.thinking) == (WRITTEN, None)


def test_row_342_a_thought_that_the_limit_cuts_is_a_thought(thinker: Path) -> None:
    result = lolama.load(thinker, device="cpu").chat("hi", temperature=0, max_new_tokens=3)
    assert (result.text, result.thinking, result.finish_reason) == ("", "I wonder", "length")


def test_row_343_what_a_user_types_is_no_thought(thinker: Path, opened: Path) -> None:
    llm = lolama.load(thinker, device="cpu")
    result = llm.chat("hi <think>\n", temperature=0, thinking=False)
    assert (result.text, result.thinking) == (REPLY, None)
    assert llm.tokenizer.opens_thought(llm.encode_chat("hi <think>\n")[0]) is False
    r1 = lolama.load(opened, device="cpu")
    ids, _ = r1.encode_chat("hi")
    assert r1.tokenizer.opens_thought(ids) is True
    said = r1.chat("hi", temperature=0)
    assert (said.text, said.thinking) == (REPLY, ".")


def test_a_conversation_leaves_old_thoughts_out(thinker: Path) -> None:
    llm = lolama.load(thinker, device="cpu")
    talk = llm.conversation()
    assert talk.ask("one", temperature=0).thinking == THOUGHT
    stream = talk.stream("two", temperature=0)
    assert ("".join(stream), stream.thinking) == (REPLY, THOUGHT)
    assert [message["content"] for message in talk.messages] == ["one", REPLY, "two", REPLY]
    silent = llm.conversation(thinking=False)
    assert silent.ask("one", temperature=0).thinking is None


def test_row_344_thinking_without_a_switch_is_refused(chatty: Path, opened: Path) -> None:
    for name in (chatty, opened):
        with pytest.raises(UsageError, match="no switch to turn thinking on or off"):
            lolama.load(name, device="cpu").chat("hi", thinking=False)
        for command in ("generate", "chat"):
            outcome = run(command, "-m", name, "--no-think", stdin=b"hi")
            assert (outcome.code, outcome.out) == (2, b"")
            assert outcome.err == (
                "error: --no-think: the model's chat template has no switch to turn thinking on or off; "
                "leave it out\n"
            )
    outcome = run("generate", "-m", chatty, "--no-think", "--raw", "hi")
    assert outcome.code == 2
    assert "which --raw leaves aside" in outcome.err


def test_row_353_another_model_of_a_silent_chat_needs_no_switch(
    thinker: Path, chatty: Path, opened: Path
) -> None:
    """It goes on; one that thinks nevertheless is told of once, when the chat comes to it."""
    base = chatty.parent / "base"
    known_model.write(base)
    lines = f"a\n/model {chatty}\nb\n/model {opened}\nc\n/model {base}\nx\n/model {thinker}\nd\n"
    outcome = run(
        "chat", "-m", thinker, "--no-think", "--temperature", "0", "--max-tokens", "20",
        stdin=lines.encode(),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    said = outcome.out.decode().splitlines()
    assert said[:3] == [REPLY] * 3 and said[-1] == REPLY and len(said) == 5
    notes = [line for line in outcome.err.splitlines() if "switch" in line]
    expected = f"note: {opened} thinks, and its chat template has no switch to turn that off"
    assert notes == [expected]


def test_generate_writes_the_reply_and_json_has_both(thinker: Path) -> None:
    for stream in ((), ("--no-stream",)):
        outcome = run("generate", "-m", thinker, "--temperature", "0", *stream, "hi")
        assert (outcome.code, outcome.out.decode(), outcome.err) == (0, REPLY, "")
    facts = json.loads(run("generate", "-m", thinker, "--temperature", "0", "--json", "hi").out)
    assert (facts["text"], facts["thinking"]) == (REPLY, THOUGHT)
    off = run("generate", "-m", thinker, "--temperature", "0", "--json", "--no-think", "hi")
    facts = json.loads(off.out)
    assert (facts["text"], facts["thinking"], len(facts["ids"])) == (REPLY, None, 1)
    raw = run("generate", "-m", thinker, "--temperature", "0", "--raw", "<|assistant|>z", "--json")
    assert json.loads(raw.out)["thinking"] is None


def test_generate_tells_that_there_was_no_room_for_a_reply(thinker: Path) -> None:
    outcome = run("generate", "-m", thinker, "--temperature", "0", "--max-tokens", "3", "hi")
    assert (outcome.code, outcome.out) == (0, b"")
    assert "still thought when it had no tokens left: raise --max-tokens" in outcome.err


@pytest.mark.parametrize("stream", [(), ("--no-stream",)])
def test_on_a_terminal_generate_shows_a_thought_faintly(
    thinker: Path, stream: tuple[str, ...]
) -> None:
    arguments = ("generate", "-m", str(thinker), "--temperature", "0", *stream, "hi")
    shown = on_terminal(*arguments, env={"TERM": "xterm"}).out.decode().replace("\r", "")
    faint = "".join(re.findall(r"\x1b\[2m(.*?)\x1b\[0m", shown, flags=re.DOTALL))
    assert faint == THOUGHT
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert plain == f"{THOUGHT}\n\n{REPLY}\n"
    shown = on_terminal(*arguments, env={"TERM": "dumb"}).out.decode().replace("\r", "")
    assert shown == f"thinking: {THOUGHT}\n\n{REPLY}\n"


def test_batch_keeps_thoughts_apart(thinker: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "hi"}\n')
    arguments = ("generate", "-m", thinker, "--temperature", "0", "--batch", prompts)
    answer = json.loads(run(*arguments).out)
    assert (answer["text"], answer["thinking"]) == (REPLY, THOUGHT)
    silent = json.loads(run(*arguments, "--no-think").out)
    assert (silent["text"], silent["thinking"]) == (REPLY, None)
    assert silent["key"] != answer["key"]
    raw = json.loads(run(*arguments, "--raw", "--max-tokens", "2").out)
    assert raw["thinking"] is None


def test_a_chat_through_a_pipe_is_replies_alone(thinker: Path, tmp_path: Path) -> None:
    arguments = ("chat", "-m", thinker, "--temperature", "0")
    for more in ((), ("--no-think",), ("--no-stream",)):
        outcome = run(*arguments, *more, stdin=b"one\ntwo\n")
        assert (outcome.code, outcome.out.decode()) == (0, f"{REPLY}\n{REPLY}\n")


def test_a_chat_on_a_terminal_shows_thoughts_faintly(thinker: Path, tmp_path: Path) -> None:
    home = {"LOLAMA_HOME": str(tmp_path)}
    terminal = Terminal("chat", "-m", str(thinker), "--temperature", "0", env=home)
    terminal.wait_for(READY)
    shown = terminal.say("hi")
    assert f"{THOUGHT}\n\n{REPLY}" in shown
    faint = re.findall(rb"\x1b\[2m([^\x1b]*)\x1b\[0m", terminal.out)
    assert b"".join(faint).endswith(THOUGHT.encode())
    terminal.say(f"/save {tmp_path / 'chat.json'}")
    saved = json.loads((tmp_path / "chat.json").read_text())
    assert [turn["text"] for turn in saved["turns"]] == ["hi", REPLY]
