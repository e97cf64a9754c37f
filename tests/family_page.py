"""Writes docs/families.md: the text models that are read, and what each does otherwise than LLaMA.

    python -m tests.family_page

The switches of a family are those of its cases in tests/test_parity.py.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tests.test_parity import CASES, DESCENDANTS, SIZES

from lolama_core import Llama, LlamaConfig
from lolama_core.model.switches import Switches
from lolama_core.runtime.native_step import native_runs
from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.text_config import read_model
from lolama_quant.cpu.decoder import NativeDecoderKernel

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
BESIDE = ("sliding_window", "rope_scaling")

HEAD = """\
# Families

The text models that lolama reads, by their `model_type` in config.json. Each differs from LLaMA in
switches, which are fields of `LlamaConfig`; [Extending lolama](extending.md) says how to add one. Each
row is held to transformers by tiny models: logits within 1e-5 in float32, with and without a cache, in
chunks and batches, and the same 64 greedy tokens.

Where a switch is in **bold**, no kernel that runs whole blocks knows it yet. Those blocks run by their
own forward, with fast products of single weights, and `lolama -v` says so. Windows and rotation by layer,
and the rotation of a part of each head, cost nothing: neighboring layers of one kind run in one call.

`python -m tests.family_page` makes this page.

| model_type | models | what differs |
|---|---|---|
"""

TAIL = """
Every other `model_type` is refused by name, before weights are downloaded, with the three types that are
spelled most like it. So is what would compute something else within a type: Mamba layers and experts of
`granitemoehybrid`, a soft cap of attention in `gemma3_text`, `use_bidirectional_attention`, other
activations, `clip_qkv` of `olmoe`, and a part of each head that is rotated in any type but `phi3`, `glm` and
`glm4`.

Of `gemma3` and `mistral3`, which are vision models, the language model runs alone, without pictures;
[Pictures](vision.md) lists the vision models that are read as a whole.

Weights become canonical while they are read: fused tensors of Phi, GLM, Granite 4 and experts are
split, dimensions of heads of which a part is rotated change places, and the weights of Gemma's norms become
1 + w.
"""


def configurations(model_type: str) -> list[LlamaConfig]:
    """Those of the parity cases of an architecture."""
    import transformers

    found = []
    for kind, changes in (CASES | DESCENDANTS).values():
        if kind == model_type:
            theirs = transformers.AutoConfig.for_model(kind, **{**SIZES, **changes})
            block = read_model(PAGE, theirs.to_dict(), LAYOUTS[kind])
            found.append(LlamaConfig.from_json(block))
    return found


def is_known(config: LlamaConfig) -> bool:
    """Whether kernels that run whole blocks read blocks of this configuration."""
    with torch.device("meta"):
        _, _, reasons = native_runs(list(Llama(config).layers), [NativeDecoderKernel()])
    # It takes nothing on that device.
    return all(reason.startswith("no kernel takes") for reason in reasons.values())


def differences(model_type: str) -> str:
    """Names of the switches that an architecture may have on."""
    configs = configurations(model_type)
    off = set.intersection(*(config.switches_off() for config in configs))
    names = [switch.name for switch in fields(Switches) if switch.name not in off]
    plain = {name: getattr(configs[0], name) for name in LlamaConfig.__dataclass_fields__}
    plain |= {switch.name: switch.default for switch in fields(Switches)}
    plain["num_layers"] = max(config.num_layers for config in configs)
    shown = []
    for name in names:
        values = {getattr(one, name) for one in configs} - {plain[name]}
        known = all(is_known(LlamaConfig(**_with(plain, name, value))) for value in values)
        shown.append(f"`{name}`" if known else f"**`{name}`**")
    shown += [
        f"`{name}`"
        for name in BESIDE
        if any(getattr(config, name) is not None for config in configs)
    ]
    return ", ".join(shown) or "sizes alone"


def _with(plain: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    """A LLaMA with one switch."""
    other: dict[str, Any] = {}
    if "query_scale" in name:
        other = {"query_scale_beta": 1.0, "query_scale_length": 1}
    elif "expert" in name or name == "dense_layers":
        other = {"num_experts": 8, "experts_per_token": 1, "expert_dim": 8}
    return {**plain, "rope_scaling": None, "rotary_dim": None, **other, name: value}


def page() -> str:
    """The text of docs/families.md."""
    rows = [
        f"| `{layout.model_type}` | {layout.models} | {differences(layout.model_type)} |\n"
        for layout in LAYOUTS.values()
    ]
    return HEAD + "".join(sorted(rows)) + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
