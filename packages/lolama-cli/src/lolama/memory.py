"""How much memory a model needs, told from its configuration and the headers of its files.

What is predicted for a CPU is the peak of a process over what it takes once torch is imported. A test
compares it with measurements; the constants were fitted to such. Activations are right to within half: how
much of what is freed the C library keeps differs from run to run. That is little beside a model's weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import lolama_core
from lolama import names
from lolama.untied import is_tied
from lolama_core.protocols import CausalLM
from lolama_core.protocols.grouped import FORMATS
from lolama_core.protocols.types import ModelFiles

_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "I32": 4, "I64": 8}
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}

_CHUNK = 512
"""Positions of a prompt that run in one pass."""

_OVERHEAD = 30_400_000
"""Bytes that operators, tokenizer and modules take, whatever the model: measured on Linux and AMD processors.

Twice that was seen on another processor, which has other products.
"""

_RESIDUALS, _PRODUCTS = 8, 4
"""Copies of (chunk, D) and of (chunk, hidden) activations at the peak of a pass, in float32: fitted."""


_NOT_QUANTIZED = ("lm_head.weight", ".router.weight", ".shared_gate.weight")

_OF_EXPERTS = 4
"""Copies of (chunk, D) for each expert of a token: sorted, answered, put back, weighted."""


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Bytes that a generation needs at its peak.

    Attributes:
        weights: Bytes of all tensors, as they are loaded.
        cache: Keys and values, with every position in use.
        activations: Bytes of one pass over a chunk of the prompt.
        overhead: Bytes that the process takes besides; 0 on a GPU.
    """

    weights: int
    cache: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.activations + self.overhead


def needed(
    files: ModelFiles, *, context: int, dtype: str, bits: int = 0, on_cpu: bool = True
) -> PeakMemory:
    """What a generation of one prompt needs, pictures aside.

    Args:
        files: The model.
        context: Positions of prompt and answer together.
        dtype: ``float32``, ``bfloat16`` or ``float16``, what the weights are loaded as.
        bits: What `wiring.quantized` makes of it: 8, 4, or 0 as it is.
        on_cpu: Where activations are float32 and the process counts.

    Raises:
        ModelError: if a header cannot be read.
    """
    shape = names.text_shape(files)

    def size(name: str, default: int = 0) -> int:
        value = shape.get(name)
        return value if isinstance(value, int) else default

    width, heads = size("d_model"), size("num_heads", 1)
    head_dim = size("head_dim") or width // heads
    keys = (size("num_kv_heads") or heads) * head_dim
    chunk = min(_CHUNK, context)
    activation = 4 if on_cpu else _WIDTHS[dtype]
    inner = max(size("hidden_dim"), size("expert_dim"), size("shared_expert_dim"))
    copies = _RESIDUALS + _OF_EXPERTS * size("experts_per_token")
    activations = chunk * (copies * width + _PRODUCTS * inner) * activation
    if on_cpu and dtype != "float32":  # attention over many positions widens keys and values
        activations += 2 * context * keys * 4
    return PeakMemory(
        weights=weight_bytes(files, dtype, bits=bits),
        cache=2 * size("num_layers") * context * keys * _WIDTHS[dtype],
        activations=activations,
        overhead=_OVERHEAD if on_cpu else 0,
    )


def weight_bytes(files: ModelFiles, dtype: str, *, bits: int = 0) -> int:
    """Bytes of a model's tensors once they are loaded; see `needed`."""
    quantization = files.config.get("quantization", {})
    declared, formats = quantization.get("tensors", {}), quantization.get("formats", {})
    assert isinstance(declared, dict) and isinstance(formats, dict)
    total = 0
    for name, dims, stored in _tensors(files):
        elements = math.prod(dims)
        if name in declared and stored not in _BYTES:  # blocks of GGUF
            total += _grouped(dims, str(formats.get(name.removesuffix(".weight"), "int4")))
        elif name in declared:
            total += elements * _BYTES.get(stored, 4)
        elif bits and not declared and _is_quantized(name, dims):
            total += _grouped(dims, "int4") if bits == 4 else _int8(dims)
        elif bits == 4 and not declared and name.endswith("embed_tokens.weight"):
            total += _grouped(dims, "int4") + (_int8(dims) if is_tied(files.config["model"]) else 0)
        elif bits == 4 and not declared and name.endswith("lm_head.weight"):
            total += _int8(dims)
        else:
            total += elements * (4 if len(dims) == 1 else _WIDTHS[dtype])
    return total


def _grouped(dims: tuple[int, ...], form: str) -> int:
    parts = FORMATS[form].tensors(math.prod(dims[:-1]), dims[-1]).values()
    return sum(math.prod(shape) * _BYTES[dtype] for dtype, shape in parts)


def _int8(dims: tuple[int, ...]) -> int:
    return math.prod(dims) + 4 * math.prod(dims[:-1])  # a scale for each row


def parameters(files: ModelFiles) -> int:
    """Number of parameters. Scales of quantized weights are none, and a byte holds two of four bits."""
    return sum(
        math.prod(dims) * (2 if stored == "U8" else 1)
        for name, dims, stored in _tensors(files)
        if not name.endswith("scale")
    )


def _is_quantized(name: str, dims: tuple[int, ...]) -> bool:
    """Whether it is the weight of a linear that `QuantizationScheme` does not skip."""
    # All experts of a layer may be one tensor.
    is_weight = name.endswith(".weight") and (len(dims) == 2 or ".experts." in name)
    return is_weight and "embed" not in name and not name.endswith(_NOT_QUANTIZED)


def _tensors(files: ModelFiles) -> list[tuple[str, tuple[int, ...], str]]:
    """Canonical name, stored shape and stored dtype of each tensor; what is tied counts once.

    A weight in blocks of GGUF comes by its own name, whatever else is made of these blocks.
    """
    io = lolama_core.FileCheckpointIO()
    headers = {path: io.header(path) for path in {one.path for one in files.tensors.values()}}
    seen: set[tuple[object, str]] = set()
    found = []
    for name, one in sorted(
        files.tensors.items(), key=lambda item: (item[0].endswith("scale"), item[0])
    ):
        if (one.path, one.key) not in seen:
            seen.add((one.path, one.key))
            header = headers[one.path][one.key]
            found.append((name, tuple(header.shape), header.dtype))
    return found


def kept_bytes(
    model: CausalLM, cache_dtype: Literal["int8"] | None = None, draft: object = None
) -> int:
    """Bytes that a `PrefixCache` needs for one whole context, of a draft model, too, if there is one."""
    drafts = context_bytes(draft) if isinstance(draft, CausalLM) else 0
    return context_bytes(model, cache_dtype) + drafts


def context_bytes(model: CausalLM, cache_dtype: Literal["int8"] | None = None) -> int:
    """Bytes of the keys and values of a loaded model's whole context."""
    cache = cast(lolama_core.KVCache, model.make_cache(1, 1))
    layers = cache.read_row(0)  # (K, 0, head_dim) each
    # A vector of int8 has a scale of two bytes.
    vectors = [
        (t.shape[0], t.shape[2] * t.element_size() if cache_dtype is None else t.shape[2] + 2)
        for pair in layers
        for t in pair
    ]
    position = sum(count * width for count, width in vectors)
    return int(position * model.max_seq_len)
