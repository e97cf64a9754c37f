"""A constraint keeps its text within what it allows, and troubles no other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import Generation, GenerationConfig, Llama, TextGenerator, Tokenizer
from lolama_core.generation.engine import Engine
from lolama_core.protocols import Constraint, ForcingConstraint
from lolama_core.protocols.errors import LolamaError, ResourceError, UsageError
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.runner import Runner

MakeLlama = Callable[..., Llama]
GREEDY = GenerationConfig.greedy(max_new_tokens=8)
SEEDED = GenerationConfig.sampling(max_new_tokens=8, seed=3)
VOCABULARY = 400
EVEN = range(0, VOCABULARY, 2)


class Allows:
    """Allows what a function makes of the tokens so far; None for all.

    Attributes:
        accepted: The tokens that it was told.
        masks: The number of tokens so far, at each mask that it was asked for.
    """

    def __init__(
        self, allow: Callable[[list[int]], Iterable[int] | None], size: int = VOCABULARY
    ) -> None:
        self._allow, self._size = allow, size
        self.accepted: list[int] = []
        self.masks: list[int] = []

    def mask(self) -> Tensor | None:
        self.masks.append(len(self.accepted))
        allowed = self._allow(self.accepted)
        if allowed is None:
            return None
        mask = torch.zeros(self._size, dtype=torch.bool)
        mask[list(allowed)] = True
        return mask

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def rollback(self, count: int) -> None:
        del self.accepted[-count:]


def even_then_odd(tokens: list[int]) -> range:
    """Another half of the vocabulary at each place."""
    return range(len(tokens) % 2, VOCABULARY, 2)


def only(
    allow: Callable[[list[int]], Iterable[int]], prompt: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """The same as a processor."""

    def process(input_ids: Tensor, scores: Tensor) -> Tensor:
        kept = torch.full_like(scores, float("-inf"))
        allowed = list(allow(input_ids[0, prompt:].tolist()))
        kept[:, allowed] = scores[:, allowed]
        return kept

    return process


class Forces(Allows):
    """Allows one token at most places, and knows these before.

    Attributes:
        asked: The number of tokens so far, at each time that it was asked what comes next.
    """

    def __init__(self, spans: Callable[[list[int]], Sequence[int]] | None = None) -> None:
        super().__init__(self._allowed)
        self._spans = spans or self._known
        self.asked: list[int] = []

    def _allowed(self, tokens: list[int]) -> range:
        place = len(tokens)
        return EVEN if place % 6 == 5 else range(7 + place % 6, 8 + place % 6)

    def _known(self, tokens: list[int]) -> list[int]:
        place = len(tokens) % 6
        return [7 + after for after in range(place, 5)] if place < 5 else []

    def forced(self) -> Sequence[int]:
        self.asked.append(len(self.accepted))
        return self._spans(self.accepted)


def finished(engine: Engine[None]) -> dict[int, Generation[None] | LolamaError]:
    results: dict[int, Generation[None] | LolamaError] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    return results | engine.collect()


@pytest.mark.parametrize("config", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_a_text_is_kept_within_its_masks(tiny_llama: MakeLlama, config: GenerationConfig) -> None:
    generator, prompt = TextGenerator(tiny_llama()), [5, 6, 7]
    constraint = Allows(even_then_odd)
    ids = generator.generate(prompt, config, constraint=constraint).ids
    assert [token % 2 for token in ids] == [0, 1] * 4
    processors = [only(even_then_odd, len(prompt))]
    assert ids == generator.generate(prompt, config, logits_processors=processors).ids
    assert constraint.accepted == list(ids)
    assert constraint.masks == [*range(8)]
    streamed = generator.generate_stream(prompt, config, constraint=Allows(even_then_odd))
    assert tuple(streamed) == ids


def test_no_mask_allows_all(tiny_llama: MakeLlama) -> None:
    generator, constraint = TextGenerator(tiny_llama()), Allows(lambda tokens: None)
    free = generator.generate([5, 6], GREEDY)
    assert generator.generate([5, 6], GREEDY, constraint=constraint) == free
    assert constraint.accepted == list(free.ids)


def test_each_row_of_an_engine_has_its_own(tiny_llama: MakeLlama) -> None:
    """Some have none, and prompts join while others decode."""
    model = tiny_llama()
    alone = TextGenerator(model)
    made: dict[str, Callable[[], Allows | None]] = {
        "free": lambda: None,
        "even": lambda: Allows(lambda tokens: EVEN),
        "turns": lambda: Allows(even_then_odd),
        "few": lambda: Allows(lambda tokens: range(10)),
    }
    jobs = [
        ([7 * place + 1] * (1 + 9 * place % 40), config, make)
        for place, (config, make) in enumerate(
            (config, make) for config in (GREEDY, SEEDED) for make in made.values()
        )
    ]
    expected = [alone.generate(ids, config, constraint=make()).ids for ids, config, make in jobs]
    assert len(set(expected)) == 8
    engine = Engine(model, rows=3, prefill_chunk=10)
    tickets = [engine.submit(ids, config, constraint=make()) for ids, config, make in jobs]
    results = finished(engine)
    found = [results[ticket] for ticket in tickets]
    assert [one.ids for one in found if isinstance(one, Generation)] == expected


def test_masks_are_made_in_another_thread_while_the_model_runs(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass waits here for the mask, and the mask for the pass."""
    runs, made = threading.Semaphore(0), threading.Semaphore(0)
    threads: set[str] = set()

    def allow(tokens: list[int]) -> range:
        threads.add(threading.current_thread().name)
        assert runs.acquire(timeout=60)
        made.release()
        return EVEN

    forward = Runner.forward_embeds

    def waiting(self: Runner, *arguments: Any, **options: Any) -> Tensor:
        runs.release()
        assert made.acquire(timeout=60)
        return forward(self, *arguments, **options)

    generator = TextGenerator(tiny_llama())
    with monkeypatch.context() as patched:
        patched.setattr(Runner, "forward_embeds", waiting)
        result = generator.generate([5, 6], GREEDY, constraint=Allows(allow))
    assert result == generator.generate([5, 6], GREEDY, constraint=Allows(lambda _: EVEN))
    assert len(threads) == 1 and threading.current_thread().name not in threads


