"""Measures how far the logits of each family are from transformers', for docs/families.md.

python -m tests.family_page --measure
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tests import test_parity, test_vision_parity

from lolama_core.model.rope_scaling import dynamic_beyond
from lolama_core.runtime.runner import runner_of
from lolama_quant.cpu.decoder import NativeDecoderKernel

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "families.json"
TEXT_CASES = test_parity.CASES | test_parity.DESCENDANTS
PACKAGES = ("torch", "transformers", "lolama-core", "lolama-vision", "lolama-quant", "lolama-hub")


def vision_cases() -> dict[str, list[str]]:
    """Parity cases by the ``model_type`` of a vision model."""
    found: dict[str, list[str]] = {}
    for case in test_vision_parity.CASES:
        found.setdefault(test_vision_parity.config_of(case).model_type, []).append(case)
    return found


@torch.inference_mode()
def text_difference(case: str, folder: Path) -> float:
    """The largest difference of a logit: as the model is written, and as it runs, in chunks and steps."""
    pair = test_parity.make_pair(case, folder)
    ids = test_parity.random_ids(2, test_parity.LENGTH)
    expected, runner = pair.expected(ids), runner_of(pair.ours)
    found = [pair.ours(ids) - expected]
    cache, start = runner.make_cache(2, test_parity.LENGTH), 0
    for width in (11, 1, 17, 1, 1, 9):
        embeds = runner.embed(ids[:, start : start + width])
        logits = runner.forward_embeds(embeds, cache, logits="all")
        cache.advance([width] * 2)
        start += width
        if dynamic_beyond(pair.ours.config.rope_scaling):  # every length has a base of its own
            expected, logits = pair.expected(ids[:, :start]), logits[:, -1:]
        found.append(logits - expected[:, start - logits.shape[1] : start])
    return max(float(each.abs().max()) for each in found)


@torch.inference_mode()
def vision_difference(case: str, folder: Path) -> float:
    """The same of a prompt with two pictures, and of one without."""
    pair = test_vision_parity.make_pair(case, folder / "model")
    found = []
    for count in (0, 2):
        ids, inputs = pair.prompt(count)
        expected = pair.expected(ids, inputs)
        for model in (pair.ours, runner_of(pair.ours)):
            prompt = model.embed_prompt(torch.tensor([ids]), [len(ids)], **inputs)
            logits = model.forward_embeds(prompt.embeds, logits="all", spans=prompt.spans)
            found.append(logits[0] - expected)
    return max(float(each.abs().max()) for each in found)


def measure() -> None:
    """Write `RESULTS`."""
    cases = {}
    for case, (kind, _) in TEXT_CASES.items():
        with TemporaryDirectory() as folder:
            cases[case] = {"model_type": kind, "difference": text_difference(case, Path(folder))}
    for kind, names in vision_cases().items():
        for case in names:
            with TemporaryDirectory() as folder:
                found = vision_difference(case, Path(folder))
            cases[f"{case}, pictures"] = {"model_type": kind, "difference": found}
    results = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in PACKAGES},
        "native": NativeDecoderKernel().describe(),
        "cases": cases,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def largest(results: Mapping[str, Any]) -> dict[str, float]:
    """The largest difference of each ``model_type``."""
    found: dict[str, float] = {}
    for case in results["cases"].values():
        kind = case["model_type"]
        found[kind] = max(found.get(kind, 0.0), case["difference"])
    return found
