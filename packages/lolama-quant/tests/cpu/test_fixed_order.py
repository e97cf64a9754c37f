"""A row's logits are the same bits whatever is run with it: float32 and int8, by the native kernels."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import Engine, GenerationConfig
from lolama_core.model.llama import Llama
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.kernels import Kernels, set_kernels
from lolama_core.runtime.pages import PAGE, position_bytes
from lolama_core.runtime.runner import Runner
from lolama_core.testing.decoder_kernel import DecoderKernelSuite, PagedCopy, logits_of_row
from lolama_quant import linear_kernel
from lolama_quant.cpu import decoder, grouped_linear, int8_linear, library, linear
from lolama_quant.cpu.decoder import NativeDecoderKernel
from lolama_quant.cpu.library import NativeLibrary, native_library
from lolama_quant.int8.quantizer import Int8Quantizer
from lolama_quant.linear_kernel import NativeLinearKernel

sys.path.insert(0, str(Path(__file__).parents[1] / "grouped"))
from grouped_layers import mix_formats_

pytestmark = pytest.mark.skipif(
    isinstance(native_library(), str), reason=f"no native library: {native_library()}"
)
SHAPES: dict[str, dict[str, Any]] = {
    "heads of 8": {},
    "heads of 32, biases": {"head_dim": 32, "attention_bias": True, "mlp_bias": True},
    "heads of 64": {"d_model": 192, "num_heads": 3, "num_kv_heads": 3, "hidden_dim": 700},
    "eight heads of 64 share keys": {"head_dim": 64, "num_heads": 8, "num_kv_heads": 1},
    "heads of 80, window": {"head_dim": 80, "sliding_window": 37},
    "heads of 128": {"head_dim": 128, "d_model": 1030, "num_layers": 1},
}
DTYPES = {
    "float32": torch.float32,
    "int8": torch.float32,
    "int8 of bfloat16": torch.bfloat16,
    "all grouped formats": torch.float32,
}


def sets() -> dict[str, tuple[int, int]]:
    """Instruction sets that this processor has: for floats, and for int8."""
    known = native_library()
    if isinstance(known, str):
        return {}
    best = known.instruction_set, known.int8_instruction_set
    x86 = {"AVX2": (1, 1), "AVX-512 without bytes": (2, 1)} if best == (2, 2) else {}
    return {"portable": (0, 0), **x86, "best": best}


@pytest.fixture(params=sets())
def instruction_sets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library, limited to some instruction sets."""
    known = native_library()
    assert isinstance(known, NativeLibrary)
    floats, int8 = sets()[request.param]
    tiled = known.tiled if request.param == "best" else None
    limited = dataclasses.replace(
        known, instruction_set=floats, int8_instruction_set=int8, tiled=tiled
    )
    for module in (library, decoder, linear, int8_linear, grouped_linear, linear_kernel):
        monkeypatch.setattr(module, "native_library", lambda: limited)


def runner(kind: str, head: str, **shape: Any) -> Runner:
    model = DecoderKernelSuite().model(DTYPES[kind], **shape)
    if head == "tied":
        model.lm_head.weight = model.embed_tokens.weight
    if kind == "all grouped formats":
        mix_formats_(model)
    elif kind != "float32":
        skipped = () if head == "int8" else ("lm_head",)
        Int8Quantizer().quantize_(model, QuantizationScheme(name="int8", skipped=skipped))
    KEPT.append(model)
    return Runner(model, Kernels(linear=[NativeLinearKernel()], decoder=[NativeDecoderKernel()]))


KEPT: list[Llama] = []
"""Models that a runner does not keep alive."""


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("float32", "dense"),
        ("float32", "tied"),
        ("int8", "dense"),
        ("int8", "int8"),
        ("int8 of bfloat16", "tied"),
        ("int8 of bfloat16", "int8"),
        ("all grouped formats", "dense"),
    ],
)
def test_row_270_the_logits_of_a_row_alone_and_in_chunks_and_among_others(
    kind: str, head: str, name: str
) -> None:
    same_bits(runner(kind, head, **SHAPES[name]), 140)


@pytest.mark.usefixtures("instruction_sets")
@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", ["heads of 8", "heads of 80, window"])
def test_row_270_on_every_instruction_set(kind: str, name: str) -> None:
    same_bits(runner(kind, "dense", num_layers=2, **SHAPES[name]), 70)


def same_bits(run: Runner, length: int, cache_dtype: CacheDtype | None = None) -> None:
    """The logits of a row, position by position, are those in chunks and among other rows."""
    ids = torch.randint(0, run.vocab_size, (1, length))
    alone = logits_of_row(run, ids, 1, 1, cache_dtype)
    for chunk, rows in ((7, 1), (32, 1), (128, 1), (512, 1), (45, 5)):
        assert torch.equal(logits_of_row(run, ids, chunk, rows, cache_dtype), alone), (chunk, rows)
    for rows in (2, 9, 70):
        assert torch.equal(logits_of_row(run, ids[:, :9], 1, rows, cache_dtype), alone[:9]), rows


