"""A grammar's texts, and no others, whatever the tokenizer; hostile grammars end with one line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from spelled import Speller, of_bytes, of_pieces

import lolama
from lolama import grammar as module
from lolama.grammar import Grammar, GrammarCompiler
from lolama_core import Generation, Tokenizer, token_bytes
from lolama_core.protocols.errors import LolamaError, UsageError

PERSON: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "n": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["été", "</s>", "<tool>"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["name", "n"],
    "additionalProperties": False,
}

TEXTS: list[tuple[Grammar, list[str], list[str]]] = [
    (
        Grammar.json_schema(PERSON),
        [
            '{"name":"hello \\" été 漢字 🙂","n":12}',
            '{"name":"","n":0,"kind":"été","tags":[true,false]}',
            '{"name":"<s>","n":150,"kind":"</s>","tags":[]}',
            '{"name":"a","n":1,"kind":"<tool>"}',
        ],
        [
            '{"n":12,"name":"a"}',
            '{"name":"a","n":151}',
            '{"name":"a","n":-1}',
            '{"name":"a", "n":1}',
            '{"name":"a","n":1,"x":2}',
            '{"name":"a","n":1,"tags":[true,true,true]}',
            '{"name":"a"}',
            '{"name":"a","n":1}}',
            ' {"name":"a","n":1}',
            '{"name":"a\n","n":1}',
            "",
        ],
    ),
    (Grammar.json_object(), ["{}", '{"a":[1,{"b":null}],"c":-1.5e3}'], ["[]", "1", "{ }", "{}}"]),
    (Grammar.json_schema(True), ["1", "[]", '"é"', "{}"], ["", "tru", "é"]),
    (Grammar.json_schema({"const": {"a": [1, "</s>"]}}), ['{"a":[1,"</s>"]}'], ['{"a":[1]}']),
    (Grammar.regex("yes|no|[0-9]{2,3}é?"), ["yes", "no", "12", "123é"], ["ye", "1", "yesno", "1é"]),
    (Grammar.regex("(hello )*"), ["", "hello hello "], ["hello", "hello world"]),
    (Grammar.lark('start: "(" start ")" | "x"'), ["x", "((x))"], ["(x", "xx", ""]),
    (
        Grammar.gbnf(
            'root ::= "\\u00e9" my-rule+ # a comment\nmy-rule ::= [a-c] | "\\x41" | "\\"\\\\" '
        ),
        ["éa", "éAcb", 'é"\\'],
        ["é", "e", "éd"],
    ),
]

MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "demo": lambda: lolama.load_tokenizer("demo"),
    "bytes": of_bytes,
    "pieces": of_pieces,
}


@cache
def speller(name: str) -> Speller:
    return Speller(MAKERS[name]())


@pytest.mark.parametrize("place", range(len(TEXTS)))
@pytest.mark.parametrize("name", MAKERS)
def test_a_grammar_has_its_texts_and_no_others(name: str, place: int) -> None:
    grammar, texts, others = TEXTS[place]
    write = speller(name)
    assert [text for text in texts if not write.accepts(grammar, text)] == []
    assert [text for text in others if write.accepts(grammar, text)] == []


@pytest.mark.parametrize("name", MAKERS)
def test_no_control_token_is_part_of_a_text(name: str) -> None:
    """Though a text may spell one."""
    write = speller(name)
    tokenizer = write.tokenizer
    assert tokenizer.controls
    for grammar in (Grammar.regex("(.|\n)*"), Grammar.json_schema({"type": "string"})):
        mask = write.compiler.compile(grammar).mask()
        assert mask is not None
        shown = [token for token in tokenizer.controls if mask[token]]
        assert set(shown) == (set(write.ends) if grammar.kind == "regex" else set())


def test_a_grammar_may_ask_for_a_control_token() -> None:
    write = speller("bytes")
    call = write.compiler.compile(Grammar.lark("start: <|call|> /[a-z]+/"))
    [number] = call.mask().nonzero().flatten().tolist()  # type: ignore[union-attr]
    assert write.tokenizer.decode([number], skip_special_tokens=False) == "<|call|>"


def test_all_end_tokens_end_a_text_and_none_is_part_of_one() -> None:
    """One of them spells a letter here."""
    tokenizer = of_bytes()
    [letter] = tokenizer.encode_ids("q", add_special_tokens=False)
    write = Speller(tokenizer, [*tokenizer.eos_ids, letter])
    assert write.accepts(Grammar.regex("[a-p]*"), "abc")
    assert not write.accepts(Grammar.regex("[a-z]+"), "q")
    mask = write.compiler.compile(Grammar.regex("[a-z]+")).mask()
    assert mask is not None and not mask[letter]


def test_masks_are_as_long_as_the_logits() -> None:
    tokenizer = of_bytes()
    for size in (tokenizer.vocab_size + 45, tokenizer.vocab_size, 300):
        ends = {256, 5} if size == 300 else tokenizer.eos_ids
        make = GrammarCompiler(tokenizer, ends, size)
        mask = make.compile(Grammar.json_schema({"type": "string"})).mask()
        assert mask is not None and mask.shape == (size,)
        texts = token_bytes(tokenizer).texts
        begun = [texts[token] for token in mask.nonzero().flatten().tolist()]
        assert begun and all(text.startswith(b'"') for text in begun)


def test_forced_tokens_are_the_models_own() -> None:
    for name in MAKERS:
        write = speller(name)
        constraint = write.compiler.compile(Grammar.json_schema({"const": "hello world </s> été"}))
        spelled = '"hello world </s> été"'
        ids = write.tokenizer.encode_ids(
            "|" + spelled, add_special_tokens=False, split_special_tokens=True
        )
        forced = list(constraint.forced())
        assert len(forced) >= 3
        assert ids[-len(forced) - 1 : -1] == forced or ids[-len(forced) :] == forced


def test_a_long_forced_text_is_spelled_to_its_end() -> None:
    text = "".join(chr(0x61 + place % 26) for place in range(3000)) + "é"
    assert speller("pieces").accepts(Grammar.regex(text), text)


# ----------------------------------------------------------------------------------------- generating


@cache
def demo() -> lolama.LanguageModel:
    return lolama.load("demo", device="cpu", dtype="float32")


@cache
def compiler() -> GrammarCompiler:
    model, tokenizer = demo().model, demo().tokenizer
    return GrammarCompiler(tokenizer, tokenizer.eos_ids, model.vocab_size)


class Unforced:
    """The same constraint, which does not tell what comes next."""

    def __init__(self, grammar: Grammar) -> None:
        inner = compiler().compile(grammar)
        self.mask, self.accept, self.rollback = inner.mask, inner.accept, inner.rollback


GENERATED = [
    Grammar.json_schema(PERSON),
    Grammar.json_schema(
        {
            "type": "object",
            "properties": {name: {"type": "boolean"} for name in ("is it happy", "is it sad")},
            "required": ["is it happy", "is it sad"],
            "additionalProperties": False,
        }
    ),
    Grammar.regex("Once upon a time there was a (dog|cat) named [A-Z][a-z]{2,6}\\."),
]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("place", range(len(GENERATED)))
def test_forced_spans_change_no_text(
    place: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lolama_core import Runner

    grammar, generate = GENERATED[place], demo().generator.generate
    passes = [0]
    forward = Runner.forward_embeds

    def counting(self: Runner, *arguments: Any, **options: Any) -> Any:
        passes[0] += 1
        return forward(self, *arguments, **options)

    monkeypatch.setattr(Runner, "forward_embeds", counting)
    monkeypatch.setattr(Runner, "decode", counting, raising=False)
    fewer = 0
    for seed in range(3):
        settings: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_new_tokens": 60}
        begin = passes[0]
        plain = generate("Tell me.", constraint=Unforced(grammar), **settings)
        between = passes[0]
        forced = generate("Tell me.", constraint=compiler().compile(grammar), **settings)
        assert (forced.ids, forced.finish_reason) == (plain.ids, plain.finish_reason)
        fewer += (between - begin) - (passes[0] - between)
    assert fewer > 0


def test_rows_with_grammars_of_their_own_are_as_alone() -> None:
    engine = lolama.Engine(demo().model, demo().tokenizer, rows=4)
    grammars = [*GENERATED, None, Grammar.json_object(), None, Grammar.regex("yes|no")]

    def constraint(grammar: Grammar | None) -> Any:
        return None if grammar is None else compiler().compile(grammar)

    settings: dict[str, Any] = {"temperature": 1.0, "seed": 7, "max_new_tokens": 40}
    tickets = [
        engine.submit("Tell me.", constraint=constraint(grammar), **settings)
        for grammar in grammars
    ]
    results: dict[int, Generation | LolamaError] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    for ticket, grammar in zip(tickets, grammars, strict=True):
        alone = demo().generator.generate("Tell me.", constraint=constraint(grammar), **settings)
        assert results[ticket] == alone


# ------------------------------------------------------------------------------------- refused grammars


def nested(levels: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def holds_itself() -> Any:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    return schema


def doubled(levels: int) -> Any:
    schema: Any = []
    for _ in range(levels):
        schema = [schema, schema]
    return {"enum": schema}


REFUSED: dict[str, tuple[Callable[[], Grammar], str]] = {
    "a list": (lambda: Grammar.json_schema([1]), "JSON schema: is a list"),  # type: ignore[arg-type]
    "false": (lambda: Grammar.json_schema(False), "is false, which describes nothing"),
    "no JSON": (lambda: Grammar.json_schema({"const": object()}), "is no JSON: Object of type"),
    "not a number": (lambda: Grammar.json_schema({"const": float("nan")}), "is no JSON: "),
    "a key": (lambda: Grammar.json_schema({1: 2}), "the key 1 is no text"),  # type: ignore[dict-item]
    "half a character": (lambda: Grammar.json_schema({"const": "\ud800"}), "surrogate pair"),
    "deep": (lambda: Grammar.json_schema(nested(70)), "more than 64 objects and lists"),
    "endless": (lambda: Grammar.json_schema(holds_itself()), "more than 64 objects and lists"),
    "much": (lambda: Grammar.json_schema(doubled(40)), "more than 65,536 values"),
    "long": (
        lambda: Grammar.json_schema({"title": "x" * 65_536}),
        "has 65,549 bytes, more than 65,536; shorten it",
    ),
    "elsewhere": (
        lambda: Grammar.json_schema({"$ref": "http://localhost:9/schema.json"}),
        "Default retriever does not fetch resources",
    ),
    "a file": (lambda: Grammar.json_schema({"$ref": "file:///etc/passwd"}), "does not fetch"),
    "unknown": (
        lambda: Grammar.json_schema({"unevaluatedProperties": False}),
        'Unimplemented keys: ["unevaluatedProperties"]',
    ),
    "lenient": (
        lambda: Grammar.json_schema({"x-guidance": {"lenient": True}, "uniqueItems": True}),
        'Unimplemented keys: ["uniqueItems"]',
    ),
    "one of": (
        lambda: Grammar.json_schema(
            {"x-guidance": {"coerce_one_of": True}, "oneOf": [{"minimum": 1}, {"maximum": 2}]}
        ),
        "oneOf constraints are not supported",
    ),
    "a format": (lambda: Grammar.json_schema({"format": "zork", "type": "string"}), "zork"),
    "nothing": (lambda: Grammar.json_schema({"$ref": "#"}), "no text can be what it describes"),
    "impossible": (lambda: Grammar.json_schema({"minimum": 2, "maximum": 1, "type": "number"}), ""),
    "a regex": (lambda: Grammar.regex("(a"), "regex: cannot be used: "),
    "deep regex": (lambda: Grammar.regex("(" * 30_000 + ")" * 30_000), "regex: cannot be used: "),
    "a number": (lambda: Grammar.regex(5), "regex: is an int"),  # type: ignore[arg-type]
    "no rule": (lambda: Grammar.lark("start: other"), "grammar: cannot be used: "),
    "deep rules": (
        lambda: Grammar.lark("start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
        "too deeply nested",
    ),
    "deep JSON in Lark": (
        lambda: Grammar.lark("start: %json " + '{"items":' * 6000 + "{}" + "}" * 6000),
        "recursion limit exceeded",
    ),
    "elsewhere in Lark": (
        lambda: Grammar.lark('start: %json {"$ref":"http://localhost:9/x"}'),
        "does not fetch",
    ),
    "a control token": (lambda: Grammar.lark("start: <|none|>"), "unknown special token"),
    "no GBNF": (lambda: Grammar.gbnf("root = x"), "is no GBNF: Expected ::="),
    "no root": (lambda: Grammar.gbnf('start ::= "x"'), "No 'root' rule"),
    "deep GBNF": (
        lambda: Grammar.gbnf("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000),
        "grammar: is nested too deeply",
    ),
    "many rules": (
        lambda: Grammar.gbnf("\n".join(f'r{n} ::= "a"' for n in range(501))),
        "has 501 rules, more than 500",
    ),
    "half an escape": (lambda: Grammar.gbnf('root ::= "\\uD800"'), "is no character"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_or_too_much_is_refused_in_one_line(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(UsageError) as caught:
        compiler().compile(make())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


HOSTILE: dict[str, Callable[[], Grammar]] = {
    "repeated": lambda: Grammar.regex("(((a{0,1000}){0,1000}){0,1000}){0,1000}"),
    "many states": lambda: Grammar.regex("(.*a.{200}){50}"),
    "optional": lambda: Grammar.regex("a?" * 30_000),
    "a huge array": lambda: Grammar.json_schema(
        {"type": "array", "minItems": 10**9, "items": {"type": "string", "minLength": 10**9}}
    ),
    "a long enum": lambda: Grammar.json_schema({"enum": [f"value {n}" for n in range(4000)]}),
    "any of any": lambda: Grammar.json_schema(
        {"allOf": [{"anyOf": [{"minLength": n}, {"maxLength": 99 - n}]} for n in range(40)]}
    ),
    "ambiguous": lambda: Grammar.lark('start: start start | "a" start | start "a" | "a" | ""'),
    "references": lambda: Grammar.json_schema(
        {
            "$defs": {
                str(n): {"properties": {"a": {"$ref": f"#/$defs/{n + 1}"}}} for n in range(1100)
            }
            | {"1100": True},
            "$ref": "#/$defs/0",
        }
    ),
    "rules": lambda: Grammar.lark(
        "start: a0\n" + "".join(f"a{n:x}: a{n + 1:x}\n" for n in range(5400)) + f'a{5400:x}: "y"'
    ),
    "terminals": lambda: Grammar.lark(
        "start: A0\n" + "".join(f'A{n}: A{n + 1} "x"\n' for n in range(3000)) + 'A3000: "y"'
    ),
    "alternatives": lambda: Grammar.lark("start: " + "|".join(f'"{n}"' for n in range(8000))),
}

FOLLOW = """
import test_grammar
from lolama_core.protocols.errors import UsageError

