"""What is said to LLaVA-1.5 and to LLaVA-Med about a picture, against transformers' processor."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lolama.command_prompts import PreparedImages
from lolama.names import resolve
from lolama.prompts import message_content
from lolama.vision import processor_of
from lolama.wiring import tokenizer_of
from lolama_cli.prompts import encode_prompt
from lolama_core.protocols.types import Message, ModelFiles
from lolama_core.testing import tiny
from lolama_vision import VLMConfig
from lolama_vision.split import split_grid

IMAGE_TOKEN = 300
SIDE = 28
QUESTION = "What is shown, </s> or <image>?"
PROMPTS = {
    "llava-1.5-7b": ("Llava", "Llama", "<s>USER: {pictures}{text} ASSISTANT:"),
    "llava-med": ("Llava", "Mistral", "<s>[INST] {pictures}{text} [/INST]"),
    "llava-qwen2": (
        *("Llava", "Qwen2"),
        "<s><|im_start|>user\n{pictures}{text}<|im_end|>\n<|im_start|>assistant\n",
    ),
    "vip-llava": (
        *("VipLlava", "Llama"),
        "<s>A chat between a curious human and an artificial intelligence assistant. The assistant gives"
        " helpful, detailed, and polite answers to the human's questions.###Human: {pictures}{text}"
        "###Assistant:",
    ),
}


@pytest.fixture(scope="module", params=PROMPTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the alias' kind, with weights, a tokenizer, and no template of its own."""
    import transformers

    sizes = {
        "vocab_size": IMAGE_TOKEN + 1,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 256,
        "eos_token_id": 257,
    }
    vision = transformers.CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=14,
    )
    kind, language, _ = PROMPTS[request.param]
    config = getattr(transformers, f"{kind}Config")(
        vision_config=vision,
        text_config=getattr(transformers, f"{language}Config")(**sizes),
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-2,
    )
    folder: Path = tmp_path_factory.mktemp(request.param) / request.param
    model: Any = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    size = {"height": SIDE, "width": SIDE}
    settings = {"size": {"shortest_edge": SIDE}, "crop_size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def write_tokenizer(folder: Path) -> None:
    """One id a byte, and BOS in front, as a Llama's adds it."""
    names = {c: i for i, c in enumerate(sorted(tiny.byte_characters()))}
    names |= {"<s>": 256, "</s>": 257, "<image>": IMAGE_TOKEN}
    names |= {f"<unused {i}>": i for i in range(258, IMAGE_TOKEN)}
    text = tiny.byte_level(names, specials=("<s>", "</s>", "<image>"), bos="<s>")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "extra_special_tokens": {"image_token": "<image>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def images_of(files: ModelFiles, count: int) -> PreparedImages:
    processor = processor_of(files)
    assert processor is not None
    return PreparedImages(files, processor.preprocess([Image.new("RGB", (40, 30))] * count))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_prompt_is_what_the_model_was_trained_on(folder: Path, count: int) -> None:
    files = resolve(folder)
    tokenizer = tokenizer_of(files)
    ids = list(encode_prompt(QUESTION, files, tokenizer, images=images_of(files, count)))
    expected = PROMPTS[folder.name][2].format(pictures="<image>\n" * count, text=QUESTION)
    assert tokenizer.decode(ids, skip_special_tokens=False) == expected
    # What the user typed is text: the only control ids are the template's.
    assert [i for i in ids if i >= 256] == [256, *[IMAGE_TOKEN] * count]


@pytest.mark.parametrize("count", [1, 2])
def test_prompts_of_several_turns_equal_those_of_transformers(folder: Path, count: int) -> None:
    import transformers

    files = resolve(folder)
    tokenizer = tokenizer_of(files)
    said: list[Message] = [
        {"role": "user", "content": message_content("What is this?", count, parts=True)},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "text", "text": "And its colour?"}]},
    ]
    theirs = transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=files.tokenizer.chat_template,
    )
    text: str = theirs.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    pictures = [Image.new("RGB", (40, 30))] * count
    begins = text.startswith("<s>")
    [expanded] = theirs(text=text, images=pictures, add_special_tokens=not begins)["input_ids"]
    patches = (SIDE // 14) ** 2
    assert expanded.count(IMAGE_TOKEN) == count * patches
    expected = [
        i
        for i, run in groupby(expanded)
        for i in [i] * (len(list(run)) // (patches if i == IMAGE_TOKEN else 1))
    ]
    assert tokenizer.ensure_bos(tokenizer.render_chat(said)) == expected


@pytest.mark.parametrize("tokens", [True, False], ids=["marks are tokens", "marks are texts"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_prompts_of_smolvlm_equal_those_of_transformers(
    count: int, tokens: bool, tmp_path: Path
) -> None:
    """What is said, and what stands around tiles, in one list of ids."""
    import transformers

    folder = write_smolvlm(tmp_path / "smolvlm", tokens=tokens)
    files = resolve(folder)
    said: list[Message] = [
        {"role": "user", "content": message_content("What is this?", count, parts=True)},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "text", "text": "And its color?"}]},
    ]
    theirs = transformers.Idefics3Processor(
        transformers.SmolVLMImageProcessorPil.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        image_seq_len=1,
        chat_template=files.tokenizer.chat_template,
    )
    text: str = theirs.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    assert text.startswith("<s>User:<image>" if count else "<s>User: What is this?<end_of_utt")
    pictures = [Image.new("RGB", size) for size in ((40, 30), (20, 50))[:count]]
    [expected] = theirs(text=text, images=pictures or None)["input_ids"]

    processor = processor_of(files)
    assert processor is not None
    ids = list(tokenizer_of(files).render_chat(said))
    vision = VLMConfig.from_json(files.config["model"]).vision_config
    marks = vision.preprocessing.marks
    assert marks is not None
    places = [
        [one for ids_ahead in ahead for one in (*ids_ahead, IMAGE_TOKEN)] + list(end)
        for picture in pictures
        for *ahead, end in [marks.between(*split_grid((picture.height, picture.width), vision))]
    ]
    inputs = processor.preprocess(pictures)
    assert inputs["tokens_per_image"] == [len(place) for place in places]
    assert [t for i in ids for t in (places.pop(0) if i == IMAGE_TOKEN else [i])] == expected


def write_smolvlm(folder: Path, *, tokens: bool) -> Path:
    """A tiny SmolVLM with a tokenizer of bytes, whose marks of tiles are tokens or texts."""
    import transformers

    config = transformers.SmolVLMConfig(
        vision_config={
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 14,
        },
        text_config=transformers.LlamaConfig(
            vocab_size=IMAGE_TOKEN + 1,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=256,
            eos_token_id=257,
        ),
        image_token_id=IMAGE_TOKEN,
    )
    model: Any = transformers.SmolVLMForConditionalGeneration(config)
    model.save_pretrained(folder)
    control = ["<s>", "</s>", "<fake_token_around_image>", "<end_of_utterance>"]
    if tokens:
        control += ["<global-img>", *(f"<row_{r}_col_{c}>" for r in (1, 2, 3) for c in (1, 2, 3))]
    names = {c: i for i, c in enumerate(sorted(tiny.byte_characters()))}
    names |= {name: 256 + n for n, name in enumerate(control)}
    two_breaks = "\u010a\u010a"  # a line break, as the tokenizer writes it, twice
    names[two_breaks] = 280
    names |= {f"<unused {i}>": i for i in range(IMAGE_TOKEN) if i not in names.values()}
    names["<image>"] = IMAGE_TOKEN
    text = tiny.byte_level(
        names, [(two_breaks[0], two_breaks[1])], specials=(*control, "<image>"), bos=None
    )
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "extra_special_tokens": {"image_token": "<image>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    sizes = {"size": {"longest_edge": 3 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "SmolVLMImageProcessor", **sizes})
    )
    return folder
