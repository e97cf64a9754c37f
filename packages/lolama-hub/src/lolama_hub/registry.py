"""The models that have a short name here."""

from __future__ import annotations

from difflib import get_close_matches

from lolama_core.protocols.types import ModelInfo

MODELS: tuple[ModelInfo, ...] = (
    ModelInfo(
        alias="tinyllama",
        repo="TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        parameters="1.1B",
        description="TinyLlama 1.1B Chat: small, fast, instruction-tuned",
        kind="text",
        license="Apache-2.0",
    ),
    ModelInfo(
        alias="open_llama_3b",
        repo="openlm-research/open_llama_3b_v2",
        parameters="3B",
        description="OpenLLaMA 3B v2: compact base model",
        kind="text",
        license="Apache-2.0",
    ),
    ModelInfo(
        alias="open_llama_7b",
        repo="openlm-research/open_llama_7b_v2",
        parameters="7B",
        description="OpenLLaMA 7B v2: full-size base model",
        kind="text",
        license="Apache-2.0",
    ),
    ModelInfo(
        alias="llama7b",
        repo="meta-llama/Llama-2-7b-hf",
        parameters="7B",
        description="LLaMA 2 7B: Meta's base model (gated, requires access)",
        kind="text",
        license="Llama 2 Community License",
        gated=True,
    ),
    ModelInfo(
        alias="llava-1.5-7b",
        repo="llava-hf/llava-1.5-7b-hf",
        parameters="7B",
        description="LLaVA 1.5 7B: general-purpose image understanding",
        kind="vision",
        license="Llama 2 Community License",
    ),
    ModelInfo(
        alias="llava-med",
        repo="chaoyinshe/llava-med-v1.5-mistral-7b-hf",
        parameters="7B",
        description="LLaVA-Med 7B: medical and radiology images",
        kind="vision",
        license="Apache-2.0, for research only",
    ),
)

_BY_ALIAS = {model.alias: model for model in MODELS}


def find(alias: str) -> ModelInfo | None:
    """The model that ``alias`` stands for, or None."""
    return _BY_ALIAS.get(alias)


def suggest(name: str) -> str:
    """The next step for someone who typed a name that means nothing: the closest alias, or all of them."""
    # Ids are long; only the part after the owner resembles an alias.
    typed = name.strip().lower().rpartition("/")[2][:80]
    close = get_close_matches(typed, _BY_ALIAS, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"the aliases are {', '.join(_BY_ALIAS)}; a folder is given by its path"
