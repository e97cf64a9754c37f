"""Everything on an NVIDIA GPU: the answers of the CPU, and recorded steps that wait for nothing."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from lolama import TextGenerator, load_model, load_tokenizer
from lolama.model import quantize_model_int4, quantize_model_int8
from lolama.names import resolve
from lolama.vision import processor_of
from lolama.wiring import load_files, tokenizer_of
from lolama_core import BatchGenerator, Llama, LlamaConfig, PrefixCache, decoder_in_use
from lolama_core.model.device import choose_dtype, memory_errors
from lolama_core.protocols.errors import ResourceError
from lolama_core.protocols.types import Message
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import Runner, runner_of
from lolama_quant import Int8Linear
from lolama_quant.cpu.library import native_library
from lolama_quant.triton.decoder_kernel import TritonDecoderKernel
from lolama_vision import LLaVA

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "d_model": 64,
    "num_heads": 8,
    "num_kv_heads": 4,
    "num_layers": 3,
    "hidden_dim": 172,
    "max_seq_len": 4096,
}
SHAPES: list[dict[str, Any]] = [
    {},
    {"num_kv_heads": 8},
    {"num_kv_heads": 1, "attention_bias": True},
    {"sliding_window": 50},
    {"head_dim": 20, "tie_word_embeddings": True},
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def make_model(**shape: Any) -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig(**{**SHAPE, **shape})).eval().requires_grad_(False)


def close(result: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether they differ by what rounding to ``dtype`` between products does."""
    assert result.shape == expected.shape
    difference = (result.cpu() - expected.cpu()).double().norm() / expected.double().norm().cpu()
    return bool(difference < (1e-5 if dtype == torch.float32 else 2e-2))


def ids_of(*size: int) -> torch.Tensor:
    return torch.randint(0, 300, size, generator=torch.manual_seed(1))


def read(memory: RowMemory, ids: torch.Tensor) -> Row:
    """A row that has run (1, T) ids."""
    row, model = Row(), memory.model
    assert model is not None and memory.begin(row, [], ids.shape[1] + 1, 400)
    memory.run([row], model.embed(ids.cuda()), [ids.shape[1]])
    return row


