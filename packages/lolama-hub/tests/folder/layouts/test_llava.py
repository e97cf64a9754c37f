"""LLaVA folders: the five layouts, and configurations old and new, against transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_folders import VOCAB, edit_json, read, tiny_tokenizer_json, write_json
from tiny_folders import published_name as published_text_name
from torch import Tensor

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles
from lolama_hub.store.place import Store

Resolve = Callable[[Path], ModelFiles]

IMAGE_TOKEN = 33
PINPOINTS = [[28, 56], [56, 28], [56, 56]]
CLASSES = {"llava": "Llava", "llava_next": "LlavaNext", "vipllava": "VipLlava"}
CLASSES |= {"llava_onevision": "LlavaOnevision"}
KINDS: dict[str, dict[str, Any]] = {
    "llava": {},
    "llava_next": {"kind": "llava_next"},
    "llava_siglip": {"encoder": "Siglip"},
    "vipllava": {"kind": "vipllava", "vision_feature_layer": [-2, 1]},
    "onevision": {
        "kind": "llava_onevision",
        "encoder": "Siglip",
        "text": "qwen2",
        "vision_feature_layer": -2,
    },
}


def reference(
    kind: str = "llava", text: str = "llama", encoder: str = "CLIP", **changes: Any
) -> Any:
    import transformers

    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    language = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen2": transformers.Qwen2Config,
    }[text](**sizes)
    vision = getattr(transformers, f"{encoder}VisionConfig")(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    settings = {
        "vision_config": vision,
        "text_config": language,
        "image_token_index": IMAGE_TOKEN,
        **changes,
    }
    if encoder == "Siglip":
        settings["vision_feature_select_strategy"] = "full"
    if kind in ("llava_next", "llava_onevision"):
        settings["image_grid_pinpoints"] = PINPOINTS
    torch.manual_seed(0)
    name = CLASSES[kind]
    config = getattr(transformers, f"{name}Config")(**settings)
    model: Any = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


def save(model: Any, folder: Path, **arguments: Any) -> Path:
    model.save_pretrained(folder, **arguments)
    tokenizer = tiny_tokenizer_json("<image>")
    assert json.loads(tokenizer)["added_tokens"][-1]["id"] == IMAGE_TOKEN
    (folder / "tokenizer.json").write_text(tokenizer)
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    size = {"height": 28, "width": 28}
    settings = (
        {"size": size, "image_processor_type": "SiglipImageProcessor"}
        if model.config.vision_config.model_type == "siglip_vision_model"
        else {"size": {"shortest_edge": 28}, "crop_size": size}
    )
    write_json(folder / "preprocessor_config.json", settings)
    return folder


def in_memory(model: Any) -> dict[str, Tensor]:
    """L3."""
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def layout(number: int, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of a layout, spelled out from those that the model has in memory."""

    def name(key: str) -> str:
        if number == 3:
            return key
        clip = key.startswith("model.vision_tower.")
        inner = key.removeprefix("model.vision_tower.")
        if number == 2:
            return f"model.vision_tower.vision_model.{inner}" if clip else key
        if number == 5:
            if clip:
                return f"model.vision_tower.vision_tower.vision_model.{inner}"
            return (
                key.replace("model.language_model.", "model.")
                .replace("multi_modal_projector.linear_1", "mm_projector.0")
                .replace("multi_modal_projector.linear_2", "mm_projector.2")
            )
        if clip:
            return f"vision_tower.{'vision_model.' if number == 1 else ''}{inner}"
        if key.startswith("model.language_model."):
            return "language_model.model." + key.removeprefix("model.language_model.")
        return (
            "language_model.lm_head.weight" if key.startswith("lm_head") else key[len("model.") :]
        )

    return {name(key): tensor for key, tensor in state.items()}


def published_name(canonical: str) -> str:
    """The name in memory of a canonical tensor, spelled out once more so that a wrong table shows."""
    name = canonical
    if name.startswith("vision_tower."):
        for ours, theirs in [
            (
                "vision_tower.position_embedding",
                "vision_tower.embeddings.position_embedding.weight",
            ),
            ("vision_tower.patch", "vision_tower.embeddings.patch"),
            ("vision_tower.class", "vision_tower.embeddings.class"),
            ("pre_norm", "pre_layrnorm"),
            ("vision_tower.layers", "vision_tower.encoder.layers"),
            ("attention.o_proj", "self_attn.out_proj"),
            ("attention.", "self_attn."),
            ("attention_norm", "layer_norm1"),
            ("ffn_norm", "layer_norm2"),
            ("feed_forward", "mlp"),
        ]:
            name = name.replace(ours, theirs)
        return f"model.{name}"
    if name.startswith("projector.norm"):
        return name.replace("projector.norm", "model.multi_modal_projector.projector_layernorm")
    if name == "projector.image_newline":
        return "model.image_newline"
    if name.startswith("projector."):
        return "model.multi_modal_" + name
    name = published_text_name(name.removeprefix("language_model."))
    return name.replace("model.", "model.language_model.", 1)


