"""Small tokenizers, a tiny model and a checkpoint, each made here; nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from lolama_core import Llama, LlamaConfig, Tokenizer

CORPUS = [
    "Once upon a time there was a little girl called Lily. She loved to play in the park with her dog.",
    "The quick brown fox jumps over the lazy dog; 1234567890 times, isn't it? “Yes,” said the fox – naïve!",
    "user assistant system say hello world the and you are a helpful assistant. INST im_start im_end",
    "漢字 かな 漢字 かな 🙂👍🏽 🙂👍🏽 café café été",
] * 3

BYTE_LEVEL_SPECIALS = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<image>"]
BYTE_FALLBACK_SPECIALS = ["<unk>", "<s>", "</s>", "<image>", "[INST]", "[/INST]"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

INST = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' }}{% if message['content'] is string %}{{ message['content'].strip() }}{% else %}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}{{ ' [/INST]' }}"
    "{% elif message['role'] == 'system' %}{{ '<<SYS>>\\n' + message['content'] + '\\n<</SYS>>\\n\\n' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def train(size: int, alphabet: list[str], native: tokenizers.Tokenizer) -> dict[str, Any]:
    """The parsed ``tokenizer.json`` of a BPE tokenizer of ``size`` tokens, trained on the corpus."""
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    native.train_from_iterator(CORPUS, trainer)
    parsed: dict[str, Any] = json.loads(native.to_str())
    return parsed


@pytest.fixture(scope="session")
def byte_level_json() -> str:
    """Like GPT-2 and Llama 3: tokens are strings of bytes, cut anywhere, also within a character."""
    native = tokenizers.Tokenizer(models.BPE())
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    native.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    parsed = train(400, alphabet, native)
    whole = tokenizers.Tokenizer.from_str(json.dumps(parsed))
    whole.add_special_tokens(BYTE_LEVEL_SPECIALS)
    bos = BYTE_LEVEL_SPECIALS[0]
    whole.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, whole.token_to_id(bos))]
    )
    return str(whole.to_str())


@pytest.fixture(scope="session")
def byte_fallback_json() -> str:
    """Like Llama 2: pieces with ▁ for a space, and a token for each byte where no piece fits."""
    native = tokenizers.Tokenizer(models.BPE())
    native.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    parsed = train(300, [], native)
    # Characters outside the most common are left to the bytes.
    rare = set("漢字🙂👍🏽é“”–")
    pieces = [piece for piece in parsed["model"]["vocab"] if not rare & set(piece)]
    merges = [pair for pair in parsed["model"]["merges"] if not rare & set("".join(pair))]
    names = [*BYTE_FALLBACK_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    whole = tokenizers.Tokenizer(
        models.BPE(
            vocab={name: index for index, name in enumerate(names)},
            merges=[(left, right) for left, right in merges],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    whole.normalizer = native.normalizer
    whole.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    whole.add_special_tokens(BYTE_FALLBACK_SPECIALS)
    whole.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", whole.token_to_id("<s>"))]
    )
    return str(whole.to_str())


@pytest.fixture(scope="session")
def byte_level(byte_level_json: str) -> Tokenizer:
    """Made from `byte_level_json`, with a template in the style of ChatML."""
    return Tokenizer(
        byte_level_json, chat_template=CHATML, bos_token="<|bos|>", eos_token="<|eos|>"
    )


@pytest.fixture(scope="session")
def byte_fallback(byte_fallback_json: str) -> Tokenizer:
    """Made from `byte_fallback_json`, with a template in the style of Llama 2."""
    return Tokenizer(byte_fallback_json, chat_template=INST, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session", params=["byte_level", "byte_fallback"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Both, one after the other."""
    made: Tokenizer = request.getfixturevalue(request.param)
    return made


@pytest.fixture(scope="session")
def stories_json() -> str:
    """The tokenizer of a small real model, where there is one beside the repository."""
    path = Path(__file__).resolve().parents[4] / "shared/data/stories260K/tokenizer.json"
    if not path.is_file():
        pytest.skip("stories260K is not here")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def tiny_llama() -> Callable[..., Llama]:
    """Makes a random model; its logits are spread out enough that no two ids are nearly as good."""

    def make(seed: int = 0, **sizes: Any) -> Llama:
        torch.manual_seed(seed)
        config = LlamaConfig(
            **{
                "vocab_size": 400,
                "d_model": 32,
                "num_heads": 4,
                "num_kv_heads": 2,
                "num_layers": 2,
                "hidden_dim": 64,
                "max_seq_len": 64,
                **sizes,
            }
        )
        model = Llama(config).eval().requires_grad_(False)
        model.lm_head.weight.mul_(8)
        return model

    return make
