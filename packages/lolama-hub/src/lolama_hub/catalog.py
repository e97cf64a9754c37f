"""The published models that have a short name: a row for each.

Each is a repository of a family that is read here. Aliases of 0.1 come first, and stay.
"""

from __future__ import annotations

from lolama_core.protocols.source import ModelInfo

# GB is about what is fetched; the context is what config.json says.
# alias               repository of the Hub                        parameters   GB  context kind   license
_TABLE = """
tinyllama             TinyLlama/TinyLlama-1.1B-Chat-v1.0             1.1B     2.20    2_048 text   apache
open_llama_3b         openlm-research/open_llama_3b_v2               3B       6.85    2_048 text   apache
open_llama_7b         openlm-research/open_llama_7b_v2               7B      13.5     2_048 text   apache
llama7b               meta-llama/Llama-2-7b-hf                       7B      13.5     4_096 text   llama-2
llava-1.5-7b          llava-hf/llava-1.5-7b-hf                       7B      14.1     4_096 vision llama-2
llava-med             chaoyinshe/llava-med-v1.5-mistral-7b-hf        7B      15.1    32_768 vision research
gemma3:270m           google/gemma-3-270m-it                         268M     0.57   32_768 text   gemma
gemma3:1b             google/gemma-3-1b-it                           1.0B     2.03   32_768 text   gemma
granite3.1-moe:1b     ibm-granite/granite-3.1-1b-a400m-instruct      1.3B     2.67  131_072 text   apache
granite3.1-moe:3b     ibm-granite/granite-3.1-3b-a800m-instruct      3.3B     6.60  131_072 text   apache
granite3.3:2b         ibm-granite/granite-3.3-2b-instruct            2.5B     5.07  131_072 text   apache
granite3.3:8b         ibm-granite/granite-3.3-8b-instruct            8.2B    16.3   131_072 text   apache
llama3.1:8b           meta-llama/Llama-3.1-8B-Instruct               8.0B    16.1   131_072 text   llama-3.1
llama3.2:1b           meta-llama/Llama-3.2-1B-Instruct               1.2B     2.48  131_072 text   llama-3.2
llama3.2:3b           meta-llama/Llama-3.2-3B-Instruct               3.2B     6.43  131_072 text   llama-3.2
ministral3:3b         mistralai/Ministral-3-3B-Instruct-2512-BF16    3.4B     7.72  262_144 text   apache
olmo3:7b              allenai/Olmo-3-7B-Instruct                     7.3B    14.6    65_536 text   apache
phi4-mini             microsoft/Phi-4-mini-instruct                  3.8B     7.69  131_072 text   mit
qwen2.5:0.5b          Qwen/Qwen2.5-0.5B-Instruct                     0.5B     1.00   32_768 text   apache
qwen2.5:1.5b          Qwen/Qwen2.5-1.5B-Instruct                     1.5B     3.10   32_768 text   apache
qwen2.5:3b            Qwen/Qwen2.5-3B-Instruct                       3.1B     6.18   32_768 text   qwen
qwen2.5:7b            Qwen/Qwen2.5-7B-Instruct                       7.6B    15.2    32_768 text   apache
qwen3:0.6b            Qwen/Qwen3-0.6B                                0.6B     1.51   40_960 text   apache
qwen3:1.7b            Qwen/Qwen3-1.7B                                1.7B     4.08   40_960 text   apache
qwen3:4b              Qwen/Qwen3-4B                                  4.0B     8.06   40_960 text   apache
qwen3:8b              Qwen/Qwen3-8B                                  8.2B    16.4    40_960 text   apache
smollm2:135m          HuggingFaceTB/SmolLM2-135M-Instruct            135M     0.27    8_192 text   apache
smollm2:360m          HuggingFaceTB/SmolLM2-360M-Instruct            362M     0.73    8_192 text   apache
smollm2:1.7b          HuggingFaceTB/SmolLM2-1.7B-Instruct            1.7B     3.42    8_192 text   apache
smollm3:3b            HuggingFaceTB/SmolLM3-3B                       3.1B     6.17   65_536 text   apache
gemma3:4b             google/gemma-3-4b-it                           4.3B     8.64  131_072 vision gemma
gemma3:12b            google/gemma-3-12b-it                          12.2B   24.4   131_072 vision gemma
llava-onevision:0.5b  llava-hf/llava-onevision-qwen2-0.5b-ov-hf      0.9B     1.80   32_768 vision apache
llava-onevision:7b    llava-hf/llava-onevision-qwen2-7b-ov-hf        8.0B    16.1    32_768 vision apache
smolvlm2:256m         HuggingFaceTB/SmolVLM2-256M-Video-Instruct     256M     1.03    8_192 vision apache
smolvlm2:500m         HuggingFaceTB/SmolVLM2-500M-Video-Instruct     507M     2.03    8_192 vision apache
smolvlm2:2.2b         HuggingFaceTB/SmolVLM2-2.2B-Instruct           2.2B     8.99    8_192 vision apache
"""

_LICENSES = {
    "apache": "Apache-2.0",
    "gemma": "Gemma Terms of Use",
    "llama-2": "Llama 2 Community License",
    "llama-3.1": "Llama 3.1 Community License",
    "llama-3.2": "Llama 3.2 Community License",
    "mit": "MIT",
    "qwen": "Qwen Research License",
    "research": "Apache-2.0, for research only",
}

# Owners that give the files only to those who have accepted the license.
_GATED = ("google/", "meta-llama/")

_DESCRIPTIONS = {
    "tinyllama": "TinyLlama 1.1B Chat: small, fast, instruction-tuned",
    "open_llama_3b": "OpenLLaMA 3B v2: compact base model",
    "open_llama_7b": "OpenLLaMA 7B v2: full-size base model",
    "llama7b": "LLaMA 2 7B: Meta's base model (gated, requires access)",
    "llava-1.5-7b": "LLaVA 1.5 7B: general-purpose image understanding",
    "llava-med": "LLaVA-Med 7B: medical and radiology images",
    "gemma3": "Gemma 3 {} (gated)",
    "granite3.1-moe": "Granite 3.1 MoE {}: mixture of experts",
    "granite3.3": "Granite 3.3 {} Instruct",
    "llama3.1": "Llama 3.1 {} Instruct (gated)",
    "llama3.2": "Llama 3.2 {} Instruct (gated)",
    "ministral3": "Ministral 3 {} Instruct: its language model",
    "olmo3": "Olmo 3 {} Instruct: open data and code",
    "phi4-mini": "Phi-4-mini Instruct",
    "qwen2.5": "Qwen2.5 {} Instruct",
    "qwen3": "Qwen3 {}: thinks before it answers",
    "smollm2": "SmolLM2 {} Instruct",
    "smollm3": "SmolLM3 {}: thinks before it answers",
    "llava-onevision": "LLaVA-OneVision {}",
    "smolvlm2": "SmolVLM2 {}: for small machines",
}
"""Alias, or what stands ahead of its size → what the model is."""


def _model(row: str) -> ModelInfo:
    alias, repo, parameters, gigabytes, context, kind, license = row.split()
    family, _, size = alias.partition(":")
    return ModelInfo(
        alias=alias,
        repo=repo,
        parameters=parameters,
        description=_DESCRIPTIONS[family].format(size.upper()),
        kind=kind,
        license=_LICENSES[license],
        gated=repo.startswith(_GATED),
        size=round(float(gigabytes) * 1e9),
        context=int(context),
    )


MODELS: tuple[ModelInfo, ...] = tuple(map(_model, _TABLE.strip().splitlines()))
