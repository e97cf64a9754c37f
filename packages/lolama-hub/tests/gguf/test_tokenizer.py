"""Tokenizers of GGUF files: their ids are those of sentencepiece, of the original and of transformers."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tiny_sentencepiece import texts, trainer

from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.checkpoint import GGUFValue
from lolama_core.protocols.errors import ModelError, ResourceError
from lolama_core.protocols.types import TokenizerFiles
from lolama_core.testing import tiny
from lolama_core.text.tokenizer import Tokenizer
from lolama_hub.gguf.tokenizer import GGUFTokenizer, read_gguf_tokenizer
from lolama_hub.store.place import Store
from lolama_hub.testing.gguf_metadata import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Metadata,
    byte_level_metadata,
    write_gguf,
)

sentencepiece = pytest.importorskip("sentencepiece")

FILE = Path("model.gguf")
KEY = "tokenizer.ggml."
STORY = "Once upon a time, Lily's dog ran 1234 miles. IT'S big!\n\n  They PLAYED; she'd 12 balls.\t"

Read = Callable[..., GGUFTokenizer]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read the tokenizer of some metadata."""

    def read_it(metadata: Mapping[str, GGUFValue], vocab_size: int = 100_000) -> GGUFTokenizer:
        store = Store(tmp_path / "store")
        return read_gguf_tokenizer(FILE, metadata, vocab_size, store=store, label="a model")

    return read_it


def loaded(found: GGUFTokenizer) -> Tokenizer:
    block, path = found.block, found.files.tokenizer_json
    assert path is not None
    return Tokenizer(
        path.read_text(encoding="utf-8"),
        chat_template=found.files.chat_template,
        bos_token=block["bos_token"],
        eos_token=block["eos_token"],
        special_tokens=block.get("special_tokens", {}),
        added_tokens=block.get("added_tokens", ()),
        add_bos=block["add_bos"],
        eos_ids=found.eos_ids,
    )


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text that a user typed, and nothing else."""
    return tokenizer.encode_ids(text, add_special_tokens=False, split_special_tokens=True)


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train a small sentencepiece model on made-up text."""
    return trainer(tmp_path_factory.mktemp("sentencepiece"))


def sentencepiece_metadata(model: Path) -> Metadata:
    """What llama.cpp's converter writes of a sentencepiece model."""
    schema: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    proto = schema.ModelProto.FromString(model.read_bytes())
    return {
        "general.architecture": "llama",
        f"{KEY}model": "llama",
        f"{KEY}pre": "default",
        f"{KEY}tokens": [piece.piece for piece in proto.pieces],
        f"{KEY}scores": [piece.score for piece in proto.pieces],
        f"{KEY}token_type": [piece.type for piece in proto.pieces],
        f"{KEY}add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
        f"{KEY}bos_token_id": proto.trainer_spec.bos_id,
        f"{KEY}eos_token_id": proto.trainer_spec.eos_id,
        f"{KEY}unknown_token_id": proto.trainer_spec.unk_id,
    }


def small_pieces(**changes: object) -> Metadata:
    """The metadata of a few pieces."""
    letters = "▁abcdefghijklmnopqrstuvwxyz"
    pieces = ["<unk>", "<s>", "</s>", *letters, "th", "the", "▁the"]
    return {
        "general.architecture": "llama",
        f"{KEY}model": "llama",
        f"{KEY}tokens": pieces,
        f"{KEY}scores": [-float(number) for number in range(len(pieces))],
        f"{KEY}token_type": [UNKNOWN, CONTROL, CONTROL, *[NORMAL] * (len(pieces) - 3)],
        f"{KEY}bos_token_id": 1,
        f"{KEY}eos_token_id": 2,
        **{f"{KEY}{name}": value for name, value in changes.items()},
    }