def assert_same(files: ModelFiles, state: dict[str, Tensor]) -> None:
    tensors = read(files)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, state[published_name(name)]), name
    unused = {
        key
        for key in state
        if "post_layernorm" in key or "encoder.layers.2." in key or "vision_tower.head" in key
    }
    assert {published_name(name) for name in tensors} == set(state) - unused


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def model(request: pytest.FixtureRequest) -> Any:
    return reference(request.param)


@pytest.fixture(scope="module", params=KINDS)
def any_model(request: pytest.FixtureRequest) -> Any:
    return reference(**KINDS[request.param])


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_five_layouts_give_identical_tensors(
    any_model: Any, number: int, sharded: bool, tmp_path: Path, resolve: Resolve
) -> None:
    folder = save(any_model, tmp_path / "model")
    state = in_memory(any_model)
    tensors = layout(number, state)
    assert len(tensors) == len(state)
    if not sharded:
        save_file(tensors, folder / "model.safetensors")
    else:
        (folder / "model.safetensors").unlink()
        weight_map: dict[str, str] = {}
        for shard in range(3):
            part = {key: t for n, (key, t) in enumerate(sorted(tensors.items())) if n % 3 == shard}
            save_file(part, folder / f"model-{shard}.safetensors")
            weight_map |= dict.fromkeys(part, f"model-{shard}.safetensors")
        write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    files = resolve(folder)
    assert_same(files, state)
    assert (files.family, files.config["dtype"]) == ("llava", "float32")


@pytest.mark.parametrize("text", ["llama", "mistral", "qwen2"])
def test_what_transformers_saves(text: str, tmp_path: Path, resolve: Resolve) -> None:
    model = reference(text=text)
    files = resolve(save(model, tmp_path / "model"))
    assert_same(files, in_memory(model))
    block = files.config["model"]
    language = block["text_config"]
    assert isinstance(language, dict)
    assert language["sliding_window"] == (4096 if text == "mistral" else None)
    assert block["image_token_id"] == IMAGE_TOKEN
    assert files.config["generation"] == {"eos_ids": [2], "vocab_size": 34, "sampling": {}}


def test_a_published_configuration_that_leaves_sizes_out(tmp_path: Path) -> None:
    """config.json of llava-hf/llava-1.5-7b-hf says nothing of the language model's sizes."""
    import transformers

    from lolama_core.files.checkpoint_io import FileCheckpointIO
    from lolama_hub.folder.files import Folder
    from lolama_hub.folder.vision_config import read_vision_model

    values: dict[str, Any] = {
        "model_type": "llava",
        "image_token_index": 32000,
        "text_config": {
            "model_type": "llama",
            "vocab_size": 32064,
            "rms_norm_eps": 1e-05,
            "max_position_embeddings": 4096,
        },
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
    }
    for language in ("llama", "mistral", "qwen2"):
        for vision in (values["vision_config"], None, {"model_type": "clip_vision_model"}):
            given = values | {
                "text_config": {"model_type": language, "vocab_size": 32064},
                "vision_config": vision,
            }
            if vision is None:
                del given["vision_config"]
            path = tmp_path / "config.json"
            folder = Folder(tmp_path, FileCheckpointIO(), Store(tmp_path))
            ours = read_vision_model(folder, path, given)
            theirs = transformers.LlavaConfig(**json.loads(json.dumps(given)))
            text, clip = theirs.text_config, theirs.vision_config
            assert (
                ours.text["d_model"],
                ours.text["hidden_dim"],
                ours.text["num_layers"],
                ours.text["num_heads"],
                ours.text["num_kv_heads"],
                ours.text["eps"],
            ) == (
                text.hidden_size,
                text.intermediate_size,
                text.num_hidden_layers,
                text.num_attention_heads,
                text.num_key_value_heads,
                text.rms_norm_eps,
            )
            block = ours.block["vision_config"]
            assert isinstance(block, dict)
            assert [block[key] for key in ("width", "mlp_dim", "num_layers", "num_heads")] == [
                clip.hidden_size,
                clip.intermediate_size,
                clip.num_hidden_layers,
                clip.num_attention_heads,
            ]
            assert [block["image_size"], block["patch_size"]] == [clip.image_size, clip.patch_size]
            assert ours.layers_used == clip.num_hidden_layers - 1


