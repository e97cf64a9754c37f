"""Tiny models, saved by transformers the way people publish theirs, and what the tests ask of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lolama_core.files.checkpoint_reader import FileCheckpoint
from lolama_core.protocols.types import ModelFiles
from lolama_core.testing import tiny

VOCAB = 64
SIDE = 28
MARKS = ("<fake_token_around_image>", "<global-img>", "<row_1_col_1>")
IMAGE_TOKEN = 36


def tiny_tokenizer_json(*specials: str) -> str:
    """A tokenizer of 33 pieces with <unk>, <s> and </s>, and then ``specials``."""
    control = ("<unk>", "<s>", "</s>")
    pieces = (*control, "▁", *"abcdefghijklmnopqrstuvwxyz", "th", "the", "▁the")
    return tiny.with_pieces(
        {piece: index for index, piece in enumerate(pieces)},
        [("t", "h"), ("th", "e"), ("▁", "the")],
        specials=(*control, *specials),
    )


def write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values))


def edit_json(path: Path, **changes: object) -> None:
    """Change fields of a JSON file; the value ... removes one."""
    values = json.loads(path.read_text()) if path.exists() else {}
    values |= changes
    write_json(path, {key: value for key, value in values.items() if value is not ...})


def tiny_config(model_type: str, **changes: Any) -> Any:
    """A transformers configuration of two narrow layers."""
    import transformers

    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return transformers.AutoConfig.for_model(model_type, **(sizes | changes))


def tiny_model(model_type: str, **changes: Any) -> Any:
    """A random transformers model, its biases and norms random too, so that none can be mixed up."""
    import transformers

    torch.manual_seed(0)
    config = tiny_config(model_type, **changes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


def save(model: Any, folder: Path, **arguments: Any) -> Path:
    """``save_pretrained`` plus a tokenizer."""
    model.save_pretrained(folder, **arguments)
    (folder / "tokenizer.json").write_text(tiny_tokenizer_json())
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    return folder


def save_in_tiles(kind: str, folder: Path) -> Path:
    """A random ``Idefics3`` or ``SmolVLM`` as transformers saves it, with the files beside its weights."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vision_config={
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 14,
        },
        text_config=transformers.LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_id=IMAGE_TOKEN,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer_json(*MARKS, "<image>")
    assert json.loads(tokenizer)["added_tokens"][-1]["id"] == IMAGE_TOKEN
    (folder / "tokenizer.json").write_text(tokenizer)
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": f"{kind}ImageProcessor",
            "size": {"longest_edge": SIDE},
            "max_image_size": {"longest_edge": SIDE},
        },
    )
    return folder


def save_gemma3(
    folder: Path,
    tokens: Sequence[str] = ("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
) -> Path:
    """A random Gemma 3 as transformers saves it, with the files beside its weights and no template."""
    import transformers

    tokenizer = tiny_tokenizer_json(*tokens)
    ids = {one["content"]: one["id"] for one in json.loads(tokenizer)["added_tokens"]}
    config = transformers.Gemma3Config(
        vision_config={
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 7,
        },
        text_config=transformers.Gemma3TextConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=8,
            max_position_embeddings=256,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        mm_tokens_per_image=4,
        image_token_index=ids["<image_soft_token>"],
    )
    torch.manual_seed(0)
    model: Any = transformers.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer)
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    size = {"height": SIDE, "width": SIDE}
    write_json(
        folder / "preprocessor_config.json",
        {"image_processor_type": "Gemma3ImageProcessor", "size": size},
    )
    return folder


def read(files: ModelFiles) -> dict[str, Tensor]:
    """Every tensor of resolved files, through core's reader."""
    return dict(FileCheckpoint(files).tensors())


def published_name(canonical: str) -> str:
    """Hugging Face's name of a tensor, spelled out once more so that a wrong table shows."""
    name = canonical
    for ours, theirs in [
        ("attention.", "self_attn."),
        ("feed_forward.w_gate", "mlp.gate_proj"),
        ("feed_forward.w_up", "mlp.up_proj"),
        ("feed_forward.w_down", "mlp.down_proj"),
        ("attention_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
    ]:
        name = name.replace(ours, theirs)
    return name if name.startswith("lm_head") else f"model.{name}"


def assert_same_tensors(files: ModelFiles, state: dict[str, Tensor]) -> None:
    """Every tensor of the files is transformers' one, and none of transformers' is left out."""
    tensors = read(files)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, state[published_name(name)]), name
    expected = {name for name in state if name != "lm_head.weight"}
    if not files.config["model"]["tie_word_embeddings"]:
        expected.add("lm_head.weight")
    assert {published_name(name) for name in tensors} == expected
