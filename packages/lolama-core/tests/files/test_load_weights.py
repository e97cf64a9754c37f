from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lolama_core.files.checkpoint_reader import FileCheckpoint
from lolama_core.files.load_weights import load_into
from lolama_core.files.tensor_file import TensorFile
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import CanonicalConfig, ModelFiles, TensorLocation, TokenizerFiles
from lolama_core.testing.checkpoint import tiny_config


class Tiny(nn.Module):
    """Tied embeddings, a bias, a buffer that is saved and one that is not."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(6, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.lm_head = nn.Linear(4, 6, bias=False)
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("table", torch.ones(3), persistent=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight


class Memory:
    """The least that is a checkpoint: not a file, so no header tells shapes."""

    name = "checkpoint"

    def __init__(self, tensors: dict[str, Tensor], config: CanonicalConfig | None = None) -> None:
        self._tensors = tensors
        self.config = config or tiny_config()

    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        return (item for item in self._tensors.items() if item[0].startswith(prefix))


def on_meta(tied: bool = True) -> Tiny:
    with torch.device("meta"):
        return Tiny(tied)


def stored(**changes: Tensor | None) -> dict[str, Tensor]:
    """What `Tiny` needs, in bfloat16; None removes a name (``__`` stands for a dot)."""
    torch.manual_seed(0)
    tensors = {
        "embed_tokens.weight": torch.randn(6, 4).bfloat16(),
        "layers.0.weight": torch.randn(4, 4).bfloat16(),
        "layers.0.bias": torch.randn(4).bfloat16(),
        "scale": torch.randn(3),
    }
    for name, tensor in changes.items():
        dotted = name.replace("__", ".")
        if tensor is None:
            del tensors[dotted]
        else:
            tensors[dotted] = tensor
    return tensors


def from_file(
    directory: Path,
    tensors: dict[str, Tensor],
    transform: Callable[[Tensor], Tensor] | None = None,
) -> FileCheckpoint:
    path = directory / "model.safetensors"
    save_file(tensors, path)
    places = {name: TensorLocation(path=path, key=name, transform=transform) for name in tensors}
    tokenizer = TokenizerFiles(tokenizer_json=directory / "tokenizer.json")
    return FileCheckpoint(
        ModelFiles(name="tiny", config=tiny_config(), tensors=places, tokenizer=tokenizer)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_weight_arrives(tmp_path: Path, dtype: torch.dtype) -> None:
    model = on_meta()
    load_into(model, from_file(tmp_path, stored()), dtype)
    for name, tensor in stored().items():
        assert torch.equal(model.state_dict()[name], tensor.to(dtype))
        assert model.state_dict()[name].dtype == dtype
    assert model.get_buffer("table").is_meta


def test_tied_weights_stay_one(tmp_path: Path) -> None:
    model = on_meta()
    load_into(model, from_file(tmp_path, stored()), torch.float32)
    assert model.lm_head.weight is model.embed_tokens.weight
    assert isinstance(model.lm_head.weight, nn.Parameter)


def test_the_only_copy_may_have_either_name(tmp_path: Path) -> None:
    head = torch.randn(6, 4)
    model = on_meta()
    load_into(
        model,
        from_file(tmp_path, stored(embed_tokens__weight=None, lm_head__weight=head)),
        torch.float32,
    )
    assert model.lm_head.weight is model.embed_tokens.weight
    assert torch.equal(model.embed_tokens.weight, head)


def test_both_copies_must_be_equal(tmp_path: Path) -> None:
    embed = stored()["embed_tokens.weight"]
    load_into(on_meta(), Memory(stored(lm_head__weight=embed.clone())), torch.float32)
    different = stored(lm_head__weight=embed + 1)
    with pytest.raises(ModelError, match=r"'lm_head.weight' differs from the one"):
        load_into(on_meta(), Memory(different), torch.float32)


def test_row41_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkpoint = from_file(tmp_path, stored(layers__0__bias=None, embed_tokens__weight=None))
    monkeypatch.setattr(TensorFile, "read", None)  # refused before any weight is read
    expected = "tiny: lacks 2 tensors: 'embed_tokens.weight', 'layers.0.bias'"
    with pytest.raises(ModelError, match=re.escape(expected)):
        load_into(on_meta(), checkpoint, torch.float32)


def test_row41_missing_when_untied() -> None:
    with pytest.raises(ModelError, match=r"lacks 1 tensor: 'lm_head.weight'"):
        load_into(on_meta(tied=False), Memory(stored()), torch.float32)


def test_row41_unexpected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    extra = {f"x{number}": torch.ones(1) for number in range(5)}
    checkpoint = from_file(tmp_path, stored(**extra))
    monkeypatch.setattr(TensorFile, "read", None)
    with pytest.raises(ModelError, match="holds unexpected 5 tensors: 'x0', 'x1', 'x2' and 2 more"):
        load_into(on_meta(), checkpoint, torch.float32)


def test_a_buffer_that_is_not_saved_is_unexpected() -> None:
    with pytest.raises(ModelError, match="unexpected 1 tensor: 'table'"):
        load_into(on_meta(), Memory(stored(table=torch.ones(3))), torch.float32)


@pytest.mark.parametrize("shape", [(4,), (5, 4), (4, 6), (6, 4, 1), ()], ids=str)
def test_row42_wrong_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    checkpoint = from_file(tmp_path, stored(embed_tokens__weight=torch.ones(shape)))
    monkeypatch.setattr(TensorFile, "read", None)
    expected = f"'embed_tokens.weight' has shape {shape}; the configuration asks for (6, 4)"
    with pytest.raises(ModelError, match=re.escape(expected)):
        load_into(on_meta(), checkpoint, torch.float32)


def test_row42_wrong_shape_after_a_transform(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=re.escape("'scale' has shape (1, 3); the")):
        load_into(on_meta(), from_file(tmp_path, stored(), lambda t: t.unsqueeze(0)), torch.float32)


def test_row44_too_large_for_half() -> None:
    """A finite bfloat16 weight may be infinite as float16."""
    big = stored(layers__0__bias=torch.full((4,), 1e6).bfloat16())
    load_into(on_meta(), Memory(big), torch.float32)
    with pytest.raises(ModelError, match=r"'layers.0.bias' has values too large for float16"):
        load_into(on_meta(), Memory(big), torch.float16)


class Quantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(4, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(2, dtype=torch.float32))
        self.norm = nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize("wrong", [False, True])
def test_row43_declared_tensors_keep_their_dtype(wrong: bool) -> None:
    config = tiny_config()
    config["quantization"] = {"tensors": {"weight": "I8", "scales": "F32"}}
    tensors = {
        "weight": torch.tensor([1, 2, 3, 127], dtype=torch.uint8 if wrong else torch.int8),
        "scales": torch.tensor([1e-3, 1e6]),
        "norm": torch.ones(2),
    }
    with torch.device("meta"):
        model = Quantized()
    if wrong:
        with pytest.raises(ModelError, match="'weight' is U8; this kind of quantization uses I8"):
            load_into(model, Memory(tensors, config), torch.float16)
        return
    load_into(model, Memory(tensors, config), torch.float16)
    assert torch.equal(model.state_dict()["weight"], tensors["weight"])
    assert torch.equal(model.state_dict()["scales"], tensors["scales"])
    assert model.norm.dtype == torch.float16


def test_a_loaded_model_can_be_loaded_again(tmp_path: Path) -> None:
    """The meta device is usual, not required."""
    model = Tiny()
    load_into(model, from_file(tmp_path, stored()), torch.float32)
    assert model.lm_head.weight is model.embed_tokens.weight
    assert bool((model.get_buffer("table") == 1).all())


def test_nothing_holds_on_to_the_file(tmp_path: Path) -> None:
    """The weights outlive the file they came from."""
    model = on_meta()
    load_into(model, from_file(tmp_path, stored()), torch.bfloat16)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(model.state_dict()["layers.0.weight"], stored()["layers.0.weight"])
