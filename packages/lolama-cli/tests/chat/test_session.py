"""The conversation without a terminal: what the model reads, what is run anew, what a failure leaves."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
from drawings import circle, encoded
from talk import GREEDY, LocalSession, model, say, session

from lolama import TextGenerator
from lolama_cli.chat.conversation import INTERRUPTED, continued_text, messages
from lolama_cli.chat.session import Session
from lolama_core.protocols.errors import LolamaError, ModelError, UsageError
from lolama_core.runtime.runner import Runner

QUESTIONS = (
    "What is two plus three?",
    "Tell me a story about a dog.",
    "What colour is the sky?",
    "And what is four plus four?",
    "Who are you?",
)
INTERRUPTS = int(os.environ.get("LOLAMA_INTERRUPTS", "8"))
MEMORY_TURNS = int(os.environ.get("LOLAMA_CHAT_TURNS", "60"))


def fresh(chat: LocalSession, question: str) -> str:
    """The reply to the whole text, run from its beginning by a generator that remembers nothing."""
    prompt = chat.model.prompt(chat.conversation, question, chat.attached)
    generator = TextGenerator(chat.model.model, chat.model.tokenizer)
    text = generator.generate(prompt.ids, chat.config, **prompt.inputs).text
    assert text is not None
    return text


@contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Positions of each pass of the model."""
    widths: list[int] = []
    run = Runner.forward_embeds

    def forward_embeds(self: Runner, embeds: Any, *rest: Any, **named: Any) -> Any:
        widths.append(embeds.shape[1])
        return run(self, embeds, *rest, **named)

    with patch.context() as patched:
        patched.setattr(Runner, "forward_embeds", forward_embeds)
        yield widths


