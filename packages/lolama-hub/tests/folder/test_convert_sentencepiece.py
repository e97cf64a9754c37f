from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import edit_json, write_json
from tiny_sentencepiece import texts, trainer
from tokenizers import Tokenizer

from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import ModelError, NotAvailableError
from lolama_core.protocols.types import ModelFiles
from lolama_hub.folder.convert_sentencepiece import convert
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.files import Folder
from lolama_hub.store.place import Store

sentencepiece = pytest.importorskip("sentencepiece")

Resolve = Callable[[Path], ModelFiles]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train a small sentencepiece model on made-up text."""
    return trainer(tmp_path_factory.mktemp("sentencepiece"))


def converted(model: Path, tmp_path: Path, io: CheckpointIO, **config: Any) -> Tokenizer:
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    shutil.copy(model, folder / "tokenizer.model")
    fields = Fields(folder / "tokenizer_config.json", config)
    opened = Folder(folder, io, Store(tmp_path / "store"))
    return Tokenizer.from_file(str(convert(opened, fields)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": False, "vocab_size": 120},
        {"add_dummy_prefix": False},
        {"split_digits": True, "user_defined_symbols": []},
        {"control_symbols": ["[INST]", "[/INST]"]},
        {"bos_id": 5, "eos_id": 6, "unk_id": 7},
    ],
    ids=lambda options: "-".join(options) or "llama",
)
def test_ids_are_those_of_sentencepiece(
    options: dict[str, Any], train: Callable[..., Path], tmp_path: Path, io: CheckpointIO
) -> None:
    model = train(**options)
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ours = converted(model, tmp_path, io)
    ours.encode_special_tokens = True  # typed control tokens are text, as they are to sentencepiece
    for text in texts(1500):
        ids = oracle.encode(text)
        assert ours.encode(text, add_special_tokens=False).ids == ids, text
        if oracle.unk_id() not in ids:
            assert ours.decode(ids, skip_special_tokens=False) == oracle.decode(ids), text


def test_normalization_is_kept(
    train: Callable[..., Path], tmp_path: Path, io: CheckpointIO
) -> None:
    model = train(normalization_rule_name="nmt_nfkc")
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ours = converted(model, tmp_path, io)
    for text in ("ﬁ Ⅳ １２", "full\u3000width", "tab\there", "café"):
        assert ours.encode(text, add_special_tokens=False).ids == oracle.encode(text)


def test_spaces_are_kept_where_sentencepiece_would_merge_them(
    train: Callable[..., Path], tmp_path: Path, io: CheckpointIO
) -> None:
    model = train(remove_extra_whitespaces=True)
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ours = converted(model, tmp_path, io)
    ours.encode_special_tokens = True
    for text in texts(500, runs_of_spaces=False):
        assert ours.encode(text, add_special_tokens=False).ids == oracle.encode(text), text
    assert ours.decode(ours.encode("  two  dogs ").ids) == "  two  dogs "


def test_the_published_tokenizer_json_of_a_real_model(
    stories: Path, tmp_path: Path, io: CheckpointIO
) -> None:
    ours = converted(stories / "tokenizer.model", tmp_path, io)
    published = Tokenizer.from_file(str(stories / "tokenizer.json"))
    published.post_processor = None  # adding BOS is settled by the configuration
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(stories / "tokenizer.model"))
    for text in texts(3000):
        assert ours.encode(text).ids == published.encode(text).ids, text
    ours.encode_special_tokens = True
    for text in texts(1000, runs_of_spaces=False):
        assert ours.encode(text).ids == oracle.encode(text), text


def test_a_folder_without_tokenizer_json(
    llama: Path, train: Callable[..., Path], resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    (llama / "tokenizer.json").unlink()
    (llama / "tokenizer_config.json").unlink()
    model = train(byte_fallback=False, vocab_size=60)
    shutil.copy(model, llama / "tokenizer.model")
    files = resolve(llama)
    assert files.config["tokenizer"] == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_bos": True,
        "special_tokens": {"unk_token": "<unk>"},
    }
    known = sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()
    assert files.config["generation"]["vocab_size"] == known
    # Once only: the second time nothing is converted.
    monkeypatch.setattr("lolama_hub.folder.convert_sentencepiece._build", None)
    assert resolve(llama) == files
    edit_json(llama / "tokenizer_config.json", add_bos_token=False, eos_token="the")
    assert resolve(llama).config["tokenizer"]["add_bos"] is False


def test_without_legacy_nothing_is_put_before_text_after_a_control_token(
    train: Callable[..., Path], tmp_path: Path, io: CheckpointIO
) -> None:
    model = train()
    legacy, modern = (converted(model, tmp_path, io, legacy=flag) for flag in (True, False))
    assert legacy.encode("two</s>two").tokens.count("▁two") == 2
    assert modern.encode("two</s>two").tokens.count("▁two") == 1
    assert legacy.encode("two dogs").ids == modern.encode("two dogs").ids
    bare = converted(model, tmp_path, io, add_prefix_space=False)
    assert bare.encode("two").tokens[0] != "▁two"


def test_added_tokens(llama: Path, train: Callable[..., Path], resolve: Resolve) -> None:
    (llama / "tokenizer.json").unlink()
    model = train(byte_fallback=False, vocab_size=50)
    size = sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()
    shutil.copy(model, llama / "tokenizer.model")
    write_json(llama / "added_tokens.json", {"<pad>": size})
    edit_json(
        llama / "tokenizer_config.json",
        added_tokens_decoder={
            "2": {"content": "</s>", "special": True},
            str(size + 1): {"content": "<|user|>", "special": True},
            str(size + 2): {"content": "plain", "special": False},
        },
    )
    files = resolve(llama)
    tokenizer = Tokenizer.from_file(str(files.tokenizer.tokenizer_json))
    assert files.config["generation"]["vocab_size"] == size + 3
    assert [tokenizer.token_to_id(t) for t in ("</s>", "<pad>", "<|user|>", "plain")] == [
        2, size, size + 1, size + 2,
    ]  # fmt: skip
    special = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
    assert special == {"<unk>", "<s>", "</s>", "<pad>", "<|user|>"}
    for number in (size + 1, 0, -1, 10**30):
        write_json(llama / "added_tokens.json", {"<pad>": number})
        edit_json(llama / "tokenizer_config.json", added_tokens_decoder={})
        with pytest.raises(ModelError, match=f"'<pad>' has the id .*expected {size}"):
            resolve(llama)


def test_row56_typed_control_tokens_can_stay_text(
    train: Callable[..., Path], tmp_path: Path, io: CheckpointIO
) -> None:
    """No merge leads from characters to a control token, even where its parts are pieces."""
    tokenizer = converted(train(), tmp_path, io)
    tokenizer.encode_special_tokens = True
    control = {0, 1, 2}
    for text in ("</s>", "<s>", "<unk>", "a</s>b", "<<s>s>", "▁</s>"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert not control & set(ids), text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model_type": "unigram", "vocab_size": 300}, "is not a BPE model"),
        ({"user_defined_symbols": ["<|x|>"]}, "has a user-defined or unused piece ('<|x|>')"),
        ({"treat_whitespace_as_suffix": True}, "treats spaces in a way"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    options: dict[str, Any], said: str, train: Callable[..., Path], tmp_path: Path, io: CheckpointIO
) -> None:
    with pytest.raises(ModelError) as caught:
        converted(train(**options), tmp_path, io)
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x00" * 99, b"\xff" * 9999, b"PK\x03\x04"])
def test_row53_a_tokenizer_model_that_is_none(
    content: bytes, tmp_path: Path, io: CheckpointIO
) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.model: "):
        converted(tmp_path / "x", tmp_path, io)
    assert not list((tmp_path / "store" / "tokenizers").iterdir())


def test_row53_mutated_tokenizer_models(
    train: Callable[..., Path], tmp_path: Path, io: CheckpointIO, capfd: pytest.CaptureFixture[str]
) -> None:
    original = train(normalization_rule_name="nmt_nfkc", vocab_size=300).read_bytes()
    rng = random.Random(5)
    refused = 0
    for _ in range(150):
        content = bytearray(original)
        for _ in range(rng.randrange(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "x").write_bytes(content[: rng.choice([None, rng.randrange(len(content))])])
        try:
            tokenizer = converted(tmp_path / "x", tmp_path, io)
            tokenizer.get_vocab()
        except ModelError:
            refused += 1
    assert refused > 10
    assert "panicked" not in capfd.readouterr().err


def test_without_the_package_it_says_what_to_install(
    train: Callable[..., Path], io: CheckpointIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    with pytest.raises(NotAvailableError, match=r"pip install 'lolama-hub\[sentencepiece\]'"):
        converted(train(), tmp_path, io)


def test_transformers_is_not_needed(train: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(train(), folder / "tokenizer.model")
    program = (
        "import sys; from pathlib import Path\n"
        "sys.modules['transformers'] = sys.modules['torch'] = None\n"
        "from lolama_hub.folder.fields import Fields; from lolama_hub.folder.files import Folder\n"
        "from lolama_hub.folder.convert_sentencepiece import convert\n"
        "from lolama_hub.store.place import Store\n"
        "from lolama_core.files.checkpoint_io import FileCheckpointIO\n"
        "root = Path(sys.argv[1])\n"
        "folder = Folder(root, FileCheckpointIO(), Store(root / 'store'))\n"
        "print(convert(folder, Fields(root / 'x', {})))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, timeout=60)
