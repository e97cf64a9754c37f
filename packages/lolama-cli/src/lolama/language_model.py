"""A model and its tokenizer as one object: text in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

from lolama import names, wiring
from lolama.answers import AnswerKeywords, Constraints
from lolama.bits import Quantize, number_of_bits
from lolama.conversation import Conversation
from lolama.downloads import Confirm
from lolama.prompts import (
    check_messages,
    check_system,
    empty_prompt,
    sees_none,
    with_pictures,
    without_template,
)
from lolama.reply_stream import ReplyStream
from lolama.thinking import thought_format, with_thinking
from lolama.tool_use import ToolUse
from lolama.tools import Tool, tool_definitions
from lolama.vision import image_token_id, open_pictures, picture_ids, processor_of
from lolama_core import Generation, TextGenerator, TokenStream
from lolama_core.protocols.arguments import truth
from lolama_core.protocols.checks import kind_of
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import ModelFiles

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lolama.vision import ImageSource
    from lolama_core import CausalLMModule, GenerationConfig, Tokenizer
    from lolama_core.protocols import ImageProcessor, LogitsProcessor


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantize: Quantize = False,
    confirm: Confirm = None,
) -> LanguageModel:
    """A model with its tokenizer, ready to be given text. Arguments and errors are those of `load_model`.

    Example:
        >>> llm = load("demo")
        >>> print(llm.chat("What is two plus three?"))
        Two plus three is five.
    """
    bits = number_of_bits(quantize)
    files = names.resolve(name, confirm=confirm)
    wiring.warn_unsupported(files)
    tokenizer = wiring.tokenizer_of(files)
    used = wiring.quantized(files, bits)
    return LanguageModel(files, wiring.load_files(used, device=device, dtype=dtype), tokenizer)


class LanguageModel:
    """A loaded model that is given text, and pictures if it sees them.

    Settings are the fields of `GenerationConfig`, by name or as a ``config``: ``max_new_tokens``,
    ``temperature``, ``seed``, ``stop``, ...

    Args:
        files: What the model was loaded from.
        model: The model.
        tokenizer: Its tokenizer.

    Attributes:
        name: What it was loaded as.
        model: The module itself, to look into, to quantize or to train.
        tokenizer: Text to ids and back.
        generator: Generates from ids, and for many prompts at a time (`TextGenerator`).
        processor: Prepares pictures; None for a text model.
        constraints: Makes constraints of grammars, for the `generator`.
    """

    def __init__(self, files: ModelFiles, model: CausalLMModule, tokenizer: Tokenizer) -> None:
        self.name, self.model, self.tokenizer = files.name, model, tokenizer
        self.generator = TextGenerator(model, tokenizer)
        self.constraints = Constraints(model, tokenizer)
        self.processor: ImageProcessor | None = processor_of(files)
        self._picture_ids = [] if self.processor is None else picture_ids(files)
        self._image_id = None if self.processor is None else image_token_id(files)

    def __repr__(self) -> str:
        dtype = str(self.model.dtype).removeprefix("torch.")
        return f"<LanguageModel {self.name}: {dtype} on {self.model.device}>"

    def generate(
        self,
        text: str,
        config: GenerationConfig | None = None,
        *,
        images: ImageSource | Sequence[ImageSource] = (),
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[AnswerKeywords],
    ) -> Generation:
        """Continue ``text``; printing the result prints what came after it.

        No chat template is involved: `chat` asks a model that was trained to answer.

        Args:
            text: The prompt. It may spell control tokens, such as ``<s>``; what a stranger wrote belongs
                into `chat`, where it cannot.
            config: Settings; without, the defaults with what the model's authors recommend.
            images: Paths of pictures, or pictures that PIL opened. They stand before the text, unless it
                spells an ``<image>`` for each, or what a model has in its place.
            logits_processors: Functions of (ids so far, scores) that return other scores.
            **settings: Settings by name; also ``schema``, ``regex`` or ``grammar``: what the text may be, see
                `AnswerKeywords`.

        Raises:
            UsageError: for settings that make no sense, a text that is too long, pictures that the model does
                not see, or a grammar that cannot be used.
            ModelError: for a picture that cannot be used, or logits that are not finite.
            ResourceError: if memory runs out.
        """
        ids, inputs = self._continued(text, images)
        asked = self.constraints.settings(settings)
        return self.generator.generate(
            ids, config, logits_processors=logits_processors, **asked, **inputs
        )

    def stream(
        self,
        text: str,
        config: GenerationConfig | None = None,
        *,
        images: ImageSource | Sequence[ImageSource] = (),
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[AnswerKeywords],
    ) -> ReplyStream:
        """`generate`, piece by piece as the text comes.

        Example:
            >>> for piece in llm.stream("Once upon a time"):
            ...     print(piece, end="", flush=True)
        """
        ids, inputs = self._continued(text, images)
        asked = self.constraints.settings(settings)
        return ReplyStream(
            self.generator.generate_stream(
                ids, config, logits_processors=logits_processors, **asked, **inputs
            )
        )

    @overload
    def chat(
        self,
        messages: str | Sequence[Mapping[str, object]],
        config: GenerationConfig | None = ...,
        *,
        images: ImageSource | Sequence[ImageSource] = ...,
        stream: Literal[False] = ...,
        thinking: bool | None = ...,
        tools: Sequence[Tool] = ...,
        logits_processors: Sequence[LogitsProcessor] = ...,
        **settings: Unpack[AnswerKeywords],
    ) -> Generation: ...
    @overload
    def chat(
        self,
        messages: str | Sequence[Mapping[str, object]],
        config: GenerationConfig | None = ...,
        *,
        images: ImageSource | Sequence[ImageSource] = ...,
        stream: Literal[True],
        thinking: bool | None = ...,
        tools: Sequence[Tool] = ...,
        logits_processors: Sequence[LogitsProcessor] = ...,
        **settings: Unpack[AnswerKeywords],
    ) -> ReplyStream: ...
    def chat(
        self,
        messages: str | Sequence[Mapping[str, object]],
        config: GenerationConfig | None = None,
        *,
        images: ImageSource | Sequence[ImageSource] = (),
        stream: bool = False,
        thinking: bool | None = None,
        tools: Sequence[Tool] = (),
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[AnswerKeywords],
    ) -> Generation | ReplyStream:
        """The reply to a conversation, in the model's own chat template.

        Args:
            messages: ``{"role": "user", "content": text}`` and so on; a text alone is one of the user.
            config, logits_processors, settings: As for `generate`.
            images: As for `generate`. They are shown with the last message of the user, unless the messages
                say where each stands: ``"content": [{"type": "image"}, {"type": "text", "text": ...}]``.
            stream: Return the pieces as they come, a `ReplyStream`.
            thinking: Have a model that can think do so before it replies, or not; None for the default of its
                template. What it thinks is the result's ``thinking``, and no part of its ``text``.
            tools: Functions with type hints and docstrings, or dicts in OpenAI's shape. Which ones the model
                asks for is the result's ``tool_calls``; nothing calls them by itself.

        Raises:
            UsageError: as `generate`; also for what the template has no place for: a system message, a switch
                for ``thinking``.
            ModelError: as `generate`; also if the model has no chat template, or it cannot be used.
        """
        use = ToolUse.of(self.tokenizer, tool_definitions(tools))
        ids, inputs = self.encode_chat(messages, images, thinking=thinking, tools=use.tools)
        thoughts = thought_format(self.tokenizer, ids)
        splitter = use.splitter(thoughts)
        run = self.generator.generate_stream if truth("stream", stream) else self.generator.generate
        begun = run(
            ids,
            config,
            logits_processors=logits_processors,
            visible_ids=use.visible_ids,
            **self.constraints.settings(settings, thoughts),
            **inputs,
        )
        if isinstance(begun, TokenStream):
            return ReplyStream(begun, splitter.replies(begun.text()), splitter)
        return splitter.apart(begun)

    def conversation(
        self, system: str | None = None, *, thinking: bool | None = None
    ) -> Conversation:
        """A conversation that remembers what was said.

        Args:
            system: What the model is told before everything else.
            thinking: As for `chat`.

        Example:
            >>> talk = llm.conversation()
            >>> print(talk.ask("Tell me a story about a dog."))
            >>> print(talk.ask("What is two plus three?"))
        """
        return Conversation(self, system, thinking=thinking)

    def encode_chat(
        self,
        messages: str | Sequence[Mapping[str, object]],
        images: ImageSource | Sequence[ImageSource] = (),
        *,
        thinking: bool | None = None,
        tools: Sequence[Tool] = (),
    ) -> tuple[list[int], Mapping[str, Any]]:
        """The prompt of `chat`, for the `generator`: ids, and what the model is given beside them.

        Example:
            >>> ids, inputs = llm.encode_chat("What is in the picture?", "photo.jpg")
            >>> llm.generator.generate(ids, **inputs)
        """
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        turns = check_messages(said)
        pictures = open_pictures(images)
        inputs = self._prepared(pictures)
        if self.processor is not None:
            turns = with_pictures(turns, len(pictures))
        tokenizer = with_thinking(self.tokenizer, thinking)
        check_system(tokenizer, turns, self.name)
        return ToolUse.of(tokenizer, tool_definitions(tools)).render(tokenizer, turns), inputs

    def _continued(
        self, text: str, images: ImageSource | Sequence[ImageSource]
    ) -> tuple[list[int], Mapping[str, Any]]:
        if not isinstance(text, str):
            raise UsageError("text", f"is {kind_of(text)}", "give text; `chat` takes messages")
        if not text:
            raise empty_prompt()
        pictures = open_pictures(images)
        inputs = self._prepared(pictures)
        ids = self.tokenizer.encode_ids(text)
        if pictures and self._image_id is not None and self._image_id not in ids:
            ids = self._with_marks(text, ids, len(pictures), self._image_id)
        return ids, inputs

    def _with_marks(self, text: str, ids: list[int], pictures: int, image_id: int) -> list[int]:
        """The ids of a text that spells no ``<image>``, with all that stands for the pictures."""
        first = self._picture_ids[self._picture_ids.index(image_id) - 1]
        if first not in ids:
            marks = [self._picture_ids] * pictures
            return without_template(text, self.tokenizer, marks, split_special_tokens=False)
        # The text marks each picture by the first of these alone, as the template of Gemma 3 does.
        parts = ([first], self._picture_ids)
        short, whole = (self.tokenizer.decode(part, skip_special_tokens=False) for part in parts)
        return self.tokenizer.encode_ids(text.replace(short, whole))

    def _prepared(self, pictures: Sequence[Image]) -> Mapping[str, Any]:
        """What the model is given beside ids: nothing, if nothing is shown."""
        if not pictures:
            return {}
        if self.processor is None:
            remedy = "use a vision model, such as demo-vision"
            raise sees_none("images", len(pictures), self.name, remedy)
        return cast("Mapping[str, Any]", self.processor.preprocess(pictures))
