"""The model that a chat talks with, and how a conversation becomes its prompt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from lolama.files import expanded
from lolama.memory import kept_bytes
from lolama.prompts import hears_system, without_template
from lolama.thinking import thought_format
from lolama.tool_use import ToolUse
from lolama_cli.chat.conversation import (
    Conversation,
    PictureFile,
    ToolStep,
    continued_text,
    messages,
)
from lolama_cli.chat.partner import ChatPartner, Prompt
from lolama_cli.setting_options import with_models_own
from lolama_core.protocols.errors import ModelError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lolama import Drafting, Generation, GenerationConfig, PrefixCache, TextGenerator
    from lolama.thinking import ThoughtSplitter
    from lolama_core.protocols import CausalLM, ImageProcessor, Tokenizer
    from lolama_core.protocols.tools import ToolCall, ToolDefinition
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


class LocalReply:
    """A reply of a model of this process; see `Reply`.

    Args:
        model: Replies.
        prompt: To this.
        config: With these settings.
    """

    def __init__(self, model: ChatModel, prompt: ChatPrompt, config: GenerationConfig) -> None:
        self._stream = model.generator.generate_stream(
            prompt.ids, config, visible_ids=model.use.visible_ids, **prompt.inputs
        )
        self._splitter = model.splitter(prompt)

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def parts(self) -> Iterator[str]:
        """Its pieces."""
        return self._splitter.parts(self._stream.text())

    @property
    def result(self) -> Generation | None:
        """The whole; None before its end."""
        found = self._stream.result
        return None if found is None else self._splitter.apart(found)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools so far."""
        return self._splitter.calls

    @property
    def new_tokens(self) -> int:
        """Tokens so far."""
        return self._stream.new_tokens

    @property
    def cached_tokens(self) -> int:
        """Positions of the prompt that were not run again."""
        return self._stream.cached_tokens

    @property
    def drafted_tokens(self) -> int:
        """Tokens that were tried ahead of their turn."""
        return self._stream.drafted_tokens

    @property
    def accepted_tokens(self) -> int:
        """Those of them that were right."""
        return self._stream.accepted_tokens


class ChatModel(ChatPartner):
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
        self.is_vision = self.processor is not None
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

    def ready(self) -> None:
        """Load its weights, if they are not there yet."""
        _ = self.model

    def settings(self, config: GenerationConfig, given: Collection[str]) -> GenerationConfig:
        """The settings of a reply, with those that the model's authors recommend."""
        return with_models_own(config, self.files, given)

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

    def reply(self, prompt: Prompt, config: GenerationConfig) -> LocalReply:
        """Answer what `prompt` made."""
        assert isinstance(prompt, ChatPrompt)
        return LocalReply(self, prompt, config)

    def splitter(self, prompt: ChatPrompt) -> ThoughtSplitter:
        """What takes a thought, and calls of tools, out of the reply to a prompt."""
        thought = None if self.continues_text else thought_format(self.tokenizer, prompt.ids)
        return self.use.splitter(thought)

    def read_picture(self, name: str) -> tuple[PictureFile, Image, str]:
        """Read a picture and prepare it for the model."""
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

    def forget_picture(self, picture: PictureFile) -> None:
        """Let go of what `read_picture` prepared."""
        del self._prepared[picture]

    def hears(self, system: str) -> bool:
        """Whether the model's chat template has a place for a system message."""
        turns = messages(system, (), "?", parts=self.processor is not None)
        return hears_system(self.tokenizer, turns)

    def prompt(
        self,
        conversation: Conversation,
        question: str,
        pictures: Sequence[PictureFile] = (),
        *,
        first: int | None = None,
        steps: Sequence[ToolStep] = (),
    ) -> ChatPrompt:
        """What is to be run for a question."""
        from lolama.command_prompts import check_length

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
                self.read_again(picture)
        self._prepared = {picture: self._prepared[picture] for picture in sent}
        if not sent:
            return self.processor.preprocess([])
        return _joined([self._prepared[picture] for picture in sent])


def _joined(pictures: Sequence[ImageInputs]) -> ImageInputs:
    """Several pictures as one input."""
    import torch

    return {
        "pixel_values": torch.cat([picture["pixel_values"] for picture in pictures]),
        "tiles_per_image": [n for picture in pictures for n in picture["tiles_per_image"]],
        "image_sizes": [size for picture in pictures for size in picture["image_sizes"]],
        "tokens_per_image": [n for picture in pictures for n in picture["tokens_per_image"]],
    }
