"""What four bits cost, by how they are chosen: predictions on held-out stories beside the dense model's.

    python -m benchmarks.int4 demo --json results/int4.json
    python -m benchmarks.int4 ./folder --tokens 16384

The linears inside blocks are in four bits, and embedding and head as they are. Calibration reads what the
model writes itself at temperature 1. `docs/decisions/int4.md` has the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.run import processor, versions
from lolama import load_model, load_tokenizer
from lolama_core import BatchGenerator, Tokenizer
from lolama_core.protocols.causal_module import CausalLMModule
from lolama_core.protocols.errors import LolamaError
from lolama_quant import Sensitivity, default_text, measure_quality, sensitivity
from lolama_quant.grouped.codes import dequantize, dequantize_rows
from lolama_quant.int4 import gptq, least_squares
from lolama_quant.int4.calibration import quantize_blocks
from lolama_quant.int4.least_squares import FORM
from lolama_quant.int8 import absmax

Weights = dict[str, Tensor]


def own_text(model: CausalLMModule, tokenizer: Tokenizer, tokens: int) -> list[Tensor]:
    """Texts that the model writes, (1, T) each, of this many tokens together."""
    begin = tokenizer.bos_id
    assert begin is not None, "the tokenizer has no token that a text begins with"
    batch = BatchGenerator(model)
    found: list[Tensor] = []
    seed = 0
    while sum(ids.shape[1] for ids in found) < tokens:
        for _ in range(16):
            limit = min(512, model.max_seq_len) - 1
            batch.submit(
                [begin], max_new_tokens=limit, temperature=1.0, top_p=1.0, top_k=0, seed=seed
            )
            seed += 1
        while batch.busy:
            batch.step()
        for result in batch.collect().values():
            if isinstance(result, LolamaError):
                raise result
            found.append(torch.tensor([[begin, *result.ids]]))
    return found


def q4_0(weight: Tensor) -> Tensor:
    """llama.cpp's Q4_0: the largest of 32 values becomes -8 steps."""
    groups = weight.view(len(weight), -1, 32)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = (largest / -8).half().float()
    codes = torch.where(scale != 0, groups / scale, 0).round().clamp(-8, 7)
    return (codes * scale).view_as(weight)


def calibrated(
    model: CausalLMModule,
    dense: Weights,
    texts: list[Tensor],
    sensitive: Sensitivity | None = None,
) -> Weights:
    """The linears as `quantize_blocks` has them."""
    made = {
        name: one
        for block in quantize_blocks(model, texts, set(dense), sensitive=sensitive)
        for name, one in block.tensors.items()
    }
    return {
        name: dequantize(
            {part: made[f"{name}.{part}"] for part in FORM.tensors(1, 1)}, FORM, one.shape[1]
        )
        for name, one in dense.items()
    }


def ways(
    model: CausalLMModule, dense: Weights, texts: list[Tensor]
) -> Iterator[tuple[str, Callable[[], Weights]]]:
    """Name → the weights that it leaves."""

    def each(one: Callable[[Tensor], Tensor]) -> Callable[[], Weights]:
        return lambda: {name: one(weight) for name, weight in dense.items()}

    def weighted(weight: Tensor, name: str, moment: Tensor, outputs: Tensor | None) -> Any:
        return least_squares.quantize_rows(weight, name, moment.diagonal())

    def with_gptq(**changes: Any) -> Weights:
        with patch.multiple(gptq, **changes):
            return calibrated(model, dense, texts)

    yield "int8", each(lambda weight: absmax.dequantize_rows(absmax.quantize_rows(weight)))
    yield "Q4_0", each(q4_0)
    yield (
        "least squares",
        each(lambda w: dequantize_rows(least_squares.quantize_rows(w, "weight"), FORM)),
    )
    yield "least squares, E[x²]", partial(with_gptq, quantize_rows=weighted)
    for sweeps in (0, 1, 2):
        yield f"GPTQ, {sweeps} times anew", partial(with_gptq, SWEEPS=sweeps)
    yield (
        "GPTQ, once anew, sensitivity",
        lambda: calibrated(model, dense, texts, sensitivity(model, texts, set(dense))),
    )


def measured(name: str, tokens: int) -> dict[str, Any]:
    """Each way's distance from the dense model, in float32."""
    tokenizer = load_tokenizer(name)
    reference = load_model(name, device="cpu", dtype="float32")
    model = load_model(name, device="cpu", dtype="float32")
    linears = {
        path: one
        for path, one in model.named_modules()
        if isinstance(one, nn.Linear) and path != "lm_head"
    }
    dense = {path: one.weight.detach().clone() for path, one in linears.items()}
    texts = own_text(reference, tokenizer, tokens)
    found: dict[str, Any] = {"calibration_tokens": sum(ids.shape[1] for ids in texts)}
    for label, make in ways(reference, dense, texts):
        for path, weight in make().items():
            linears[path].weight.data = weight
        report = measure_quality(reference, model, tokenizer, default_text())
        found[label] = report.to_json()
        ours = report.quantized
        print(
            f"{label:28} mean {ours.mean_kl:.2e}  median {ours.median_kl:.2e}  p90 {ours.p90_kl:.2e}  "
            f"same best {ours.top1_agreement:.2%}  {report.tokens} tokens",
            flush=True,
        )
    return found


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names or folders")
    parser.add_argument("--tokens", type=int, default=8192, help="what calibration reads")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "versions": versions(),
        "models": {name: measured(name, options.tokens) for name in options.models},
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
