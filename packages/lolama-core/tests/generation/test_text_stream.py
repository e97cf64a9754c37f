from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lolama_core import TextStream, Tokenizer
from lolama_core.protocols.errors import UsageError
from lolama_core.testing import tiny
from lolama_core.text.tool_calls import ToolCallParser
from lolama_core.text.tool_formats import FORMATS

BROKEN = "\N{REPLACEMENT CHARACTER}"
LONG = "Once upon a time, naïve 漢字 🙂👍🏽 café – the end.\n\n  And “so” on."
# The nox session `fuzz` goes through many more.
SEQUENCES = int(os.environ.get("LOLAMA_FUZZ_CASES", "2000"))


def streamed(
    tokenizer: Tokenizer, ids: Sequence[int], prompt: Sequence[int] = (), stop: Sequence[str] = ()
) -> list[str]:
    stream = TextStream(tokenizer, prompt, stop)
    return [*map(stream.push, ids), stream.finish()]


def mixed(draw: random.Random, tokenizer: Tokenizer, likely: list[int]) -> list[int]:
    """Random ids: some uniform, most from true text or from the bytes of characters, cut anywhere."""
    ids: list[int] = []
    for _ in range(draw.randrange(1, 8)):
        kind = draw.random()
        if kind < 0.4:
            ids += [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(1, 6))]
        else:
            start = draw.randrange(len(likely))
            ids += likely[start : start + draw.randrange(1, 8)]
    return ids


@pytest.fixture(scope="module")
def stories(stories_json: str) -> Tokenizer:
    return Tokenizer(stories_json, bos_token="<s>", eos_token="</s>")


def check_sequences(tokenizer: Tokenizer) -> None:
    """Streamed text is the whole text, and goes on where the prompt's ended."""
    draw = random.Random(0)
    likely = tokenizer.encode(LONG * 2, add_special_tokens=False)
    continued = 0
    for _ in range(SEQUENCES):
        ids = mixed(draw, tokenizer, likely)
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids), ids
        cut = draw.randrange(len(ids) + 1)
        prompt, new = ids[:cut], ids[cut:]
        before, whole = tokenizer.decode(prompt), tokenizer.decode(ids)
        text = "".join(streamed(tokenizer, new, prompt))
        if whole.startswith(before):
            continued += 1
            assert before + text == whole, (prompt, new)
        else:  # the prompt ended within a character, or in bytes that more bytes made invalid
            assert whole.endswith(text), (prompt, new)
    assert continued > SEQUENCES / 2


def test_byte_level_sequences(byte_level: Tokenizer) -> None:
    check_sequences(byte_level)


def test_byte_fallback_sequences(byte_fallback: Tokenizer) -> None:
    check_sequences(byte_fallback)


def test_sequences_of_a_real_tokenizer(stories: Tokenizer) -> None:
    check_sequences(stories)


def test_a_character_that_the_prompt_left_unfinished(tokenizer: Tokenizer) -> None:
    """It is given out whole once the bytes that follow complete it."""
    hand = tokenizer.encode("hello 👍", add_special_tokens=False)
    after = tokenizer.encode("hello 👍 fox", add_special_tokens=False)[len(hand) :]
    for cut in range(len(hand)):
        before = tokenizer.decode(hand[:cut])
        text = "".join(streamed(tokenizer, [*hand[cut:], *after], hand[:cut]))
        assert before.rstrip(BROKEN) + text == "hello 👍 fox"


def test_a_character_that_stays_unfinished(tokenizer: Tokenizer) -> None:
    """It was shown as broken, and is not shown twice."""
    hand = tokenizer.encode("hello 👍", add_special_tokens=False)[:-1]
    prompt = tokenizer.decode(hand)
    fox = tokenizer.encode("hello fox", add_special_tokens=False)[-2:]
    assert prompt.endswith(BROKEN)
    assert prompt + "".join(streamed(tokenizer, fox, hand)) == tokenizer.decode([*hand, *fox])