def small_bytes(*specials: str, pre: str = "gpt-2", **changes: object) -> Metadata:
    """The metadata of a byte-level tokenizer that knows a story's words."""
    vocabulary, merges = tiny.learn_bytes([STORY, "They're 99999 DOGS"] * 3, 330)
    text = tiny.byte_level(vocabulary, merges, specials=specials)
    return byte_level_metadata(text, pre=pre) | {
        f"{KEY}{name}": value for name, value in changes.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": False, "vocab_size": 120},
        {"add_dummy_prefix": False},
        {"control_symbols": ["[INST]", "[/INST]"]},
        {"bos_id": 5, "eos_id": 6, "unk_id": 7},
        {"add_dummy_prefix": False, "user_defined_symbols": ["▁▁", "▁▁▁", "\n\n", "<b>"]},
    ],
    ids=lambda options: "-".join(options) or "llama",
)
def test_ids_are_those_of_sentencepiece(
    options: dict[str, Any], train: Callable[..., Path], read: Read
) -> None:
    model = train(**options)
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(model))
    found = read(sentencepiece_metadata(model))
    ours = loaded(found)
    assert ours.bos_id == oracle.bos_id() and ours.eos_ids == {oracle.eos_id()}
    assert found.size == oracle.get_piece_size()
    user_defined = "user_defined_symbols" in options
    for text in texts(800):
        ids = oracle.encode(text)
        if user_defined and "▁" in text:
            continue  # sentencepiece takes it for a space, wherever it comes from
        assert plain_ids(ours, text) == ids, text
        if oracle.unk_id() not in ids:
            assert ours.decode(ids, skip_special_tokens=False) == oracle.decode(ids), text


def test_the_scores_alone_may_be_lost(train: Callable[..., Path], read: Read) -> None:
    metadata = sentencepiece_metadata(train())
    lost = metadata | {f"{KEY}scores": [-1000.0] * len(metadata[f"{KEY}scores"])}
    ours, without = loaded(read(metadata)), loaded(read(lost))
    for text in texts(300):
        assert plain_ids(without, text) == plain_ids(ours, text), text


def test_ids_of_a_real_sentencepiece_model(stories: Path, read: Read) -> None:
    model = stories / "tokenizer.model"
    ours = loaded(read(sentencepiece_metadata(model)))
    published = Tokenizer((stories / "tokenizer.json").read_text(encoding="utf-8"))
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for text in texts(1500):
        assert plain_ids(ours, text) == plain_ids(published, text), text
    for text in texts(500, runs_of_spaces=False):
        assert plain_ids(ours, text) == oracle.encode(text), text


