"""The metadata of a GGUF file, value by value, and what they say of rotary embeddings."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import cast

from lolama_core.protocols.checkpoint import GGUFHeader, TensorHeader
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields, shown

ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3_LENGTH = 8192


class GGUFModel(Fields):
    """What the files of one model say before their weights.

    A key of the model's own architecture is read without its prefix: ``llama.block_count`` as
    ``block_count``. Numbers that a file has as float32 are those that were meant: 0.22, not 0.219999998….

    Args:
        headers: Those of all its files, in order.
    """

    def __init__(self, headers: Sequence[GGUFHeader]) -> None:
        first = headers[0]
        self.first = first
        self.metadata = cast(Mapping[str, JSON], first.metadata)
        self.architecture = self.metadata.get("general.architecture")
        prefix = f"{self.architecture}."
        own = {
            key.removeprefix(prefix): _meant(value)
            for key, value in self.metadata.items()
            if key.startswith(prefix)
        }
        super().__init__(first.path, own, block=str(self.architecture))
        self.tensors: dict[str, TensorHeader] = {}
        self.headers: dict[str, GGUFHeader] = {}
        for header in headers:
            self.tensors.update(header.tensors)
            self.headers.update(dict.fromkeys(header.tensors, header))

    def general(self, prefix: str) -> Fields:
        """The metadata whose keys begin with ``prefix``, without it."""
        own = {
            key.removeprefix(f"{prefix}."): _meant(value)
            for key, value in self.metadata.items()
            if key.startswith(f"{prefix}.")
        }
        return Fields(self.path, own, block=prefix)

    def same(self, name: str) -> int:
        """A number that may be listed for each layer, and has to be one number for all of them.

        Raises:
            ModelError: if it is not.
        """
        value = self.get(name)
        if isinstance(value, list) and value and all(one == value[0] for one in value):
            return Fields(self.path, {name: value[0]}, block=self.block).integer(name)
        if isinstance(value, list):
            raise self.refuse(name, "the same number for all layers")
        return self.integer(name)

    def number_or(self, name: str, default: float) -> float:
        """A number, or ``default`` where there is none."""
        if self.get(name) is None:
            return default
        return self.number(name, low=-1e12, high=1e12)

    @property
    def head_dim(self) -> int:
        """The width of a head.

        Raises:
            ModelError: if it is not given and no part of the width, or another one for values.
        """
        if self.get("attention.key_length") is None:
            width, heads = self.integer("embedding_length"), self.same("attention.head_count")
            if width % heads:
                raise self.refuse(
                    "attention.head_count", f"a divisor of embedding_length ({width})"
                )
            return width // heads
        width = self.integer("attention.key_length")
        if self.get("attention.value_length") not in (None, width):
            raise self.refuse("attention.value_length", f"{width}, as keys have it")
        return width

    def factors(self, name: str) -> list[JSON] | None:
        """The factors of rotary pairs in a tensor; None if there is no such tensor.

        Raises:
            ModelError: if there are more or fewer than pairs.
        """
        if name not in self.tensors:
            return None
        rotated = self.get("rope.dimension_count")
        pairs = (self.head_dim if rotated is None else self.integer("rope.dimension_count")) // 2
        if self.tensors[name].shape != (pairs,):
            reason = (
                f"tensor {shown(name)} has shape {self.tensors[name].shape}, expected {(pairs,)}"
            )
            raise ModelError(str(self.headers[name].path), reason, "get the file again")
        return [_meant(one) for one in self.headers[name].numbers(name)]


def read_rope(model: GGUFModel) -> dict[str, JSON]:
    """What config.json would have as ``rope_parameters``.

    llama.cpp's converter writes the scaling of Llama 3 as a factor for each pair, which is taken for what
    it came from, and where it came from nothing that is known, for factors of LongRoPE.

    Raises:
        ModelError: naming the key.
    """
    sections = model.get("rope.dimension_sections")
    if isinstance(sections, list) and any(sections):
        raise model.refuse("rope.dimension_sections", "zeros: places in pictures are not supported")
    found: dict[str, JSON] = {"rope_theta": model.number_or("rope.freq_base", 10000.0)}
    rotated = model.get("rope.dimension_count")
    if rotated is not None and rotated != model.head_dim:
        whole = model.head_dim
        part = model.integer("rope.dimension_count", high=whole)
        found["partial_rotary_factor"] = (part + 0.5) / whole  # of which the whole number counts
    length = model.integer("context_length")
    if model.get("rope.scaling.original_context_length") is not None:
        length = model.integer("rope.scaling.original_context_length")
    long = model.factors("rope_factors_long.weight")
    short = model.factors("rope_factors_short.weight")
    if long is not None and short is not None:
        found |= _longrope(short, long, length)
        if model.get("rope.scaling.attn_factor") is not None:
            found["attention_factor"] = model.get("rope.scaling.attn_factor")
        return found
    alone = model.factors("rope_freqs.weight")
    if alone is not None:
        return found | _as_llama3(found, model, alone, length)
    kind = model.get("rope.scaling.type")
    factor = model.number_or("rope.scaling.factor", model.number_or("rope.scale_linear", 1.0))
    if kind not in (None, "none", "linear", "yarn", "longrope"):
        raise model.refuse("rope.scaling.type", "none, linear, yarn or longrope")
    if kind == "longrope":
        raise model.refuse("rope.scaling.type", "none, linear or yarn, without factors of pairs")
    if kind == "yarn":
        return found | _yarn(model, factor, length)
    if kind == "none" or factor in (0, 1):
        return found
    stretched: dict[str, JSON] = {"rope_type": "linear", "factor": factor}
    return found | stretched | {"original_max_position_embeddings": length}


def _yarn(model: GGUFModel, factor: float, length: int) -> dict[str, JSON]:
    found: dict[str, JSON] = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": length,
    }
    for theirs, ours in (
        ("yarn_beta_fast", "beta_fast"),
        ("yarn_beta_slow", "beta_slow"),
        ("yarn_attn_factor", "attention_factor"),
        ("yarn_log_multiplier", "mscale_all_dim"),
    ):
        if model.get(f"rope.scaling.{theirs}") is not None:
            found[ours] = model.get(f"rope.scaling.{theirs}")
    if "mscale_all_dim" in found:
        found["mscale"] = 1.0
    return found


def _longrope(short: list[JSON], long: list[JSON], length: int) -> dict[str, JSON]:
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": length,
    }


def _as_llama3(
    rope: Mapping[str, JSON], model: GGUFModel, factors: list[JSON], length: int
) -> dict[str, JSON]:
    """The settings of Llama 3 that give these factors, if there are; else the factors themselves."""
    if all(one == 1 for one in factors):
        return {}
    numbers, theta = cast(list[float], factors), rope["rope_theta"]
    assert isinstance(theta, float)
    factor = max(numbers, default=1.0)
    expected = llama3_factors(theta, 2 * len(numbers), factor, _LLAMA3_LENGTH, **_LLAMA3)
    if all(abs(one - other) <= 1e-4 * other for one, other in zip(numbers, expected, strict=True)):
        return {
            "rope_type": "llama3",
            "factor": factor,
            "original_max_position_embeddings": _LLAMA3_LENGTH,
            **_LLAMA3,
        }
    same = _longrope(factors, factors, length)
    return same | {"factor": 1.0, "attention_factor": 1.0}


def llama3_factors(
    theta: float,
    width: int,
    factor: float,
    length: int,
    low_freq_factor: float,
    high_freq_factor: float,
) -> list[float]:
    """What the frequencies of Llama 3.1 and its kin are divided by, pair after pair."""
    low, high = low_freq_factor, high_freq_factor
    found: list[float] = []
    for pair in range(width // 2):
        rotations = length * theta ** (-2 * pair / width) / (2 * 3.141592653589793)
        keep = min(max((rotations - low) / (high - low), 0.0), 1.0)
        found.append(1 / ((1 - keep) / factor + keep))
    return found


def _meant(value: JSON) -> JSON:
    """The shortest decimal number that float32 rounds to this one, where it is such a number."""
    if not isinstance(value, float):
        return value
    try:
        stored = struct.pack("f", value)
        if struct.unpack("f", stored)[0] != value:
            return value
        shorter = (float(f"{value:.{digits}g}") for digits in range(6, 9))
        return next((one for one in shorter if struct.pack("f", one) == stored), value)
    except OverflowError:
        return value
