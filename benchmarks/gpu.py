"""lolama on one GPU: right, and how fast beside transformers and a compiled loop.

    python -m benchmarks.gpu --shape tinyllama --json gpu.json

Checks come first, and a failed one ends the run with status 1: logits against float32 on the CPU, recorded
steps against plain ones, and how many recordings prompts of twenty lengths take. Then a decoding step at a
context of 128 and a prompt of 512 are timed, going round the engines. The compiled loop is what gpt-fast
does: the same model with places read from a tensor, through ``torch.compile(mode="reduce-overhead")``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine import prompt
from benchmarks.make_model import model_path
from benchmarks.shapes import SHAPES, cache_bytes, weight_count
from lolama_core import FileCheckpointIO, Llama, LlamaConfig, LlamaFamily, load_model
from lolama_core.decoding_steps import DecodingSteps, run
from lolama_core.kv_cache import KVCache
from lolama_hub import HuggingFaceSource

CONTEXT, PROMPT, ROUNDS, STEPS = 128, 512, 5, 30


def check_logits(device: torch.device) -> float:
    """The largest difference of a small model's logits, float32, from those on the CPU."""
    config = LlamaConfig(
        **{**_small(), "attention_bias": True, "sliding_window": 50, "max_seq_len": 256}
    )
    torch.manual_seed(0)
    model = Llama(config).eval().requires_grad_(False)
    ids = torch.randint(0, config.vocab_size, (3, 120))
    expected = model(ids)
    return float((model.to(device)(ids.to(device)).cpu() - expected).abs().max())


def check_recorded(device: torch.device) -> tuple[float, int]:
    """The largest difference of recorded steps from plain ones, and the recordings of twenty lengths."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**{**_small(), "max_seq_len": 4096})).eval().requires_grad_(False)
    model = model.to(device)
    recorded, plain = DecodingSteps(model, record=True), DecodingSteps(model, record=False)
    worst = 0.0
    for length in range(5, 1600, 80):
        embeds = model.embed(torch.tensor([prompt(length)], device=device))
        with (
            recorded.lend(length + 32) as (cache, step),
            plain.lend(length + 32) as (other, obvious),
        ):
            run(model, embeds, cache)
            run(model, embeds, other)
            for token in (3, 99, 7):
                worst = max(worst, float((step(token) - obvious(token)).abs().max()))
    return worst, recorded.recordings


def _small() -> dict[str, Any]:
    shape = SHAPES["stories260k"]
    return {
        "vocab_size": shape.vocab_size,
        "d_model": shape.d_model,
        "num_heads": shape.num_heads,
        "num_kv_heads": shape.num_kv_heads,
        "num_layers": shape.num_layers,
        "hidden_dim": shape.hidden_dim,
    }


def lolama_step(model: Llama, device: torch.device, record: bool) -> Callable[[], None]:
    """A greedy step as `TextGenerator` makes it, its token on the host; it starts over when full."""
    lent = DecodingSteps(model, record=record).lend(CONTEXT + STEPS * (ROUNDS + 2))
    cache, step = lent.__enter__()
    run(model, model.embed(torch.tensor([prompt(CONTEXT)], device=device)), cache)
    tokens = [5]

    def once(
        kept: object = lent,
    ) -> None:  # whoever lent the cache takes it back when it is forgotten
        tokens[0] = int(step(tokens[0]).argmax(-1))

    return once


def compiled_step(model: Llama, device: torch.device) -> Callable[[], None]:
    """The same with the compiler's own fusion and graphs in the place of ours."""
    cache = model.make_cache(1, 2048)
    run(model, model.embed(torch.tensor([prompt(CONTEXT)], device=device)), cache)
    position = torch.full((1, 1), CONTEXT, device=device)
    token = torch.full((1, 1), 5, device=device)
    view: KVCache = cache.at_positions(position)

    def logits(ids: Tensor) -> Tensor:
        return model.forward_embeds(model.embed(ids), view)

    compiled = torch.compile(logits, mode="reduce-overhead", fullgraph=False)

    @torch.inference_mode()
    def once() -> None:
        token.fill_(int(compiled(token).argmax(-1)))
        position.add_(1)

    return once