def transformers_tokenizer(metadata: Metadata) -> Any:
    """What transformers makes of the same metadata."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

    names = {"model": "tokenizer_type", "pre": "pre_tokenizer_type"}
    values = {
        names.get(key.removeprefix(KEY), key.removeprefix(KEY)): value
        for key, value in metadata.items()
        if key.startswith(KEY)
    }
    native, _ = convert_gguf_tokenizer(metadata["general.architecture"], values)
    return native


@pytest.mark.parametrize(
    "pre", ["gpt-2", "llama-bpe", "dbrx", "qwen2", "qwen35", "tekken", "gpt-4o", "llama4"]
)
def test_ids_of_byte_level_tokenizers_are_those_of_transformers(pre: str, read: Read) -> None:
    metadata = small_bytes("<|end|>", pre=pre)
    ours, theirs = loaded(read(metadata)), transformers_tokenizer(metadata)
    rng = random.Random(3)
    for _ in range(300):
        words = rng.choices(STORY.split(" "), k=4)
        words += rng.choices(["  ", "é", "e\u0301", "9", "\r\n"], k=3)
        text = " ".join(rng.sample(words, k=len(words)))
        # What transformers makes of a folder of Qwen composes texts; what it makes of GGUF does not.
        composed = unicodedata.normalize("NFC", text) if pre.startswith("qwen") else text
        expected = theirs.encode(composed, add_special_tokens=False).ids
        assert plain_ids(ours, text) == expected, text
        assert ours.decode(expected) == composed


def test_ids_of_sentencepiece_are_those_of_transformers(
    train: Callable[..., Path], read: Read
) -> None:
    metadata = sentencepiece_metadata(train()) | {"general.architecture": "phi3"}
    ours, theirs = loaded(read(metadata)), transformers_tokenizer(metadata)
    theirs.encode_special_tokens = True
    for text in texts(500):
        if "</s>" not in text:  # of Phi-3, it takes spaces behind it with it
            assert plain_ids(ours, text) == theirs.encode(text, add_special_tokens=False).ids, text


def test_a_file_is_read_as_its_tokenizer_was(tmp_path: Path, io: CheckpointIO, read: Read) -> None:
    metadata = small_bytes("<|bos|>", "<|eos|>", pre="llama-bpe")
    ends = len(metadata[f"{KEY}tokens"]) - 1
    metadata |= {
        f"{KEY}bos_token_id": ends - 1,
        f"{KEY}eos_token_id": ends,
        "tokenizer.chat_template": "{{ bos_token }}hello",
        f"{KEY}add_bos_token": True,
    }
    of_file = read(io.gguf(write_gguf(tmp_path / "model.gguf", metadata)).metadata)
    assert of_file == read(metadata)
    assert of_file.block == {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "add_bos": True}
    assert of_file.files.chat_template == "{{ bos_token }}hello"
    assert of_file.size == ends + 1 and of_file.eos_ids == [ends]
    ours = loaded(of_file)
    assert ours.encode_ids("They") == [ends - 1, *plain_ids(ours, "They")]
    [again] = ours.render_chat([{"role": "user", "content": "x"}])[:1]
    assert again == ends - 1


def test_a_tokenizer_is_made_once_and_kept_by_its_content(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(small_pieces())
    template = read({**small_pieces(), "tokenizer.chat_template": "another"})
    assert template.files.tokenizer_json == first.files.tokenizer_json
    monkeypatch.setattr("lolama_hub.gguf.listed_tokenizer.json", None)  # nothing can be made
    assert read(small_pieces()).files == first.files
    monkeypatch.undo()
    other = small_pieces(scores=[0.0] * 33)
    assert read(other).files.tokenizer_json != first.files.tokenizer_json
    # It lists the same, but its control tokens take spaces with them.
    phi3 = read({**small_pieces(), "general.architecture": "phi3"})
    assert phi3.files.tokenizer_json != first.files.tokenizer_json


def test_no_tokenizer_is_a_model_for_ids(read: Read) -> None:
    assert read({"general.architecture": "llama"}, 77) == GGUFTokenizer(
        files=TokenizerFiles(),
        block={"bos_token": None, "eos_token": None, "add_bos": False},
        size=77,
        eos_ids=[],
    )


def test_control_tokens_of_phi3_take_the_spaces_behind_them(read: Read) -> None:
    pieces = small_pieces()
    pieces[f"{KEY}tokens"] += ["<|user|>", "<|end|>"]
    pieces[f"{KEY}token_type"] += [CONTROL, CONTROL]
    pieces[f"{KEY}scores"] += [0.0, 0.0]
    for architecture, taken in (("llama", False), ("phi3", True)):
        ours = loaded(read({**pieces, "general.architecture": architecture}))
        ids = ours.encode_ids("<|user|>\nthe<|end|>  the", add_special_tokens=False)
        assert (ids == [33, 32, 34, 32]) is taken


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("bert", "WordPiece"),
        ("rwkv", "RWKV"),
        ("t5", "Unigram"),
        ("none", "no tokenizer"),
        ("no_vocab", "no tokenizer"),
        ("plamo2", "'plamo2'"),
        (7, "7"),
    ],
)
def test_row_445_a_kind_of_tokenizer_that_is_not_supported(
    kind: object, why: str, read: Read
) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        read(small_pieces(model=kind))
    assert "use the model's safetensors version" in str(caught.value)


@pytest.mark.parametrize(
    ("pre", "why"),
    [
        ("kimi-k2", "tokenizer.ggml.pre 'kimi-k2', which is not supported"),
        ("\x1b[31m", "x1b"),
        (3, "tokenizer.ggml.pre 3"),
        (None, r"does not say how its tokenizer cuts texts into words \(tokenizer.ggml.pre\)"),
    ],
)
def test_row_445_a_way_to_cut_texts_that_is_not_known_or_not_said(
    pre: object, why: str, read: Read
) -> None:
    metadata = small_bytes()
    metadata[f"{KEY}pre"] = pre
    if pre is None:
        del metadata[f"{KEY}pre"]
    with pytest.raises(ModelError, match=why):
        read(metadata)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tokens": []}, "tokens"),
        ({"tokens": "the"}, "tokens is 'the', expected a list of str"),
        ({"tokens": ["a", 3]}, "expected a list of str"),
        ({"tokens": ["the"] * 33}, "tokens has 'the' twice, at 0 and 32"),
        ({"tokens": ["\ud800", *map(str, range(32))]}, "which can be no token"),
        ({"tokens": ["x" * 70_000, *map(str, range(32))]}, "which can be no token"),
        ({"tokens": ["x" * 60_000 + str(n) for n in range(300)]}, "more than 16777216 characters"),
        ({"tokens": ["x" * 1_001, *map(str, range(32))], "token_type": [1] * 33}, "the piece"),
        ({"token_type": [1, 2]}, "token_type has 2 entries, but there are 33 tokens"),
        ({"token_type": [1.5] * 33}, "token_type is a list, expected a list of int"),
        ({"token_type": [True] * 33}, "token_type is a list, expected a list of int"),
        ({"token_type": [2, 9, *[1] * 31]}, "token_type has 9 at 1, expected 1 to 6"),
        ({"token_type": [1] * 33}, "neither a token for what is unknown nor tokens of bytes"),
        ({"token_type": ...}, "the field tokenizer.ggml.token_type is missing"),
        ({"scores": ...}, "the field tokenizer.ggml.scores is missing"),
        ({"scores": [0.0] * 32}, "scores has 32 entries, but there are 33 tokens"),
        ({"scores": 3.0}, "scores is 3.0, expected a list of numbers"),
        ({"scores": [float("nan")] * 33}, "scores has nan at 0"),
        ({"scores": ["best"] * 33}, "scores has 'best' at 0"),
        ({"add_space_prefix": "yes"}, "add_space_prefix is 'yes', expected true or false"),
        ({"unknown_token_id": 33}, "unknown_token_id is 33"),
    ],
)
def test_row_446_lists_that_do_not_fit_each_other(
    changes: dict[str, object], why: str, read: Read
) -> None:
    metadata = small_pieces(**changes)
    with pytest.raises(ModelError, match=why):
        read({key: value for key, value in metadata.items() if value is not ...})


def test_row_446_chat_templates_that_are_no_text(read: Read) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.chat_template is 3, expected text"):
        read({**small_pieces(), "tokenizer.chat_template": 3})


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id"])
@pytest.mark.parametrize("number", [33, -1, 2**32 - 1, True, "2", 1.0])
def test_row_447_bos_and_ends_that_are_no_tokens(name: str, number: object, read: Read) -> None:
    with pytest.raises(ModelError, match=rf"tokenizer\.ggml\.{name} is .*id of no token"):
        read(small_pieces(**{name: number}))


def test_row_447_texts_that_are_to_begin_with_a_bos_that_there_is_not(read: Read) -> None:
    metadata = small_bytes("<|end|>", add_bos_token=True)
    with pytest.raises(ModelError, match=r"add_bos_token is true, but there is no ggml\.bos"):
        read(metadata)
    with pytest.raises(ModelError, match=r"add_bos_token is 1, expected true or false"):
        read(small_bytes("<|end|>", add_bos_token=1))


def test_row_447_a_padding_id_of_no_token_is_left_out(read: Read) -> None:
    block = read(small_pieces(padding_token_id=2**32 - 1, seperator_token_id=2)).block
    assert block["special_tokens"] == {"sep_token": "</s>"}


@pytest.mark.parametrize("merge", ["T q", "T", " ", "", "T  h", "q q"])
def test_row_448_merges_that_make_no_token_of_two(merge: str, read: Read) -> None:
    metadata = small_bytes()
    metadata[f"{KEY}merges"][3] = merge
    with pytest.raises(ModelError, match=r"merges has at 3 .*does not make a token of two"):
        read(metadata)


@pytest.mark.parametrize("merges", [..., [], "T h", [3]])
def test_row_448_merges_that_are_missing_or_no_list(merges: object, read: Read) -> None:
    metadata = small_bytes() | {f"{KEY}merges": merges}
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.merges.*a list"):
        read({key: value for key, value in metadata.items() if value is not ...})


def test_row_449_typed_control_tokens_stay_text(read: Read) -> None:
    pieces = small_pieces(eot_token_id=5)  # a letter
    ours = loaded(read(pieces))
    assert ours.eos_ids == {2, 5}
    assert not {1, 2} & {*plain_ids(ours, "</s><s>")}
    assert ours.encode_ids("</s>the", add_special_tokens=False) == [2, 32]
    # An older converter calls it a piece like any other, which "the" is made of then.
    piece = loaded(read(small_pieces(eos_token_id=32)))
    assert 32 not in plain_ids(piece, "the") and piece.eos_ids == {32}
    assert piece.encode_ids("▁the", add_special_tokens=False) == [32]
    for pre in ("gpt-2", "llama-bpe"):  # the latter takes a word that is a token for that token
        metadata = small_bytes("<|eot_id|>", "[INST]", "stop", pre=pre)
        bytes_ = loaded(read(metadata))
        last = len(metadata[f"{KEY}tokens"]) - 1
        assert bytes_.eos_ids == {last - 2}
        assert not {last - 2, last - 1} & {*plain_ids(bytes_, "<|eot_id|>[INST]")}


def test_row_450_a_tokenizer_larger_than_the_models_vocabulary(read: Read) -> None:
    assert read(small_pieces(), 33).size == 33
    with pytest.raises(
        ModelError, match="a tokenizer of 33 ids, but the model's vocabulary has 32"
    ):
        read(small_pieces(), 32)


def test_row_451_padding_behind_the_tokens_is_no_part_of_the_tokenizer(read: Read) -> None:
    pieces = small_pieces()
    before = loaded(read(pieces))
    pieces[f"{KEY}tokens"] += ["[PAD33]", "[PAD34]", "", ""]
    pieces[f"{KEY}token_type"] += [USER_DEFINED, UNKNOWN, NORMAL, UNUSED]
    pieces[f"{KEY}scores"] += [0.0] * 4
    found = read(pieces)
    assert found.size == 33
    assert plain_ids(loaded(found), "[PAD33]") == plain_ids(before, "[PAD33]")
    pieces[f"{KEY}tokens"].append("<|last|>")
    pieces[f"{KEY}token_type"].append(CONTROL)
    pieces[f"{KEY}scores"].append(0.0)
    found = read(pieces)
    assert found.size == 38
    assert loaded(found).encode_ids("<|last|>", add_special_tokens=False) == [37]


def test_row_452_unused_pieces_and_bytes_come_of_no_text(read: Read) -> None:
    pieces = small_pieces()
    pieces[f"{KEY}token_type"][-1] = UNUSED
    pieces[f"{KEY}tokens"][-2] = "the"
    pieces[f"{KEY}tokens"] += [f"<0x{byte:02X}>" for byte in range(256)]
    pieces[f"{KEY}token_type"] += [BYTE] * 256
    pieces[f"{KEY}scores"] += [0.0] * 256
    ours = loaded(read(pieces))
    assert 32 not in plain_ids(ours, "the")
    assert ours.decode(plain_ids(ours, "é <0x41>")) == "é <0x41>"
    assert 33 + 0x41 not in plain_ids(ours, "<0x41>")


def test_row_453_a_tokenizer_json_inside_the_file(read: Read) -> None:
    vocabulary = {"<unk>": 0, "a": 1, "b": 2, "</s>": 3, "ab": 4}
    whole = tiny.with_pieces(vocabulary, [("a", "b")], specials=["<unk>"])
    metadata = {
        **small_pieces(eos_token_id=3, bos_token_id=0),
        "tokenizer.huggingface.json": whole,
    }
    found = read(metadata)
    assert found.size == 5 and found.eos_ids == [3]
    assert found.files.tokenizer_json is not None
    assert found.files.tokenizer_json.read_text(encoding="utf-8") == whole
    assert [one["content"] for one in found.block["added_tokens"]] == ["</s>"]
    ours = loaded(found)
    assert 3 not in plain_ids(ours, "</s>") and ours.eos_ids == {3}
    for text, why in (
        ("{", r"model\.gguf/tokenizer\.huggingface\.json: is not valid JSON"),
        ("[]", "is no JSON object"),
        ("{}", "has no vocabulary"),
        ("[" * 100_000, "is nested too deeply|is not valid JSON"),
        (whole.replace('"id": 0', '"id": 9').replace('"id":0', '"id":9'), "is not its place"),
        (7, "expected the text of a tokenizer.json"),
    ):
        with pytest.raises(ModelError, match=why):
            read({**metadata, "tokenizer.huggingface.json": text})
    with pytest.raises(ModelError, match="bos_token_id is 7"):
        read({**metadata, f"{KEY}bos_token_id": 7})


def test_row_454_a_store_that_cannot_be_written_to(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lolama_hub.gguf.kept_tokenizer.write_whole", full)
    with pytest.raises(ResourceError, match="No space left on device; free some space"):
        read(small_pieces())


ODD: list[Any] = [
    *(None, True, -1, 0, 2**64, 1.5, float("nan"), "", "x", "\0", "\ud800", "9" * 5000),
    *([], [1], ["x"], [None], [[]], {}, ["", ""], ["a b", "b a"], [3] * 33, [1e300] * 33),
]


def test_row_455_metadata_that_is_changed_at_random(read: Read) -> None:
    rng = random.Random(7)
    refusals = list[str]()
    for _ in range(400):
        metadata = rng.choice((small_pieces(), small_bytes())) | {
            f"{KEY}unknown_token_id": 0,
            f"{KEY}bos_token_id": 1,
            f"{KEY}eot_token_id": 2,
            f"{KEY}add_bos_token": True,
            f"{KEY}add_space_prefix": True,
        }
        key = rng.choice([one for one in metadata if one.startswith(KEY)])
        value = metadata[key]
        if isinstance(value, list) and rng.random() < 0.7:
            value = list(value)
            for _ in range(rng.randrange(1, 4)):
                place = rng.randrange(len(value))
                value[place] = rng.choice([*ODD, rng.choice(value), value[place]])
            metadata[key] = value[: rng.choice([len(value), len(value) // 2, 1])]
        else:
            metadata[key] = rng.choice(ODD)
        try:
            ours = loaded(read(metadata))
        except ModelError as error:
            refusals.append(str(error))
        else:
            assert all(0 <= number < ours.vocab_size for number in plain_ids(ours, STORY))
    assert 40 < len(refusals) < 360
    assert all("\n" not in line and len(line) < 400 for line in refusals)
