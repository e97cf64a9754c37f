"""lolama on one GPU: how fast a step, a prompt and a product are, beside transformers and a compiled loop.

    python -m benchmarks.gpu --shape tinyllama --compiled --json gpu.json
    python -m benchmarks.gpu --shape 7b

`benchmarks.gpu_all` runs this, and checks what is right (``pytest tests/test_cuda.py``). Here a decoding step
and a prompt are timed, going round the engines, and one-row products with the weights of a block, as a share
of the bandwidth of a copy. The compiled loop is what gpt-fast does: the same model with places read from a
tensor, through ``torch.compile(mode="reduce-overhead")``. Weights are random and made on the GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.engine import prompt, timed
from benchmarks.gpu_tables import GPU_SHAPES, PROMPT, gpu_tables
from benchmarks.run import processor
from lolama.model import quantize_model_int8
from lolama_core import Llama, LlamaConfig
from lolama_core.model.cache_slots import FixedSlots
from lolama_core.model.kv_cache import KVCache
from lolama_core.protocols import CacheSlots, CausalLM
from lolama_core.protocols.grouped import FORMATS
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import Runner
from lolama_quant.grouped.product import cuda_product
from lolama_quant.int8.backends import cuda

CONTEXT, ROUNDS, STEPS = 128, 5, 30
# Products go round this many bytes of weights, which is more than any GPU caches.
_ROUND_BYTES = 1 << 29

NO_GPU = "error: cuda: no GPU that torch can use is here; run this where one is"

Action = Callable[[], None]


def make_model(
    config: LlamaConfig, device: torch.device, *, int8: bool = False, kernels: bool = True
) -> tuple[Llama, Runner]:
    """Random weights on a device, of bfloat16 but for int8, with the kernels of lolama-quant or without."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = Llama(config)
    finally:
        torch.set_default_dtype(before)
    model.to(device).eval().requires_grad_(False)
    if int8:
        quantize_model_int8(model)
    return model, Runner(model, Kernels.installed() if kernels else Kernels())


def lolama_step(model: CausalLM, context: int, record: bool = True) -> Action:
    """A greedy step as `TextGenerator` makes it, its token on the host."""
    memory, row = RowMemory(model, rows=1, record=record), Row()
    most = context + STEPS * (ROUNDS + 2)
    assert memory.begin(row, [], most, most)
    with torch.inference_mode():
        ids = torch.tensor([prompt(context)], device=model.device)
        memory.run([row], model.embed(ids), [context])
    tokens = [5]

    @torch.inference_mode()
    def once() -> None:
        tokens[0] = int(memory.decode([row], tokens).argmax(-1))

    return once


class FixedCache:
    """A row whose new position is where a tensor says when a step runs.

    Args:
        cache: What holds its keys and values. It has one row.
        positions: (1, 1) int64.
    """

    def __init__(self, cache: KVCache, positions: Tensor) -> None:
        self._slots = FixedSlots(positions, cache.capacity, cache.dtype)
        self._parts = cache.write_in_place(cache.reserve([0], 0))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The least that the row may hold."""
        return (0,)

    def reserve(self, counts: Sequence[int], width: int) -> FixedSlots:
        """The place of the new position."""
        return self._slots

    def update(
        self, layer: int, keys: Tensor, values: Tensor, slots: CacheSlots
    ) -> tuple[Tensor, Tensor]:
        """Write (1, K, 1, hd); return all of the capacity (1, K, capacity, hd)."""
        places = slots.positions[:, None, :, None].expand(keys.shape)
        kept_keys, kept_values = (part[layer] for part in self._parts)
        return kept_keys.scatter_(2, places, keys), kept_values.scatter_(2, places, values)

    def advance(self, counts: Sequence[int]) -> None:
        """Nothing: whoever made the positions changes them."""


def compiled_step(model: Llama, context: int) -> Action:
    """The same with the compiler's own fusion and graphs in the place of ours."""
    cache = model.make_cache(1, 2048)
    with torch.inference_mode():
        model.forward_embeds(
            model.embed(torch.tensor([prompt(context)], device=model.device)), cache
        )
    position = torch.full((1, 1), context, device=model.device)
    token = torch.full((1, 1), 5, device=model.device)
    view = FixedCache(cache, position)

    def logits(ids: Tensor) -> Tensor:
        return model.forward_embeds(model.embed(ids), view)

    compiled = torch.compile(logits, mode="reduce-overhead", fullgraph=False)

    @torch.inference_mode()
    def once() -> None:
        token.fill_(int(compiled(token).argmax(-1)))
        position.add_(1)

    return once


