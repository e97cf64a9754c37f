from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import (
    Generation,
    GenerationConfig,
    KVCache,
    Llama,
    PrefixCache,
    RopeScaling,
    TextGenerator,
    Tokenizer,
    load,
)
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import Prompt, PromptKey
from lolama_core.runtime.runner import Runner

MakeLlama = Callable[..., Llama]
MAX_BYTES = 1 << 20
POSITION = 2 * 2 * 2 * 8 * 4
"""Bytes of a position of `tiny_llama`: keys and values, 2 layers, 2 heads, 8 wide, float32."""

TEXT = torch.randint(0, 400, (40,), generator=torch.Generator().manual_seed(4)).tolist()
GREEDY = GenerationConfig.greedy(max_new_tokens=8)
SEEDED = GenerationConfig.sampling(max_new_tokens=8, seed=3)
SHAPES: list[dict[str, Any]] = [
    {},
    {"num_kv_heads": 1},
    {"num_kv_heads": 4},
    {"sliding_window": 5},
    {"rope_scaling": RopeScaling(type="linear", factor=2.0, original_max_seq_len=64)},
]


def run(model: Llama, ids: Sequence[int]) -> KVCache:
    """A row that holds these positions."""
    cache = model.make_cache(1, model.max_seq_len)
    with torch.inference_mode():
        model.forward_embeds(model.embed(torch.tensor([ids])), cache)
    cache.advance([len(ids)])
    return cache


def stored(model: Llama, *texts: Sequence[int], max_bytes: int = MAX_BYTES) -> PrefixCache:
    """A cache that was given these texts, in this order."""
    prefixes = PrefixCache(max_bytes)
    for ids in texts:
        prefixes.store(model, ids, run(model, ids))
    return prefixes


def restored(prefixes: PrefixCache, model: Llama, keys: Sequence[PromptKey]) -> int:
    """Positions of a prompt that it can fill."""
    cache = model.make_cache(1, model.max_seq_len)
    length = prefixes.restore(model, keys, cache)
    assert cache.lengths == (length,)
    return length