def transformers_step(path: Path, device: torch.device) -> Callable[[], None]:
    """transformers with its dynamic cache."""
    from transformers import DynamicCache, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(path, dtype="auto").eval().to(device)
    cache = DynamicCache()
    ids = torch.tensor([prompt(CONTEXT)], device=device)
    with torch.inference_mode():
        model(ids, past_key_values=cache, logits_to_keep=1)
    token = torch.full((1, 1), 5, device=device)

    @torch.inference_mode()
    def once() -> None:
        output = model(token, past_key_values=cache, logits_to_keep=1)
        token.fill_(int(output.logits[:, -1].argmax(-1)))

    return once


def lolama_prompt(model: Llama, device: torch.device) -> Callable[[], None]:
    """A prompt from nothing."""
    ids = torch.tensor([prompt(PROMPT)], device=device)

    def once() -> None:
        run(model, model.embed(ids), model.make_cache(1, PROMPT)).argmax(-1).tolist()

    return once


def time_round(actions: dict[str, Callable[[], None]], steps: int) -> dict[str, list[float]]:
    """Median seconds of each action in each round, all of them in every round."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():  # compilation and recording
        for _ in range(3):
            action()
    for _ in range(ROUNDS):
        for name, action in actions.items():
            once = []
            for _ in range(steps):
                torch.cuda.synchronize()
                begin = time.perf_counter()
                action()
                torch.cuda.synchronize()
                once.append(time.perf_counter() - begin)
            times[name].append(statistics.median(once))
    return times


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy on the device reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    return 2 * source.nbytes / min(time_round({"copy": copy}, 5)["copy"])


def main() -> int:
    """Check, measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    parser.add_argument("--models", type=Path, help="where the random models are kept")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "error: cuda: no GPU that torch can use is here; run this where one is", file=sys.stderr
        )
        return 2
    device = torch.device("cuda")
    difference = check_logits(device)
    recorded, recordings = check_recorded(device)
    checks = {
        "logits against the CPU, at most 1e-3": difference <= 1e-3,
        "recorded against plain steps, at most 1e-3": recorded <= 1e-3,
        "recordings of twenty lengths of prompt, at most 2": recordings <= 2,
    }
    print(f"largest differences {difference:.1e}, {recorded:.1e}; {recordings} recordings")
    for name, passed in checks.items():
        print(f"{'ok    ' if passed else 'FAILED'} {name}")

    root = options.models or Path(tempfile.gettempdir()) / "lolama-benchmarks"
    path = model_path(options.shape, "hf-bf16", root)
    files = HuggingFaceSource().resolve(str(path), FileCheckpointIO())
    model = load_model(files, {"llama": LlamaFamily()}, device=device)
    assert isinstance(model, Llama)
    steps = time_round(
        {
            "lolama, recorded": lolama_step(model, device, True),
            "lolama, launched one by one": lolama_step(model, device, False),
            "lolama's model through torch.compile": compiled_step(model, device),
            "transformers": transformers_step(path, device),
        },
        STEPS,
    )
    prompts = time_round({"lolama": lolama_prompt(model, device)}, 5)
    bandwidth = copy_bandwidth(device)
    config = SHAPES[options.shape]
    moved = 2 * weight_count(config) + cache_bytes(config, CONTEXT)
    print("| decoding step | ms | tokens/s | share of copy bandwidth |\n|---|---|---|---|")
    for name, times in steps.items():
        best = statistics.median(times)
        print(f"| {name} | {best * 1e3:.2f} | {1 / best:.0f} | {moved / best / bandwidth:.0%} |")
    print(f"prompt of {PROMPT}: {PROMPT / statistics.median(prompts['lolama']):,.0f} tokens/s")
    if options.json:
        report = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": torch.cuda.get_device_name(device),
            "versions": {name: version(name) for name in ("torch", "transformers", "lolama-core")},
            "shape": options.shape,
            "checks": checks,
            "bandwidth": bandwidth,
            "steps": steps,
            "prompts": prompts,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
