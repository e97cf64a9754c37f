"""What a table of published names has to say, and how a configuration turns it into names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.rope_config import Rope, read_rope

Windows = Callable[[Fields, int, int], dict[str, JSON]]
"""(config.json, number of layers, longest sequence) → the canonical fields for the attention window."""


Switches = Callable[[Fields], dict[str, JSON]]
"""config.json → the canonical fields for what the architecture does otherwise than LLaMA."""


def no_switches(_config: Fields) -> dict[str, JSON]:
    """The fields of an architecture that does all as LLaMA does, or as its ``fixed`` fields say."""
    return {}


def full_attention(_config: Fields, _num_layers: int, _max_seq_len: int) -> dict[str, JSON]:
    """The fields of an architecture that has no window."""
    return {"sliding_window": None}


@dataclass(frozen=True, kw_only=True)
class TextLayout:
    """How one text architecture is published.

    Args:
        model_type: Its name in config.json.
        models: What is published so, for docs/families.md.
        tensors: Canonical name → published name, ``{n}`` being the layer. Rows whose part a model does
            not have (a bias, an untied ``lm_head``) are skipped. ``{e}`` is the expert.
        other_tensors: Rows that are published in another way as well.
        defaults: What transformers assumes for keys that config.json leaves out.
        fixed: Canonical fields that the architecture decides, whatever config.json says.
        windows: Reads the attention window, and which layers have it.
        switches: Reads what else differs from LLaMA.
        rope: Reads rotary settings.
        activation: Its key in config.json.
        norm_offset: What is added to the weights of norms.
        interleaved: Whether the dimensions of a rotated pair stand side by side in each head.
        scales_pictures: Whether ``embedding_scale`` is of all that the model is given, also of pictures.

    Canonical names of one published name are parts of its tensor, row after row in the table's order.
    """

    model_type: str
    models: str
    tensors: Mapping[str, str]
    defaults: Mapping[str, JSON]
    fixed: Mapping[str, JSON] = field(default_factory=dict)
    other_tensors: Mapping[str, str] = field(default_factory=dict)
    windows: Windows = full_attention
    switches: Switches = no_switches
    rope: Callable[[Fields], Rope] = read_rope
    activation: str = "hidden_act"
    norm_offset: int = 0
    interleaved: bool = False
    scales_pictures: bool = False

    def names_among(self, keys: Iterable[str]) -> Mapping[str, str]:
        """`tensors`, with those of ``other_tensors`` if a model has any tensor that is only named there."""
        others = set(self.other_tensors.values()) - set(self.tensors.values())
        ends = tuple(published.partition("{n}")[2] for published in others)
        if ends and any(key.endswith(ends) for key in keys):
            return {**self.tensors, **self.other_tensors}
        return self.tensors


def _has(name: str, model: Mapping[str, JSON]) -> bool:
    """Whether a model has the tensor of this row."""
    if name == "lm_head.weight":
        return not model["tie_word_embeddings"]
    if not name.endswith(".bias"):
        return True
    if ".feed_forward." in name:
        return bool(model["mlp_bias"])
    if ".o_proj." in name:
        return model["attention_bias"] is True
    return bool(model["attention_bias"])


_OF_EXPERTS = ("experts", "router", "shared_expert", "shared_gate")


def _in_layer(name: str, model: Mapping[str, JSON], layer: int) -> bool:
    """Whether this layer has the tensor of this row: experts, or one feed-forward network."""
    _, feed_forward, part = name.partition(".feed_forward.")
    if not feed_forward or model.get("num_experts") is None:
        return True
    dense = model.get("dense_layers", [])
    assert isinstance(dense, list)
    return part.startswith(_OF_EXPERTS) != (layer in dense)


def tensor_names(
    tensors: Mapping[str, str], model: Mapping[str, JSON], num_layers: int
) -> Iterator[tuple[str, str]]:
    """Canonical and published name of every tensor of a model with a canonical ``model`` block."""
    rows = [(name, published) for name, published in tensors.items() if _has(name, model)]
    for name, published in rows:
        if "{n}" not in name:
            yield name, published
    num_experts = model.get("num_experts") or 0
    assert isinstance(num_experts, int)
    experts = range(num_experts)
    for layer in range(num_layers):
        for name, published in rows:
            if "{n}" in name and _in_layer(name, model, layer):
                for expert in experts if "{e}" in name else (0,):
                    yield name.format(n=layer, e=expert), published.format(n=layer, e=expert)