def test_a_mark_that_the_prompt_itself_holds(byte_level: Tokenizer) -> None:
    """U+FFFD is also a character that anyone may write."""
    prompt = byte_level.encode(f"what is {BROKEN}", add_special_tokens=False)
    fox = byte_level.encode(" fox", add_special_tokens=False)
    assert "".join(streamed(byte_level, fox, prompt)) == " fox"


def test_the_first_space_depends_on_the_prompt(byte_fallback: Tokenizer) -> None:
    """SentencePiece writes it before every word, and decoders drop the first of a text."""
    ids = byte_fallback.encode("fox dog", add_special_tokens=False)
    assert "".join(streamed(byte_fallback, ids)) == "fox dog"
    assert "".join(streamed(byte_fallback, ids, [1])) == "fox dog"
    prompt = byte_fallback.encode("the")
    assert "".join(streamed(byte_fallback, ids, prompt)) == " fox dog"


def test_control_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    """Wherever they stand, even within a character."""
    special = next(filter(tokenizer.is_special, range(tokenizer.vocab_size)))
    ids = tokenizer.encode("a 👍 b", add_special_tokens=False)
    for place in range(len(ids) + 1):
        with_special = [*ids[:place], special, special, *ids[place:]]
        assert "".join(streamed(tokenizer, with_special)) == "a 👍 b"


