"""Folders of Idefics3 and SmolVLM, as transformers saves them and as they were published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_folders import SIDE, edit_json, read, save_gemma3, save_in_tiles
from tokenizers import Tokenizer

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, ModelFiles
from lolama_hub.folder.layouts.vision import VISION_LAYOUTS
from lolama_hub.folder.resolve import check_config
from lolama_hub.folder.vision_config import read_language_model, read_vision_model

Resolve = Callable[[Path], ModelFiles]

PATH = Path("config.json")


def published_name(canonical: str) -> str:
    """The name in a file, spelled out once more so that a wrong table shows."""
    name = canonical
    for ours, theirs in [
        ("projector.linear", "connector.modality_projection.proj"),
        ("vision_tower.position_embedding", "vision_model.embeddings.position_embedding.weight"),
        ("vision_tower.patch", "vision_model.embeddings.patch"),
        ("vision_tower.post_norm", "vision_model.post_layernorm"),
        ("vision_tower.layers", "vision_model.encoder.layers"),
        ("language_model.", "text_model."),
        ("text_model.lm_head", "lm_head"),
        ("attention.", "self_attn."),
        ("feed_forward.w_gate", "mlp.gate_proj"),
        ("feed_forward.w_up", "mlp.up_proj"),
        ("feed_forward.w_down", "mlp.down_proj"),
        ("feed_forward", "mlp"),
    ]:
        name = name.replace(ours, theirs)
    if name.startswith("vision_model"):
        name = name.replace("attention_norm", "layer_norm1").replace("ffn_norm", "layer_norm2")
        name = name.replace("self_attn.o_proj", "self_attn.out_proj")
    name = name.replace("attention_norm", "input_layernorm")
    name = name.replace("ffn_norm", "post_attention_layernorm")
    return name if name.startswith("lm_head") else f"model.{name}"


@pytest.fixture(params=["Idefics3", "SmolVLM"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_in_tiles(request.param, tmp_path / "model")


@pytest.mark.parametrize("prefix", ["model.", ""], ids=["whole", "without model."])
def test_every_tensor_equals_transformers(folder: Path, prefix: str, resolve: Resolve) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({prefix + key.removeprefix("model."): t for key, t in state.items()}, path)
    if prefix:
        save_file(state, path)
    files = resolve(folder)
    tensors = read(files)
    assert {published_name(name) for name in tensors} == set(state)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, state[published_name(name)]), name
    assert files.family == "llava"


def test_the_canonical_configuration(folder: Path, resolve: Resolve) -> None:
    block: Any = resolve(folder).config["model"]
    vision = block["vision_config"]
    assert (block["projector"], vision["downscale"]) == ("pixel_shuffle", 2)
    assert (vision["feature_layer"], vision["post_norm"], vision["class_token"]) == (
        -1,
        True,
        False,
    )
    preprocessing = vision["preprocessing"]
    assert (preprocessing["mode"], preprocessing["longest_edge"]) == ("split", SIDE)
    assert (preprocessing["resample"], preprocessing["mean"]) == (1, [0.5, 0.5, 0.5])
    assert preprocessing["marks"]["around"] == [33]


@pytest.mark.parametrize("name", ["idefics3", "idefics3_vision"])
def test_the_encoder_by_its_older_name(name: str, folder: Path, resolve: Resolve) -> None:
    expected = resolve(folder).config["model"]
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    edit_json(folder / "config.json", vision_config={**vision, "model_type": name})
    assert resolve(folder).config["model"] == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale_factor": 0}, "scale_factor is 0, expected an integer from 1"),
        ({"image_token_id": 64}, "image_token_id is 64, expected an id of the vocabulary"),
        ({"image_token_id": ...}, "image_token_id is 128257, expected an id of the vocabulary"),
        ({"vision_config": {"model_type": "clip_vision_model"}}, "expected .*idefics3_vision"),
        ({"text_config": {"model_type": "rwkv"}}, "model_type 'rwkv' is not supported"),
    ],
)
def test_a_configuration_that_is_not_supported(
    changes: dict[str, Any], words: str, folder: Path, resolve: Resolve
) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ModelError, match=words):
        resolve(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"do_image_splitting": False}, "do_image_splitting is False, expected true"),
        ({"max_image_size": {"longest_edge": 56}}, "expected a longest_edge of 28, as image_size"),
        ({"max_image_size": 28}, "max_image_size is 28, expected a longest_edge"),
        ({"size": {"height": 28, "width": 28}}, "size is an object, expected a longest_edge;"),
        ({"size": {"longest_edge": 225}}, "expected a longest_edge from 1 to 224"),
        ({"do_resize": False}, "do_resize is False, expected true"),
    ],
)
def test_a_processor_that_is_not_supported(
    changes: dict[str, Any], words: str, folder: Path, resolve: Resolve
) -> None:
    edit_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(ModelError, match=words):
        resolve(folder)


def test_sizes_that_the_processor_leaves_out(folder: Path, resolve: Resolve) -> None:
    edit_json(folder / "preprocessor_config.json", size=..., max_image_size=...)
    vision: Any = resolve(folder).config["model"]["vision_config"]
    assert vision["preprocessing"]["longest_edge"] == 4 * SIDE
    assert len(vision["preprocessing"]["marks"]["tiles"]) == 4


# As HuggingFaceTB/SmolVLM2-256M-Video-Instruct and HuggingFaceM4/Idefics3-8B-Llama3 have it, sizes left out.
SMOLVLM2: dict[str, Any] = {
    "model_type": "smolvlm",
    "image_token_id": 49190,
    "scale_factor": 4,
    "text_config": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "vocab_size": 49280,
        "rope_theta": 100000,
    },
    "vision_config": {
        "model_type": "smolvlm_vision",
        "hidden_size": 768,
        "image_size": 512,
        "max_image_size": {"longest_edge": 512},
        "num_attention_heads": 12,
        "patch_size": 16,
        "size": {"longest_edge": 2048},
        "use_base_siglip": False,
    },
}
IDEFICS3: dict[str, Any] = {
    "model_type": "idefics3",
    "text_config": {"model_type": "llama", "vocab_size": 128259, "rms_norm_eps": 1e-05},
    "vision_config": {
        "model_type": "idefics3",
        "hidden_size": 1152,
        "image_size": 364,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}


@pytest.mark.parametrize("values", [SMOLVLM2, IDEFICS3], ids=["smolvlm2", "idefics3"])
def test_a_published_configuration_that_leaves_sizes_out(values: dict[str, Any]) -> None:
    import transformers

    ours = read_vision_model(None, PATH, values)
    given = json.loads(json.dumps(values))
    theirs = transformers.AutoConfig.for_model(given.pop("model_type"), **given)
    vision, text = theirs.vision_config, theirs.text_config
    assert [
        ours.encoder[name]
        for name in ("image_size", "patch_size", "width", "mlp_dim", "num_layers", "num_heads")
    ] == [
        *(vision.image_size, vision.patch_size, vision.hidden_size, vision.intermediate_size),
        *(vision.num_hidden_layers, vision.num_attention_heads),
    ]
    assert (ours.encoder["eps"], ours.encoder["downscale"]) == (
        *(vision.layer_norm_eps, theirs.scale_factor),
    )
    assert ours.block["image_token_id"] == theirs.image_token_id
    assert [ours.text[name] for name in ("d_model", "num_layers", "num_kv_heads", "eps")] == [
        *(text.hidden_size, text.num_hidden_layers, text.num_key_value_heads, text.rms_norm_eps)
    ]


def test_every_row_has_a_name_of_its_own() -> None:
    assert {"llava", "llava_next", "llava_onevision", "vipllava", "idefics3", "smolvlm"} <= set(
        VISION_LAYOUTS
    )
    assert all(layout.model_type == name for name, layout in VISION_LAYOUTS.items())
    blind = {name for name, layout in VISION_LAYOUTS.items() if not layout.sees}
    assert blind == {"mistral3"}


# As google/gemma-3-4b-it and mistralai/Mistral-Small-3.1-24B-Instruct-2503 have it.
GEMMA3: dict[str, Any] = {
    "model_type": "gemma3",
    "eos_token_id": [1, 106],
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "mm_tokens_per_image": 256,
    "image_token_index": 262144,
}
MISTRAL3: dict[str, Any] = {
    "model_type": "mistral3",
    "text_config": {
        "head_dim": 128,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "rope_theta": 1000000000.0,
        "sliding_window": None,
        "vocab_size": 131072,
    },
    "vision_config": {"model_type": "pixtral"},
}


# As mistralai/Ministral-3-3B-Instruct-2512-BF16 has it, but for sizes.
MINISTRAL3: dict[str, Any] = {
    **MISTRAL3,
    "text_config": {
        "head_dim": 128,
        "hidden_size": 3072,
        "intermediate_size": 9216,
        "max_position_embeddings": 262144,
        "model_type": "ministral3",
        "num_attention_heads": 32,
        "num_hidden_layers": 26,
        "num_key_value_heads": 8,
        "rope_parameters": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 16.0,
            "llama_4_scaling_beta": 0.1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 16384,
            "rope_theta": 1000000.0,
            "rope_type": "yarn",
            "type": "yarn",
        },
        "sliding_window": None,
        "tie_word_embeddings": True,
        "vocab_size": 131072,
    },
}


class TestGemma3:
    def test_a_published_configuration(self) -> None:
        import transformers

        ours = read_vision_model(None, PATH, GEMMA3)
        given = json.loads(json.dumps(GEMMA3))
        config = transformers.AutoConfig.for_model(given.pop("model_type"), **given)
        check_text(ours.text, config)
        vision = config.vision_config
        assert (ours.encoder["eps"], ours.block["projector_norm_eps"]) == (
            vision.layer_norm_eps,
            vision.layer_norm_eps,
        )
        assert (ours.encoder["downscale"], ours.encoder["post_norm"]) == (4, True)
        assert ours.block["image_token_id"] == config.image_token_id
        assert (ours.block["projector"], ours.block["bidirectional_pictures"]) == (
            "average_pool",
            True,
        )

    @pytest.mark.parametrize("tokens", [0, 200, 49, "256"])
    def test_patches_that_make_no_squares(self, tokens: JSON) -> None:
        words = "mm_tokens_per_image is .*, expected (the square of a divisor of 64|an integer)"
        with pytest.raises(ModelError, match=words):
            read_vision_model(None, PATH, {**GEMMA3, "mm_tokens_per_image": tokens})

    @pytest.mark.parametrize("kind", [[], {}, 3, "pixtral"])
    def test_row_406_an_encoder_whose_type_is_no_type(self, kind: JSON) -> None:
        vision = {**GEMMA3["vision_config"], "model_type": kind}
        with pytest.raises(
            ModelError, match=r"vision_config\.model_type is .*, expected siglip_vi"
        ):
            read_vision_model(None, PATH, {**GEMMA3, "vision_config": vision})

    def test_row_403_a_language_model_that_is_shown_no_pictures(self) -> None:
        text = {**GEMMA3["text_config"], "model_type": "llama"}
        words = "text_config.model_type is 'llama', expected gemma3_text or gemma2 or "
        with pytest.raises(ModelError, match=words):
            read_vision_model(None, PATH, {**GEMMA3, "text_config": text})

    @pytest.mark.parametrize("published", [False, True], ids=["saved", "as in memory"])
    def test_the_projector(self, tmp_path: Path, published: bool, resolve: Resolve) -> None:
        """Its norm becomes 1 + w, and its matrix one as all others are."""
        folder = save_gemma3(tmp_path / "gemma3")
        path = folder / "model.safetensors"
        state = load_file(path)
        if published:
            text = "language_model.model."
            save_file(
                {f"model.{key.replace(text, 'language_model.')}": t for key, t in state.items()},
                path,
            )
        tensors = read(resolve(folder))
        norm, matrix = (
            state[f"multi_modal_projector.{name}"]
            for name in ("mm_soft_emb_norm.weight", "mm_input_projection_weight")
        )
        assert torch.equal(tensors["projector.norm.weight"], norm + 1)
        assert torch.equal(tensors["projector.linear.weight"], matrix.T)
        assert {name for name in tensors if name.startswith("projector.")} == {
            "projector.norm.weight",
            "projector.linear.weight",
        }

    def test_pan_and_scan_is_refused(self, tmp_path: Path, resolve: Resolve) -> None:
        folder = save_gemma3(tmp_path / "gemma3")
        edit_json(folder / "preprocessor_config.json", do_pan_and_scan=None)
        assert resolve(folder).family == "llava"
        edit_json(folder / "preprocessor_config.json", do_pan_and_scan=True)
        with pytest.raises(ModelError, match="do_pan_and_scan is True, expected false"):
            resolve(folder)

    def test_what_stands_for_a_picture(self, tmp_path: Path, resolve: Resolve) -> None:
        folder = save_gemma3(tmp_path / "gemma3")
        files = resolve(folder)
        assert files.tokenizer.chat_template is None  # a base model's stays without one
        block: Any = files.config["model"]
        native = Tokenizer.from_file(str(folder / "tokenizer.json"))
        breaks = native.encode("\n\n", add_special_tokens=False).ids
        assert breaks and block["image_token_id"] == 35
        assert block["picture_ids"] == [*breaks, 33, 35, 34, *breaks]
        (folder / "chat_template.jinja").write_text("{{ '<start_of_image>' }}\n\n")
        template = resolve(folder).tokenizer.chat_template
        assert template is not None and template.endswith(
            "{{ '<start_of_image>' }}\n{% endfilter %}"
        )

    def test_a_tokenizer_without_tokens_for_a_picture(
        self, tmp_path: Path, resolve: Resolve
    ) -> None:
        folder = save_gemma3(tmp_path / "gemma3", tokens=("<start_of_image>", "<image_soft_token>"))
        with pytest.raises(
            ModelError, match=r"lacks a token that stands for a picture: .*end_of_im"
        ):
            resolve(folder)
        (folder / "tokenizer.json").unlink()
        assert "picture_ids" not in resolve(folder).config["model"]


def check_text(ours: dict[str, Any], config: Any) -> None:
    """The sizes of a language model against those of transformers' configuration."""
    text = config.text_config
    assert (ours["vocab_size"], ours["d_model"], ours["hidden_dim"], ours["num_layers"]) == (
        *(text.vocab_size, text.hidden_size, text.intermediate_size),
        text.num_hidden_layers,
    )
    assert (ours["num_heads"], ours["num_kv_heads"], ours["head_dim"]) == (
        *(text.num_attention_heads, text.num_key_value_heads),
        text.head_dim,
    )
    assert ours["sliding_window"] == text.sliding_window
    assert ours["tie_word_embeddings"] is config.tie_word_embeddings


