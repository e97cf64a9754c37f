"""Tools in a chat: functions of a file, who is asked, and what the model is told."""

from __future__ import annotations

import json
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
import torch
from talk import GREEDY, model
from warm_program import run

from lolama_cli.chat import transcript
from lolama_cli.chat.conversation import messages
from lolama_cli.chat.functions import ChatTools, ask_on_terminal, load_functions
from lolama_cli.chat.model import ChatModel
from lolama_cli.chat.session import Session
from lolama_cli.chat.transcript import Transcript
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.tools import ToolCall

FILE = """
from math import sqrt  # not a function of this file

def add(a: int, b: int = 0) -> int:
    "Adds."
    return a + b

def fail(text: str) -> None:
    raise ValueError(text)

def stop() -> None:
    raise KeyboardInterrupt

def listed() -> list[str]:
    return ["é"]

def _hidden() -> None: ...
"""
# The context of demo holds 512 tokens.
SMALL = "def add(a: int, b: int): return a + b\ndef stop(): raise KeyboardInterrupt\n"
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(FILE, "utf-8")
    return path


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall("abcdefghi", name, arguments)


def test_public_functions_of_a_file_are_tools(file: Path) -> None:
    tools = ChatTools(load_functions(file), None, lambda text: None)
    names = [definition["function"]["name"] for definition in tools.definitions]  # type: ignore[index]
    assert names == ["add", "fail", "stop", "listed"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("x = 1", "has no public function"), ("1 / 0", "fails: ZeroDivisionError"), (None, "is no ")],
)
def test_other_files_are_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "other.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=reason):
        load_functions(path)


def test_each_call_is_asked_about(file: Path) -> None:
    asked: list[str] = []
    shown: list[str] = []
    answers = iter("nyaz")

    def ask(text: str) -> str:
        asked.append(text)
        return next(answers)

    tools = ChatTools(load_functions(file), ask, shown.append)
    add = call("add", a=1, b=2)
    assert tools.run(add) == "The user does not allow this call."
    assert shown == []
    assert [tools.run(add), tools.run(add), tools.run(add)] == ["3"] * 3
    assert asked == ["add(a=1, b=2)"] * 3  # not of the last: always
    assert tools.run(call("listed")) == "The user does not allow this call."
    assert asked[3:] == ["listed()"]


def test_what_a_function_raises_is_its_result(file: Path) -> None:
    shown: list[str] = []
    tools = ChatTools(load_functions(file), None, shown.append)
    assert tools.run(call("fail", text="x\x1b[2J")) == "error: ValueError: x\x1b[2J"
    assert shown[0] == "fail(text='x\\x1b[2J')"
    assert tools.run(call("add", c=1)).startswith("error: TypeError: ")
    assert tools.run(call("listed")) == '["é"]'
    with pytest.raises(KeyboardInterrupt):
        tools.run(call("stop"))


