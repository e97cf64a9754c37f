"""The architectures of llama.cpp that lolama reads: metadata → the fields of the same model's config.json.

What a family does otherwise than LLaMA stands in one place, its file in `folder/layouts`, which reads
config.json. So metadata are put into the words of config.json, and the layout does the rest; a switch that a
family gains there holds for its GGUF files too. What llama.cpp's code takes for granted, and no metadata say,
stands here: whether the weights of experts sum to 1, or which layers of Gemma have a window.

Reference: llama.cpp's ``conversion/*.py``, which write the files, and ``src/models/*.cpp``, which read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import shown
from lolama_hub.gguf.experts import expert_width, experts, has_experts, mixture
from lolama_hub.gguf.metadata import GGUFModel, read_rope
from lolama_hub.gguf.windows import MOST_LAYERS_LISTED, query_scalar, rope_of_two_kinds, windows


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture.

    Args:
        fields: Metadata → ``model_type``, and fields of config.json beside those of all architectures.
        interleaved: Whether the dimensions of a rotated pair stand side by side in the rows of q and k: in
            those that llama.cpp rotates in its "normal" way. For some its converter moves the rows.
        renamed: Canonical name → GGUF's, where another one than `tensor_names.TENSORS` has.
        types: The types of config.json that llama.cpp's converter writes so.
        joined: The tensors that llama.cpp looks for where others are several: see `tensor_names.JOINED`.
        factors: Whether it reads factors of rotary pairs.
        always: Metadata that it needs, and their values where nothing is to be said.
        implied: Canonical fields that it takes for granted.
        window_layers: How many layers a model has whose window llama.cpp follows; None for any, 0 for none.
    """

    fields: Callable[[GGUFModel], dict[str, JSON]]
    interleaved: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    types: tuple[str, ...]
    joined: tuple[str, ...] = ()
    factors: bool = False
    always: Mapping[str, float] = field(default_factory=dict[str, float])
    implied: tuple[str, ...] = ()
    window_layers: int | None = None


def find_architecture(subject: str, name: object) -> Architecture:
    """The architecture that a file names.

    Args:
        subject: The file, for messages.
        name: What it has as ``general.architecture``.

    Raises:
        ModelError: naming one that is not supported.
    """
    if isinstance(name, str) and name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name == "clip":
        reason = "holds what reads pictures, and no language model"
        raise ModelError(subject, reason, "give the .gguf file of the language model")
    reason = f"is of the architecture {shown(name)}, which lolama does not read"
    if name is None:
        reason = "holds no model: it names no architecture (general.architecture)"
    raise ModelError(subject, reason, f"use a model of one of {', '.join(ARCHITECTURES)}")


