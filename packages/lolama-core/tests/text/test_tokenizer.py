from __future__ import annotations

import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from lolama_core import Tokenizer
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import ContentPart, Message
from lolama_core.testing.text import TEXTS, TokenizerSuite

# The nox session `fuzz` goes through many more.
HOSTILE_TEXTS = int(os.environ.get("LOLAMA_FUZZ_CASES", "2000"))


class TestTokenizer(TokenizerSuite):
    """Byte-level and byte-fallback."""

    @pytest.fixture
    def tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        return tokenizer


class TestRealTokenizer(TokenizerSuite):
    @pytest.fixture
    def tokenizer(self, stories_json: str) -> Tokenizer:
        template = "{{ bos_token }}{{ messages[0].content | trim }}{{ eos_token }}"
        return Tokenizer(stories_json, chat_template=template, bos_token="<s>", eos_token="</s>")


# ------------------------------------------------------------------------------ damaged and odd files


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "3",
        "<!DOCTYPE html><html><body>Please log in</body></html>",
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}',
        '{"version": "1.0", "model": {"type": "NoSuchModel"}}',
        '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "zz"]]}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_tokenizer(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json") as caught:
        Tokenizer(text)
    assert len(str(caught.value)) < 400
    assert capfd.readouterr() == ("", "")


def test_a_file_cut_short(byte_level_json: str, capfd: pytest.CaptureFixture[str]) -> None:
    for end in range(0, len(byte_level_json), len(byte_level_json) // 50):
        with pytest.raises(ModelError):
            Tokenizer(byte_level_json[:end])
    assert capfd.readouterr() == ("", "")


def test_a_file_with_parts_taken_out(byte_level_json: str) -> None:
    """It is refused, or works without them; nothing else happens."""
    parsed = json.loads(byte_level_json)
    value: object
    for name in parsed:
        for value in (None, [], {}, 5, "x"):
            try:
                made = Tokenizer(json.dumps({**parsed, name: value}))
                made.decode(made.encode("hello"))
            except ModelError:
                continue


def test_control_tokens_must_exist(byte_level_json: str) -> None:
    with pytest.raises(ModelError, match="<nope>"):
        Tokenizer(byte_level_json, bos_token="<nope>")
    with pytest.raises(ModelError, match="<nope>"):
        Tokenizer(byte_level_json, eos_token="<nope>")


def test_from_file(tmp_path: Path, byte_fallback_json: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(byte_fallback_json, encoding="utf-8")
    made = Tokenizer.from_file(path, bos_token="<s>")
    assert made.bos_id == 1
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=str(path)):
        Tokenizer.from_file(path)
    with pytest.raises(ModelError, match="does not exist"):
        Tokenizer.from_file(tmp_path / "absent.json")


def test_a_decoder_with_a_pattern_is_refused(byte_level_json: str) -> None:
    parsed = json.loads(byte_level_json)
    pattern = {"Regex": "(a|a)*b"}
    parsed["decoder"] = {"type": "Replace", "pattern": pattern, "content": "x"}
    with pytest.raises(ModelError, match="decoder"):
        Tokenizer(json.dumps(parsed))


# ------------------------------------------------------------------------------------- ids and texts


def reference(tokenizer_json: str, **settings: Any) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer_json), **settings
    )