def recordings(memory: RowMemory | None) -> int:
    assert memory is not None and memory.recorded is not None
    return memory.recorded.recordings


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_the_cpu(shape: dict[str, Any]) -> None:
    model = make_model(**shape)
    ids = ids_of(3, 120)
    expected = model(ids)
    model = model.cuda()
    ids = ids.cuda()
    torch.testing.assert_close(model(ids).cpu(), expected, atol=2e-5, rtol=1e-4)
    cache = model.make_cache(3, 120)
    for first, last in ((0, 100), (100, 119), (119, 120)):
        logits = model.forward_embeds(model.embed(ids[:, first:last]), cache)
        cache.advance([last - first] * 3)
        torch.testing.assert_close(logits.cpu(), expected[:, last - 1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kernels", [[], [TritonDecoderKernel()]], ids=["blocks", "kernel"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_recorded_step_is_a_step(
    shape: dict[str, Any], dtype: torch.dtype, kernels: list[TritonDecoderKernel]
) -> None:
    model, same = (make_model(**shape).to(dtype).cuda() for _ in range(2))
    runner = Runner(model, Kernels(decoder=kernels))
    assert bool(runner.native) == bool(kernels)
    recorded, plain = RowMemory(runner), RowMemory(same, record=False)
    with torch.inference_mode():
        for length in (1, 49, 50, 300):
            row, other = read(recorded, ids_of(1, length)), read(plain, ids_of(1, length))
            for token in (3, 299, 0, 17):
                logits = recorded.decode([row], [token])
                assert close(logits, plain.decode([other], [token]), dtype)
            assert recorded.held(row) == plain.held(other) == length + 4
            recorded.end(row)
            plain.end(other)
    assert recordings(recorded) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_recorded_steps_of_several_rows(shape: dict[str, Any], dtype: torch.dtype) -> None:
    """They have any lengths. Their number is filled up to a power of two. Pages grow meanwhile."""
    model, other = (make_model(**shape).to(dtype).cuda() for _ in range(2))
    recorded, plain = RowMemory(model), RowMemory(other, record=False)
    with torch.inference_mode():
        lengths = (1, 49, 50, 300, 31, 64)
        rows = [read(recorded, ids_of(1, length)) for length in lengths]
        others = [read(plain, ids_of(1, length)) for length in lengths]
        for count in (6, 5, 3, 6, 2, 1, 6):
            tokens = [7 * count + place for place in range(count)]
            logits = recorded.decode(rows[:count], tokens)
            assert close(logits, plain.decode(others[:count], tokens), dtype)
        assert recordings(recorded) == 4
        # These take 104 pages, more than there are at first.
        more = [read(recorded, ids_of(1, 390)) for _ in range(8)]
        logits = recorded.decode(rows, [5] * 6)
        assert close(logits, plain.decode(others, [5] * 6), dtype)
    assert recordings(recorded) == 5 and len(more) == 8


def test_twenty_lengths_of_prompt_need_two_recordings_at_most() -> None:
    model = make_model().cuda()
    generator = TextGenerator(model)
    for length in range(1, 1901, 100):
        generator.generate(ids_of(length).tolist(), max_new_tokens=4, seed=1)
    generator.generate(ids_of(2500).tolist(), max_new_tokens=4, seed=1)
    assert [recordings(memory) for memory in generator._idle] == [2]


def test_a_replayed_step_waits_for_nothing() -> None:
    model = make_model().cuda()
    runner = runner_of(model)
    memory = RowMemory(runner)
    with torch.inference_mode():
        row = read(memory, ids_of(1, 9))
        memory.decode([row], [3])  # recorded
        torch.cuda.set_sync_debug_mode("error")
        try:
            logits = memory.decode([row], [4])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert logits.isfinite().all()


def test_generations_are_those_of_the_cpu() -> None:
    tokenizer = load_tokenizer("demo")
    here, there = (load_model("demo", device=name, dtype="float32") for name in ("cpu", "cuda"))
    for prompt in ("Once upon a time", "Tom has three red balls", "The dog"):
        ids = tokenizer.encode(prompt)
        settings: dict[str, Any] = {"max_new_tokens": 100, "temperature": 0.0}
        expected = TextGenerator(here, tokenizer).generate(ids, **settings)
        assert TextGenerator(there, tokenizer).generate(ids, **settings).ids == expected.ids


def test_rows_of_a_batch_are_as_alone() -> None:
    model = make_model().cuda()
    generator = TextGenerator(model)
    prompts = [ids_of(length).tolist() for length in (3, 40, 7, 100, 12)]
    alone = [generator.generate(ids, max_new_tokens=20, seed=3).ids for ids in prompts]
    together = generator.generate_batch(prompts, max_new_tokens=20, seed=3)
    assert [result.ids for result in together] == alone
    batch = BatchGenerator(model, rows=2)  # rows leave and join
    tickets = [batch.submit(ids, max_new_tokens=20, seed=3) for ids in prompts]
    results: dict[int, Any] = {}
    while len(results) < len(prompts):
        batch.step()
        results.update(batch.collect())
    assert [results[ticket].ids for ticket in tickets] == alone


def test_a_prefix_is_reused() -> None:
    model = make_model().cuda()
    cached = TextGenerator(model, prefix_cache=PrefixCache(1 << 24))
    ids = ids_of(200).tolist()
    cached.generate(ids[:150], max_new_tokens=1, seed=0)
    result = cached.generate(ids, max_new_tokens=20, seed=0)
    assert result.cached_tokens == 150
    assert result.ids == TextGenerator(model).generate(ids, max_new_tokens=20, seed=0).ids


@pytest.mark.parametrize("dtype", DTYPES)
def test_int8_is_that_of_the_cpu(dtype: torch.dtype) -> None:
    model = make_model(attention_bias=True)
    generator = torch.manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / 8)
    quantize_model_int8(model)
    wide = copy.deepcopy(model)
    for module in list(wide.modules()):
        for name, child in module.named_children():
            if isinstance(child, Int8Linear):
                plain = nn.Linear(child.in_features, child.out_features, child.bias is not None)
                plain.weight.data = child.weight.float() * child.scale[:, None]
                if child.bias is not None:
                    plain.bias.data = child.bias.data
                setattr(module, name, plain)
    expected = wide(ids_of(2, 40))
    there = model.to(dtype).cuda()
    assert close(there(ids_of(2, 40).cuda()), expected, dtype)
    for kernels in ([], [TritonDecoderKernel()]):
        runner = Runner(there, Kernels(decoder=kernels))
        memory = RowMemory(runner)
        with torch.inference_mode():
            row = read(memory, ids_of(2, 40)[:1, :39])
            logits = memory.decode([row], [int(ids_of(2, 40)[0, 39])])
        assert close(logits, expected[:1, -1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_four_bits_are_multiplied_as_widened(dtype: torch.dtype) -> None:
    model = make_model(attention_bias=True)
    generator = torch.manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / 8)
    quantize_model_int4(model)
    model.to(dtype).cuda()
    ids, runner = ids_of(1, 40), Runner(model, Kernels.installed())
    memory = RowMemory(runner)
    with torch.inference_mode():
        expected = model(ids.cuda())  # by itself, without a kernel
        logits = memory.decode([read(memory, ids[:, :39])], [int(ids[0, 39])])
    assert close(logits, expected[:, -1], dtype)


def test_what_was_recorded_is_recorded_again_when_the_model_changes() -> None:
    model = make_model().cuda()
    generator = TextGenerator(model)
    settings: dict[str, Any] = {"max_new_tokens": 20, "temperature": 0.0}
    before = generator.generate(ids_of(9).tolist(), **settings).ids
    model.get_submodule("layers.1.attention").v_proj = nn.Linear(64, 32, bias=False, device="cuda")
    changed = generator.generate(ids_of(9).tolist(), **settings).ids
    assert changed == TextGenerator(model).generate(ids_of(9).tolist(), **settings).ids != before


@pytest.mark.skipif(isinstance(native_library(), str), reason="there is no native library")
def test_a_model_may_move() -> None:
    settings: dict[str, Any] = {"max_new_tokens": 30, "temperature": 0.0}
    ids = list(range(5, 60))
    model = cast(Llama, load_model("demo", device="cpu", dtype="float32"))
    expected = TextGenerator(model).generate(ids, **settings).ids
    for device, kernel in (("cuda", "triton"), ("cpu", "native")):
        model.to(device)
        assert TextGenerator(model).generate(ids, **settings).ids == expected
        found = decoder_in_use(model)
        assert found is not None and found.name == kernel


def test_logits_are_not_rounded_to_sixteen_bits() -> None:
    model = make_model().to(torch.bfloat16).cuda()
    logits = model(ids_of(1, 30).cuda())
    assert not torch.equal(logits, logits.bfloat16().float())


@pytest.mark.parametrize("quantize", [False, True])
def test_pictures(quantize: bool) -> None:
    picture = Image.new("RGB", (120, 100), "white")
    ImageDraw.Draw(picture).ellipse((20, 30, 60, 70), fill="red")
    files = resolve("demo-vision")
    tokenizer, processor = tokenizer_of(files), processor_of(files)
    assert processor is not None
    asked: Message = {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "What is in the picture?"}],
    }
    ids = tokenizer.render_chat([asked])
    answers = []
    for device in ("cpu", "cuda"):
        model = load_files(files, device=device, dtype="float32")
        assert isinstance(model, LLaVA)
        if quantize:
            quantize_model_int8(model)
        result = TextGenerator(model, tokenizer).generate(
            ids, max_new_tokens=40, temperature=0.0, **processor.preprocess([picture])
        )
        answers.append(result.text)
        assert model.device.type == device
        assert next(model.vision_tower.parameters()).device.type == "cpu"  # out of the GPU's way
    assert answers[0] == answers[1]


def test_sixteen_bits_are_chosen() -> None:
    assert choose_dtype(None, torch.device("cuda"), torch.float32) in DTYPES[1:]
    model = load_model("demo", device="cuda")
    assert model.dtype in DTYPES[1:]


def test_too_little_memory_is_told() -> None:
    model = make_model(max_seq_len=1 << 24, num_kv_heads=8, head_dim=512).cuda()  # 1.6 TB
    refused = pytest.raises(ResourceError, match=r"memory of cuda.*: .* more needed, .* free")
    with refused, memory_errors(model.device):
        model.make_cache(1, 1 << 24)
    with pytest.raises(ResourceError, match="4,194,304 positions do not fit"):
        TextGenerator(model).generate([1] * (1 << 22), max_new_tokens=1)
    assert len(TextGenerator(model).generate([1, 2], max_new_tokens=5).ids) <= 5


def test_the_command(tmp_path: Path) -> None:
    def lolama(*arguments: str) -> str:
        code = "from lolama_cli.__main__ import main; main()"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, check=True, text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        ).stdout

    told = lolama("generate", "-m", "demo", "--temperature", "0", "Once upon a time")
    assert len(told) > 50
    assert "cuda" in lolama("doctor")
