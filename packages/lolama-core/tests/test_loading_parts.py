"""A model of which only parts are read: they are those that loading all of it brings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lolama_core import (
    Llama,
    LlamaConfig,
    LlamaFamily,
    build_unloaded,
    load_model,
    open_checkpoint,
    read_part,
    write_checkpoint,
)
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles
from lolama_core.testing.checkpoint import tiny_config

FAMILIES = {"llama": LlamaFamily()}


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return written(tmp_path / "model")


def written(place: Path, lacking: str = "") -> ModelFiles:
    """A model of bfloat16, without one of its tensors."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=32,
        d_model=16,
        num_heads=2,
        num_kv_heads=1,
        num_layers=2,
        hidden_dim=24,
        max_seq_len=16,
    )
    config = tiny_config()
    config |= {"model": shape.to_json(), "dtype": "bfloat16"}
    model = Llama(shape).to(torch.bfloat16)
    tensors = {name: one for name, one in model.state_dict().items() if name != lacking}
    write_checkpoint(place, config, tensors.items(), tokenizer_json=None)
    return open_checkpoint(place)


def test_a_part_is_what_loading_the_model_makes_of_it(files: ModelFiles) -> None:
    model, whole = build_unloaded(files, FAMILIES), load_model(files, FAMILIES, device="cpu")
    for name in ("layers.0", "layers.1", "embed_tokens", "norm"):
        part, expected = read_part(model, name, files), whole.get_submodule(name).state_dict()
        assert part.keys() == expected.keys()
        for path, one in part.items():
            assert one.dtype == expected[path].dtype and torch.equal(one, expected[path])
    assert {one.dtype for one in read_part(model, "layers.0", files).values()} == {
        torch.bfloat16,
        torch.float32,  # norms meet activations
    }
    assert all(one.is_meta for one in model.parameters())


def test_the_model_is_the_one_that_is_loaded_but_for_its_numbers(files: ModelFiles) -> None:
    model, whole = build_unloaded(files, FAMILIES), load_model(files, FAMILIES, device="cpu")
    assert str(model) == str(whole)
    assert not model.training and not any(one.requires_grad for one in model.parameters())
    assert model.get_parameter("layers.0.attention.q_proj.weight").dtype == torch.bfloat16
    buffers = dict(whole.named_buffers())
    assert all(torch.equal(one, buffers[name]) for name, one in model.named_buffers())


def test_parts_can_be_put_in_their_places(files: ModelFiles) -> None:
    model, whole = build_unloaded(files, FAMILIES), load_model(files, FAMILIES, device="cpu")
    for name, part in model.named_children():
        if list(part.parameters()):
            part.load_state_dict(read_part(model, name, files), assign=True)
    ids = torch.arange(5)[None]
    assert torch.equal(model(ids), whole(ids))


def test_what_is_missing_is_named_in_full(tmp_path: Path) -> None:
    files = written(tmp_path / "model", "layers.1.attention.q_proj.weight")
    model = build_unloaded(files, FAMILIES)
    assert read_part(model, "layers.0", files)
    with pytest.raises(ModelError, match=r"lacks 1 tensor: .layers\.1\.attention\.q_proj\.weight"):
        read_part(model, "layers.1", files)