def make_transformers(config: LlamaConfig, device: torch.device) -> Any:
    """The same shape in transformers, random weights of its own."""
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    theirs = TheirConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        num_hidden_layers=config.num_layers,
        intermediate_size=config.hidden_dim,
        max_position_embeddings=config.max_seq_len,
        dtype="bfloat16",
    )
    with device:
        model = LlamaForCausalLM._from_config(theirs, dtype=torch.bfloat16)
    return model.eval().requires_grad_(False)


def transformers_step(model: Any, context: int) -> Action:
    """transformers with its dynamic cache."""
    from transformers import DynamicCache

    cache = DynamicCache()
    with torch.inference_mode():
        ids = torch.tensor([prompt(context)], device=model.device)
        model(ids, past_key_values=cache, logits_to_keep=1)
    token = torch.full((1, 1), 5, device=model.device)

    @torch.inference_mode()
    def once() -> None:
        output = model(token, past_key_values=cache, logits_to_keep=1)
        token.fill_(int(output.logits[:, -1].argmax(-1)))

    return once


def lolama_prompt(model: CausalLM) -> Action:
    """A prompt from nothing, to its next token."""
    ids = torch.tensor([prompt(PROMPT)], device=model.device)

    @torch.inference_mode()
    def once() -> None:
        cache = model.make_cache(1, PROMPT)
        model.forward_embeds(model.embed(ids), cache).argmax(-1).tolist()

    return once