@pytest.mark.usefixtures("instruction_sets")
@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_row_270_with_keys_and_values_in_int8(kind: str, name: str) -> None:
    same_bits(runner(kind, "dense", **{"num_layers": 2, **SHAPES[name]}), 140, "int8")


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize(
    ("rows", "chunk", "pages"), [(1, 1, 99), (2, 7, 99), (5, 64, 9), (9, None, 8)]
)
def test_row_270_engines_with_an_int8_cache(
    kind: str, rows: int, chunk: int | None, pages: int
) -> None:
    """Log-probabilities of texts that share beginnings and are put back: the bits of each alone."""
    run = runner(kind, "dense", max_seq_len=256)
    model = KEPT[-1]
    set_kernels(model, Kernels(linear=[NativeLinearKernel()], decoder=[NativeDecoderKernel()]))
    beginning = torch.randint(0, run.vocab_size, (70,)).tolist()
    prompts = [
        [*beginning[:length], place] for place, length in enumerate((70, 70, 40, 3, 64, 0, 69))
    ]
    settings = GenerationConfig.greedy(max_new_tokens=60, ignore_eos=True, logprobs=1)

    def texts(engine: Engine[None], together: list[list[int]]) -> list[Any]:
        tickets = [engine.submit(prompt, settings) for prompt in together]
        while engine.busy:
            engine.step()
        results = engine.collect()
        return [results[ticket] for ticket in tickets]

    alone = [texts(Engine(model, rows=1, cache_dtype="int8"), [prompt])[0] for prompt in prompts]
    page = PAGE * position_bytes(model.make_cache(1, 1), "int8")
    engine = Engine(
        model, rows=rows, prefill_chunk=chunk, cache_bytes=pages * page, cache_dtype="int8"
    )
    for _ in range(2):  # the second time all is known
        for found, expected in zip(texts(engine, prompts), alone, strict=True):
            assert (found.ids, found.logprobs) == (expected.ids, expected.logprobs)
    assert max(result.cached_tokens for result in texts(engine, prompts)) >= 64


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_row_270_the_last_logits_alone_and_on_several_threads(kind: str, threads: int) -> None:
    """The model is so wide that threads share products. The last block runs for last positions alone."""
    run = runner(kind, "dense", d_model=252, hidden_dim=700, vocab_size=900)
    ids, before = torch.randint(0, 900, (3, 150)), torch.get_num_threads()
    expected = torch.stack([logits_of_row(run, row[None], 1)[-1] for row in ids])
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            found = run.forward_embeds(run.embed(ids), run.make_cache(3, 150))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", DTYPES)
@torch.inference_mode()
def test_row_270_a_prompt_that_goes_on_from_pages_of_others(kind: str) -> None:
    """What another prompt left in pages of 32 positions is what the whole prompt would have left."""
    run = runner(kind, "dense")
    ids = torch.randint(0, run.vocab_size, (1, 100))
    whole = logits_of_row(run, ids, 100)
    cache = run.make_cache(1, 100)
    run.forward_embeds(run.embed(ids[:, :64]), cache)
    cache.advance([64])
    paged = PagedCopy(cache, 32)  # type: ignore[arg-type]
    rest = run.forward_embeds(run.embed(ids[:, 64:]), paged, logits="all")
    assert torch.equal(rest[0], whole[64:])


@pytest.mark.usefixtures("instruction_sets")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("outputs", "inputs"), [(3, 7), (50, 64), (70, 1030), (9, 2500)])
def test_row_270_a_row_of_a_product_alone_and_among_others(
    dtype: torch.dtype, outputs: int, inputs: int
) -> None:
    x, bias = torch.randn(50, inputs), torch.randn(outputs)
    weight = torch.randn(outputs, inputs).to(dtype)
    alone = torch.cat([product(x[row : row + 1], weight, bias) for row in range(50)])
    exact = x.double() @ weight.double().T + bias.double()
    # Two parts of bfloat16 have 16 digits, and float32 has 24.
    size = x.double().abs() @ weight.double().abs().T
    digits = 16 if dtype == torch.bfloat16 and has_tiles() else 21
    assert ((alone - exact).abs() <= 2**-digits * size + 1e-6).all()
    for rows in (2, 3, 4, 5, 7, 8, 9, 50):
        assert torch.equal(product(x[:rows], weight, bias), alone[:rows]), rows


def has_tiles() -> bool:
    known = vars(linear)["native_library"]()
    return isinstance(known, NativeLibrary) and known.tiled is not None


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    found = NativeLinearKernel().fixed_linear(x, weight, bias)
    assert found is not None
    return found


def test_weights_that_the_library_cannot_read_have_no_fixed_product() -> None:
    x, kernel = torch.randn(2, 64), NativeLinearKernel()
    for weight in (torch.randn(8, 64).double(), torch.randn(64, 8).T):
        assert kernel.fixed_linear(x, weight, None) is None
