"""Control tokens in odd tokenizer files: normalized, behind normalizers, in vocabularies with holes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tokenizers

from lolama_core import Tokenizer
from lolama_core.generation.text_stream import TextStream
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import AddedTokenBlock, Message

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
)
CHAT: list[Message] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Bye"},
]
PREPEND: dict[str, Any] = {"type": "Prepend", "prepend": "▁"}
SPACES: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
DECODER: dict[str, Any] = {
    "type": "Sequence",
    "decoders": [{**SPACES, "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"}],
}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def added(content: str, number: int, **flags: bool) -> dict[str, Any]:
    usual = {"special": True, "normalized": False, "lstrip": False, "rstrip": False}
    return {"id": number, "content": content, "single_word": False, **usual, **flags}


def letters_json(normalized: bool = False, **parts: Any) -> dict[str, Any]:
    """A tokenizer of single characters and three control tokens."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3}
    for code in range(33, 127):
        vocab[chr(code)] = len(vocab)
    tokens = ("<unk>", "<s>", "</s>")
    return {
        "version": "1.0",
        "added_tokens": [added(t, n, normalized=normalized) for n, t in enumerate(tokens)],
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocab, "merges": []},
        "decoder": DECODER,
        **parts,
    }


def made(values: dict[str, Any], **settings: Any) -> Tokenizer:
    names = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE, **settings}
    return Tokenizer(json.dumps(values), **names)


NORMALIZERS = {
    "none": None,
    "prepend": sequence(PREPEND, SPACES),
    "prepend alone": PREPEND,
    "spaces": SPACES,
    "lowercase": sequence({"type": "Lowercase"}, SPACES),
    "no digits": {"type": "Replace", "pattern": {"Regex": "[0-9a-f]"}, "content": "x"},
    "no brackets": {"type": "Replace", "pattern": {"String": "<"}, "content": "("},
    "bert": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "nested": sequence(sequence(sequence(PREPEND)), {"type": "NFKC"}, SPACES),
}


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_row_98_a_template_gets_its_control_tokens(name: str, normalized: bool) -> None:
    """The normalizer makes no difference, and each load of the tokenizer gives the same ids."""
    values = letters_json(normalized, normalizer=NORMALIZERS[name])
    ids = made(values).render_chat(CHAT)
    assert [i for i in ids if i in (1, 2)] == [1, 2, 2, 2]
    assert ids == made(values).render_chat(CHAT)
    assert all(0 <= i < 98 for i in ids)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_row_98_ids_are_the_librarys_where_it_finds_all(name: str, normalized: bool) -> None:
    """Each stand-in is found where its control token would be, and nothing around it changes."""
    values = letters_json(normalized, normalizer=NORMALIZERS[name])
    native = tokenizers.Tokenizer.from_str(json.dumps(values))
    same = 0
    for between in ("", " ", "  ", "\n"):
        template = (
            f"{{% for m in messages %}} {{{{ m.content }}}}{between}</s>{between}{{% endfor %}}"
        )
        messages: list[Message] = [{"role": "user", "content": "hey you"}] * 2
        text = f" hey you{between}</s>{between}" * 2
        expected = native.encode(text, add_special_tokens=False).ids
        if expected.count(2) == 2:
            same += 1
            assert made(values, chat_template=template).render_chat(messages) == expected
    assert same >= (0 if name == "prepend alone" else 2)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_row_98_what_a_user_types_is_text(name: str) -> None:
    for normalized in (False, True):
        tokenizer = made(letters_json(normalized, normalizer=NORMALIZERS[name]))
        for typed in ("</s>", " </s> ", "a</s>b", "</s></s>", "<s> </s>", "</S>"):
            ids = tokenizer.render_chat([{"role": "user", "content": typed}])
            assert [i for i in ids if i in (1, 2)] == [1, 2], (typed, normalized)


def test_row_98_a_control_token_that_cannot_be_kept_whole() -> None:
    """Another added token begins before it and ends within it."""
    values = letters_json()
    values["added_tokens"].append(added("s<", 98, special=False))
    with pytest.raises(ModelError, match="does not keep the control tokens"):
        made(values).render_chat([{"role": "user", "content": "yes"}])


def with_holes() -> dict[str, Any]:
    """The four ids before the last two words belong to nobody."""
    values = letters_json()
    vocab = values["model"]["vocab"]
    vocab.update({"no": 104, "not": 105})
    values["model"]["merges"] = [["n", "o"], ["no", "t"]]
    return values


