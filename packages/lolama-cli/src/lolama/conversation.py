"""A conversation with a model: what was said is remembered, and only what is new is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from lolama.answers import AnswerKeywords
from lolama.memory import context_bytes
from lolama.prompts import check_messages, message_content
from lolama.reply_stream import ReplyStream
from lolama.thinking import ThoughtSplitter, thought_format
from lolama.vision import open_pictures
from lolama_core import Generation, PrefixCache, TextGenerator
from lolama_core.protocols.types import Message

if TYPE_CHECKING:
    from PIL.Image import Image

    from lolama.answers import Constraints
    from lolama.vision import ImageSource
    from lolama_core import GenerationConfig, Tokenizer
    from lolama_core.protocols import CausalLM


class EncodesChats(Protocol):
    """A model with its tokenizer, as far as a conversation needs it: a `LanguageModel` is one."""

    @property
    def model(self) -> CausalLM:
        """What replies."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        ...

    @property
    def constraints(self) -> Constraints:
        """Makes constraints of grammars."""
        ...

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        images: Sequence[Image],
        *,
        thinking: bool | None = None,
    ) -> tuple[list[int], Mapping[str, Any]]:
        """See `LanguageModel.encode_chat`."""
        ...


class Conversation:
    """Asks a model in its chat template, with everything that was said before.

    A question that fails leaves the conversation as it was. A reply that is broken off stays as far as it
    came. Start a new conversation after the model's weights have changed (by training or quantizing): what
    the old weights have read is not run again.

    Args:
        llm: Who replies: a `LanguageModel`.
        system: What it is told before everything else.
        thinking: As for `LanguageModel.chat`. Only the replies are remembered, without their thoughts.

    Example:
        >>> talk = Conversation(lolama.load("demo"))
        >>> print(talk.ask("What is two plus three?"))
        Two plus three is five.
        >>> len(talk.messages)
        2
    """

    def __init__(
        self, llm: EncodesChats, system: str | None = None, *, thinking: bool | None = None
    ) -> None:
        self._llm, self._thinking = llm, thinking
        self._messages: list[Message] = []
        if system is not None:
            self._messages += check_messages([{"role": "system", "content": system}])
        self._pictures: list[Image] = []
        prefixes = PrefixCache(max_bytes=context_bytes(llm.model))
        self._generator = TextGenerator(llm.model, llm.tokenizer, prefix_cache=prefixes)

    @property
    def messages(self) -> list[Message]:
        """What was said, as `LanguageModel.chat` takes it."""
        return list(self._messages)

    def ask(
        self,
        question: str,
        config: GenerationConfig | None = None,
        *,
        images: ImageSource | Sequence[ImageSource] = (),
        **settings: Unpack[AnswerKeywords],
    ) -> Generation:
        """The reply to ``question``. Arguments and errors are those of `LanguageModel.chat`."""
        stream = self.stream(question, config, images=images, **settings)
        for _ in stream:
            pass
        assert stream.result is not None
        return stream.result

    def stream(
        self,
        question: str,
        config: GenerationConfig | None = None,
        *,
        images: ImageSource | Sequence[ImageSource] = (),
        **settings: Unpack[AnswerKeywords],
    ) -> ReplyStream:
        """`ask`, piece by piece as the text comes."""
        check_messages([{"role": "user", "content": question}])
        pictures = open_pictures(images)
        content = message_content(question, len(pictures), parts=bool(pictures))
        asked: Message = {"role": "user", "content": content}
        ids, inputs = self._llm.encode_chat(
            [*self._messages, asked], [*self._pictures, *pictures], thinking=self._thinking
        )
        thoughts = thought_format(self._llm.tokenizer, ids)
        asked_for = self._llm.constraints.settings(settings, thoughts)
        tokens = self._generator.generate_stream(ids, config, **asked_for, **inputs)
        splitter = ThoughtSplitter(thoughts)
        pieces = splitter.replies(tokens.text())
        return ReplyStream(tokens, self._remembered(asked, pictures, pieces), splitter)

    def _remembered(
        self, asked: Message, pictures: Sequence[Image], pieces: Iterator[str]
    ) -> Iterator[str]:
        said: list[str] = []
        ended = False
        try:
            for piece in pieces:
                said.append(piece)
                yield piece
            ended = True
        except Exception:
            said.clear()
            raise
        finally:
            if ended or said:
                self._messages += [asked, {"role": "assistant", "content": "".join(said)}]
                self._pictures += pictures
