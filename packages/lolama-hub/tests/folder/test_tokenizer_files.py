from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import edit_json, tiny_tokenizer_json, write_json

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles
from lolama_core.text.tokenizer_loading import load_tokenizer

Resolve = Callable[[Path], ModelFiles]


def refused(folder: Path, resolve: Resolve) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(folder)
    assert str(caught.value).isprintable()
    return str(caught.value)


def block(folder: Path, resolve: Resolve, **config: object) -> dict[str, Any]:
    write_json(folder / "tokenizer_config.json", config)
    return dict(resolve(folder).config["tokenizer"])


def test_tokenizer_json_is_used_as_it_is(llama: Path, resolve: Resolve) -> None:
    files = resolve(llama)
    assert files.tokenizer.tokenizer_json == llama / "tokenizer.json"
    assert files.config["generation"]["vocab_size"] == 33
    (llama / "tokenizer_config.json").unlink()
    assert resolve(llama).config["tokenizer"] == {
        "bos_token": None,
        "eos_token": None,
        "add_bos": False,
    }


def test_control_tokens_in_all_their_spellings(llama: Path, resolve: Resolve) -> None:
    spelled = {"content": "<s>", "lstrip": False, "special": True}
    for bos in ("<s>", spelled):
        assert block(llama, resolve, bos_token=bos)["bos_token"] == "<s>"
        write_json(llama / "special_tokens_map.json", {"bos_token": bos, "eos_token": "</s>"})
        assert block(llama, resolve)["bos_token"] == "<s>"
        assert block(llama, resolve)["eos_token"] == "</s>"
        # special_tokens_map.json has the last word, as in transformers,
        assert block(llama, resolve, bos_token=None)["bos_token"] == "<s>"
        assert block(llama, resolve, eos_token="the")["eos_token"] == "</s>"
        # but none beside added_tokens_decoder; and null is a value.
        alone = block(llama, resolve, bos_token=None, eos_token="the", added_tokens_decoder={})
        assert (alone["bos_token"], alone["eos_token"]) == (None, "the")
        (llama / "special_tokens_map.json").unlink()
    write_json(llama / "tokenizer_config.json", {"bos_token": 1})
    assert "bos_token is 1, expected text" in refused(llama, resolve)


@pytest.mark.parametrize(
    ("config", "add_bos"),
    [
        ({"add_bos_token": True}, True),
        ({"add_bos_token": False, "tokenizer_class": "LlamaTokenizer"}, False),
        ({"tokenizer_class": "LlamaTokenizer"}, True),
        ({"tokenizer_class": "LlamaTokenizerFast"}, True),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": None}, True),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        ({"tokenizer_class": "Qwen2Tokenizer"}, False),
        ({"tokenizer_class": ["LlamaTokenizer"]}, False),
        ({}, False),
    ],
)
def test_who_adds_bos(config: dict[str, Any], add_bos: bool, llama: Path, resolve: Resolve) -> None:
    assert block(llama, resolve, bos_token="<s>", **config)["add_bos"] is add_bos


