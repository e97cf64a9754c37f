"""What fewer bits cost: every scheme of lolama beside those of llama.cpp, on held-out stories.

    python -m benchmarks.quality demo ./folder --json results/quality.json

All are compared with lolama in float32 by `lolama_quant.measure_quality`, over the same tokens. llama.cpp has
the same weights, quantized by its own quantizer, also with E[x²] of a text that the model writes (its
"importance matrix"). *Linears alone*: embedding and head are in bfloat16 on both sides. The models are
checkpoints of lolama in bfloat16, in the layout of LLaMA.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.make_model import requantize_gguf, write_gguf
from benchmarks.native_engines import LlamaCppEngine
from benchmarks.run import processor
from benchmarks.tables import quality_tables
from lolama import names, quantize, wiring
from lolama.calibration import own_text
from lolama.quantize import Options
from lolama_core import FileCheckpointIO, Llama, prompt_logits
from lolama_core.protocols import CausalLM, PromptLogits, Tokenizer
from lolama_core.protocols.types import ModelFiles
from lolama_quant import default_text, measure_quality
from lolama_quant.int4.moments import Moments

_NAMES = (
    (r"^layers\.", "model.layers."),
    (r"^(embed_tokens|norm)\.", r"model.\1."),
    (r"\.attention\.", ".self_attn."),
    (r"\.feed_forward\.w_(\w+)\.", r".mlp.\1_proj."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
)


class LlamaCppModel(LlamaCppEngine):
    """llama.cpp, for the logits of all positions of a text."""

    def logits(self, ids: Sequence[int]) -> Tensor:
        """(T, V) float32."""
        import numpy as np

        self._reserve(1, len(ids))
        self.api.llama_memory_clear(self.memory, False)
        batch = self.api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for place, one in enumerate(ids):
            batch.token[place], batch.pos[place] = one, place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = True
        self._decode(batch)
        self.api.llama_batch_free(batch)
        pointer = self.api.llama_get_logits(self.context)
        found = np.ctypeslib.as_array(pointer, shape=(len(ids), self.vocabulary))
        return torch.from_numpy(found.copy())


def hugging_face_name(name: str) -> str:
    """lolama's name of a tensor → Hugging Face's."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


