"""A prompt as commands give it: messages and pictures → ids, alike in a command and in a server that it asks.

Nothing is cut or left out on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lolama.prompts import hears_system, render, text_of, with_pictures, without_template
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama_core.protocols import Tokenizer
    from lolama_core.protocols.types import ImageInputs, Message, ModelFiles

# A text of more characters a token than this is nearly always longer than its share of the context.
_CHARACTERS_PER_TOKEN = 32


@dataclass(frozen=True)
class PreparedImages:
    """The pictures of a prompt, ready for the model.

    Attributes:
        files: The model's files.
        inputs: What its image processor made of them.
    """

    files: ModelFiles
    inputs: ImageInputs

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.inputs["tokens_per_image"])

    @property
    def model_inputs(self) -> Mapping[str, Any]:
        """What the model is given beside ids: nothing, if nothing is shown."""
        return cast("Mapping[str, Any]", self.inputs) if self.count else {}

    @property
    def progress(self) -> str:
        """What there is to wait for."""
        return (
            f"encoding {self.count} picture{'' if self.count == 1 else 's'}" if self.count else ""
        )

    @property
    def marks(self) -> list[list[int]]:
        """The ids that stand for each of them in a prompt without a template."""
        from lolama.vision import picture_ids

        return [picture_ids(self.files)] * self.count

    def count_positions(self, ids: Sequence[int]) -> int:
        """Positions of the prompt, pictures included.

        Raises:
            UsageError: if image tokens and pictures do not go together.
        """
        from lolama.vision import count_positions

        return count_positions(self.files, ids, self.inputs)


def encode_messages(
    messages: Sequence[Message],
    files: ModelFiles,
    tokenizer: Tokenizer,
    *,
    raw: bool = False,
    alone: bool = False,
    images: PreparedImages | None = None,
    most: int | None = None,
) -> Sequence[int]:
    """The ids of a conversation, in the model's chat template.

    Args:
        messages: Each a role, and a text or parts; the user has the last word.
        files, tokenizer: The model's files and tokenizer.
        raw: Leave the template aside.
        alone: They are a single prompt, with a system message or not: without a template it is a text.
        images: The pictures that go with it, with the last message where none has a place for them; None for
            a text model.
        most: Positions that it may take; None for any number.

    Raises:
        UsageError: if it is longer than that, or needs a template that there is not.
        ModelError: if the chat template cannot be used.
    """
    texts = [text_of(message) for message in messages]
    if most is not None:
        check_length("\n".join(texts), tokenizer, most)
    ids: Sequence[int]
    if tokenizer.has_chat_template and not raw:
        ids = _in_template(messages, tokenizer, images, "system" if alone else "messages")
    elif not alone:
        reason = "are for a chat template, and the model has none"
        raise UsageError("messages", reason, "write a prompt, or give a `template`")
    elif len(messages) > 1:
        reason = "the model has no chat template, and so no place for a system message"
        raise UsageError("system", reason, "put it into the prompt, or give a `template`")
    else:
        ids = without_template(texts[0], tokenizer, [] if images is None else images.marks)
    count = len(ids) if images is None else images.count_positions(ids)
    if most is not None and count > most:
        raise _too_long(f"{count:,}", most)
    return ids


def _in_template(
    messages: Sequence[Message], tokenizer: Tokenizer, images: PreparedImages | None, subject: str
) -> Sequence[int]:
    # The template of a vision model reads the parts of a message; text alone it may leave out.
    said = list(messages) if images is None else with_pictures(messages, images.count)
    if said[0]["role"] == "system" and not hears_system(tokenizer, said):
        reason = "the model's chat template leaves system messages out"
        raise UsageError(subject, reason, "put it into the prompt, or give another `template`")
    return render(tokenizer, said)


def check_length(text: str, tokenizer: Tokenizer, limit: int) -> None:
    """Refuse megabytes without tokenizing them: the exact number of tokens is not worth the time.

    Raises:
        UsageError: for a text that has more than twice as many tokens as ``limit`` positions hold.
    """
    if len(text) <= limit * _CHARACTERS_PER_TOKEN:
        return
    start = text[: limit * _CHARACTERS_PER_TOKEN]
    count = len(tokenizer.encode_ids(start, split_special_tokens=True))
    if count > 2 * limit:
        estimate = float(f"{count * len(text) / len(start):.2g}")
        raise _too_long(f"about {estimate:,.0f}", limit)


def _too_long(count: str, limit: int) -> UsageError:
    return UsageError(
        "prompt",
        f"has {count} tokens, more than the {limit:,} the model attends over",
        "shorten it",
    )
