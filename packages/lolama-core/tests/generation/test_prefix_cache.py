from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import (
    Generation,
    GenerationConfig,
    Llama,
    PrefixCache,
    RopeScaling,
    TextGenerator,
    Tokenizer,
    load,
)
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import ModelError, ResourceError, UsageError
from lolama_core.protocols.types import Prompt, PromptKey
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.pages import PAGE, NoPages, Pages
from lolama_core.runtime.runner import Runner, runner_of

MakeLlama = Callable[..., Llama]
MAX_BYTES = 1 << 20
POSITION = 2 * 2 * 2 * 8 * 4
"""Bytes of a position of `tiny_llama`: keys and values, 2 layers, 2 heads, 8 wide, float32."""

PAGE_BYTES = PAGE * POSITION
"""Bytes of what is kept, and dropped, as a whole."""

TEXT = torch.randint(0, 400, (160,), generator=torch.Generator().manual_seed(4)).tolist()
OTHER = [399 - token for token in TEXT]
"""It differs from `TEXT` at each position."""

GREEDY = GenerationConfig.greedy(max_new_tokens=8)
SEEDED = GenerationConfig.sampling(max_new_tokens=8, seed=3)
SHAPES: list[dict[str, Any]] = [
    {},
    {"num_kv_heads": 1},
    {"num_kv_heads": 4},
    {"sliding_window": 5},
    {"rope_scaling": RopeScaling(type="linear", factor=2.0, original_max_seq_len=128)},
]


@pytest.fixture
def make_llama(tiny_llama: MakeLlama) -> MakeLlama:
    """`tiny_llama` with room for several pages."""

    def make(seed: int = 0, **sizes: Any) -> Llama:
        return tiny_llama(seed, **{"max_seq_len": 256, **sizes})

    return make


@contextmanager
def begun(prefixes: PrefixCache, model: CausalLM, keys: Sequence[PromptKey]) -> Iterator[Row]:
    """A row that holds what is known of a text."""
    memory, row = prefixes.memory_of(model), Row()
    assert memory.turns.take(lambda: memory.begin(row, keys, len(keys), len(keys)))
    yield row
    memory.turns.take(partial(memory.end, row))


def read(
    prefixes: PrefixCache, model: Llama, ids: Sequence[int], keys: Sequence[PromptKey] = ()
) -> Tensor:
    """Run a text as far as it is not known, and keep it; (T, V) logits of what has run."""
    with begun(prefixes, model, keys or ids) as row, torch.inference_mode():
        memory, embeds = prefixes.memory_of(model), model.embed(torch.tensor([ids[row.length :]]))
        logits = memory.run([row], embeds, [embeds.shape[1]], "all")[0]
        memory.keep(row, keys or ids)
    return logits


def stored(model: Llama, *texts: Sequence[int], max_bytes: int = MAX_BYTES) -> PrefixCache:
    """A cache with which these texts were read, in this order."""
    prefixes = PrefixCache(max_bytes)
    for ids in texts:
        read(prefixes, model, ids)
    return prefixes


def known(prefixes: PrefixCache, model: CausalLM, keys: Sequence[PromptKey]) -> int:
    """Positions of a prompt that need not run again."""
    with begun(prefixes, model, keys) as row:
        return row.length


# ------------------------------------------------------------------------------------ the cache by itself


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("shared", "cached"), [(1, 0), (7, 0), (8, 8), (31, 31), (32, 32), (39, 39), (40, 40), (80, 80)]
)
def test_logits_equal_those_of_running_everything(
    make_llama: MakeLlama, shape: dict[str, Any], shared: int, cached: int
) -> None:
    """After none, a part or the whole of a text that was read, and for all positions that follow."""
    model = make_llama(**shape)
    prefixes = stored(model, [*TEXT[:shared], *OTHER[shared:80]])
    logits = read(prefixes, model, TEXT[:90])
    assert len(logits) == 90 - cached
    expected = model(torch.tensor([TEXT[:90]]))[0, cached:]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_the_last_position_is_always_run(make_llama: MakeLlama) -> None:
    """Less than 8 positions that texts have in common are not shared."""
    model = make_llama()
    prefixes = stored(model, TEXT[:64])
    for length, cached in ((65, 64), (64, 63), (41, 40), (40, 39), (33, 32), (32, 31), (9, 8)):
        assert known(prefixes, model, TEXT[:length]) == cached
    assert known(prefixes, model, TEXT[:8]) == known(prefixes, model, TEXT[:1]) == 0


def test_the_longest_match_is_taken(make_llama: MakeLlama) -> None:
    model = make_llama()
    prefixes = stored(model, *([*TEXT[:n], *OTHER[n : n + 9]] for n in (10, 50, 20, 45)))
    assert known(prefixes, model, TEXT) == 50
    assert known(prefixes, model, [*TEXT[:20], *OTHER[20:40]]) == 29
    assert known(prefixes, model, [OTHER[0], *TEXT]) == 0


