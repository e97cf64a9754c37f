"""Tokenizers as metadata of GGUF: read again, they give the same ids; what GGUF cannot tell is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from tiny_folders import save, tiny_model, write_json
from tiny_sentencepiece import texts, trainer

from lolama_core import load_tokenizer
from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.checkpoint import GGUFValue
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import CanonicalConfig, ModelFiles, TokenizerFiles
from lolama_core.testing import tiny
from lolama_hub.gguf.export_tokenizer import tokenizer_metadata
from lolama_hub.gguf.pre_tokenizers import PRE_TOKENIZERS
from lolama_hub.gguf.token_list import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from lolama_hub.gguf.tokenizer import read_gguf_tokenizer
from lolama_hub.store.place import Store

VOCAB = 400
Metadata = Mapping[str, GGUFValue]
Make = Callable[..., ModelFiles]
Resolve = Callable[[Path], ModelFiles]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Files with a tokenizer.json of this text."""

    def make_files(text: str, *, eos_ids: Sequence[int] = (), **block: object) -> ModelFiles:
        path = tmp_path / "tokenizer.json"
        path.write_text(text, encoding="utf-8")
        config = {"generation": {"eos_ids": list(eos_ids)}, "tokenizer": block}
        return ModelFiles(
            name="tiny",
            config=cast(CanonicalConfig, config),
            tensors={},
            tokenizer=TokenizerFiles(tokenizer_json=path),
        )

    return make_files


def metadata_of(files: ModelFiles, vocab_size: int = VOCAB) -> Metadata:
    found, left_out = tokenizer_metadata(files, vocab_size, FileCheckpointIO())
    assert left_out == []
    return found


def read_again(metadata: Metadata, folder: Path) -> ModelFiles:
    found = read_gguf_tokenizer(folder, metadata, VOCAB, store=Store(folder), label="tiny")
    config = {"generation": {"eos_ids": found.eos_ids}, "tokenizer": found.block}
    return ModelFiles(
        name="read", config=cast(CanonicalConfig, config), tensors={}, tokenizer=found.files
    )


def with_bytes(*more: str, merges: Sequence[tuple[str, str]] = (), **settings: Any) -> str:
    letters = [*tiny.byte_characters(), *("".join(pair) for pair in merges), *more]
    return tiny.byte_level({one: n for n, one in enumerate(letters)}, merges, **settings)


MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "th")]


def test_bytes(make: Make, tmp_path: Path) -> None:
    text = with_bytes(merges=MERGES, specials=["<s>", "</s>", "<pad>"], added=["<tool>"], bos="<s>")
    files = make(
        text,
        eos_ids=[261, 262],
        bos_token="<s>",
        eos_token="</s>",
        special_tokens={"pad_token": "<pad>"},
    )
    found = metadata_of(files)
    tokens, kinds = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list) and isinstance(kinds, list) and len(tokens) == VOCAB
    assert (tokens[259], tokens[260], tokens[264], tokens[-1]) == (
        "Ġth",
        "<s>",
        "[PAD264]",
        "[PAD399]",
    )
    assert kinds == [NORMAL] * 260 + [CONTROL] * 3 + [USER_DEFINED] + [UNUSED] * 136
    assert found["tokenizer.ggml.merges"] == ["t h", "th e", "Ġ the", "Ġ th"]
    assert {key: one for key, one in found.items() if not isinstance(one, list)} == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 260,
        "tokenizer.ggml.eos_token_id": 261,
        "tokenizer.ggml.eot_token_id": 262,
        "tokenizer.ggml.padding_token_id": 262,
    }
    ours, read = load_tokenizer(files), load_tokenizer(read_again(found, tmp_path))
    for one in [*texts(100), "a <tool> the</s> <s>x"]:
        assert ours.encode_ids(one) == read.encode_ids(one), one
    assert (read.eos_ids, read.block["add_bos"]) == (ours.eos_ids, True)


