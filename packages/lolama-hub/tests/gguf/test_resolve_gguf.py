"""GGUF files, whole and in parts, as `ModelFiles`; and what of them is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from gguf_files import read_gguf, write_gguf
from tiny_folders import read, tiny_model

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.files.gguf_header import GGUFHeader
from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles
from lolama_core.text.tokenizer_loading import load_tokenizer
from lolama_hub import HuggingFaceSource
from lolama_hub.gguf.architectures import ARCHITECTURES


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LLaMA in one file."""
    path = tmp_path_factory.mktemp("gguf") / "tiny-F32.gguf"
    return write_gguf(path, "llama", tiny_model("llama"))


@pytest.fixture
def experts_gguf(tmp_path: Path) -> Path:
    """A small Mixtral in one file."""
    return write_gguf(tmp_path / "experts.gguf", "llama", tiny_model("mixtral"))


class Changed(FileCheckpointIO):
    """Reads headers that say something else."""

    def __init__(self, change: Callable[[GGUFHeader], dict[str, Any]]) -> None:
        self._change = change

    def gguf_parts(self, path: Path) -> tuple[GGUFHeader, ...]:
        return tuple(replace(one, **self._change(one)) for one in super().gguf_parts(path))


def with_metadata(path: Path, **changes: object) -> ModelFiles:
    """The model of a file whose metadata say this of its architecture; ... takes a key away."""

    def change(header: GGUFHeader) -> dict[str, Any]:
        architecture = header.metadata["general.architecture"]
        named = {
            key if key.startswith("general_") else f"{architecture}.{key}": value
            for key, value in changes.items()
        }
        named = {key.replace("general_", "general."): value for key, value in named.items()}
        values = {**header.metadata, **{key.replace("__", "."): one for key, one in named.items()}}
        return {"metadata": {key: value for key, value in values.items() if value is not ...}}

    return read_gguf(path, Changed(change))


def with_tensors(path: Path, change: Callable[[dict[str, Any]], None]) -> ModelFiles:
    """The model of a file whose header has other tensors."""

    def changed(header: GGUFHeader) -> dict[str, Any]:
        tensors = dict(header.tensors)
        change(tensors)
        return {"tensors": tensors}

    return read_gguf(path, Changed(changed))


def test_a_file_by_its_path(
    tiny_gguf: Path, tmp_path: Path, source: HuggingFaceSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    io: CheckpointIO = FileCheckpointIO()
    files = source.resolve(str(tiny_gguf), io)
    assert files.family == "llama" and files.config["dtype"] == "float32"
    assert files.config.get("source") == {"model_type": "llama", "format": "gguf"}
    assert not (files.repo or files.immutable) and "quantization" not in files.config
    expected = tiny_model("llama").state_dict()
    for name in ("attention.o_proj", "feed_forward.w_down"):
        theirs = name.replace("attention", "self_attn").replace(
            "feed_forward.w_down", "mlp.down_proj"
        )
        assert torch.equal(
            read(files)[f"layers.1.{name}.weight"], expected[f"model.layers.1.{theirs}.weight"]
        )
    # By its name in the current directory, and without one, as Ollama keeps models.
    shutil.copy(tiny_gguf, tmp_path / "Model.GGUF")
    shutil.copy(tiny_gguf, tmp_path / "sha256-0123")
    monkeypatch.chdir(tmp_path)
    for name in ("Model.GGUF", "./Model.GGUF", "./sha256-0123", "sha256-0123"):
        assert source.resolve(name, io).config == files.config


def test_a_folder_with_one_model(
    tiny_gguf: Path, tmp_path: Path, source: HuggingFaceSource
) -> None:
    io: CheckpointIO = FileCheckpointIO()
    shutil.copy(tiny_gguf, tmp_path / "tiny-Q8_0.gguf")
    (tmp_path / "mmproj-model-f16.gguf").write_bytes(b"GGUF")
    (tmp_path / "config.json").write_text("{}")  # some repositories of GGUF files have one
    files = source.resolve(str(tmp_path), io)
    assert {one.path for one in files.tensors.values()} == {tmp_path / "tiny-Q8_0.gguf"}


def test_a_model_in_parts(tiny_gguf: Path, tmp_path: Path, source: HuggingFaceSource) -> None:
    io: CheckpointIO = FileCheckpointIO()
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_model("llama"), split=8)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) > 2
    whole = read(source.resolve(str(tiny_gguf), io))
    for name in (tmp_path, *parts):
        found = read(source.resolve(str(name), io))
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[key], whole[key]) for key in whole)


