"""From what a user gave to the ids of a prompt, and nothing is cut or left out on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lolama.prompts import hears_system, render, with_pictures, without_template
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama_cli.pictures import PreparedImages
    from lolama_core.protocols import Tokenizer
    from lolama_core.protocols.types import Message, ModelFiles

# A text of more characters a token than this is nearly always longer than its share of the context.
_CHARACTERS_PER_TOKEN = 32


def encode_prompt(
    text: str,
    files: ModelFiles,
    tokenizer: Tokenizer,
    *,
    raw: bool = False,
    system: str | None = None,
    images: PreparedImages | None = None,
) -> Sequence[int]:
    """The ids of a prompt: in the model's chat template if it has one, else the text alone.

    Args:
        text: What the user says.
        files, tokenizer: The model's files and tokenizer.
        raw: Leave the template aside.
        system: What the model is told before.
        images: The pictures that go with it; None for a text model.

    Raises:
        UsageError: if the prompt is longer than the context, or the model takes no system message.
        ModelError: if the chat template cannot be used.
    """
    said: list[Message] = [{"role": "user", "content": text}]
    if system is not None:
        said.insert(0, {"role": "system", "content": system})
    return encode_messages(said, files, tokenizer, raw=raw, alone=True, images=images)


def encode_messages(
    messages: Sequence[Message],
    files: ModelFiles,
    tokenizer: Tokenizer,
    *,
    raw: bool = False,
    alone: bool = False,
    images: PreparedImages | None = None,
) -> Sequence[int]:
    """The ids of a conversation, in the model's chat template.

    Args:
        messages: Each a role and a text; the user has the last word.
        files, tokenizer: The model's files and tokenizer.
        raw: Leave the template aside.
        alone: They are a single prompt, with a system message or not: without a template it is a text.
        images: The pictures that go with the last message; None for a text model.

    Raises:
        UsageError: if it is longer than the context, or needs a template that there is not.
        ModelError: if the chat template cannot be used.
    """
    from lolama import names

    texts = [str(message["content"]) for message in messages]
    context_length = names.context_length(files)
    if context_length is not None:
        check_length("\n".join(texts), tokenizer, context_length)
    ids: Sequence[int]
    if tokenizer.has_chat_template and not raw:
        ids = _in_template(messages, tokenizer, images, "--system" if alone else "messages")
    elif not alone:
        reason = "are for a chat template, and the model has none"
        raise UsageError("messages", reason, "write a prompt, or give a --template")
    elif len(messages) > 1:
        reason = "the model has no chat template, and so no place for a system message"
        raise UsageError("--system", reason, "put it into the prompt, or give a --template")
    else:
        ids = without_template(texts[0], tokenizer, [] if images is None else images.marks)
    count = len(ids) if images is None else images.count_positions(ids)
    if context_length is not None and count > context_length:
        raise _too_long(f"{count:,}", context_length)
    return ids


def _in_template(
    messages: Sequence[Message], tokenizer: Tokenizer, images: PreparedImages | None, subject: str
) -> Sequence[int]:
    # The template of a vision model reads the parts of a message; text alone it may leave out.
    said = list(messages) if images is None else with_pictures(messages, images.count)
    if said[0]["role"] == "system" and not hears_system(tokenizer, said):
        reason = "the model's chat template leaves system messages out"
        raise UsageError(subject, reason, "put it into the prompt, or give another --template")
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
