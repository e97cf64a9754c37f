"""A tiny model of which every word is known in advance, so that a test can say exactly what must come out.

Its layers add nothing, its embedding is the identity and its output projection a table "after this token
comes that one":

* after a letter comes the next one, a … z, round and round;
* after ``?`` any letter, ``a`` somewhat more likely than the others: the one place where sampling matters;
* after ``!`` a script of what no terminal should be sent as it is;
* after the chat template's last token a reply, and the end.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from lolama_core import Llama, LlamaConfig, write_checkpoint
from lolama_core.protocols.types import CanonicalConfig
from lolama_core.testing import tiny

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCRIPT = (
    *("[/foo]", "[red]", ":smile:"),  # markup and emoji codes of Rich
    *("\x1b[31m", "\x1b]52;c;aGk=\x07", "\x9b2J", "\r", "\b"),  # color, clipboard, C1, overwriting
    "é✓",
)
REPLY = "As asked."
# Tokens that cut the tags of a thought, which stands before a reply.
THOUGHT = ("<thi", "nk>", "\nI wonder", ".\n</th", "ink>\n\n")
SPECIALS = ("<s>", "</s>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKING_TEMPLATE = (
    CHAT_TEMPLATE
    + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
"""Its switch writes an empty thought, as that of Qwen3 does."""
OPENED_TEMPLATE = CHAT_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}{# </think> #}"
"""It begins every thought itself, as those of DeepSeek-R1 do."""
BOS, EOS = 0, 1
SHARP = 1.0  # times sqrt(width) = 17: nothing else has a chance
WIDTH = 288


VOCABULARY = {
    token: index
    for index, token in enumerate(
        (*SPECIALS, *tiny.byte_characters(), *SCRIPT, REPLY, *THOUGHT),
    )
}


def tokenizer_json() -> str:
    """Byte-level, one token a byte, and the pieces of the script as tokens of their own."""
    added = (*SCRIPT, REPLY, *THOUGHT)
    return tiny.byte_level(VOCABULARY, specials=SPECIALS, added=added, bos="<s>", words=False)


def transitions(*, thinks: bool = False) -> Tensor:
    """(V, D): row = next token, column = the token before. One that ``thinks`` does so before it replies."""
    table = torch.zeros(len(VOCABULARY), WIDTH)

    def follow(*tokens: str) -> None:
        for before, after in pairwise(tokens):
            table[VOCABULARY[after], VOCABULARY[before]] = SHARP

    follow(*LETTERS, "a")
    follow("!", *SCRIPT, "</s>")
    follow("<|assistant|>", *(THOUGHT if thinks else ()), REPLY, "</s>")
    if thinks:
        follow("\u010a", THOUGHT[3])  # after a line break, the end of a thought
    for letter in LETTERS:
        table[VOCABULARY[letter], VOCABULARY["?"]] = 0.51 if letter == "a" else 0.5
    return table


def model_config(max_seq_len: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        d_model=WIDTH,
        num_heads=8,
        num_kv_heads=1,
        num_layers=1,
        hidden_dim=32,
        max_seq_len=max_seq_len,
    )


def tensors(scale: float = 1.0, *, thinks: bool = False) -> dict[str, Tensor]:
    """The weights; a ``scale`` of 1e37 makes logits overflow while every weight is finite."""
    state = Llama(model_config(16)).state_dict()
    weights = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    for name in weights:
        if name.endswith("norm.weight"):
            weights[name] = torch.ones(WIDTH)
    weights["embed_tokens.weight"] = torch.eye(len(VOCABULARY), WIDTH)
    weights["lm_head.weight"] = transitions(thinks=thinks) * scale
    return weights


def write(
    directory: Path,
    *,
    max_seq_len: int = 4096,
    chat_template: str | None = None,
    scale: float = 1.0,
    thinks: bool = False,
) -> Path:
    """Write it as a lolama checkpoint.

    Args:
        directory: Where.
        max_seq_len: Its context.
        chat_template: Its template, if it is to have one.
        scale: See `tensors`.
        thinks: Whether it thinks before it replies.
    """
    names = ("vocab_size", "d_model", "num_heads", "num_kv_heads", "num_layers", "hidden_dim")
    shape = model_config(max_seq_len)
    config: CanonicalConfig = {
        "format": "lolama",
        "format_version": 1,
        "family": "llama",
        "model": {name: getattr(shape, name) for name in (*names, "max_seq_len")},
        "dtype": "float32",
        "generation": {"eos_ids": [EOS]},
        "tokenizer": {"bos_token": "<s>", "eos_token": "</s>"},
    }
    write_checkpoint(
        directory,
        config,
        tensors(scale, thinks=thinks).items(),
        tokenizer_json=tokenizer_json(),
        chat_template=chat_template,
    )
    return directory


def write_hugging_face(directory: Path) -> Path:
    """Write it as Hugging Face lays models out."""
    from safetensors.torch import save_file

    shape = model_config(4096)
    directory.mkdir()
    names = {
        "layers.": "model.layers.",
        "embed_tokens.": "model.embed_tokens.",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attention.": "self_attn.",
        "feed_forward.": "mlp.",
        "w_gate": "gate_proj",
        "w_up": "up_proj",
        "w_down": "down_proj",
    }
    published = {}
    for name, tensor in tensors().items():
        new = f"model.{name}" if name == "norm.weight" else name
        for ours, theirs in names.items():
            new = new.replace(ours, theirs)
        published[new] = tensor
    save_file(published, directory / "model.safetensors")
    (directory / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>"})
    )
    config = {
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.hidden_dim,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "max_position_embeddings": shape.max_seq_len,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory
