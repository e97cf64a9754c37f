"""Ids → text with every kind of step that a decoder may have."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import tokenizers

from lolama_core import TextStream, Tokenizer
from lolama_core.protocols.errors import ModelError

FUSE: dict[str, Any] = {"type": "Fuse"}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPACES = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}


def strip(content: str, start: int, stop: int) -> dict[str, Any]:
    return {"type": "Strip", "content": content, "start": start, "stop": stop}


def replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def with_decoder(byte_fallback_json: str, *steps: dict[str, Any]) -> str:
    parsed = json.loads(byte_fallback_json)
    parsed["decoder"] = {"type": "Sequence", "decoders": list(steps)}
    return json.dumps(parsed)


Steps = dict[str, list[dict[str, Any]]]
# Each reads on from one token into the next, or needs the end of the text.
ACROSS: Steps = {
    "more than one character": [SPACES, FUSE, replace("he", "HE")],
    "nothing": [SPACES, FUSE, replace("", "-")],
    "the end": [SPACES, FUSE, strip("e", 0, 1)],
    "several at the beginning": [SPACES, FUSE, strip(" ", 3, 0)],
    "the beginning, twice": [SPACES, FUSE, strip(" ", 1, 0), strip(" ", 1, 0)],
    "the beginning after stripped tokens": [SPACES, strip("e", 1, 0), FUSE, strip(" ", 1, 0)],
    "the beginning after empty tokens": [SPACES, replace("o", ""), FUSE, strip(" ", 1, 0)],
    "CTC": [FUSE, {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}],
    "WordPiece": [SPACES, FUSE, {"type": "WordPiece", "prefix": "##", "cleanup": True}],
    "BPEDecoder": [SPACES, {"type": "BPEDecoder", "suffix": "e"}],
    "ByteLevel after Fuse": [SPACES, FUSE, LEVEL],
    "ByteLevel": [SPACES, LEVEL, replace("ee", "E")],
}  # fmt: skip
# These do not, and stream.
ALONE: Steps = {
    "Llama": [SPACES, {"type": "ByteFallback"}, FUSE, strip(" ", 1, 0)],
    "before Fuse": [replace("he", "HE"), SPACES, FUSE],
    "one character": [SPACES, FUSE, replace("e", "EE")],
    "WordPiece": [SPACES, {"type": "WordPiece", "prefix": "##", "cleanup": True}],
    "CTC": [SPACES, {"type": "CTC", "pad_token": "▁", "word_delimiter_token": "|", "cleanup": True}],
}  # fmt: skip


@pytest.mark.parametrize("name", [*ACROSS, *ALONE])
def test_row_199_streamed_text_is_the_whole_text_whatever_the_decoder_does(
    name: str, byte_fallback_json: str
) -> None:
    for steps, streams in ((ACROSS.get(name), False), (ALONE.get(name), True)):
        if steps is None:
            continue
        source = with_decoder(byte_fallback_json, *steps)
        tokenizer, native = Tokenizer(source), tokenizers.Tokenizer.from_str(source)
        draw = random.Random(name)
        ids = tokenizer.encode("the  thee   hello there e", add_special_tokens=False)
        for _ in range(300):
            some = draw.choices([*ids, *range(262, tokenizer.vocab_size)], k=draw.randint(1, 12))
            stream = TextStream(tokenizer)
            pieces = [*map(stream.push, some), stream.finish()]
            assert "".join(pieces) == tokenizer.decode(some) == native.decode(some), some
        stream = TextStream(tokenizer)
        assert any(map(stream.push, ids)) is streams


def test_row_197_a_decoder_that_panics_is_a_damaged_file(
    byte_fallback_json: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library panics where a token is shorter than what is taken from its end."""
    tokenizer = Tokenizer(with_decoder(byte_fallback_json, strip("e", 0, 3)))
    letter = tokenizer.encode("e", add_special_tokens=False)[-1:]
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be used: index out of bounds"):
        tokenizer.decode(letter)
    with pytest.raises(ModelError, match="cannot be used"):
        TextStream(tokenizer).push(letter[0])
    assert tokenizer.decode([]) == ""
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dropout", [0.1, 0.999])
def test_row_200_a_text_has_the_same_ids_each_time(dropout: float, byte_fallback_json: str) -> None:
    parsed = json.loads(byte_fallback_json)
    parsed["model"]["dropout"] = dropout
    with pytest.raises(ModelError, match=f"dropout {dropout}.*set dropout to null"):
        Tokenizer(json.dumps(parsed))
    for certain in (None, 0.0, 1.0):
        parsed["model"]["dropout"] = certain
        native = tokenizers.Tokenizer.from_str(json.dumps(parsed))
        assert Tokenizer(json.dumps(parsed)).encode("the fox") == native.encode("the fox").ids


@pytest.mark.parametrize("beyond", [10**6, 9])
def test_row_199_an_id_of_no_token_between_two_words(beyond: int, byte_fallback_json: str) -> None:
    """A model may have more rows than its tokenizer has tokens; such an id has no text."""
    parsed = json.loads(byte_fallback_json)
    del parsed["model"]["vocab"]["<0x03>"]  # 9
    tokenizer = Tokenizer(json.dumps(parsed))
    the, dog = (tokenizer.encode(f"{word}", add_special_tokens=False) for word in ("the", "dog"))
    ids = [*the, beyond, *dog]
    stream = TextStream(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids) == "the dog"
    after = TextStream(tokenizer, [*the, beyond])
    assert "".join(map(after.push, dog)) + after.finish() == " dog"


@pytest.mark.parametrize("kind", ["BertProcessing", "TemplateProcessing"])
def test_row_202_what_is_put_into_every_text_is_a_token(kind: str, byte_fallback_json: str) -> None:
    parsed = json.loads(byte_fallback_json)
    parsed["post_processor"] = (
        {"type": kind, "sep": ["</s>", 10**6], "cls": ["<s>", 1]}
        if kind == "BertProcessing"
        else {
            "type": kind,
            "single": [
                {"SpecialToken": {"id": "x", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {"x": {"id": "x", "ids": [1, 10**6], "tokens": ["<s>", "x"]}},
        }
    )  # fmt: skip
    with pytest.raises(ModelError, match="puts the id 1000000 into every text"):
        Tokenizer(json.dumps(parsed))
