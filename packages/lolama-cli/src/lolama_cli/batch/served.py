"""Prompts of a batch through a server, each row on a connection of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from lolama_cli.batch.messages import in_line
from lolama_cli.batch.prompts import BatchPrompt
from lolama_cli.server_client import ServerClient, ServerFailure
from lolama_cli.server_run import (
    ServedChoice,
    ServedPrompt,
    grammar_to_send,
    pictures_to_send,
    settings_to_send,
)
from lolama_core.protocols.errors import AuthorisationError, LolamaError, NetworkError, UsageError

if TYPE_CHECKING:
    from lolama import GenerationConfig
    from lolama_core.protocols.types import JSON

QUEUE_FULL = "queue_full"
"""What the server says where others have taken all its places: the prompt waits here, then."""

_LONGEST_WAIT = 10.0


class ServedAnswers:
    """Answers prompts at a server; see `Answering`.

    Args:
        chosen: The model.
        question: What holds for every prompt.
        rows: Prompts that are asked at the same time.
    """

    def __init__(self, chosen: ServedChoice, question: ServedPrompt, rows: int) -> None:
        self._chosen, self._question = chosen, question
        self.rows = max(1, min(rows, chosen.rows))
        self._asked: SimpleQueue[tuple[int, Mapping[str, JSON]]] = SimpleQueue()
        self._answered: SimpleQueue[tuple[int, Mapping[str, Any] | BaseException]] = SimpleQueue()
        self._ended: dict[int, Mapping[str, Any] | LolamaError] = {}
        self._tickets = self._open = 0
        for _ in range(self.rows):  # they end with the process, and the server's rows with them
            Thread(target=self._work, args=(chosen.client.another(),), daemon=True).start()

    def submit(self, prompt: BatchPrompt, config: GenerationConfig) -> int:
        """Take a prompt on."""
        try:
            shown = pictures_to_send(prompt.images, self._chosen.facts, self._chosen.name)
        except UsageError as error:
            raise in_line(error) from None
        turns: list[dict[str, JSON]] = [
            {"role": message["role"], "text": str(message["content"])}
            for message in prompt.messages
        ]
        turns[-1]["pictures"] = len(shown)
        request = self._chosen.request(
            turns,
            pictures=shown,
            raw=self._question.raw,
            alone=prompt.alone,
            image_mode=self._question.image_mode,
            settings=settings_to_send(config),
            grammar=grammar_to_send(prompt.grammar),
        )
        self._tickets += 1
        self._open += 1
        self._asked.put((self._tickets, request))
        return self._tickets

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._open > 0

    def step(self) -> None:
        """Wait for an answer, and take all that are there.

        Raises:
            LolamaError: if the server answers nothing any more; that is no answer to a prompt.
        """
        self._take(*self._answered.get())
        while True:
            try:
                self._take(*self._answered.get_nowait())
            except Empty:
                return

    def collect(self) -> Mapping[int, Mapping[str, object] | LolamaError]:
        """What ended since the last call."""
        ended, self._ended = self._ended, {}
        return ended

    def _take(self, ticket: int, answer: Mapping[str, Any] | BaseException) -> None:
        self._open -= 1
        ends = ServerFailure | NetworkError | AuthorisationError
        if isinstance(answer, LolamaError) and not isinstance(answer, ends):
            self._ended[ticket] = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            self._ended[ticket] = answer

    def _work(self, client: ServerClient) -> None:
        while True:
            ticket, request = self._asked.get()
            try:
                self._answered.put((ticket, _answer(client, request)))
            except BaseException as error:  # which whoever waits for it has to hear of
                self._answered.put((ticket, error))


def _answer(client: ServerClient, request: Mapping[str, JSON]) -> Mapping[str, Any]:
    """What becomes of a prompt; one for which there is no place at the server waits."""
    while True:
        try:
            found: Mapping[str, Any] = {}
            with client.events(request) as events:
                for event in events:
                    found = event.get("end", found)
            return found
        except ServerFailure as error:
            if error.kind != QUEUE_FULL:
                raise
            time.sleep(min(error.retry_after or 1.0, _LONGEST_WAIT))
