"""lolama against transformers, through files: the same folder, the same logits and the same tokens."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lolama_core import (
    FileCheckpointIO,
    GenerationConfig,
    Llama,
    LlamaFamily,
    TextGenerator,
    load_model,
    reference,
)
from lolama_core.model.rope_scaling import dynamic_beyond
from lolama_hub import HuggingFaceSource

TOLERANCE = 1e-5
LENGTH = 40  # longer than every "original" length below, so that each kind of scaling is in force

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 80,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def rope(rope_type: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **settings}}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_gqa": ("llama", {}),
    "llama_mha": ("llama", {"num_key_value_heads": 4}),
    "llama_mqa": ("llama", {"num_key_value_heads": 1}),
    "llama_bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_head_dim": ("llama", {"head_dim": 24}),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "llama_tied_head_stored": ("llama", {"tie_word_embeddings": True}),
    "llama_tied_only_head_stored": ("llama", {"tie_word_embeddings": True}),
    "llama_linear": ("llama", rope("linear", factor=4.0)),
    "llama_dynamic": ("llama", {"max_position_embeddings": 16, **rope("dynamic", factor=4.0)}),
    "llama_llama3": (
        "llama",
        rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
    ),
    "llama_yarn": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama_old_style_config": ("llama", rope("linear", factor=2.0)),
    "mistral_window": ("mistral", {"sliding_window": 7}),
    "mistral_no_window": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2_tied": ("qwen2", {"tie_word_embeddings": True}),
}
"""What `reference` explains: LLaMA, and what differs from it in sizes alone."""

SLIDING: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 7}
FACTORS = [1.0, 1.1, 1.3, 1.5, 2.0, 2.2, 2.5, 3.0]
LONGROPE = rope(
    "longrope",
    short_factor=FACTORS,
    long_factor=[4 * each for each in FACTORS],
    original_max_position_embeddings=16,
)
PHI_MINI = {
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": FACTORS[:6],
        "long_factor": [4 * each for each in FACTORS[:6]],
    },
}
YARN_IN_FULL = {
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "attention_factor": 1.2,
    },
}
QUERIES_GROW = rope(
    "yarn",
    factor=4.0,
    original_max_position_embeddings=16,
    llama_4_scaling_beta=0.5,
    mscale=1.0,
    mscale_all_dim=1.0,
)
EIGHT = {"num_experts": 8, "num_experts_per_tok": 3}
QWEN_EXPERTS = {**EIGHT, "moe_intermediate_size": 40}
SHARED_EXPERT = {**QWEN_EXPERTS, "shared_expert_intermediate_size": 48}
DESCENDANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_longrope": ("llama", LONGROPE),
    "llama_gelu": ("llama", {"hidden_act": "gelu"}),
    "llama_gelu_tanh": ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}),
    "smollm3_listed": ("smollm3", {"no_rope_layers": [0, 1, 0], "tie_word_embeddings": False}),
    "smollm3_window": ("smollm3", {**SLIDING, "no_rope_layer_interval": 2}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.4,
            "logits_scaling": 3.0,
        },
    ),
    "granite_off": ("granite", {"attention_bias": True, "mlp_bias": True}),
    "granitemoe": (
        "granitemoe",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.4,
            "logits_scaling": 3.0,
        },
    ),
    "granitemoe_fused": (
        "granitemoe",
        {"num_local_experts": 5, "num_experts_per_tok": 1, "attention_bias": True},
    ),
    "granite4": (
        "granitemoehybrid",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.4,
            "logits_scaling": 3.0,
            "num_local_experts": 0,
            "shared_intermediate_size": 88,
            "position_embedding_type": "rope",
            "layer_types": ["full_attention"] * 3,
        },
    ),
    "granite4_unrotated": (
        "granitemoehybrid",
        {
            "num_local_experts": 0,
            "shared_intermediate_size": 96,
            "layer_types": ["full_attention"] * 3,
        },
    ),
    "seed_oss": ("seed_oss", {"head_dim": 24}),
    "seed_oss_biases": ("seed_oss", {"attention_out_bias": True, "mlp_bias": True}),
    "seed_oss_no_bias": ("seed_oss", {"attention_bias": False}),
    "phi3": ("phi3", {}),
    "phi3_window": ("phi3", {"sliding_window": 7, "num_key_value_heads": 4}),
    "phi3_longrope": (
        "phi3",
        {"original_max_position_embeddings": 16, **LONGROPE},
    ),
    "phi4_mini": (
        "phi3",
        {
            "original_max_position_embeddings": 16,
            "tie_word_embeddings": True,
            **PHI_MINI,
        },
    ),
    "olmo2": ("olmo2", {}),
    "olmo2_bias": ("olmo2", {"attention_bias": True, "num_key_value_heads": 4}),
    "olmo3": ("olmo3", {"num_hidden_layers": 5, "sliding_window": 7}),
    "olmo3_yarn": ("olmo3", {"num_hidden_layers": 4, "sliding_window": 7, **YARN_IN_FULL}),
    "olmo3_all_full": ("olmo3", {"layer_types": ["full_attention"] * 3}),
    "ministral3": ("ministral3", {"head_dim": 24, **QUERIES_GROW}),
    "ministral3_window": ("ministral3", {"head_dim": 16, "sliding_window": 7, **QUERIES_GROW}),
    "gemma": ("gemma", {"head_dim": 24}),
    "gemma_gelu": ("gemma", {"head_dim": 24, "hidden_act": "gelu", "tie_word_embeddings": False}),
    "gemma2": ("gemma2", {"head_dim": 24, "sliding_window": 7, "query_pre_attn_scalar": 16}),
    "gemma2_caps": (
        "gemma2",
        {
            "head_dim": 24,
            "sliding_window": 7,
            "attn_logit_softcapping": 1.0,
            "final_logit_softcapping": 0.7,
        },
    ),
    "gemma2_no_caps": (
        "gemma2",
        {"head_dim": 16, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "gemma3": ("gemma3_text", {"head_dim": 24, "sliding_window": 7, "num_hidden_layers": 7}),
    "gemma3_linear": (
        "gemma3_text",
        {
            "head_dim": 16,
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
            "final_logit_softcapping": 0.7,
            "query_pre_attn_scalar": 24,
        },
    ),
    "gemma3_published": (
        "gemma3_text",
        {
            "head_dim": 16,
            "sliding_window": 7,
            "sliding_window_pattern": 2,
            "rope_theta": 1e6,
            "rope_local_base_freq": 300.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "ministral": ("ministral", {"head_dim": 16, "sliding_window": 7}),
    "ministral_layer_types": (
        "ministral",
        {
            "head_dim": 24,
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "exaone4": ("exaone4", {"sliding_window": 7, "num_hidden_layers": 5}),
    "exaone4_full": (
        "exaone4",
        {"sliding_window": None, "layer_types": ["full_attention"] * 3},
    ),
    "exaone4_all_slide": (
        "exaone4",
        {"sliding_window": 7, "layer_types": ["sliding_attention"] * 3},
    ),
    "glm": ("glm", {"head_dim": 24}),
    "glm4": ("glm4", {"head_dim": 16, "attention_bias": False}),
    "ernie4_5": ("ernie4_5", {"head_dim": 24}),
    "ernie4_5_bias": ("ernie4_5", {"head_dim": 16, "use_bias": True}),
    "helium": ("helium", {"head_dim": 16, "attention_bias": True}),
    "vaultgemma": ("vaultgemma", {"head_dim": 24, "sliding_window": 7}),
    "mixtral": ("mixtral", {}),
    "mixtral_window_fused": (
        "mixtral",
        {"sliding_window": 7, "num_local_experts": 5, "num_experts_per_tok": 1, "head_dim": 24},
    ),
    "mixtral_one_expert_fused": ("mixtral", {"num_local_experts": 1, "num_experts_per_tok": 1}),
    "mixtral_ties": ("mixtral", {"num_experts_per_tok": 3}),
    "qwen2_moe": ("qwen2_moe", SHARED_EXPERT),
    "qwen2_moe_fused": ("qwen2_moe", {**SHARED_EXPERT, "norm_topk_prob": True, "qkv_bias": False}),
    "qwen2_moe_dense_layers": (
        "qwen2_moe",
        {
            **SHARED_EXPERT,
            "num_hidden_layers": 6,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [1],
            "tie_word_embeddings": True,
        },
    ),
    "qwen2_moe_windows": (
        "qwen2_moe",
        {**SHARED_EXPERT, **SLIDING, "num_hidden_layers": 5, "max_window_layers": 4},
    ),
    "qwen3_moe": ("qwen3_moe", {**QWEN_EXPERTS, "head_dim": 24, "norm_topk_prob": True}),
    "qwen3_moe_fused": ("qwen3_moe", {**QWEN_EXPERTS, "attention_bias": True}),
    "qwen3_moe_dense_layers": (
        "qwen3_moe",
        {**QWEN_EXPERTS, **SLIDING, "mlp_only_layers": [0], "num_experts_per_tok": 8},
    ),
    "qwen3_moe_published": ("qwen3_moe", {**QWEN_EXPERTS, "head_dim": 16}),
    "olmoe": ("olmoe", EIGHT),
    "olmoe_fused": (
        "olmoe",
        {**EIGHT, "norm_topk_prob": True, "attention_bias": True, "num_key_value_heads": 4},
    ),
    "olmoe_ties": ("olmoe", EIGHT),
    "qwen2_windows": ("qwen2", {**SLIDING, "max_window_layers": 2}),
    "qwen2_layer_types": (
        "qwen2",
        {**SLIDING, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "qwen3": ("qwen3", {"head_dim": 24}),
    "qwen3_tied": ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3_bias": ("qwen3", {"head_dim": 16, "attention_bias": True}),
    "qwen3_windows": ("qwen3", {"head_dim": 16, **SLIDING, "max_window_layers": 1}),
    "qwen3_yarn": (
        "qwen3",
        {"head_dim": 16, **rope("yarn", factor=4.0, original_max_position_embeddings=16)},
    ),
}
"""One case for each switch of each family, and some for what it is published with."""


class Pair(NamedTuple):
    """The same weights in both implementations."""

    name: str
    ours: Llama
    theirs: Any

    def expected(self, ids: Tensor) -> Tensor:
        """transformers' logits (B, T, V). A fresh copy: dynamic RoPE leaves state behind."""
        with torch.inference_mode():
            logits: Tensor = copy.deepcopy(self.theirs)(ids, use_cache=False).logits
        return logits


