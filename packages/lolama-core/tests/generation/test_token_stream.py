"""Ids of a stream, decoded one by one, print the text."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn

from lolama_core import BatchGenerator, GenerationConfig, Llama, TextGenerator, Tokenizer
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import GenerationDefaults
from lolama_core.text.streamed_id import StreamedId

MakeLlama = Callable[..., Llama]
BROKEN = "\N{REPLACEMENT CHARACTER}"
LONG = "Once upon a time, naïve 漢字 🙂👍🏽 café – the end. isn't it?\n\n  And “so” on."
WORDS = "once upon a time the fox isn ' t here , and the dog says yes ! do n ' t . 漢 字 🙂".split()


def unigram_json() -> str:
    """Like T5 with byte fallback: pieces with ▁ for a space, bytes where no piece fits."""
    pieces = ["▁", "▁the", "▁fox", "▁Once", "e", "a", "o", "n", "t", "s", "i", "▁a", "▁time", "up"]
    names = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    native = tokenizers.Tokenizer(
        models.Unigram(
            vocab=[(name, -10.0 if name[0] == "<" else -1.0) for name in names],
            unk_id=0,
            byte_fallback=True,
        )
    )
    native.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    native.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
    )
    native.add_special_tokens(["<unk>", "</s>"])
    return str(native.to_str())


def wordpiece_json() -> str:
    """Like BERT: words and pieces that go on with ##, without a space before punctuation."""
    letters = sorted(set("".join(WORDS)))
    names = ["[UNK]", "</s>", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {name: place for place, name in enumerate(dict.fromkeys(names))}
    native = tokenizers.Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    native.normalizer = normalizers.BertNormalizer(strip_accents=False)
    native.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    native.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    native.add_special_tokens(["[UNK]", "</s>"])
    return str(native.to_str())


def across_json() -> str:
    """WordPiece whose cleanup reads the whole text: no id is certain before the end."""
    native = tokenizers.Tokenizer.from_str(wordpiece_json())
    native.decoder = decoders.Sequence(
        [decoders.Fuse(), decoders.WordPiece(prefix="##", cleanup=True)]
    )
    return str(native.to_str())


@pytest.fixture(params=["byte_level", "byte_fallback", "unigram", "wordpiece", "across"])
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    made = {"unigram": unigram_json, "wordpiece": wordpiece_json, "across": across_json}
    if request.param in made:
        return Tokenizer(made[request.param](), eos_token="</s>")
    tokenizer: Tokenizer = request.getfixturevalue(request.param)
    return tokenizer


class Script(nn.Module):
    """Stands in for a model's last layer: its logits say one id after the other."""

    def __init__(self, ids: Sequence[int], vocab_size: int) -> None:
        super().__init__()
        self.ids, self.vocab_size, self.said = list(ids), vocab_size, 0

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, D) → (B, V)."""
        logits = torch.zeros(*hidden.shape[:-1], self.vocab_size)
        logits[..., self.ids[self.said]] = 9.0
        self.said += 1
        return logits


Saying = Callable[[Sequence[int], Tokenizer], Llama]


@pytest.fixture
def saying(tiny_llama: MakeLlama) -> Saying:
    """Makes a model that says these ids once, and then ends; one after another for each tokenizer."""

    models: dict[Tokenizer, Llama] = {}

    def make(ids: Sequence[int], tokenizer: Tokenizer) -> Llama:
        if tokenizer not in models:
            sizes = {"num_layers": 1, "d_model": 8, "hidden_dim": 8, "max_seq_len": 256}
            models[tokenizer] = tiny_llama(vocab_size=tokenizer.vocab_size, **sizes)
        model = models[tokenizer]
        model.lm_head = Script([*ids, *tokenizer.eos_ids], tokenizer.vocab_size)  # type: ignore[assignment]
        model.generation_defaults = GenerationDefaults(eos_ids=tokenizer.eos_ids)
        return model

    return make


def script_of(model: Llama) -> Script:
    assert isinstance(model.lm_head, Script)
    return model.lm_head


def printed(
    generator: TextGenerator[Any],
    tokenizer: Tokenizer,
    prompt: str,
    capsys: pytest.CaptureFixture[str],
    max_new_tokens: int = 100,
) -> str:
    """What the first README's loop shows."""
    model = generator.model
    input_ids = tokenizer.encode(prompt, return_tensors="pt")
    input_ids = input_ids.to(next(model.parameters()).device)

    for token_id in generator.generate_stream(input_ids, max_new_tokens=max_new_tokens):
        print(tokenizer.decode([token_id]), end="", flush=True)
    return capsys.readouterr().out


def sequences(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """What a model may say: a text, the same cut anywhere, parts of it in disorder, and nonsense."""
    draw = random.Random(0)
    ids = tokenizer.encode(LONG, add_special_tokens=False)
    emoji = tokenizer.encode("🙂", add_special_tokens=False)
    ends = tokenizer.eos_ids
    made = [ids, emoji[:1], emoji[:-1], [*emoji[-1:], *emoji[:1]]]
    for _ in range(count):
        start = draw.randrange(len(ids))
        made.append(ids[start : start + draw.randrange(1, 30)])
        nonsense = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(1, 20))]
        made.append([*nonsense, *draw.choices(ids, k=5), *nonsense[:3]])
    return [[token_id for token_id in one if token_id not in ends] for one in made]