def test_row_470_architectures_that_are_not_read(tiny_gguf: Path) -> None:
    for name in ("mamba2", "x" * 200, "", 3, ["llama"]):
        with pytest.raises(
            ModelError, match="which lolama does not read; use a model of one of llama"
        ):
            with_metadata(tiny_gguf, general_architecture=name)
    with pytest.raises(ModelError, match="holds what reads pictures, and no language model"):
        with_metadata(tiny_gguf, general_architecture="clip")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"block_count": ...}, r"the field llama\.block_count is missing \(an integer from 1"),
        ({"block_count": 10**9}, r"llama\.block_count is 1000000000, expected an integer"),
        ({"block_count": 3}, "has tensors of 2 layers, expected 3, as block_count says"),
        ({"embedding_length": 0}, r"llama\.embedding_length is 0"),
        ({"embedding_length": "16"}, r"llama\.embedding_length is '16'"),
        ({"attention__head_count": [4, 2]}, "is a list, expected the same number for all layers"),
        ({"attention__head_count": []}, "is a list, expected the same number for all layers"),
        (
            {"attention__head_count": 3, "attention__key_length": ...},
            r"head_count is 3, expected a divisor of embedding_length",
        ),
        ({"attention__head_count_kv": 3}, "num_key_value_heads is 3, expected a divisor of"),
        (
            {"attention__value_length": 8, "attention__key_length": 4},
            "value_length is 8, expected 4",
        ),
        (
            {"attention__layer_norm_rms_epsilon": float("nan")},
            r"rms_epsilon is nan, expected a numb",
        ),
        ({"rope__dimension_count": 2}, "partial_rotary_factor is .*only whole heads are rotated"),
        ({"rope__freq_base": "x"}, r"llama\.rope\.freq_base is 'x', expected a number"),
        ({"rope__freq_base": 0.0}, r"rope_theta is 0\.0, expected a number from 1"),
        (
            {"rope__scaling__type": "other"},
            r"scaling\.type is 'other', expected none, linear, yarn",
        ),
        ({"rope__scaling__type": ["yarn"]}, r"scaling\.type is a list, expected none, linear"),
        ({"rope__scaling__type": "longrope"}, "without factors of pairs"),
        (
            {"rope__dimension_sections": [8, 12, 12, 0]},
            "dimension_sections is a list, expected zeros",
        ),
        ({"attention__causal": False}, "attention.causal is False, expected true: a text is read"),
        ({"context_length": True}, r"llama\.context_length is True"),
        ({"feed_forward_length": ...}, r"the field llama\.feed_forward_length is missing"),
        (
            {"expert_count": 4, "expert_used_count": 2},
            r"expert_count is 4, expected 0, since there are no tensors of exp",
        ),
    ],
)
def test_row_471_metadata_that_make_no_sense(
    tiny_gguf: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        with_metadata(tiny_gguf, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"expert_gating_func": 2}, "expert_gating_func is 2, expected 1: other routers"),
        ({"expert_weights_scale": 2.5}, r"expert_weights_scale is 2\.5, expected 1: other"),
        ({"expert_used_count": 9}, "num_experts_per_tok is 9, expected an integer from 1 to 8"),
        ({"expert_count": 10**9}, "expected an integer from 1 to 4096"),
    ],
)
def test_row_471_experts_that_make_no_sense(
    experts_gguf: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        with_metadata(experts_gguf, **changes)


def test_row_472_tensors_that_are_missing_or_too_many(tiny_gguf: Path) -> None:
    def lack(tensors: dict[str, Any]) -> None:
        del tensors["blk.1.ffn_down.weight"]

    with pytest.raises(ModelError, match=r"lacks 1 tensor \('blk\.1\.ffn_down\.weight'\); get an"):
        with_tensors(tiny_gguf, lack)

    def add(tensors: dict[str, Any]) -> None:
        tensors["blk.0.ssm_in.weight"] = tensors["blk.1.ffn_down.weight"]

    with pytest.raises(ModelError, match=r"holds, unasked for, 1 tensor \('blk\.0\.ssm_in\.weigh"):
        with_tensors(tiny_gguf, add)

    def lose(tensors: dict[str, Any]) -> None:
        del tensors["token_embd.weight"]

    with pytest.raises(ModelError, match=r"lacks 'token_embd\.weight'"):
        with_tensors(tiny_gguf, lose)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("token_embd.weight", (64 * 16,)),
        ("blk.0.attn_q.weight", (16 * 16,)),
        ("blk.0.attn_q.weight", (1, 16, 16)),
        ("blk.0.ffn_up.weight", ()),
    ],
)
def test_row_472_tensors_of_other_dimensions(
    tiny_gguf: Path, name: str, shape: tuple[int, ...]
) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors[name] = replace(tensors[name], shape=shape)

    with pytest.raises(ModelError, match=r"has shape \("):
        with_tensors(tiny_gguf, change)