def save(name: str, folder: Path) -> Any:
    import transformers

    model_type, changes = (CASES | DESCENDANTS)[name]
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(model_type, **{**SIZES, **changes})
    # In this way its own operators, not torch's, compute attention: softcaps are left out otherwise.
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    fill(model.eval(), model_type)
    if "ties" in name:
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.endswith("mlp.gate.weight"):
                    parameter[1:] = parameter[:1]  # all experts but the first score alike
                    parameter[0] = 0
    model.save_pretrained(folder, save_original_format="fused" not in name)
    rewrite(name, folder)
    return model


@torch.no_grad()
def fill(model: Any, model_type: str) -> None:
    """Give each parameter of a model of transformers random values, of which none does nothing."""
    for key, parameter in model.named_parameters():
        # Gemma adds 1 to these.
        around = 1.0 if "norm" in key and "gemma" not in model_type else 0.0
        parameter.copy_(torch.randn_like(parameter) * 0.1 + around)


def rewrite(name: str, folder: Path) -> None:
    """Other ways in which the same model is published."""
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    if "head_stored" in name:
        tensors = load_file(weights)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        if "only" in name:
            del tensors["model.embed_tokens.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    if "qwen3_moe_published" in name:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["num_experts"] = config.pop("num_local_experts")
        path.write_text(json.dumps(config))
    if "old_style" in name:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        parameters = config.pop("rope_parameters")
        config["rope_theta"] = parameters["rope_theta"]
        config["rope_scaling"] = {"type": parameters["rope_type"], "factor": parameters["factor"]}
        config["torch_dtype"] = config.pop("dtype")
        path.write_text(json.dumps(config))


def write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models

    vocabulary = {f"t{i}": i for i in range(SIZES["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.add_special_tokens([AddedToken("t1", special=True), AddedToken("t2", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "t1", "eos_token": "t2", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def load(folder: Path) -> Llama:
    """A folder that transformers saved, by lolama in float32; it gets a tokenizer."""
    write_tokenizer(folder)
    files = HuggingFaceSource().resolve(str(folder), FileCheckpointIO())
    model = load_model(files, {"llama": LlamaFamily()}, device="cpu", dtype="float32")
    assert isinstance(model, Llama)
    return model


@pytest.fixture(scope="module", params=list(CASES | DESCENDANTS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(request.param, tmp_path_factory.mktemp(request.param))


def make_pair(name: str, folder: Path) -> Pair:
    theirs = save(name, folder)
    return Pair(name, load(folder), theirs)


def random_ids(batch: int, length: int) -> Tensor:
    return torch.randint(
        3, SIZES["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(3)
    )


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_logits_of_all_positions(pair: Pair) -> None:
    ids = random_ids(2, LENGTH)
    close(pair.ours(ids), pair.expected(ids))


@pytest.mark.parametrize("pair", CASES, indirect=True)
@torch.inference_mode()
def test_the_page_that_explains_it(pair: Pair) -> None:
    ids = random_ids(1, LENGTH)
    found = reference.logits(pair.ours.state_dict(), pair.ours.config, ids[0].tolist())
    close(found, pair.ours(ids)[0])
    close(found, pair.expected(ids)[0])


@torch.inference_mode()
@pytest.mark.parametrize("chunks", [[1] * LENGTH, [LENGTH - 3, 1, 1, 1], [11, 17, 12]])
def test_cached_and_chunked_equal_the_whole(pair: Pair, chunks: list[int]) -> None:
    ids = random_ids(1, LENGTH)
    cache, start = pair.ours.make_cache(1, LENGTH), 0
    whole = None if dynamic_beyond(pair.ours.config.rope_scaling) else pair.expected(ids)
    for width in chunks:
        logits = pair.ours.forward_embeds(pair.ours.embed(ids[:, start : start + width]), cache)
        cache.advance([width])
        start += width
        # Under dynamic RoPE every length has a base of its own, hence a whole of its own.
        close(logits, (whole if whole is not None else pair.expected(ids[:, :start]))[:, start - 1])


@torch.inference_mode()
def test_batch_equals_single(pair: Pair) -> None:
    lengths = [LENGTH, 9, 23]
    ids = random_ids(3, LENGTH)
    cache = pair.ours.make_cache(3, LENGTH + 1)
    prompt = pair.ours.embed_prompt(ids, lengths)
    last = pair.ours.forward_embeds(prompt.embeds, cache, prompt.lengths)
    cache.advance(prompt.lengths)
    following = random_ids(3, 1)
    after = pair.ours.forward_embeds(pair.ours.embed(following), cache)
    for row, length in enumerate(lengths):
        alone = torch.cat((ids[row : row + 1, :length], following[row : row + 1]), dim=1)
        close(last[row], pair.expected(alone[:, :-1])[0, -1])
        close(after[row], pair.expected(alone)[0, -1])


def test_greedy_tokens(pair: Pair) -> None:
    ids = random_ids(1, 5)
    count = min(64, pair.ours.max_seq_len - ids.shape[1])
    settings = GenerationConfig.greedy(max_new_tokens=count, ignore_eos=True)
    ours = TextGenerator(pair.ours).generate(ids, settings).ids
    rows = ids
    for _ in range(count):  # without a cache: the reference that every other way must equal
        best = pair.expected(rows)[:, -1:].argmax(-1)
        rows = torch.cat((rows, best), dim=1)
    assert list(ours) == rows[0, 5:].tolist()


def test_log_probabilities(pair: Pair) -> None:
    ids = random_ids(1, LENGTH)
    scores = TextGenerator(pair.ours).score(ids)
    # The last token is only scored, never seen, which matters where the length does (dynamic RoPE).
    expected = pair.expected(ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])[0, :, 0]
    close(scores, expected)
