from __future__ import annotations

import doctest
import gc
import math
import random
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from lolama_core import (
    BatchGenerator,
    Engine,
    Generation,
    GenerationConfig,
    KVCache,
    Llama,
    PrefixCache,
    Sampler,
    TextGenerator,
    Tokenizer,
    reference,
)
from lolama_core.generation import generator
from lolama_core.generation.request_factory import RequestFactory
from lolama_core.protocols import CausalLM
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.errors import ModelError, ResourceError, UsageError
from lolama_core.protocols.types import GenerationDefaults, Prompt, Spans
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of

MakeLlama = Callable[..., Llama]
GREEDY = GenerationConfig.greedy(max_new_tokens=12)


class Scripted:
    """A model that says what a function makes of the ids so far, which it reads out of the cache."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(
        self,
        follow: Callable[[list[int]], int | Tensor],
        *,
        vocab_size: int = 600,
        max_seq_len: int = 64,
        eos_ids: Sequence[int] = (),
        widen: int = 0,
    ) -> None:
        self.follow, self.vocab_size, self.max_seq_len = follow, vocab_size, max_seq_len
        self.generation_defaults = GenerationDefaults(eos_ids=frozenset(eos_ids))
        self.widen = widen
        self.batches: list[int] = []
        self.caches: list[weakref.ref[KVCache]] = []
        self.capacities: list[int] = []

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return iter(())

    def make_cache(self, batch_size: int, capacity: int) -> KVCache:
        assert 1 <= capacity <= self.max_seq_len
        cache = KVCache(
            num_layers=1, batch_size=batch_size, num_kv_heads=1, capacity=capacity, head_dim=2
        )
        self.caches.append(weakref.ref(cache))
        self.capacities.append(capacity)
        return cache

    def embed(self, input_ids: Tensor) -> Tensor:
        return input_ids[:, :, None].expand(-1, -1, 2).float()

    def embed_prompt(self, input_ids: Tensor, lengths: Sequence[int], **inputs: Any) -> Prompt:
        if inputs:
            raise UsageError(next(iter(inputs)), "is not an input")
        # As if each prompt began with a picture of as many positions.
        ids = torch.cat((torch.zeros((len(lengths), self.widen), dtype=torch.int64), input_ids), 1)
        keys = tuple(() for _ in lengths)
        return Prompt(self.embed(ids), tuple(length + self.widen for length in lengths), keys)

    def forward_embeds(
        self,
        embeds: Tensor,
        cache: KVCacheProtocol | None = None,
        lengths: Sequence[int] | None = None,
        logits: Literal["last", "all"] = "last",
        spans: Spans = (),
    ) -> Tensor:
        assert cache is not None and logits == "last" and not spans
        self.batches.append(len(embeds))
        slots = cache.reserve(lengths or (embeds.shape[1],) * len(embeds), embeds.shape[1])
        held, _ = cache.update(0, embeds[:, None], embeds[:, None], slots)
        rows = [
            self.follow([int(i) for i in row[0, self.widen : total, 0]])
            for row, total in zip(held, slots.totals, strict=True)
        ]
        return torch.stack([self.scores(row) for row in rows])

    def scores(self, row: int | Tensor) -> Tensor:
        if isinstance(row, Tensor):
            return row
        return torch.full((self.vocab_size,), -50.0).index_fill(0, torch.tensor(row), 50.0)


def says(ids: Sequence[int], prompt_length: int, **settings: Any) -> Scripted:
    """A model that continues any prompt of that length with these ids, then with 0."""
    return Scripted(
        lambda history: [*ids, *[0] * 999][len(history) - prompt_length],
        **{"max_seq_len": 999, **settings},
    )


def counting(history: list[int]) -> int:
    return history[-1] + 1


def test_the_scripted_model_is_a_causal_lm() -> None:
    assert isinstance(says([], 1), CausalLM)


def test_the_loop_that_the_module_begins_with() -> None:
    """Its example runs as it stands there, and says what `TextGenerator` says."""
    loop = doctest.DocTestParser().get_doctest(generator.__doc__ or "", {}, "loop", None, None)
    assert doctest.DocTestRunner().run(loop, clear_globs=False) == (0, len(loop.examples))
    model, tokenizer = (loop.globs[name] for name in ("model", "tokenizer"))
    greedy = GenerationConfig.greedy(max_new_tokens=len(loop.globs["new_ids"]))
    result = TextGenerator(model, tokenizer).generate("Once upon a time", greedy)
    assert list(result.ids) == loop.globs["new_ids"] and len(result.ids) == 16


# ----------------------------------------------------------------------------- one prompt to its end


def naive(model: Llama, prompt: list[int], config: GenerationConfig) -> list[int]:
    """Generation as it is defined: all of it computed anew for each token."""
    sampler = Sampler.from_config(config, prompt_length=len(prompt))
    ids = list(prompt)
    while len(ids) < len(prompt) + config.max_new_tokens:
        logits = reference.logits(model.state_dict(), model.config, ids)
        token_id = sampler(torch.tensor([ids]), logits[-1:])
        if token_id in model.generation_defaults.eos_ids:
            break
        ids.append(token_id)
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    "config",
    [
        GREEDY,
        GenerationConfig(seed=1, max_new_tokens=12),
        GenerationConfig.sampling(seed=2, max_new_tokens=12, top_k=50),
        GenerationConfig.greedy(
            repetition_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.5, max_new_tokens=12
        ),
        GenerationConfig.greedy(logit_bias={5: 100.0}, max_new_tokens=3),
    ],
    ids=str,
)
def test_it_generates_what_the_model_says(tiny_llama: MakeLlama, config: GenerationConfig) -> None:
    model = tiny_llama()
    prompt = [7, 300, 22]
    result = TextGenerator(model).generate(prompt, config)
    assert list(result.ids) == naive(model, prompt, config)
    assert (result.finish_reason, result.text, result.context_full) == ("length", None, False)


def test_a_seed_makes_it_repeatable(tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama())
    config = GenerationConfig.sampling(max_new_tokens=20)
    first = generator.generate([1, 2], config, seed=7).ids
    assert generator.generate([1, 2], config, seed=7).ids == first
    assert generator.generate([1, 2], config, seed=8).ids != first
    assert generator.generate([1, 2], config).ids != generator.generate([1, 2], config).ids


@pytest.mark.parametrize(
    "prompt",
    [[3, 4], (3, 4), torch.tensor([3, 4]), torch.tensor([[3, 4]]), torch.tensor([3, 4]).int()],
)
def test_forms_of_a_prompt(prompt: Any) -> None:
    assert TextGenerator(Scripted(counting)).generate(prompt, GREEDY).ids[:2] == (5, 6)


@pytest.mark.parametrize(
    "prompt",
    [
        [],
        torch.zeros((1, 0), dtype=torch.int64),
        [-1],
        [600],
        [10**30],
        [1.0],
        [True],
        ["a"],
        [[1]],
        [torch.tensor([1, 2])],
        [np.True_],
        [None],
        5,
        torch.tensor(5),
        None,
        b"hello",
        {"input_ids": [1]},
        {1, 2},
        np.zeros((2, 2), dtype=np.int64),
        torch.zeros((1, 2), dtype=torch.int64, device="meta"),
        torch.tensor([1.0]),
        torch.tensor([True]),
        torch.zeros((2, 2), dtype=torch.int64),
        torch.zeros((1, 1, 1), dtype=torch.int64),
    ],
    ids=str,
)
def test_what_is_no_prompt(prompt: Any) -> None:
    generator = TextGenerator(Scripted(counting))
    for call in (generator.generate, generator.generate_stream, generator.score):
        with pytest.raises(UsageError):
            call(prompt)
    with pytest.raises(UsageError):
        generator.generate_batch([[1], prompt])


NUMBERS: list[Any] = [
    np.array([3, 4]),
    np.array([[3, 4]], dtype=np.uint16),
    [np.int64(3), np.uint8(4)],
    [torch.tensor(3), torch.tensor([4], dtype=torch.int8)],
    torch.tensor([[3, 4]], dtype=torch.uint8),
    range(3, 5),
    iter([3, 4]),
]


@pytest.mark.parametrize("ids", NUMBERS, ids=lambda ids: type(ids).__name__)
def test_row_125_whole_numbers_of_any_kind_are_ids(ids: Any, byte_level: Tokenizer) -> None:
    """Every entrance takes them alike."""
    ids = list(ids) if isinstance(ids, Iterator) else ids
    generator = TextGenerator(Scripted(counting), byte_level)
    assert generator.generate(ids, GREEDY).ids[:2] == (5, 6)
    assert list(generator.generate_stream(ids, GREEDY))[:2] == [5, 6]
    assert [one.ids[:2] for one in generator.generate_batch([ids, [7]], GREEDY)] == [(5, 6), (8, 9)]
    batch = BatchGenerator(Scripted(counting))
    ticket = batch.submit(ids, GREEDY)
    while batch.busy:
        batch.step()
    result = batch.collect()[ticket]
    assert isinstance(result, Generation)
    assert result.ids[:2] == (5, 6)


def test_row_125_scores_take_ids_of_any_kind(tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama())
    expected = generator.score([3, 4])
    for ids in NUMBERS[:-1]:
        torch.testing.assert_close(generator.score(ids), expected)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([1.5], "1.5 is of type float, no token id"),
        ([np.float32(1)], "is of type float32, no token id"),
        ([600], "600 is not a token id below 600"),
        ([10**5000], "a huge integer is not a token id below 600"),
        ([[1, 2]], "is of type list, no token id; token ids are whole numbers, one row at a time"),
        ({"input_ids": [1]}, 'is of type dict, no row of ids; give its "input_ids"'),
        (np.zeros((2, 3), np.int64), r"is \(2, 3\) int64, .*use generate_batch"),
    ],
)
def test_row_125_what_is_wrong_with_an_id_is_said_truly(ids: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=f"^input_ids: .*{reason}"):
        TextGenerator(Scripted(counting)).generate(ids)


def test_row_150_a_text_is_a_prompt(tiny_llama: MakeLlama, tokenizer: Tokenizer) -> None:
    """Every entrance encodes it as ``tokenizer.encode`` does, BOS and control tokens included."""
    text = f"Once upon {tokenizer.bos_token} a time"
    ids = tokenizer.encode(text)
    assert ids.count(tokenizer.bos_id or -1) == 2
    model = tiny_llama(vocab_size=tokenizer.vocab_size)
    generator = TextGenerator(model, tokenizer)
    expected = generator.generate(ids, GREEDY)
    assert generator.generate(text, GREEDY) == expected
    assert tuple(generator.generate_stream(text, GREEDY)) == expected.ids
    assert generator.generate_batch([text, ids, torch.tensor(ids)], GREEDY) == [expected] * 3
    torch.testing.assert_close(generator.score(text), generator.score(ids))


@pytest.mark.parametrize("entrance", ["generate", "generate_stream", "score", "generate_batch"])
def test_row_150_a_text_needs_a_tokenizer(entrance: str) -> None:
    generator = TextGenerator(Scripted(counting))
    prompt = ["Once"] if entrance == "generate_batch" else "Once"
    with pytest.raises(UsageError, match=r"^tokenizer: .*TextGenerator\(model, tokenizer\)"):
        getattr(generator, entrance)(prompt)


def test_row_150_one_text_is_no_batch(byte_level: Tokenizer) -> None:
    """Its letters would each be a prompt."""
    with pytest.raises(UsageError, match=r"^prompts: is one text; give a list"):
        TextGenerator(Scripted(counting), byte_level).generate_batch("Once")


def in_place(input_ids: Tensor, scores: Tensor) -> Tensor:
    """As masks of grammars work: what is not allowed is overwritten."""
    scores[:, :7] = -math.inf
    scores[:, 8:] = -math.inf
    return scores


@pytest.mark.parametrize("made_in", [False, True], ids=["ordinary", "inference"])
@pytest.mark.parametrize("run_in", [False, True], ids=["ordinary", "inference"])
def test_row_114_processors_may_work_in_place(
    tiny_llama: MakeLlama, made_in: bool, run_in: bool
) -> None:
    """This holds at every entrance, and wherever the request is made and run."""
    generator = TextGenerator(tiny_llama())
    settings: Any = {"max_new_tokens": 3, "logits_processors": [in_place]}
    with torch.inference_mode(made_in):
        stream = generator.generate_stream([1, 2, 3], seed=1, **settings)
        batch = BatchGenerator(tiny_llama())
        ticket = batch.submit([1, 2, 3], **settings)
    with torch.inference_mode(run_in):
        assert list(stream) == [7, 7, 7]
        while batch.busy:
            batch.step()
        result = batch.collect()[ticket]
        assert isinstance(result, Generation)
        assert result.ids == (7, 7, 7)
        assert generator.generate([1, 2, 3], **settings).ids == (7, 7, 7)
        rows = generator.generate_batch([[1, 2, 3], [4]], **settings)
        assert [row.ids for row in rows] == [(7, 7, 7)] * 2


def test_row_114_a_processor_may_learn(tiny_llama: MakeLlama) -> None:
    """Gradients of its own, of the scores that it gets."""

    def steer(input_ids: Tensor, scores: Tensor) -> Tensor:
        with torch.enable_grad():
            bias = torch.zeros(scores.shape[1], requires_grad=True)
            [gradient] = torch.autograd.grad((scores + bias)[0, 7] ** 2, bias)
        return scores + gradient.abs() * 1e6

    generator = TextGenerator(tiny_llama())
    settings: Any = {"max_new_tokens": 3, "temperature": 0.0, "logits_processors": [steer]}
    assert generator.generate([1, 2, 3], **settings).ids == (7, 7, 7)
    assert generator.generate_batch([[1, 2, 3]], **settings)[0].ids == (7, 7, 7)


def test_row_103_a_batch_and_a_stream_name_the_processor(tiny_llama: MakeLlama) -> None:
    def grammar(input_ids: Tensor, scores: Tensor) -> Any:
        return None

    generator = TextGenerator(tiny_llama())
    calls: list[tuple[Any, object]] = [
        (generator.generate, [1]),
        (generator.generate_batch, [[1], [2]]),
    ]
    for call, prompt in calls:
        with pytest.raises(
            UsageError, match=r"^logits processor \S*grammar: returned None; return"
        ):
            call(prompt, logits_processors=[grammar])


@pytest.mark.parametrize("processors", [in_place, None, [in_place, "grammar"]], ids=type)
def test_row_103_what_is_no_list_of_processors(processors: Any) -> None:
    with pytest.raises(UsageError, match=r"^logits_processors: is no list .* as \[function\]"):
        TextGenerator(Scripted(counting)).generate([1], logits_processors=processors)


def test_no_tokens_wanted() -> None:
    """The model does not even run."""
    model = says([5], 1)
    result = TextGenerator(model).generate([1], GREEDY, max_new_tokens=0)
    assert result == Generation(ids=(), text=None, finish_reason="length")
    assert model.batches == []


@pytest.mark.parametrize("eos", [9, 7, 8])
def test_each_end_token_ends_it(eos: int, byte_level: Tokenizer) -> None:
    """Those of the checkpoint, and the tokenizer's."""
    [own] = byte_level.eos_ids
    for tokenizer, end in ((None, eos), (byte_level, eos), (byte_level, own)):
        model = says([5, 6, end, 5], 1, eos_ids=[7, 8, 9])
        result = TextGenerator(model, tokenizer).generate([1], GREEDY)
        assert (result.ids, result.finish_reason) == ((5, 6), "eos")
        assert len(model.batches) == 3