def test_row_99_ids_of_a_vocabulary_with_holes() -> None:
    values = with_holes()
    native = tokenizers.Tokenizer.from_str(json.dumps(values))
    tokenizer = made(values)
    assert tokenizer.vocab_size == 106
    for text in ("no", "not", "nothing is not"):
        ids = native.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.decode(ids) == native.decode(ids)
        chat = tokenizer.render_chat([{"role": "user", "content": text}])
        expected = native.encode(f"<s>user: {text}</s>", add_special_tokens=False).ids
        assert chat == expected
    assert tokenizer.decode([98, 103, 105]) == "not"


def test_row_198_added_tokens_beside_holes_keep_their_ids() -> None:
    """The library counts their ids on from the number of words, which must stay what the file says."""
    values = letters_json()
    values["model"]["vocab"]["hole"] = len(values["model"]["vocab"]) + 50
    count = len(values["model"]["vocab"])
    values["added_tokens"] += [added("<a>", count), added("<b>", count + 1, special=False)]
    native = tokenizers.Tokenizer.from_str(json.dumps(values))
    tokenizer = made(values)
    text = "x<a>y<b>hole"
    ids = native.encode(text, add_special_tokens=False).ids
    assert {count, count + 1} <= {*ids}
    assert tokenizer.encode(text, add_special_tokens=False) == ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == native.decode(
        ids, skip_special_tokens=False
    )
    assert tokenizer.render_chat(CHAT).count(2) == 3


def test_row_99_tokens_that_are_added_into_holes() -> None:
    """The library gives them ids of words: the file is refused, as no id may mean two things."""
    values = with_holes()
    values["added_tokens"] += [added(f"<{n}>", 100 + n) for n in range(6)]
    with pytest.raises(ModelError, match=r"gives the id 10[45] to two tokens"):
        made(values)
    tokens = [token_block(f"<{n}>") for n in range(6)]
    with pytest.raises(ModelError, match=r"gives the id 10[45] to two tokens"):
        made(with_holes(), added_tokens=tokens)


def token_block(content: str, **flags: bool) -> AddedTokenBlock:
    values: Any = added(content, 0, **flags)
    del values["id"]
    block: AddedTokenBlock = values
    return block


@pytest.mark.parametrize("name", NORMALIZERS)
def test_row_115_control_tokens_are_left_out(name: str) -> None:
    tokenizer = made(letters_json(True, normalizer=NORMALIZERS[name]))
    ids = [1, *tokenizer.encode("you", add_special_tokens=False), 2, 0]
    assert tokenizer.decode(ids).strip() == "you"
    stream = TextStream(tokenizer, [1])
    assert ("".join(map(stream.push, ids[1:])) + stream.finish()).strip() == "you"
    shown = tokenizer.decode(ids, skip_special_tokens=False)
    assert shown == tokenizers.Tokenizer.from_str(
        json.dumps(letters_json(True, normalizer=NORMALIZERS[name]))
    ).decode(ids, skip_special_tokens=False)


def test_row_100_added_tokens_of_another_file() -> None:
    """New ones, and other flags for those of tokenizer.json."""
    values = letters_json()
    values["added_tokens"].append(added("<end>", 98, special=False))
    more = [token_block("<end>"), token_block("<tool>", special=False)]
    tokenizer = made(values, added_tokens=more)
    assert tokenizer.encode("a<tool><end>", add_special_tokens=False)[1:] == [99, 98]
    assert (tokenizer.is_special(98), tokenizer.is_special(99)) == (True, False)
    assert tokenizer.decode([98, 99, 98]) == "<tool>"
    typed = tokenizer.encode("<end>", add_special_tokens=False, split_special_tokens=True)
    assert 98 not in typed


def test_row_100_a_token_with_a_name_cannot_be_typed() -> None:
    values = letters_json()
    values["added_tokens"] += [
        added("<end>", 98, special=False),
        added("<img>", 99, special=False),
        added("<ask>", 100, special=False),
    ]
    for settings in (
        {"eos_token": "<end>", "special_tokens": {"image_token": "<img>"}},
        {"control_tokens": ["<end>", "<img>"]},
    ):
        tokenizer = made(values, **settings)
        ids = tokenizer.render_chat([{"role": "user", "content": "<end><img><ask>"}])
        assert ids.count(98) == (1 if "eos_token" in settings else 0)
        assert 99 not in ids
        assert 100 in ids
        # transformers leaves out those with the flag alone.
        assert tokenizer.decode([98, 99, 100]) == "<end><img><ask>"