def read_fields(model: GGUFModel, architecture: Architecture) -> dict[str, JSON]:
    """The fields that the model's config.json would have.

    Raises:
        ModelError: naming the key that is missing, impossible or not supported.
    """
    embedding = model.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        found = "lacks" if embedding is None else f"has shape {embedding.shape} for"
        reason = f"{found} 'token_embd.weight', the embedding of tokens"
        raise ModelError(str(model.path), reason, "get another conversion of the model")
    if model.get("attention.causal") is False:
        raise model.refuse("attention.causal", "true: a text is read forward")
    heads = model.same("attention.head_count")
    has_kv = model.get("attention.head_count_kv") is not None
    fields: dict[str, JSON] = {
        "vocab_size": embedding.shape[0],
        "hidden_size": model.integer("embedding_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": model.same("attention.head_count_kv") if has_kv else heads,
        "num_hidden_layers": model.integer("block_count", high=MOST_LAYERS_LISTED),
        "intermediate_size": _inner_width(model),
        "max_position_embeddings": model.integer("context_length"),
        "rms_norm_eps": model.number("attention.layer_norm_rms_epsilon", low=0.0, high=1.0),
        "head_dim": model.head_dim,
        "rope_parameters": dict(read_rope(model)),
        "sliding_window": None,
        "tie_word_embeddings": "output.weight" not in model.tensors,
    }
    return fields | architecture.fields(model)


def _inner_width(model: GGUFModel) -> int:
    """The width of the feed-forward network; a model of experts alone may leave it out."""
    if model.get("feed_forward_length") is None and has_experts(model):
        return expert_width(model)
    return model.same("feed_forward_length")


def _plain(model_type: str) -> Callable[[GGUFModel], dict[str, JSON]]:
    """The fields of an architecture of which all is said by then."""
    return lambda _model: {"model_type": model_type}


def _llama(model: GGUFModel) -> dict[str, JSON]:
    """LLaMA, Mistral and all others that llama.cpp takes for LLaMA, and Mixtral."""
    return mixture(model, "mixtral") if has_experts(model) else {"model_type": "llama"}


def _mistral3(model: GGUFModel) -> dict[str, JSON]:
    """Ministral 3, or the language model of Mistral Small 3.1 and later."""
    beta = model.get("attention.temperature_scale")
    if not beta:
        return {"model_type": "mistral"}
    rope = read_rope(model) | {"llama_4_scaling_beta": beta}
    rope.setdefault("original_max_position_embeddings", model.integer("context_length"))
    return {"model_type": "ministral3", "rope_parameters": rope}


def _qwen2_moe(model: GGUFModel) -> dict[str, JSON]:
    found = experts(model, normalized=False)
    shared = "expert_shared_feed_forward_length"
    given = shared if model.get(shared) is not None else "feed_forward_length"
    width = {"shared_expert_intermediate_size": model.same(given)}
    return {"model_type": "qwen2_moe", **found, **width}


def _granite(model: GGUFModel) -> dict[str, JSON]:
    """Granite's multipliers; each is 1 where it is left out or 0, and that of attention 1 / √head_dim."""
    found: dict[str, JSON] = {
        "model_type": "granite",
        "attention_multiplier": model.number_or("attention.scale", 0.0) or model.head_dim**-0.5,
        "embedding_multiplier": model.number_or("embedding_scale", 0.0) or 1.0,
        "residual_multiplier": model.number_or("residual_scale", 0.0) or 1.0,
        "logits_scaling": model.number_or("logit_scale", 0.0) or 1.0,
    }
    # This says of Granite that nothing is rotated.
    if model.get("rope.scaling.finetuned") is False:
        layers: list[JSON] = ["attention"] * model.integer("block_count", high=MOST_LAYERS_LISTED)
        found |= {
            "model_type": "granitemoehybrid",
            "layer_types": layers,
            "num_local_experts": 0,
            "shared_intermediate_size": model.same("feed_forward_length"),
            "position_embedding_type": None,
        }
    return found


def _granite_moe(model: GGUFModel) -> dict[str, JSON]:
    if model.get("expert_shared_feed_forward_length") not in (None, 0):
        raise model.refuse("expert_shared_feed_forward_length", "0: such experts are not supported")
    return _granite(model) | mixture(model, "granitemoe")


def _olmo2(model: GGUFModel) -> dict[str, JSON]:
    """OLMo 2, or OLMo 3, which has a window."""
    if not model.get("attention.sliding_window"):
        return {"model_type": "olmo2"}
    return {"model_type": "olmo3", **windows(model, 4), **rope_of_two_kinds(model)}


def _exaone4(model: GGUFModel) -> dict[str, JSON]:
    """EXAONE 4, of which the 32B model has a window; its first files do not say so."""
    default = 4096 if model.integer("block_count") == 64 else None
    found = windows(model, 4, default)
    if found["sliding_window"] is None:
        del found["layer_types"]
    return {"model_type": "exaone4", **found}


def _phi3(model: GGUFModel) -> dict[str, JSON]:
    """Phi-3 and its kin, whose window transformers follows and llama.cpp does not."""
    original = "rope.scaling.original_context_length"
    given = original if model.get(original) is not None else "context_length"
    return {
        "model_type": "phi3",
        "sliding_window": model.get("attention.sliding_window") or None,
        "original_max_position_embeddings": model.integer(given),
    }


def _gemma2(model: GGUFModel) -> dict[str, JSON]:
    found: dict[str, JSON] = {
        "model_type": "gemma2",
        "sliding_window": 4096,
        "query_pre_attn_scalar": query_scalar(model, 46),
    }
    for ours, theirs in (
        ("sliding_window", "attention.sliding_window"),
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ):
        if model.get(theirs) is not None:
            found[ours] = model.get(theirs)
    return found


def _gemma3(model: GGUFModel) -> dict[str, JSON]:
    return {
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": query_scalar(model, 62),
        "final_logit_softcapping": model.get("final_logit_softcapping") or None,
        **windows(model, 6),
        **rope_of_two_kinds(model, 10000.0),
    }


_BEHIND_ATTENTION = {"layers.{n}.ffn_norm.weight": "blk.{n}.post_attention_norm.weight"}

_MULTIPLIERS = dict.fromkeys(("embedding_scale", "residual_scale", "logit_scale"), 1.0)
_OF_GEMMA = ("embedding_scale", "attention_scale")

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(
        fields=_llama, interleaved=True, types=("llama", "mistral", "mixtral"), factors=True
    ),
    "mistral3": Architecture(
        fields=_mistral3, interleaved=True, types=("ministral3",), factors=True
    ),
    "qwen2": Architecture(fields=_plain("qwen2"), types=("qwen2",)),
    "qwen2moe": Architecture(fields=_qwen2_moe, types=("qwen2_moe",)),
    "qwen3": Architecture(fields=_plain("qwen3"), types=("qwen3",)),
    "qwen3moe": Architecture(
        fields=lambda model: {"model_type": "qwen3_moe", **experts(model, normalized=True)},
        types=("qwen3_moe",),
    ),
    "smollm3": Architecture(fields=_plain("smollm3"), interleaved=True, types=("smollm3",)),
    "granite": Architecture(
        fields=_granite,
        interleaved=True,
        types=("granite", "granitemoehybrid"),
        factors=True,
        always=_MULTIPLIERS,
    ),
    "granitemoe": Architecture(
        fields=_granite_moe,
        interleaved=True,
        types=("granitemoe",),
        factors=True,
        always=_MULTIPLIERS,
    ),
    "phi3": Architecture(
        fields=_phi3,
        types=("phi3",),
        joined=("attn_qkv", "ffn_up"),
        factors=True,
        window_layers=0,
    ),
    "olmo2": Architecture(fields=_olmo2, types=("olmo2", "olmo3")),
    "olmoe": Architecture(
        fields=lambda model: mixture(model, "olmoe", normalized=False), types=("olmoe",)
    ),
    "gemma": Architecture(fields=_plain("gemma"), types=("gemma",), implied=_OF_GEMMA),
    "gemma2": Architecture(fields=_gemma2, types=("gemma2",), implied=_OF_GEMMA),
    "gemma3": Architecture(fields=_gemma3, types=("gemma3_text",), implied=_OF_GEMMA),
    "seed_oss": Architecture(
        fields=_plain("seed_oss"), types=("seed_oss",), renamed=_BEHIND_ATTENTION
    ),
    "ernie4_5": Architecture(fields=_plain("ernie4_5"), interleaved=True, types=("ernie4_5",)),
    "exaone4": Architecture(fields=_exaone4, types=("exaone4",), factors=True, window_layers=64),
    "glm4": Architecture(
        fields=_plain("glm4"), interleaved=True, types=("glm4",), joined=("ffn_up",)
    ),
    "chatglm": Architecture(
        fields=_plain("glm"), interleaved=True, types=("glm",), joined=("ffn_up",)
    ),
}