@pytest.mark.parametrize("given", [True, False], ids=["with tokenizer", "without"])
def test_row_250_the_loop_of_the_first_readme_prints_the_text(
    any_tokenizer: Tokenizer, given: bool, saying: Saying, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the tokenizer, whether the model ends the text or the limit does."""
    tokenizer = any_tokenizer
    for place, ids in enumerate(filter(None, sequences(tokenizer, 3))):
        prompt = ("the fox", "the 🙂")[place % 2]
        for limit in (100, len(ids)):
            whole = TextGenerator(saying(ids, tokenizer), tokenizer)
            expected = whole.generate(tokenizer.encode(prompt), max_new_tokens=limit)
            assert list(expected.ids) == ids
            model = saying(ids, tokenizer)
            generator = TextGenerator(model, tokenizer) if given else TextGenerator(model)
            shown = printed(generator, tokenizer, prompt, capsys, limit)
            assert shown == expected.text, (ids, prompt)


def test_row_250_it_prints_what_a_person_expects(
    byte_fallback: Tokenizer, saying: Saying, capsys: pytest.CaptureFixture[str]
) -> None:
    """Decoded one by one, the words of a SentencePiece tokenizer have no spaces."""
    ids = byte_fallback.encode("a quick brown fox 🙂", add_special_tokens=False)
    assert "".join(byte_fallback.decode([one]) for one in ids).startswith("aquick")
    generator = TextGenerator(saying(ids, byte_fallback))
    assert printed(generator, byte_fallback, "the", capsys) == " a quick brown fox 🙂"
    cut = ids[:-1]
    generator = TextGenerator(saying(cut, byte_fallback))
    assert printed(generator, byte_fallback, "the", capsys) == " a quick brown fox " + BROKEN * 3


def test_row_250_an_id_is_held_until_its_text_is_complete(
    byte_level: Tokenizer, saying: Saying
) -> None:
    """The last of them has the character."""
    ids = [byte_level.encode(c, add_special_tokens=False) for c in ("x", "🙂", "y")]
    flat = [token_id for one in ids for token_id in one]
    model = saying(flat, byte_level)
    stream = TextGenerator(model, byte_level).generate_stream("the")
    got = [(byte_level.decode([one]), script_of(model).said) for one in stream]
    count = len(ids[1])
    assert count > 1
    assert got == [("x", 1), *[("", 1 + count)] * (count - 1), ("🙂", 1 + count), ("y", count + 2)]


def test_row_250_without_a_tokenizer_every_id_comes_at_once(
    byte_level: Tokenizer, saying: Saying
) -> None:
    """Decoding one whose text is incomplete runs the model on until it is known, and no further."""
    ids = [byte_level.encode(c, add_special_tokens=False) for c in ("x", "🙂", "y")]
    flat = [token_id for one in ids for token_id in one]
    count = len(ids[1])
    model = saying(flat, byte_level)
    for place, _ in enumerate(TextGenerator(model).generate_stream(flat[:1]), 1):
        assert script_of(model).said == place
    model = saying(flat, byte_level)
    stream = iter(TextGenerator(model).generate_stream(flat[:1]))
    one = next(stream)
    assert (byte_level.decode([one]), script_of(model).said) == ("x", 1)
    assert (byte_level.decode([next(stream)]), script_of(model).said) == ("", 1 + count)
    rest = [byte_level.decode([one]) for one in stream]
    assert rest == [*[""] * (count - 2), "🙂", "y"]
    assert byte_level.decode([one]) == "x"


def test_row_250_each_tokenizer_has_its_own_text(
    byte_fallback: Tokenizer, byte_fallback_json: str, saying: Saying
) -> None:
    """This holds for a generator without a tokenizer; if it has one, another tokenizer sees an integer."""
    other = Tokenizer(byte_fallback_json)
    ids = byte_fallback.encode("a fox", add_special_tokens=False)
    prompt = byte_fallback.encode("the")
    words = " a fox"
    streamed = list(TextGenerator(saying(ids, byte_fallback)).generate_stream(prompt))
    for tokenizer in (other, byte_fallback, other):
        assert "".join(tokenizer.decode([one]) for one in streamed) == words
    owned = TextGenerator(saying(ids, byte_fallback), byte_fallback).generate_stream(prompt)
    streamed = list(owned)
    assert "".join(byte_fallback.decode([one]) for one in streamed) == words
    assert "".join(other.decode([one]) for one in streamed) == "afox"
    assert byte_fallback.decode(streamed) == other.decode(streamed) == "a fox"


def test_row_250_ids_that_are_decoded_later_or_elsewhere(
    byte_fallback: Tokenizer, saying: Saying
) -> None:
    """After the end, in any order, of a stream that was broken off, and in another thread."""
    ids = byte_fallback.encode("a fox 漢 x", add_special_tokens=False)
    prompt = byte_fallback.encode("the")
    model = saying(ids, byte_fallback)
    streamed = list(TextGenerator(model).generate_stream(prompt))
    texts = {place: byte_fallback.decode([streamed[place]]) for place in (5, 0, 3, 1, 4, 2)}
    texts |= {place: byte_fallback.decode([streamed[place]]) for place in range(len(ids))}
    assert "".join(texts[place] for place in range(len(ids))) == " a fox 漢 x"

    with TextGenerator(saying(ids, byte_fallback)).generate_stream(prompt) as stream:
        first_byte = next(filter(lambda place: byte_fallback.is_byte(ids[place]), range(len(ids))))
        some = list(islice(stream, first_byte + 2))
    assert "".join(byte_fallback.decode([one]) for one in some) == " a fox " + BROKEN * 2

    found: list[str] = []
    waiting = list(TextGenerator(saying(ids, byte_fallback)).generate_stream(prompt))
    thread = threading.Thread(
        target=lambda: found.extend(byte_fallback.decode([one]) for one in waiting)
    )
    thread.start()
    thread.join()
    assert "".join(found) == " a fox 漢 x"


def test_row_250_two_threads_share_a_stream(byte_fallback: Tokenizer, saying: Saying) -> None:
    """One takes the ids while another decodes them, which may run the model too."""
    ids = byte_fallback.encode("🙂 a fox 漢" * 5, add_special_tokens=False)
    stream = TextGenerator(saying(ids, byte_fallback)).generate_stream(byte_fallback.encode("the"))
    texts: list[str] = []
    given: list[int] = []
    done = threading.Event()

    def decode() -> None:
        place = 0
        while not (done.is_set() and place == len(given)):
            if place < len(given):
                texts.append(byte_fallback.decode([given[place]]))
                place += 1

    thread = threading.Thread(target=decode)
    thread.start()
    given.extend(iter(stream))
    done.set()
    thread.join()
    assert given == ids
    assert "".join(texts) == " " + "🙂 a fox 漢" * 5


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ModelError])
def test_row_250_what_breaks_off_while_an_id_is_decoded(
    kind: type[BaseException], byte_level: Tokenizer, saying: Saying
) -> None:
    """It passes through, and the ids that were given keep the text that there is."""
    emoji = byte_level.encode("🙂", add_special_tokens=False)

    def fails(input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] == 1 + len(emoji) - 1:
            raise KeyboardInterrupt if kind is KeyboardInterrupt else ModelError("it", "fails", "")
        return scores

    generator = TextGenerator(saying(emoji, byte_level))
    stream = iter(generator.generate_stream([5], logits_processors=[fails]))
    first = next(stream)
    with pytest.raises(kind):
        byte_level.decode([first])
    rest = list(stream)
    assert [first, *rest] == emoji[:-1]
    assert "".join(byte_level.decode([one]) for one in [first, *rest]) == byte_level.decode(
        emoji[:-1]
    )


def test_row_250_ids_of_a_batch_know_their_text_too(
    byte_fallback: Tokenizer, tiny_llama: MakeLlama
) -> None:
    model = tiny_llama(vocab_size=byte_fallback.vocab_size)
    batch = BatchGenerator(model, byte_fallback, rows=2)
    texts = ["the fox", "Once upon", "漢字"]
    tickets = [batch.submit(text, seed=3, temperature=3.0, max_new_tokens=20) for text in texts]
    news: dict[int, list[str]] = {ticket: [] for ticket in tickets}
    while batch.busy:
        for ticket, ids in batch.step().items():
            news[ticket] += [byte_fallback.decode([one]) for one in ids]
    results = batch.collect()
    for ticket in tickets:
        assert "".join(news[ticket]) == getattr(results[ticket], "text", None)


def test_results_hold_plain_integers(byte_fallback: Tokenizer, tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama(vocab_size=byte_fallback.vocab_size), byte_fallback)
    stream = generator.generate_stream("the fox", max_new_tokens=5, temperature=0)
    ids = list(stream)
    assert all(type(one) is StreamedId for one in ids)
    assert stream.result is not None and list(stream.result.ids) == ids
    assert all(type(one) is int for one in stream.result.ids)


def test_ids_and_text_of_one_stream(byte_fallback: Tokenizer, tiny_llama: MakeLlama) -> None:
    """Each iterator begins with what came first, and both run the same generation."""
    generator = TextGenerator(tiny_llama(vocab_size=byte_fallback.vocab_size), byte_fallback)
    config = GenerationConfig.sampling(seed=4, temperature=2.0, max_new_tokens=30)
    expected = generator.generate("the fox", config)
    stream = generator.generate_stream("the fox", config)
    ids, pieces = iter(stream), stream.text()
    assert [next(ids), next(ids)] == list(expected.ids[:2])
    assert stream.result is None and 2 <= stream.new_tokens < 30
    assert "".join(pieces) == expected.text
    assert [*expected.ids[:2], *ids] == list(expected.ids) == list(stream)
    assert "".join(stream.text()) == expected.text
    assert stream.result == expected
    assert stream.new_tokens == len(expected.ids) == 30