def test_text_comes_as_soon_as_it_is_certain(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("hello world fox", add_special_tokens=False)
    pieces = streamed(byte_level, ids)
    assert pieces[:-1] == [byte_level.decode([i]) for i in ids]
    assert pieces[-1] == ""


def test_nothing_broken_is_given_out_before_it_is_certain(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(LONG, add_special_tokens=False)
    assert not any(BROKEN in piece for piece in streamed(tokenizer, ids))
    cut = tokenizer.encode("👍", add_special_tokens=False)[:-1]
    assert streamed(tokenizer, cut)[-1].startswith(BROKEN)


def test_nothing_to_say(tokenizer: Tokenizer) -> None:
    assert streamed(tokenizer, []) == [""]
    assert streamed(tokenizer, [], tokenizer.encode("fox")) == [""]


def after_newline(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of ``text`` as they would be in the middle of a line."""
    if not text:
        return []
    newline = tokenizer.encode("\n", add_special_tokens=False)
    ids = tokenizer.encode("\n" + text, add_special_tokens=False, split_special_tokens=True)
    return ids[len(newline) :]


def check_stop(tokenizer: Tokenizer, ids: list[int], stop: Sequence[str], expected: str) -> None:
    stream, text = TextStream(tokenizer, (), stop), ""
    for token_id in ids:
        text += stream.push(token_id)
        assert expected.startswith(text), (stop, text)
    text += stream.finish()
    assert text == expected, stop
    assert stream.stopped
    assert stream.emitted == len(expected)


def test_a_stop_text_anywhere(tokenizer: Tokenizer) -> None:
    """Any part of a text, of any length: what comes before it, and not a character more."""
    ids = tokenizer.encode(LONG, add_special_tokens=False)
    for start in range(len(LONG)):
        for length in (1, 2, 3, 7, 20):
            stop = LONG[start : start + length]
            check_stop(tokenizer, ids, [stop], LONG[: LONG.find(stop)])


@pytest.mark.parametrize("stop", ["STOP", "</s>", "\n\nUser:", "漢字", "👍🏽", "aab", " "])
def test_a_stop_text_split_at_every_offset(tokenizer: Tokenizer, stop: str) -> None:
    before, after = "Once,aa", "b fox"
    expected = (before + stop + after).partition(stop)[0]
    for first in range(len(stop) + 1):
        for second in range(first, len(stop) + 1):
            pieces = (stop[:first], stop[first:second], stop[second:] + after)
            ids = tokenizer.encode(before, add_special_tokens=False)
            for piece in pieces:
                ids += after_newline(tokenizer, piece)
            assert tokenizer.decode(ids) == before + stop + after
            check_stop(tokenizer, ids, [stop], expected)
            check_stop(tokenizer, ids, ["never seen", stop, stop + "x"], expected)


def test_the_first_stop_text_counts(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one two three", add_special_tokens=False)
    check_stop(tokenizer, ids, ["three", "two", "hre"], "one ")


def test_the_first_of_two_stop_texts_in_one_token(tokenizer: Tokenizer) -> None:
    texts = {i: tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}
    longest = max((i for i in texts if BROKEN not in texts[i]), key=lambda i: len(texts[i]))
    text = texts[longest]
    assert len(text) > 4
    check_stop(tokenizer, [longest], [text[3:], text[1:3]], text[:1])
    check_stop(tokenizer, [longest], [text[1:3], text[3:]], text[:1])


@pytest.mark.parametrize(
    ("stop", "met"),
    [
        (["three", "two"], "two"),
        (["two three", "two"], "two"),  # the shorter one is complete first
        (["t", "one two"], "t"),
        (["never", "ne"], "ne"),
    ],
)
def test_it_tells_which_stop_text_was_met(
    byte_level: Tokenizer, stop: Sequence[str], met: str
) -> None:
    stream = TextStream(byte_level, (), stop)
    for character in "one two three":
        stream.push(byte_level.encode(character, add_special_tokens=False)[0])
    assert stream.stop_text == met


def test_of_two_stop_texts_at_one_place_in_one_token_it_tells_the_shorter(
    tokenizer: Tokenizer,
) -> None:
    texts = {i: tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}
    longest = max((i for i in texts if BROKEN not in texts[i]), key=lambda i: len(texts[i]))
    text = texts[longest]
    for stop in ([text[1:3], text[1:4]], [text[1:4], text[1:3]]):
        stream = TextStream(tokenizer, (), stop)
        stream.push(longest)
        assert stream.stop_text == text[1:3]


def test_a_stop_text_that_does_not_come(tokenizer: Tokenizer) -> None:
    """What looked like its beginning is given out after all."""
    text = "tell me: st sto stopp sto"
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream = TextStream(tokenizer, (), ["stop!", "sto!"])
    pieces = [*map(stream.push, ids)]
    assert "".join(pieces) == text.removesuffix("sto")
    assert stream.finish() == "sto"
    assert not stream.stopped and stream.stop_text is None


def test_a_stop_text_in_bytes_that_only_the_end_makes_certain(byte_fallback: Tokenizer) -> None:
    ids = byte_fallback.encode("fox 漢", add_special_tokens=False)
    stream = TextStream(byte_fallback, (), ["漢"])
    assert "".join(map(stream.push, ids)) == "fox "
    assert not stream.stopped
    assert stream.finish() == ""
    assert stream.stopped


def test_nothing_follows_a_stop_text(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, (), ["fox"])
    text = "".join(map(stream.push, tokenizer.encode("a fox b", add_special_tokens=False)))
    assert text == "a "
    assert stream.push(5) + stream.push(6) + stream.finish() == ""


def test_a_stop_text_in_the_prompt_is_no_stop(tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("a fox", add_special_tokens=False)
    ids = after_newline(tokenizer, "y dog")
    assert "".join(streamed(tokenizer, ids, prompt, ["fox"])) == "y dog"


def test_row_125_ids_of_any_kind_make_the_same_text(tokenizer: Tokenizer) -> None:
    """A tensor is not found among control tokens and bytes by itself: its hash is its address."""
    prompt, ids = tokenizer.encode("Once"), tokenizer.encode("naïve 漢字 </s> <|eos|>")
    kinds: list[Callable[[int], Any]] = [int, np.int64, torch.tensor, lambda i: torch.tensor([i])]
    texts = []
    for kind in kinds:
        stream = TextStream(tokenizer, [kind(i) for i in prompt])
        texts.append("".join(stream.push(kind(i)) for i in ids) + stream.finish())
        assert [tokenizer.is_special(kind(i)) for i in ids] == [
            tokenizer.is_special(i) for i in ids
        ]
        assert [tokenizer.is_byte(kind(i)) for i in ids] == [tokenizer.is_byte(i) for i in ids]
        assert tokenizer.ensure_bos([kind(i) for i in ids]) == tokenizer.ensure_bos(ids)
        assert tokenizer.decode([kind(i) for i in ids]) == tokenizer.decode(ids)
        assert tokenizer.decode(kind(ids[-1])) == tokenizer.decode([ids[-1]])
    assert texts == [texts[0]] * len(kinds)
    whole = tokenizer.decode(ids)
    for row in (np.array(ids), torch.tensor(ids), np.array([ids]), torch.tensor([ids])):
        assert tokenizer.decode(row) == whole


@pytest.mark.parametrize("ids", [[1.5], ["a"], [[1], [2]], torch.ones(2, 2).long(), None])
def test_row_125_what_is_no_row_of_ids_is_not_decoded(byte_level: Tokenizer, ids: Any) -> None:
    with pytest.raises(UsageError, match=r"^input_ids: "):
        byte_level.decode(ids)


MARKS = ["<s>", "</s>", "[TOOL_CALLS]", "[ARGS]"]


@pytest.fixture(scope="module", params=["bytes", "pieces"])
def calling(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer in which a call begins with control tokens."""
    characters = sorted({*LONG, *'[{"name": 1}]'})
    if request.param == "bytes":
        vocabulary = {token: n for n, token in enumerate(tiny.byte_characters())}
        made = tiny.byte_level(vocabulary, specials=MARKS)
    else:
        spelled = ["<unk>", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
        pieces = {token: n for n, token in enumerate(dict.fromkeys(spelled))}
        made = tiny.with_pieces(pieces, specials=MARKS, byte_fallback=True)
    return Tokenizer(made, bos_token="<s>", eos_token="</s>")


def test_visible_control_tokens_are_text(calling: Tokenizer) -> None:
    visible = calling.control_ids(MARKS[2:])
    call = "[TOOL_CALLS]now[ARGS]{}"
    ids = [*calling.encode("Hm 🙂", add_special_tokens=False), *calling.encode_ids(call)]
    ids += calling.control_ids(["</s>"]).values()
    assert len(visible) == 2

    def run(*options: Any, **visible_ids: Any) -> str:
        stream = TextStream(calling, *options, **visible_ids)
        return "".join([*map(stream.push, ids), stream.finish()])

    assert run() == calling.decode(ids)
    assert "[" not in run()
    shown = run(visible_ids=visible.values())
    assert shown.replace(" ", "") == "Hm🙂" + call
    assert run((), ["[ARGS]"], visible_ids=visible.values()) == shown.partition("[ARGS]")[0]
    parser = ToolCallParser(FORMATS["mistral"], ["now"])
    parser.push(shown)
    assert (parser.text, [call.name for call in parser.calls]) == ("Hm 🙂", ["now"])


def test_streamed_text_with_visible_control_tokens_is_the_whole_text(calling: Tokenizer) -> None:
    marks = calling.control_ids(MARKS)
    visible = calling.control_ids(MARKS[2:]).values()
    hidden = {*marks.values()} - {*visible}
    likely = calling.encode(LONG, add_special_tokens=False)
    for seed in range(SEQUENCES // 10):
        draw = random.Random(seed)
        ids = mixed(draw, calling, likely) + draw.choices([*marks.values(), *likely[:3]], k=3)
        draw.shuffle(ids)
        stream = TextStream(calling, visible_ids=visible)
        pieces = [*map(stream.push, ids), stream.finish()]
        shown = [token_id for token_id in ids if token_id not in hidden]
        assert "".join(pieces) == calling.decode(shown, skip_special_tokens=False), ids
