"""What eight bits cost the built-in model: lolama's int8 beside llama.cpp's Q8_0, on held-out stories.

    python -m benchmarks.quality --json results/quality.json

All are compared with lolama in float32 by `lolama_quant.measure_quality`, over the same tokens.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.make_model import write_gguf
from benchmarks.native_engines import LlamaCppEngine
from benchmarks.tables import quality_table
from lolama import names, wiring
from lolama.model import quantize_model_int8
from lolama_core import Llama
from lolama_core.protocols import CausalLM
from lolama_core.runtime.runner import runner_of
from lolama_quant import QualityReport, default_text, measure_quality

_NAMES = (
    (r"^layers\.", "model.layers."),
    (r"^(embed_tokens|norm)\.", r"model.\1."),
    (r"\.attention\.", ".self_attn."),
    (r"\.feed_forward\.w_(\w+)\.", r".mlp.\1_proj."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
)


class _NoCache:
    """llama.cpp keeps its own."""

    def advance(self, counts: Sequence[int]) -> None:
        pass


class LlamaCppModel(LlamaCppEngine):
    """llama.cpp as far as `measure_quality` asks of a model: logits of all positions of a text."""

    device = torch.device("cpu")

    def make_cache(self, batch_size: int, capacity: int) -> _NoCache:
        """See `CausalLM`."""
        assert batch_size == 1
        self._reserve(1, capacity)
        self.api.llama_memory_clear(self.memory, False)
        self.position = 0
        return _NoCache()

    def embed(self, ids: Tensor) -> Tensor:
        """The ids themselves."""
        return ids

    def forward_embeds(self, ids: Tensor, cache: _NoCache, *, logits: str) -> Tensor:
        """(1, T) → (1, T, V) float32."""
        import numpy as np

        assert logits == "all"
        row = ids[0].tolist()
        batch = self.api.llama_batch_init(len(row), 0, 1)
        batch.n_tokens = len(row)
        for place, one in enumerate(row):
            batch.token[place], batch.pos[place] = one, self.position + place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = True
        self._decode(batch)
        self.api.llama_batch_free(batch)
        self.position += len(row)
        pointer = self.api.llama_get_logits(self.context)
        found = np.ctypeslib.as_array(pointer, shape=(len(row), self.vocabulary))
        return torch.from_numpy(found.copy())[None]


def hugging_face_name(name: str) -> str:
    """lolama's name of a tensor → Hugging Face's."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def reports() -> dict[str, QualityReport]:
    """Each engine's distance from lolama in float32."""
    files = names.resolve("demo")
    tokenizer, texts = wiring.tokenizer_of(files), default_text()

    def model(dtype: str = "float32") -> Llama:
        return cast(Llama, wiring.load_files(files, device="cpu", dtype=dtype))

    reference = model()
    models: dict[str, CausalLM] = {"lolama bfloat16": model("bfloat16")}
    models["lolama int8"] = int8 = model()
    quantize_model_int8(cast(nn.Module, int8))
    LlamaCppModel.import_library()
    weights = {
        hugging_face_name(name): tensor.float()
        for name, tensor in reference.state_dict().items()
        if not (name == "lm_head.weight" and reference.config.tie_word_embeddings)
    }
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("bf16", "q8_0"):
            path = Path(folder) / kind
            write_gguf(path, reference.config, weights, kind)
            other: Any = LlamaCppModel(str(path), torch.get_num_threads())
            models[f"llama.cpp {kind.upper()}"] = other
        return {
            name: measure_quality(runner_of(reference), runner_of(one), tokenizer, texts)
            for name, one in models.items()
        }


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    names = ("torch", "lolama-core", "lolama-quant", "llama-cpp-python")
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in names},
        "reports": {name: report.to_json() for name, report in reports().items()},
    }
    print(quality_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
