"""Vision models through files that transformers saves: the same logits, the same tokens."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor

import lolama
from lolama import TextGenerator
from lolama.names import resolve
from lolama.vision import processor_of
from lolama.wiring import load_files
from lolama_core import Engine, GenerationConfig
from lolama_core.protocols import CausalLM, ImageProcessor
from lolama_core.protocols.errors import UsageError
from lolama_hub.folder.layouts import LAYOUTS

IMAGE_TOKEN = 90
SIDE = 56
PINPOINTS = [[56, 112], [112, 56], [112, 112]]
ROPE = {"rope_type": "default", "rope_theta": 1000000.0}
# The classes of model, encoder and language model; changes of the language model, and of the whole.
Case = tuple[str, str, str, dict[str, Any], dict[str, Any]]

MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.4,
    "logits_scaling": 3.0,
}
EIGHT = {"num_experts": 8, "num_experts_per_tok": 3}
QWEN_EXPERTS = {**EIGHT, "moe_intermediate_size": 40}
SLIDING = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
SWITCHED: dict[str, dict[str, Any]] = {
    "exaone4": {"sliding_window": 9},
    "gemma2": {
        "sliding_window": 9,
        "attn_logit_softcapping": 1.0,
        "final_logit_softcapping": 0.7,
    },
    "gemma3_text": {"sliding_window": 9, "final_logit_softcapping": 0.7},
    "granite": MULTIPLIERS,
    "granitemoe": MULTIPLIERS,
    # As it is by default, it has layers of Mamba.
    "granitemoehybrid": {
        **MULTIPLIERS,
        "num_local_experts": 0,
        "layer_types": ["full_attention"] * 2,
    },
    "ministral3": {
        "rope_parameters": {
            **ROPE,
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "llama_4_scaling_beta": 0.5,
        }
    },
    "mixtral": {"sliding_window": 9},
    "olmo3": {"sliding_window": 9},
    "olmoe": EIGHT,
    "phi3": {"sliding_window": 9},
    "qwen2": SLIDING,
    "qwen2_moe": {**QWEN_EXPERTS, "shared_expert_intermediate_size": 48},
    "qwen3": SLIDING,
    "qwen3_moe": {**QWEN_EXPERTS, "norm_topk_prob": True},
    "smollm3": {**SLIDING, "no_rope_layer_interval": 2},
    "vaultgemma": {"sliding_window": 9},
}
"""What language models of some types do otherwise than LLaMA, by the fields that say it."""

CASES: dict[str, Case] = {
    "llava": ("Llava", "CLIP", "llama", {}, {}),
    "llava_13b_like": (
        *("Llava", "CLIP", "llama"),
        {"num_key_value_heads": 4, "hidden_size": 80, "head_dim": 20},
        {},
    ),
    "llava_med": (
        "Llava",
        "CLIP",
        "mistral",
        {"sliding_window": None, "rope_parameters": ROPE},
        {},
    ),
    "bakllava": ("Llava", "CLIP", "mistral", {"sliding_window": 20}, {}),
    "llava_next": (
        *("LlavaNext", "CLIP", "mistral"),
        {"sliding_window": None},
        {"image_grid_pinpoints": PINPOINTS},
    ),
    "vipllava": ("VipLlava", "CLIP", "llama", {}, {"vision_feature_layer": [-2, 1]}),
    "llava_siglip": (
        *("Llava", "Siglip", "qwen2"),
        {},
        {"vision_feature_select_strategy": "full", "vision_feature_layer": -1},
    ),
    "onevision": (
        *("LlavaOnevision", "Siglip", "qwen2"),
        {},
        {"image_grid_pinpoints": PINPOINTS, "vision_aspect_ratio": "anyres_max_2"},
    ),
    "idefics3": ("Idefics3", "Idefics3", "llama", {}, {"scale_factor": 2}),
    "smolvlm": ("SmolVLM", "SmolVLM", "llama", {"tie_word_embeddings": True}, {"scale_factor": 2}),
    "gemma3": (
        *("Gemma3", "Siglip", "gemma3_text"),
        {"head_dim": 16, "sliding_window": 7, "num_hidden_layers": 7},
        {"mm_tokens_per_image": 4},
    ),
    # A window shorter than a picture, whose positions see all that is ahead in it.
    "gemma3_window": (
        *("Gemma3", "Siglip", "gemma3_text"),
        {"head_dim": 16, "sliding_window": 5},
        {"mm_tokens_per_image": 16},
    ),
    "gemma3_gemma2": (
        *("Gemma3", "Siglip", "gemma2"),
        {"head_dim": 16, "sliding_window": 9},
        {"mm_tokens_per_image": 4},
    ),
    **{
        f"llava_{text}": ("Llava", "CLIP", text, {"head_dim": 16, **SWITCHED.get(text, {})}, {})
        for text in LAYOUTS
    },
    "granite_vision": (
        *("LlavaNext", "Siglip", "granite"),
        {**MULTIPLIERS, "tie_word_embeddings": True},
        {
            "image_grid_pinpoints": PINPOINTS,
            "vision_feature_select_strategy": "full",
            "vision_feature_layer": [-3, 1, -1],
        },
    ),
}
AROUND: dict[str, Case] = {
    f"{kind}_{text}": (
        *(CASES[kind][0], CASES[kind][1], text),
        {"head_dim": 16, **SWITCHED.get(text, {})},
        CASES[kind][4],
    )
    for kind in ("llava_next", "idefics3")
    for text in LAYOUTS
}
"""Language models of all types in other vision models, which merge pictures otherwise than a LLaVA."""


class Pair(NamedTuple):
    """The same folder in both implementations."""

    ours: CausalLM
    processor: ImageProcessor
    theirs: Any
    folder: Path

    def prompt(self, count: int) -> tuple[list[int], dict[str, Any]]:
        """Ids with one image token a picture, and the pictures."""
        rng = random.Random(count)
        pictures = [
            Image.frombytes("RGB", (w, h), rng.randbytes(3 * w * h)).resize((2 * w, 2 * h))
            for w, h in ((31, 17), (20, 60))[:count]
        ]
        ids = [1, 5, *[IMAGE_TOKEN, 7] * count, 11, 3]
        return ids, dict(self.processor.preprocess(pictures)) if count else {}

    def expected(self, ids: list[int], inputs: dict[str, Any]) -> Tensor:
        """transformers' logits (T', V)."""
        places = self.places(inputs) if inputs else []
        expanded = [t for i in ids for t in (places.pop(0) if i == IMAGE_TOKEN else [i])]
        given: dict[str, Any] = {}
        if inputs:
            given["pixel_values"] = inputs["pixel_values"]
            if hasattr(self.theirs.config, "mm_tokens_per_image"):
                given["token_type_ids"] = torch.tensor([[int(i == IMAGE_TOKEN) for i in expanded]])
            if hasattr(self.theirs.model, "connector"):
                given["pixel_values"] = inputs["pixel_values"][None]
            if hasattr(self.theirs.model, "image_newline"):
                tiles = torch.split(inputs["pixel_values"], list(inputs["tiles_per_image"]))
                padded = torch.nn.utils.rnn.pad_sequence(list(tiles), batch_first=True)
                sizes = torch.tensor(inputs["image_sizes"])
                given = {"pixel_values": padded, "image_sizes": sizes}
        with torch.inference_mode():
            logits: Tensor = self.theirs(input_ids=torch.tensor([expanded]), **given).logits[0]
        return logits

    def places(self, inputs: dict[str, Any]) -> list[list[int]]:
        """The ids of each picture."""
        if not hasattr(self.theirs.model, "connector"):
            return [[IMAGE_TOKEN] * count for count in inputs["tokens_per_image"]]
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        processor = transformers.Idefics3Processor(
            transformers.Idefics3ImageProcessorPil.from_pretrained(self.folder),
            tokenizer,
            image_seq_len=4,
        )
        blank = [Image.new("RGB", size[::-1]) for size in inputs["image_sizes"]]
        found = processor.image_processor(blank, return_row_col_info=True)
        texts = [processor.replace_image_token(found, index) for index in range(len(blank))]
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(request.param, tmp_path_factory.mktemp("vision") / "model")


def config_of(name: str) -> Any:
    """transformers' configuration of a case."""
    import transformers

    kind, encoder, text, changes, settings = (CASES | AROUND)[name]
    sizes = {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = getattr(transformers, f"{encoder}VisionConfig")(
        hidden_size=32,
        intermediate_size=72,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=14,
    )
    return getattr(transformers, f"{kind}Config")(
        vision_config=vision,
        text_config=transformers.AutoConfig.for_model(text, **{**sizes, **changes}),
        **{
            "image_token_id"
            if encoder in ("Idefics3", "SmolVLM")
            else "image_token_index": IMAGE_TOKEN
        },
        **settings,
    )


def make_pair(name: str, folder: Path) -> Pair:
    import transformers

    kind, encoder, text, _, _ = (CASES | AROUND)[name]
    torch.manual_seed(3)
    model: Any = getattr(transformers, f"{kind}ForConditionalGeneration")(config_of(name))
    model.set_attn_implementation("eager")  # others of its ways leave out soft caps
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Gemma adds 1 to those of its norms.
            added = (text.startswith("gemma") and "language_model" in key) or "mm_soft" in key
            around = 1.0 if "norm" in key and key.endswith("weight") and not added else 0.0
            parameter.copy_(torch.randn_like(parameter) * 0.1 + around)
    model.eval().save_pretrained(folder)
    write_tokenizer(folder)
    size = {"height": SIDE, "width": SIDE}
    settings: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": size}
    if encoder == "Siglip":
        settings = {"size": size, "image_processor_type": "SiglipImageProcessor"}
    if kind == "Gemma3":
        settings["image_processor_type"] = "Gemma3ImageProcessor"
    elif encoder in ("Idefics3", "SmolVLM"):
        settings = {
            "size": {"longest_edge": 3 * SIDE},
            "max_image_size": {"longest_edge": SIDE},
            "image_processor_type": f"{encoder}ImageProcessor",
        }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    files = resolve(folder)
    processor = processor_of(files)
    assert processor is not None
    return Pair(load_files(files, device="cpu", dtype="float32"), processor, model, folder)


def write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models

    names = [f"t{i}" for i in range(96)]
    names[IMAGE_TOKEN] = "<image>"
    names[80:84] = ["<fake_token_around_image>", "<global-img>", "\n", "\n\n"]
    names[20:29] = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    names[91:94] = ["<end_of_utterance>", "<start_of_image>", "<end_of_image>"]
    words = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
    special = ("t1", "t2", "<image>", "<fake_token_around_image>", *names[91:94])
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": "t1",
        "eos_token": "t2",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "extra_special_tokens": {"image_token": "<image>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@torch.inference_mode()
@pytest.mark.parametrize("count", [0, 1, 2])
def test_logits(pair: Pair, count: int) -> None:
    check_logits(pair, count)


@torch.inference_mode()
@pytest.mark.parametrize("name", AROUND)
def test_row_402_any_language_model_in_any_vision_model(name: str, tmp_path: Path) -> None:
    check_logits(make_pair(name, tmp_path / "model"), 2)


def check_logits(pair: Pair, count: int) -> None:
    ids, inputs = pair.prompt(count)
    prompt = pair.ours.embed_prompt(torch.tensor([ids]), [len(ids)], **inputs)
    logits = pair.ours.forward_embeds(prompt.embeds, logits="all", spans=prompt.spans)[0]
    torch.testing.assert_close(logits, pair.expected(ids, inputs), atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_a_prompt_in_chunks_beside_others(pair: Pair, chunk: int) -> None:
    """Rows of an engine, one of which begins like another, choose what transformers chooses."""
    settings = GenerationConfig.greedy(max_new_tokens=5, suppress_tokens=[IMAGE_TOKEN])
    jobs = [pair.prompt(count) for count in (2, 0, 1)]
    ids, inputs = jobs[0]
    jobs.append(([*ids, 9], inputs))
    engine = Engine(pair.ours, prefill_chunk=chunk)
    tickets = [engine.add(engine.prepare([ids], [settings], (), own)[0]) for ids, own in jobs]
    results: dict[int, Any] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    for ticket, (ids, inputs) in zip(tickets, jobs, strict=True):
        for token in results[ticket].ids:
            scores = pair.expected(ids, inputs)[-1].clone()
            scores[IMAGE_TOKEN] = float("-inf")
            assert token == int(scores.argmax())
            ids = [*ids, token]


def test_greedy_tokens(pair: Pair) -> None:
    ids, inputs = pair.prompt(2)
    # An image token that a model writes itself would ask for one more picture here.
    settings = GenerationConfig.greedy(
        max_new_tokens=64, ignore_eos=True, suppress_tokens=[IMAGE_TOKEN]
    )
    for token in TextGenerator(pair.ours).generate(ids, settings, **inputs).ids:
        scores = pair.expected(ids, inputs)[-1].clone()
        scores[IMAGE_TOKEN] = float("-inf")
        assert token == int(scores.argmax())
        ids = [*ids, token]


@pytest.fixture(params=["mistral", "ministral3"])
def inside(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """A vision model whose pictures are not supported, and its folder."""
    import transformers

    text = request.param
    sizes = {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "sliding_window": 16,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    encoder = {
        "hidden_size": 32,
        "intermediate_size": 72,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 14,
    }
    config = transformers.Mistral3Config(
        text_config=transformers.AutoConfig.for_model(text, **sizes),
        vision_config=encoder,
        image_token_index=IMAGE_TOKEN,
    )
    torch.manual_seed(4)
    model: Any = transformers.Mistral3ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path / "mistral3"
    model.eval().save_pretrained(folder)
    write_tokenizer(folder)
    return folder, model


@torch.inference_mode()
def test_a_language_model_whose_pictures_are_not_supported(inside: tuple[Path, Any]) -> None:
    folder, theirs = inside
    files = resolve(folder)
    assert (files.family, processor_of(files)) == ("llama", None)
    ours = load_files(files, device="cpu", dtype="float32")
    ids = [1, *range(3, 43)]
    expected = theirs(input_ids=torch.tensor([ids])).logits[0]
    logits = ours.forward_embeds(ours.embed(torch.tensor([ids])), logits="all")[0]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    settings = GenerationConfig.greedy(max_new_tokens=64, ignore_eos=True)
    for token in TextGenerator(ours).generate(ids, settings).ids:
        assert token == int(theirs(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids = [*ids, token]


def test_row_317_pictures_of_a_model_that_takes_none_here(inside: tuple[Path, Any]) -> None:
    llm = lolama.load(inside[0])
    with pytest.raises(UsageError, match=r"1 picture for .*, which is a text model and takes none"):
        llm.chat("What is this?", images=Image.new("RGB", (9, 9)))