LOLAMA = {
    "int8": Options(),
    "int8, lm_head too": Options(lm_head=True),
    "int4": Options(bits=4),
    "int4, no calibration": Options(bits=4, calibration=False),
}
LLAMA_CPP = ("bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
IMPORTANCE = "q4_k_m, importance matrix"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model beside the reference, and what its file says of it.

    Attributes:
        engine, weights: What runs it, and the scheme.
        linears_alone: Whether embedding and head are in sixteen bits, so that the linears alone differ.
        linear_bits: Bits of a weight of the linears inside blocks, scales included.
        bits: Bits of a weight of the whole model. A head that is tied in the reference counts as no weights.
        types: What llama.cpp stores the linears inside blocks as.
        model: The model itself.
    """

    engine: str
    weights: str
    linears_alone: bool
    linear_bits: float
    bits: float
    types: str
    model: CausalLM


def of_lolama(files: ModelFiles, folder: Path) -> Iterator[Candidate]:
    """Every scheme, as `lolama quantize` writes it."""
    dense = _tensor_bytes(files)
    yield Candidate(
        engine="lolama",
        weights="bfloat16",
        linears_alone=False,
        linear_bits=16.0,
        bits=16.0,
        types="",
        model=_loaded(files, "bfloat16"),
    )
    for label, options in LOLAMA.items():
        made = quantize.save(files, folder / label, options)
        sizes = _tensor_bytes(made)
        alone = {name: size for name, size in dense.items() if not _is_inside(name)}
        alone |= {name: size for name, size in sizes.items() if _is_inside(name)}
        for linears_alone in (False, True):
            if linears_alone and options.lm_head:
                continue  # the linears of the int8 before it
            model = _loaded(made, "float32")
            if linears_alone:
                reference = _loaded(files, "float32")
                model.embed_tokens, model.lm_head = reference.embed_tokens, reference.lm_head
            linear_bits, bits = _bits(alone if linears_alone else sizes, dense)
            yield Candidate(
                engine="lolama",
                weights=label,
                linears_alone=linears_alone,
                linear_bits=linear_bits,
                bits=bits,
                types="",
                model=model,
            )


@torch.no_grad()
def importance(model: Llama, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Hugging Face name → E[x²] of each input of a linear inside blocks, on a text that the model writes."""
    linears = [name for name, one in model.layers.named_modules() if isinstance(one, nn.Linear)]
    texts = own_text(model, tokenizer, lambda done, total: None)
    moments = Moments(model.layers, linears)
    moments.gather(lambda: [model(ids) for ids in texts])
    found = {}
    for name in linears:
        moment = moments.of(name)
        assert moment is not None, f"{name} reads fewer tokens than it has inputs"
        found[hugging_face_name(f"layers.{name}.weight")] = moment.diagonal()
    return found


def of_llama_cpp(reference: Llama, tokenizer: Tokenizer, folder: Path) -> Iterator[Candidate]:
    """The same weights as llama.cpp's own quantizer stores them."""
    import gguf

    weights = {
        hugging_face_name(name): tensor.float()
        for name, tensor in reference.state_dict().items()
        if not (name == "lm_head.weight" and reference.config.tie_word_embeddings)
    }
    source = folder / "source.gguf"
    write_gguf(source, reference.config, weights, "bf16")
    squares = importance(reference, tokenizer)
    for label in (*LLAMA_CPP, IMPORTANCE):
        kind, _, more = label.partition(", ")
        for linears_alone in (False,) if kind == "bf16" else (False, True):
            path = folder / f"{label}-{linears_alone}.gguf"
            used = squares if more else None
            requantize_gguf(path, source, kind, linears_alone=linears_alone, importance=used)
            tensors = gguf.GGUFReader(path).tensors
            inside = [one for one in tensors if re.match(_GGUF_LINEAR, one.name)]
            types = Counter(one.tensor_type.name for one in inside)
            model: Any = LlamaCppModel(str(path), torch.get_num_threads())
            yield Candidate(
                engine="llama.cpp",
                weights=label.replace(kind, kind.upper()),
                linears_alone=linears_alone,
                linear_bits=_share(inside),
                bits=_share(tensors),
                types=", ".join(name for name, _ in types.most_common()),
                model=model,
            )


_GGUF_LINEAR = r"blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.weight"


def _share(tensors: Sequence[Any]) -> float:
    """Bits of a weight of some tensors in a GGUF file."""
    return 8 * float(sum(one.n_bytes for one in tensors) / sum(one.n_elements for one in tensors))


def _loaded(files: ModelFiles, dtype: str) -> Llama:
    return cast(Llama, wiring.load_files(files, device="cpu", dtype=dtype))


def _tensor_bytes(files: ModelFiles) -> dict[str, int]:
    """Name → bytes in the file."""
    io = FileCheckpointIO()
    entries = {name: io.header(one.path)[one.key] for name, one in files.tensors.items()}
    return {name: one.end - one.begin for name, one in entries.items()}


def _is_inside(name: str) -> bool:
    """Whether a tensor is of a linear inside a block."""
    return re.match(r"layers\.\d+\.(attention|feed_forward)\.", name) is not None


def _bits(sizes: Mapping[str, int], dense: Mapping[str, int]) -> tuple[float, float]:
    """Bits of a weight of the linears inside blocks, and of all, beside the sizes in sixteen bits."""
    inside = [sum(size for name, size in one.items() if _is_inside(name)) for one in (sizes, dense)]
    return 16 * inside[0] / inside[1], 16 * sum(sizes.values()) / sum(dense.values())


def remembering(reference: CausalLM) -> PromptLogits:
    """`prompt_logits`, which reads a text with the reference once; and with llama.cpp's models, too."""
    known: dict[tuple[object, ...], Tensor] = {}

    def read(model: CausalLM, ids: Sequence[int], chunk: int | None = None, /) -> Tensor:
        if isinstance(model, LlamaCppModel):
            return model.logits(ids)
        if model is not reference:
            return prompt_logits(model, ids, chunk)
        key = (*ids, chunk)
        if key not in known:
            known[key] = prompt_logits(model, ids, chunk)
        return known[key]

    return read


def measured(name: str) -> list[dict[str, Any]]:
    """Each scheme's distance from lolama in float32."""
    files = names.resolve(name)
    tokenizer, texts = wiring.tokenizer_of(files), default_text()
    reference = _loaded(files, "float32")
    read, found = remembering(reference), []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for one in chain(of_lolama(files, place), of_llama_cpp(reference, tokenizer, place)):
            report = measure_quality(reference, one.model, tokenizer, texts, read=read)
            facts = {field.name: getattr(one, field.name) for field in fields(one)}
            del facts["model"]
            found.append({**facts, **report.to_json()})
            print(one.engine, one.weights, report.quantized, flush=True)
    return found


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", default=["demo"], metavar="MODEL", help="names or folders; demo"
    )
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    LlamaCppModel.import_library()
    packages = ("torch", "lolama-core", "lolama-quant", "llama-cpp-python")
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "versions": {name: version(name) for name in packages},
        "quality": {Path(name).name: measured(name) for name in options.models},
    }
    print(quality_tables(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
