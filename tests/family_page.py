"""Writes docs/families.md: the models that are read, what each does otherwise than LLaMA, and how near it is.

    python -m tests.family_page               (from what was measured)
    python -m tests.family_page --measure     (measures all again first: minutes)

The switches of a family are those of its cases in tests/test_parity.py. Whether kernels run its blocks as a
whole is what the runtime says of them, and what is refused is what reading a configuration says.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tests import test_parity, test_vision_parity
from tests.family_differences import RESULTS, TEXT_CASES, largest, measure, vision_cases

from lolama_core import Llama, LlamaConfig
from lolama_core.model.switches import Switches
from lolama_core.protocols.errors import ModelError
from lolama_core.runtime.native_step import native_runs
from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.layouts.vision import VISION_LAYOUTS
from lolama_hub.folder.text_config import read_model
from lolama_hub.folder.vision_config import read_vision_model
from lolama_quant.cpu.decoder import NativeDecoderKernel

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
BESIDE = ("sliding_window", "rope_scaling")
WHOLE, PRODUCTS = "whole blocks", "products"
MOST_EXCEPTIONS = 3  # of a rule that is told once for all types

HEAD = """\
# Families

The models that lolama reads, by their `model_type` in config.json. Each differs from LLaMA in switches,
which are fields of `LlamaConfig`; [Extending lolama](extending.md) shows how a family is added. Each row is
held to transformers by tiny models: logits within 1e-5 in float32, with and without a cache, in chunks and
batches, and the same 64 greedy tokens.

- **Speed**: kernels run *whole blocks* in one call, or blocks run by their own forward and kernels take the
  *products* with single weights. `lolama -v` says which blocks run how, and why. A switch in **bold** is one
  that no kernel for whole blocks knows. Without kernels, blocks run as they are written. Windows and
  rotation by layer, and the rotation of a part of each head, cost nothing: neighboring layers of one kind run
  in one call.
- **Difference**: the largest one of a logit to transformers, in float32, over the cases of a row: as the
  model is written and as kernels run it, at once and through a cache. transformers computes attention by its
  own operators here (`eager`), since its faster ways leave out soft caps.
- **Refused**: what a configuration of a type may not say, since it would compute something else. All text
  models refuse:
{common}

On NVIDIA GPUs kernels run whole blocks with all of these switches but experts. With a switch on they were
run in Triton's interpreter, and not on a GPU yet.

`python -m tests.family_page` makes this page; with `--measure` it measures the differences again. These are
of {date}, with transformers {transformers} and torch {torch}.

## Text models

| model_type | models | what differs | speed | difference | refused |
|---|---|---|---|---:|---|
"""

VISION = """
## Vision models

A language model may be of any type above, where no row here refuses it, and runs as its row there says.
Encoders and projectors run by their own forward, with fast products of their weights. [Pictures](vision.md)
says what can be shown.

| model_type | encoders | language model, if none is named | difference | refused |
|---|---|---|---:|---|
"""

TAIL = """
{blind}
Every other `model_type` is refused by name, before weights are downloaded, with the nearest types.
[Model types](model_types.md) lists all that transformers has.

