"""What the files beside tokenizer.json say of its tokens, held against transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import tiny_tokenizer_json, write_json

from lolama_core import load_tokenizer
from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import Message, ModelFiles

Resolve = Callable[[Path], ModelFiles]
FLAGS = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
SPECIAL = {**FLAGS, "special": True}
PLAIN = {**FLAGS, "special": False}
NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "image", "audio")
TEMPLATE = (
    "".join(f"{{{{ {name}_token }}}}" for name in NAMES)
    + "".join(f"{{% if {name}_token is defined %}}{name[0]}{{% endif %}}" for name in NAMES)
    + "{{ messages[0].content }}"
)
TEXTS = ["the <tool> <img>a<end> </s>the<pad>", "<tool><tool> the", "b <s>th<unk>"]
CHAT: list[Message] = [{"role": "user", "content": "the dog"}]

# Files beside a tokenizer.json with the control tokens <s>, </s>, <unk> and the plain <end> and <img>.
FILES: dict[str, dict[str, Any]] = {
    "nothing": {"tokenizer_config.json": {}},
    "names": {
        "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "<end>", "unk_token": "<unk>"}
    },
    "a decoder": {
        "tokenizer_config.json": {
            "eos_token": "<end>",
            "added_tokens_decoder": {
                "33": {"content": "<end>", **SPECIAL},
                "35": {"content": "<tool>", **PLAIN},
            },
        }
    },
    "a decoder that takes back": {
        "tokenizer_config.json": {"added_tokens_decoder": {"1": {"content": "<s>", **PLAIN}}}
    },
    "other flags": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "33": {"content": "<end>", **PLAIN, "lstrip": True, "rstrip": True}
            }
        }
    },
    "a new eos": {"tokenizer_config.json": {"eos_token": "<eos>", "pad_token": "<pad>"}},
    "a word": {"tokenizer_config.json": {"pad_token": "z", "sep_token": "q"}},
    "spelled out": {
        "tokenizer_config.json": {
            "eos_token": {"__type": "AddedToken", "content": "<end>", **FLAGS},
            "pad_token": {"__type": "AddedToken", "content": "<pad>", **FLAGS, "lstrip": True},
        }
    },
    "extra names": {
        "tokenizer_config.json": {
            "extra_special_tokens": {"image_token": "<img>", "audio_token": "<audio>"},
            "sep_token": "</s>",
        }
    },
    "names spelled out": {
        "tokenizer_config.json": {
            "image_token": {"content": "<img>"},
            "audio_token": {"__type": "AddedToken", "content": "<audio>", **FLAGS},
        }
    },
    "a map that spells names out": {
        "tokenizer_config.json": {},
        "special_tokens_map.json": {"image_token": {"content": "<img>", **FLAGS}},
    },
    "names of its own": {"tokenizer_config.json": {"image_token": "<img>", "audio_token": None}},
    "an extra list": {"tokenizer_config.json": {"extra_special_tokens": ["<tool>", "<img>"]}},
    "an additional list": {
        "tokenizer_config.json": {"additional_special_tokens": ["<img>", "<tool>"]}
    },
    "both lists": {
        "tokenizer_config.json": {
            "additional_special_tokens": ["<a>"],
            "extra_special_tokens": ["<tool>"],
        }
    },
    "a map": {
        "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": None},
        "special_tokens_map.json": {
            "eos_token": "<end>",
            "unk_token": {"content": "<unk>", **FLAGS},
            "additional_special_tokens": ["<tool>"],
        },
    },
    "a map beside a decoder": {
        "tokenizer_config.json": {"eos_token": "</s>", "added_tokens_decoder": {}},
        "special_tokens_map.json": {"eos_token": "<end>", "image_token": "<img>"},
    },
    "a map with extras": {
        "tokenizer_config.json": {"extra_special_tokens": ["<tool>"]},
        "special_tokens_map.json": {"extra_special_tokens": ["<a>", {"content": "<b>", **FLAGS}]},
    },
    "an old list": {
        "tokenizer_config.json": {"pad_token": "<pad>"},
        "added_tokens.json": {"<tool>": 35, "<pad>": 36, "<end>": 33},
    },
    "unset": {"tokenizer_config.json": {"bos_token": None, "eos_token": None}},
    "empty": {"tokenizer_config.json": {"sep_token": ""}},
}  # fmt: skip


@pytest.fixture
def two_added(llama: Path) -> Path:
    values = json.loads(tiny_tokenizer_json())
    for token in ("<end>", "<img>"):
        number = len(values["model"]["vocab"]) + len(values["added_tokens"]) - 3
        values["added_tokens"].append({"id": number, "content": token, **PLAIN})
    write_json(llama / "tokenizer.json", values)
    return llama


@pytest.mark.parametrize("name", FILES)
def test_rows_100_and_101_equal_transformers(name: str, two_added: Path, resolve: Resolve) -> None:
    import transformers

    for file, values in FILES[name].items():
        more = {"chat_template": TEMPLATE} if file == "tokenizer_config.json" else {}
        write_json(two_added / file, values | more)
    theirs = transformers.AutoTokenizer.from_pretrained(two_added, trust_remote_code=False)
    ours = load_tokenizer(resolve(two_added))
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special_tokens=False) == ids
        for skip in (False, True):
            expected = theirs.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
    assert ours.render_chat(CHAT) == theirs.apply_chat_template(
        CHAT, add_generation_prompt=True, return_dict=False
    )
    assert ours.apply_chat_template(CHAT, tokenize=False) == theirs.apply_chat_template(
        CHAT, tokenize=False
    )
    # What is special to either of transformers' two lists cannot be typed.
    specials = {*theirs.all_special_ids} - {None}
    added = theirs.added_tokens_decoder
    specials |= {i for i, token in added.items() if token.special}
    typed = "".join(added[i].content for i in specials if i in added)
    ids = ours.encode(typed, add_special_tokens=False, split_special_tokens=True)
    assert not {i for i in specials if len(added[i].content) > 1} & set(ids) - {0}


def test_row_100_a_converted_copy_says_the_same(
    two_added: Path, tmp_path: Path, resolve: Resolve
) -> None:
    """What other files say of the tokenizer is in the checkpoint's configuration."""
    from lolama_core import FileCheckpoint, open_checkpoint, write_checkpoint

    write_json(
        two_added / "tokenizer_config.json",
        {
            "eos_token": "<end>",
            "pad_token": "<pad>",
            "extra_special_tokens": ["<img>"],
            "chat_template": TEMPLATE,
        },
    )
    files = resolve(two_added)
    assert files.tokenizer.tokenizer_json is not None
    write_checkpoint(
        tmp_path / "copy",
        files.config,
        FileCheckpoint(files).tensors(),
        tokenizer_json=FileCheckpointIO().read_text(files.tokenizer.tokenizer_json),
        chat_template=files.tokenizer.chat_template,
    )
    one, two = load_tokenizer(files), load_tokenizer(open_checkpoint(tmp_path / "copy"))
    assert one.render_chat(CHAT) == two.render_chat(CHAT)
    for text in TEXTS:
        for split in (False, True):
            ids = one.encode(text, split_special_tokens=split)
            assert ids == two.encode(text, split_special_tokens=split)
            assert one.decode(ids) == two.decode(ids)
    assert one.eos_ids == two.eos_ids == {2, 33}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"40": {"content": "<new>"}}}},
            "the added token '<new>' has the id 40, expected 35",
        ),
        ({"added_tokens.json": {"<new>": 40}}, "the added token '<new>' has the id 40, expected 35"),
        ({"added_tokens.json": {"<new>": "35"}}, "gives '<new>' the id '35'"),
        ({"tokenizer_config.json": {"added_tokens_decoder": []}}, "added_tokens_decoder is a list"),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "<new>"}}}},
            "added_tokens_decoder is an object",
        ),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"35": {"content": "<n>", "special": 1}}}},
            "special of the added token '<n>' is 1",
        ),
        ({"tokenizer_config.json": {"extra_special_tokens": "x"}}, "extra_special_tokens is 'x'"),
        ({"tokenizer_config.json": {"extra_special_tokens": [3]}}, "extra_special_tokens is 3"),
        (
            {"tokenizer_config.json": {"extra_special_tokens": {"image_token": 3}}},
            "image_token is 3",
        ),
        ({"tokenizer_config.json": {"pad_token": 3}}, "pad_token is 3, expected text"),
        ({"special_tokens_map.json": {"unk_token": []}}, "unk_token is a list, expected text"),
    ],
)  # fmt: skip
def test_row_141_files_that_contradict_each_other(
    files: dict[str, Any], said: str, two_added: Path, resolve: Resolve
) -> None:
    for file, values in files.items():
        write_json(two_added / file, values)
    with pytest.raises(ModelError) as caught:
        resolve(two_added)
    assert said in str(caught.value)


