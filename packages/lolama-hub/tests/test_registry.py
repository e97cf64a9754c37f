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
    assert [model.alias for model in registry.models()[len(registry.MODELS) :]] == [
        "mine",
        "other-1",
    ]
    found = registry.find("mine")
    assert found is not None
    assert (found.kind, found.size, found.gated, found.context) == ("text", 7, False, 0)
    assert parse_name("mine") == HubModel("owner/name", "v1")
    assert registry.suggest("mien") == "did you mean mine?"


def test_row_106_a_byte_order_mark_is_no_part_of_the_aliases(aliases: Path) -> None:
    aliases.write_text('\ufeff[mine]\nrepo = "owner/name"\n', encoding="utf-8")
    assert registry.models()[-1].alias == "mine"
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
        ('[mine]\nrepo = "a/b"\ncontext = "7"', "mine.context"),
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
    first = registry.MODELS[:6]
    assert {model.alias: model.repo for model in first} == {
        "tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "open_llama_3b": "openlm-research/open_llama_3b_v2",
        "open_llama_7b": "openlm-research/open_llama_7b_v2",
        "llama7b": "meta-llama/Llama-2-7b-hf",
        "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
        "llava-med": "chaoyinshe/llava-med-v1.5-mistral-7b-hf",
    }
    assert [m.alias for m in first if m.kind == "vision"] == ["llava-1.5-7b", "llava-med"]
    assert [m.alias for m in first if m.gated] == ["llama7b"]


@pytest.mark.parametrize(
    ("alias", "repo", "license", "context", "kind"),
    [
        ("qwen3:0.6b", "Qwen/Qwen3-0.6B", "Apache-2.0", 40_960, "text"),
        ("qwen2.5:3b", "Qwen/Qwen2.5-3B-Instruct", "Qwen Research License", 32_768, "text"),
        (
            *("ministral3:3b", "mistralai/Ministral-3-3B-Instruct-2512-BF16"),
            *("Apache-2.0", 262_144, "text"),
        ),
        ("phi4-mini", "microsoft/Phi-4-mini-instruct", "MIT", 131_072, "text"),
        (
            *("llava-onevision:7b", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
            *("Apache-2.0", 32_768, "vision"),
        ),
    ],
)
def test_what_is_known_of_newer_models(
    alias: str, repo: str, license: str, context: int, kind: str
) -> None:
    model = registry.find(alias)
    assert model is not None
    assert (model.repo, model.license, model.context, model.kind) == (repo, license, context, kind)
    assert parse_name(alias) == HubModel(repo)


def test_every_alias_is_complete_and_none_is_there_twice() -> None:
    assert len({model.alias for model in registry.MODELS}) == len(registry.MODELS)
    for model in registry.MODELS:
        assert registry.HUB_ID.fullmatch(model.repo), model.alias
        assert model.parameters and model.license and model.size and model.context, model.alias
        assert model.kind in ("text", "vision"), model.alias
        # 16 or 32 bits a parameter, with what lies beside the weights.
        count = float(model.parameters[:-1]) * {"B": 1e9, "M": 1e6}[model.parameters[-1]]
        assert 1.9 <= model.size / count <= 4.2, model.alias


def test_gated_are_the_models_of_meta_and_google() -> None:
    owners = {model.repo.partition("/")[0] for model in registry.MODELS if model.gated}
    assert owners == {"meta-llama", "google"}
    others = {model.repo.partition("/")[0] for model in registry.MODELS if not model.gated}
    assert owners.isdisjoint(others)


@pytest.mark.parametrize("typed", ["qwen3", "Qwen/qwen3"])
def test_row_340_a_family_without_a_size_gets_its_sizes(typed: str) -> None:
    sizes = "qwen3:0.6b, qwen3:1.7b, qwen3:4b, qwen3:8b"
    assert registry.suggest(typed) == f"say which size: {sizes}"


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
    advice = registry.suggest("zzz" * 2000).removeprefix("the aliases are ").partition("; ")[0]
    named = []
    for one in advice.split(", "):
        first, more, _ = one.partition("/…")
        if more:  # the family alone gets all its sizes
            sizes = registry.suggest(first.partition(":")[0]).removeprefix("say which size: ")
            assert sizes.startswith(f"{first}, ")
            named += sizes.split(", ")
        else:
            named.append(one)
    assert sorted(named) == sorted(model.alias for model in registry.MODELS)