# ------------------------------------------------------------------------------------ the cache by itself


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shared", [1, 6, 19, 20])
def test_logits_equal_those_of_running_everything(
    tiny_llama: MakeLlama, shape: dict[str, Any], shared: int
) -> None:
    """After none, a part or the whole of a stored text, and for all positions that follow."""
    model = tiny_llama(**shape)
    prefixes = stored(model, [*TEXT[:shared], *[399 - i for i in TEXT[shared:20]]])
    prompt = TEXT[:30]
    cache = model.make_cache(1, 30)
    assert prefixes.restore(model, prompt, cache) == shared
    with torch.inference_mode():
        rest = model.embed(torch.tensor([prompt[shared:]]))
        logits = model.forward_embeds(rest, cache, logits="all")
        expected = model(torch.tensor([prompt]))[:, shared:]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_the_last_position_is_always_run(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    prefixes = stored(model, TEXT[:10])
    assert restored(prefixes, model, TEXT[:10]) == 9
    assert restored(prefixes, model, TEXT[:4]) == 3
    assert restored(prefixes, model, TEXT[:1]) == 0
    assert restored(prefixes, model, TEXT[:11]) == 10


def test_the_longest_match_is_taken(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    prefixes = stored(model, [*TEXT[:4], 1, 2, 3], [*TEXT[:8], 4], [*TEXT[:6], 5, 6, 7, 8])
    assert restored(prefixes, model, TEXT) == 8
    assert restored(prefixes, model, [5, *TEXT]) == 0


def test_pictures_never_mix(tiny_llama: MakeLlama) -> None:
    """The keys decide; the ids of two pictures are the same."""
    model = tiny_llama()

    def keys(picture: str) -> list[PromptKey]:
        return [1, 2, *((picture, "336px", patch) for patch in range(4)), 3, 4]

    prefixes, ids = PrefixCache(MAX_BYTES), [1, 2, 9, 9, 9, 9, 3, 4]
    prefixes.store(model, keys("cat"), run(model, ids))
    assert restored(prefixes, model, keys("cat")) == 7
    assert restored(prefixes, model, keys("dog")) == 2
    assert restored(prefixes, model, ids) == 2


def test_models_never_mix(tiny_llama: MakeLlama) -> None:
    """Nor is a model kept alive by what it has read."""
    one, other = tiny_llama(seed=0), tiny_llama(seed=1)
    prefixes = stored(one, TEXT[:10])
    assert restored(prefixes, other, TEXT) == 0
    for length in (8, 12):  # what another model has read is neither a part of it nor replaced by it
        prefixes.store(other, TEXT[:length], run(other, TEXT[:length]))
        assert (len(prefixes), prefixes.nbytes) == (2, (10 + length) * POSITION)
    assert restored(prefixes, one, TEXT) == 10
    assert restored(prefixes, other, TEXT) == 12
    del one
    gc.collect()
    prefixes.store(other, TEXT[5:8], run(other, TEXT[5:8]))
    assert prefixes.nbytes == 15 * POSITION


def test_a_text_costs_its_positions(tiny_llama: MakeLlama) -> None:
    """It does not cost the capacity it was run in; the beginning of another text costs nothing."""
    model = tiny_llama()
    prefixes = stored(model, TEXT[:10])
    assert prefixes.nbytes == 10 * POSITION
    held = [tensor for pair in prefixes._prefixes[0].layers for tensor in pair]
    assert sum(tensor.untyped_storage().nbytes() for tensor in held) == 10 * POSITION
    for length, expected in ((4, 10), (10, 10), (15, 15)):
        prefixes.store(model, TEXT[:length], run(model, TEXT[:length]))
        assert (len(prefixes), prefixes.nbytes) == (1, expected * POSITION)
    prefixes.store(model, [1, 2], run(model, [1, 2]))
    assert (len(prefixes), prefixes.nbytes) == (2, 17 * POSITION)
    prefixes.clear()
    assert (len(prefixes), prefixes.nbytes) == (0, 0)
    assert restored(prefixes, model, TEXT) == 0


def test_what_was_not_used_for_longest_is_dropped(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    texts = [[first] * 5 for first in range(4)]
    prefixes = stored(model, *texts[:3], max_bytes=15 * POSITION)
    assert len(prefixes) == 3
    assert restored(prefixes, model, [0, 0, 7]) == 2  # now text 1 is the oldest
    prefixes.store(model, texts[3], run(model, texts[3]))
    assert prefixes.nbytes == 15 * POSITION
    assert [restored(prefixes, model, [*text, 7]) for text in texts] == [5, 0, 5, 5]
    prefixes.store(model, texts[0], run(model, texts[0]))  # it is there, and now the newest
    prefixes.store(model, TEXT[:10], run(model, TEXT[:10]))  # takes the place of two
    assert [restored(prefixes, model, [*text, 7]) for text in texts] == [5, 0, 0, 0]
    assert restored(prefixes, model, TEXT) == 10


def test_a_text_larger_than_the_cap_is_not_kept(tiny_llama: MakeLlama) -> None:
    """It also drops nothing that is kept."""
    model = tiny_llama()
    prefixes = stored(model, [1, 2], TEXT[:10], max_bytes=10 * POSITION - 1)
    assert prefixes.nbytes == 2 * POSITION
    assert restored(stored(model, TEXT[:10], max_bytes=10 * POSITION), model, TEXT) == 10
    assert len(stored(model, [1], max_bytes=0)) == 0
    with pytest.raises(UsageError, match="-1"):
        PrefixCache(-1)


def test_the_cap_holds_while_a_text_is_copied(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama()
    prefixes = stored(model, TEXT[:10], max_bytes=15 * POSITION)
    held, clone = [], Tensor.clone

    def watched(self: Tensor) -> Tensor:
        held.append(prefixes.nbytes)
        return clone(self)

    row = run(model, [1] * 6)
    monkeypatch.setattr(Tensor, "clone", watched)
    prefixes.store(model, [1] * 6, row)
    assert held == [0] * 4
    assert prefixes.nbytes == 6 * POSITION


def test_what_is_kept_is_a_copy(tiny_llama: MakeLlama) -> None:
    """Neither the row it came from nor one it went to can change it."""
    model = tiny_llama()
    prefixes, source = PrefixCache(MAX_BYTES), run(model, TEXT[:10])
    expected = [(keys.clone(), values.clone()) for keys, values in source.read_row(0)]
    prefixes.store(model, TEXT, source)
    source.reset()
    target = model.make_cache(1, 20)
    prefixes.restore(model, TEXT, target)
    target.reset()
    prefixes.restore(model, TEXT, target)
    for got, wanted in zip(target.read_row(0), expected, strict=True):
        assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])


def test_nothing_is_kept_of_an_empty_row(tiny_llama: MakeLlama) -> None:
    model, prefixes = tiny_llama(), PrefixCache(MAX_BYTES)
    prefixes.store(model, TEXT, model.make_cache(1, 8))
    assert len(prefixes) == 0


# ------------------------------------------------------------------------------------------- generation


def generators(model: Llama, **options: Any) -> tuple[TextGenerator, TextGenerator, PrefixCache]:
    """One that reuses, one that does not, and what the first keeps."""
    prefixes = PrefixCache(MAX_BYTES)
    return (
        TextGenerator(model, prefix_cache=prefixes, **options),
        TextGenerator(model, **options),
        prefixes,
    )


def same(warm: Generation, cold: Generation) -> bool:
    """Whether two results are equal, but for where the prompt came from."""
    assert cold.cached_tokens == 0
    return (warm.ids, warm.text, warm.finish_reason) == (cold.ids, cold.text, cold.finish_reason)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("config", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_tokens_are_those_of_running_everything(
    tiny_llama: MakeLlama, shape: dict[str, Any], config: GenerationConfig
) -> None:
    """The same prompt, one that extends it, that parts from it, and that has nothing of it."""
    model = tiny_llama(**shape)
    warm, cold, _ = generators(model)
    prompts = [TEXT[:20], TEXT[:20], TEXT[:30], [*TEXT[:12], 1, 2, 3], TEXT[5:25], TEXT[:2]]
    for prompt, cached in zip(prompts, [0, 19, 20, 12, 0, 1], strict=True):
        result = warm.generate(prompt, config)
        assert same(result, cold.generate(prompt, config))
        assert result.cached_tokens == cached


def test_each_turn_of_a_conversation_runs_only_what_is_new(tiny_llama: MakeLlama) -> None:
    """The generated tokens are reused as well, all but the last, which was never run."""
    model = tiny_llama(max_seq_len=200)
    warm, cold, prefixes = generators(model)
    conversation: list[int] = []
    cached = []
    for turn in range(4):
        conversation += TEXT[turn * 10 : turn * 10 + 10]
        result = warm.generate(conversation, GREEDY)
        assert same(result, cold.generate(conversation, GREEDY))
        cached.append(result.cached_tokens)
        conversation += result.ids
    assert cached == [0, 17, 35, 53]
    assert (len(prefixes), prefixes.nbytes) == (1, 71 * POSITION)


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


def test_a_question_about_another_picture(tiny_llama: MakeLlama) -> None:
    plain = tiny_llama()
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
    tiny_llama: MakeLlama, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama()
    warm, cold, prefixes = generators(model)
    stream = warm.generate_stream(TEXT[:10], GREEDY)
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
    assert prefixes.nbytes == 13 * POSITION
    following = [*TEXT[:10], *begun, *TEXT[:5]]
    result = warm.generate(following, GREEDY)
    assert result.cached_tokens == 13
    assert same(result, cold.generate(following, GREEDY))


def test_a_model_that_has_changed_has_read_nothing(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    warm, cold, _ = generators(model)
    warm.generate(TEXT[:10], GREEDY)
    assert warm.generate(TEXT[:10], GREEDY).cached_tokens == 9
    with torch.no_grad():
        model.get_parameter("layers.0.attention.k_proj.weight").mul_(3)
    changed = warm.generate(TEXT[:10], GREEDY)
    assert changed.cached_tokens == 0
    assert same(changed, cold.generate(TEXT[:10], GREEDY))


def test_a_stream_that_never_began_keeps_nothing(tiny_llama: MakeLlama) -> None:
    warm, _, prefixes = generators(tiny_llama())
    warm.generate_stream(TEXT[:10], GREEDY).close()
    assert warm.generate(TEXT[:10], GREEDY, max_new_tokens=0).ids == ()
    assert len(prefixes) == 0


def test_streams_side_by_side(tiny_llama: MakeLlama) -> None:
    """One may begin while another, with the same beginning, is under way."""
    model = tiny_llama()
    warm, cold, _ = generators(model)
    warm.generate(TEXT[:10], GREEDY)
    streams = [warm.generate_stream([*TEXT[:10], last], GREEDY) for last in (1, 2)]
    steps = [iter(stream) for stream in streams]
    for _ in range(8):
        for step in steps:
            next(step)
    for last, stream, step in zip((1, 2), streams, steps, strict=True):
        assert list(step) == []
        assert stream.result is not None and stream.result.cached_tokens == 10
        assert same(stream.result, cold.generate([*TEXT[:10], last], GREEDY))


def test_a_generation_that_failed_keeps_nothing(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there before stays."""
    model = tiny_llama()
    warm, cold, prefixes = generators(model)
    warm.generate(TEXT[:5], GREEDY)
    held = prefixes.nbytes
    stream = warm.generate_stream(TEXT[:10], GREEDY)
    tokens = iter(stream)
    next(tokens)
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "forward_embeds", lambda *_: torch.full((1, 400), math.nan))
        with pytest.raises(ModelError):
            next(tokens)
    assert prefixes.nbytes == held
    assert same(warm.generate(TEXT[:10], GREEDY), cold.generate(TEXT[:10], GREEDY))


def test_no_memory_to_keep_it_in_is_no_failure(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, cold, prefixes = generators(tiny_llama())

    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Tensor, "clone", full)
    assert warm.generate(TEXT[:10], GREEDY) == cold.generate(TEXT[:10], GREEDY)
    assert (len(prefixes), prefixes.nbytes) == (0, 0)


def test_dynamic_rope_keeps_nothing(tiny_llama: MakeLlama) -> None:
    """Its keys depend on how long the row will become."""
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=16)
    warm, cold, prefixes = generators(tiny_llama(rope_scaling=scaling))
    for length in (10, 14, 30):
        assert warm.generate(TEXT[:length], GREEDY) == cold.generate(TEXT[:length], GREEDY)
    assert len(prefixes) == 0


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
