"""The pictures of a request, which several APIs send in base64 within messages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from lolama_core.protocols.types import ContentPart
from lolama_serve.errors import APIError

MOST_PICTURES = 16
"""Pictures that one request may show."""

MOST_PICTURE_BYTES = 20_000_000
"""Bytes of one picture's file."""

BETWEEN_PARTS = "\n\n"
"""What stands between the texts of a message that has several, for a model that reads one."""


class Pictures:
    """The files of the pictures that a request shows, in order.

    Args:
        seen: Whether the model is shown pictures.

    Attributes:
        files: Those so far.
    """

    def __init__(self, *, seen: bool) -> None:
        self._seen = seen
        self.files: list[bytes] = []

    def show(self, data: str, where: str) -> ContentPart:
        """Take the next one; what stands for it in its message.

        Args:
            data: Its file in base64.
            where: The field of the request that it comes from.

        Raises:
            APIError: for a model that sees none, for one too many, for what is too large or no base64.
        """
        if not self._seen:
            reason = "this model is shown no pictures; use a vision model"
            raise APIError(400, f"{where}: {reason}", param=where)
        if len(self.files) == MOST_PICTURES:
            raise APIError(400, f"{where}: is one picture more than {MOST_PICTURES}", param=where)
        self.files.append(decoded_picture(data, where))
        return {"type": "image"}

    def content(self, parts: Sequence[ContentPart]) -> str | list[ContentPart]:
        """A message's parts as its template takes them: a list for a model that sees, or else one text."""
        if self._seen:
            return [*parts]
        return BETWEEN_PARTS.join(part["text"] for part in parts)


def decoded_picture(text: str, where: str) -> bytes:
    """The file of a picture in base64.

    Raises:
        APIError: for what is too large, or no base64.
    """
    if len(text) * 3 // 4 > MOST_PICTURE_BYTES:  # before anything is decoded
        reason = f"is larger than the {MOST_PICTURE_BYTES:,} bytes that a picture may have"
        raise APIError(413, f"{where}: {reason}", param=where)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise APIError(400, f"{where}: is not base64: {error}", param=where) from None
