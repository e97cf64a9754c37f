"""From what a user typed to the ids of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lolama.command_prompts import PreparedImages
    from lolama_core.protocols import Tokenizer
    from lolama_core.protocols.types import Message, ModelFiles


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
    from lolama import names
    from lolama.command_prompts import encode_messages

    said: list[Message] = [{"role": "user", "content": text}]
    if system is not None:
        said.insert(0, {"role": "system", "content": system})
    most = names.context_length(files)
    return encode_messages(said, files, tokenizer, raw=raw, alone=True, images=images, most=most)
