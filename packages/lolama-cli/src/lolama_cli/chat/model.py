"""The model that a chat talks with, and how a conversation becomes its prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from lolama.files import expanded
from lolama.memory import kept_bytes
from lolama.prompts import hears_system, sees_none, without_template
from lolama.thinking import thought_format
from lolama.tool_use import ToolUse
from lolama_cli.chat.conversation import (
    Conversation,
    PictureFile,
    ToolStep,
    continued_text,
    messages,
)
from lolama_cli.prompts import check_length
from lolama_core.protocols.errors import ModelError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lolama import Drafting, PrefixCache, TextGenerator
    from lolama.thinking import ThoughtFormat, ThoughtSplitter
    from lolama_core.protocols import CausalLM, ImageProcessor, Tokenizer
    from lolama_core.protocols.tools import ToolDefinition
    from lolama_core.protocols.types import ImageInputs, ModelFiles


@dataclass(frozen=True)
class ChatPrompt:
    """A conversation, ready for the model.

    Attributes:
        ids: The ids of its tokens.
        positions: That it takes, pictures included.
        inputs: What the model is given beside ids.
    """

    ids: list[int]
    positions: int
    inputs: Mapping[str, Any]


class ChatModel:
    """A model, and how it is asked. Its weights are loaded when they are first used.

    Args:
        files: The model's files.
        tokenizer: The model's tokenizer.
        load: Loads the weights.
        raw: Have it continue the text, without its chat template. A model that has none always does.
        image_mode: ``crop`` or ``pad``, instead of what the model was trained with.
        draft: What tries tokens ahead, once the weights are there.
        cache_dtype: What keys and values are stored in; None for the dtype of the model.
        tools: What it may call.

    Raises:
        UsageError: for an ``image_mode`` that the model does not take, or tools without a chat template.
    """

    def __init__(
        self,
        files: ModelFiles,
        tokenizer: Tokenizer,
        load: Callable[[], CausalLM],
        *,
        raw: bool = False,
        image_mode: str | None = None,
        draft: Callable[[], Drafting] = lambda: "auto",
        cache_dtype: Literal["int8"] | None = None,
        tools: Sequence[ToolDefinition] = (),
    ) -> None:
        from lolama.vision import processor_of

        self.files, self.tokenizer, self._load, self._draft = files, tokenizer, load, draft
        self._cache_dtype = cache_dtype
        self.continues_text = raw or not tokenizer.has_chat_template
        if tools and self.continues_text:
            reason = "without a chat template there is no place for tools"
            raise UsageError("--tools", reason, "leave it out, or use another model")
        self.use = ToolUse.of(tokenizer, tools)
        self.processor: ImageProcessor | None = processor_of(files, image_mode)
        self._prepared: dict[PictureFile, ImageInputs] = {}

    @property
    def name(self) -> str:
        """The name by which it was asked for."""
        return self.files.name

    @cached_property
    def model(self) -> CausalLM:
        """The model with its weights, loaded at its first use."""
        return self._load()

    @cached_property
    def max_seq_len(self) -> int:
        """Positions that it attends over; mostly told without its weights."""
        from lolama import names

        return names.context_length(self.files) or self.model.max_seq_len

    @property
    def sees(self) -> bool:
        """Whether it can be shown pictures here."""
        return self.processor is not None and not self.continues_text

    @cached_property
    def prefixes(self) -> PrefixCache:
        """The keys and values of what it has read, and its draft: one whole context of them at most."""
        from lolama import PrefixCache

        most = kept_bytes(self.model, self._cache_dtype, self._draft())
        return PrefixCache(most, cache_dtype=self._cache_dtype)

    @cached_property
    def generator(self) -> TextGenerator:
        """Replies, and runs no prefix again."""
        from lolama import TextGenerator

        return TextGenerator(
            self.model, self.tokenizer, prefix_cache=self.prefixes, draft=self._draft()
        )

    def thought_format(self, prompt: ChatPrompt) -> ThoughtFormat | None:
        """How the reply to a prompt begins with a thought; None if it does not."""
        return None if self.continues_text else thought_format(self.tokenizer, prompt.ids)

    def splitter(self, prompt: ChatPrompt) -> ThoughtSplitter:
        """What takes a thought, and calls of tools, out of the reply to a prompt."""
        return self.use.splitter(self.thought_format(prompt))

    def read_picture(self, name: str) -> tuple[PictureFile, Image, str]:
        """Read a picture and prepare it for the model.

        Returns:
            What to remember of it, its pixels, and what its reader should be told (often nothing).

        Raises:
            UsageError: if the model sees nothing.
            ModelError: if it cannot be used.
        """
        from lolama.vision import read_picture

        self.check_sees(1)
        assert self.processor is not None
        path = expanded(name).absolute()
        picture = read_picture(path, name)
        remembered = PictureFile(path=str(path), digest=picture.digest)
        try:
            self._prepared[remembered] = self.processor.preprocess([picture.image])
        except ModelError as error:
            raise ModelError(name, error.reason, error.remedy) from None
        return remembered, picture.image, picture.notice

    def check_sees(self, count: int) -> None:
        """Refuse pictures for a model that sees none.

        Raises:
            UsageError: with the number of pictures, and what to do.
        """
        if not count or self.sees:
            return
        if self.processor is None:
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
        turns = messages(system, (), "?", parts=self.processor is not None)
        if not hears_system(self.tokenizer, turns):
            reason = f"the chat template of {self.name} leaves system messages out"
            raise UsageError("/system", reason, "say it as a message")

    def prompt(
        self,
        conversation: Conversation,
        question: str,
        pictures: Sequence[PictureFile] = (),
        *,
        first: int | None = None,
        steps: Sequence[ToolStep] = (),
    ) -> ChatPrompt:
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
        exchanges = conversation.exchanges[conversation.first if first is None else first :]
        check_length(question, self.tokenizer, self.max_seq_len)
        sent = [p for exchange in exchanges for p in exchange.pictures] + list(pictures)
        self.check_sees(len(sent))
        if self.continues_text:
            text = continued_text(exchanges, question)
            ids = without_template(text, self.tokenizer)
        else:
            parts = self.processor is not None
            system, shown = conversation.system, len(pictures)
            turns = messages(system, exchanges, question, shown, steps=steps, parts=parts)
            ids = self.use.render(self.tokenizer, turns)
        inputs = self._inputs(sent)
        if inputs is None:
            return ChatPrompt(ids, len(ids), {})
        from lolama.vision import count_positions

        count = count_positions(self.files, ids, inputs)
        return ChatPrompt(ids, count, cast("Mapping[str, Any]", inputs) if sent else {})

    def _inputs(self, sent: Sequence[PictureFile]) -> ImageInputs | None:
        """The pictures in order; None for a model that sees none. What is not sent any more is let go."""
        if self.processor is None:
            return None
        for picture in sent:
            if picture not in self._prepared:
                self._read_again(picture)
        self._prepared = {picture: self._prepared[picture] for picture in sent}
        if not sent:
            return self.processor.preprocess([])
        return _joined([self._prepared[picture] for picture in sent])

    def _read_again(self, picture: PictureFile) -> None:
        """What another model was shown, or an earlier session.

        Raises:
            ModelError: if it is gone, or not what was shown.
        """
        found, _, _ = self.read_picture(picture.path)
        if found != picture:
            del self._prepared[found]
            reason = "is not the picture any more that was shown in this conversation"
            raise ModelError(picture.path, reason, "put it back, or /undo what was said of it")


def _joined(pictures: Sequence[ImageInputs]) -> ImageInputs:
    """Several pictures as one input."""
    import torch

    return {
        "pixel_values": torch.cat([picture["pixel_values"] for picture in pictures]),
        "tiles_per_image": [n for picture in pictures for n in picture["tiles_per_image"]],
        "image_sizes": [size for picture in pictures for size in picture["image_sizes"]],
        "tokens_per_image": [n for picture in pictures for n in picture["tokens_per_image"]],
    }