def transformers_prompt(model: Any) -> Action:
    """The same."""
    ids = torch.tensor([prompt(PROMPT)], device=model.device)

    @torch.inference_mode()
    def once() -> None:
        model(ids, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()

    return once


def wait() -> None:
    """Until the GPU has done all, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_round(actions: dict[str, Action], steps: int) -> dict[str, list[float]]:
    """Median seconds of each action in each round, all of them in every round."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():  # compilation and recording
        for _ in range(3):
            action()
    for _ in range(ROUNDS):
        for name, action in actions.items():
            once = []
            for _ in range(steps):
                wait()
                begin = time.perf_counter()
                action()
                wait()
                once.append(time.perf_counter() - begin)
            times[name].append(statistics.median(once))
    return times


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy on the device reads and writes."""
    source = torch.empty(1 << (30 if device.type == "cuda" else 24), dtype=torch.uint8).to(device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds_of(target.copy_, [source])


def product_shapes(config: LlamaConfig) -> list[tuple[int, int]]:
    """(outputs, inputs) of the different linears."""
    inner, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    sizes = [
        (inner, config.d_model),
        (kv, config.d_model),
        (config.hidden_dim, config.d_model),
        (config.d_model, config.hidden_dim),
        (config.vocab_size, config.d_model),
    ]
    return list(dict.fromkeys(sizes))


def product_seconds(outputs: int, inputs: int, rows: int = 1) -> tuple[float, float]:
    """Seconds of a product on the GPU with int8 weights, and with bfloat16: round weights no cache holds."""
    gpu = torch.device("cuda")
    x = torch.randn(rows, inputs, device=gpu, dtype=torch.bfloat16)
    scale = torch.rand(outputs, device=gpu)

    def integers(weight: Tensor) -> Tensor:
        return cuda.linear(x, weight, scale)

    def floats(weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    seconds = []
    for product, dtype in ((integers, torch.int8), (floats, torch.bfloat16)):
        count = max(2, _ROUND_BYTES // (outputs * inputs * dtype.itemsize))
        drawn = torch.randint(-127, 128, (count, outputs, inputs), dtype=torch.int8, device=gpu)
        seconds.append(_seconds_of(product, drawn.to(dtype).unbind()))
    return seconds[0], seconds[1]


def int4_seconds(outputs: int, inputs: int, rows: int) -> float:
    """Seconds of a product on the GPU with weights of four bits: any bytes, round weights no cache holds."""
    gpu = torch.device("cuda")
    x = torch.randn(rows, inputs, device=gpu, dtype=torch.bfloat16)
    tensors = FORMATS["int4"].tensors(outputs, inputs).values()
    widths = [width * (2 if dtype == "F16" else 1) for dtype, (_, width) in tensors]
    lengths = [outputs * width for width in widths]

    def product(stored: Tensor) -> Tensor:
        codes, scales, blocks = (
            part.view(outputs, width)
            for part, width in zip(torch.split(stored, lengths), widths, strict=True)
        )
        return cuda_product(x, codes, scales, blocks.view(torch.float16), "int4")

    count = max(2, _ROUND_BYTES // sum(lengths))
    drawn = torch.randint(0, 256, (count, sum(lengths)), dtype=torch.uint8, device=gpu)
    return _seconds_of(product, drawn.unbind())


def _seconds_of(act: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]) -> float:
    """Median seconds of ``act`` on one of ``inputs``: on a GPU all are launched from one recording."""
    if inputs[0].device.type != "cuda":
        return statistics.median(timed(lambda: act(inputs[0])) for _ in range(9))
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for one in inputs:
            act(one)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for one in inputs:
            act(one)
    times: list[float] = []
    for _ in range(12):
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / len(inputs))
    return statistics.median(times[2:])


def where(device: torch.device) -> dict[str, Any]:
    """When and on what something runs, and the versions of what takes part."""
    cuda = device.type == "cuda"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
        "versions": {name: _version(name) for name in ("torch", "triton", "transformers")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=GPU_SHAPES, default="tinyllama")
    parser.add_argument("--context", type=int, default=CONTEXT, help="positions before the step")
    parser.add_argument("--compiled", action="store_true", help="a compiled loop, too (a minute)")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--device", default="cuda", help="cpu to try the program, without products")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    config, context = GPU_SHAPES[options.shape], options.context
    # A runner keeps no model.
    kept = [
        make_model(config, device),
        make_model(config, device, int8=True),
        make_model(config, device, kernels=False),
    ]
    model, int8, blocks = (runner for _, runner in kept)
    plain = kept[2][0]
    theirs = make_transformers(config, device)
    bandwidth = copy_bandwidth(device)
    sizes = product_shapes(config) if device.type == "cuda" else []
    products = {size: product_seconds(*size) for size in sizes}
    int4 = {size: [int4_seconds(*size, rows) for rows in (1, PROMPT)] for size in sizes}
    actions = {
        "lolama int8": lolama_step(int8, context),
        "lolama": lolama_step(model, context),
        "lolama, blocks recorded": lolama_step(blocks, context),
        "lolama, blocks launched one by one": lolama_step(blocks, context, record=False),
        "transformers": transformers_step(theirs, context),
    }
    if options.compiled:
        actions["lolama, blocks through torch.compile"] = compiled_step(plain, context)
    steps = time_round(actions, STEPS)
    prompts = time_round(
        {
            "lolama int8": lolama_prompt(int8),
            "lolama": lolama_prompt(model),
            "transformers": transformers_prompt(theirs),
        },
        5,
    )
    report = {
        **where(device),
        "shape": options.shape,
        "context": context,
        "bandwidth": bandwidth,
        "products": {f"{n}x{k}": seconds for (n, k), seconds in products.items()},
        "int4_products": {f"{n}x{k}": seconds for (n, k), seconds in int4.items()},
        "steps": steps,
        "prompts": prompts,
    }
    print(gpu_tables(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
