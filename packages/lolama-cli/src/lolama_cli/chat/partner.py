"""What a chat talks with: a model of this process (`model`), or one of a server (`served_model`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, Self

from lolama.prompts import sees_none
from lolama_cli.chat.conversation import Conversation, PictureFile, ToolStep
from lolama_core.protocols.errors import ModelError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lolama import Generation, GenerationConfig
    from lolama_core.protocols.tools import ToolCall


class Prompt(Protocol):
    """A conversation, ready for the model."""

    @property
    def positions(self) -> int:
        """Positions that it takes, pictures included."""
        ...


class Reply(Protocol):
    """A reply on its way; leaving its block early ends the work that it takes."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def parts(self) -> Iterator[str]:
        """Its pieces, those of a thought as `lolama.thinking.Thought`."""
        ...

    @property
    def result(self) -> Generation | None:
        """The whole, its thought apart from its text; None before its end."""
        ...

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools so far."""
        ...

    @property
    def new_tokens(self) -> int:
        """Tokens so far."""
        ...

    @property
    def cached_tokens(self) -> int:
        """Positions of the prompt that were not run again."""
        ...

    @property
    def drafted_tokens(self) -> int:
        """Tokens that were tried ahead of their turn."""
        ...

    @property
    def accepted_tokens(self) -> int:
        """Those of them that were right."""
        ...


class ChatPartner(ABC):
    """What a chat asks, wherever its model is.

    Attributes:
        continues_text: Whether it continues the text, without a chat template.
        is_vision: Whether its model sees pictures, in whatever way it is asked.
    """

    continues_text: bool
    is_vision: bool

    @property
    @abstractmethod
    def name(self) -> str:
        """The name by which it was asked for."""

    @property
    @abstractmethod
    def max_seq_len(self) -> int:
        """Positions that it attends over."""

    @abstractmethod
    def ready(self) -> None:
        """Load its weights, if they are not there yet."""

    @abstractmethod
    def settings(self, config: GenerationConfig, given: Collection[str]) -> GenerationConfig:
        """The settings of a reply, with those that the model's authors recommend.

        Args:
            config: What is in force.
            given: Names of settings that were asked for.
        """

    @abstractmethod
    def read_picture(self, name: str) -> tuple[PictureFile, Image, str]:
        """Read a picture and prepare it for the model.

        Returns:
            What to remember of it, its pixels, and what its reader should be told (often nothing).

        Raises:
            UsageError: if the model sees nothing.
            ModelError: if it cannot be used.
        """

    @abstractmethod
    def hears(self, system: str) -> bool:
        """Whether the model's chat template has a place for a system message.

        Raises:
            ModelError: if the template refuses it.
        """

    @abstractmethod
    def prompt(
        self,
        conversation: Conversation,
        question: str,
        pictures: Sequence[PictureFile] = (),
        *,
        first: int | None = None,
        steps: Sequence[ToolStep] = (),
    ) -> Prompt:
        """What is to be run for a question.

        Args:
            conversation: What was said before.
            question: What the user says now.
            pictures: What is shown with it.
            first: Read from this exchange on, instead of the conversation's own.
            steps: Calls of tools that followed the question.

        Raises:
            UsageError: if pictures and model do not go together, or the question is far too long.
            ModelError: if the chat template, or a picture, cannot be used.
        """

    @abstractmethod
    def reply(self, prompt: Prompt, config: GenerationConfig) -> Reply:
        """Answer what `prompt` made."""

    @property
    def sees(self) -> bool:
        """Whether it can be shown pictures here."""
        return self.is_vision and not self.continues_text

    def check_sees(self, count: int) -> None:
        """Refuse pictures for a model that sees none.

        Raises:
            UsageError: with the number of pictures, and what to do.
        """
        if not count or self.sees:
            return
        if not self.is_vision:
            remedy = "use a vision model, as in /model demo-vision"
            raise sees_none("/image", count, self.name, remedy)
        pictures = f"{count} picture{'' if count == 1 else 's'}"
        reason = f"{pictures}, and without a chat template there is no place for them"
        raise UsageError("/image", reason, "leave out --raw")

    def check_system(self, system: str) -> None:
        """Refuse a system message that the model would never see.

        Raises:
            UsageError: if there is no place for it.
            ModelError: if the template refuses it.
        """
        if self.continues_text:
            reason = "without a chat template there is no place for a system message"
            raise UsageError("/system", reason, "say it as a message")
        if not self.hears(system):
            reason = f"the chat template of {self.name} leaves system messages out"
            raise UsageError("/system", reason, "say it as a message")

    def read_again(self, picture: PictureFile) -> None:
        """Read what another model was shown, or an earlier session.

        Raises:
            ModelError: if it is gone, or not what was shown.
        """
        found, _, _ = self.read_picture(picture.path)
        if found != picture:
            self.forget_picture(found)
            reason = "is not the picture any more that was shown in this conversation"
            raise ModelError(picture.path, reason, "put it back, or /undo what was said of it")

    @abstractmethod
    def forget_picture(self, picture: PictureFile) -> None:
        """Let go of what `read_picture` prepared."""
