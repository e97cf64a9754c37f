"""Tokens that are tried ahead: when, how many, and that texts are what they are without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import (
    Engine,
    Generation,
    Llama,
    PrefixCache,
    RopeScaling,
    TextGenerator,
    Tokenizer,
)
from lolama_core.generation import speculation as speculations
from lolama_core.generation.pass_costs import PassCosts
from lolama_core.generation.request import Request
from lolama_core.generation.schedule import Schedule
from lolama_core.generation.scheduled import Draft, Scheduled
from lolama_core.generation.speculation import MOST_DRAFTED, Drafting, Speculation
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import GenerationDefaults
from lolama_core.runtime.kernels import Kernels, set_kernels
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.testing.drafts import EagerSpeculation
from lolama_core.testing.engine import check_logprobs

MakeLlama = Callable[..., Llama]
POSITION = 2 * 2 * 2 * 8 * 4
"""Bytes of a position: keys and values, 2 layers, 2 heads, 8 wide, float32."""


class Guesses:
    """A drafter of what a test says: of each text the tokens behind those that it has."""

    read = 0

    def __init__(self, text: Sequence[int], count: int = MOST_DRAFTED) -> None:
        self.text, self.count, self.most = text, count, list[list[int]]()

    def start(self, runner: CausalLM) -> None:
        """There is nothing to look at."""

    def draft(
        self,
        rows: Sequence[Scheduled],
        most: Sequence[int],
        worth: Callable[[int], int],
        may_read: int,
    ) -> list[Draft]:
        """See `Drafter.draft`."""
        self.most.append([*most])
        worth(0)
        drafts = []
        for one, limit in zip(rows, most, strict=True):
            begin = len(one.request.tokens)
            drafts.append(Draft(self.text[begin : begin + min(limit, self.count)], 0))
        return drafts


def guessing(text: Sequence[int], count: int = MOST_DRAFTED) -> tuple[Speculation, Guesses]:
    speculation, guesses = EagerSpeculation("lookup"), Guesses(text, count)
    speculation._drafter = guesses
    return speculation, guesses


def finish(engine: Engine[Any]) -> dict[int, Any]:
    results: dict[int, Any] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    return results | engine.collect()


# ------------------------------------------------------------------------------- how many are worth it


def rated(right: int, tried: int) -> speculations._Rate:
    """What is known once many drafts had ``right`` guesses of ``tried``."""
    rate = speculations._Rate()
    for _ in range(200):
        rate.note(right, tried)
    return rate


@pytest.mark.parametrize("cost", [0.0, 0.05, 0.2, 0.5, 0.9])
def test_a_token_is_tried_if_it_saves_more_than_it_costs(cost: float) -> None:
    """The n-th token of a draft is right if all before it are, too."""
    for right in range(1, 10):
        rate, worth = right / 10, rated(right, 10).worth(cost)
        assert cost == 0 or rate**worth >= cost - 1e-9 or worth == 0
        assert rate ** (worth + 1) <= cost + 1e-9
    assert rated(8, 8).worth(cost) >= MOST_DRAFTED


@pytest.mark.parametrize("cost", [1.0, 1.5, 100.0])
def test_a_token_that_costs_a_step_is_never_worth_it(cost: float) -> None:
    assert rated(8, 8).worth(cost) == 0


def test_what_is_not_worth_it_is_tried_again_now_and_then() -> None:
    rate = rated(0, 1)
    tried = [rate.worth(0.2) for _ in range(3 * speculations._TRY_AGAIN)]
    expected = [*range(64, 72), *range(128, 136), 192]
    assert [place for place, count in enumerate(tried, 1) if count] == expected
    assert set(tried) == {0, 1}
    for _ in range(20):
        rate.note(1, 1)  # the text has changed
    assert rate.worth(0.2) > 1


def test_tokens_of_unknown_cost_are_few() -> None:
    class Known(PassCosts):
        def draft_token(self, rows: int) -> float | None:
            return cost

    cost: float | None = None
    speculation = Speculation("lookup", Known())
    speculation._measures = True
    assert speculation._worth(1, 0) == speculations._UNMEASURED
    cost = 3.0
    assert speculation._worth(1, 0) == 0
    cost = 0.0
    assert speculation._worth(1, 0) == MOST_DRAFTED


def test_kinds_are_rated_apart() -> None:
    speculation = Speculation("lookup", PassCosts())
    speculation._worth(1, 3)
    for _ in range(50):
        speculation._rates[3].note(0, 1)
    assert speculation._worth(1, 3) == 0
    assert speculation._worth(1, 8) > 0


# ------------------------------------------------------------------------------------ what is chosen


def test_drafts_that_are_right_save_steps(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    expected = TextGenerator(model, draft="off").generate([1, 2], seed=1, ignore_eos=True)
    assert len(expected.ids) == 62
    speculation, guesses = guessing(expected.ids)
    engine = Engine(model, draft=speculation)
    ticket = engine.submit([1, 2], seed=1, ignore_eos=True)
    lengths = []
    while engine.busy:
        lengths.append(len(engine.step()))
    # The prompt, a step to measure, and passes of a token and its draft; the last token needs none.
    assert lengths == [1, 1, 9, 9, 9, 9, 9, 9, 6]
    assert guesses.most == [[8]] * 6 + [[5]]
    result = engine.collect()[ticket]
    assert result == expected
    assert (result.drafted_tokens, result.accepted_tokens) == (53, 53)


@pytest.mark.parametrize("right", range(4))
def test_a_draft_is_right_up_to_its_first_wrong_token(right: int, tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    expected = TextGenerator(model, draft="off").generate([1, 2], seed=1, max_new_tokens=10)
    text = [*expected.ids]
    wrong = [(token + 1) % 400 if place == 2 + right else token for place, token in enumerate(text)]
    speculation, _ = guessing(wrong, count=4)
    engine = Engine(model, draft=speculation)
    ticket = engine.submit([1, 2], seed=1, max_new_tokens=10)
    assert [len(engine.step()) for _ in range(3)] == [1, 1, right + 1]
    [one] = engine._schedule.running
    assert one.row.length == one.length - 1
    assert (one.request.drafted_tokens, one.request.accepted_tokens) == (4, right)
    assert finish(engine)[ticket] == expected


def test_processors_are_called_once_for_each_token_in_order(tiny_llama: MakeLlama) -> None:
    """Neither guesses of a model nor what is tried ahead tells them anything."""
    model = tiny_llama()
    seen: list[list[int]] = []

    def record(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(input_ids[0].tolist())
        return scores.roll(len(seen) % 3, dims=-1)

    def generate(draft: Any) -> Any:
        seen.clear()
        engine = Engine(model, draft=draft)
        ticket = engine.submit([1, 2], seed=1, ignore_eos=True, logits_processors=[record])
        result = finish(engine)[ticket]
        assert seen == [[1, 2, *result.ids[:place]] for place in range(62)]
        return result

    expected = generate("off")
    speculation, _ = guessing([*expected.ids[:20], 5, *expected.ids[21:]])
    for draft in (speculation, EagerSpeculation("lookup"), EagerSpeculation(model)):
        result = generate(draft)
        assert result == expected
        assert result.drafted_tokens > 0 or draft._drafter.__class__.__name__ == "PromptLookup"


@pytest.mark.parametrize("place", range(2, 9))
def test_a_text_ends_within_a_draft(
    place: int, tiny_llama: MakeLlama, byte_level: Tokenizer
) -> None:
    """By an end token, by a stop text, or by its length; nothing that follows is given out."""
    model = tiny_llama(vocab_size=byte_level.vocab_size)
    free = TextGenerator(model, draft="off").generate([1, 2], seed=1, max_new_tokens=20)
    text = [*free.ids]
    assert len(text) == 20 and len({*text[:9]}) == 9
    model.generation_defaults = GenerationDefaults(eos_ids=frozenset({text[place]}))
    stop = byte_level.decode(text[place : place + 2])
    cases: list[dict[str, Any]] = [
        {},
        {"ignore_eos": True, "stop": (stop,)},
        {"ignore_eos": True, "max_new_tokens": place + 1},
        {"min_new_tokens": place + 1},
        {"logprobs": 2},
    ]
    for case in cases:
        settings: Any = {"seed": 1, "max_new_tokens": 20, **case}
        expected = TextGenerator(model, byte_level, draft="off").generate([1, 2], **settings)
        speculation, _ = guessing(text)
        engine = Engine(model, byte_level, draft=speculation)
        ticket = engine.submit([1, 2], **settings)
        emissions = []
        while engine.busy:
            emissions += [emission for _, emission in engine.step()]
        result = engine.collect()[ticket]
        assert isinstance(result, Generation)
        assert replace(result, logprobs=expected.logprobs) == expected
        check_logprobs(result.logprobs, expected.logprobs)
        assert "".join(each.text for each in emissions) == expected.text
        assert [each.finish_reason for each in emissions[:-1]] == [None] * (len(emissions) - 1)
        assert emissions[-1].finish_reason == expected.finish_reason
        assert engine.used_cache_bytes == 0


def test_an_error_within_a_draft_ends_its_own_text(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    expected = TextGenerator(model, draft="off").generate([1, 2], seed=1, max_new_tokens=20)

    def fail(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores * float("nan") if input_ids.shape[1] == 7 else scores

    speculation, _ = guessing(expected.ids)
    engine = Engine(model, draft=speculation)
    broken = engine.submit([1, 2], seed=1, max_new_tokens=20, logits_processors=[fail])
    other = engine.submit([1, 2], seed=1, max_new_tokens=20)
    given = 0
    results: dict[int, Any] = {}
    while engine.busy:
        given += sum(ticket == broken for ticket, _ in engine.step())
        results |= engine.collect()
    assert isinstance(results[broken], ModelError)
    assert results[other] == expected
    assert given == 5  # what was chosen before it
    assert engine.used_cache_bytes == 0


# ------------------------------------------------------------------------------------ where it is off


def tried(engine: Engine[Any], steps: int) -> list[int]:
    """How many rows have a draft in each step."""
    found: list[int] = []
    chosen = Speculation.chosen

    def count(self: Speculation, one: Scheduled, *others: Any) -> Iterator[Any]:
        found[-1] += bool(one.draft.tokens)
        return chosen(self, one, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Speculation, "chosen", count)
        for _ in range(steps):
            found.append(0)
            engine.step()
    return found


def test_nothing_is_tried_beside_prompts(tiny_llama: MakeLlama) -> None:
    speculation, _ = guessing([7] * 99)
    engine = Engine(tiny_llama(max_seq_len=300), prefill_chunk=8, draft=speculation)
    engine.submit([1, 2], max_new_tokens=200, ignore_eos=True)
    assert tried(engine, 4) == [0, 0, 1, 1]
    engine.submit([3] * 32, max_new_tokens=200, ignore_eos=True)
    assert tried(engine, 7) == [0, 0, 0, 0, 0, 2, 2]


def test_row_302_prompts_run_beside_rows_that_try_tokens_ahead(tiny_llama: MakeLlama) -> None:
    """Their chunks wait for a step without drafts, which tells how many positions cost as much."""
    model = tiny_llama(max_seq_len=300)
    set_kernels(model, Kernels())
    speculation, _ = guessing([399] * 300)
    engine = Engine(model, draft=speculation)
    first = engine.submit([1, 2], max_new_tokens=250, ignore_eos=True, temperature=0)
    for _ in range(40):
        engine.step()
    second = engine.submit([3] * 40, max_new_tokens=1, ignore_eos=True)
    ended = []
    while engine.busy:
        engine.step()
        ended += [*engine.collect()]
    assert ended == [second, first]


def test_nothing_is_tried_under_dynamic_rope(tiny_llama: MakeLlama) -> None:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=40)
    speculation, _ = guessing([7] * 99)
    engine = Engine(tiny_llama(rope_scaling=scaling), draft=speculation)
    engine.submit([1, 2], ignore_eos=True)
    assert tried(engine, 10) == [0] * 10


def test_by_itself_it_is_off_where_texts_may_change(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    set_kernels(model, Kernels())
    drafts: list[tuple[Drafting, int]] = [("auto", 0), ("off", 0), ("lookup", 1)]
    for drafting, expected in drafts:
        engine = Engine(model, draft=drafting)
        engine.submit([7] * 9, max_new_tokens=9, ignore_eos=True, logit_bias={7: 99.0})
        assert sum(tried(engine, 9)) >= expected
        assert bool(sum(tried(engine, 9))) <= expected


@pytest.mark.parametrize("draft", ["on", None, 3, torch.nn.Linear(1, 1)])
def test_what_makes_no_drafts_is_refused(draft: Any, tiny_llama: MakeLlama) -> None:
    for make in (Engine, TextGenerator):
        with pytest.raises(UsageError, match="makes no drafts"):
            make(tiny_llama(), draft=draft)


def test_row_303_no_row_is_put_back_for_a_draft(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows fill the memory to the last position; drafts that are wrong would need a page more."""
    model = tiny_llama(max_seq_len=200)
    put_back = 0

    def count(self: Schedule, one: Scheduled, runner: CausalLM) -> None:
        nonlocal put_back
        put_back += one.begun
        original(self, one, runner)

    original = Schedule.put_back
    monkeypatch.setattr(Schedule, "put_back", count)
    speculation, guesses = guessing([399] * 99)
    engine = Engine(model, cache_bytes=2 * PAGE * POSITION, draft=speculation)
    tickets = [
        engine.submit([place] * (PAGE - 12), max_new_tokens=13, ignore_eos=True, seed=1)
        for place in range(2)
    ]
    alone = TextGenerator(model, draft="off")
    results = finish(engine)
    for place, ticket in enumerate(tickets):
        expected = alone.generate([place] * (PAGE - 12), max_new_tokens=13, ignore_eos=True, seed=1)
        assert results[ticket] == expected
    assert guesses.most
    assert put_back == 0