def test_pictures_never_mix(make_llama: MakeLlama) -> None:
    """The keys decide; the ids of two pictures are the same."""
    model, prefixes = make_llama(), PrefixCache(MAX_BYTES)

    def keys(picture: str) -> list[PromptKey]:
        patches = [(picture, "336px", patch) for patch in range(40)]
        return [*TEXT[:10], *patches, *TEXT[10:20]]

    ids = [*TEXT[:10], *[9] * 40, *TEXT[10:20]]
    read(prefixes, model, ids, keys("cat"))
    assert known(prefixes, model, keys("cat")) == 59
    assert known(prefixes, model, keys("dog")) == 10
    assert known(prefixes, model, ids) == 10


def test_models_never_mix(make_llama: MakeLlama) -> None:
    """Nor is a model kept alive by what it has read."""
    one, other = make_llama(seed=0), make_llama(seed=1)
    prefixes = stored(one, TEXT[:40])
    assert known(prefixes, other, TEXT) == 0
    for length, pages in ((32, 3), (72, 5)):
        # What another model has read is neither a part of it nor replaced by it.
        read(prefixes, other, TEXT[:length])
        assert (len(prefixes), prefixes.nbytes) == (2, pages * PAGE_BYTES)
    assert known(prefixes, one, TEXT) == 40
    assert known(prefixes, other, TEXT) == 72
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
    assert known(prefixes, other, TEXT) == 72
    assert (len(prefixes), prefixes.nbytes) == (1, 3 * PAGE_BYTES)


def test_a_text_costs_its_pages(make_llama: MakeLlama) -> None:
    """The beginning of another text costs nothing, and what two texts begin with is there once."""
    model = make_llama()
    prefixes = stored(model, TEXT[:40])
    assert prefixes.nbytes == 2 * PAGE_BYTES
    for length, pages in ((10, 2), (32, 2), (40, 2), (60, 2), (65, 3)):
        read(prefixes, model, TEXT[:length])
        assert (len(prefixes), prefixes.nbytes) == (1, pages * PAGE_BYTES)
    read(prefixes, model, [*TEXT[:32], 1, 2])
    assert (len(prefixes), prefixes.nbytes) == (2, 4 * PAGE_BYTES)
    read(prefixes, model, [1, 2])
    assert (len(prefixes), prefixes.nbytes) == (3, 5 * PAGE_BYTES)
    prefixes.clear()
    assert (len(prefixes), prefixes.nbytes) == (0, 0)
    assert known(prefixes, model, TEXT) == 0


def test_what_a_running_text_holds_is_not_counted(make_llama: MakeLlama) -> None:
    """It would be there without a cache, too; what is kept counts again once it has ended."""
    model = make_llama()
    prefixes = stored(model, TEXT[:70])
    with begun(prefixes, model, TEXT[:40]):
        assert prefixes.nbytes == 2 * PAGE_BYTES
    assert prefixes.nbytes == 3 * PAGE_BYTES


def test_what_was_not_used_for_longest_is_dropped(make_llama: MakeLlama) -> None:
    model = make_llama()
    texts = [[first] * 20 for first in range(4)]
    prefixes = stored(model, *texts[:3], max_bytes=3 * PAGE_BYTES)
    assert len(prefixes) == 3
    assert known(prefixes, model, [*[0] * 12, 7]) == 12  # now text 1 is the oldest
    read(prefixes, model, texts[3])
    assert prefixes.nbytes == 3 * PAGE_BYTES
    # Asked for in this order, text 0 is used before 2 and 3.
    assert [known(prefixes, model, [*text, 7]) for text in texts] == [20, 0, 20, 20]
    read(prefixes, model, texts[0])  # it is there, and now the newest
    read(prefixes, model, TEXT[:50])  # takes the place of two
    assert [known(prefixes, model, [*text, 7]) for text in texts] == [20, 0, 0, 0]
    assert known(prefixes, model, TEXT) == 50


def test_the_end_of_a_text_is_dropped_before_its_beginning(make_llama: MakeLlama) -> None:
    model = make_llama()
    prefixes = stored(model, TEXT[:100], max_bytes=4 * PAGE_BYTES)
    read(prefixes, model, OTHER[:40])
    assert prefixes.nbytes == 4 * PAGE_BYTES
    assert known(prefixes, model, TEXT) == 64
    assert known(prefixes, model, OTHER) == 40


def test_of_several_models_what_the_first_has_read_is_dropped_first(make_llama: MakeLlama) -> None:
    one, other = make_llama(seed=0), make_llama(seed=1)
    prefixes = stored(one, TEXT[:64], max_bytes=3 * PAGE_BYTES)
    read(prefixes, other, TEXT[:64])
    assert prefixes.nbytes == 3 * PAGE_BYTES
    assert known(prefixes, one, TEXT) == 32
    assert known(prefixes, other, TEXT) == 64


def test_a_text_larger_than_the_cap_is_kept_as_far_as_it_fits(make_llama: MakeLlama) -> None:
    model = make_llama()
    prefixes = stored(model, TEXT[:64], max_bytes=2 * PAGE_BYTES - 1)
    assert prefixes.nbytes == PAGE_BYTES
    assert known(prefixes, model, TEXT) == 32
    whole = stored(model, TEXT[:64], max_bytes=2 * PAGE_BYTES)
    assert known(whole, model, TEXT) == 64
    for max_bytes in (0, PAGE_BYTES - 1):
        none = stored(model, TEXT[:64], max_bytes=max_bytes)
        assert (len(none), none.nbytes) == (0, 0)
    with pytest.raises(UsageError, match="-1"):
        PrefixCache(-1)