def shared(one: Sequence[object], other: Sequence[object]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


# ------------------------------------------------------------------------------- what is run, and what comes


@pytest.mark.parametrize("raw", [False, True])
def test_every_turn_runs_what_is_new_and_replies_as_a_fresh_run_does(
    raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = session(raw=raw)
    ran: list[int] = []  # the ids whose keys and values are remembered
    for question in QUESTIONS:
        expected = fresh(chat, question)
        prompt = chat.model.prompt(chat.conversation, question)
        with counted(monkeypatch) as widths:
            assert say(chat, question) == expected
        known = min(shared(ran, prompt.ids), len(prompt.ids) - 1)
        new = len(prompt.ids) - (known if known >= 8 else 0)
        assert chat.last is not None
        assert (widths[0], chat.last.prefilled) == (new, new)
        assert chat.last.prompt == len(prompt.ids)
        replied = TextGenerator(chat.model.model, chat.model.tokenizer).generate(prompt.ids, GREEDY)
        # Nobody asked what comes after the last token of a reply that was cut off.
        ran = [*prompt.ids, *replied.ids[: -1 if replied.finish_reason == "length" else None]]
    assert chat.totals.replies == len(QUESTIONS)
    assert chat.totals.cached > chat.totals.prompt / 3


def test_a_known_conversation() -> None:
    chat = session()
    assert say(chat, "What is two plus three?") == "Two plus three is five."
    told = messages(None, chat.conversation.exchanges, "And then?")
    assert [message["role"] for message in told] == ["user", "assistant", "user"]
    assert told[1]["content"] == "Two plus three is five."
    ids = chat.model.prompt(chat.conversation, "And then?").ids
    assert ids == model().tokenizer.render_chat(told)


def test_pictures_stay_in_the_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for color in ("red", "blue"):
        (tmp_path / f"{color}.png").write_bytes(encoded(circle(color)))
    chat = session("demo-vision")
    chat.attach(str(tmp_path / "red.png"))
    assert say(chat, "What is in the picture?") == "A large red circle in the centre."
    assert chat.attached == ()
    expected = fresh(chat, "What colour is the circle?")
    with counted(monkeypatch) as widths:
        assert say(chat, "What colour is the circle?") == expected
    assert widths[0] < 36  # the picture is not run again
    chat.attach(str(tmp_path / "blue.png"))
    expected = fresh(chat, "What is in the picture?")
    assert say(chat, "What is in the picture?") == expected
    assert [len(e.pictures) for e in chat.conversation.exchanges] == [1, 0, 1]


def test_a_base_model_continues_what_stands_there(base: Path) -> None:
    chat = session(base, config=GREEDY.with_settings(max_new_tokens=3))
    assert chat.model.continues_text
    assert (say(chat, "x"), say(chat, "m")) == ("yza", "nop")
    assert continued_text(chat.conversation.exchanges, "z") == "xyza\nmnop\nz"
    with pytest.raises(UsageError, match="no place for a system message"):
        chat.set_system("Be brief.")


def test_what_the_model_is_told_first() -> None:
    chat = session()
    chat.set_system("You are a cat.")
    assert chat.conversation.system == "You are a cat."
    told = messages("You are a cat.", (), "Who are you?")
    assert chat.model.prompt(chat.conversation, "Who are you?").ids == (
        chat.model.tokenizer.render_chat(told)
    )
    chat.clear()
    assert chat.conversation.system == "You are a cat."
    chat.set_system(None)
    assert chat.conversation.system is None
    with pytest.raises(ModelError, match="chat template"):
        session("demo-vision").set_system("You are a cat.")


def test_with_a_seed_a_session_repeats_itself_and_a_retry_may_differ() -> None:
    def replies() -> list[str]:
        config = GREEDY.with_settings(temperature=1.0, seed=7)
        chat = session(config=config)
        found = [say(chat, "Tell me a story.")]
        found += ["".join(chat.retry()) for _ in range(3)]
        assert [e.seed for e in chat.conversation.exchanges] == [10]
        return found

    first = replies()
    assert replies() == first
    assert len(set(first)) > 1


# -------------------------------------------------------------------------------- undoing, stopping, failing


def test_undo_and_retry() -> None:
    chat = session()
    with pytest.raises(UsageError, match="is empty"):
        chat.undo()
    with pytest.raises(UsageError, match="is empty"):
        list(chat.retry())
    one, two = say(chat, QUESTIONS[0]), say(chat, QUESTIONS[1])
    assert "".join(chat.retry()) == two
    assert [e.reply for e in chat.conversation.exchanges] == [one, two]
    assert chat.undo() == QUESTIONS[1]
    assert fresh(chat, QUESTIONS[1]) == two
    assert [e.reply for e in chat.conversation.exchanges] == [one]


def test_rows_65_and_92_a_reply_that_is_stopped_stays_as_far_as_it_came() -> None:
    chat = session()
    say(chat, QUESTIONS[0])
    pieces = chat.ask(QUESTIONS[1])
    said = next(pieces) + next(pieces) + next(pieces)
    pieces.close()  # type: ignore[attr-defined] # it is a generator
    last = chat.conversation.exchanges[-1]
    assert (last.question, last.reply, last.finish_reason) == (QUESTIONS[1], said, INTERRUPTED)
    assert chat.last is not None
    assert chat.last.cached > 0
    expected = fresh(chat, QUESTIONS[2])
    assert say(chat, QUESTIONS[2]) == expected
    assert chat.unanswered is None


class Interruption:
    """KeyboardInterrupt at the n-th line of Python that runs inside what may be broken off."""

    def __init__(self, line: int) -> None:
        self._left, self._armed = line, False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if self._armed and event == "line" and "lolama_core" in frame.f_code.co_filename:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt
        return self.trace


def test_rows_65_and_92_interrupted_at_any_line_the_next_reply_is_that_of_a_fresh_run(
    record_property: Callable[[str, object], None],
) -> None:
    """Interrupts are raised here; test_chat_terminal presses Ctrl-C in a process."""
    record_property("replies of a chat interrupted at a random line", f"0 to {INTERRUPTS - 1}")
    chance = random.Random(65)
    for round_ in range(INTERRUPTS):
        interruption = Interruption(chance.randrange(1, 6000))
        chat = session(interruptible=interruption.interruptible)
        pieces = [say(chat, QUESTIONS[0])]
        sys.settrace(interruption.trace)
        try:
            pieces += chat.ask(QUESTIONS[1])  # which keeps what came before it fails
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        said = "".join(pieces[1:])
        assert [e.reply for e in chat.conversation.exchanges[1:]] == ([said] if said else []), (
            round_
        )
        assert (chat.unanswered is None) == bool(said), round_
        expected = fresh(chat, QUESTIONS[2])
        assert say(chat, QUESTIONS[2]) == expected, round_


def test_row_92_what_was_stopped_before_it_said_anything_can_be_asked_again() -> None:
    chat = session()

    @contextmanager
    def stopped() -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    chat.interruptible = stopped
    with pytest.raises(KeyboardInterrupt):
        say(chat, QUESTIONS[0])
    assert (chat.conversation.exchanges, chat.unanswered) == ((), QUESTIONS[0])
    chat.interruptible = session().interruptible
    assert "".join(chat.retry()) == "Two plus three is five."
    assert chat.unanswered is None


def failing(session_: Session, error: LolamaError) -> Callable[..., Any]:
    def prompt(*given: object, **named: object) -> object:
        raise error

    return prompt


@pytest.mark.parametrize("again", ["ask", "retry"])
def test_row_92_an_error_loses_nothing(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "red.png").write_bytes(encoded(circle()))
    chat = session("demo-vision")
    say(chat, "How many shapes are there?")
    before = chat.conversation
    chat.attach(str(tmp_path / "red.png"))
    attached = chat.attached
    with monkeypatch.context() as patched:
        error = ModelError("chat template", "fails", "")
        patched.setattr(chat.model, "prompt", failing(chat, error))
        with pytest.raises(ModelError):
            say(chat, "What is in the picture?")
    assert (chat.conversation, chat.attached) == (before, attached)
    assert chat.unanswered == "What is in the picture?"
    reply = "".join(chat.retry()) if again == "retry" else say(chat, "What is in the picture?")
    assert reply
    assert chat.conversation.exchanges[-1].pictures == attached
    assert chat.attached == ()
    assert chat.unanswered is None


def test_rows_57_and_92_logits_that_are_not_finite(overflowing: Path) -> None:
    chat = session(overflowing)
    with pytest.raises(ModelError, match="non-finite"):
        say(chat, "z")
    assert (chat.conversation.exchanges, chat.unanswered) == ((), "z")
    chat.use(model("demo"))
    assert "".join(chat.retry())


def test_row_76_pictures_and_a_text_model(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(encoded(circle()))
    with pytest.raises(UsageError, match=r"which is a text model and takes none; .*demo-vision"):
        session().attach(str(tmp_path / "red.png"))
    chat = session("demo-vision")
    before = chat.model
    with pytest.raises(ModelError, match="does not exist"):
        chat.attach(str(tmp_path / "absent.png"))
    chat.attach(str(tmp_path / "red.png"))
    say(chat, "What is in the picture?")
    with pytest.raises(UsageError, match="1 picture for demo, which is a text model"):
        chat.use(model("demo"))
    assert chat.model is before


def test_a_picture_that_changed_is_not_shown_as_the_same(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(circle()))
    chat = session("demo-vision")
    chat.attach(str(path))
    say(chat, "What is in the picture?")
    path.write_bytes(encoded(circle("blue")))
    other = session("demo-vision")
    other.model._prepared.clear()
    with pytest.raises(ModelError, match="is not the picture any more"):
        other.resume(chat.conversation)
    assert other.conversation.exchanges == ()
    path.write_bytes(encoded(circle()))
    other.resume(chat.conversation)
    assert fresh(other, "What colour is the circle?") == "The circle is red."


# ---------------------------------------------------------------------------------------- the context fills


def test_row_63_a_full_context_is_an_error_with_both_counts() -> None:
    chat = session()
    while chat.positions() < 490:
        say(chat, QUESTIONS[1])
    with pytest.raises(UsageError, match=r"conversation: has [\d,]+ tokens of the 512"):
        say(chat, QUESTIONS[1] * 8)
    kept = chat.conversation
    assert len(kept.exchanges) > 3
    assert chat.unanswered == QUESTIONS[1] * 8
    chat.overflow = "slide"
    told: list[str] = []
    chat.notice = told.append
    assert "".join(chat.retry())
    gone = chat.conversation.first
    assert told == [f"the chat forgot its first {gone} exchanges to make room"]
    assert len(chat.conversation.exchanges) == len(kept.exchanges) + 1  # and /save has all
    assert gone > 1
    with pytest.raises(UsageError, match=r"message: has .* tokens of the 512"):
        say(chat, "dog " * 600)
    with pytest.raises(UsageError, match="prompt: has about"):
        say(chat, "dog " * 60_000)


@pytest.mark.parametrize("overflow", ["slide", "error"])
def test_row_174_a_context_that_fills_is_told_once_before_it_is_full(overflow: str) -> None:
    told: list[str] = []
    chat = session(overflow=overflow, notice=told.append)
    fills = [0.0]
    while not told:
        say(chat, QUESTIONS[1])
        assert chat.last is not None
        fills.append((chat.last.prompt + chat.last.new) / 512)
    fill = fills[-1]
    assert fills[-2] < 0.8 <= fill < 1
    advice = (
        "forget its first exchanges" if overflow == "slide" else "/set overflow slide makes room"
    )
    assert told[0].startswith(f"the chat fills {fill:.0%} of the model's context of 512 tokens; ")
    assert told[0].endswith(advice)
    if overflow == "error":
        while chat.positions() < 490:
            say(chat, QUESTIONS[1])
        assert not any("fills" in line for line in told[1:])
        return
    while not chat.conversation.first:
        say(chat, QUESTIONS[1])
    first = chat.conversation.first
    assert told[1:] == [f"the chat forgot its first {first} exchanges to make room"]
    while len(told) == 2:  # it fills again, which is no news
        say(chat, QUESTIONS[1])
    assert told[2] == f"the chat forgot its first {chat.conversation.first} exchanges to make room"


def test_row_174_a_chat_that_was_cleared_is_told_again() -> None:
    told: list[str] = []
    chat = session(notice=told.append)
    for count in (1, 2):
        while len(told) < count:
            say(chat, QUESTIONS[1] * 4)
        chat.clear()


def test_row_174_asking_again_makes_room_for_a_whole_reply(short: Path) -> None:
    told: list[str] = []
    chat = session(short, overflow="slide", notice=told.append)
    assert say(chat, "a") == "bcdefghijklmno"
    chat.conversation = replace(
        chat.conversation, exchanges=(replace(chat.conversation.exchanges[0], reply="bcdefghi"),)
    )
    told.clear()
    assert say(chat, "z") == "abcd"  # 12 of the 16 tokens are taken
    assert "/retry makes room" in told[0]
    assert "".join(chat.retry()) == "abcdefghijklmn"
    assert told[1] == "the chat forgot its first exchange to make room"


def test_what_slides_out_leaves_the_rest_as_a_fresh_run() -> None:
    told: list[str] = []
    chat = session(overflow="slide", notice=told.append)
    chat.set_system("You are a cat.")
    for turn in range(12):
        question = QUESTIONS[turn % len(QUESTIONS)] * 8
        reply = say(chat, question)
        # A fresh run, which also reads what had slid out, gives the same reply.
        before = replace(chat.conversation, exchanges=chat.conversation.exchanges[:-1])
        assert fresh(replace(chat, conversation=before), question) == reply, turn
        assert chat.last is not None
        assert chat.last.prompt < 512
    assert len(told) >= 2
    ids = chat.model.prompt(chat.conversation, "?").ids
    system = chat.model.tokenizer.render_chat(messages("You are a cat.", (), "?"))
    assert ids[:8] == system[:8]


def test_row_64_a_reply_that_fills_the_context_ends_with_a_notice(short: Path) -> None:
    told: list[str] = []
    chat = session(short, notice=told.append)
    assert say(chat, "z") == "abcdefghijklmn"
    assert len(told) == 1
    assert "16 tokens is full" in told[0]
    with pytest.raises(UsageError, match=r"/set overflow slide"):
        say(chat, "z")
    chat.overflow = "slide"
    assert say(chat, "z") == "abcdefghijklmn"
    assert told[1] == "the chat forgot its first exchange to make room"


def test_memory_stays_level_over_many_turns_at_the_context_limit(
    record_property: Callable[[str, object], None],
) -> None:
    """Also of pictures that have slid out. 1,000 turns in the session ``faults``."""
    record_property("turns of a chat at the context limit", f"1 to {MEMORY_TURNS}")
    config = GREEDY.with_settings(max_new_tokens=8)
    told: list[str] = []
    chat = session(overflow="slide", config=config, notice=lambda text: told.append(text))
    process = psutil.Process()

    def turns(count: int) -> int:
        for turn in range(count):
            say(chat, f"{turn}: " + QUESTIONS[turn % len(QUESTIONS)] * 8)
        gc.collect()
        return int(process.memory_info().rss)

    before = turns(30)  # the context is full, and every buffer has its size
    slides = len(told)
    assert slides
    after = turns(MEMORY_TURNS)
    assert len(told) > slides
    assert after < 1.05 * before
    cache = chat.model.generator.prefix_cache
    assert cache is not None
    assert cache.nbytes <= cache.max_bytes
    assert len(chat.model._prepared) == 0
