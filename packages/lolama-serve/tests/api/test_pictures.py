"""Pictures of a request: how many, how large, and for whom."""

from __future__ import annotations

import base64

import pytest

from lolama_core.protocols.types import ContentPart
from lolama_serve.api import pictures
from lolama_serve.api.pictures import Pictures
from lolama_serve.errors import APIError

DATA = base64.b64encode(b"a picture").decode()


def test_their_files_are_kept_in_order() -> None:
    seen = Pictures(seen=True)
    other = base64.b64encode(b"another").decode()
    assert [seen.show(DATA, "here"), seen.show(other, "there")] == [{"type": "image"}] * 2
    assert seen.files == [b"a picture", b"another"]


def test_a_model_that_sees_none_is_shown_none() -> None:
    with pytest.raises(APIError, match=r"^here: .*use a vision model") as refused:
        Pictures(seen=False).show(DATA, "here")
    assert refused.value.status == 400


def test_one_too_many_is_refused() -> None:
    seen = Pictures(seen=True)
    for _ in range(pictures.MOST_PICTURES):
        seen.show(DATA, "here")
    with pytest.raises(APIError, match=r"^there: is one picture more than 16"):
        seen.show(DATA, "there")


def test_what_is_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PICTURE_BYTES", 8)
    with pytest.raises(APIError, match="larger than the 8 bytes") as refused:
        Pictures(seen=True).show("!" * 12, "here")
    assert refused.value.status == 413


def test_what_is_no_base64_is_refused() -> None:
    with pytest.raises(APIError, match=r"^here: is not base64"):
        Pictures(seen=True).show("!!!!", "here")


def test_a_text_model_reads_one_text_and_a_vision_model_a_list() -> None:
    parts: list[ContentPart] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert Pictures(seen=False).content(parts) == "a\n\nb"
    assert Pictures(seen=True).content(parts) == parts