@pytest.fixture
def folder(tmp_path: Path, model: Any) -> Path:
    return save(model, tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"vision_feature_layer": [-2, -5]},
            "vision_feature_layer is a list, expected a layer or a list of layers, from -4 to 3",
        ),
        ({"vision_feature_layer": []}, "vision_feature_layer is a list, expected a layer"),
        (
            {"vision_feature_layer": -5},
            "vision_feature_layer is -5, expected a layer or a list of layers, from -4 to 3",
        ),
        ({"vision_feature_select_strategy": "none"}, "expected default or full"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu', expected gelu"),
        ({"image_token_index": 64}, "image_token_index is 64, expected an id of the vocabulary"),
        (
            {"multimodal_projector_bias": 1},
            "multimodal_projector_bias is 1, expected true or false",
        ),
        ({"vision_config": {"hidden_act": "relu"}}, "vision_config.hidden_act is 'relu'"),
        (
            {"vision_config": {"model_type": "pixtral"}},
            "model_type is 'pixtral', expected clip_vision_model or siglip_vision_model",
        ),
        (
            {"vision_config": {"model_type": "siglip_vision_model"}},
            "vision_feature_select_strategy is 'default', expected full, since siglip_vision_model",
        ),
        ({"vision_config": 3}, "vision_config is 3, expected an object"),
        ({"text_config": {"model_type": "gemma4"}}, "model_type 'gemma4' is not supported"),
        ({"text_config": 5}, "text_config is 5, expected an object"),
        ({"mm_vision_tower": "openai/clip"}, "original LLaVA"),
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
        ({"do_center_crop": False}, "do_center_crop is False, expected true"),
        ({"crop_size": 30}, "crop_size is 30, expected 28 both ways"),
        ({"size": {"longest_edge": 30}}, "size is an object, expected a shortest_edge"),
        (
            {"image_processor_type": "SiglipImageProcessor"},
            "do_center_crop is False, expected true, unless size is 28 pixels high and wide",
        ),
        ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type is"),
        ({"resample": 9}, "resample is 9"),
    ],
)
def test_a_processor_that_is_not_supported(
    changes: dict[str, Any], words: str, folder: Path, resolve: Resolve
) -> None:
    edit_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(ModelError, match=words):
        resolve(folder)


def preprocessing(files: ModelFiles) -> dict[str, Any]:
    vision: Any = files.config["model"]["vision_config"]
    block: dict[str, Any] = vision["preprocessing"]
    return block


def test_preprocessing_of_siglip(tmp_path: Path, resolve: Resolve) -> None:
    folder = save(reference(**KINDS["llava_siglip"]), tmp_path / "model")
    block = preprocessing(resolve(folder))
    half = [0.5, 0.5, 0.5]
    expected = {"mode": "crop", "shortest_edge": 28, "stretch": True, "mean": half, "std": half}
    assert block.items() >= expected.items()
    path = folder / "preprocessor_config.json"
    # Steps that are not there are none; a folder without the file means the encoder's usual processor.
    edit_json(path, do_center_crop=None)
    assert preprocessing(resolve(folder)) == block
    path.unlink()
    assert preprocessing(resolve(folder)) == block


def test_vipllava_reads_no_class_token_and_has_biases(tmp_path: Path, resolve: Resolve) -> None:
    folder = save(reference(**KINDS["vipllava"]), tmp_path / "model")
    changes = {"vision_feature_select_strategy": "full", "multimodal_projector_bias": False}
    edit_json(folder / "config.json", **changes)
    block: Any = resolve(folder).config["model"]
    assert block["vision_config"]["feature_layer"] == [-2, 1]
    assert block["vision_config"]["keep_class_token"] is False
    assert (block["projector_bias"], block["projector_norm_eps"]) == (True, 1e-5)
    edit_json(folder / "config.json", vision_config={"model_type": "siglip_vision_model"})
    with pytest.raises(ModelError, match="expected clip_vision_model;"):
        resolve(folder)


