"""Rotary embedding settings: every spelling config.json has had, and what each means for the length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lolama_core.protocols.checks import is_number
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import LARGEST_INTEGER, Fields, shown

DEFAULT_THETA = 10000.0

# The limits are core's; a value beyond them is refused here, where the file's own spelling is known.
_BASE = {"low": 1.0, "high": 1e12}
_POSITIVE = {"low": 1e-6, "high": 1e6}


@dataclass(frozen=True)
class Rope:
    """Canonical rotary settings.

    Attributes:
        base: θ.
        scaling: The canonical ``rope_scaling`` block, or None.
        max_seq_len: Positions the model can use once stretched.
        part: The part of each head that is rotated.
        switches: Canonical fields of what else the architecture does with positions.
    """

    base: float
    scaling: dict[str, JSON] | None
    max_seq_len: int
    part: float = 1.0
    switches: Mapping[str, JSON] = field(default_factory=dict)


def read_rope(config: Fields, *, partial: bool = False) -> Rope:
    """Read ``rope_parameters`` (transformers 5), else ``rope_scaling`` with ``rope_theta`` beside it.

    Defaults and formulas are those of transformers' ``modeling_rope_utils``, but where it would guess or
    warn, this refuses: two blocks that disagree, different settings by layer, a factor below 1.

    Args:
        config: config.json.
        partial: Whether the architecture may rotate only a part of each head.

    Raises:
        ModelError: naming the field.
    """
    if not partial:
        _refuse_partial_rotation(config)
    # An empty block says nothing, and transformers skips it too.
    blocks = [
        name for name in ("rope_parameters", "rope_scaling") if config.get(name) not in (None, {})
    ]
    readings = [_read_block(config, name, partial) for name in blocks or [""]]
    if any(reading != readings[0] for reading in readings):
        raise ModelError(
            str(config.path), "rope_parameters and rope_scaling disagree", "remove the wrong one"
        )
    return readings[0]


def _refuse_partial_rotation(fields: Fields) -> None:
    if fields.get("partial_rotary_factor") not in (None, 1):
        raise fields.refuse("partial_rotary_factor", "1: only whole heads are rotated here")


def _read_block(config: Fields, name: str, partial: bool) -> Rope:
    values = config.get(name) if name else {}
    if not isinstance(values, dict) or any(isinstance(value, dict) for value in values.values()):
        raise config.refuse(name, "one object of settings for all layers")
    theta = config.defaults.get("rope_theta", DEFAULT_THETA)
    block = Fields(config.path, values, {"rope_theta": theta}, name)
    if not partial:
        _refuse_partial_rotation(block)
    told = block if "partial_rotary_factor" in block else config
    part = 1.0
    if told.get("partial_rotary_factor") is not None:
        part = told.number("partial_rotary_factor", low=1e-6, high=1.0)
    place = config if "rope_theta" in config and "rope_theta" not in block else block
    base = place.number("rope_theta", **_BASE)
    key = "type" if "type" in block and "rope_type" not in block else "rope_type"
    kind = block.get(key) if key in block else "default"
    length = config.integer("max_position_embeddings")
    if kind == "default":
        return Rope(base, None, length, part)
    if not isinstance(kind, str) or kind not in _READERS:
        known = ", ".join(["default", *_READERS])
        raise ModelError(
            str(config.path),
            f"{name}.{key} {shown(kind)} is not supported",
            f"use a model with one of {known}",
        )
    if kind == "yarn" and base <= 1:  # of which it divides by the logarithm
        raise place.refuse("rope_theta", "a number above 1, with yarn")
    original = _original_length(config, block, length)
    is_left_out = block.get("factor") is None and ("factor" in block or kind == "longrope")
    if kind in ("yarn", "longrope") and is_left_out:
        factor = max(1.0, length / original)
    else:
        factor = block.number("factor", low=1.0, high=1e6)
    # A configuration gives either the original length or the stretched one; it can only be the stretched
    # one if it is the longer of two.
    stretched = length if length > original or kind == "llama3" else int(original * factor)
    scaling: dict[str, JSON] = {
        "type": kind,
        "factor": factor,
        # transformers' dynamic scaling starts past this length, whatever the block calls the original.
        "original_max_seq_len": length if kind == "dynamic" else original,
    }
    scaling |= _READERS[kind](block, factor)
    return Rope(base, scaling, min(stretched, LARGEST_INTEGER), part)


def _original_length(config: Fields, block: Fields, length: int) -> int:
    """Positions before stretching: beside the block (it wins in transformers), inside it, or the length."""
    name = "original_max_position_embeddings"
    for fields in (config, block):
        if fields.get(name) is not None:
            return fields.integer(name)
    return length


def _no_more(_block: Fields, _factor: float) -> dict[str, JSON]:
    return {}


def _llama3(block: Fields, _factor: float) -> dict[str, JSON]:
    low = block.number("low_freq_factor", **_POSITIVE)
    high = block.number("high_freq_factor", **_POSITIVE)
    if high <= low:
        raise block.refuse("high_freq_factor", f"more than low_freq_factor ({low:g})")
    return {"low_freq_factor": low, "high_freq_factor": high}


def _yarn(block: Fields, factor: float) -> dict[str, JSON]:
    def number_or(name: str, default: float) -> float:
        return block.number(name, low=0.0, high=1e6) if block.get(name) is not None else default

    # Zero means "not given" to transformers, for the betas and both mscales.
    beta_fast, beta_slow = number_or("beta_fast", 0.0) or 32.0, number_or("beta_slow", 0.0) or 1.0
    if beta_fast < beta_slow:
        raise block.refuse("beta_fast", f"no less than beta_slow ({beta_slow:g})")
    mscale, mscale_all = number_or("mscale", 0.0), number_or("mscale_all_dim", 0.0)
    if block.get("attention_factor") is not None:
        attention = block.number("attention_factor", **_POSITIVE)
    elif mscale and mscale_all:
        attention = _magnitude(factor, mscale) / _magnitude(factor, mscale_all)
    else:
        attention = _magnitude(factor, 1.0)
    truncate = block.boolean("truncate") if "truncate" in block else True
    return {
        "beta_fast": beta_fast,
        "beta_slow": beta_slow,
        "attention_factor": attention,
        "truncate": truncate,
    }


def _longrope(block: Fields, _factor: float) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    for name in ("short_factor", "long_factor"):
        factors = block.get(name)
        if not isinstance(factors, list) or not all(is_number(one, 1e-6, 1e6) for one in factors):
            raise block.refuse(name, "a list of numbers, one for each pair that is rotated")
        found[name] = list(factors)
    if block.get("attention_factor") is not None:
        found["attention_factor"] = block.number("attention_factor", **_POSITIVE)
    return found


def _magnitude(factor: float, mscale: float) -> float:
    """Peng et al. 2023, equation 22: how much cos and sin grow with the stretched length."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


_READERS: dict[str, Callable[[Fields, float], dict[str, JSON]]] = {
    "linear": _no_more,
    "dynamic": _no_more,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