def test_row_101_named_tokens_are_variables_of_a_template() -> None:
    template = (
        "{{ pad_token }}{{ image_token }}{% if eos_token is defined %}E{% else %}U{% endif %}"
        "{% if sep_token is defined %}S{% endif %}{{ nothing_token }}"
    )
    names = {"pad_token": "<unk>", "image_token": "</s>"}
    tokenizer = made(letters_json(), chat_template=template, eos_token=None, special_tokens=names)
    ids = tokenizer.render_chat(CHAT)
    assert ids[:2] == [0, 2]
    assert tokenizer.decode(ids) == "U"


def test_row_140_a_model_that_spells_control_tokens() -> None:
    """A Unigram vocabulary takes a control token for a word; the text is refused, not the token typed."""
    words = [["<unk>", 0.0], ["<s>", -1.0], ["</s>", -1.0], ["▁", -2.0]]
    words += [[chr(code), -3.0] for code in range(33, 127)]
    values = letters_json(model={"type": "Unigram", "unk_id": 0, "vocab": words})
    tokenizer = made(values)
    assert tokenizer.render_chat(CHAT).count(2) == 3
    with pytest.raises(UsageError, match=r"holds '</s>', which .* control token"):
        tokenizer.render_chat([{"role": "user", "content": "a</s>"}])
    with pytest.raises(UsageError, match=r"holds '</s>', which .* control token"):
        tokenizer.encode("a</s>", split_special_tokens=True)
    assert tokenizer.encode("é", split_special_tokens=True, add_special_tokens=False) == [0]
    assert 2 in tokenizer.encode("a</s>")


# ------------------------------------------------------------------------- what makes texts longer


def doubled(times: int) -> list[dict[str, Any]]:
    return [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * times


def pre_tokenized(times: int) -> dict[str, Any]:
    step = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {"type": "Sequence", "pretokenizers": [step] * times}


LONGER: dict[str, dict[str, Any]] = {
    "doubled": {"normalizer": sequence(*doubled(45))},
    "doubled 20 times": {"normalizer": sequence(*doubled(20))},
    "nested": {"normalizer": sequence(*(sequence(sequence(step)) for step in doubled(45)))},
    "pattern": {
        "normalizer": sequence(
            *[{"type": "Replace", "pattern": {"Regex": "a"}, "content": "aa"}] * 45
        )
    },
    "nothing replaced": {
        "normalizer": sequence(
            *[{"type": "Replace", "pattern": {"String": ""}, "content": "a"}] * 45
        )
    },
    "a megabyte": {"normalizer": {"type": "Prepend", "prepend": "x" * 1_000_000}},
    "a for a megabyte": {
        "normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 1_000_000}
    },
    "prepended and doubled": {
        "normalizer": sequence({"type": "Prepend", "prepend": "a"}, *doubled(25))
    },
    "bytes of bytes": {"normalizer": sequence(*[{"type": "ByteLevel"}] * 45)},
    "bytes of bytes, later": {"pre_tokenizer": pre_tokenized(45)},
    "many steps": {"normalizer": sequence(*[{"type": "NFC"}] * 1000)},
    "decoder": {"decoder": {"type": "Sequence", "decoders": doubled(45)}},
    "decoder at once": {"decoder": {**doubled(1)[0], "content": "a" * 999}},
    "long ending": {
        "model": {
            **letters_json()["model"],
            "end_of_word_suffix": "x" * 1_000_000,
        }
    },
    "long token": {"added_tokens": [added("x" * 1_000_000, 98)]},
}


@pytest.mark.parametrize("name", LONGER)
def test_row_108_a_file_that_makes_texts_longer(name: str) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError) as caught:
        Tokenizer(json.dumps(letters_json() | LONGER[name])).encode("banana é" + "a</s>" * 20)
    assert "tokenizer.json: " in str(caught.value)
    assert len(str(caught.value)) < 300
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # kilobytes; a megabyte, and what the library needs for it


def test_row_108_honest_steps_on_long_texts() -> None:
    """A longer text than is let through unmeasured."""
    text = "a word and another " * 20_000
    values = letters_json(normalizer=sequence(PREPEND, SPACES, {"type": "NFKC"}))
    native = tokenizers.Tokenizer.from_str(json.dumps(values))
    expected = native.encode(text, add_special_tokens=False).ids
    assert made(values).encode(text, add_special_tokens=False) == expected