Weights become canonical while they are read: fused tensors of Phi, GLM, Granite 4 and experts are
split, dimensions of heads of which a part is rotated change places, and the weights of Gemma's norms become
1 + w.
"""

BLIND = """Of {types} the language model runs alone, without pictures.
"""

# What an architecture may be asked for that is not the same computation.
TEXT_PROBES: dict[str, object] = {
    "attn_logit_softcapping": 30.0,
    "clip_qkv": 8.0,
    "layer_types": ["linear_attention"],
    "num_local_experts": 3,
    "partial_rotary_factor": 0.5,
    "position_embedding_type": "alibi",
    "quantization_config": {"quant_method": "gptq"},
    "rope_scaling": {"rope_type": "mrope", "factor": 2.0},
    "use_bidirectional_attention": True,
}
VISION_PROBES: dict[str, object] = {
    "projector_hidden_act": "relu",
    "quantization_config": {"quant_method": "gptq"},
    "text_config": {"model_type": "llama"},
    "vision_config": {"model_type": "pixtral"},
    "vision_feature_select_strategy": "cls",
}


def configurations(model_type: str) -> list[LlamaConfig]:
    """Those of the parity cases of an architecture."""
    layout = LAYOUTS[model_type]
    return [
        LlamaConfig.from_json(read_model(PAGE, values, layout))
        for values in map(published, of_type(model_type))
    ]


def of_type(model_type: str) -> list[str]:
    """The parity cases of an architecture."""
    return [name for name, (kind, _) in TEXT_CASES.items() if kind == model_type]


def published(case: str) -> dict[str, Any]:
    """config.json of a parity case."""
    import transformers

    kind, changes = TEXT_CASES[case]
    theirs = transformers.AutoConfig.for_model(kind, **{**test_parity.SIZES, **changes})
    values: dict[str, Any] = json.loads(theirs.to_json_string(use_diff=False))
    return values


def is_known(config: LlamaConfig) -> bool:
    """Whether kernels that run whole blocks read blocks of this configuration."""
    with torch.device("meta"):
        _, _, reasons = native_runs(list(Llama(config).layers), [NativeDecoderKernel()])
    # It takes nothing on that device.
    return all(reason.startswith("no kernel takes") for reason in reasons.values())


def speed(configs: list[LlamaConfig]) -> str:
    """How blocks of these configurations run."""
    known = [is_known(config) for config in configs]
    if all(known):
        return WHOLE
    return f"{WHOLE}; {PRODUCTS} with what is bold" if any(known) else PRODUCTS


def differences(configs: list[LlamaConfig]) -> str:
    """Names of the switches that configurations of an architecture have on."""
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


def refusals(
    read: Callable[[dict[str, Any]], object],
    values: Mapping[str, Any],
    probes: Mapping[str, object],
) -> set[str]:
    """What reading a configuration refuses of these changes."""
    read(dict(values))
    found = set()
    for name, value in probes.items():
        try:
            read({**values, name: value})
        except ModelError as error:
            found.add(refused(error.reason))
    return found


def refused(reason: str) -> str:
    """What an error refuses, in general words."""
    expected = re.fullmatch(r"(\S+) is .*?, expected (.+)", reason)
    if expected:
        field, other = expected[1], re.sub(r"each of \d+ layers", "each layer", expected[2])
        return f"`{field}` other than {other}"
    kind = re.fullmatch(r"(\S+) '(\w+)' is not supported", reason)
    if kind:
        return f"`{kind[1]}` of other kinds, such as {kind[2]}"
    return re.sub(r" \(.*\)$", "", reason).replace("the weights are", "weights that are")


def text_refusals(model_type: str) -> set[str]:
    """What a text model's configuration may not say."""
    layout, values = LAYOUTS[model_type], published(of_type(model_type)[0])
    probes = {**TEXT_PROBES, layout.activation: "relu"}
    if "num_experts" in values:  # what says another number contradicts it
        del probes["num_local_experts"]
    found = refusals(lambda changed: read_model(PAGE, changed, layout), values, probes)
    return {each.replace(f"`{layout.activation}`", "`hidden_act`") for each in found}


def vision_refusals(case: str) -> set[str]:
    """What a vision model's may not say."""
    values = json.loads(test_vision_parity.config_of(case).to_json_string(use_diff=False))
    return refusals(lambda changed: read_vision_model(None, PAGE, changed), values, VISION_PROBES)


def page() -> str:
    """The text of docs/families.md."""
    results = json.loads(RESULTS.read_text("utf-8"))
    difference = largest(results)
    found = {kind: text_refusals(kind) for kind in sorted(LAYOUTS)}
    common = {each: exceptions(each, found) for each in set.union(*found.values())}
    common = {each: kinds for each, kinds in common.items() if len(kinds) <= MOST_EXCEPTIONS}
    text = [
        row(
            *(f"`{kind}`", LAYOUTS[kind].models, differences(configurations(kind))),
            *(speed(configurations(kind)), f"{difference[kind]:.1e}"),
            "; ".join(sorted(refusals - common.keys())),
        )
        for kind, refusals in found.items()
    ]
    vision = [
        row(
            *(
                f"`{kind}`",
                ", ".join(f"`{one.model_type}`" for one in VISION_LAYOUTS[kind].encoders),
            ),
            *(f"`{VISION_LAYOUTS[kind].text}`", f"{difference[kind]:.1e}"),
            "; ".join(sorted(vision_refusals(cases[0]) - common.keys())),
        )
        for kind, cases in sorted(vision_cases().items())
    ]
    listed = (f"  - {each}{but(common[each])}" for each in sorted(common))
    head = HEAD.format(
        common="\n".join(listed),
        date=results["date"][:10],
        **{name: results["versions"][name] for name in ("torch", "transformers")},
    )
    blind = sorted(f"`{one.model_type}`" for one in VISION_LAYOUTS.values() if not one.sees)
    tail = TAIL.format(blind=BLIND.format(types=" and ".join(blind)) if blind else "")
    return head + "".join(text) + VISION + "".join(vision) + tail


def exceptions(refusal: str, found: Mapping[str, set[str]]) -> list[str]:
    """The types that do not refuse it."""
    return [f"`{kind}`" for kind, refusals in found.items() if refusal not in refusals]


def but(exceptions: Sequence[str]) -> str:
    """The exceptions to a rule, in words."""
    return f" (not: {', '.join(exceptions)})" if exceptions else ""


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    if "--measure" in sys.argv[1:]:
        measure()
    PAGE.write_text(page(), "utf-8")
