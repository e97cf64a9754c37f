"""The decoding step of Triton's kernels, in Triton's interpreter (`nox -s triton`)."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from lolama_core import Llama
from lolama_core.protocols import DecoderKernel
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import Pages
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import Runner
from lolama_core.testing.decoder_kernel import SHAPES, DecoderKernelSuite, run_by
from lolama_core.testing.switches import SWITCHED
from lolama_quant.int8.quantizer import Int8Quantizer
from lolama_quant.triton import compiler
from lolama_quant.triton.decoder_kernel import TritonDecoderKernel

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NO_TRITON = pytest.mark.skipif(
    not INTERPRETED or find_spec("triton") is None, reason="runs in the session `triton`"
)

TINY = {"d_model": 16, "num_heads": 4, "head_dim": 8, "hidden_dim": 20}
"""The interpreter takes milliseconds for each program of a kernel."""
DECLINED = {name for name, shape in SWITCHED.items() if "num_experts" in shape}


def two_models(weights: str, **shape: Any) -> tuple[Llama, Llama]:
    """A tiny model whose blocks have such weights, and one of float32 with the same numbers."""
    suite = DecoderKernelSuite()
    model, plain = (suite.model(**{**TINY, **shape}) for _ in range(2))
    if weights == "int8":
        Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    for path, module in model.get_submodule("layers").named_modules(prefix="layers"):
        linear = module.get_parameter("weight") if hasattr(module, "in_features") else None
        if linear is None:
            continue
        if weights == "bfloat16":
            linear.data = linear.bfloat16()
        scale = module.get_parameter("scale")[:, None] if weights == "int8" else 1.0
        plain.get_submodule(path).get_parameter("weight").copy_(linear.float() * scale)
    return model, plain


@NO_TRITON
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", [name for name in SWITCHED if name not in DECLINED])
@torch.inference_mode()
def test_row_383_switches_are_computed(name: str, weights: str) -> None:
    """A step behind a prompt of the blocks, with keys of float32: rounding is all that differs."""
    model, plain = two_models(weights, **SWITCHED[name])
    fast = Runner(model, Kernels(decoder=[TritonDecoderKernel("cpu")]))
    assert not fast.reasons
    ids = torch.randint(0, 50, (1, 10))
    cache = plain.make_cache(1, 12)
    plain.forward_embeds(plain.embed(ids[:, :9]), cache)
    cache.advance([9])
    caches = [cache, copy.deepcopy(cache)]
    embeds, ways = plain.embed(ids[:, 9:]), (fast, plain)
    found, expected = (ways[place].forward_embeds(embeds, caches[place]) for place in range(2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for own in caches:
        own.advance([1])
    for (keys, values), (own_keys, own_values) in zip(
        *(own.read_row(0) for own in caches), strict=True
    ):
        torch.testing.assert_close(keys, own_keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(values, own_values, atol=1e-5, rtol=1e-5)


@NO_TRITON
@pytest.mark.parametrize("name", ["norm of each head", "queries by position", "softcaps"])
@torch.inference_mode()
def test_row_383_switches_with_keys_and_values_of_int8(name: str) -> None:
    """There is one block alone, since another order of sums may move a code, which the next one would see."""
    model, _ = two_models("float32", **SWITCHED[name], num_layers=1)
    fast = run_by(TritonDecoderKernel("cpu"), model)
    ids = torch.randint(0, 50, (1, 11))
    results = []
    for one in (model, fast):
        row = Row()
        cache = PagedCache(Pages(model.make_cache(1, 1), 4, cache_dtype="int8"), [row])
        model.forward_embeds(model.embed(ids[:, :9]), cache)
        cache.advance([9])
        for place in (9, 10):
            results.append(one.forward_embeds(model.embed(ids[:, place : place + 1]), cache))
            cache.advance([1])
    torch.testing.assert_close(results[2:], results[:2], atol=1e-4, rtol=1e-4)


@NO_TRITON
@pytest.mark.parametrize("name", sorted(DECLINED))
def test_row_383_experts_are_declined_by_name(name: str) -> None:
    model = DecoderKernelSuite().model(**SWITCHED[name])
    runner = Runner(model, Kernels(decoder=[TritonDecoderKernel("cpu")]))
    mixtures = set(range(3)) - set(SWITCHED[name].get("dense_layers", ()))
    assert runner.reasons.keys() == mixtures and runner.native.keys() == set(range(3)) - mixtures
    assert set(runner.reasons.values()) == {"no kernel knows its num_experts"}


@NO_TRITON
class TestTritonDecoderKernel(DecoderKernelSuite):
    @pytest.fixture
    def kernel(self) -> DecoderKernel:
        return TritonDecoderKernel("cpu")

    @pytest.mark.parametrize("dtype", [torch.float16])  # the interpreter cannot multiply bfloat16
    def test_sixteen_bits(self, kernel: DecoderKernel, dtype: torch.dtype) -> None:
        """See the suite."""
        super().test_sixteen_bits(kernel, dtype)

    @pytest.mark.parametrize("length", [64, 257])
    def test_long_contexts(self, kernel: DecoderKernel, length: int) -> None:
        """More keys than one part has; the interpreter is too slow for many more."""
        super().test_long_contexts(kernel, length)

    @pytest.mark.parametrize("name", ["grouped heads", "biases"])
    def test_equals_the_blocks_with_int8(self, kernel: DecoderKernel, name: str) -> None:
        """Weights of eight bits, against the blocks with the same weights in float32."""
        model, plain = two_models("int8", **SHAPES[name])
        prompt, token = torch.randint(0, 50, (1, 9)), torch.tensor([[4]])
        results = []
        with torch.inference_mode():
            for one in (run_by(kernel, model), plain):
                cache = one.make_cache(1, 12)
                for place in range(9):  # one by one, so that the kernel runs the prompt as well
                    one.forward_embeds(one.embed(prompt[:, place : place + 1]), cache)
                    cache.advance([1])
                results.append(one.forward_embeds(one.embed(token), cache))
        torch.testing.assert_close(results[0], results[1], atol=2e-5, rtol=2e-5)

    @pytest.mark.parametrize("window", [None, 5])
    def test_reads_its_place_when_it_runs(self, kernel: DecoderKernel, window: int | None) -> None:
        """The caches that recorded steps use."""
        model = self.model(sliding_window=window)
        fast = run_by(kernel, model)
        embeds = model.embed(torch.randint(0, 50, (1, 9))).detach()
        recorded, plain = RowMemory(fast, record=True), RowMemory(model, record=False)
        row, other = Row(), Row()
        with torch.inference_mode():
            for memory, own in ((recorded, row), (plain, other)):
                assert memory.begin(own, [], 30, 30)
                memory.run([own], embeds, [9])
            for token in (3, 49, 0, 17):
                logits, obvious = recorded.decode([row], [token]), plain.decode([other], [token])
                torch.testing.assert_close(logits, obvious, atol=1e-5, rtol=1e-5)
        assert recorded.recorded is not None and recorded.recorded.recordings == 1

    def test_is_not_for_layers_that_differ_within_a_block(self, kernel: DecoderKernel) -> None:
        """Products that are taken together have one dtype."""
        model = self.model()
        projection = model.get_submodule("layers.1.attention.k_proj")
        projection.to(torch.bfloat16)
        assert list(Runner(model, Kernels(decoder=[kernel])).native) == [0, 2]


@NO_TRITON
@pytest.mark.parametrize(
    ("capability", "shared"), [(90, 227 << 10), (89, 99 << 10)], ids=["Hopper", "Ada"]
)
def test_all_kernels_compile_for_gpus(capability: int, shared: int) -> None:
    """Into no more shared memory than a GPU has. No GPU is needed, and none of Triton's interpreter."""
    script = Path(__file__).with_name("compile_step.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(script), str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    compiled = [line.split(" ", 2) for line in done.stdout.splitlines()]
    kernels = {"_one_row_kernel", "_rotate_kernel", "_attend_kernel", "_join_kernel"}
    assert {name for name, *_ in compiled} == kernels | {"_add_normed_kernel", "_grouped_kernel"}
    assert max(int(taken) for _, taken, _ in compiled) <= shared


def test_is_found_by_its_name() -> None:
    (found,) = entry_points(group="lolama.decoder_kernels", name="triton")
    assert found.load() is TritonDecoderKernel


def test_leaves_a_cpu_alone() -> None:
    model: Llama = DecoderKernelSuite().model()
    assert not Runner(model, Kernels(decoder=[TritonDecoderKernel()])).native


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees none" in TritonDecoderKernel().describe()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    compiler._missing.cache_clear()
    monkeypatch.setattr(compiler, "find_spec", lambda _: None)
    assert TritonDecoderKernel().describe() == "Triton is not installed"
    compiler._missing.cache_clear()
    monkeypatch.setattr(compiler, "find_spec", lambda _: True)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv("CC", raising=False)
    assert TritonDecoderKernel().describe() == "Triton finds no C compiler"
    compiler._missing.cache_clear()
    monkeypatch.setenv("CC", "cc")
    assert TritonDecoderKernel().describe() == "compiled by Triton"
    compiler._missing.cache_clear()