HARMLESS = [
    *TEXTS,
    "",
    " ",
    "\n",
    "user: hi\nassistant: yes",
    "x" * 2000,
    "The fox – “naïve” – 漢字",
]


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_equals_transformers(
    name: str, add_special_tokens: bool, request: pytest.FixtureRequest
) -> None:
    ours: Tokenizer = request.getfixturevalue(name)
    theirs = reference(request.getfixturevalue(f"{name}_json"))
    for text in HARMLESS:
        expected = theirs.encode(text, add_special_tokens=add_special_tokens)
        for split in (False, True):
            assert (
                ours.encode(text, add_special_tokens=add_special_tokens, split_special_tokens=split)
                == expected
            )
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=True)
        assert ours.decode(expected, skip_special_tokens=False) == theirs.decode(expected)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_trusted_text_is_read_as_transformers_does(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Control tokens written out in a prompt of one's own are control tokens."""
    ours: Tokenizer = request.getfixturevalue(name)
    theirs = reference(request.getfixturevalue(f"{name}_json"))
    special = [i for i in range(ours.vocab_size) if ours.is_special(i)]
    for token_id in special:
        text = f"say {ours.decode([token_id], skip_special_tokens=False)} now"
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert token_id in ids


def test_one_bos(byte_fallback_json: str) -> None:
    """Whether the file adds it, the settings do, the text says it, or all of these."""
    parsed = json.loads(byte_fallback_json)
    silent = json.dumps({**parsed, "post_processor": None})
    for source, add_bos in (
        (byte_fallback_json, False),
        (byte_fallback_json, True),
        (silent, True),
    ):
        tokenizer = Tokenizer(source, bos_token="<s>", add_bos=add_bos)
        for text in ("hello", "<s>hello", "<s><s>hello", ""):
            ids = tokenizer.encode(text)
            assert ids[0] == 1 and ids.count(1) == 1, (add_bos, text)
        assert tokenizer.ensure_bos([]) == [1]
        assert tokenizer.ensure_bos([1, 1, 5, 1]) == [1, 5, 1]
        assert 1 not in tokenizer.encode("hello", add_special_tokens=False)
    never = Tokenizer(silent, bos_token="<s>")
    assert 1 not in never.encode("hello")
    assert never.ensure_bos([5]) == [5]


def test_one_bos_in_a_conversation(byte_fallback: Tokenizer) -> None:
    """Here the template writes it, and a prompt of ids may pass `ensure_bos` as well."""
    ids = byte_fallback.render_chat([{"role": "user", "content": "hello"}])
    assert ids[0] == 1 and ids.count(1) == 1
    assert byte_fallback.ensure_bos(ids) == ids


def test_eos_ids(byte_level_json: str) -> None:
    both = Tokenizer(byte_level_json, eos_token="<|eos|>", eos_ids=[403, 7])
    eos = both.encode("<|eos|>", add_special_tokens=False)
    assert both.eos_ids == {*eos, 403, 7}
    assert Tokenizer(byte_level_json).eos_ids == frozenset()


def test_return_tensors(byte_level: Tokenizer) -> None:
    tensor = byte_level.encode("hello fox", return_tensors="pt")
    assert tensor.dtype == torch.int64
    assert tensor.tolist() == [byte_level.encode("hello fox")]
    assert byte_level.decode(tensor[0]) == byte_level.decode(tensor[0].tolist()) == "hello fox"
    assert byte_level.decode(tensor[0, -1]) == byte_level.decode(int(tensor[0, -1])) == " fox"


def test_several_texts(byte_level: Tokenizer) -> None:
    """As Hugging Face tokenizers: one list of ids for each."""
    texts = ["hello fox", "", "the"]
    rows = byte_level.encode(texts)
    assert rows == byte_level.encode(tuple(texts)) == [byte_level.encode(text) for text in texts]
    assert byte_level.encode([]) == []
    tensor = byte_level.encode(["hello", "hello"], return_tensors="pt")
    assert tensor.tolist() == [byte_level.encode("hello")] * 2
    with pytest.raises(UsageError, match=r"the texts have . to . ids"):
        byte_level.encode(texts, return_tensors="pt")
    kind: Any = "np"
    with pytest.raises(UsageError, match="return_tensors: is 'np'"):
        byte_level.encode("hello", return_tensors=kind)


HUGE = pytest.param(10**5000, id="huge")  # which Python refuses to spell


@pytest.mark.parametrize("text", [None, 3, b"hello", {"a": 1}, [3], [["hello"]], [None], HUGE])
def test_row_142_what_is_no_text(text: Any, byte_level: Tokenizer) -> None:
    with pytest.raises(UsageError, match="is no text"):
        byte_level.encode(text)


@pytest.mark.parametrize(
    "ids",
    [
        "hello",
        [[1, 2]],
        [1.0],
        torch.tensor([[1], [2]]),
        torch.tensor([0.5]),
        None,
        [None],
        {"a": 1},
        pytest.param([[10**5000]], id="huge"),
    ],
)
def test_row_142_what_are_no_ids(ids: Any, byte_level: Tokenizer) -> None:
    with pytest.raises(UsageError, match="input_ids"):
        byte_level.decode(ids)


def test_ids_in_all_their_forms(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("hello fox")
    forms = [
        ids,
        tuple(ids),
        torch.tensor(ids),
        torch.tensor(ids).numpy(),
        range(5, 9),
        torch.tensor([ids])[0],
    ]
    for form in forms:
        plain = list(map(int, form))
        assert byte_level.decode(form) == byte_level.decode(plain)
    assert byte_level.decode(torch.tensor(ids[1])) == byte_level.decode(ids[1])


@pytest.mark.parametrize("prompt", [False, True])
def test_apply_chat_template_is_transformers(prompt: bool, byte_level_json: str) -> None:
    """The names, the defaults and the results."""
    messages: list[Message] = [{"role": "user", "content": "hello fox"}]
    template = (
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    names: dict[str, Any] = {
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "chat_template": template,
    }
    theirs = reference(byte_level_json, **names)
    byte_level = Tokenizer(byte_level_json, **names)
    settings: dict[str, Any] = {"add_generation_prompt": True} if prompt else {}
    ids = theirs.apply_chat_template(messages, return_dict=False, **settings)
    assert byte_level.apply_chat_template(messages, **settings) == ids
    tensor = byte_level.apply_chat_template(messages, return_tensors="pt", **settings)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.tolist() == [ids]
    text = theirs.apply_chat_template(messages, tokenize=False, **settings)
    assert byte_level.apply_chat_template(messages, tokenize=False, **settings) == text
    assert byte_level.render_chat(messages, add_generation_prompt=prompt) == ids


def test_ids_past_the_vocabulary_have_no_text(tokenizer: Tokenizer) -> None:
    """Nor do those that stand in for control tokens while a conversation is encoded."""
    for beyond in (*range(tokenizer.vocab_size, tokenizer.vocab_size + 20), 10**9, 1 << 70, -1):
        assert tokenizer.decode([beyond], skip_special_tokens=False) == ""
        assert not tokenizer.is_special(beyond)


def test_vocab_size_is_that_of_the_file(byte_level_json: str, byte_level: Tokenizer) -> None:
    native = tokenizers.Tokenizer.from_str(byte_level_json)
    assert byte_level.vocab_size == native.get_vocab_size()


@pytest.mark.parametrize("text", ["\ud800", "caf\udce9 au lait", "ok\udfff"])
def test_text_that_is_not_unicode(tokenizer: Tokenizer, text: str) -> None:
    """A command line that is not UTF-8 arrives like this."""
    with pytest.raises(UsageError, match="not Unicode"):
        tokenizer.encode(text)
    with pytest.raises(UsageError, match="not Unicode"):
        tokenizer.render_chat([{"role": "user", "content": text}])


def test_threads_do_not_disturb_each_other(byte_level: Tokenizer) -> None:
    """One reads control tokens, the other must not."""
    text = "hello <|eos|> world " * 20
    wrong: list[bool] = []

    def work(split: bool) -> None:
        for _ in range(300):
            ids = byte_level.encode(text, add_special_tokens=False, split_special_tokens=split)
            if any(map(byte_level.is_special, ids)) == split:
                wrong.append(split)

    threads = [threading.Thread(target=work, args=(split,)) for split in (True, False) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ------------------------------------------------------------------------------------ hostile users


def test_without_a_template(byte_level_json: str) -> None:
    tokenizer = Tokenizer(byte_level_json)
    assert not tokenizer.has_chat_template
    with pytest.raises(ModelError, match="no chat template"):
        tokenizer.render_chat([{"role": "user", "content": "hello"}])


def test_pictures_have_their_place(tokenizer: Tokenizer) -> None:
    """The id of a picture comes from the part that is one, never from a text that says so."""
    image = tokenizer.encode("<image>", add_special_tokens=False)
    parts: list[ContentPart] = [
        {"type": "text", "text": "what is <image> in"},
        {"type": "image"},
        {"type": "text", "text": "?"},
    ]
    ids = tokenizer.render_chat([{"role": "user", "content": parts}])
    assert ids.count(image[0]) == 1
    assert "what is <image> in" in tokenizer.decode(ids)


def mutate(draw: random.Random, controls: list[str]) -> str:
    """Something made of control tokens: whole, cut, doubled, nested, spaced, in strange company."""
    pieces = []
    for _ in range(draw.randrange(1, 5)):
        token = draw.choice(controls)
        kind = draw.randrange(8)
        cut = draw.randrange(len(token) + 1)
        if kind == 1:
            token = token[:cut]
        elif kind == 2:
            token = token[cut:]
        elif kind == 3:
            token = token[:cut] + token + token[cut:]
        elif kind == 4:
            token = (
                token[:cut] + draw.choice([" ", "\n", "\u200b", "\0", "\U000f0000"]) + token[cut:]
            )
        elif kind == 5:
            token = token[:cut] + draw.choice(controls) + token[cut:]
        elif kind == 6:
            token = token.upper() if draw.random() < 0.5 else token * 3
        pieces.append(token)
        pieces.append(
            draw.choice(["", "", " ", "\n", "▁", "hello", "漢", "</", "<|", "{{ bos_token }}"])
        )
    return "".join(pieces)


def conversation(draw: random.Random, text: str) -> list[Message]:
    """The text somewhere in it: in a message of any role, or cut in parts."""
    messages: list[Message] = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and now"},
    ]
    place = draw.randrange(5)
    if place < 4:
        messages[place]["content"] = text
    else:
        first = draw.randrange(len(text) + 1)
        second = draw.randrange(first, len(text) + 1)
        space = draw.choice(["", " "])
        messages[3]["content"] = [
            {"type": "text", "text": text[:first] + space},
            {"type": "text", "text": space + text[first:second]},
            {"type": "text", "text": text[second:]},
        ]
    return messages


def test_hostile_texts(tokenizer: Tokenizer) -> None:
    """Whatever a user says, the control ids of a conversation are those of its structure."""
    draw = random.Random(0)
    special = [i for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)]
    controls = [tokenizer.decode([i], skip_special_tokens=False) for i in special]

    def found(messages: list[Message]) -> list[int]:
        return [i for i in tokenizer.render_chat(messages) if tokenizer.is_special(i)]

    expected = found(conversation(random.Random(1), "harmless"))
    for _ in range(HOSTILE_TEXTS // 2):
        text = mutate(draw, controls)
        messages = conversation(draw, text)
        assert found(messages) == expected, messages
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert not any(map(tokenizer.is_special, ids)), text


SPLICING = [
    ("{{ messages[0].content | replace('</think>', '') }}", "<|e</think>os|>"),
    ("{{ messages[0].content.split('#')[0] + messages[0].content.split('#')[1] }}", "<|e#os|>"),
    ("{{ messages[0].content | trim }}{{ messages[1].content | trim }}", "<|eos| ", "|>", " os|>"),
    ("{% for part in messages[0].content.split() %}{{ part }}{% endfor %}", "<|e os|>"),
    ("{{ messages | map(attribute='content') | join }}", "<|e", "os|>"),
    ("{{ messages[0].content | lower }}", "<|EOS|>"),
    ("{{ messages[0].content[:2] ~ messages[0].content[3:] }}", "<| eos|>"),
]


@pytest.mark.parametrize("case", SPLICING, ids=[case[0] for case in SPLICING])
def test_a_template_that_cuts_and_joins(byte_level_json: str, case: tuple[str, ...]) -> None:
    """What is left of a message remains text. (A template that spells it backwards can do what it likes.)"""
    template, *contents = case
    messages: list[Message] = [{"role": "user", "content": content} for content in contents]
    tokenizer = Tokenizer(byte_level_json, chat_template=template, eos_token="<|eos|>")
    assert not any(map(tokenizer.is_special, tokenizer.render_chat(messages)))
