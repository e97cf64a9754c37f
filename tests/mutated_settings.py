"""tokenizer_config.json with its companions, and generation_config.json, changed at random.

A seed alone decides what comes of it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tests.mutated_tokenizers import JSON, added_token, pieces

VOCABULARY = 512  # rows of the model's embedding; the tokenizer has fewer tokens
PLAIN = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
TEMPLATE = (
    "{% for name in ['bos', 'eos'] %}{{ name }}{% endfor %}{{ bos_token }}{{ eos_token }}{{ unk_token }}"
    "{{ pad_token }}{{ image_token }}{% if pad_token is defined %}P{% endif %}{% if bos_token is defined %}B"
    "{% endif %}{{ messages[0].content }}{{ tool_token }}"
)


def tokenizer_file(chance: random.Random) -> JSON:
    """A tokenizer in the style of Llama 2 with two plain added tokens; half of them begin texts with <s>."""
    values = pieces()
    size = len(values["model"]["vocab"])
    plain = [(size, "<end>"), (size + 1, "<img>")]
    values["added_tokens"][3:] = [
        added_token(number, text, special=False) for number, text in plain
    ]
    if chance.random() < 0.5:
        values["post_processor"] = None
    return values


FIRST_NEW = len(pieces()["model"]["vocab"]) + 2
_TOKENS: list[Any] = [
    "<s>", "</s>", "<unk>", "<end>", "<img>", "<new>", "<pad>", "the", "▁dog", "a", "", None, 1, True,
    [], ["<s>"], {}, {"content": "<s>"}, {"content": "<end>", **PLAIN},
    {"__type": "AddedToken", "content": "<new>", **PLAIN, "special": True},
    {"__type": "AddedToken", "content": "<end>", **PLAIN, "lstrip": True, "rstrip": True},
    {"content": None}, {"content": 3},
    {"__type": "AddedToken", "content": "<pad>", **PLAIN, "lstrip": "yes"}, "<|a token that is long|>",
    "</s> ", "x" * 300,
]  # fmt: skip
_DECODERS: list[Any] = [
    {},
    None,
    [],
    "x",
    {str(FIRST_NEW): {"content": "<new>", **PLAIN, "special": True}},
    {str(FIRST_NEW): {"content": "<new>", **PLAIN, "special": False}},
    {"1": {"content": "<s>", **PLAIN, "special": False}},
    {str(FIRST_NEW - 2): {"content": "<end>", **PLAIN, "special": True}},
    {str(FIRST_NEW - 1): {"content": "<img>", **PLAIN, "lstrip": True, "special": False}},
    {"9999": {"content": "<far>", **PLAIN, "special": True}},
    {"x": {"content": "<new>"}},
    {"5": "<s>"},
    {"1": {}},
    {str(FIRST_NEW): {"content": "<new>", "special": 1}},
    {"-1": {"content": "<new>", **PLAIN, "special": True}},
    {
        str(FIRST_NEW): {"content": "<new>", **PLAIN, "special": True},
        str(FIRST_NEW + 1): {"content": "<b>", **PLAIN, "special": False, "normalized": True},
    },
    {str(FIRST_NEW): {"content": "the", **PLAIN, "special": True}},
    {"2": {"content": "</s>", **PLAIN, "special": True, "rstrip": True}},
]
_EXTRAS: list[Any] = [
    [], ["<img>"], ["<new>", "<end>"], [{"content": "<new>", **PLAIN, "special": True}],
    {"image_token": "<img>"}, {"tool_token": "<new>", "image_token": "<end>"}, None, "x", [1], [None],
    {"image_token": None}, {"image_token": 3}, ["<new>", "<new>"], [""], ["the"],
]  # fmt: skip
_TEMPLATES: list[Any] = [
    TEMPLATE, [{"name": "default", "template": TEMPLATE}],
    [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TEMPLATE + "!"}],
    [{"name": "rag", "template": "x"}], [], {}, {"default": TEMPLATE}, None, 3, [{"name": "default"}],
    [{"template": TEMPLATE}], "{% if %}", "", ["x"],
    [{"name": "default", "template": TEMPLATE}, {"name": "default", "template": "last"}],
    [{"name": "default", "template": None}],
]  # fmt: skip
_CHOICES: dict[str, list[Any]] = {
    **{
        f"{name}_token": _TOKENS
        for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask", "image")
    },
    "add_bos_token": [True, False, None, "yes", 1],
    "add_eos_token": [True, False, None, "yes"],
    "legacy": [True, False, None],
    "tokenizer_class": [
        "LlamaTokenizer",
        "LlamaTokenizerFast",
        "PreTrainedTokenizerFast",
        "Qwen2Tokenizer",
        "CodeLlamaTokenizerFast",
        "TokenizersBackend",
        "Nope",
        None,
        3,
        ["x"],
    ],
    "added_tokens_decoder": _DECODERS,
    "extra_special_tokens": _EXTRAS,
    "additional_special_tokens": _EXTRAS,
    "chat_template": _TEMPLATES,
    "model_max_length": [512, 1e30, 10**30, -1, None, "x"],
    "clean_up_tokenization_spaces": [True, False, None, "x"],
    "padding_side": ["left", "up", None],
    "use_fast": [False],
    "sp_model_kwargs": [{}],
    "split_special_tokens": [True, False],
    "add_prefix_space": [True, False, None],
    "nothing": [None, 3, {}],
    "use_default_system_prompt": [True, False],
    "errors": ["replace"],
    "spaces_between_special_tokens": [False],
    "auto_map": [{"AutoTokenizer": ["x.Y", None]}],
    "backend": ["tokenizers"],
    "is_local": [True],
    "model_input_names": [["input_ids"]],
    "name_or_path": ["x/y"],
    "chat_template_": [3],
}
_BASES: list[JSON] = [
    {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": TEMPLATE},
    {
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "<end>",
        "tokenizer_class": "LlamaTokenizer",
        "chat_template": TEMPLATE,
    },
    {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": TEMPLATE,
        "added_tokens_decoder": {
            "1": {"content": "<s>", **PLAIN, "special": True},
            "2": {"content": "</s>", **PLAIN, "special": True},
        },
    },
    {"chat_template": TEMPLATE},
    {},
]
_MAPS: list[Any] = [
    {}, {"bos_token": "<s>", "eos_token": "<end>"}, {"eos_token": {"content": "<end>", **PLAIN}},
    {"pad_token": "<pad>"}, {"additional_special_tokens": ["<new>"]}, {"bos_token": None},
    {"extra_special_tokens": ["<img>"]}, {"image_token": "<img>"}, [], {"bos_token": 3},
]  # fmt: skip
_LISTS: list[Any] = [
    {"<new>": FIRST_NEW},
    {"<end>": FIRST_NEW - 2},
    {"<new>": 9999},
    {},
    [],
    {"<new>": "x"},
    {"<new>": FIRST_NEW, "<pad>": FIRST_NEW + 1},
]


def mutated_tokenizer_config(chance: random.Random) -> dict[str, Any]:
    """Name → content of the files beside tokenizer.json."""
    values = deepcopy(chance.choice(_BASES))
    for _ in range(chance.choice([1, 1, 2, 2, 3, 4])):
        _change(values, _CHOICES, chance)
    files: dict[str, Any] = {"tokenizer_config.json": values}
    if chance.random() < 0.15:
        files["special_tokens_map.json"] = deepcopy(chance.choice(_MAPS))
    if chance.random() < 0.1:
        files["added_tokens.json"] = deepcopy(chance.choice(_LISTS))
    return files


def _change(values: JSON, choices: Mapping[str, list[Any]], chance: random.Random) -> None:
    """One field gets another value, or goes."""
    name = chance.choice(list(choices))
    if chance.random() < 0.1:
        values.pop(chance.choice(list(values) or [name]), None)
    else:
        values[name] = deepcopy(chance.choice(choices[name]))


_NUMBERS: list[Any] = [
    0,
    1,
    0.5,
    0.9,
    1.0,
    1.2,
    2,
    -1,
    -0.5,
    1e-9,
    1e30,
    10**30,
    float("nan"),
    float("inf"),
    "0.5",
    "x",
    True,
    False,
    None,
    [],
    [0.5],
    {},
]
_IDS: list[Any] = [
    2,
    0,
    [2],
    [2, 5],
    [5, 2, 5],
    [],
    None,
    -1,
    10**6,
    VOCABULARY,
    VOCABULARY - 1,
    "2",
    [2, "x"],
    [None],
    2.0,
    True,
    {"a": 1},
    [[2]],
]
_GENERATION: dict[str, list[Any]] = {
    **dict.fromkeys(
        (
            "temperature",
            "top_p",
            "min_p",
            "typical_p",
            "repetition_penalty",
            "epsilon_cutoff",
            "eta_cutoff",
            "top_h",
        ),
        _NUMBERS,
    ),
    "do_sample": [True, True, True, False, None, 1, "true", 0, []],
    "top_k": [0, 1, 5, 50, 10**6, -1, 2.5, "5", True, None, [5], 10**30],
    "eos_token_id": _IDS,
    "bos_token_id": _IDS,
    "pad_token_id": _IDS,
    "num_beams": [1, 2, None, 0, "x"],
    "max_length": [20, 4096, -1, None, "x"],
    "max_new_tokens": [1, 100, None],
    "min_length": [0, 3],
    "min_new_tokens": [0, 3, None],
    "no_repeat_ngram_size": [0, 2, None],
    "suppress_tokens": [[], [3], None],
    "begin_suppress_tokens": [[], [3]],
    "bad_words_ids": [[[3]], [[3, 4]], None],
    "sequence_bias": [None, [[[3], 1.5]]],
    "forced_bos_token_id": [None, 1],
    "forced_eos_token_id": [None, 2],
    "guidance_scale": [None, 1.0, 1.5],
    "encoder_repetition_penalty": [1.0, 1.5],
    "exponential_decay_length_penalty": [None, [5, 1.1]],
    "penalty_alpha": [None, 0.6],
    "use_cache": [True, False],
    "transformers_version": ["4.31.0", None, 3],
    "_from_model_config": [True, False],
    "renormalize_logits": [True],
    "stop_strings": [None, ["x"]],
    "nothing": [3, None],
    "cache_implementation": [None, "static"],
    "low_memory": [None, True],
    "num_return_sequences": [1, 2],
    "output_scores": [True],
    "remove_invalid_values": [True],
    "length_penalty": [1.0, 2.0],
}
_CONFIG_EOS: list[Any] = [2, 2, 2, [2, 7], None, 0, []]
_GENERATION_BASES: list[JSON] = [
    {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 5]},
    {"do_sample": True, "eos_token_id": 2, "top_k": 20, "repetition_penalty": 1.1},
    {"eos_token_id": 2, "temperature": 0.7, "top_p": 0.8},
    {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2}, {},
]  # fmt: skip


def mutated_generation_config(chance: random.Random) -> tuple[JSON, Any]:
    """generation_config.json, and the end ids of config.json."""
    values = deepcopy(chance.choice(_GENERATION_BASES))
    for _ in range(chance.choice([1, 1, 2, 2, 3, 4])):
        _change(values, _GENERATION, chance)
    return values, deepcopy(chance.choice(_CONFIG_EOS))