def pre_tokenized(patterns: Sequence[str], **model: object) -> str:
    values = json.loads(with_bytes(merges=MERGES))
    splits = [
        {"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False}
        for one in patterns
    ]
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    values["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [*splits, {**last, "use_regex": False}],
    }
    values["model"] |= model
    return json.dumps(values)


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_way_to_cut_words_has_its_name(name: str, make: Make) -> None:
    one = PRE_TOKENIZERS[name]
    values = json.loads(pre_tokenized(one.patterns, ignore_merges=one.whole_words))
    values["normalizer"] = {"type": "NFC"} if one.composed else None
    written = metadata_of(make(json.dumps(values)))["tokenizer.ggml.pre"]
    assert isinstance(written, str)
    assert replace(PRE_TOKENIZERS[written], adds_bos=one.adds_bos) == one


def test_published_spellings(make: Make) -> None:
    """Digits as a step of their own, GPT-2's words by ByteLevel itself, and tiktoken's way to split."""
    values = json.loads(with_bytes(merges=MERGES))
    digits = {"type": "Digits", "individual_digits": True}
    values["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [digits, values["pre_tokenizer"]],
    }
    assert metadata_of(make(json.dumps(values)))["tokenizer.ggml.pre"] == "starcoder"
    values = json.loads(pre_tokenized(PRE_TOKENIZERS["gpt-4o"].patterns))
    values["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    values["normalizer"] = {"type": "Sequence", "normalizers": []}
    assert metadata_of(make(json.dumps(values)))["tokenizer.ggml.pre"] == "gpt-4o"
    values["model"]["merges"] = [" ".join(pair) for pair in values["model"]["merges"]]
    assert metadata_of(make(json.dumps(values)))["tokenizer.ggml.merges"] == [
        " ".join(pair) for pair in MERGES
    ]


def pieces(**changes: Any) -> dict[str, Any]:
    """A small tokenizer of pieces, as JSON."""
    controls = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [*"▁abcdefghijklmnopqrstuvwxyz", "th", "the", "▁the"]
    text = tiny.with_pieces(
        {piece: number for number, piece in enumerate((*controls, *words))},
        [("t", "h"), ("th", "e"), ("▁", "the")],
        specials=("<unk>", "<s>", "</s>"),
        bos="<s>",
        byte_fallback=True,
    )
    values: dict[str, Any] = json.loads(text)
    return values | changes


GEMMA = {
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "pre_tokenizer": {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    },
}
METASPACE = {
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": False,
    },
}


@pytest.mark.parametrize(
    ("changes", "prefix"),
    [({}, True), (GEMMA, False), (METASPACE, True)],
    ids=["llama-2", "gemma", "metaspace"],
)
def test_pieces(changes: dict[str, Any], prefix: bool, make: Make, tmp_path: Path) -> None:
    files = make(json.dumps(pieces(**changes)), bos_token="<s>", eos_token="</s>")
    found = metadata_of(files)
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * 30, *[UNUSED] * 111]
    assert found["tokenizer.ggml.token_type"] == kinds
    scores = found["tokenizer.ggml.scores"]
    assert isinstance(scores, list) and scores[286:289] == [0.0, -1.0, -2.0]
    assert found["tokenizer.ggml.model"] == "llama"
    assert found["tokenizer.ggml.add_space_prefix"] is prefix
    ours, read = load_tokenizer(files), load_tokenizer(read_again(found, tmp_path))
    for one in [*texts(100), "the the  </s>théx"]:
        if "Metaspace" in str(changes) and (one.startswith((" ", "▁")) or "<" in one):
            continue  # SentencePiece puts a space also in front of one
        assert ours.encode_ids(one) == read.encode_ids(one), one


def test_a_model_of_sentencepiece(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, resolve: Resolve
) -> None:
    """From the library's own file, over tokenizer.json, to scores, and back."""
    pytest.importorskip("sentencepiece")
    make_model = trainer(tmp_path_factory.mktemp("sentencepiece"))
    folder = save(tiny_model("llama", vocab_size=VOCAB), tmp_path / "folder")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(make_model(vocab_size=380).read_bytes())
    files = resolve(folder)
    ours = load_tokenizer(files)
    read = load_tokenizer(read_again(metadata_of(files), tmp_path))
    for one in texts(300):
        assert ours.encode_ids(one) == read.encode_ids(one), one


def test_tokens_of_other_files(tmp_path: Path, resolve: Resolve) -> None:
    """A token that only tokenizer_config.json has, and ends that generation_config.json lists."""
    folder = save(tiny_model("llama", vocab_size=VOCAB), tmp_path / "folder")
    (folder / "tokenizer.json").write_text(with_bytes(merges=MERGES, specials=["<s>", "</s>"]))
    write_json(
        folder / "tokenizer_config.json",
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "add_bos_token": True},
    )
    write_json(folder / "generation_config.json", {"eos_token_id": [261, 5, 6, 7]})
    files = resolve(folder)
    found, left_out = tokenizer_metadata(files, VOCAB, FileCheckpointIO())
    tokens = found["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list) and tokens[262] == "<pad>"
    assert found["tokenizer.ggml.add_bos_token"] is True
    named = [found[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")]
    assert named == [261, 5, 6]
    assert left_out == ["the end token 'ć'"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}},
            "'Unigram' is not BPE",
        ),
        ({"normalizer": {"type": "NFKC"}}, "the normalizer 'NFKC'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "the pre_tokenizer 'Whitespace'"),
    ],
)
def test_what_gguf_cannot_tell(values: dict[str, Any], words: str, make: Make) -> None:
    with pytest.raises(ModelError, match=f"GGUF has no place for: .*{words}"):
        metadata_of(make(json.dumps(pieces(**values))))


def test_words_that_have_no_name(make: Make) -> None:
    with pytest.raises(ModelError, match="words are cut by 'x then y'"):
        metadata_of(make(pre_tokenized(["x", "y"])))
    values = json.loads(with_bytes(merges=MERGES))
    values["normalizer"] = {"type": "Lowercase"}
    with pytest.raises(ModelError, match="the normalizer 'Lowercase'"):
        metadata_of(make(json.dumps(values)))
    values["normalizer"], values["pre_tokenizer"]["add_prefix_space"] = None, True
    with pytest.raises(ModelError, match="the pre_tokenizer 'ByteLevel'"):
        metadata_of(make(json.dumps(values)))
    with pytest.raises(ModelError, match=r"ggml\.merges is a list, expected a list of pairs"):
        metadata_of(make(with_bytes()))


def test_merges_that_no_score_tells(make: Make) -> None:
    values = pieces()
    values["model"]["merges"] = [["t", "h"], ["th", "e"]]
    with pytest.raises(ModelError, match="no score tells of what '▁the' is merged"):
        metadata_of(make(json.dumps(values)))
    values["model"]["vocab"] |= {"he": 290}
    values["model"]["merges"] = [["t", "h"], ["th", "e"], ["h", "e"], ["t", "he"], ["▁", "the"]]
    with pytest.raises(ModelError, match="no score tells when 'the' is merged"):
        metadata_of(make(json.dumps(values)))
    values["model"]["byte_fallback"] = False
    with pytest.raises(ModelError, match="has no tokens of bytes"):
        metadata_of(make(json.dumps(values)))
