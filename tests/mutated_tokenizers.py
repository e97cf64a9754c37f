"""tokenizer.json files, changed at random: other steps, other added tokens, holes, wrong types.

A seed alone decides what comes of it.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

JSON = dict[str, Any]

WORDS = [
    "the",
    "dog",
    "he",
    "llo",
    "wor",
    "ld",
    "ing",
    "is",
    "to",
    "cafe",
    "THE",
    "12",
    "##s",
    "</w>",
    "a|b",
    "ﬁ",
    "é",
    "漢",
]
# 69 ASCII characters, some others, and the spaces of both conventions.
LETTERS = [*map(chr, range(33, 127)), *"▁Ġéñ漢字ﬁⅣ"]


def _merges(words: list[str], vocab: dict[str, int]) -> list[list[str]]:
    """What joins the letters of each word from the left; pieces that are new join ``vocab``."""
    merges: list[list[str]] = []
    for word in words:
        left = word[0]
        for letter in word[1:]:
            if [left, letter] not in merges:
                merges.append([left, letter])
            left += letter
            vocab.setdefault(left, len(vocab))
    return merges


def added_token(number: int, content: str, **flags: bool) -> JSON:
    plain = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return {"id": number, "content": content, **plain, **flags}


def _file(model: JSON, added: list[JSON], **parts: Any) -> JSON:
    steps = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **steps,
        **parts,
        "model": model,
    }


def _byte_level() -> JSON:
    """Like GPT-2 and Llama 3."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocab = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    merges = _merges(["the", "Ġthe", "Ġdog", "hello", "Ġworld", "Ã©", "æ¼¢"], vocab)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocab,
        "merges": merges,
    }
    size = len(vocab)
    added = [
        added_token(size, "<s>"),
        added_token(size + 1, "</s>"),
        added_token(size + 2, "<|im_start|>", lstrip=True),
        added_token(size + 3, "<tool>", special=False),
        added_token(size + 4, "dog", special=False, normalized=True, single_word=True),
        added_token(size + 5, "<end>", special=False, rstrip=True),
    ]
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    begin = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [size], "tokens": ["<s>"]}},
    }
    return _file(model, added, pre_tokenizer=level, post_processor=begin, decoder=dict(level))