@pytest.mark.parametrize("length", [40, 64])
def test_what_is_kept_is_not_written_to(make_llama: MakeLlama, length: int) -> None:
    """Neither by the row that it came from, as that goes on, nor by one that it went to."""
    model, prefixes = make_llama(), PrefixCache(MAX_BYTES)
    memory = prefixes.memory_of(model)
    with begun(prefixes, model, TEXT[:length]) as row, torch.inference_mode():
        memory.run([row], model.embed(torch.tensor([TEXT[:length]])), [length])
        memory.keep(row, TEXT[:length])
        memory.run([row], model.embed(torch.tensor([OTHER[:9]])), [9])
    read(prefixes, model, [*TEXT[:length], *OTHER[:30]])
    logits = read(prefixes, model, [*TEXT[: length + 9]])
    assert len(logits) == 9
    expected = model(torch.tensor([TEXT[: length + 9]]))[0, length:]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_nothing_is_kept_of_an_empty_row(make_llama: MakeLlama) -> None:
    model, prefixes = make_llama(), PrefixCache(MAX_BYTES)
    with begun(prefixes, model, TEXT) as row:
        prefixes.memory_of(model).keep(row, TEXT)
    assert (len(prefixes), prefixes.nbytes) == (0, 0)


# ------------------------------------------------------------------------------------------- generation


def generators(
    model: Llama, max_bytes: int = MAX_BYTES
) -> tuple[TextGenerator[None], TextGenerator[None], PrefixCache]:
    """One that reuses, one that does not, and what the first keeps."""
    prefixes = PrefixCache(max_bytes)
    return TextGenerator(model, prefix_cache=prefixes), TextGenerator(model), prefixes


def used_bytes(prefixes: PrefixCache, model: Llama) -> int:
    """What rows of the model hold now."""
    return prefixes.memory_of(runner_of(model)).used_bytes