def test_end_tokens_can_be_ignored() -> None:
    model = says([5, 9, 9, 6], 1, eos_ids=[9])
    result = TextGenerator(model).generate([1], GREEDY, ignore_eos=True, max_new_tokens=4)
    assert (result.ids, result.finish_reason) == ((5, 9, 9, 6), "length")


def test_the_first_token_may_be_the_end() -> None:
    result = TextGenerator(says([9], 1, eos_ids=[9])).generate([1], GREEDY)
    assert (result.ids, result.finish_reason) == ((), "eos")


def test_the_context_fills() -> None:
    model = Scripted(counting, max_seq_len=8)
    result = TextGenerator(model).generate([1, 2, 3], GREEDY)
    assert result == Generation(
        ids=(4, 5, 6, 7, 8), text=None, finish_reason="length", context_full=True
    )
    as_wanted = TextGenerator(model).generate([1, 2, 3], GREEDY, max_new_tokens=5)
    assert not as_wanted.context_full


def test_a_prompt_as_long_as_the_context() -> None:
    model = Scripted(counting, max_seq_len=4)
    result = TextGenerator(model).generate([1, 2, 3, 4], GREEDY)
    assert result == Generation(ids=(), text=None, finish_reason="length", context_full=True)


def test_a_prompt_over_the_context_is_refused_at_once() -> None:
    """The error gives both counts, and nothing is cut."""
    generator = TextGenerator(Scripted(counting, max_seq_len=4))
    for call in (generator.generate, generator.generate_stream, generator.score):
        with pytest.raises(UsageError, match=r"5 tokens.* 4 "):
            call([1, 2, 3, 4, 5])
    with pytest.raises(UsageError, match=r"5 tokens.* 4 "):
        generator.generate_batch([[1], [1, 2, 3, 4, 5]])