def follow(make):
    constraint = test_grammar.compiler().compile(make())
    for step in range(60):
        allowed = constraint.mask().nonzero().flatten().tolist()
        if 1 in allowed:
            return
        constraint.accept(allowed[-1 if step % 2 else 0])
        constraint.forced()

for name, make in test_grammar.HOSTILE.items():
    print(f"{name}: ", end="", flush=True)
    try:
        follow(make)
        print("followed")
    except UsageError as error:
        print(f"refused, {error}")
"""


def test_hostile_grammars_are_followed_or_refused() -> None:
    """In a process of its own, which some of them would end by its stack."""
    run = [sys.executable, "-c", FOLLOW]
    done = subprocess.run(run, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert [*found] == [*HOSTILE]
    assert all(what.startswith(("followed", "refused, ")) for what in found.values()), found


# ------------------------------------------------------------------------------------------- compiling


def test_what_takes_too_long_is_refused_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    make, ended = GrammarCompiler(of_bytes(), {5}, 300), threading.Event()
    compiled = module._compiled

    def slow(grammar: Grammar, vocabulary: Any) -> Any:
        if grammar.source == "slow":
            ended.wait(60)
        return compiled(grammar, vocabulary)

    monkeypatch.setattr(module, "_compiled", slow)
    monkeypatch.setattr(module, "MOST_SECONDS", 0.01)
    with pytest.raises(UsageError, match=r"regex: takes longer than 0\.01 s to compile; make it"):
        make.compile(Grammar.regex("slow"))
    monkeypatch.setattr(module, "MOST_SECONDS", 60)
    assert make.compile(Grammar.regex("fast")).mask() is not None
    ended.set()


def test_what_takes_too_long_takes_no_more_than_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, ended = GrammarCompiler(of_bytes(), {5}, 300), threading.Event()
    monkeypatch.setattr(module, "_compiled", lambda grammar, vocabulary: ended.wait(60))
    monkeypatch.setattr(module, "_threads", threading.BoundedSemaphore(2))
    monkeypatch.setattr(module, "MOST_SECONDS", 0.01)
    for reason in ("longer than", "longer than", "too many grammars are compiled at this moment"):
        with pytest.raises(UsageError, match=reason):
            make.compile(Grammar.regex("slow"))
    ended.set()


def test_a_panic_of_the_library_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def fail(grammar: Grammar, vocabulary: Any) -> Any:
        raise Panic("called `unwrap`\non None")

    monkeypatch.setattr(module, "_compiled", fail)
    with pytest.raises(UsageError, match="regex: cannot be compiled: called `unwrap` on None"):
        GrammarCompiler(of_bytes(), {5}, 300).compile(Grammar.regex("a"))


def test_a_grammar_is_compiled_once_and_each_text_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, calls = GrammarCompiler(of_bytes(), {5}, 300), []
    compiled = module._compiled

    def counting(grammar: Grammar, vocabulary: Any) -> Any:
        calls.append(grammar.source)
        return compiled(grammar, vocabulary)

    monkeypatch.setattr(module, "_compiled", counting)
    one, other = (make.compile(Grammar.regex("[a-c]{3}")) for _ in range(2))
    before = other.mask()
    assert before is not None
    for token in before.nonzero().flatten().tolist()[:1]:
        one.accept(token)
    one.accept(one.mask().nonzero().flatten().tolist()[0])  # type: ignore[union-attr]
    assert (other.mask() == before).all()  # type: ignore[union-attr]
    one.rollback(2)
    assert (one.mask() == before).all()  # type: ignore[union-attr]
    for number in range(16):
        make.compile(Grammar.regex(f"{number}"))
    make.compile(Grammar.regex("[a-c]{3}"))
    assert calls == ["[a-c]{3}", *map(str, range(16)), "[a-c]{3}"]


def test_threads_may_share_a_compiler() -> None:
    write = speller("bytes")
    texts = {f"value {number % 5} {number}": number for number in range(60)}

    def accepted(text: str) -> bool:
        pattern = Grammar.regex(f"value {texts[text] % 5} [0-9]+")
        return write.accepts(pattern, text) and not write.accepts(pattern, text[:-1] + "x")

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(accepted, texts))


def test_a_token_that_is_not_allowed_is_an_error_and_the_text_does_not_end() -> None:
    """llguidance itself allows the end after an error."""
    write = speller("bytes")
    constraint = write.compiler.compile(Grammar.regex("abc"))
    [wrong] = write.tokenizer.encode_ids("q", add_special_tokens=False)
    with pytest.raises(UsageError, match="regex: cannot be used: "):
        constraint.accept(wrong)
    for method in (constraint.mask, constraint.forced):
        with pytest.raises(UsageError, match="regex: cannot be used: "):
            method()


def test_a_model_whose_texts_have_no_end_has_no_grammars() -> None:
    with pytest.raises(UsageError, match="the model: has no token that ends a text"):
        GrammarCompiler(of_bytes(), [], 300)
    with pytest.raises(UsageError, match="the model: has no token that ends a text"):
        GrammarCompiler(of_bytes(), [5000], 300)


def test_a_grammar_is_compared_by_what_it_says() -> None:
    one, other = (Grammar.json_schema({"type": kind}) for kind in ("string", "string"))
    assert one == other and hash(one) == hash(other)
    assert one.source == json.dumps({"type": "string"})
    with pytest.raises(UsageError, match="grammar: 'a' is no Grammar"):
        compiler().compile("a")  # type: ignore[arg-type]
