"""Files of a tokenizer, settings and templates changed at random: equal to the oracle, or one clear line.

The oracle is the `tokenizers` library for ids and texts, and transformers for everything else. A seed alone
decides a case, and is named when it fails. ``LOLAMA_FUZZ_CASES`` sets how many there are of each kind and
``LOLAMA_FUZZ_FIRST`` the first.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tokenizers
import transformers
from tests.mutated_templates import CONVERSATIONS, TOKENS, mutated_template
from tests.mutated_tokenizers import TEXTS, mutated_tokenizer

from lolama_core import TextStream, Tokenizer
from lolama_core.chat_template import ChatTemplate
from lolama_core.native_guard import call_native
from lolama_core.protocols.errors import LolamaError, ModelError
from lolama_core.protocols.types import Message

CASES = int(os.environ.get("LOLAMA_FUZZ_CASES", "15"))
FIRST = int(os.environ.get("LOLAMA_FUZZ_FIRST", "0"))


class Outcome(NamedTuple):
    """A result, or what was raised in its place."""

    value: Any
    error: BaseException | None


def oracle(run: Callable[..., Any], *args: Any, **named: Any) -> Outcome:
    """What the oracle does; it may raise anything, panic, and write to standard error."""
    try:
        return Outcome(call_native(partial(run, *args, **named), subject="oracle"), None)
    except ModelError as error:
        return Outcome(None, error)


def ours(run: Callable[..., Any], *args: Any, **named: Any) -> Outcome:
    """What lolama does; what it raises is one clear line."""
    try:
        return Outcome(run(*args, **named), None)
    except LolamaError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 1000, message
        return Outcome(None, error)


class Tally:
    """Counts what came of the cases of one kind, and keeps what must not be."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.faults: list[str] = []
        self._before = 0

    def seeds(self) -> Iterator[tuple[int, random.Random]]:
        """Each case's seed, and all its choices."""
        for seed in range(FIRST, FIRST + CASES):
            self._before = len(self.faults)
            yield seed, random.Random(f"{self.kind} {seed}")

    @property
    def faulty(self) -> bool:
        """Whether this case has a fault."""
        return len(self.faults) > self._before

    def note(self, outcome: str) -> None:
        """Count this case."""
        self.counts["faulty" if self.faulty else outcome] += 1

    def compare(self, what: str, theirs: Outcome, mine: Outcome, refusals: str) -> bool:
        """Whether both have a result, and it is the same.

        Args:
            what: Names the case and what is compared.
            theirs, mine: The two outcomes.
            refusals: A pattern of the reasons for which lolama may refuse what the oracle takes.
        """
        if mine.error is not None:
            if theirs.error is None:
                reason = re.search(refusals, str(mine.error))
                if reason is None:
                    self.faults.append(f"{what}: refused: {mine.error}")
                else:
                    self.refusals[re.sub(r"\d+", "N", reason[0])] += 1
            return False
        if theirs.error is not None:
            self.faults.append(
                f"{what}: only the oracle refuses: {theirs.error}, not {mine.value!a:.200}"
            )
            return False
        if theirs.value != mine.value:
            self.faults.append(f"{what}: expected {theirs.value!a:.600}, got {mine.value!a:.600}")
            return False
        return True

    def finish(self, record: Callable[[str, object], None], what: str) -> None:
        """Report, and fail if something must not be."""
        record(what, f"{FIRST} to {FIRST + CASES - 1}")
        print(f"{what}: {dict(self.counts)}, refused by lolama alone: {dict(self.refusals)}")
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *self.faults[:20]])
        assert self.counts["equal"] >= CASES // 2, self.counts


Record = Callable[[str, object], None]


# ------------------------------------------------------------------------------------- tokenizer.json

# Where ids contradict each other, or texts would depend on chance or take for ever.
TOKENIZER_REFUSALS = (
    r"gives the id \d+ to two tokens|has a decoder with a pattern|has a model with dropout"
    r"|puts the id \d+ into every text"
)
TEXT_REFUSALS = r"has a normalizer that makes more than \d+ bytes of this text"


def test_row_197_mutated_tokenizers(tmp_path: Path, record_property: Record) -> None:
    tally = Tally("tokenizer")
    path = tmp_path / "tokenizer.json"
    for seed, chance in tally.seeds():
        path.write_text(json.dumps(mutated_tokenizer(chance)), encoding="utf-8")
        theirs = oracle(tokenizers.Tokenizer.from_file, str(path))
        mine = ours(Tokenizer.from_file, path)
        if theirs.error is None and mine.error is None:
            compare_tokenizers(tally, f"tokenizer {seed}", theirs.value, mine.value)
            tally.note("equal")
            continue
        tally.compare(f"tokenizer {seed}", theirs, mine, TOKENIZER_REFUSALS)
        tally.note("refused by both" if theirs.error else "refused by lolama")
        assert str(path) in str(mine.error), seed
    tally.finish(record_property, "mutated tokenizer.json files")