class Saying:
    """A generator that has a model write texts, one after another."""

    def __init__(self, chat: ChatModel, texts: list[str]) -> None:
        [self._eos] = list(chat.tokenizer.eos_ids)[:1]
        self._inner, self._tokenizer = chat.generator, chat.tokenizer
        self._texts = iter(texts)
        self.prompts: list[str] = []

    def generate_stream(self, ids: list[int], config: Any, **options: Any) -> Any:
        forced = self._tokenizer.encode_ids(next(self._texts), add_special_tokens=False)
        forced = [*forced, self._eos]
        self.prompts.append(self._tokenizer.decode(ids))

        def force(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            only = torch.full_like(scores, -torch.inf)
            only[:, forced[input_ids.shape[1] - len(ids)]] = 0
            return only

        return self._inner.generate_stream(ids, config, logits_processors=[force], **options)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text(SMALL, "utf-8")
    return path


def talking(file: Path, texts: list[str], **tools: Any) -> tuple[Session, Saying]:
    given = {"ask": None, "show": lambda text: None, **tools}
    functions = ChatTools(load_functions(file), **given)
    shared = model()
    chat = ChatModel(
        shared.files, shared.tokenizer, lambda: shared.model, tools=functions.definitions
    )
    saying = Saying(chat, texts)
    chat.__dict__["generator"] = saying
    config = GREEDY.with_settings(max_new_tokens=200)
    return Session(model=chat, config=config, tools=functions, overflow="slide"), saying


def test_a_result_goes_back_and_the_model_goes_on(small: Path, tmp_path: Path) -> None:
    chat, saying = talking(small, ["I add.\n" + CALL, "It is 3."])
    paused: list[None] = []
    chat.pause = lambda: paused.append(None)
    assert [*chat.ask("1 + 2?")][-1] != ""
    [exchange] = chat.conversation.exchanges
    [step] = exchange.steps
    assert (step.text, step.results, exchange.reply) == ("I add.", ("3",), "It is 3.")
    assert (step.calls[0].name, step.calls[0].arguments) == ("add", {"a": 1, "b": 2})
    assert len(paused) == 1
    assert "<tool_response>\n3\n</tool_response>" in saying.prompts[1]
    turns = messages(None, [exchange], "Sure?")
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "assistant", "user"]
    assert turns[1]["tool_calls"][0]["id"] == turns[2]["tool_call_id"]
    # What is saved is what is loaded.
    path = tmp_path / "chat.json"
    saved = Transcript(model="demo", settings={}, conversation=chat.conversation)
    transcript.save(path, saved, replace=False)
    assert transcript.load(path).conversation.exchanges == chat.conversation.exchanges
    written = json.loads(path.read_text("utf-8"))["turns"]
    written[1]["tool_steps"][0]["calls"][0]["arguments"] = "x"
    data: Any = {"schema": transcript.SCHEMA, "turns": written}
    with pytest.raises(UsageError, match=r"turns\[1\].tool_steps\[0\].calls\[0\].arguments"):
        transcript.from_json(data, "chat")


def test_a_model_may_not_call_for_ever(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lolama_cli.chat.session.MOST_STEPS", 1)
    small.write_text(SMALL.partition("\n")[0])
    chat, saying = talking(small, [CALL] * 2)
    assert "".join(chat.ask("1 + 2?")) == ""
    [exchange] = chat.conversation.exchanges
    assert len(exchange.steps) == 1
    assert len(saying.prompts) == 2
    assert any("called tools" in remark for remark in chat.remarks)


def test_breaking_a_call_off_leaves_the_question_unanswered(small: Path) -> None:
    stop = '<tool_call>{"name": "stop", "arguments": {}}</tool_call>'
    chat, _ = talking(small, [stop, CALL, "It is 3."])
    with pytest.raises(KeyboardInterrupt):
        [*chat.ask("1 + 2?")]
    assert (chat.conversation.exchanges, chat.unanswered) == ((), "1 + 2?")
    assert "".join(chat.retry()) == "It is 3."
    assert len(chat.conversation.exchanges[0].steps) == 1


def test_tools_need_a_chat_template(small: Path) -> None:
    shared = model()
    definitions = ChatTools(load_functions(small), None, print).definitions
    with pytest.raises(UsageError, match="without a chat template there is no place for tools"):
        ChatModel(shared.files, shared.tokenizer, lambda: shared.model, raw=True, tools=definitions)


def test_the_answer_of_a_person_is_read_from_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = TextIOWrapper(BytesIO(b"what?\nYes\nN\nalways\n"))
    monkeypatch.setattr("sys.stdin", said)
    assert [ask_on_terminal("add(a=1)") for _ in range(4)] == ["y", "n", "a", "n"]
    assert capsys.readouterr().err.startswith("run add(a=1)? [y]es, [n]o, [a]lways: ")


def test_without_a_terminal_nobody_could_be_asked(small: Path) -> None:
    outcome = run("chat", "-m", "demo", "--tools", small, stdin=b"Hi\n")
    outcome.refused(2, "--tools", "nobody is at a terminal", "give --yes-tools")
    outcome = run("chat", "-m", "demo", "--tools", small, "--yes-tools", "--raw", stdin=b"Hi\n")
    outcome.refused(2, "--tools", "there is no place for tools")
    outcome = run("chat", "-m", "demo", "--tools", small, "--yes-tools", stdin=b"Hi\n")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip()
