"""Architectures that are not supported, and the one that is nearest to each: by descent, or by its name."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_BY_RELATIVE = {
    "ernie4_5": "paddleocr_vl",
    "exaone4": "exaone4_5 hyperclovax_vision_v2",
    "gemma2": "cohere2",
    "gemma3": (
        "cohere_compass cosmos3_edge diffusion_gemma gemma4 gemma4_unified inkling_mm_model "
        "muse_glimmer muse_spark shieldgemma2 step3p7 t5gemma2"
    ),
    "gemma3_text": (
        "cohere_compass_text gemma3n gemma3n_text gemma4_assistant gemma4_text "
        "gemma4_unified_assistant gemma4_unified_text modernbert-decoder"
    ),
    "glm4": "glm46v glm4v glm_ocr glmga",
    "granite": "granite_swa hyperclovax",
    "granitemoe": "granitemoe_swa granitemoeshared",
    "idefics3": "granite_docling minicpm_ocr minicpmv4_6 minicpmv4_7",
    "llava": (
        "aria aya_vision blip blip-2 chameleon cohere2_vision deepseek_vl deepseek_vl_hybrid emu3 "
        "fast_vlm florence2 fuyu git glm5_next got_ocr2 inkling2 instructblip instructblipvideo "
        "internvl janus kimi_k25 kosmos-2 kosmos-2.5 lfm2_vl lfm3_vl minimax_m3_vl mllama molmo2 "
        "nemotron_h_omni paligemma perception_lm pi0 pix2struct pp_chart2table pp_formulanet "
        "qianfan_ocr udop video_llava"
    ),
    "llava_next": "deepseek_ocr2 granite4_vision llava_next_video ovis2 unlimited_ocr",
    "mistral": "starcoder2",
    "mistral3": "lighton_ocr mistral_large4",
    "mixtral": (
        "cohere2_moe deepseek_v4 doge dots3_note dots3_note_text ernie4_5_moe ernie4_5_vl_moe "
        "gpt_oss hunyuan_v1_moe hy_v3 hy_v4 inkling_text jamba jetmoe longcat_flash mimo_v2_flash "
        "minimax minimax_m2 minimax_m3_vl_text phimoe"
    ),
    "olmo3": "lfm3 olmo_hybrid",
    "olmoe": "aria_text flex_olmo",
    "phi3": "phi4_multimodal",
    "qwen2": "qwen2_5_omni_thinker qwen2_5_vl qwen2_vl",
    "qwen2_moe": (
        "afmoe axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 dots1 exaone_moe glm4_moe "
        "glm4_moe_lite glm4v_moe glm_moe_dsa laguna lfm2_moe mistral4 solar_open"
    ),
    "qwen3": "cosmos3_omni qwen3_5 qwen3_5_text qwen3_vl",
    "qwen3_moe": (
        "beam flint inkling2_text kolibri1 mellum qwen3_5_moe qwen3_5_moe_text qwen3_next "
        "qwen3_omni_moe_thinker qwen3_vl_moe qwen4_exp qwen4_exp_text zaya"
    ),
}
"""Supported architecture → those that transformers derives from it. LLaVA has vision models that derive
from none."""

RELATIVES = {name: near for near, names in _BY_RELATIVE.items() for name in names.split()}
"""Architecture → the nearest one that is supported, where that is not LLaMA."""

# Names of one family share as many first letters, and are at least as similar to `get_close_matches`.
_FIRST_LETTERS = 4
_SIMILARITY = 0.5


def nearest_types(model_type: str, supported: Collection[str]) -> list[str]:
    """Up to three supported types: its relative, and those that are spelled like it; else LLaMA."""
    relative = RELATIVES.get(model_type)
    name = model_type[:80].lower()
    kin = [other for other in sorted(supported) if other.startswith(name[:_FIRST_LETTERS])]
    like = get_close_matches(name, kin, n=2, cutoff=_SIMILARITY)
    return list(dict.fromkeys([*([relative] if relative else []), *like])) or ["llama"]
