"""The published models that have a short name.

Each is a repository of a family that is read here. Sizes are about those of the files that are fetched.
"""

from __future__ import annotations

from lolama_core.protocols.source import ModelInfo

_APACHE = "Apache-2.0"


def _model(
    alias: str,
    repo: str,
    parameters: str,
    description: str,
    license: str,
    size: int,
    context: int,
    *,
    kind: str = "text",
    gated: bool = False,
) -> ModelInfo:
    """A line of the table; the arguments are the fields of `ModelInfo`."""
    return ModelInfo(
        alias=alias,
        repo=repo,
        parameters=parameters,
        description=description,
        kind=kind,
        license=license,
        gated=gated,
        size=size,
        context=context,
    )


MODELS: tuple[ModelInfo, ...] = (
    _model(
        *(
            "tinyllama",
            "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
            "1.1B",
            "TinyLlama 1.1B Chat: small, fast, instruction-tuned",
        ),
        *(_APACHE, 2_200_000_000, 2_048),
    ),
    _model(
        *(
            "open_llama_3b",
            "openlm-research/open_llama_3b_v2",
            "3B",
            "OpenLLaMA 3B v2: compact base model",
        ),
        *(_APACHE, 6_850_000_000, 2_048),
    ),
    _model(
        *(
            "open_llama_7b",
            "openlm-research/open_llama_7b_v2",
            "7B",
            "OpenLLaMA 7B v2: full-size base model",
        ),
        *(_APACHE, 13_500_000_000, 2_048),
    ),
    _model(
        *(
            "llama7b",
            "meta-llama/Llama-2-7b-hf",
            "7B",
            "LLaMA 2 7B: Meta's base model (gated, requires access)",
        ),
        *("Llama 2 Community License", 13_500_000_000, 4_096),
        gated=True,
    ),
    _model(
        *(
            "llava-1.5-7b",
            "llava-hf/llava-1.5-7b-hf",
            "7B",
            "LLaVA 1.5 7B: general-purpose image understanding",
        ),
        *("Llama 2 Community License", 14_100_000_000, 4_096),
        kind="vision",
    ),
    _model(
        *(
            "llava-med",
            "chaoyinshe/llava-med-v1.5-mistral-7b-hf",
            "7B",
            "LLaVA-Med 7B: medical and radiology images",
        ),
        *("Apache-2.0, for research only", 15_100_000_000, 32_768),
        kind="vision",
    ),
    _model(
        *("qwen3:0.6b", "Qwen/Qwen3-0.6B", "0.6B", "Qwen3 0.6B: thinks before it answers"),
        *(_APACHE, 1_500_000_000, 40_960),
    ),
    _model(
        *("qwen3:1.7b", "Qwen/Qwen3-1.7B", "1.7B", "Qwen3 1.7B: thinks before it answers"),
        *(_APACHE, 4_060_000_000, 40_960),
    ),
    _model(
        *("qwen3:4b", "Qwen/Qwen3-4B", "4.0B", "Qwen3 4B: thinks before it answers"),
        *(_APACHE, 8_050_000_000, 40_960),
    ),
    _model(
        *("qwen3:8b", "Qwen/Qwen3-8B", "8.2B", "Qwen3 8B: thinks before it answers"),
        *(_APACHE, 16_400_000_000, 40_960),
    ),
    _model(
        *("qwen2.5:0.5b", "Qwen/Qwen2.5-0.5B-Instruct", "0.5B", "Qwen2.5 0.5B Instruct"),
        *(_APACHE, 990_000_000, 32_768),
    ),
    _model(
        *("qwen2.5:1.5b", "Qwen/Qwen2.5-1.5B-Instruct", "1.5B", "Qwen2.5 1.5B Instruct"),
        *(_APACHE, 3_090_000_000, 32_768),
    ),
    _model(
        *("qwen2.5:3b", "Qwen/Qwen2.5-3B-Instruct", "3.1B", "Qwen2.5 3B Instruct"),
        *("Qwen Research License", 6_170_000_000, 32_768),
    ),
    _model(
        *("qwen2.5:7b", "Qwen/Qwen2.5-7B-Instruct", "7.6B", "Qwen2.5 7B Instruct"),
        *(_APACHE, 15_200_000_000, 32_768),
    ),
    _model(
        *(
            "llama3.2:1b",
            "meta-llama/Llama-3.2-1B-Instruct",
            "1.2B",
            "Llama 3.2 1B Instruct (gated)",
        ),
        *("Llama 3.2 Community License", 2_470_000_000, 131_072),
        gated=True,
    ),
    _model(
        *(
            "llama3.2:3b",
            "meta-llama/Llama-3.2-3B-Instruct",
            "3.2B",
            "Llama 3.2 3B Instruct (gated)",
        ),
        *("Llama 3.2 Community License", 6_430_000_000, 131_072),
        gated=True,
    ),
    _model(
        *(
            "llama3.1:8b",
            "meta-llama/Llama-3.1-8B-Instruct",
            "8.0B",
            "Llama 3.1 8B Instruct (gated)",
        ),
        *("Llama 3.1 Community License", 16_100_000_000, 131_072),
        gated=True,
    ),
    _model(
        *("smollm2:135m", "HuggingFaceTB/SmolLM2-135M-Instruct", "135M", "SmolLM2 135M Instruct"),
        *(_APACHE, 269_000_000, 8_192),
    ),
    _model(
        *("smollm2:360m", "HuggingFaceTB/SmolLM2-360M-Instruct", "362M", "SmolLM2 360M Instruct"),
        *(_APACHE, 724_000_000, 8_192),
    ),
    _model(
        *("smollm2:1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "1.7B", "SmolLM2 1.7B Instruct"),
        *(_APACHE, 3_420_000_000, 8_192),
    ),
    _model(
        *("smollm3:3b", "HuggingFaceTB/SmolLM3-3B", "3.1B", "SmolLM3 3B: thinks before it answers"),
        *(_APACHE, 6_170_000_000, 65_536),
    ),
    _model(
        *("gemma3:270m", "google/gemma-3-270m-it", "268M", "Gemma 3 270M (gated)"),
        *("Gemma Terms of Use", 570_000_000, 32_768),
        gated=True,
    ),
    _model(
        *("gemma3:1b", "google/gemma-3-1b-it", "1.0B", "Gemma 3 1B (gated)"),
        *("Gemma Terms of Use", 2_030_000_000, 32_768),
        gated=True,
    ),
    _model(
        *("phi4-mini", "microsoft/Phi-4-mini-instruct", "3.8B", "Phi-4-mini Instruct"),
        *("MIT", 7_690_000_000, 131_072),
    ),
    _model(
        *(
            "granite3.3:2b",
            "ibm-granite/granite-3.3-2b-instruct",
            "2.5B",
            "Granite 3.3 2B Instruct",
        ),
        *(_APACHE, 5_070_000_000, 131_072),
    ),
    _model(
        *(
            "granite3.3:8b",
            "ibm-granite/granite-3.3-8b-instruct",
            "8.2B",
            "Granite 3.3 8B Instruct",
        ),
        *(_APACHE, 16_300_000_000, 131_072),
    ),
    _model(
        *(
            "olmo3:7b",
            "allenai/Olmo-3-7B-Instruct",
            "7.3B",
            "Olmo 3 7B Instruct: open data and code",
        ),
        *(_APACHE, 14_600_000_000, 65_536),
    ),
    _model(
        *(
            "smolvlm2:256m",
            "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
            "256M",
            "SmolVLM2 256M: for small machines",
        ),
        *(_APACHE, 1_030_000_000, 8_192),
        kind="vision",
    ),
    _model(
        *(
            "smolvlm2:500m",
            "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
            "507M",
            "SmolVLM2 500M: for small machines",
        ),
        *(_APACHE, 2_040_000_000, 8_192),
        kind="vision",
    ),
    _model(
        *("smolvlm2:2.2b", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "2.2B", "SmolVLM2 2.2B"),
        *(_APACHE, 8_990_000_000, 8_192),
        kind="vision",
    ),
    _model(
        *(
            "llava-onevision:0.5b",
            "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
            "0.9B",
            "LLaVA-OneVision 0.5B",
        ),
        *(_APACHE, 1_800_000_000, 32_768),
        kind="vision",
    ),
    _model(
        *(
            "llava-onevision:7b",
            "llava-hf/llava-onevision-qwen2-7b-ov-hf",
            "8.0B",
            "LLaVA-OneVision 7B",
        ),
        *(_APACHE, 16_100_000_000, 32_768),
        kind="vision",
    ),
)
