from __future__ import annotations

from pathlib import Path

import pytest

from lolama_core.protocols.errors import UsageError
from lolama_hub import registry
from lolama_hub.source import HubModel, parse_name


@pytest.fixture
def aliases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a user's own aliases."""
    path = tmp_path / "aliases.toml"
    monkeypatch.setattr(registry, "aliases_file", lambda: path)
    return path


def test_aliases_of_ones_own_come_after_the_others(aliases: Path) -> None:
    assert registry.models() == registry.MODELS
    aliases.write_text('[mine]\nrepo = "owner/name@v1"\nsize = 7\n[other-1]\nrepo = "a/b"\n')
    assert [model.alias for model in registry.models()[6:]] == ["mine", "other-1"]
    found = registry.find("mine")
    assert found is not None
    assert (found.kind, found.size, found.gated) == ("text", 7, False)
    assert parse_name("mine") == HubModel("owner/name", "v1")
    assert registry.suggest("mien") == "did you mean mine?"


def test_row_106_a_byte_order_mark_is_no_part_of_the_aliases(aliases: Path) -> None:
    aliases.write_text('\ufeff[mine]\nrepo = "owner/name"\n', encoding="utf-8")
    assert registry.models()[6].alias == "mine"
    aliases.write_text('[mine]\nrepo = "owner/name"\n', encoding="utf-16")
    with pytest.raises(UsageError, match=r"not UTF-8: .* says UTF-16"):
        registry.models()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[mine", "not valid TOML"),
        ("mine = 5", "no table"),
        ("[mine]", "mine.repo"),
        ('[mine]\nrepo = "../x"', "mine.repo"),
        ('[mine]\nrepo = "a/b"\nsize = "7"', "mine.size"),
        ('[mine]\nrepo = "a/b"\ngated = 1', "mine.gated"),
        ('[mine]\nrepo = "a/b"\nkind = "sound"', "mine.kind"),
        ('[mine]\nrepo = "a/b"\nurl = "x"', "the field 'url'"),
        ('[mine]\nrepo = "a/b"\ndescription = "\\u001b[31m"', "mine.description"),
        ('[tinyllama]\nrepo = "a/b"', "lolama's own"),
        ('["a/b"]\nrepo = "a/b"', "cannot be an alias"),
        ("x = " + "[" * 50_000, "not valid TOML"),
        ("#" * 2**21, "larger than 1 MiB"),
    ],
)
def test_a_file_of_aliases_that_cannot_be_used(aliases: Path, text: str, word: str) -> None:
    aliases.write_text(text)
    with pytest.raises(UsageError, match=word) as caught:
        registry.models()
    assert str(caught.value).isprintable()
    assert registry.find("tinyllama") is not None  # what is lolama's own works all the same


def test_the_six_aliases_and_their_repositories() -> None:
    assert {model.alias: model.repo for model in registry.MODELS} == {
        "tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "open_llama_3b": "openlm-research/open_llama_3b_v2",
        "open_llama_7b": "openlm-research/open_llama_7b_v2",
        "llama7b": "meta-llama/Llama-2-7b-hf",
        "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
        "llava-med": "chaoyinshe/llava-med-v1.5-mistral-7b-hf",
    }
    assert [m.alias for m in registry.MODELS if m.kind == "vision"] == ["llava-1.5-7b", "llava-med"]
    assert [m.alias for m in registry.MODELS if m.gated] == ["llama7b"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tinylama", "tinyllama"),
        ("TinyLlama", "tinyllama"),
        ("open_llama3b", "open_llama_3b"),
        ("llama-7b", "llama7b"),
        ("llava_med", "llava-med"),
        ("someone/tinyllma", "tinyllama"),
    ],
)
def test_the_closest_alias_is_suggested(typed: str, meant: str) -> None:
    assert registry.suggest(typed) == f"did you mean {meant}?"


def test_a_name_like_none_of_them_gets_the_list() -> None:
    advice = registry.suggest("zzz" * 2000)
    assert all(model.alias in advice for model in registry.MODELS)
