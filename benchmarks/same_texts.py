"""What two versions of lolama have to agree about, bit by bit: one line of JSON.

    python benchmarks/same_texts.py

It uses only public names that version 0.1 has, too: `benchmarks.versions` also runs this very file with the
packages of another version.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import torch
from torch import Tensor

from lolama.model import quantize_model_int8
from lolama_core import BatchGenerator, PrefixCache, TextGenerator, load

PROMPTS = (
    "Once upon a time",
    "What is two plus three?",
    "na\u00efve \u6f22\u5b57 \U0001f642",
    "\n",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 24},
    "default": {"seed": 3, "max_new_tokens": 24},
    "hot": {"seed": 5, "temperature": 20.0, "top_p": 1.0, "max_new_tokens": 30, "ignore_eos": True},
    "stop": {"seed": 2, "stop": (".", "the"), "max_new_tokens": 32},
    "least": {"seed": 4, "min_new_tokens": 16, "max_new_tokens": 32},
    "penalties": {
        "seed": 8,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.3,
        "typical_p": 0.9,
        "max_new_tokens": 30,
    },
}


def digest(tensor: Tensor) -> str:
    """The start of the SHA-256 of its bits."""
    data = tensor.detach().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(bytes(data.tolist())).hexdigest()[:16]


class Seen:
    """A logits processor that changes nothing and keeps the digest of every step's logits."""

    def __init__(self) -> None:
        self.digests: list[str] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """History (1, T) and scores (1, V) \u2192 the same scores."""
        self.digests.append(digest(scores))
        return scores


def said(result: Any) -> list[Any]:
    """All of a `Generation` that both versions have."""
    ids = [int(token_id) for token_id in result.ids]
    return [ids, result.text, result.finish_reason, result.context_full, result.cached_tokens]


def of_model(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Name → what it gives, for generation, batches, kept prefixes and scoring with one model."""
    found: dict[str, Any] = {}
    generator = TextGenerator(model, tokenizer)
    kept = TextGenerator(model, tokenizer, prefix_cache=PrefixCache(1 << 28))
    for (name, settings), prompt in itertools.product(SETTINGS.items(), PROMPTS):
        seen = Seen()
        result = generator.generate(prompt, logits_processors=[seen], **settings)
        found[f"{name} {prompt}"] = [*said(result), seen.digests]
        found[f"{name} {prompt}, kept"] = said(kept.generate(prompt, **settings))
    for name, settings in SETTINGS.items():
        together = generator.generate_batch(PROMPTS, **settings)
        found[f"{name} together"] = [said(result) for result in together]
        batch = BatchGenerator(model, tokenizer, rows=3, prefill_chunk=8)
        tickets = [batch.submit(prompt, **settings) for prompt in PROMPTS]
        results: dict[int, Any] = {}
        while batch.busy:
            batch.step()
            results |= batch.collect()
        found[f"{name} in a batch"] = [said(results[ticket]) for ticket in tickets]
    for prompt in PROMPTS:
        text = prompt + " and then there was a big dog. " * 20
        found[f"score {prompt}"] = digest(generator.score(text))
    return found


def plain_logits(model: Any, tokenizer: Any) -> str:
    """The digest of ``model(ids)`` without kernels."""
    # Versions before 0.2 have the kernels in the model.
    if hasattr(model, "use_kernels"):
        model.use_kernels([])
        for module in model.modules():
            if getattr(module, "kernel", None) is not None:
                module.kernel = None
    ids = torch.tensor([tokenizer.encode("Once upon a time there was a little dog. " * 8)])
    with torch.no_grad():
        return digest(model(ids))


def main() -> None:
    """Print what float32, bfloat16 and int8 give."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        model, tokenizer = load("demo", device="cpu", dtype=dtype)
        found |= {f"{dtype} {key}": value for key, value in of_model(model, tokenizer).items()}
        found[f"{dtype} model(ids)"] = plain_logits(model, tokenizer)
    model, tokenizer = load("demo", device="cpu", dtype="float32")
    quantize_model_int8(model)
    found |= {f"int8 {key}": value for key, value in of_model(model, tokenizer).items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