def test_a_picture_takes_room() -> None:
    """More positions than ids: the generation is shorter, and the cache does not overflow."""
    model = Scripted(counting, max_seq_len=12, widen=5)
    result = TextGenerator(model).generate([1, 2], GREEDY)
    assert result == Generation(
        ids=(3, 4, 5, 6, 7), text=None, finish_reason="length", context_full=True
    )
    full = Scripted(counting, max_seq_len=7, widen=5)
    assert TextGenerator(full).generate([1, 2], GREEDY).context_full
    with pytest.raises(UsageError, match=r"8 tokens.* 7 "):
        TextGenerator(full).generate([1, 2, 3], GREEDY)
    batch = TextGenerator(full).generate_batch([[1, 2], [1]], GREEDY)
    assert [row.ids for row in batch] == [(), (2,)]


def test_the_cache_is_as_large_as_needed() -> None:
    """It is smaller than the whole context."""
    model = Scripted(counting, max_seq_len=100_000)
    prefixes = PrefixCache(0)
    generator = TextGenerator(model, prefix_cache=prefixes)
    tokens = iter(generator.generate_stream([1] * (PAGE - 1), max_new_tokens=90_000))
    pages = []
    for _ in range(PAGE + 2):
        next(tokens)
        pages.append(prefixes.memory_of(model).used_bytes // model.make_cache(1, PAGE).nbytes)
    assert pages == [1, 1, *[2] * PAGE]


def test_memory_is_made_once_for_many_texts(tiny_llama: MakeLlama) -> None:
    """Each finds nothing of those before in it, and it keeps neither a model nor what one was before."""
    model = tiny_llama()
    generator, prompt = TextGenerator(model), [5] * 20

    first = generator.generate(prompt, GREEDY)
    [memory] = generator._idle
    assert memory.used_bytes == memory.idle_bytes == 0
    assert generator.generate(prompt, GREEDY) == first and first.cached_tokens == 0
    with generator.generate_stream(prompt, GREEDY) as stream:
        next(iter(stream))  # and is dropped
    assert generator._idle == [memory] and memory.used_bytes == memory.idle_bytes == 0
    with torch.no_grad():
        model.get_parameter("layers.0.attention.k_proj.weight").mul_(3)
    changed = generator.generate(prompt, GREEDY)
    assert changed == TextGenerator(model).generate(prompt, GREEDY)
    assert memory not in generator._idle
    gone = weakref.ref(model)
    [memory], other = generator._idle, weakref.ref(runner_of(model))
    del generator, model
    gc.collect()
    assert gone() is None and other() is None and memory.model is None


def test_threads_may_share_a_generator(tiny_llama: MakeLlama) -> None:
    """Each text has a memory of its own, whoever takes the one that is kept."""
    generator = TextGenerator(tiny_llama())
    prompts = [[number + 1] * 5 for number in range(6)]
    expected = [generator.generate(ids, GREEDY).ids for ids in prompts]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            for _ in range(10):
                results = pool.map(lambda ids: generator.generate(ids, GREEDY).ids, prompts)
                assert [*results] == expected
    finally:
        sys.setswitchinterval(interval)


def test_nothing_is_recorded_for_training(tiny_llama: MakeLlama) -> None:
    model = tiny_llama().requires_grad_(True)
    seen = []

    def look(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(scores.requires_grad)
        return scores

    TextGenerator(model).generate([1], GREEDY, logits_processors=[look], max_new_tokens=3)
    assert seen == [False] * 3


# ---------------------------------------------------------------------------------------- settings


def test_the_authors_settings_are_the_defaults() -> None:
    model = says([5], 1)
    model.generation_defaults = GenerationDefaults(sampling={"temperature": 0.0, "top_k": 3})
    generator = TextGenerator(model)
    assert generator.generate([1], max_new_tokens=1, repetition_penalty=1.0).ids == (5,)
    factory = RequestFactory(model, None)
    [(request, _)] = factory.requests([[1]], [None], (), {"top_k": 4})
    chosen = request.config
    assert (chosen.temperature, chosen.top_k, chosen.top_p) == (0.0, 4, 0.9)
    [(request, _)] = factory.requests([[1]], [GenerationConfig()], (), {})
    assert request.config == GenerationConfig()


@pytest.mark.parametrize("sampling", [{"temperature": -1.0}, {"top_k": 2.5}, {"no_such": 1.0}])
def test_damaged_settings_of_a_checkpoint(sampling: dict[str, float]) -> None:
    model = says([5], 1)
    model.generation_defaults = GenerationDefaults(sampling=sampling)
    with pytest.raises(ModelError, match="sampling defaults"):
        TextGenerator(model).generate([1])
    assert TextGenerator(model).generate([1], GREEDY, max_new_tokens=1).ids == (5,)


def test_unknown_settings_are_refused(tiny_llama: MakeLlama) -> None:
    for model in (tiny_llama(), says([5], 1)):
        generator = TextGenerator(model)
        with pytest.raises(UsageError, match="tempreature"):
            generator.generate([1], tempreature=0.5)  # type: ignore[call-arg]
        with pytest.raises(UsageError, match="pixel_values"):
            generator.generate_batch([[1], [2]], GREEDY, pixel_values=torch.zeros(1))
        with pytest.raises(UsageError, match=r"^top_p: 3\.0 is not"):
            generator.generate_stream([1], top_p=3.0)


def test_ids_past_the_tokenizers_are_never_chosen() -> None:
    scores = torch.zeros(600)
    scores[590], scores[7] = 9.0, 5.0
    model = Scripted(lambda history: scores)
    model.generation_defaults = GenerationDefaults(vocab_size=500)
    assert TextGenerator(model).generate([1], GREEDY, max_new_tokens=2).ids == (7, 7)


def test_processors_of_transformers_plug_in(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    plain = TextGenerator(model).generate([1, 2], GREEDY).ids
    processors = [
        transformers.SuppressTokensLogitsProcessor([plain[0]], device="cpu"),
        transformers.NoRepeatNGramLogitsProcessor(1),
    ]
    result = TextGenerator(model).generate([1, 2], GREEDY, logits_processors=processors).ids
    assert plain[0] not in result
    assert len({1, 2, *result}) == len(result) + 2


def test_processors_see_the_history_and_come_first() -> None:
    seen: list[list[int]] = []

    def look(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(input_ids[0].tolist())
        assert scores.max() == 50.0  # not yet biased
        return scores

    TextGenerator(Scripted(counting)).generate(
        [1, 2],
        GREEDY,
        logits_processors=[look],
        max_new_tokens=3,
        logit_bias={3: 1.0, 4: 1.0, 5: 1.0},
    )
    assert seen == [[1, 2], [1, 2, 3], [1, 2, 3, 4]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("config", [GREEDY, GenerationConfig(seed=1)], ids=["greedy", "sampled"])
def test_logits_gone_wrong(value: float, step: int, config: GenerationConfig) -> None:
    def follow(history: list[int]) -> int | Tensor:
        return counting(history) if len(history) < step + 2 else torch.full((600,), value)

    with pytest.raises(ModelError, match=f"non-finite logits at step {step} "):
        TextGenerator(Scripted(follow)).generate([1, 2], config)


# ------------------------------------------------------------------------------------------- batches


def random_prompts(count: int, seed: int, longest: int = 20) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(400) for _ in range(draw.randrange(1, longest))] for _ in range(count)]


def varied(count: int) -> list[GenerationConfig]:
    """A config of its own for each row."""
    return [
        GenerationConfig(
            seed=row,
            temperature=0.0 if row % 3 == 0 else 0.5 + row / 8,
            max_new_tokens=(7 * row) % 23,
            top_k=row % 4 * 20,
            repetition_penalty=1.0 + row % 2 / 5,
            frequency_penalty=row % 5 / 10,
        )
        for row in range(count)
    ]


@pytest.mark.parametrize("count", [2, 4, 8, 100])
def test_rows_of_a_batch_are_as_if_alone(tiny_llama: MakeLlama, count: int) -> None:
    """Rows differ in length and settings, end at different times, and come in any order."""
    model = tiny_llama()
    model.generation_defaults = GenerationDefaults(eos_ids=frozenset(range(0, 400, 15)))
    generator = TextGenerator(model)
    prompts, configs = random_prompts(count, seed=count), varied(count)
    alone = [
        generator.generate(prompt, config) for prompt, config in zip(prompts, configs, strict=True)
    ]
    if count >= 8:
        assert {row.finish_reason for row in alone} == {"eos", "length"}
    for seed in range(3 if count < 100 else 1):
        order = random.Random(seed).sample(range(count), count)
        batch = generator.generate_batch([prompts[i] for i in order], [configs[i] for i in order])
        assert batch == [alone[i] for i in order]


def test_a_batch_with_texts(tiny_llama: MakeLlama, byte_level: Tokenizer) -> None:
    generator = TextGenerator(tiny_llama(vocab_size=byte_level.vocab_size), byte_level)
    prompts = [byte_level.encode(text) for text in ("hello", "a little girl called", "漢")]
    configs = [
        GenerationConfig.sampling(seed=i, stop=("e", "\n"), max_new_tokens=30) for i in range(3)
    ]
    batch = generator.generate_batch(prompts, configs)
    assert batch == [generator.generate(*row) for row in zip(prompts, configs, strict=True)]


def test_one_config_for_all_rows(tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama())
    config = GenerationConfig.sampling(seed=3, max_new_tokens=5)
    same = generator.generate_batch([[1, 2], [1, 2]], config)
    assert same[0] == same[1] == generator.generate([1, 2], config)
    by_name = generator.generate_batch(torch.tensor([[1, 2], [1, 2]]), seed=3, max_new_tokens=5)  # type: ignore[arg-type]
    assert by_name[0] == generator.generate([1, 2], seed=3, max_new_tokens=5)


def test_a_row_that_has_ended_takes_no_more_time() -> None:
    model = Scripted(counting, eos_ids=[20, 40, 60])
    prompts = [[55], [17], [1], [59]]
    results = TextGenerator(model).generate_batch(prompts, GREEDY)
    assert [len(row.ids) for row in results] == [4, 2, 12, 0]
    assert [row.ids for row in results] == [
        tuple(range(56, 60)),
        tuple(range(18, 20)),
        tuple(range(2, 14)),
        (),
    ]
    assert model.batches == [4, 3, 3, 2, 2, *[1] * 7]


def test_batches_of_nothing() -> None:
    model = Scripted(counting)
    generator = TextGenerator(model)
    assert generator.generate_batch([]) == []
    none = generator.generate_batch([[1], [2]], GREEDY, max_new_tokens=0)
    assert [row.ids for row in none] == [(), ()]
    assert model.batches == []
    some = generator.generate_batch([[1], [2]], [GREEDY.with_settings(max_new_tokens=0), GREEDY])
    assert [len(row.ids) for row in some] == [0, 12]
    with pytest.raises(UsageError, match="1 configs for 2 prompts"):
        generator.generate_batch([[1], [2]], [GREEDY])


# -------------------------------------------------------------------------------------- text and stops

TEXT = "Once upon a time, naïve 漢字 🙂👍🏽 café – the end.\n\nUser: so"


def check_streams(
    generator: TextGenerator, prompt: list[int], config: GenerationConfig
) -> Generation:
    """Ids and pieces as they come are those of the result, and fit together."""
    result = generator.generate(prompt, config)
    ids = generator.generate_stream(prompt, config)
    assert tuple(ids) == result.ids
    assert ids.result == result
    pieces = generator.generate_stream(prompt, config)
    assert "".join(pieces.text()) == result.text
    assert pieces.result == result
    return result


def test_text_follows_on_the_prompts(tokenizer: Tokenizer) -> None:
    whole = tokenizer.encode(TEXT)
    for cut in range(1, len(whole)):
        prompt, new = whole[:cut], whole[cut:]
        generator = TextGenerator(says(new, cut), tokenizer)
        config = GenerationConfig.greedy(max_new_tokens=len(new))
        result = check_streams(generator, prompt, config)
        assert result.ids == tuple(new)
        assert result.text is not None
        before = tokenizer.decode(prompt)
        assert before.rstrip("\ufffd") + result.text == TEXT


def test_stop_texts_anywhere_leak_nothing(tokenizer: Tokenizer) -> None:
    """Neither in the text nor in the ids given out."""
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    prompt = tokenizer.encode("", add_special_tokens=True)
    generator = TextGenerator(says(ids, len(prompt)), tokenizer)
    for start in range(len(TEXT)):
        for length in (1, 2, 9):
            stop = TEXT[start : start + length]
            config = GenerationConfig.greedy(max_new_tokens=len(ids), stop=(stop, "not in it"))
            result = check_streams(generator, prompt, config)
            before = TEXT[: TEXT.find(stop)]
            assert (result.text, result.finish_reason) == (before, "stop"), stop
            assert result.stop_text == stop
            given = tokenizer.decode(result.ids)
            assert before.startswith(given.rstrip("\ufffd")), stop
            assert list(result.ids) == ids[: len(result.ids)]


def test_ids_before_a_stop_text_are_given_out(byte_level: Tokenizer) -> None:
    """Only ids that touch it are held back."""
    ids = [byte_level.encode(c, add_special_tokens=False)[0] for c in "hello STOP there"]
    result = TextGenerator(says(ids, 1), byte_level).generate([1], GREEDY, stop="STOP")
    assert list(result.ids) == ids[:6]


def test_a_stop_text_that_only_the_end_makes_certain(byte_fallback: Tokenizer) -> None:
    ids = byte_fallback.encode("fox 漢", add_special_tokens=False)
    for end, reason in (([2], "eos"), ([], "length")):
        generator = TextGenerator(says([*ids, *end], 1), byte_fallback)
        config = GenerationConfig.greedy(max_new_tokens=len(ids) + len(end), stop=("漢",))
        result = check_streams(generator, [1], config)
        assert (result.text, result.finish_reason) == ("fox ", "stop"), reason
        assert byte_fallback.decode(result.ids) == "fox "


def test_an_unfinished_character_at_the_end_is_given_out(tokenizer: Tokenizer) -> None:
    """As the decode of all ids shows it; a stop text that did not come takes nothing away."""
    ids = tokenizer.encode("fox 🙂", add_special_tokens=False)[:-1]
    prompt = tokenizer.encode("")
    generator = TextGenerator(says(ids, len(prompt)), tokenizer)
    config = GenerationConfig.greedy(max_new_tokens=len(ids), stop=("stop",))
    result = check_streams(generator, prompt, config)
    assert list(result.ids) == ids
    assert result.text == tokenizer.decode(ids)
    assert (result.text or "").endswith("\ufffd")


def test_what_only_looked_like_a_stop_text_is_given_out(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a fox sto", add_special_tokens=False)
    prompt = tokenizer.encode("")
    generator = TextGenerator(says(ids, len(prompt)), tokenizer)
    config = GenerationConfig.greedy(max_new_tokens=len(ids), stop="stop")
    result = check_streams(generator, prompt, config)
    assert result == Generation(ids=tuple(ids), text="a fox sto", finish_reason="length")


def test_ids_are_held_back_while_they_may_belong_to_a_stop_text(byte_level: Tokenizer) -> None:
    ids = [byte_level.encode(c, add_special_tokens=False)[0] for c in "xabyabc"]
    model = says(ids, 1)
    stream = TextGenerator(model, byte_level).generate_stream([400], GREEDY, stop="abc")
    given = [(byte_level.decode(token_id), len(model.batches)) for token_id in stream]
    assert given == [("x", 1), ("a", 4), ("b", 4), ("y", 4)]


def test_stops_and_texts_need_a_tokenizer() -> None:
    generator = TextGenerator(Scripted(counting))
    with pytest.raises(UsageError, match=r"^stop: stop texts"):
        generator.generate_stream([1], stop="x")
    with pytest.raises(UsageError, match="tokenizer"):
        generator.generate_stream([1]).text()


# ------------------------------------------------------------------------------------- interruptions


def test_tokens_come_one_by_one() -> None:
    model = Scripted(counting)
    stream = TextGenerator(model).generate_stream([1], GREEDY)
    assert model.batches == []
    for step, token_id in enumerate(stream):
        assert token_id == step + 2
        assert len(model.batches) == step + 1


@pytest.mark.parametrize("way", ["dropped", "closed", "left", "broken off", "never begun"])
def test_row_66_a_stream_ended_early_frees_its_cache(way: str) -> None:
    model = Scripted(counting)
    stream = TextGenerator(model).generate_stream([1], GREEDY)
    tokens = iter(stream)
    if way != "never begun":
        assert [next(tokens), next(tokens)] == [2, 3]
    if way == "closed":
        stream.close()
        assert list(stream) == [2, 3]  # and no more
        assert stream.result is None
    elif way == "left":
        with stream:
            pass
    elif way == "broken off":
        with pytest.raises(ZeroDivisionError), stream:
            _ = 1 / 0
    if way in ("dropped", "never begun"):
        del stream, tokens
    gc.collect()
    assert all(cache() is None for cache in model.caches)


def test_a_stream_left_by_break_ends() -> None:
    model = Scripted(counting)
    stream = TextGenerator(model).generate_stream([1], GREEDY)
    for _ in stream:
        break
    gc.collect()
    assert model.caches[0]() is None
    assert list(stream) == [2]
    assert stream.result is None


def test_a_stream_that_failed_stays_ended() -> None:
    stream = TextGenerator(Scripted(lambda history: torch.full((600,), math.nan))).generate_stream(
        [1], GREEDY
    )
    with pytest.raises(ModelError):
        list(stream)
    assert list(stream) == []
    assert stream.result is None


class Interrupting:
    """Stands in for a function; raises at the n-th call, before or after doing it."""

    def __init__(self, function: Callable[..., Any], at: int, after: bool) -> None:
        self.function, self.left, self.after = function, at, after

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        result = self.function(*args, **options)
        if self.left == 0:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("model", "embed"),
        ("model", "make_cache"),
        ("runner", "forward_embeds"),
        ("runner", "_run_blocks"),
        ("tokenizer", "decode"),
    ],
)
def test_interrupted_at_any_step(
    owner: str,
    name: str,
    after: bool,
    tiny_llama: MakeLlama,
    byte_level: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next generation equals a fresh one."""
    model = tiny_llama(vocab_size=byte_level.vocab_size)
    generator = TextGenerator(model, byte_level)
    target = {"model": model, "runner": runner_of(model), "tokenizer": byte_level}[owner]
    config = GenerationConfig(seed=5, max_new_tokens=8, stop=("zzz",))
    prompts = [byte_level.encode("hello"), byte_level.encode("a fox")]
    fresh = generator.generate_batch(prompts, config)
    for at in range(1, 50):
        with monkeypatch.context() as patch:
            function = Interrupting(getattr(target, name), at, after)
            patch.setattr(target, name, function)
            try:
                generator.generate_batch(prompts, config)
            except KeyboardInterrupt:
                pass
            else:
                assert function.left > 0  # it was not called so often
                break
        assert generator.generate_batch(prompts, config) == fresh
    else:
        pytest.fail("it should have run to its end")
    assert at > 1


OUT_OF_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
)


def exhausted(step: int, error: BaseException) -> Scripted:
    def follow(history: list[int]) -> int:
        if len(history) == step + 1:
            raise error
        return counting(history)

    return Scripted(follow)


@pytest.mark.parametrize("step", [0, 4], ids=["prefill", "decode"])
def test_row_67_out_of_memory(step: int) -> None:
    model = exhausted(step, RuntimeError(OUT_OF_MEMORY))
    with pytest.raises(ResourceError, match=r"4503599\.6 GB more needed, [\d.]+ GB free") as caught:
        TextGenerator(model).generate([1], GREEDY)
    assert caught.value.exit_code == 6


def test_row_67_out_of_memory_while_scoring(
    tiny_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama()

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError(OUT_OF_MEMORY)

    monkeypatch.setattr(model, "forward_embeds", fail)
    with pytest.raises(ResourceError, match="GB free"):
        TextGenerator(model).score([1, 2, 3])


def test_row_67_out_of_memory_for_real() -> None:
    """2^50 bytes, which the allocator refuses by itself."""

    class Greedy(Scripted):
        def embed(self, input_ids: Tensor) -> Tensor:
            return torch.empty(1 << 48, dtype=torch.float32)

    with pytest.raises(ResourceError, match=r"1125899\.9 GB more needed"):
        TextGenerator(Greedy(counting)).generate([1], GREEDY)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        TextGenerator(exhausted(2, RuntimeError("shapes cannot be multiplied"))).generate(
            [1], GREEDY
        )


# ------------------------------------------------------------------------------------------ scoring


@pytest.mark.parametrize("length", [2, 3, 512, 513, 514, 1100])
def test_score(tiny_llama: MakeLlama, length: int) -> None:
    """Against the softmax of all logits at once; longer texts are scored in chunks."""
    model = tiny_llama(max_seq_len=1100)
    ids = torch.randint(0, 400, (1, length), generator=torch.Generator().manual_seed(length))
    expected = model(ids)[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    scores = TextGenerator(model).score(ids)
    assert scores.dtype == torch.float32 and scores.shape == (length - 1,)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(scores, TextGenerator(model).score(ids[0].tolist()))


def test_scoring_needs_something_to_score(tiny_llama: MakeLlama) -> None:
    with pytest.raises(UsageError, match="two tokens"):
        TextGenerator(tiny_llama()).score([1])


def test_a_text_alone_has_memory_for_itself(tiny_llama: MakeLlama) -> None:
    """It is kept for the next one, if that needs no more."""
    model = tiny_llama()
    generator = TextGenerator(model)

    def kept_after(length: int) -> RowMemory:
        generator.generate([3, 4, 5], max_new_tokens=length, ignore_eos=True)
        [memory] = generator._idle
        return memory

    first = kept_after(6)
    assert (first.positions, model.max_seq_len > 9) == (9, True)
    assert kept_after(2) is first
    longer = kept_after(8)
    assert (longer is first, longer.positions) == (False, 11)


def test_row_368_what_is_no_model_no_tokenizer_and_no_cache(
    tiny_llama: Callable[..., Llama], tmp_path: Path
) -> None:
    model = tiny_llama()
    generator, engine, prefix_cache = (
        cast(Any, kind) for kind in (TextGenerator, Engine, PrefixCache)
    )
    for wrong in ("demo", None, TextGenerator(model)):
        for kind in (generator, engine):
            with pytest.raises(UsageError, match="is no model; give what load_model"):
                kind(wrong)
    with pytest.raises(UsageError, match="'demo' is no tokenizer; give"):
        generator(model, "demo")
    for cache in (True, 1000):
        with pytest.raises(UsageError, match=r"prefix_cache: .* is no PrefixCache; give"):
            generator(model, prefix_cache=cache)
    for size in ("1GB", None, 1e6, float("inf"), True, -1):
        with pytest.raises(UsageError, match=r"max_bytes: is .*; give a whole number of bytes"):
            prefix_cache(size)
    with pytest.raises(
        ModelError, match="does not exist; check the path, or call it with missing_ok=T"
    ):
        PrefixCache(1).load(tmp_path / "none", model)