def test_preprocessing(folder: Path, model: Any, resolve: Resolve) -> None:
    tiled = model.config.model_type == "llava_next"
    block = preprocessing(resolve(folder))
    assert block["mode"] == ("tiles" if tiled else "crop")
    assert block["pinpoints"] == (PINPOINTS if tiled else [])
    assert (block["shortest_edge"], block["stretch"], block["resample"]) == (28, False, 3)
    path = folder / "preprocessor_config.json"
    settings = {
        "image_processor_type": "LlavaImageProcessor",
        "do_pad": True,
        "image_mean": [0.1, 0.2, 0.3],
        "size": {"height": 28, "width": 28},
    }
    edit_json(path, **settings)
    block = preprocessing(resolve(folder))
    assert block["mode"] == ("tiles" if tiled else "pad")
    assert (block["stretch"], block["mean"]) == (True, [0.1, 0.2, 0.3])
    # transformers 5 writes one file for the whole processor.
    values = json.loads(path.read_text())
    path.unlink()
    write_json(folder / "processor_config.json", {"image_processor": values})
    assert preprocessing(resolve(folder)) == block
    (folder / "processor_config.json").unlink()
    assert preprocessing(resolve(folder))["mode"] == ("tiles" if tiled else "crop")


def test_the_template_that_shows_pictures_is_taken(folder: Path, resolve: Resolve) -> None:
    def template() -> str:
        text = resolve(folder).tokenizer.chat_template
        assert text is not None
        return text

    blind = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert "USER: " in template()
    edit_json(folder / "tokenizer_config.json", chat_template=blind)
    assert "USER: " in template()
    for name in ("processor_config.json", "chat_template.json"):
        edit_json(folder / name, chat_template=f"{name}: <image>")
        assert template() == f"{name}: <image>"
    (folder / "chat_template.jinja").write_text("own: <image>")
    assert template() == "own: <image>"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("multi_modal_projector.linear_1.bias", "removed", "lacks 1 tensor"),
        ("vision_tower.encoder.layers.1.mlp.fc1.weight", "removed", "lacks 1 tensor"),
        ("vision_tower.encoder.layers.0.mlp.fc3.weight", "added", "unasked for"),
        ("vision_tower.encoder.layers.7.mlp.fc1.weight", "added", "holds 8 layers of the encoder"),
        ("language_model.model.norm.weight", "removed", "lacks 1 tensor"),
        ("language_model.model.extra.weight", "added", "unasked for"),
        ("model.vision_tower.vision_model.pre_layrnorm.bias", "added", "one tensor twice"),
    ],
)
def test_row41_missing_and_extra_tensors(
    name: str, change: str, words: str, folder: Path, resolve: Resolve
) -> None:
    path = folder / "model.safetensors"
    tensors = layout(4, layout(3, in_memory_of(folder)))
    if change == "added":
        tensors |= {name: torch.ones(2)}
    else:
        del tensors[name]
    save_file(tensors, path)
    with pytest.raises(ModelError, match=words):
        resolve(folder)


def in_memory_of(folder: Path) -> dict[str, Tensor]:
    """The saved tensors under the names they have in memory, whichever layout this transformers saves in."""
    state = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        name = key.replace("vision_model.", "")
        if name.startswith("language_model.model."):
            name = "model.language_model." + name.removeprefix("language_model.model.")
        elif name.startswith("language_model.lm_head"):
            name = "lm_head.weight"
        elif not name.startswith(("model.", "lm_head")):
            name = f"model.{name}"
        state[name] = tensor
    return state


def test_unused_parts_of_the_encoder_may_be_absent(
    folder: Path, model: Any, resolve: Resolve
) -> None:
    state = in_memory(model)
    kept = {k: t for k, t in state.items() if "post_layernorm" not in k and "layers.2." not in k}
    save_file(layout(1, kept), folder / "model.safetensors")
    assert len(read(resolve(folder))) == len(kept)


def test_embeddings_that_are_tied(folder: Path, model: Any, resolve: Resolve) -> None:
    edit_json(folder / "config.json", tie_word_embeddings=True)
    state = in_memory(model)
    del state["lm_head.weight"]
    save_file(layout(1, state), folder / "model.safetensors")
    files = resolve(folder)
    text: Any = files.config["model"]["text_config"]
    assert text["tie_word_embeddings"] is True
    assert "language_model.lm_head.weight" not in files.tensors