def test_row_472_experts_of_another_number(experts_gguf: Path) -> None:
    files = with_metadata(experts_gguf, expert_count=4)
    with pytest.raises(ModelError, match=r"ffn_gate_exps\.weight: has 8 experts, expected 4"):
        read(files)


def test_row_472_rows_that_are_no_heads(tiny_gguf: Path) -> None:
    files = with_metadata(
        tiny_gguf, attention__key_length=6, attention__value_length=6, rope__dimension_count=6
    )
    with pytest.raises(ModelError, match=r"attn_q\.weight: has 16 rows, expected heads of 6"):
        read(files)


VALUES: list[Any] = [
    *(0, 1, 2, 3, 7, 16, 63, -1, 2**31, 2**63, True, False, 0.0, 1.5, -2.0, 1e300, float("inf")),
    *(
        float("nan"),
        "",
        "x",
        "llama",
        "yarn",
        "linear",
        [],
        [0],
        [1, 2],
        [True, False],
        [0.5] * 3,
        ["a"],
    ),
]
FURTHER = [
    *("attention.sliding_window", "attention.sliding_window_pattern", "attention.scale"),
    *(
        "attention.temperature_scale",
        "attention.causal",
        "attention.key_length",
        "attention.value_length",
    ),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
    *(
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_log_multiplier",
    ),
    *(
        "rope.scaling.finetuned",
        "rope.freq_base_swa",
        "rope.scale_linear",
        "rope.dimension_sections",
    ),
    *("expert_count", "expert_used_count", "expert_weights_norm", "expert_gating_func"),
    *("expert_shared_feed_forward_length", "logit_scale", "embedding_scale", "residual_scale"),
    *("attn_logit_softcapping", "final_logit_softcapping", "general.sampling.temp"),
    *("general.sampling.top_k", "general.sampling.mirostat"),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_row_478_metadata_at_random(tiny_gguf: Path, architecture: str) -> None:
    random, works = Random(architecture), 0

    def change(header: GGUFHeader) -> dict[str, Any]:
        values: dict[str, Any] = {
            key.replace("llama.", f"{architecture}."): one for key, one in header.metadata.items()
        }
        values["general.architecture"] = architecture
        keys = [key for key in values if key.startswith(architecture)]
        keys += [one if one.startswith("general") else f"{architecture}.{one}" for one in FURTHER]
        for key in random.sample(keys, random.randint(0, 3)):
            values[key] = random.choice(VALUES)
        return {"metadata": values}

    for _ in range(150):
        with suppress(ModelError):
            read_gguf(tiny_gguf, Changed(change))
            works += 1
    # The tensors of a LLaMA are not those of all others.
    assert works > 5 or architecture not in ("llama", "mistral3", "qwen2", "granite", "smollm3")


def test_row_473_types_that_are_not_read(tiny_gguf: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        for name, kind in (("blk.0.ffn_up.weight", "IQ2_XS"), ("blk.1.ffn_up.weight", "Q2_K")):
            tensors[name] = replace(tensors[name], dtype=kind)

    with pytest.raises(ModelError) as caught:
        with_tensors(tiny_gguf, change)
    assert "has tensors of IQ2_XS, Q2_K, such as 'blk.0.ffn_up.weight'; lolama reads F32" in str(
        caught.value
    )
    assert "whose name has Q4_K_M, Q6_K or Q8_0" in str(caught.value)


def test_row_474_a_folder_with_several_models(
    tiny_gguf: Path, tmp_path: Path, source: HuggingFaceSource, io: CheckpointIO
) -> None:
    for name in ("a-Q4_K_M.gguf", "a-Q8_0.gguf"):
        shutil.copy(tiny_gguf, tmp_path / name)
    words = r"holds 2 models in GGUF \('a-Q4_K_M\.gguf', 'a-Q8_0\.gguf'\); give the path of one"
    with pytest.raises(ModelError, match=words):
        source.resolve(str(tmp_path), io)


def test_row_474_a_folder_whose_model_is_a_link_that_leaves_it(
    tiny_gguf: Path, tmp_path: Path, source: HuggingFaceSource, io: CheckpointIO
) -> None:
    (tmp_path / "a.gguf").symlink_to(tiny_gguf)
    with pytest.raises(ModelError, match="is a link that leaves the model's folder"):
        source.resolve(str(tmp_path), io)


def test_row_474_a_folder_with_what_reads_pictures_alone(
    tmp_path: Path, source: HuggingFaceSource, io: CheckpointIO
) -> None:
    (tmp_path / "mmproj-model-f16.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"config\.json: does not exist"):
        source.resolve(str(tmp_path), io)


def test_row_408_a_folder_that_lacks_the_first_part(
    tiny_gguf: Path, tmp_path: Path, source: HuggingFaceSource, io: CheckpointIO
) -> None:
    for number in (2, 3):
        shutil.copy(tiny_gguf, tmp_path / f"a-0000{number}-of-00003.gguf")
    with pytest.raises(ModelError, match=r"'a-00001-of-00003\.gguf' is missing"):
        source.resolve(str(tmp_path), io)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general_type": "adapter"}, r"holds an adapter \(LoRA\), .*, and no model"),
        ({"general_type": "imatrix"}, "holds an importance matrix, .*, and no model"),
        ({"general_architecture": ...}, "holds no model: it names no architecture"),
    ],
)
def test_row_409_a_file_that_holds_no_model(
    tiny_gguf: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        with_metadata(tiny_gguf, **changes)
    assert with_metadata(tiny_gguf, general_type="model").tensors


def test_row_409_a_file_without_a_tokenizer(tiny_gguf: Path) -> None:
    files = with_metadata(tiny_gguf)
    assert files.tokenizer.tokenizer_json is None
    words = "comes from a GGUF file that has no tokenizer; get a file that has one, or use ids"
    with pytest.raises(ModelError, match=words):
        load_tokenizer(files)


def test_row_476_factors_for_another_number_of_pairs(tmp_path: Path) -> None:
    model = tiny_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    path = tmp_path / "tiny.gguf"
    write_gguf(path, "llama", model, extra={"rope_freqs.weight": torch.ones(5)})
    words = r"'rope_freqs\.weight' has shape \(5,\), expected \(2,\)"
    with pytest.raises(ModelError, match=words):
        read_gguf(path)