def test_a_bos_that_is_no_token(llama: Path, resolve: Resolve) -> None:
    write_json(llama / "tokenizer_config.json", {"add_bos_token": True, "bos_token": ""})
    assert "bos_token '' is not a token" in refused(llama, resolve)
    write_json(llama / "tokenizer_config.json", {"add_bos_token": True})
    assert "bos_token None is not a token" in refused(llama, resolve)
    write_json(llama / "tokenizer_config.json", {"add_bos_token": "yes", "bos_token": "<s>"})
    assert "add_bos_token is 'yes', expected true or false" in refused(llama, resolve)


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({}, None),
        ({"tokenizer_config.json": {"chat_template": "in config"}}, "in config"),
        ({"tokenizer_config.json": {"chat_template": None}}, None),
        (
            {"tokenizer_config.json": {"chat_template": [
                {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "usual"}]}},
            "usual",
        ),
        ({"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "rag"}]}}, None),
        ({"chat_template.json": {"chat_template": "beside"}}, "beside"),
        (
            {"chat_template.json": {"chat_template": "beside"},
             "tokenizer_config.json": {"chat_template": "in config"}},
            "in config",
        ),
        (
            {"chat_template.jinja": "of its own", "chat_template.json": {"chat_template": "beside"},
             "tokenizer_config.json": {"chat_template": "in config"}},
            "of its own",
        ),
    ],
)  # fmt: skip
def test_where_the_chat_template_is(
    files: dict[str, Any], template: str | None, llama: Path, resolve: Resolve
) -> None:
    for name, content in files.items():
        (llama / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert resolve(llama).tokenizer.chat_template == template


@pytest.mark.parametrize(
    "value",
    [
        1,
        {"default": "x"},
        [{"name": "default", "template": 2}],
        [{"name": "default"}],
        [{"template": "x"}],
        [{"name": ["default"], "template": "x"}],
        ["x"],
    ],
)
def test_a_chat_template_that_is_no_text(value: object, llama: Path, resolve: Resolve) -> None:
    edit_json(llama / "tokenizer_config.json", chat_template=value)
    assert "chat_template" in refused(llama, resolve)


@pytest.mark.parametrize("value", [True, "yes", 1, None])
def test_row_203_control_tokens_are_never_text_by_a_setting_of_the_file(
    value: object, llama: Path, resolve: Resolve
) -> None:
    """transformers would take even those of a chat template for text."""
    edit_json(llama / "tokenizer_config.json", split_special_tokens=value)
    assert f"split_special_tokens is {value!r}, expected" in refused(llama, resolve)
    edit_json(llama / "tokenizer_config.json", split_special_tokens=False)
    assert resolve(llama).config["tokenizer"]["bos_token"] == "<s>"


def test_row52_ids_past_the_vocabulary(llama: Path, resolve: Resolve) -> None:
    values = json.loads(tiny_tokenizer_json())
    values["model"]["vocab"]["zzz"] = 64
    write_json(llama / "tokenizer.json", values)
    assert "the token 'zzz' has the id 64, but the model's vocabulary has 64" in refused(
        llama, resolve
    )
    values["model"]["vocab"]["zzz"] = 63
    write_json(llama / "tokenizer.json", values)
    assert resolve(llama).config["generation"]["vocab_size"] == 64
    values["added_tokens"].append({"id": 70, "content": "<new>", "special": True})
    write_json(llama / "tokenizer.json", values)
    assert "the token '<new>' has the id 70" in refused(llama, resolve)


def test_row52_a_unigram_vocabulary_is_a_list(llama: Path, resolve: Resolve) -> None:
    (llama / "tokenizer_config.json").unlink()
    vocab = [[f"t{n}", -1.0] for n in range(65)]
    write_json(llama / "tokenizer.json", {"model": {"type": "Unigram", "vocab": vocab}})
    assert "the token 't64' has the id 64" in refused(llama, resolve)
    write_json(llama / "tokenizer.json", {"model": {"type": "Unigram", "vocab": vocab[:64]}})
    assert resolve(llama).config["generation"]["vocab_size"] == 64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tiny_tokenizer_json()[:500], "is not valid JSON"),
        ("{}", "no tokenizer.json"),
        ("[]", "no tokenizer.json"),
        ('{"model": {}}', "no tokenizer.json"),
        ('{"model": {"vocab": {}}}', "empty vocabulary"),
        ('{"model": {"vocab": {"a": -1}}}', "gives the token 'a' the id -1"),
        ('{"model": {"vocab": {"a": true}}}', "gives the token 'a' the id True"),
        ('{"model": {"vocab": {"a": 1.0}}}', "gives the token 'a' the id 1.0"),
        ('{"model": {"vocab": {"a": ' + "9" * 5000 + "}}}", "tokenizer.json"),
        ('{"model": {"vocab": {"a": ' + "9" * 50 + "}}}", "a huge integer"),
        ('{"model": {"vocab": [1]}}', "gives the token None"),
        ('{"model": {"vocab": {"a": 1}}, "added_tokens": 3}', "added_tokens is 3"),
        ('{"model": {"vocab": {"a": 1}}, "added_tokens": [3]}', "the added token 3"),
        ('{"model": {"vocab": {"a": 1}}, "added_tokens": [{}]}', "gives the token None"),
        ("[" * 100000, "tokenizer.json"),
        ("<!DOCTYPE html><html></html>", "HTML"),
        ("", "empty"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "tokenizer.json"),
    ],
    ids=range(18),
)
def test_row53_a_tokenizer_json_that_is_none(
    content: str, said: str, llama: Path, resolve: Resolve
) -> None:
    (llama / "tokenizer.json").write_text(content, encoding="utf-8")
    message = refused(llama, resolve)
    assert "tokenizer.json" in message
    assert said in message


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "chat_template.json"]
)
def test_row53_its_companions(name: str, llama: Path, resolve: Resolve) -> None:
    for content in ("{", "[]", "<html>", ""):
        (llama / name).write_text(content)
        assert name in refused(llama, resolve)


def test_row_128_no_tokenizer_at_all(llama: Path, resolve: Resolve) -> None:
    """Row 128: the model is given ids."""
    (llama / "tokenizer.json").unlink()
    files = resolve(llama)
    assert files.tokenizer.tokenizer_json is None
    assert files.config["generation"]["vocab_size"] == files.config["model"]["vocab_size"]
    with pytest.raises(
        ModelError, match=r"has no tokenizer: neither tokenizer\.json nor tokenizer\.m"
    ):
        load_tokenizer(files)