def test_row_141_an_added_token_that_is_not_in_its_place(two_added: Path, resolve: Resolve) -> None:
    """The library gives it another id than the file says."""
    values = json.loads((two_added / "tokenizer.json").read_text())
    values["added_tokens"][-1]["id"] = 40
    write_json(two_added / "tokenizer.json", values)
    with pytest.raises(ModelError, match="gives the added token '<img>' the id 40, which is not"):
        resolve(two_added)


def test_row_100_a_token_past_the_models_vocabulary(two_added: Path, resolve: Resolve) -> None:
    """A ``pad_token`` that the model never learned may be there; an end token may not."""
    values = json.loads((two_added / "tokenizer.json").read_text())
    for number in range(35, 64):
        values["added_tokens"].append({"id": number, "content": f"<{number}>", **PLAIN})
    write_json(two_added / "tokenizer.json", values)
    write_json(two_added / "tokenizer_config.json", {"pad_token": "<pad>"})
    files = resolve(two_added)
    assert files.config["generation"]["vocab_size"] == 64
    assert load_tokenizer(files).encode("<pad>", add_special_tokens=False) == [64]
    write_json(two_added / "tokenizer_config.json", {"eos_token": "<eos>"})
    with pytest.raises(ModelError, match="the token '<eos>' has the id 64, but the model's"):
        resolve(two_added)
