"""What llama.cpp calls the tensors of a model, and where each canonical one is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts import TextLayout, tensor_names
from lolama_hub.folder.weight_names import listed
from lolama_hub.gguf.architectures import Architecture
from lolama_hub.gguf.metadata import ROPE_TENSORS, GGUFModel

_LINEARS = {
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_output",
    "feed_forward.w_gate": "ffn_gate",
    "feed_forward.w_up": "ffn_up",
    "feed_forward.w_down": "ffn_down",
}
_WEIGHTS = {
    "attention_norm": "attn_norm",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention_post_norm": "post_attention_norm",
    "ffn_norm": "ffn_norm",
    "ffn_post_norm": "post_ffw_norm",
    "feed_forward.router": "ffn_gate_inp",
    "feed_forward.experts.{e}.w_gate": "ffn_gate_exps",
    "feed_forward.experts.{e}.w_up": "ffn_up_exps",
    "feed_forward.experts.{e}.w_down": "ffn_down_exps",
    "feed_forward.shared_gate": "ffn_gate_inp_shexp",
    "feed_forward.shared_expert.w_gate": "ffn_gate_shexp",
    "feed_forward.shared_expert.w_up": "ffn_up_shexp",
    "feed_forward.shared_expert.w_down": "ffn_down_shexp",
}
TENSORS = {
    "embed_tokens.weight": "token_embd.weight",
    **{
        f"layers.{{n}}.{ours}.{part}": f"blk.{{n}}.{theirs}.{part}"
        for ours, theirs in _LINEARS.items()
        for part in ("weight", "bias")
    },
    **{
        f"layers.{{n}}.{ours}.weight": f"blk.{{n}}.{theirs}.weight"
        for ours, theirs in _WEIGHTS.items()
    },
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
"""Canonical → GGUF's name of all tensors that any architecture has, ``{n}`` being the layer."""

JOINED = {
    "attn_qkv": ("attn_q", "attn_k", "attn_v"),
    "ffn_up": ("ffn_gate", "ffn_up"),
    "ffn_gate_up_exps": ("ffn_gate_exps", "ffn_up_exps"),
}
"""GGUF's names of tensors that several others may be stored in, one below another, in this order."""

_LAYER = re.compile(r"blk\.(\d{1,9})\.([a-z_]+)\.")


def match_names(
    model: GGUFModel, layout: TextLayout, renamed: Mapping[str, str], block: Mapping[str, JSON]
) -> dict[str, str]:
    """Canonical name → GGUF's name for a whole model.

    Args:
        model: What its files say.
        layout: That of its family, which says which tensors there are.
        renamed: See `Architecture`.
        block: The canonical ``model`` block.

    Raises:
        ModelError: naming every missing and every unexpected tensor, up to five of each.
    """
    present = set(model.tensors).difference(ROPE_TENSORS)
    num_layers = block["num_layers"]
    assert isinstance(num_layers, int)
    layers = {int(match[1]) for match in map(_LAYER.match, present) if match}
    if len(layers) != num_layers:  # nothing is listed for 10⁹ layers
        reason = f"has tensors of {len(layers)} layers, expected {num_layers}, as block_count says"
        raise ModelError(str(model.path), reason, "get the file again")
    names = {**TENSORS, **renamed}
    together = [
        whole
        for whole, parts in JOINED.items()
        if _holds(present, whole) and not _holds(present, parts[0])
    ]
    table = _with_joined({name: names[name] for name in layout.tensors}, together)
    wanted = dict(tensor_names(table, block, num_layers))
    missing = [key for key in dict.fromkeys(wanted.values()) if key not in present]
    unexpected = sorted(present.difference(wanted.values()))
    if missing or unexpected:
        found = [("lacks", missing), ("holds, unasked for,", unexpected)]
        reason = " and ".join(f"{verb} {listed(keys)}" for verb, keys in found if keys)
        raise ModelError(str(model.path), reason, "get another conversion of the model")
    return wanted


def written_names(
    tensors: Collection[str], architecture: Architecture, block: Mapping[str, JSON]
) -> dict[str, str]:
    """Canonical name → GGUF's name of the tensors of a model that is to be written.

    Args:
        tensors: Their canonical names.
        architecture: What it is written as.
        block: The canonical ``model`` block.

    Raises:
        ModelError: naming those that llama.cpp has no name for.
    """
    num_layers = block["num_layers"]
    assert isinstance(num_layers, int)
    table = _with_joined({**TENSORS, **architecture.renamed}, architecture.joined)
    known = dict(tensor_names(table, block, num_layers))
    unknown = sorted(set(tensors).difference(known))
    if unknown:
        raise ModelError("GGUF", f"has no place for {listed(unknown)}")
    return {name: key for name, key in known.items() if name in tensors}


def _with_joined(names: Mapping[str, str], joined: Iterable[str]) -> dict[str, str]:
    """The same names where some tensors are stored in one."""
    table = dict(names)
    for whole in joined:
        parts = tuple(f"blk.{{n}}.{part}." for part in JOINED[whole])
        for name, theirs in table.items():
            if theirs.startswith(parts):
                table[name] = f"blk.{{n}}.{whole}.{theirs.rpartition('.')[2]}"
    return table


def biases(model: GGUFModel) -> dict[str, JSON]:
    """The canonical fields that say which linears have biases: those whose biases are there."""
    present = model.tensors.keys()
    queries = any(_holds(present, part, "bias") for part in ("attn_q", "attn_qkv"))
    output = _holds(present, "attn_output", "bias")
    attention: JSON = True if queries and output else "qkv" if queries else False
    return {"attention_bias": attention, "mlp_bias": _holds(present, "ffn_up", "bias")}


def _holds(present: Collection[str], name: str, part: str = "weight") -> bool:
    """Whether there is such a tensor of the first layer."""
    return f"blk.0.{name}.{part}" in present
