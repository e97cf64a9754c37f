"""How a model is quantized: what a caller chooses, and what follows from it for a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import lolama_core
import lolama_quant
from lolama.file_facts import looked_through
from lolama.requantize import formats_to_come, requantized_scheme
from lolama.steps import Steps, counted
from lolama.untied import is_tied
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.protocols.types import ModelFiles

if TYPE_CHECKING:
    from torch import nn

_CALIBRATION_DOCUMENTS = 40

EMBEDDING_BITS = (4, 16)
"""What an embedding can have beside linears of 4 bits, first what it usually has."""

LM_HEAD_BITS = (8, 4, 16)
"""The same of ``lm_head``."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is quantized.

    Attributes:
        bits: How many weights get, 8 or 4.
        lm_head: With 8 bits, whether ``lm_head`` is quantized, too. One that is tied to the embedding gets a
            weight of its own: the embedding keeps its precision.
        embedding_bits: With 4 bits, how many the embedding gets, 4 or 16 (its own precision).
        lm_head_bits: With 4 bits, how many ``lm_head`` gets, 4, 8 or 16. One that is tied to the embedding
            gets a weight of its own, unless both get as many.
        outliers: Input columns of each linear that keep their precision: those with the largest activations
            on the text that ships with lolama-quant.
        calibration: With 4 bits, whether weights inside the blocks of a language model are fitted to text.
        text: That text. None: the model writes one itself.

    A model from a GGUF file that is quantized in part is fitted to no text.

    Raises:
        UsageError: for a number of bits that the embedding or ``lm_head`` cannot have.
    """

    bits: int = 8
    lm_head: bool = False
    embedding_bits: int = EMBEDDING_BITS[0]
    lm_head_bits: int = LM_HEAD_BITS[0]
    outliers: int = 0
    calibration: bool = True
    text: str | None = None

    def __post_init__(self) -> None:
        # Before the model is fetched.
        _formats(self.embedding_bits, self.lm_head_bits)

    @property
    def unties(self) -> bool:
        """Whether ``lm_head`` has other numbers than an embedding that it is tied to."""
        return self.lm_head if self.bits == 8 else self.embedding_bits != self.lm_head_bits

    @property
    def are_usual(self) -> bool:
        """Whether ``--quantize`` looks for a model with these embeddings, ``lm_head`` and outliers."""
        if self.bits == 8:
            return not self.lm_head and self.outliers == 0
        return (self.embedding_bits, self.lm_head_bits) == (EMBEDDING_BITS[0], LM_HEAD_BITS[0])

    @property
    def text_digest(self) -> str | None:
        """What tells a text from others; None for what the model writes itself, or no text."""
        return None if self.text is None else hashlib.sha256(self.text.encode()).hexdigest()

    def fits(self, made: ModelFiles) -> bool:
        """Whether a quantized model, found by `key_of`, was fitted to the same text."""
        return made.config.get("source", {}).get("text") == self.text_digest

    def is_done(self, files: ModelFiles) -> bool:
        """Whether a model is quantized already, and nothing of it is left to quantize."""
        return "quantization" in files.config and not self.left(files)

    def left(self, files: ModelFiles) -> dict[str, str]:
        """See `requantize.formats_to_come`."""
        ends = {"lm_head": "int8"} if self.lm_head else {}
        if self.bits == 4:
            ends = _formats(self.embedding_bits, self.lm_head_bits)
        return formats_to_come(files, self.bits, ends)


def int4_scheme(embedding_bits: int, lm_head_bits: int) -> QuantizationScheme:
    """Linears of 4 bits, and what the embedding and ``lm_head`` get beside them.

    Raises:
        UsageError: for a number of bits that they cannot have.
    """
    formats = _formats(embedding_bits, lm_head_bits)
    skipped = ("lm_head",) if lm_head_bits == 16 else ()
    return QuantizationScheme(name="int4", skipped=skipped, formats=formats)


def _formats(embedding_bits: int, lm_head_bits: int) -> dict[str, str]:
    """Name → format, of those of a model's two ends that are quantized; checks the numbers of bits."""
    _check_bits("embedding_bits", embedding_bits, EMBEDDING_BITS)
    _check_bits("lm_head_bits", lm_head_bits, LM_HEAD_BITS)
    bits = {"embed_tokens": embedding_bits, "lm_head": lm_head_bits}
    return {name: f"int{count}" for name, count in bits.items() if count != 16}


def _check_bits(name: str, bits: int, known: Sequence[int]) -> None:
    if bits not in known:
        *most, last = map(str, sorted(known))
        reason = f"{bits} is not one of {', '.join(most)} and {last}"
        raise UsageError(name, reason, "use one of them")


def scheme_of(files: ModelFiles, options: Options, steps: Steps | None) -> QuantizationScheme:
    """Which layers get which numbers.

    ``steps`` is told how many documents are read, where outliers are to be found.
    """
    if left := options.left(files):
        return requantized_scheme(files, left)
    if options.bits == 4:
        return int4_scheme(options.embedding_bits, options.lm_head_bits)
    skipped = () if options.lm_head else QuantizationScheme(name="int8").skipped
    scheme = QuantizationScheme(name="int8", skipped=skipped)
    if options.outliers == 0:
        return scheme
    with looked_through(files) as files:
        model = lolama_core.load_model(files, lolama_core.installed_families())
    tokenizer = lolama_core.load_tokenizer(files)
    columns = lolama_core.installed_quantizer("int8").outlier_columns(
        cast("nn.Module", model), scheme, options.outliers, lambda: _read(model, tokenizer, steps)
    )
    return replace(scheme, outlier_columns=columns)


def key_of(files: ModelFiles, options: Options) -> dict[str, str | int | bool]:
    """What tells a quantized form of a model from its other ones; of those of any text one is kept."""
    scheme = QuantizationScheme(name=f"int{options.bits}")
    key: dict[str, str | int | bool] = {
        "quantizer": scheme.name,
        "version": scheme.version,
        "lm_head": options.lm_head and options.bits == 8,  # with 4 bits it always is
        "outliers": options.outliers,
    }
    if options.bits == 4:
        key |= {"calibration": options.calibration}
        usual = Options(bits=4)
        for name in ("embedding_bits", "lm_head_bits"):
            if getattr(options, name) != getattr(usual, name):  # else found as what was kept before
                key |= {name: getattr(options, name)}
    # Before 0.2 a tied lm_head stayed tied: what was kept then must not be found now.
    return key | ({"untied": True} if options.unties and is_tied(files.config["model"]) else {})


def _read(model: CausalLM, tokenizer: lolama_core.Tokenizer, steps: Steps | None) -> None:
    import torch

    texts = lolama_quant.default_text()[:_CALIBRATION_DOCUMENTS]
    for text in counted(texts, len(texts), steps):
        ids = tokenizer.encode_ids(text)[: model.max_seq_len]
        prompt = model.embed(torch.tensor([list(ids)], device=model.device))
        model.forward_embeds(prompt, logits="all")
