"""Output projections that share the embedding's weight, and models that give them one of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from lolama_core.protocols.types import JSON, CanonicalConfig, ModelFiles


def untied(files: ModelFiles) -> ModelFiles:
    """The same model with a weight of its own for ``lm_head``, if that is the embedding's."""
    if not is_tied(files.config["model"]):
        return files
    embeddings = [name for name in files.tensors if name.endswith("embed_tokens.weight")]
    heads = {
        name.replace("embed_tokens.weight", "lm_head.weight"): files.tensors[name]
        for name in embeddings
    }
    config = cast(CanonicalConfig, dict(files.config))
    config["model"] = _without_tie(config["model"])
    return replace(files, config=config, tensors={**files.tensors, **heads})


def is_tied(model: Mapping[str, JSON]) -> bool:
    """Whether ``lm_head`` is the embedding, of a model or of the text model in it."""
    inner = [value for value in model.values() if isinstance(value, dict)]
    return model.get("tie_word_embeddings") is True or any(map(is_tied, inner))


def _without_tie(model: Mapping[str, JSON]) -> dict[str, JSON]:
    return {
        name: _without_tie(value) if isinstance(value, dict) else value
        for name, value in model.items()
        if name != "tie_word_embeddings"
    }