class TestLanguageModelsAlone:
    """Mistral 3, whose pictures are not supported."""

    @pytest.mark.parametrize("values", [MISTRAL3, MINISTRAL3], ids=["mistral3", "ministral3"])
    def test_a_published_configuration(self, values: dict[str, Any]) -> None:
        import transformers

        layout = VISION_LAYOUTS[values["model_type"]]
        _, _, ours = read_language_model(PATH, values, layout)
        given = json.loads(json.dumps(values))
        config = transformers.AutoConfig.for_model(given.pop("model_type"), **given)
        check_text(ours, config)

    def test_row_318_weights_that_are_no_safetensors(self) -> None:
        check_config(PATH, MISTRAL3, ["model.safetensors"])
        with pytest.raises(ModelError, match="whose weights are read from safetensors alone"):
            check_config(PATH, MISTRAL3, ["pytorch_model.bin"])

    def test_row_318_a_language_model_that_is_not_supported_or_quantized(self) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"text_config": {"model_type": "rwkv"}}, "model_type 'rwkv' is not supported"),
            ({"text_config": 3}, "text_config is 3, expected an object"),
            ({"quantization_config": {"quant_method": "fp8"}}, "quant_method 'fp8'"),
        ]
        for changes, words in cases:
            with pytest.raises(ModelError, match=words):
                check_config(PATH, {**MISTRAL3, **changes}, ["model.safetensors"])