# --------------------------------------------------------------------------------- what is broken off


def test_row_301_what_ctrl_c_leaves_of_a_draft_is_kept_for_nobody(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token was chosen, and its row still holds another one that was guessed in its place."""
    model, prompt = tiny_llama(), [*range(20, 40)]
    prefixes = PrefixCache(1 << 20)
    speculation, _ = guessing([399] * 99, count=1)
    engine = Engine(model, memory_of=prefixes.memory_of, draft=speculation)
    ticket = engine.submit(prompt, temperature=0, ignore_eos=True)
    engine.step()
    [one] = engine._schedule.requests.values()
    cut_back = RowMemory.cut_back

    def stop(self: RowMemory, row: Any, count: int) -> None:
        monkeypatch.setattr(RowMemory, "cut_back", cut_back)
        raise KeyboardInterrupt

    monkeypatch.setattr(RowMemory, "cut_back", stop)
    with pytest.raises(KeyboardInterrupt):
        finish(engine)
    engine.cancel(ticket)
    follows = [*prompt, *one.request.tokens, 7]
    expected = TextGenerator(model, draft="off").generate(follows, temperature=0, logprobs=0)
    found = TextGenerator(model, prefix_cache=prefixes, draft="off").generate(
        follows, temperature=0, logprobs=0
    )
    assert found.ids == expected.ids
    assert found.logprobs is not None and expected.logprobs is not None
    for one_token, other in zip(found.logprobs, expected.logprobs, strict=True):
        assert one_token.logprob == pytest.approx(other.logprob, abs=1e-5)
    assert found.cached_tokens >= len(prompt)


@pytest.mark.parametrize("right", [0, 1, 5, 99])
def test_row_490_ctrl_c_between_tokens_of_a_draft_loses_none_that_was_given_out(
    right: int, tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row holds the whole draft, of which a part is given out."""
    model, prompt = tiny_llama(), [*range(20, 40)]
    alone = TextGenerator(model, draft="off")
    text = alone.generate(prompt, temperature=0, max_new_tokens=30, ignore_eos=True).ids
    step = Request.step
    for last in range(1, 20):

        def stop(self: Request, logits: Tensor, last: int = last) -> Any:
            if len(self.tokens) == last:
                raise KeyboardInterrupt
            return step(self, logits)

        prefixes = PrefixCache(1 << 20)
        speculation, _ = guessing([*text[:right], *[399] * 99])
        engine = Engine(model, memory_of=prefixes.memory_of, draft=speculation)
        ticket = engine.submit(prompt, temperature=0, ignore_eos=True)
        with monkeypatch.context() as patched:
            patched.setattr(Request, "step", stop)
            with pytest.raises(KeyboardInterrupt):
                finish(engine)
        engine.cancel(ticket)
        again = TextGenerator(model, prefix_cache=prefixes, draft="off")
        # The last token that was given out may not have run.
        found = again.generate([*prompt, *text[:last]], temperature=0, max_new_tokens=9)
        assert found.cached_tokens == len(prompt) + last - 1
        assert (
            found.ids
            == alone.generate([*prompt, *text[:last]], temperature=0, max_new_tokens=9).ids
        )


def test_row_304_a_stream_that_is_closed_has_no_result(tiny_llama: MakeLlama) -> None:
    """The step that gave its last token may have chosen all that would follow."""
    model = tiny_llama()
    expected = TextGenerator(model, draft="off").generate([1, 2], seed=1, max_new_tokens=9)
    for most in range(1, 10):
        generator = TextGenerator(model)
        generator._speculation, _ = guessing(expected.ids)
        stream = generator.generate_stream([1, 2], seed=1, max_new_tokens=9)
        found = []
        for token in stream:
            found.append(int(token))
            if len(found) == most:
                stream.close()
        assert found == [*expected.ids[:most]]
        assert stream.result == (expected if most == 9 else None)
        assert stream.new_tokens == most


def test_a_guess_leaves_random_numbers_and_history_alone(tiny_llama: MakeLlama) -> None:
    engine: Any = Engine(tiny_llama())
    [(request, _)] = engine.prepare([[1, 2]], [None], (), {"seed": 1, "repetition_penalty": 1.5})
    logits = torch.linspace(0, 1, 400)[None]
    twin: Request
    [(twin, _)] = engine.prepare([[1, 2]], [None], (), {"seed": 1, "repetition_penalty": 1.5})
    before = request.guesser.generator.get_state()
    guessed = request.guess(logits, [])
    request.guess(logits, [guessed, 5, 6])
    request.guesser.generator.set_state(before)
    assert [request.step(logits).token for _ in range(9)] == [
        twin.step(logits).token for _ in range(9)
    ]
