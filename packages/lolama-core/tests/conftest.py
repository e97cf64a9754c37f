"""Small tokenizers, a tiny model and a checkpoint, each made here; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lolama_core import LlamaConfig, Tokenizer
from lolama_core.testing import tiny

if TYPE_CHECKING:
    # The process that only gives tests to others imports this file, too, and they wait for it.
    from lolama_core import Llama

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


@pytest.fixture(scope="session")
def byte_level_json() -> str:
    """Like GPT-2 and Llama 3: tokens are strings of bytes, cut anywhere, also within a character."""
    vocabulary, merges = tiny.learn_bytes(CORPUS, 400)
    return tiny.byte_level(vocabulary, merges, specials=BYTE_LEVEL_SPECIALS, bos="<|bos|>")


@pytest.fixture(scope="session")
def byte_fallback_json() -> str:
    """Like Llama 2: pieces with ▁ for a space, and a token for each byte where no piece fits."""
    pieces, merges = tiny.learn_pieces(CORPUS, 300)
    # Characters outside the most common are left to the bytes.
    rare = set("漢字🙂👍🏽é“”–")
    common = [piece for piece in pieces if not rare & set(piece)]
    names = [*BYTE_FALLBACK_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *common]
    return tiny.with_pieces(
        {name: index for index, name in enumerate(names)},
        [pair for pair in merges if not rare & set("".join(pair))],
        specials=BYTE_FALLBACK_SPECIALS,
        bos="<s>",
        byte_fallback=True,
    )


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


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., Llama]:
    """Makes a random model.

    Its logits are spread out enough that no two ids are nearly as good. They depend on all that it attends
    to, so that wrong keys or values change what is chosen.
    """
    import torch

    from lolama_core import Llama

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
        for place in range(config.num_layers):
            model.get_parameter(f"layers.{place}.attention.o_proj.weight").mul_(8)
        return model

    return make
