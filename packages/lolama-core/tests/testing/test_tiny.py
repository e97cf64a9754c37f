"""The tokenizers that other tests stand on do what their names say, as the library reads them."""

from __future__ import annotations

from tokenizers import Tokenizer, pre_tokenizers

from lolama_core.testing import tiny

BYTES = {character: byte for byte, character in enumerate(tiny.byte_characters())}


def test_each_byte_has_the_character_that_the_library_gives_it() -> None:
    assert set(BYTES) == set(pre_tokenizers.ByteLevel.alphabet())
    native = Tokenizer.from_str(tiny.byte_level(BYTES))
    assert native.encode("aé\n").ids == list("aé\n".encode())


def test_control_tokens_come_after_the_vocabulary_and_added_ones_after_them() -> None:
    text = tiny.byte_level(BYTES, specials=("<s>", "<e>"), added=("[x]",), bos="<s>")
    native = Tokenizer.from_str(text)
    assert native.encode("a[x]<e>").ids == [256, ord("a"), 258, 257]
    assert native.decode([256, ord("a"), 258, 257]) == "a[x]"


def test_words_are_cut_first_unless_told_otherwise() -> None:
    vocabulary = {**BYTES, "bĠ": 256}
    cut, whole = (
        Tokenizer.from_str(tiny.byte_level(vocabulary, [("b", "Ġ")], words=words))
        for words in (True, False)
    )
    assert cut.encode("b c").ids == [ord(c) for c in "b c"]
    assert whole.encode("b c").ids == [256, ord("c")]


def test_pieces_begin_with_a_space_and_what_fits_none_is_unknown_or_bytes() -> None:
    pieces = {"<unk>": 0, "▁": 1, "a": 2, "▁a": 3}
    unknown = Tokenizer.from_str(tiny.with_pieces(pieces, [("▁", "a")], specials=("<unk>",)))
    assert unknown.encode("a éb").ids == [3, 1, 0]
    names = {**pieces, **{f"<0x{byte:02X}>": 4 + byte for byte in range(256)}}
    spelled = Tokenizer.from_str(tiny.with_pieces(names, [("▁", "a")], byte_fallback=True))
    assert spelled.encode("a é").ids == [3, 1, 4 + 0xC3, 4 + 0xA9]
    assert spelled.decode([3, 1, 4 + 0xC3, 4 + 0xA9]) == "a é"


def test_what_is_common_is_learned() -> None:
    vocabulary, merges = tiny.learn_bytes(["the the the"], 258)
    assert len(vocabulary) == 258
    assert ("h", "e") in merges or ("t", "h") in merges
    pieces, joined = tiny.learn_pieces(["aa aa aa"], 4)
    assert set(pieces) == {"▁", "a", "aa", "▁aa"}
    assert joined == [("a", "a"), ("▁", "aa")]