def same(warm: Generation[Any], cold: Generation[Any]) -> bool:
    """Whether two results are equal, but for where the prompt came from."""
    assert cold.cached_tokens == 0
    return (warm.ids, warm.text, warm.finish_reason) == (cold.ids, cold.text, cold.finish_reason)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("config", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_tokens_are_those_of_running_everything(
    make_llama: MakeLlama, shape: dict[str, Any], config: GenerationConfig
) -> None:
    """The same prompt, one that extends it, that parts from it, and that has nothing of it."""
    model = make_llama(**shape)
    warm, cold, _ = generators(model)
    prompts = [TEXT[:50], TEXT[:50], TEXT[:60], [*TEXT[:42], 1, 2, 3], TEXT[5:60], TEXT[:12]]
    for prompt, cached in zip(prompts, [0, 49, 50, 42, 0, 11], strict=True):
        result = warm.generate(prompt, config)
        assert same(result, cold.generate(prompt, config))
        assert result.cached_tokens == cached


def test_each_turn_of_a_conversation_runs_only_what_is_new(make_llama: MakeLlama) -> None:
    """The generated tokens are reused as well, all but the last, which was never run."""
    model = make_llama()
    warm, cold, prefixes = generators(model)
    conversation: list[int] = []
    cached = []
    for turn in range(4):
        conversation += TEXT[turn * 12 : turn * 12 + 12]
        result = warm.generate(conversation, GREEDY)
        assert same(result, cold.generate(conversation, GREEDY))
        cached.append(result.cached_tokens)
        conversation += result.ids
    assert cached == [0, 19, 39, 59]
    assert (len(prefixes), prefixes.nbytes) == (1, 3 * PAGE_BYTES)


def test_conversations_with_the_built_in_model() -> None:
    """The conversations are text, through the chat template."""
    model, tokenizer = load("demo")
    assert isinstance(tokenizer, Tokenizer)
    warm = TextGenerator(model, tokenizer, prefix_cache=PrefixCache(1 << 26))
    cold = TextGenerator(model, tokenizer)
    messages: list[Any] = []
    cached, lengths = [], []
    for question in ("Tell me a story.", "And then?", "Thank you."):
        messages.append({"role": "user", "content": question})
        prompt = tokenizer.render_chat(messages)
        result = warm.generate(prompt, temperature=0.0, max_new_tokens=30)
        assert same(result, cold.generate(prompt, temperature=0.0, max_new_tokens=30))
        cached.append(result.cached_tokens)
        lengths.append(len(prompt))
        messages.append({"role": "assistant", "content": result.text})
    assert cached[0] == 0
    assert cached[1] >= lengths[0] and cached[2] >= lengths[1]


class WithPictures(Llama):
    """Each prompt begins with a picture, of eight positions and as many ids."""

    def embed_prompt(self, input_ids: Tensor, lengths: Sequence[int], **inputs: Any) -> Prompt:
        prompt = super().embed_prompt(input_ids, lengths)
        picture, embeds = inputs["picture"], prompt.embeds.clone()
        embeds[:, :8] = torch.randn(8, embeds.shape[-1], generator=torch.manual_seed(picture)) * 9
        seen = [(picture, patch) for patch in range(8)]
        return Prompt(embeds, prompt.lengths, tuple((*seen, *keys[8:]) for keys in prompt.keys))


def test_a_question_about_another_picture(make_llama: MakeLlama) -> None:
    plain = make_llama()
    model = WithPictures(plain.config).eval().requires_grad_(False)
    model.load_state_dict(plain.state_dict())
    warm, cold, _ = generators(model)
    prompt, told = [9] * 8 + TEXT[:2], []
    for picture, cached in ((1, 0), (1, 9), (2, 0), (1, 9), (2, 9)):
        own: Any = {"picture": picture}  # an input of this model alone
        result = warm.generate(prompt, GREEDY, **own)
        assert same(result, cold.generate(prompt, GREEDY, **own))
        assert result.cached_tokens == cached
        told.append(result.ids)
    assert told[0] == told[1] == told[3] != told[2] == told[4]


@pytest.mark.parametrize("way", ["dropped", "closed", "interrupted"])
def test_a_stream_ended_early_is_kept_as_far_as_it_went(
    make_llama: MakeLlama, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_llama()
    warm, cold, prefixes = generators(model)
    stream = warm.generate_stream(TEXT[:30], GREEDY)
    tokens = iter(stream)
    begun = [next(tokens) for _ in range(4)]
    if way == "closed":
        stream.close()
    elif way == "dropped":
        del stream, tokens
        gc.collect()
    else:
        run_blocks = Runner._run_blocks

        def interrupted(*arguments: Any, **options: Any) -> Tensor:
            run_blocks(*arguments, **options)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Runner, "_run_blocks", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(tokens)
    assert used_bytes(prefixes, model) == 0
    # 33 positions, of which the last page has one.
    assert (len(prefixes), prefixes.nbytes) == (1, 2 * PAGE_BYTES)
    following = [*TEXT[:30], *begun, *TEXT[:5]]
    result = warm.generate(following, GREEDY)
    assert result.cached_tokens == 33
    assert same(result, cold.generate(following, GREEDY))


def test_a_stream_that_was_interrupted_is_at_its_end(
    make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on neither from where it was nor anew."""
    model = make_llama()
    warm, cold, _ = generators(model)
    tokens = iter(warm.generate_stream(TEXT[:30], GREEDY))
    next(tokens)

    def interrupted(*arguments: Any, **options: Any) -> Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "forward_embeds", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(tokens)
    with pytest.raises(StopIteration):
        next(tokens)
    assert same(warm.generate(TEXT[:30], GREEDY), cold.generate(TEXT[:30], GREEDY))


def test_a_model_that_has_changed_has_read_nothing(make_llama: MakeLlama) -> None:
    model = make_llama()
    warm, cold, prefixes = generators(model)
    warm.generate(TEXT[:10], GREEDY)
    assert warm.generate(TEXT[:10], GREEDY).cached_tokens == 9
    with torch.no_grad():
        model.get_parameter("layers.0.attention.k_proj.weight").mul_(3)
    changed = warm.generate(TEXT[:10], GREEDY)
    assert changed.cached_tokens == 0
    assert same(changed, cold.generate(TEXT[:10], GREEDY))
    assert (len(prefixes), prefixes.nbytes) == (1, PAGE_BYTES)


def test_a_stream_goes_on_with_the_model_that_it_began_with(make_llama: MakeLlama) -> None:
    """What it has read is not mixed with what the changed model reads meanwhile."""
    model = make_llama()
    warm, cold, prefixes = generators(model)
    tokens = iter(warm.generate_stream(TEXT[:50], GREEDY))
    next(tokens)
    model.get_submodule("layers.0.attention").k_proj = torch.nn.Linear(32, 16, bias=False)
    model.requires_grad_(False)
    for cached in (0, 49):
        changed = warm.generate(TEXT[:50], GREEDY)
        assert changed.cached_tokens == cached
        assert same(changed, cold.generate(TEXT[:50], GREEDY))
    assert len([*tokens]) == 7
    assert warm.generate(TEXT[:50], GREEDY).cached_tokens == 49
    assert (len(prefixes), prefixes.nbytes) == (1, 2 * PAGE_BYTES)


@pytest.mark.parametrize("changed", [False, True])
def test_neither_a_runner_nor_weights_are_kept_alive(make_llama: MakeLlama, changed: bool) -> None:
    model = make_llama()
    warm, _, prefixes = generators(model)
    warm.generate(TEXT[:40], GREEDY)
    weight = weakref.ref(model.get_parameter("layers.0.attention.k_proj.weight"))
    runner = weakref.ref(runner_of(model))
    if changed:
        model.get_submodule("layers.0.attention").k_proj = torch.nn.Linear(32, 16, bias=False)
        runner_of(model)
    else:
        del warm, _, model
    gc.collect()
    assert weight() is None and runner() is None
    assert prefixes.nbytes == 2 * PAGE_BYTES  # until the cache is used again
    read(prefixes, make_llama(seed=2), TEXT[:5])
    assert prefixes.nbytes == PAGE_BYTES


def test_memory_goes_with_the_cache(make_llama: MakeLlama) -> None:
    """At once, and not when Python looks for circles of objects."""
    model = make_llama()
    warm, _, prefixes = generators(model)
    warm.generate(TEXT[:40], GREEDY)
    pages = prefixes.memory_of(runner_of(model))._pages
    assert pages is not None
    watched = weakref.ref(pages)
    gc.disable()
    try:
        del warm, prefixes, pages
        assert watched() is None
    finally:
        gc.enable()


def test_a_stream_that_never_began_keeps_nothing(make_llama: MakeLlama) -> None:
    warm, _, prefixes = generators(make_llama())
    warm.generate_stream(TEXT[:10], GREEDY).close()
    assert warm.generate(TEXT[:10], GREEDY, max_new_tokens=0).ids == ()
    assert (len(prefixes), prefixes.nbytes) == (0, 0)


def test_streams_side_by_side(make_llama: MakeLlama) -> None:
    """One may begin while another, with the same beginning, is under way."""
    model = make_llama()
    warm, cold, prefixes = generators(model)
    warm.generate(TEXT[:40], GREEDY)
    streams = [warm.generate_stream([*TEXT[:40], last], GREEDY) for last in (1, 2)]
    steps = [iter(stream) for stream in streams]
    for _ in range(8):
        for step in steps:
            next(step)
    for last, stream, step in zip((1, 2), streams, steps, strict=True):
        assert list(step) == []
        assert stream.result is not None and stream.result.cached_tokens == 40
        assert same(stream.result, cold.generate([*TEXT[:40], last], GREEDY))
    assert used_bytes(prefixes, model) == 0


def test_a_stream_shares_what_another_still_runs(make_llama: MakeLlama) -> None:
    """The prompt of a text can be shared as soon as its first token is there."""
    model = make_llama()
    warm, cold, prefixes = generators(model)
    first = iter(warm.generate_stream(TEXT[:70], GREEDY))
    begun = [next(first)]
    result = warm.generate(TEXT[:80], GREEDY)
    assert result.cached_tokens == 70
    assert same(result, cold.generate(TEXT[:80], GREEDY))
    assert (*begun, *first) == cold.generate(TEXT[:70], GREEDY).ids
    assert used_bytes(prefixes, model) == 0


def test_many_streams_side_by_side(make_llama: MakeLlama) -> None:
    """Each may be as long as the context is: the cache holds no stream up, and refuses none."""
    model = make_llama(max_seq_len=64)
    warm, cold, prefixes = generators(model)
    prompts = [[first, *TEXT[:40]] for first in range(40)]
    streams = [iter(warm.generate_stream(prompt, GREEDY)) for prompt in prompts]
    given = [[next(stream)] for stream in streams]
    for ids, stream, prompt in zip(given, streams, prompts, strict=True):
        assert (*ids, *stream) == cold.generate(prompt, GREEDY).ids
    assert used_bytes(prefixes, model) == 0


def test_two_generators_with_one_cache(make_llama: MakeLlama) -> None:
    model = make_llama()
    prefixes = PrefixCache(MAX_BYTES)
    one, other = (TextGenerator(model, prefix_cache=prefixes) for _ in range(2))
    assert one.generate(TEXT[:40], GREEDY).cached_tokens == 0
    assert other.generate(TEXT[:50], GREEDY).cached_tokens == 40
    assert one.generate(TEXT[:60], GREEDY).cached_tokens == 50


def test_batches_and_streams_share_one_cache(make_llama: MakeLlama) -> None:
    model = make_llama()
    warm, cold, prefixes = generators(model)
    warm.generate(TEXT[:40], GREEDY)
    prompts = [TEXT[:50], [*TEXT[:40], *OTHER[40:60]], OTHER[:20], TEXT[:45]]
    results = warm.generate_batch(prompts, GREEDY)
    assert [result.cached_tokens for result in results] == [40, 40, 0, 40]
    for result, prompt in zip(results, prompts, strict=True):
        assert same(result, cold.generate(prompt, GREEDY))
    assert used_bytes(prefixes, model) == 0
    assert warm.generate([*OTHER[:20], 1], GREEDY).cached_tokens == 20
    assert warm.generate([*TEXT[:40], *OTHER[40:70]], GREEDY).cached_tokens == 60


def test_a_batch_that_fails_holds_no_memory(make_llama: MakeLlama) -> None:
    """No prompt has a result then, and none goes on."""
    model = make_llama()
    warm, cold, prefixes = generators(model)

    def broken(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores * math.nan if int(input_ids[0, 0]) == OTHER[0] else scores

    with pytest.raises(ModelError):
        warm.generate_batch([TEXT[:40], OTHER[:20]], GREEDY, logits_processors=[broken])
    assert used_bytes(prefixes, model) == 0
    assert same(warm.generate(OTHER[:20], GREEDY), cold.generate(OTHER[:20], GREEDY))


def test_two_threads_take_turns(make_llama: MakeLlama) -> None:
    model = make_llama()
    _, cold, prefixes = generators(model, max_bytes=6 * PAGE_BYTES)
    prompts = [
        [*text[:cut], *TEXT[100 : 100 + cut]] for cut in (5, 40, 33) for text in (TEXT, OTHER)
    ]
    expected = [cold.generate(prompt, SEEDED).ids for prompt in prompts]

    def generate(turn: int) -> list[tuple[int, ...]]:
        own = TextGenerator(model, prefix_cache=prefixes)
        order = [(place + turn) % len(prompts) for place in range(3 * len(prompts))]
        found = {place: own.generate(prompts[place], SEEDED).ids for place in order}
        return [found[place] for place in range(len(prompts))]

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(generate, range(4))] == [expected] * 4
    assert used_bytes(prefixes, model) == 0
    assert 0 < prefixes.nbytes <= 6 * PAGE_BYTES


def test_two_threads_with_models_of_their_own_do_not_wait_for_each_other(
    make_llama: MakeLlama,
) -> None:
    """Each ends a text, and drops what the other's model has read, while the other is in its turn."""
    models = [make_llama(seed=0), make_llama(seed=1)]
    prefixes = PrefixCache(PAGE_BYTES)
    meet = threading.Barrier(2, timeout=60)
    for model in models:
        prefixes.memory_of(model)

    def end(model: Llama) -> None:
        memory, row = prefixes.memory_of(model), Row()

        def run() -> None:
            assert memory.begin(row, TEXT[:64], 64, 64)
            memory.run([row], model.embed(torch.tensor([TEXT[:64]])), [64])
            memory.keep(row, TEXT[:64])
            meet.wait()
            memory.end(row)

        with torch.inference_mode():
            memory.turns.take(run)

    threads = [threading.Thread(target=end, args=(model,), daemon=True) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert prefixes.nbytes <= PAGE_BYTES


def test_of_several_models_no_more_is_dropped_than_is_too_much(make_llama: MakeLlama) -> None:
    """What the first has read goes first, also if that can be done only when its step has ended."""
    one, other = make_llama(seed=0), make_llama(seed=1)
    prefixes = PrefixCache(3 * PAGE_BYTES)
    tokens = iter(TextGenerator(one, prefix_cache=prefixes).generate_stream(TEXT[:64], GREEDY))
    next(tokens)
    warm = TextGenerator(other, prefix_cache=prefixes)
    warm.generate(TEXT[:50], GREEDY)
    assert prefixes.nbytes == 2 * PAGE_BYTES  # what still runs is not kept yet
    assert len([*tokens]) == 7
    assert prefixes.nbytes == 3 * PAGE_BYTES
    assert warm.generate(TEXT[:50], GREEDY).cached_tokens == 49
    assert known(prefixes, runner_of(one), TEXT) == 32


def test_a_stream_that_is_collected_within_the_step_of_another(
    make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends when the step has, and is kept as far as it went."""
    model = make_llama()
    warm, cold, prefixes = generators(model)
    dropped = iter(warm.generate_stream(OTHER[:40], GREEDY))
    next(dropped)
    circle: list[Any] = [dropped]
    circle.append(circle)
    other = warm.generate_stream(TEXT[:40], GREEDY)
    tokens = iter(other)
    given = [next(tokens)]
    del dropped, circle
    memory = prefixes.memory_of(runner_of(model))
    forward, used = Runner.forward_embeds, []

    def collecting(self: Runner, *arguments: Any, **options: Any) -> Tensor:
        gc.collect()
        used.append(memory.used_bytes)
        return forward(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "forward_embeds", collecting)
        given.append(next(tokens))
    assert used == [4 * PAGE_BYTES]  # both have two pages until the step has ended
    assert memory.used_bytes == 2 * PAGE_BYTES
    assert (*given, *tokens) == cold.generate(TEXT[:40], GREEDY).ids
    result = warm.generate(OTHER[:50], GREEDY)
    assert result.cached_tokens == 40
    assert same(result, cold.generate(OTHER[:50], GREEDY))


def test_a_generation_that_failed_keeps_nothing_that_is_broken(
    make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its prompt was sound, as its first token shows. What was there before stays."""
    model = make_llama()
    warm, cold, prefixes = generators(model)
    warm.generate(OTHER[:5], GREEDY)
    held = prefixes.nbytes
    forward = Runner.forward_embeds

    def broken(self: Runner, *arguments: Any, **options: Any) -> Tensor:
        return torch.full_like(forward(self, *arguments, **options), math.nan)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "forward_embeds", broken)
        with pytest.raises(ModelError):
            warm.generate(TEXT[:40], GREEDY)
    assert prefixes.nbytes == held and used_bytes(prefixes, model) == 0
    tokens = iter(warm.generate_stream(TEXT[:40], GREEDY))
    given = [next(tokens) for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "forward_embeds", broken)
        with pytest.raises(ModelError):
            next(tokens)
    assert prefixes.nbytes == held + 2 * PAGE_BYTES and used_bytes(prefixes, model) == 0
    result = warm.generate([*TEXT[:40], *given, 1], GREEDY)
    assert result.cached_tokens == 40
    assert same(result, cold.generate([*TEXT[:40], *given, 1], GREEDY))


def test_no_page_to_copy_to_is_no_failure(
    make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs what it could not copy."""
    warm, cold, prefixes = generators(make_llama())
    warm.generate(TEXT[:10], GREEDY)

    def full(*_: Any) -> int:
        raise NoPages

    monkeypatch.setattr(Pages, "copy", full)
    assert warm.generate(TEXT[:10], GREEDY) == cold.generate(TEXT[:10], GREEDY)
    assert (len(prefixes), prefixes.nbytes) == (1, PAGE_BYTES)


def test_no_memory_is_told_and_loses_nothing(
    make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_llama()
    warm, cold, prefixes = generators(model)
    warm.generate(TEXT[:40], GREEDY)

    def full(*arguments: Any, **options: Any) -> Tensor:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "forward_embeds", full)
        with pytest.raises(ResourceError):
            warm.generate(TEXT[:50], GREEDY)
    assert used_bytes(prefixes, model) == 0
    result = warm.generate(TEXT[:50], GREEDY)
    assert result.cached_tokens == 40
    assert same(result, cold.generate(TEXT[:50], GREEDY))


def test_dynamic_rope_keeps_nothing(make_llama: MakeLlama) -> None:
    """Its keys depend on how long the row will become."""
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=16)
    warm, cold, prefixes = generators(make_llama(rope_scaling=scaling, max_seq_len=64))
    for length in (10, 14, 30, 50):
        assert warm.generate(TEXT[:length], GREEDY) == cold.generate(TEXT[:length], GREEDY)
    assert (len(prefixes), prefixes.nbytes) == (0, 0)


# -------------------------------------------------------------------------------------- prefill in chunks


def passes(patch: pytest.MonkeyPatch) -> list[tuple[int, Tensor]]:
    """Width and logits of every pass from now on."""
    seen: list[tuple[int, Tensor]] = []
    forward = Llama.forward_embeds

    def recorded(self: Llama, embeds: Tensor, *arguments: Any) -> Tensor:
        logits = forward(self, embeds, *arguments)
        seen.append((embeds.shape[1], logits))
        return logits

    patch.setattr(Llama, "forward_embeds", recorded)
    return seen


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("length", [511, 512, 513, 1100])
def test_long_prompts_run_in_chunks(
    tiny_llama: MakeLlama, length: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama(max_seq_len=1200, sliding_window=window)
    generator = torch.Generator().manual_seed(length)
    prompt = torch.randint(0, 400, (length,), generator=generator)
    with monkeypatch.context() as patch:
        seen = passes(patch)
        TextGenerator(model).generate(prompt, GREEDY, max_new_tokens=1)
    widths = [width for width, _ in seen]
    assert widths == [512] * ((length - 1) // 512) + [(length - 1) % 512 + 1]
    expected = model(prompt[None])[:, -1]
    torch.testing.assert_close(seen[-1][1], expected, atol=1e-5, rtol=0)


def test_a_row_that_changes_as_it_grows_is_not_cut(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under dynamic RoPE each chunk would run all of it again."""
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=16)
    model = tiny_llama(rope_scaling=scaling, max_seq_len=1200)
    widths = passes(monkeypatch)
    TextGenerator(model).generate([1] * 1100, GREEDY, max_new_tokens=1)
    assert [width for width, _ in widths] == [1100]


ELSEWHERE = """
import json, sys
import torch
from lolama_core import Llama, LlamaConfig, PrefixCache, TextGenerator

run = [0]

class Counting(Llama):
    def forward_embeds(self, embeds, cache=None, lengths=None, logits="last"):
        run[0] += embeds.shape[1]
        return super().forward_embeds(embeds, cache, lengths, logits)

def answers():
    torch.manual_seed(0)
    sizes = dict(vocab_size=400, d_model=32, num_heads=4, num_kv_heads=2, num_layers=2, hidden_dim=64)
    model = Counting(LlamaConfig(**sizes, max_seq_len=256)).eval().requires_grad_(False)
    prefixes = PrefixCache(1 << 20)
    known = prefixes.load(sys.argv[1], model, missing_ok=True)
    generator, found = TextGenerator(model, prefix_cache=prefixes), []
    for text in json.loads(sys.argv[2]):
        run[0] = 0
        result = generator.generate(text, max_new_tokens=8, temperature=0, logprobs=3)
        numbers = [token.best for token in result.logprobs]
        found.append([result.ids, result.cached_tokens, run[0], numbers])
    prefixes.save(sys.argv[1], model)
    return known, found

print(json.dumps(answers()))
"""


def test_another_process_runs_only_what_is_new(tmp_path: Path) -> None:
    texts = [TEXT[:100], TEXT[:100], TEXT[:70] + OTHER[:30], OTHER[:50]]

    def elsewhere(texts: list[list[int]]) -> tuple[int, list[Any]]:
        command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "kept"), json.dumps(texts)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        known, found = json.loads(done.stdout)
        return known, found

    _, (cold, warm, parted, other) = elsewhere(texts)
    known, (again, parted_again, other_again) = elsewhere([texts[0], *texts[2:]])
    # The last token chosen is not run. There are 100 and 7 positions; 30 and 7 in pages of their own, the
    # first of which begins with 6 of the other text; 50 and 7.
    assert known == 107 + 6 + 37 + 57
    assert (cold[1:3], warm[1:3], other[1:3]) == ([0, 107], [99, 8], [0, 57])
    assert parted[1:3] == [70, 37]
    assert again == warm  # bit for bit
    assert other_again[:3] == [other[0], 49, 8]
    assert parted_again[:3] == [parted[0], 99, 8]


def run(prefixes: PrefixCache, model: Llama, ids: Sequence[int]) -> int:
    """Run a prompt, and keep it; how much of it was known."""
    generator = TextGenerator(model, prefix_cache=prefixes)
    return generator.generate(ids, max_new_tokens=1).cached_tokens


def test_no_more_is_loaded_than_the_cache_may_keep(make_llama: MakeLlama, tmp_path: Path) -> None:
    model, prefixes = make_llama(), PrefixCache(MAX_BYTES)
    for ids in (TEXT[:64], OTHER[:96]):
        run(prefixes, model, ids)
    prefixes.save(tmp_path / "kept", model)
    for pages in range(7):
        less = PrefixCache(pages * PAGE_BYTES)
        assert less.load(str(tmp_path / "kept"), model) == min(pages, 5) * PAGE
        assert less.nbytes == min(pages, 5) * PAGE_BYTES
        # The last position is run for its logits.
        assert run(less, model, OTHER[:96] + TEXT[:9]) == min(pages, 3) * PAGE
    # What is there already stays, and counts.
    less = PrefixCache(4 * PAGE_BYTES)
    run(less, model, TEXT[50:114])
    assert less.load(tmp_path / "kept", model) == 2 * PAGE
    assert run(less, model, TEXT[50:114]) == run(less, model, OTHER[:64]) == 63


def test_each_model_has_a_file_of_its_own(make_llama: MakeLlama, tmp_path: Path) -> None:
    one, other, prefixes = make_llama(), make_llama(1), PrefixCache(MAX_BYTES)
    run(prefixes, one, TEXT[:64])
    run(prefixes, other, OTHER[:32])
    prefixes.save(tmp_path / "kept", one)
    again = PrefixCache(MAX_BYTES)
    with pytest.raises(UsageError, match="is of another model"):
        again.load(tmp_path / "kept", other)
    assert again.load(tmp_path / "kept", one) == 64
    assert [run(again, model, TEXT[:64]) for model in (one, other)] == [63, 0]


def test_a_model_that_was_changed_reads_nothing_from_before(
    make_llama: MakeLlama, tmp_path: Path
) -> None:
    model, prefixes = make_llama(), PrefixCache(MAX_BYTES)
    run(prefixes, model, TEXT[:64])
    prefixes.save(tmp_path / "kept", model)
    model.get_parameter("layers.0.attention.v_proj.weight").mul_(2)
    changed = PrefixCache(MAX_BYTES)
    with pytest.raises(UsageError, match="is of another model"):
        changed.load(tmp_path / "kept", model)
    model.get_parameter("layers.0.attention.v_proj.weight").div_(2)
    changed.load(tmp_path / "kept", model)
    model.get_parameter("layers.0.attention.v_proj.weight").mul_(2)
    warm, cold = TextGenerator(model, prefix_cache=changed), TextGenerator(model)
    result = warm.generate(TEXT[:70], GREEDY)
    assert result.cached_tokens == 0 and same(result, cold.generate(TEXT[:70], GREEDY))


@pytest.mark.parametrize("name", ["dynamic RoPE", "LongRoPE"])
def test_where_keys_do_not_stay_nothing_is_saved_or_loaded(
    make_llama: MakeLlama, tmp_path: Path, name: str
) -> None:
    model = make_llama()
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=64)
    if name == "LongRoPE":
        ones = (1.0,) * (model.config.head_dim // 2)
        scaling = replace(scaling, type="longrope", short_factor=ones, long_factor=ones)
    model, prefixes = make_llama(rope_scaling=scaling), PrefixCache(MAX_BYTES)
    for act in (prefixes.save, prefixes.load):
        with pytest.raises(UsageError, match=f"has {name}, so"):
            act(tmp_path / "kept", model)
    with pytest.raises(UsageError, match=f"has {name}, so"):
        prefixes.load(tmp_path / "kept", model, missing_ok=True)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("path", [5, None, b"kept", "", "a\0b"])
def test_what_is_no_path_is_refused(make_llama: MakeLlama, path: Any) -> None:
    for act in (PrefixCache(MAX_BYTES).save, PrefixCache(MAX_BYTES).load):
        with pytest.raises(UsageError, match=r"path: .* is not a path"):
            act(path, make_llama())


def test_a_file_that_is_missing_may_be_missing(make_llama: MakeLlama, tmp_path: Path) -> None:
    prefixes, model = PrefixCache(MAX_BYTES), make_llama()
    assert prefixes.load(tmp_path / "kept", model, missing_ok=True) == 0
    with pytest.raises(ModelError, match="does not exist"):
        prefixes.load(tmp_path / "kept", model)
