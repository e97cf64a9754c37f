"""A chat without a terminal: what is remembered, what is asked, and what is left when something fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lolama.thinking import is_cut_off, is_thought
from lolama_cli.chat.context import NEARLY_FULL, Overflow, fitted, full, nearly_full
from lolama_cli.chat.conversation import (
    INTERRUPTED,
    Conversation,
    Exchange,
    PictureFile,
    ToolStep,
)
from lolama_cli.chat.functions import MOST_STEPS, ChatTools
from lolama_cli.chat.timings import Timings, Totals
from lolama_cli.command_words import STILL_THINKING
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lolama import GenerationConfig
    from lolama_cli.chat.partner import ChatPartner
    from lolama_core.protocols.tools import ToolCall


@dataclass
class Session:
    """A conversation with a model.

    A step that fails raises, and leaves the conversation as it was; what was asked stays in ``unanswered``.

    Attributes:
        model: Replies.
        config: Settings of a reply. With a seed, the n-th reply of the session takes ``seed + n - 1``, so
            that a session repeats itself and a reply that is asked for again may differ.
        given: Names of settings that the user asked for. No model replaces these.
        overflow: When the conversation does not fit into the context: refuse (``error``), or no longer send
            the oldest exchanges (``slide``).
        is_nearly_full: Whether the user was told that the context is.
        conversation: What was said.
        attached: Pictures that go with the next question.
        unanswered: The last question, if it got no reply.
        notice: Is told what happens to the conversation, never while a reply is shown.
        remarks: What is to be told of the last reply, once all of it is shown.
        leave: Is told which model another takes the place of, before it does.
        interruptible: Entered around what takes long and may be broken off by KeyboardInterrupt at any
            moment; nothing is changed inside.
        tools: What the model may call; None for nothing. Breaking a call off leaves the question unanswered.
        pause: Is called before tools are: what was shown so far of the reply ends there.
        last: Timings of the last reply.
        totals: The sums over all replies.
    """

    model: ChatPartner
    config: GenerationConfig
    overflow: Overflow = "error"
    given: frozenset[str] = frozenset()
    is_nearly_full: bool = False
    conversation: Conversation = field(default_factory=Conversation)
    attached: tuple[PictureFile, ...] = ()
    unanswered: str | None = None
    notice: Callable[[str], None] = lambda text: None
    remarks: list[str] = field(default_factory=list)
    leave: Callable[[ChatPartner], None] = lambda model: None
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext
    tools: ChatTools | None = None
    pause: Callable[[], None] = lambda: None
    last: Timings | None = None
    totals: Totals = field(default_factory=Totals)

    def ask(self, question: str) -> Iterator[str]:
        """Say something; the pieces of the thought, if there is one, and of the reply, as they come.

        Breaking off the iteration (closing it, or KeyboardInterrupt) keeps what was said so far as the reply.

        Raises:
            UsageError: if it does not fit into the context, with both counts.
            ModelError, ResourceError: if the model cannot reply.
            KeyboardInterrupt: once what was said is kept.
        """
        yield from self._answer(self.conversation, question, self.attached)

    def retry(self) -> Iterator[str]:
        """Ask the last question again, also one that got no reply; otherwise as `ask`.

        If that fails, the earlier reply stays.

        Raises:
            UsageError: if nothing was asked yet.
        """
        if self.unanswered is not None:
            yield from self.ask(self.unanswered)
            return
        last = self._last_exchange()
        before = self.conversation.without_last()
        yield from self._answer(before, last.question, last.pictures)

    def undo(self) -> str:
        """Forget the last question, with the reply if it got one; the question.

        Raises:
            UsageError: if there is none.
        """
        if self.unanswered is not None:
            forgotten, self.unanswered = self.unanswered, None
            return forgotten
        last = self._last_exchange()
        self.conversation = self.conversation.without_last()
        return last.question

    def clear(self) -> None:
        """Forget all exchanges; what the model is told by `set_system` stays."""
        self.conversation = Conversation(system=self.conversation.system)
        self.attached, self.unanswered = (), None

    def set_system(self, system: str | None) -> None:
        """Tell the model something before everything else.

        Raises:
            UsageError, ModelError: if the model's chat template takes no such thing.
        """
        if system is not None:
            self.model.check_system(system)
        self.conversation = replace(self.conversation, system=system)

    def attach(self, name: str) -> Image:
        """Show a picture with the next question; its pixels.

        Raises:
            UsageError, ModelError: if the model cannot be shown it.
        """
        with self.interruptible():
            picture, image, notice = self.model.read_picture(name)
        if notice:
            self.notice(notice)
        self.attached = (*self.attached, picture)
        return image

    def use(self, model: ChatPartner) -> None:
        """Go on with another model.

        Raises:
            UsageError, ModelError, ResourceError: if it cannot take the conversation over, or not be loaded;
                then the old one stays.
        """
        with self.interruptible():
            model.prompt(self.conversation, "?", self.attached)
            if self.conversation.system is not None:
                model.check_system(self.conversation.system)
            model.ready()  # weights last: they take longest
        self.leave(self.model)
        self.model = model

    def resume(self, conversation: Conversation) -> None:
        """Go on with another conversation.

        Raises:
            UsageError, ModelError: if the model cannot take it over; then the old one stays.
        """
        with self.interruptible():
            self.model.prompt(conversation, "?")
            if conversation.system is not None:
                self.model.check_system(conversation.system)
        self.conversation, self.attached, self.unanswered = conversation, (), None

    def positions(self) -> int:
        """What the conversation takes of the context now, up to an empty question."""
        with self.interruptible():
            return self.model.prompt(self.conversation, "", self.attached).positions

    def _last_exchange(self) -> Exchange:
        if not self.conversation.exchanges:
            raise UsageError("conversation", "is empty", "say something first")
        return self.conversation.exchanges[-1]

    def _answer(
        self, before: Conversation, question: str, pictures: tuple[PictureFile, ...]
    ) -> Iterator[str]:
        self.remarks = []
        started = time.perf_counter()
        asked_anew = before is self.conversation
        if asked_anew:
            self.unanswered = question
        seed = None if self.config.seed is None else self.config.seed + self.totals.replies
        config = self.config.with_settings(seed=seed)
        config = self.model.settings(config, self.given)
        steps: tuple[ToolStep, ...] = ()
        first: float | None = None
        spent = [0, 0, 0]
        while True:
            with self.interruptible():
                prompt, before = fitted(
                    self.model,
                    before,
                    question,
                    pictures,
                    overflow=self.overflow,
                    longest_reply=config.max_new_tokens,
                    again=not asked_anew,
                    notice=self.notice,
                    steps=steps,
                )
                stream = self.model.reply(prompt, config)
            said: list[str] = []
            reason: str | None = INTERRUPTED
            calls: tuple[ToolCall, ...] = ()
            try:
                with stream:
                    pieces = stream.parts()
                    while True:
                        with self.interruptible():
                            piece = next(pieces, None)
                        if piece is None:
                            break
                        if first is None:
                            first = time.perf_counter() - started
                        if not is_thought(piece):
                            said.append(piece)
                        yield piece
                assert stream.result is not None
                reason = stream.result.finish_reason
                if self.tools is not None and len(steps) < MOST_STEPS and stream.calls:
                    calls, reason = stream.calls, None
            except Exception:
                reason = None
                raise
            finally:
                more = (stream.new_tokens, stream.drafted_tokens, stream.accepted_tokens)
                spent = [a + b for a, b in zip(spent, more, strict=True)]
                if reason is not None and (said or reason != INTERRUPTED):
                    self.conversation = before.plus(
                        Exchange(
                            question=question,
                            pictures=pictures,
                            steps=steps,
                            reply="".join(said),
                            finish_reason=reason,
                            model=self.model.name,
                            seed=seed,
                        )
                    )
                    self.unanswered = None
                    if asked_anew:
                        self.attached = ()
                    self.last = Timings(
                        prompt=prompt.positions,
                        cached=stream.cached_tokens,
                        new=spent[0],
                        drafted=spent[1],
                        accepted=spent[2],
                        first=first,
                        seconds=time.perf_counter() - started,
                    )
                    self.totals.add(self.last)
            if not calls:
                break
            steps = (*steps, self._called("".join(said), calls))
        if stream.calls:
            self.remarks.append(f"the model has called tools {MOST_STEPS} times; it ends here")
        if is_cut_off(stream.result):
            self.remarks.append(STILL_THINKING)
        used, limit = prompt.positions + stream.new_tokens, self.model.max_seq_len
        if stream.result.context_full:
            self.remarks.append(full(limit, self.overflow))
        elif self._fills_for_the_first_time(used):
            self.remarks.append(nearly_full(used, limit, self.overflow))
        self.is_nearly_full = used >= NEARLY_FULL * limit

    def _called(self, text: str, calls: tuple[ToolCall, ...]) -> ToolStep:
        """Run the calls of a model, one after another."""
        assert self.tools is not None
        results = []
        self.pause()
        for call in calls:
            with self.interruptible():
                results.append(self.tools.run(call))
        return ToolStep(text=text, calls=calls, results=tuple(results))

    def _fills_for_the_first_time(self, used: int) -> bool:
        """Whether the user has to be told; not after a slide, which was told."""
        known = self.is_nearly_full or self.conversation.first
        return not known and used >= NEARLY_FULL * self.model.max_seq_len
