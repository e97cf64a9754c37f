"""The bytes of tokens: those that `decode` makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from lolama_core import Tokenizer, load, token_bytes
from lolama_core.protocols.errors import UsageError
from lolama_core.testing import tiny

TEXTS = ['{"name": "été", "n": 12}', "hello world, hello there", "  two  spaces\n\tand 漢字 🙂 ü"]


def of_bytes() -> Tokenizer:
    vocabulary, merges = tiny.learn_bytes(TEXTS * 3, 320)
    text = tiny.byte_level(
        vocabulary, merges, specials=["<s>", "</s>", "<|im_start|>"], added=["<tool>"], bos="<s>"
    )
    return Tokenizer(text, bos_token="<s>", eos_token="</s>")


def of_pieces(byte_fallback: bool = True) -> Tokenizer:
    pieces, merges = tiny.learn_pieces(TEXTS * 3, 90)
    names = ["<unk>", "<s>", "</s>"]
    names += [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    vocabulary = {name: number for number, name in enumerate([*names, *pieces])}
    text = tiny.with_pieces(
        vocabulary, merges, specials=names[:3], bos="<s>", byte_fallback=byte_fallback
    )
    return Tokenizer(text, bos_token="<s>", eos_token="</s>")


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "demo": lambda: load("demo")[1],
    "bytes": of_bytes,
    "pieces": of_pieces,
    "pieces without bytes": lambda: of_pieces(byte_fallback=False),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_text_is_the_bytes_of_its_tokens(name: str) -> None:
    """Those of the prompt's text come first, as in every generation."""
    tokenizer = MAKERS[name]()
    texts = token_bytes(tokenizer).texts
    assert len(texts) == tokenizer.vocab_size
    for text in TEXTS if name != "pieces without bytes" else TEXTS[1:2]:
        ids = tokenizer.encode_ids("h" + text, add_special_tokens=False)
        assert b"".join(texts[i] for i in ids).decode().lstrip(" ") == "h" + text


@pytest.mark.parametrize("name", MAKERS)
def test_any_tokens_decode_to_their_bytes(name: str) -> None:
    tokenizer, draw = MAKERS[name](), random.Random(1)
    known = token_bytes(tokenizer)
    plain = sorted({*range(tokenizer.vocab_size)} - known.controls)
    [first, *_] = tokenizer.encode_ids("hello", add_special_tokens=False)
    begin = tokenizer.decode([first])
    tried = 0
    for _ in range(3000):
        ids = draw.choices(plain, k=draw.randrange(1, 5))
        spelled = b"".join(known.texts[i] for i in ids)
        try:
            text = spelled.decode()
        except UnicodeDecodeError:
            continue
        tried += 1
        assert tokenizer.decode([first, *ids])[len(begin) :] == text
    assert tried > 300


def test_control_tokens() -> None:
    tokenizer = of_bytes()
    names = {token_bytes(tokenizer).texts[i] for i in token_bytes(tokenizer).controls}
    assert names == {b"<s>", b"</s>", b"<|im_start|>"}


def test_a_token_that_is_merely_called_one_is_a_control_token_unless_it_is_a_word() -> None:
    vocabulary, merges = tiny.learn_bytes(TEXTS * 3, 300)
    text = tiny.byte_level(vocabulary, merges, specials=["</s>"], added=["<end>"])
    word = {"content": "hello", "special": False, "normalized": False}
    rest = {"lstrip": False, "rstrip": False, "single_word": False}
    named = Tokenizer(
        text,
        eos_token="</s>",
        special_tokens={"pad_token": "hello"},
        control_tokens=["<end>"],
        added_tokens=[{**word, **rest}],  # type: ignore[typeddict-item]
    )
    known = token_bytes(named)
    assert {known.texts[i] for i in known.controls} == {b"</s>", b"<end>"}


def test_a_byte_level_name_with_other_characters_stands_for_itself() -> None:
    vocabulary, _ = tiny.learn_bytes(["a"], 256)
    tokenizer = Tokenizer(tiny.byte_level(vocabulary | {"a b": 256, "é": 257}))
    texts = token_bytes(tokenizer).texts
    assert (texts[256], texts[257]) == (b"a b", b"\xe9")
    assert tokenizer.decode([256]) == "a b"
    assert tokenizer.decode([257]) == "\ufffd"


def test_ids_of_no_token_have_no_bytes() -> None:
    vocabulary, _ = tiny.learn_bytes(["a"], 256)
    tokenizer = Tokenizer(tiny.byte_level(vocabulary | {"ab": 300}))
    assert token_bytes(tokenizer).texts[256:] == (b"",) * 44 + (b"ab",)


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        ({"type": "BPEDecoder", "suffix": "</w>"}, "reads on from one token into the next"),
        (
            {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteLevel"}]},
            "more steps than ByteLevel",
        ),
    ],
)
def test_what_depends_on_its_neighbors_is_refused(decoder: object, reason: str) -> None:
    vocabulary, merges = tiny.learn_bytes(TEXTS, 300)
    file = json.loads(tiny.byte_level(vocabulary, merges))
    file["decoder"] = decoder
    if decoder != {"type": "BPEDecoder", "suffix": "</w>"}:
        for step in file["decoder"]["decoders"]:
            step |= {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    with pytest.raises(UsageError, match=reason):
        token_bytes(Tokenizer(json.dumps(file)))
