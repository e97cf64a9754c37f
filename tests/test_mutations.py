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
from tests.mutated_settings import (
    VOCABULARY,
    mutated_generation_config,
    mutated_tokenizer_config,
    tokenizer_file,
)
from tests.mutated_templates import CONVERSATIONS, TOKENS, mutated_template
from tests.mutated_tokenizers import TEXTS, mutated_tokenizer

from lolama_core import FileCheckpointIO, TextStream, Tokenizer, load_tokenizer
from lolama_core.protocols.errors import LolamaError, ModelError
from lolama_core.protocols.types import Message
from lolama_core.text.chat_template import ChatTemplate
from lolama_core.text.native_guard import call_native
from lolama_hub import HuggingFaceSource

pytestmark = pytest.mark.filterwarnings("ignore")  # the oracle's

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

    def refused(self, what: str, theirs: Outcome, mine: Outcome, refusals: str) -> str:
        """What came of a case that one of the two refuses; lolama need not read all that the oracle does."""
        if mine.error is None:
            return "refused by the oracle"
        self.compare(what, theirs, mine, refusals)
        return "refused by lolama" if theirs.error is None else "refused by both"

    def finish(self, record: Callable[[str, object], None], what: str) -> None:
        """Report, and fail if something must not be."""
        record(what, f"{FIRST} to {FIRST + CASES - 1}")
        print(f"{what}: {dict(self.counts)}, refused by lolama alone: {dict(self.refusals)}")
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *self.faults[:20]])
        compared = sum(n for outcome, n in self.counts.items() if outcome.startswith("equal"))
        assert compared >= CASES // 2, self.counts


Record = Callable[[str, object], None]


# ------------------------------------------------------------------------------------- tokenizer.json

# Where ids contradict each other, or texts would depend on chance or take for ever.
TOKENIZER_REFUSALS = (
    r"gives the id \d+ to two tokens|has a decoder with a pattern|has a model with dropout"
    r"|puts the id \d+ into every text|cannot be used: no entry found for key"
)
FOLDER_REFUSALS = (
    r"the id \d+, which is not its place|the id \d+, but the model's vocabulary has"
    r"|[\w.]+ of the added token .* is .*, expected|gives the token .* the id"
)
CERTAIN = ("", "the dog <s>hello</s> café 漢")
TEXT_REFUSALS = r"has a normalizer that makes more than \d+ bytes of this text"


def test_row_197_mutated_tokenizers(folder: Path, tmp_path: Path, record_property: Record) -> None:
    tally = Tally("tokenizer")
    source = HuggingFaceSource(store=tmp_path / "store")
    path = folder / "tokenizer.json"
    for seed, chance in tally.seeds():
        path.write_text(json.dumps(mutated_tokenizer(chance)), encoding="utf-8")
        theirs = oracle(tokenizers.Tokenizer.from_file, str(path))
        mine = ours(Tokenizer.from_file, path)
        if theirs.error is None and mine.error is None:
            compare_tokenizers(tally, f"tokenizer {seed}", theirs.value, mine.value)
            whole = ours(loaded, source, folder)
            compare_folders(tally, f"folder {seed}", mine.value, whole)
            tally.note("equal" if whole.error is None else "equal, the folder refused by lolama")
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


def compare_folders(tally: Tally, name: str, tokenizer: Tokenizer, mine: Outcome) -> None:
    """A folder is the tokenizer in it, unless its ids are not the file's, or too many for the model."""
    for text in CERTAIN:
        ids = ours(tokenizer.encode, text)
        if ids.error is None:
            got = mine if mine.error else ours(mine.value.encode, text)
            if not tally.compare(f"{name}: {text!a}", ids, got, FOLDER_REFUSALS):
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


# ------------------------------------------------------------------------- tokenizer_config.json

COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# What is said of a field names it, and of tokens says how they contradict each other.
SETTINGS_REFUSALS = (
    r"[\w.]+ is .*, expected [a-z ]+|[\w.]+ of the added token|the token .* has the id"
    r"|the added token .* has the id|add_bos_token is true, but|gives .* the id|gives the id"
    r"|is no JSON object"
    r"|is not an object|has a token of \d+ characters|holds \w+, which is not JSON"
)
# Classes that name tokens where the file does not.
LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast")
TYPED = [
    "the <s> dog", "the</s>dog<end>x <end> <img> a", "<new> x<new>the <pad>y", "hello the<unk> dog, café",
    "<|a token that is long|><b> <far> z",
]  # fmt: skip
CHAT: list[Message] = [{"role": "user", "content": "the dog"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few weights."""
    folder = tmp_path_factory.mktemp("model")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_row_197_mutated_tokenizer_configs(
    folder: Path, tmp_path: Path, record_property: Record
) -> None:
    tally = Tally("tokenizer_config")
    source = HuggingFaceSource(store=tmp_path / "store")
    for seed, chance in tally.seeds():
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_file(chance)))
        files = mutated_tokenizer_config(chance)
        for name in COMPANIONS:
            (folder / name).unlink(missing_ok=True)
        for name, values in files.items():
            (folder / name).write_text(json.dumps(values))
        case = f"tokenizer_config {seed}: {files}"
        theirs = oracle(transformers.PreTrainedTokenizerFast.from_pretrained, folder)
        mine = ours(loaded, source, folder)
        if theirs.error is not None or mine.error is not None:
            tally.note(tally.refused(case, theirs, mine, SETTINGS_REFUSALS))
            continue
        named = theirs
        if files["tokenizer_config.json"].get("tokenizer_class") in LLAMA:
            named = oracle(transformers.LlamaTokenizer.from_pretrained, folder)
        compare_named_tokens(tally, case, theirs.value, named.value, mine.value)
        tally.note("equal")
    (folder / "tokenizer.json").unlink()
    for name in COMPANIONS:
        (folder / name).unlink(missing_ok=True)
    tally.finish(record_property, "mutated tokenizer_config.json files")


def loaded(source: HuggingFaceSource, folder: Path) -> Tokenizer:
    return load_tokenizer(source.resolve(str(folder), FileCheckpointIO()))


def compare_named_tokens(
    tally: Tally, case: str, theirs: Any, named: Any, tokenizer: Tokenizer
) -> None:
    """Ids, texts, and what a template makes of the names; ``named`` is what knows these."""
    special = {number for number, token in theirs.added_tokens_decoder.items() if token.special}
    for text in TYPED:
        ids = oracle(theirs.encode, text, add_special_tokens=False)
        got = ours(tokenizer.encode, text, add_special_tokens=False)
        if ids.error is not None or not tally.compare(f"{case}: {text}", ids, got, ""):
            return
        begun = oracle(theirs.encode, text)._replace(error=None)
        if tokenizer.block["add_bos"]:  # transformers 5 goes by tokenizer.json alone
            begun = begun._replace(value=tokenizer.ensure_bos(begun.value))
        tally.compare(f"{case}: begun {text}", begun, ours(tokenizer.encode, text), "")
        kept = [number for number in ids.value if number not in special]
        for shown, skip in ((ids.value, False), (kept, True)):
            expected = oracle(theirs.decode, shown)
            told = ours(tokenizer.decode, ids.value, skip_special_tokens=skip)
            tally.compare(f"{case}: text of {ids.value}", expected, told, "")
    written = oracle(named.apply_chat_template, CHAT, tokenize=False)
    got = ours(tokenizer.apply_chat_template, CHAT, tokenize=False)
    tally.compare(f"{case}: template", written, got, "")


# ------------------------------------------------------------------------ generation_config.json

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
# Settings for which transformers has something that changes scores, and which lolama has or names.
PROCESSORS = {
    "begin_suppress_tokens": "SuppressTokensAtBeginLogitsProcessor",
    "bad_words_ids": "NoBadWordsLogitsProcessor",
    "epsilon_cutoff": "EpsilonLogitsWarper",
    "eta_cutoff": "EtaLogitsWarper",
    "exponential_decay_length_penalty": "ExponentialDecayLengthPenalty",
    "forced_bos_token_id": "ForcedBOSTokenLogitsProcessor",
    "forced_eos_token_id": "ForcedEOSTokenLogitsProcessor",
    "guidance_scale": "UnbatchedClassifierFreeGuidanceLogitsProcessor",
    "min_length": "MinLengthLogitsProcessor",
    "min_new_tokens": "MinNewTokensLengthLogitsProcessor",
    "no_repeat_ngram_size": "NoRepeatNGramLogitsProcessor",
    "sequence_bias": "SequenceBiasLogitsProcessor",
    "suppress_tokens": "SuppressTokensLogitsProcessor",
    "top_h": "TopHLogitsWarper",
}
# What the compared settings make, and what only keeps scores in order.
KNOWN = {
    "InfNanRemoveLogitsProcessor",
    "LogitNormalization",
    "MinPLogitsWarper",
    "RepetitionPenaltyLogitsProcessor",
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
}


def test_row_197_mutated_generation_configs(
    folder: Path, tmp_path: Path, record_property: Record
) -> None:
    tally = Tally("generation_config")
    source = HuggingFaceSource(store=tmp_path / "store")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_file(random.Random(0))))
    config = json.loads((folder / "config.json").read_text())
    for seed, chance in tally.seeds():
        values, ends = mutated_generation_config(chance)
        (folder / "generation_config.json").write_text(json.dumps(values))
        (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": ends}))
        case = f"generation_config {seed}: {values}, {ends}"
        theirs = oracle(effective, folder, ends)
        mine = ours(followed, source, folder)
        if theirs.error is not None or mine.error is not None:
            tally.note(tally.refused(case, theirs, mine, SETTINGS_REFUSALS))
            continue
        # Being told of a setting that has no effect does no harm.
        others = theirs.value.pop("others") - mine.value.pop("others")
        tally.compare(case, theirs, mine, "")
        tally.compare(
            f"{case}: neither followed nor named", Outcome(set(), None), Outcome(others, None), ""
        )
        tally.note("equal")
    tally.finish(record_property, "mutated generation_config.json files")


def effective(folder: Path, ends: Any) -> dict[str, Any]:
    """What transformers does by the files: end ids, settings, and what else would change a text."""
    config = transformers.GenerationConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    prepared, _ = model._prepare_generation_config(config)
    model._prepare_special_tokens(prepared, kwargs_has_attention_mask=True, device="cpu")
    processors = model._get_logits_processor(
        prepared, input_ids_seq_length=1, device="cpu", model_kwargs={}
    )
    names = (*SAMPLING, "repetition_penalty") if config.do_sample else ("repetition_penalty",)
    stated = {name: getattr(config, name) for name in names}
    eos = ends if config.eos_token_id in (None, []) else config.eos_token_id
    ends = eos if isinstance(eos, list) else [eos]
    return {
        "eos": sorted({*ends} - {None}),
        "settings": {name: value for name, value in stated.items() if value is not None},
        "others": {type(one).__name__ for one in processors if has_effect(one)} - KNOWN,
    }


def has_effect(processor: Any) -> bool:
    """Whether it is not one that suppresses an empty list of tokens."""
    lists = (getattr(processor, f"{when}suppress_tokens", None) for when in ("", "begin_"))
    return all(tokens is None or len(tokens) for tokens in lists)


def followed(source: HuggingFaceSource, folder: Path) -> dict[str, Any]:
    """The same, as lolama reads it."""
    block: Any = source.resolve(str(folder), FileCheckpointIO()).config["generation"]
    compared = (*SAMPLING, "repetition_penalty")
    named = [*block.get("unsupported", []), *block["sampling"]]
    return {
        "eos": block["eos_ids"],
        "settings": {
            name: block["sampling"][name] for name in compared if name in block["sampling"]
        },
        "others": {PROCESSORS[name] for name in named if name in PROCESSORS},
    }