def pieces() -> JSON:
    """Like Llama 2."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for name in (*(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS):
        vocab.setdefault(name, len(vocab))
    merges = _merges(["the", "▁the", "▁dog", "hello", "▁world", "▁THE", "cafe"], vocab)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    }
    size = len(vocab)
    added = [
        added_token(0, "<unk>"),
        added_token(1, "<s>"),
        added_token(2, "</s>"),
        added_token(size, "<|x|>", normalized=True),
        added_token(size + 1, "<img>", special=False, lstrip=True, rstrip=True),
    ]
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    decoder = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    begin = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    return _file(model, added, normalizer=normalizer, post_processor=begin, decoder=decoder)


def _unigram() -> JSON:
    """Like T5, and Llama files of some converters."""
    rows: list[list[Any]] = [
        ["<unk>", 0.0],
        ["<s>", 0.0],
        ["</s>", 0.0],
        *[[f"<0x{byte:02X}>", -9.0] for byte in range(256)],
    ]
    rows += [[letter, -5.0 - number / 100] for number, letter in enumerate(LETTERS)]
    rows += [
        [word, -2.0 - number / 100]
        for number, word in enumerate(
            ["▁the", "▁dog", "hello", "▁world", "▁THE", "the", "▁a", "ing"]
        )
    ]
    model = {"type": "Unigram", "unk_id": 0, "vocab": rows, "byte_fallback": True}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    added = [
        added_token(0, "<unk>"),
        added_token(1, "<s>"),
        added_token(2, "</s>"),
        added_token(len(rows), "<pad>", special=False),
    ]
    return _file(
        model, added, normalizer={"type": "NFKC"}, pre_tokenizer=space, decoder=dict(space)
    )


def _word_piece() -> JSON:
    """Like BERT."""
    vocab = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3}
    for letter in [
        *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'<>|",
        "the",
        "dog",
        "hello",
        "world",
        "##s",
        "##ing",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]:
        vocab.setdefault(letter, len(vocab))
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": vocab,
    }
    added = [
        added_token(number, token)
        for number, token in enumerate(["[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    ]
    return _file(
        model,
        added,
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor={"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )


BASES = [_byte_level, pieces, pieces, _byte_level, _unigram, _word_piece]

# A sentencepiece map of no entry: the size of its trie, the trie (one unit), and no text.
_EMPTY_MAP = base64.b64encode((4).to_bytes(4, "little") + bytes(4)).decode()
NORMALIZERS: list[Any] = [
    None,
    *(
        {"type": name}
        for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel")
    ),
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Prepend", "prepend": "x "},
    {"type": "Prepend", "prepend": ""},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Replace", "pattern": {"String": "the"}, "content": "dog"},
    {"type": "Replace", "pattern": {"String": ""}, "content": "-"},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": "[0-9]"}, "content": "0"},
    {"type": "Replace", "pattern": {"String": "<"}, "content": "("},
    {"type": "Replace", "pattern": {"Regex": "("}, "content": "0"},
    {"type": "Replace", "pattern": {"String": "o"}, "content": ""},
    {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    {
        "type": "BertNormalizer",
        "clean_text": False,
        "handle_chinese_chars": False,
        "strip_accents": True,
        "lowercase": False,
    },
    {"type": "Precompiled", "precompiled_charsmap": _EMPTY_MAP},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Precompiled", "precompiled_charsmap": ""},
    {"type": "Sequence", "normalizers": []},
    {"type": "Nothing"},
    {},
]
PRE_TOKENIZERS: list[Any] = [
    None,
    *(
        {"type": name}
        for name in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts")
    ),
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    {"type": "Metaspace", "replacement": "_", "prepend_scheme": "never"},
    {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
    {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "Punctuation", "behavior": "Removed"},
    {"type": "Digits", "individual_digits": True},
    {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    },
    {
        "type": "Split",
        "pattern": {"Regex": "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+|\\s+"},
        "behavior": "Isolated",
        "invert": False,
    },
    {"type": "Split", "pattern": {"Regex": "o"}, "behavior": "Removed", "invert": True},
    {"type": "CharDelimiterSplit", "delimiter": "o"},
    {"type": "FixedLength", "length": 3},
    {"type": "Sequence", "pretokenizers": []},
    {"type": "Nothing"},
]
DECODERS: list[Any] = [
    None,
    *({"type": name} for name in ("ByteFallback", "Fuse", "ByteLevel")),
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    {"type": "WordPiece", "prefix": "##", "cleanup": True},
    {"type": "WordPiece", "prefix": "##", "cleanup": False},
    {"type": "BPEDecoder", "suffix": "</w>"},
    {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    {"type": "Strip", "content": "e", "start": 0, "stop": 1},
    {"type": "Strip", "content": "l", "start": 3, "stop": 3},
    {"type": "Strip", "content": " ", "start": 10**18, "stop": 0},
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "Replace", "pattern": {"String": "e"}, "content": ""},
    {"type": "Replace", "pattern": {"String": "lo"}, "content": "LO"},
    {"type": "Replace", "pattern": {"String": "o"}, "content": "oo"},
    {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "},
    {"type": "Replace", "pattern": {"String": " ,"}, "content": ","},
    {"type": "Sequence", "decoders": []},
    {"type": "Nothing"},
]
POST_PROCESSORS: list[Any] = [
    None,
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
    {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]},
    {
        "type": "RobertaProcessing",
        "sep": ["</s>", 2],
        "cls": ["<s>", 1],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    {"type": "BertProcessing", "sep": ["zzz", 10**6], "cls": ["<s>", 1]},
    {"type": "Sequence", "processors": []},
    {"type": "Nothing"},
    {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
    },
    {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "t", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {"t": {"id": "t", "ids": [1, 1], "tokens": ["<s>", "<s>"]}},
    },
    {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "q", "type_id": 0}}],
        "pair": [],
        "special_tokens": {},
    },
    {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {},
    },
    {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
]
STEPS: dict[str, tuple[str, list[Any]]] = {
    "normalizer": ("normalizers", NORMALIZERS),
    "pre_tokenizer": ("pretokenizers", PRE_TOKENIZERS),
    "decoder": ("decoders", DECODERS),
    "post_processor": ("processors", POST_PROCESSORS),
}
CONTENTS = [
    "the",
    "he",
    "<new>",
    "<s>",
    "",
    " ",
    "\n",
    "a",
    "▁the",
    "Ġthe",
    "é",
    "漢",
    "<0x41>",
    "<|long token|>",
    "Dog",
    "dog.",
    "ﬁ",
    "x y",
    " pad ",
    "\0",
    "<unk>",
    "THE",
    "0",
]
TRUNCATIONS: list[Any] = [
    {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    {"direction": "Left", "max_length": 3, "strategy": "OnlyFirst", "stride": 1},
    {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0},
    {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 9},
    {},
]
PADDINGS: list[Any] = [
    {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    },
    {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": 8,
        "pad_id": 10**6,
        "pad_type_id": 0,
        "pad_token": "nope",
    },
    {"strategy": "None"},
]
STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    10**9,
    2**32,
    10**18,
    10**30,
    0.5,
    "",
    "x",
    "▁",
    [],
    {},
    [None],
    [[]],
    {"type": "BPE"},
    "a" * 300,
]


def mutated_tokenizer(chance: random.Random) -> JSON:
    """The values of a tokenizer.json with one to three changes."""
    values = deepcopy(chance.choice(BASES)())
    for _ in range(chance.choice([1, 1, 2, 2, 3])):
        change = chance.choices(CHANGES, weights=WEIGHTS)[0]
        # What an earlier change left behind may have no such place.
        with suppress(KeyError, TypeError, AttributeError, IndexError, ValueError):
            change(values, chance)
    return values


def _change_step(values: JSON, chance: random.Random) -> None:
    """A part becomes another step, or gets one more."""
    part = chance.choice(
        ["normalizer", "normalizer", "pre_tokenizer", "decoder", "decoder", "post_processor"]
    )
    name, steps = STEPS[part]
    step, before = deepcopy(chance.choice(steps)), values[part]
    if chance.random() < 0.5:
        values[part] = step
        return
    inner = (
        before[name]
        if isinstance(before, dict) and before.get("type") == "Sequence"
        else [before]
        if before
        else []
    )
    if step is not None:
        inner.insert(chance.randint(0, len(inner)), step)
    elif inner:
        del inner[chance.randrange(len(inner))]
    values[part] = {"type": "Sequence", name: inner}


def _change_added(values: JSON, chance: random.Random) -> None:
    """An added token gets another text, id or flag, is doubled, moved or gone, or there is one more."""
    added: list[JSON] = values["added_tokens"]
    kind = chance.randrange(9)
    entry = chance.choice(added) if added else added_token(0, "<s>")
    if kind == 0:
        added.remove(entry)
    elif kind == 1:
        added.insert(chance.randint(0, len(added)), dict(entry))
    elif kind == 2:
        entry["id"] += chance.choice([1, 1, 2, -1, 5, 100, 10**6, 2**31])
    elif kind in (3, 4):
        flag = chance.choice(["special", "lstrip", "rstrip", "single_word", "normalized"])
        entry[flag] = not entry[flag]
    elif kind == 5:
        entry["content"] = chance.choice(CONTENTS)
    elif kind == 6:
        entry[chance.choice(list(entry))] = deepcopy(chance.choice(STRANGE))
    else:
        following = max((token["id"] for token in added), default=0)
        following = max(following, len(values["model"]["vocab"]) - 1) + 1
        flags = {
            name: chance.random() < 0.3
            for name in ("special", "lstrip", "rstrip", "single_word", "normalized")
        }
        added.append(added_token(following, chance.choice(CONTENTS), **flags))


def _change_vocabulary(values: JSON, chance: random.Random) -> None:
    """A hole in the ids, a word more or less, a merge less, more or of what is no word."""
    model = values["model"]
    vocab, merges = model["vocab"], model.get("merges", [])
    kind = chance.randrange(6)
    if isinstance(vocab, list):
        if kind < 3:
            del vocab[chance.randrange(len(vocab))]
        else:
            vocab.append([chance.choice(WORDS), chance.choice([-1.0, 0.0, -100.0, 1])])
        return
    word = chance.choice(list(vocab))
    if kind == 0:
        del vocab[word]
    elif kind == 1:
        vocab[word] = max(vocab.values()) + chance.choice([1, 2, 10, 100])
    elif kind == 2:
        vocab[chance.choice(WORDS)] = max(vocab.values()) + chance.choice([1, 1, 3])
    elif kind == 3:
        del merges[chance.randrange(len(merges))]
    elif kind == 4:
        merges.insert(
            chance.randint(0, len(merges)),
            chance.choice([["t", "h"], ["q", "z"], "h e", ["a"], "x", ["a", "b", "c"]]),
        )
    else:
        vocab[word] = vocab[chance.choice(list(vocab))]


def _change_model(values: JSON, chance: random.Random) -> None:
    """Another setting of the model."""
    changes: list[tuple[str, Any]] = [
        ("dropout", 0.0),
        ("dropout", 0.1),
        ("dropout", 1.0),
        ("unk_token", "<unk>"),
        ("unk_token", "nope"),
        ("unk_token", None),
        ("byte_fallback", True),
        ("byte_fallback", False),
        ("fuse_unk", True),
        ("fuse_unk", False),
        ("ignore_merges", True),
        ("continuing_subword_prefix", "##"),
        ("end_of_word_suffix", "</w>"),
        ("unk_id", None),
        ("unk_id", 3),
        ("unk_id", 10**9),
        ("max_input_chars_per_word", 3),
        ("type", "WordLevel"),
        ("type", None),
        ("type", "Unigram"),
        ("nothing", 1),
    ]
    name, value = chance.choice(changes)
    values["model"][name] = value


def _change_block(values: JSON, chance: random.Random) -> None:
    """Truncation, padding, the version, or a field that nobody knows."""
    name, choices = chance.choice(
        [
            ("truncation", TRUNCATIONS),
            ("padding", PADDINGS),
            ("version", ["2.0", None, 1]),
            ("nothing", [None, {}, 3]),
        ]
    )
    values[name] = deepcopy(chance.choice(choices))


def _change_anything(values: JSON, chance: random.Random) -> None:
    """Anywhere but in the long lists: a strange value, a key less, an unknown key."""
    spots: list[tuple[Any, Any]] = []
    waiting: list[Any] = [values]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            spots.append((node, key))
            if isinstance(node[key], dict | list) and key not in ("vocab", "merges"):
                waiting.append(node[key])
    container, key = chance.choice(spots)
    kind = chance.random()
    if kind < 0.6:
        container[key] = deepcopy(chance.choice(STRANGE))
    elif kind < 0.85:
        del container[key]
    elif isinstance(container, dict):
        container[f"{key}_"] = deepcopy(chance.choice(STRANGE))


CHANGES: list[Callable[[JSON, random.Random], None]] = [
    _change_step,
    _change_added,
    _change_vocabulary,
    _change_model,
    _change_block,
    _change_anything,
]
WEIGHTS = [8, 6, 2, 2, 1, 3]
TEXTS = [
    "Hello world, the dog is here.",
    " the  dog ",
    "",
    "THE Dogs' 123 café cafe\u0301 naïve",
    "漢字🙂 ﬁ Ⅳ ½ ñ\u200d",
    "hello\n\tworld\r\n\n the",
    "▁the▁dog_ Ġthe",
    "<0x41><0xE6> <0x0A>",
    "a <s>the</s>dog<unk> <|x|>the <img> dog <tool>x",
    "[CLS] the dogs [SEP]x<pad> |a|b",
    "o oo looong ee",
    "\0x",
]