def test_the_mask_of_a_long_prompt_is_made_once(tiny_llama: MakeLlama) -> None:
    engine, constraint = Engine(tiny_llama(), prefill_chunk=8), Allows(lambda tokens: EVEN)
    engine.submit([5] * 40, GREEDY, constraint=constraint)
    finished(engine)
    assert constraint.masks == [*range(8)]


def test_the_end_token_is_told_and_has_to_be_allowed(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()

    def generate(constraint: Allows, end: int) -> Generation[None]:
        model.generation_defaults = replace(model.generation_defaults, eos_ids=frozenset({end}))
        return TextGenerator(model).generate([5], GREEDY, constraint=constraint)

    ends = Allows(lambda tokens: EVEN if len(tokens) < 3 else [7])
    result = generate(ends, 7)
    assert result.finish_reason == "eos" and len(result.ids) == 3
    assert ends.accepted == [*result.ids, 7]
    first = result.ids[0]
    at_once = generate(Allows(lambda _: EVEN), first)
    assert (at_once.ids, at_once.finish_reason) == ((), "eos")
    kept = generate(Allows(lambda _: [token for token in EVEN if token != first]), first)
    assert len(kept.ids) == 8 and first not in kept.ids


@pytest.mark.parametrize("size", [1, 30, 399, 400, 401, 1000])
def test_masks_of_any_length(tiny_llama: MakeLlama, size: int) -> None:
    """Ids past the end of a mask are not allowed, and what is past the vocabulary is nobody's."""
    constraint = Allows(lambda tokens: range(size), size)
    generator = TextGenerator(tiny_llama())
    ids = generator.generate([5], SEEDED, temperature=9.0, constraint=constraint).ids
    assert len(ids) == 8 and max(ids) < size
    if size >= VOCABULARY:
        assert ids == generator.generate([5], SEEDED, temperature=9.0).ids


def test_neither_processors_nor_settings_allow_a_token_again(tiny_llama: MakeLlama) -> None:
    def insist(input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, 3] = 1e6
        return scores

    settings: dict[str, Any] = {"logit_bias": {5: 1e6}, "repetition_penalty": 0.01}
    constraint = Allows(lambda tokens: EVEN)
    result = TextGenerator(tiny_llama()).generate(
        [3, 5, 9], SEEDED, logits_processors=[insist], constraint=constraint, **settings
    )
    assert len(result.ids) == 8 and all(token % 2 == 0 for token in result.ids)


def test_log_probabilities_are_those_without_a_constraint(tiny_llama: MakeLlama) -> None:
    generator, prompt = TextGenerator(tiny_llama()), [5, 6]
    constraint = Allows(lambda tokens: EVEN)
    result = generator.generate(prompt, GREEDY, constraint=constraint, logprobs=2)
    assert result.logprobs is not None
    values = torch.tensor([token.logprob for token in result.logprobs])
    scores = generator.score([*prompt, *result.ids])[1:]
    torch.testing.assert_close(values, scores, atol=1e-5, rtol=1e-5)
    assert any(token % 2 for one in result.logprobs for token, _ in one.best)


# ------------------------------------------------------------------------------------------ broken ones


class Broken(Allows):
    """Fails at its third token."""

    def __init__(self, mask: Callable[[], Any] | None = None, accepts: bool = True) -> None:
        super().__init__(lambda tokens: EVEN)
        self._broken, self._accepts = mask, accepts

    def mask(self) -> Tensor | None:
        if self._broken is not None and len(self.accepted) == 2:
            found: Tensor | None = self._broken()
            return found
        return super().mask()

    def accept(self, token: int) -> None:
        if not self._accepts and len(self.accepted) == 2:
            raise KeyError("no such state")
        super().accept(token)


def fail(error: Exception) -> Callable[[], Any]:
    def mask() -> Tensor:
        raise error

    return mask


BROKEN: dict[str, tuple[Callable[[], Broken], str]] = {
    "raises": (
        lambda: Broken(fail(ValueError("bad grammar"))),
        "constraint: failed: ValueError: bad grammar; correct the constraint, or generate without it",
    ),
    "raises our own": (
        lambda: Broken(fail(UsageError("grammar", "has no rule x", "add it"))),
        "grammar: has no rule x; add it",
    ),
    "raises in accept": (
        lambda: Broken(accepts=False),
        "constraint: failed: KeyError: 'no such state'; correct the constraint, or generate without it",
    ),
    "floats": (
        lambda: Broken(lambda: torch.ones(VOCABULARY)),
        "constraint: gave a mask of (400,) float32; return a (V,) bool tensor",
    ),
    "two dimensions": (
        lambda: Broken(lambda: torch.ones(1, VOCABULARY, dtype=torch.bool)),
        "constraint: gave a mask of (1, 400) bool; return a (V,) bool tensor",
    ),
    "a list": (
        lambda: Broken(lambda: [True] * VOCABULARY),
        "constraint: gave a mask of list; return a (V,) bool tensor",
    ),
    "nothing": (
        lambda: Broken(lambda: torch.zeros(VOCABULARY, dtype=torch.bool)),
        "constraint: allows no token; correct the constraint, or generate without it",
    ),
    "an empty mask": (
        lambda: Broken(lambda: torch.zeros(0, dtype=torch.bool)),
        "constraint: allows no token; correct the constraint, or generate without it",
    ),
    "only ids that there are not": (
        lambda: Broken(lambda: torch.arange(VOCABULARY + 5) >= VOCABULARY),
        "constraint: allows no token; correct the constraint, or generate without it",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_constraint_ends_its_own_text_alone(tiny_llama: MakeLlama, name: str) -> None:
    """With one clear line. Others go on, and keep the texts that they have alone."""
    make, message = BROKEN[name]
    model = tiny_llama()
    with pytest.raises(UsageError) as caught:
        TextGenerator(model).generate([5], GREEDY, constraint=make())
    assert str(caught.value) == message
    engine = Engine(model, rows=3)
    ticket = engine.submit([5], GREEDY, constraint=make())
    others = [
        engine.submit([6], GREEDY),
        engine.submit([7], GREEDY, constraint=Allows(lambda _: EVEN)),
        engine.submit([8], GREEDY),
    ]
    given: dict[int, list[int]] = {ticket: []}
    while engine.busy:
        for one, emission in engine.step():
            given.setdefault(one, []).extend(emission.ids)
    results = engine.collect()
    assert str(results[ticket]) == message
    assert len(given[ticket]) == 2
    alone = TextGenerator(model)
    assert [results[one] for one in others] == [
        alone.generate([6], GREEDY),
        alone.generate([7], GREEDY, constraint=Allows(lambda _: EVEN)),
        alone.generate([8], GREEDY),
    ]
    assert engine.used_cache_bytes == 0


def test_an_error_of_several_lines_is_told_in_one(tiny_llama: MakeLlama) -> None:
    constraint = Broken(fail(ValueError("line 3:\n  x ::= \n      ^\nexpected a rule")))
    with pytest.raises(UsageError) as caught:
        TextGenerator(tiny_llama()).generate([5], GREEDY, constraint=constraint)
    assert "\n" not in str(caught.value)
    assert "ValueError: line 3:" in str(caught.value) and "expected a rule" in str(caught.value)


def test_what_settings_forbid_of_all_that_is_allowed(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    engine = Engine(model)
    bad = engine.submit([5], GREEDY, constraint=Allows(lambda _: [8]), suppress_tokens=[8])
    good = engine.submit([6], GREEDY)
    results = finished(engine)
    assert isinstance(results[bad], UsageError)
    assert "leave no token to choose at step 0" in str(results[bad])
    assert results[good] == TextGenerator(model).generate([6], GREEDY)


def test_what_is_no_constraint_is_refused(tiny_llama: MakeLlama) -> None:
    wrong: Any = lambda: None  # noqa: E731
    with pytest.raises(UsageError, match="has no mask, accept and rollback"):
        TextGenerator(tiny_llama()).generate([5], GREEDY, constraint=wrong)
    assert isinstance(Allows(lambda _: EVEN), Constraint)


def test_one_constraint_is_for_one_text(tiny_llama: MakeLlama) -> None:
    engine, constraint = Engine(tiny_llama()), Allows(lambda _: EVEN)
    with pytest.raises(UsageError, match="constraint: is for one text, and 2 are asked for"):
        engine.prepare([[5], [6]], [GREEDY, GREEDY], constraint=constraint)
    with pytest.raises(UsageError, match="constraint: is for one text, and 3 are asked for"):
        engine.prepare([[5]], [GREEDY], n=3, constraint=constraint)


# -------------------------------------------------------------------------------- what comes in between


def test_rows_that_are_put_back_keep_theirs(tiny_llama: MakeLlama) -> None:
    """Each mask is made once, and each token told once, however often its row begins anew."""
    model = tiny_llama(max_seq_len=256)
    page = PAGE * model.make_cache(1, 1).nbytes
    config = GenerationConfig.sampling(max_new_tokens=70, seed=1)
    prompts = [[place + 1] * length for place, length in enumerate((5, 31, 20, 40))]
    alone = TextGenerator(model)
    expected = [
        alone.generate(ids, config, constraint=Allows(even_then_odd)).ids for ids in prompts
    ]
    engine = Engine(model, rows=4, cache_bytes=6 * page)
    constraints = [Allows(even_then_odd) for _ in prompts]
    tickets = [
        engine.submit(ids, config, constraint=one)
        for ids, one in zip(prompts, constraints, strict=True)
    ]
    results: dict[int, Generation[None] | LolamaError] = {}
    fewer, running = 0, 0
    while engine.busy:
        engine.step()
        results |= engine.collect()
        now = len(engine._schedule.begun) + len(results)
        fewer += now < running
        running = now
    assert fewer  # some were put back
    found = [results[ticket] for ticket in tickets]
    assert [one.ids for one in found if isinstance(one, Generation)] == expected
    for one, ids in zip(constraints, expected, strict=True):
        assert one.accepted == list(ids)
        assert one.masks == [*range(70)]


def test_a_step_that_fails_asks_and_tells_nothing_twice(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, constraint = tiny_llama(), Allows(even_then_odd)
    engine = Engine(model)
    ticket = engine.submit([5], GREEDY, constraint=constraint)
    engine.step()
    engine.step()

    def full(*arguments: Any, **options: Any) -> Tensor:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "forward_embeds", full)
        with pytest.raises(ResourceError):
            engine.step()
    result = finished(engine)[ticket]
    assert result == TextGenerator(model).generate([5], GREEDY, constraint=Allows(even_then_odd))
    assert constraint.masks == [*range(8)]


def test_a_request_that_is_canceled_asks_no_more(tiny_llama: MakeLlama) -> None:
    engine, constraint = Engine(tiny_llama()), Allows(lambda _: EVEN)
    ticket = engine.submit([5], GREEDY, constraint=constraint)
    engine.step()
    engine.cancel(ticket)
    assert finished(engine) == {}
    assert (len(constraint.accepted), constraint.masks) == (1, [0])


def test_a_text_is_one_of_the_grammars(tiny_llama: MakeLlama, byte_level: Tokenizer) -> None:
    """Characters, one after another, of "yes" or "no", and the end."""
    model = tiny_llama(vocab_size=byte_level.vocab_size)
    [end, *_] = byte_level.eos_ids
    spelled = {
        text: [byte_level.encode(c, add_special_tokens=False)[0] for c in text]
        for text in ("yes", "no", "never")
    }

    def allow(tokens: list[int]) -> list[int]:
        begun = [ids for ids in spelled.values() if ids[: len(tokens)] == tokens]
        return [([*ids, end])[len(tokens)] for ids in begun]

    said = set()
    for seed in range(12):
        constraint = Allows(allow, byte_level.vocab_size)
        result = TextGenerator(model, byte_level).generate(
            "hello", constraint=constraint, temperature=5.0, seed=seed, max_new_tokens=20
        )
        assert result.finish_reason == "eos"
        said.add(result.text)
    assert said == {"yes", "no", "never"}


# ------------------------------------------------------------------------------------ forced tokens


def counted_passes(
    model: Llama, constraint: Constraint, patch: pytest.MonkeyPatch, **settings: Any
) -> tuple[Generation[None], int]:
    """What comes of it, and how many passes that took."""
    passes: list[int] = []
    forward = Runner.forward_embeds

    def counting(self: Runner, embeds: Tensor, *arguments: Any, **options: Any) -> Tensor:
        passes.append(embeds.shape[1])
        return forward(self, embeds, *arguments, **options)

    with patch.context() as patched:
        patched.setattr(Runner, "forward_embeds", counting)
        result = TextGenerator(model, draft="off").generate([5], constraint=constraint, **settings)
    return result, len(passes)


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "drawn": {"temperature": 1.0, "top_k": 0, "top_p": 1.0},
    "penalties": {"repetition_penalty": 1.5, "frequency_penalty": 1.0, "temperature": 0.8},
    "logprobs": {"temperature": 1.0, "logprobs": 3},
    "never ends early": {"min_new_tokens": 20, "temperature": 1.0},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_forced_tokens_run_in_one_pass_and_change_no_text(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = tiny_llama()
    settings = {"max_new_tokens": 30, "seed": 5, **SETTINGS[name]}
    knowing = Forces()
    plain, one_by_one = counted_passes(model, Allows(Forces()._allowed), monkeypatch, **settings)
    result, passes = counted_passes(model, knowing, monkeypatch, **settings)
    assert result.ids == plain.ids and len(result.ids) == 30
    assert result.text is None and result.finish_reason == plain.finish_reason
    assert (result.drafted_tokens, result.accepted_tokens) == (0, 0)  # nothing was guessed
    if name == "logprobs":
        assert result.logprobs is not None and plain.logprobs is not None
        for one, other in zip(result.logprobs, plain.logprobs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    # The prompt's pass, and one for each free token with those that it was chosen behind: the logits of the
    # last of these choose it.
    assert one_by_one == 30
    assert passes == 1 + 5


def test_forced_tokens_beside_rows_that_are_free(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    alone = TextGenerator(model, draft="off")
    config = GenerationConfig.sampling(max_new_tokens=40, seed=3)
    makers: list[Callable[[], Allows | None]] = [
        Forces,
        lambda: None,
        lambda: Allows(even_then_odd),
        Forces,
    ]
    expected = [
        alone.generate([row + 1] * 9, config, constraint=make()).ids
        for row, make in enumerate(makers)
    ]
    for draft in ("off", "lookup"):
        engine = Engine(model, draft=draft)
        tickets = [
            engine.submit([row + 1] * 9, config, constraint=make())
            for row, make in enumerate(makers)
        ]
        results = finished(engine)
        found = [results[ticket] for ticket in tickets]
        assert [one.ids for one in found if isinstance(one, Generation)] == expected


def test_tokens_that_are_wrongly_forced_change_no_text(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama()
    settings = {"max_new_tokens": 30, "seed": 5}
    plain, one_by_one = counted_passes(model, Allows(Forces()._allowed), monkeypatch, **settings)
    for wrong in (lambda tokens: [3] * 9, lambda tokens: [*range(7, 16)]):
        result, passes = counted_passes(model, Forces(wrong), monkeypatch, **settings)
        assert result.ids == plain.ids
        assert passes <= one_by_one


def test_forced_tokens_end_where_the_text_does(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its limit, and by an end token among them."""
    model = tiny_llama()
    short, _ = counted_passes(model, Forces(), monkeypatch, max_new_tokens=4)
    assert (short.ids, short.finish_reason) == ((7, 8, 9, 10), "length")
    model.generation_defaults = replace(model.generation_defaults, eos_ids=frozenset({10}))
    ended, _ = counted_passes(model, Forces(), monkeypatch, max_new_tokens=30)
    assert (ended.ids, ended.finish_reason) == ((7, 8, 9), "eos")


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (fail(KeyError("no such rule")), "constraint: failed: KeyError: 'no such rule'"),
        (
            lambda: [1, VOCABULARY],
            "constraint: forces 400, which is no token; return ids below 400",
        ),
        (lambda: ["a"], "constraint: forces 'a', which is no token; return ids below 400"),
        (lambda: None, "constraint: failed: TypeError: "),
    ],
)
def test_forcing_that_fails_ends_its_own_text_alone(
    tiny_llama: MakeLlama, spans: Callable[[], Any], message: str
) -> None:
    model = tiny_llama()
    engine = Engine(model, draft="off")
    bad = engine.submit([5], GREEDY, constraint=Forces(lambda tokens: spans()))
    good = [engine.submit([6], GREEDY), engine.submit([7], GREEDY, constraint=Forces())]
    results = finished(engine)
    assert isinstance(results[bad], UsageError) and message in str(results[bad])
    alone = TextGenerator(model)
    assert results[good[0]] == alone.generate([6], GREEDY)
    assert results[good[1]] == alone.generate([7], GREEDY, constraint=Forces())


def test_what_forces_is_a_constraint() -> None:
    assert isinstance(Forces(), ForcingConstraint) and isinstance(Forces(), Constraint)
    assert not isinstance(Allows(lambda _: EVEN), ForcingConstraint)


FORKED = """
import os, signal
import torch
from lolama_core.generation.constrained import Constrained

class Second:
    def mask(self):
        return torch.arange(3) == 1

def masked():
    constrained = Constrained(Second())
    constrained.prepare()
    return constrained(torch.zeros(1, 1), torch.zeros(1, 3)).tolist()

expected = masked()
child = os.fork()
if not child:
    signal.alarm(60)  # rather than to wait for ever
    os._exit(0 if masked() == expected else 1)
print(os.waitpid(child, 0)[1], expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no forks")
def test_masks_are_made_in_a_process_that_was_forked() -> None:
    """As servers are: the thread that made masks stays behind."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "0 [[-inf, 0.0, -inf]]\n"
