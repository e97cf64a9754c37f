"""What `benchmarks.gpu` measured, as tables."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.shapes import SHAPES, cache_bytes, weight_count
from lolama_core import LlamaConfig

PROMPT = 512
_INT4_BYTES = 4.5 / 8
GPU_SHAPES = {
    **SHAPES,
    "7b": LlamaConfig(
        vocab_size=32000,
        d_model=4096,
        num_heads=32,
        num_kv_heads=32,
        num_layers=32,
        hidden_dim=11008,
        max_seq_len=4096,
    ),
}


def gpu_tables(report: dict[str, Any]) -> str:
    """Markdown: where and with what, one-row products, decoding steps, prompts.

    Args:
        report: What `benchmarks.gpu` writes as JSON.
    """
    bandwidth, context = report["bandwidth"], report["context"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        f"{report['device']}, {report['date'][:10]}, {versions}. A copy on the GPU moves"
        f" {bandwidth / 1e12:.2f} TB/s.",
        "",
        "| weights | int8, µs | share of a copy | bfloat16 (cuBLAS), µs | share of a copy |",
        "|---|---|---|---|---|",
    ]
    for size, (eight, sixteen) in report["products"].items():
        outputs, inputs = map(int, size.split("x"))
        shares = [outputs * inputs * item / t / bandwidth for item, t in ((1, eight), (2, sixteen))]
        lines.append(
            f"| {outputs:,} × {inputs:,} | {eight * 1e6:.1f} | {shares[0]:.0%}"
            f" | {sixteen * 1e6:.1f} | {shares[1]:.0%} |"
        )
    int4 = report.get("int4_products", {})  # which older results lack
    if int4:
        many = f"{PROMPT} rows, µs"
        lines += ["", f"| weights | int4, µs | share of a copy | {many} |", "|---|---|---|---|"]
    for size, (one, more) in int4.items():
        outputs, inputs = map(int, size.split("x"))
        share = outputs * inputs * _INT4_BYTES / one / bandwidth
        lines.append(
            f"| {outputs:,} × {inputs:,} | {one * 1e6:.1f} | {share:.0%} | {more * 1e6:.1f} |"
        )
    lines += [
        "",
        f"| decoding step at {context} positions | ms | tokens/s | share of a copy | × transformers |",
        "|---|---|---|---|---|",
    ]
    slowest = statistics.median(report["steps"]["transformers"])
    for engine, times in report["steps"].items():
        seconds = statistics.median(times)
        share = (
            bytes_of(GPU_SHAPES[report["shape"]], context, "int8" in engine) / seconds / bandwidth
        )
        lines.append(
            f"| {engine} | {seconds * 1e3:.2f} | {1 / seconds:,.0f} | {share:.0%}"
            f" | {slowest / seconds:.1f} |"
        )
    lines += ["", f"| prompt of {PROMPT} | tokens/s |", "|---|---|"]
    for engine, times in report["prompts"].items():
        lines.append(f"| {engine} | {PROMPT / statistics.median(times):,.0f} |")
    return "\n".join(lines)


def bytes_of(config: LlamaConfig, context: int, int8: bool) -> int:
    """What one step reads: every weight but the embedding, and keys and values. lm_head has sixteen bits."""
    head = config.vocab_size * config.d_model
    blocks = weight_count(config) - head
    return blocks * (1 if int8 else 2) + head * 2 + cache_bytes(config, context)
