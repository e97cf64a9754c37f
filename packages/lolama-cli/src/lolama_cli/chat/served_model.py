"""A chat's model at a server, which has its weights, its tokenizer and its chat template."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

from lolama.files import expanded
from lolama.thinking import Thought
from lolama_cli.chat.conversation import Conversation, PictureFile, ToolStep, continued_text
from lolama_cli.chat.partner import ChatPartner, Prompt
from lolama_cli.console import note
from lolama_cli.server_run import ServedChoice, generation_of, settings_to_send
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lolama import Generation, GenerationConfig
    from lolama_core.protocols.tools import ToolCall
    from lolama_core.protocols.types import JSON

_THINKING = "thinking"
"""What the server's error is about where a chat template has no switch for it."""


@dataclass(frozen=True)
class ServedChatPrompt:
    """A conversation, ready for the server.

    Attributes:
        request: The body of its request.
        positions: That it takes, pictures included.
    """

    request: Mapping[str, JSON]
    positions: int


class ServedChatModel(ChatPartner):
    """A model of a server, and how it is asked. It is loaded there now, unless it is there already.

    Args:
        chosen: The model.
        raw: Have it continue the text, without its chat template. A model that has none always does.
        image_mode: ``crop`` or ``pad``, instead of what the model was trained with.
        needs_switch: Refuse a model whose template cannot turn thinking off, where that is asked for.

    Raises:
        LolamaError: if it cannot be loaded, or cannot do what is asked for.
    """

    def __init__(
        self, chosen: ServedChoice, *, raw: bool, image_mode: str | None, needs_switch: bool
    ) -> None:
        self._chosen, self._image_mode = chosen, image_mode
        self._shown: dict[PictureFile, str] = {}
        facts = self._ask(chosen.request([], until="model"))["model"]
        self._context = facts["context"]
        self.is_vision = facts["sees_pictures"]
        self.continues_text = raw or not facts["has_template"]
        if chosen.no_think:
            self._check_switch(needs_switch=needs_switch, thinks=facts["thinks"])
        chosen.tell()

    @property
    def name(self) -> str:
        """The name by which it was asked for."""
        return self._chosen.name

    @property
    def max_seq_len(self) -> int:
        """Positions that it attends over."""
        return cast("int", self._context)

    def ready(self) -> None:
        """Nothing to do: the server has its weights."""

    def settings(self, config: GenerationConfig, given: Collection[str]) -> GenerationConfig:
        """The settings of a reply."""
        return self._chosen.settings(config, given)

    def read_picture(self, name: str) -> tuple[PictureFile, Image, str]:
        """Read a picture; what is sent is what was checked."""
        from lolama.vision import read_picture

        self.check_sees(1)
        path = expanded(name).absolute()
        picture = read_picture(path, name)
        remembered = PictureFile(path=str(path), digest=picture.digest)
        self._shown[remembered] = base64.b64encode(path.read_bytes()).decode()
        return remembered, picture.image, picture.notice

    def forget_picture(self, picture: PictureFile) -> None:
        """Let go of a picture."""
        del self._shown[picture]

    def hears(self, system: str) -> bool:
        """Whether the model's chat template has a place for a system message."""
        turns: list[dict[str, JSON]] = [_turn("system", system), _turn("user", "?")]
        try:
            self._ask(self._request(turns, []))
        except UsageError as error:
            if error.subject == "messages":
                return False
            raise
        return True

    def prompt(
        self,
        conversation: Conversation,
        question: str,
        pictures: Sequence[PictureFile] = (),
        *,
        first: int | None = None,
        steps: Sequence[ToolStep] = (),
    ) -> ServedChatPrompt:
        """What is to be run for a question."""
        exchanges = conversation.exchanges[conversation.first if first is None else first :]
        if steps or any(exchange.steps for exchange in exchanges):
            reason = "has calls of tools, which a server is not asked with"
            raise UsageError("conversation", reason, "give --server none")
        sent = [p for exchange in exchanges for p in exchange.pictures] + list(pictures)
        self.check_sees(len(sent))
        turns: list[dict[str, JSON]] = []
        if self.continues_text:
            turns.append(_turn("user", continued_text(exchanges, question)))
        else:
            if conversation.system is not None:
                turns.append(_turn("system", conversation.system))
            for exchange in exchanges:
                turns.append(_turn("user", exchange.question, len(exchange.pictures)))
                turns.append(_turn("assistant", exchange.reply))
            turns.append(_turn("user", question, len(pictures)))
        request = self._request(turns, sent)
        return ServedChatPrompt(request, self._ask(request)["prompt"])

    def reply(self, prompt: Prompt, config: GenerationConfig) -> ServedReply:
        """Answer what `prompt` made."""
        assert isinstance(prompt, ServedChatPrompt)
        body = {**prompt.request, "until": "end", "settings": settings_to_send(config)}
        return ServedReply(self._chosen, body)

    def _request(
        self, turns: Sequence[Mapping[str, JSON]], sent: Sequence[PictureFile]
    ) -> dict[str, JSON]:
        for picture in sent:
            if picture not in self._shown:
                self.read_again(picture)
        self._shown = {picture: self._shown[picture] for picture in sent}
        return self._chosen.request(
            turns,
            pictures=[{"name": one.path, "data": self._shown[one]} for one in sent],
            raw=self.continues_text,
            alone=self.continues_text,
            image_mode=self._image_mode,
            limited=False,
            until="prompt",
        )

    def _ask(self, request: Mapping[str, JSON]) -> dict[str, Any]:
        """All that the server tells of a request that generates nothing."""
        told: dict[str, Any] = {}
        with self._chosen.client.events(request) as events:
            for event in events:
                told |= event
        return told

    def _check_switch(self, *, needs_switch: bool, thinks: bool) -> None:
        try:
            self._ask(self._request([_turn("user", "?")], []))
        except UsageError as error:
            if needs_switch or error.subject != _THINKING:
                raise
            if thinks:
                note(
                    f"note: {self.name} thinks, and its chat template has no switch to turn that off"
                )
            self._chosen = replace(self._chosen, no_think=False)


def _turn(role: str, text: str, pictures: int = 0) -> dict[str, JSON]:
    return {"role": role, "text": text, "pictures": pictures}


class ServedReply:
    """A reply of a server on its way; see `Reply`.

    Args:
        chosen: The model.
        body: Its request.
    """

    def __init__(self, chosen: ServedChoice, body: Mapping[str, JSON]) -> None:
        self._chosen, self._body, self._stack = chosen, body, ExitStack()
        self.result: Generation | None = None
        self.new_tokens = 0
        self.calls: tuple[ToolCall, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def parts(self) -> Iterator[str]:
        """Its pieces."""
        for event in self._stack.enter_context(self._chosen.client.events(self._body)):
            self.new_tokens += event.get("tokens", 0)
            if event.get("text"):
                yield event["text"]
            elif event.get("thought"):
                yield Thought(event["thought"])
            elif "end" in event:
                self.result = generation_of(event["end"])
                self.new_tokens = len(self.result.ids)

    @property
    def cached_tokens(self) -> int:
        """Positions of the prompt that were not run again, once it has ended."""
        return 0 if self.result is None else self.result.cached_tokens

    @property
    def drafted_tokens(self) -> int:
        """Tokens that were tried ahead of their turn, once it has ended."""
        return 0 if self.result is None else self.result.drafted_tokens

    @property
    def accepted_tokens(self) -> int:
        """Those of them that were right."""
        return 0 if self.result is None else self.result.accepted_tokens
