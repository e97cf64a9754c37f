"""How long one picture takes to encode: CLIP ViT-L/14 at 336 pixels, beside transformers.

    python -m benchmarks.pictures
    python -m benchmarks.pictures --dtype bfloat16 --rounds 9 --json results/pictures.json

Random weights, the same in both; transformers runs what its LLaVA does, all 24 layers with every hidden
state kept. Rounds alternate between the contestants, so that whatever else the machine does meets all of
them. With a quantizer installed, lolama in int8 is measured too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lolama_core.model.linear import share_linear_
from lolama_core.protocols.errors import NotAvailableError
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.runtime.fast_products import FastProducts
from lolama_core.runtime.kernels import Kernels
from lolama_vision import CLIPVisionEncoder, VisionConfig

NAMES = (
    ("embeddings.patch_embedding", "patch_embedding"),
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.position_embedding.weight", "position_embedding"),
    ("pre_layrnorm", "pre_norm"),
    ("encoder.layers", "layers"),
    ("self_attn.out_proj", "attention.o_proj"),
    ("self_attn", "attention"),
    ("layer_norm1", "attention_norm"),
    ("layer_norm2", "ffn_norm"),
    ("mlp", "feed_forward"),
)


def our_name(name: str) -> str:
    """transformers' name of a tensor → lolama's."""
    name = name.removeprefix("vision_model.")
    for theirs, ours in NAMES:
        name = name.replace(theirs, ours)
    return name


def contestants(dtype: torch.dtype) -> dict[str, Callable[[Tensor], Tensor]]:
    """Label → what turns pixels (1, 3, 336, 336) into features (1, 576, 1024)."""
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    torch.manual_seed(0)
    theirs = transformers.CLIPVisionModel(config).eval().to(dtype)
    named = {our_name(key): tensor for key, tensor in theirs.state_dict().items()}

    def ours() -> CLIPVisionEncoder:
        encoder = CLIPVisionEncoder(VisionConfig()).to(dtype)
        encoder.load_state_dict({key: named[key] for key in encoder.state_dict()})
        return encoder.eval().requires_grad_(False)

    def run_theirs(pixels: Tensor) -> Tensor:
        states = theirs(pixels.to(dtype), output_hidden_states=True).hidden_states
        features: Tensor = states[-2][:, 1:]
        return features

    found: dict[str, Callable[[Tensor], Tensor]] = {
        "transformers": run_theirs,
        "lolama": by_fast_products(ours()),
    }
    for entry in entry_points(group="lolama.quantizers", name="int8"):
        quantized = ours()
        try:
            entry.load()().quantize_(quantized, QuantizationScheme(name="int8"))
        except NotAvailableError:
            continue
        found["lolama int8"] = by_fast_products(quantized)
    return found


def by_fast_products(encoder: CLIPVisionEncoder) -> Callable[[Tensor], Tensor]:
    """The encoder as a loaded model runs it in a generation."""
    share_linear_(encoder)
    products = FastProducts([encoder], Kernels.installed().linear)

    def encode(pixels: Tensor) -> Tensor:
        with products:
            features: Tensor = encoder(pixels)
        return features

    return encode


@torch.inference_mode()
def measure(dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Seconds of each contestant, and how far its features are from transformers'."""
    pixels = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(1))
    encoders = contestants(dtype)
    expected = encoders["transformers"](pixels).float()
    results: dict[str, Any] = {}
    for label, encode in encoders.items():
        features = encode(pixels).float()
        error = float((features - expected).norm() / expected.norm())
        results[label] = {"seconds": [], "relative error": error}
    for _ in range(rounds):
        for label, encode in encoders.items():
            started = time.perf_counter()
            encode(pixels)
            results[label]["seconds"].append(time.perf_counter() - started)
    for row in results.values():
        row["median"] = statistics.median(row["seconds"])
    for row in results.values():
        row["times as fast"] = results["transformers"]["median"] / row["median"]
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args(arguments)
    results = measure(getattr(torch, options.dtype), options.rounds)
    report = {
        "dtype": options.dtype,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in ("torch", "transformers", "lolama-vision")},
        "results": results,
    }
    for label, row in results.items():
        print(
            f"{label:14} {row['median'] * 1e3:8.0f} ms  {row['times as fast']:5.2f} ×  "
            f"relative error {row['relative error']:.1e}"
        )
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