def compare_tokenizers(
    tally: Tally, name: str, native: tokenizers.Tokenizer, tokenizer: Tokenizer
) -> None:
    """Ids and texts of many texts; the first fault is enough."""
    native.no_padding()
    native.no_truncation()
    added = native.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special}
    assert tokenizer.vocab_size == max(native.get_vocab().values()) + 1, name
    assert set(filter(tokenizer.is_special, range(tokenizer.vocab_size))) == special, name
    texts = [*TEXTS, *(f"x{t.content} y {t.content}{t.content}the" for t in added.values())]
    for text, begin in product(texts, (False, True)):
        theirs = oracle(ids_of, native, text, begin)
        mine = ours(tokenizer.encode, text, add_special_tokens=begin)
        if tally.compare(f"{name}: ids of {text!a} ({begin})", theirs, mine, TEXT_REFUSALS):
            for ids in (mine.value, mine.value[::-1]):
                compare_texts(tally, f"{name}: {ids}", native, tokenizer, ids, special)
        if tally.faulty:
            return


def compare_texts(
    tally: Tally,
    name: str,
    native: tokenizers.Tokenizer,
    tokenizer: Tokenizer,
    ids: list[int],
    special: set[int],
) -> None:
    """The text of ids: with control tokens, without, and in pieces."""
    # The library goes on writing control tokens that a normalizer changes; lolama leaves out all.
    kept = [number for number in ids if number not in special]
    whole = ours(tokenizer.decode, ids, skip_special_tokens=False)
    tally.compare(f"{name}: text", text_of(native, ids), whole, "")
    told = ours(tokenizer.decode, ids)
    if tally.compare(f"{name}: text without control tokens", text_of(native, kept), told, ""):
        streamed = ours(stream, tokenizer, ids)
        tally.compare(f"{name}: stream", told, streamed, "cannot be used: index out of bounds")


def ids_of(native: tokenizers.Tokenizer, text: str, begin: bool) -> list[int]:
    ids: list[int] = native.encode(text, add_special_tokens=begin).ids
    return ids


def text_of(native: tokenizers.Tokenizer, ids: list[int]) -> Outcome:
    """What the library makes of ids; of none, it may panic."""
    return oracle(native.decode, ids, skip_special_tokens=False) if ids else Outcome("", None)


def stream(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text in pieces, put together."""
    pieces = TextStream(tokenizer)
    return "".join(map(pieces.push, ids)) + pieces.finish()


# ---------------------------------------------------------------------------------- chat templates

TEMPLATE_REFUSALS = r"uses .*, which is not supported here|goes past its budget: [a-z ]+"
# Where something lies in memory, and what a class is called, are no part of a text.
ADDRESS = re.compile(r"0x[0-9a-f]{8,}|<class '[^']*'>")
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def letters() -> str:
    """A tokenizer of bytes, with the control tokens that templates write."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    native = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    native.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    native.decoder = tokenizers.decoders.ByteLevel()
    native.add_special_tokens(TOKENS)
    text: str = native.to_str()
    return text


def test_row_197_mutated_templates(letters: str, record_property: Record) -> None:
    tally = Tally("template")
    native = tokenizers.Tokenizer.from_str(letters)
    reference = transformers.PreTrainedTokenizerFast(tokenizer_object=native, **NAMES)
    for seed, chance in tally.seeds():
        source = mutated_template(chance)
        seen = set()
        for messages, prompt in product(CONVERSATIONS, (True, False)):
            name = f"template {seed}: {source!a}\n{messages}"
            seen.add(compare_renderings(tally, name, source, messages, prompt, letters, reference))
        order = ("refused by lolama", "equal", "refused by both")
        tally.note(next(outcome for outcome in order if outcome in seen))
    tally.finish(record_property, "mutated chat templates")


def compare_renderings(
    tally: Tally,
    name: str,
    source: str,
    messages: list[Message],
    prompt: bool,
    letters: str,
    reference: Any,
) -> str:
    """The text of a conversation, and its ids; what came of it."""
    settings: dict[str, Any] = {"chat_template": source, "add_generation_prompt": prompt}
    theirs = oracle(reference.apply_chat_template, messages, tokenize=False, **settings)
    mine = ours(render, source, messages, prompt)
    if not tally.compare(name, masked(theirs), masked(mine), TEMPLATE_REFUSALS):
        return "refused by both" if theirs.error else "refused by lolama"
    if not ADDRESS.search(mine.value):
        tokenizer = Tokenizer(letters, chat_template=source, bos_token="<s>", eos_token="</s>")
        ids = oracle(reference.apply_chat_template, messages, return_dict=False, **settings)
        got = ours(tokenizer.render_chat, messages, add_generation_prompt=prompt)
        tally.compare(f"ids of {name}", ids, got, "")
    return "equal"


def render(source: str, messages: list[Message], prompt: bool) -> str:
    return ChatTemplate(source).render(
        messages,
        add_generation_prompt=prompt,
        control_tokens={token: token for token in TOKENS},
        special_tokens=NAMES,
    )


def masked(outcome: Outcome) -> Outcome:
    """The same text, whatever it tells of the program that wrote it."""
    text = outcome.value
    return outcome._replace(value=ADDRESS.sub("<>", text)) if isinstance(text, str) else outcome
