"""Writes docs/model_types.md: what lolama does with each type of text or vision model in transformers.

python -m tests.model_types_page
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import StrictDataclassError
from tests.test_parity import CASES, DESCENDANTS
from tests.test_vision_parity import CASES as VISION_CASES
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.layouts.vision import VISION_LAYOUTS
from lolama_hub.folder.relatives import nearest_types

SUPPORTED = [*LAYOUTS, *VISION_LAYOUTS]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "model_types.md"

HEAD = """\
# Model types

All models that transformers {version} lists for text (`AutoModelForCausalLM`), or for text and pictures
(`AutoModelForImageTextToText`), by their `model_type` in config.json. {works} of {count} are read. The others
are refused by that name, before weights are downloaded, with the nearest types that are read.

- **read**: tests hold its logits to those of transformers. [Families](families.md) says what each text model
  does otherwise than LLaMA, and [Pictures](vision.md) what can be shown.
- **read without pictures**: the language model inside runs as a text model.
- **refused**: with what lolama does not have, and the nearest types. More may be missing.

Within a text type that is read, each field of its configuration is read or checked: `nox -s families`
changes every one of them in turn. `python -m tests.model_types_page` makes this page.

| model_type | class | in lolama |
|---|---|---|
"""

_KEYS: tuple[tuple[str, str], ...] = (
    ("audio_config codec_config audio_encoder", "sound"),
    ("vision_config image_size qformer_config vq_config", "pictures of this kind"),
    ("is_encoder_decoder encoder_layers encoder decoder_layers", "an encoder, or cross-attention"),
    ("mamba_d_state mamba_n_heads state_size ssm_state_size conv_L_cache conv_kernel linear_num_key_heads "
     "linear_key_head_dim lru_width mamba_num_heads mamba_d_conv linear_attn_config attention_hidden_size "
     "qk_dim_factor linear_attention_config full_attn_alpha_factor",
     "recurrent or convolution layers"),
    ("kv_lora_rank", "latent attention"),
    ("n_routed_experts num_experts num_local_experts moe_num_experts ffn_config n_experts "
     "expert_ffn_hidden_size moe_intermediate_size",
     "experts of this kind"),
    ("type_vocab_size n_embd d_model n_positions embed_dim word_embed_proj_dim alibi local_layers",
     "another transformer than LLaMA's"),
    ("layer_norm_eps layer_norm_epsilon norm_eps norm_epsilon layer_norm_bias", "LayerNorm"),
)  # fmt: skip
"""Keys of a configuration, and what lolama does not have where one of them is there."""


class ModelType(NamedTuple):
    """One of transformers' types, what lolama does with it, and a config.json of it."""

    name: str
    classes: tuple[str, ...]
    verdict: str
    config: str


def class_names(name: str) -> tuple[str, ...]:
    """The classes of a type for text, and for text and pictures."""
    mappings = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )
    return tuple(dict.fromkeys(mapping[name] for mapping in mappings if name in mapping))


def default_config(name: str) -> str:
    """What transformers writes into config.json for a model of default sizes; of some it has none."""
    classes = list(class_names(name))
    try:
        text: str = CONFIG_MAPPING[name](architectures=classes).to_json_string(use_diff=False)
    except (StrictDataclassError, TypeError, ValueError):
        text = json.dumps({"model_type": name, "architectures": classes})
    return text


def missing(config: dict[str, Any]) -> str:
    """What a type that is refused has and lolama has not, as far as its configuration tells."""
    for keys, what in _KEYS:
        if any(config.get(key) for key in keys.split()):
            return what
    return "arithmetic of its own"


def verdict(name: str, config: dict[str, Any]) -> str:
    """What lolama does with a type."""
    vision = VISION_LAYOUTS.get(name)
    if vision is not None and vision.sees:
        return "read"
    if vision is not None:
        return "read without pictures"
    if name in LAYOUTS:
        return "read"
    near = ", ".join(f"`{each}`" for each in nearest_types(name, SUPPORTED))
    return f"refused: {missing(config)}; {near}"


def types_with_parity() -> set[str]:
    """Types that a parity case is of."""
    kinds = {"Llava": "llava", "LlavaNext": "llava_next", "VipLlava": "vipllava"}
    kinds |= {"LlavaOnevision": "llava_onevision", "Idefics3": "idefics3", "SmolVLM": "smolvlm"}
    kinds |= {"Gemma3": "gemma3"}
    text = {kind for kind, _ in (CASES | DESCENDANTS).values()}
    return text | {kinds[kind] for kind, *_ in VISION_CASES.values()}


def model_types() -> Iterator[ModelType]:
    """All of them, by name."""
    names = {
        *modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    }
    for name in sorted(names):
        config = default_config(name)
        yield ModelType(name, class_names(name), verdict(name, json.loads(config)), config)


def page(types: list[ModelType]) -> str:
    """The text of docs/model_types.md."""
    import transformers

    works = sum(one.verdict.startswith("read") for one in types)
    head = HEAD.format(version=transformers.__version__, works=works, count=len(types))
    rows = [
        f"| `{one.name}` | {', '.join(f'`{each}`' for each in one.classes)} | {one.verdict} |\n"
        for one in types
    ]
    return head + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(list(model_types())), "utf-8")
