"""The decoding step of Triton's kernels, in Triton's interpreter (`nox -s triton`)."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from importlib.util import find_spec

import pytest
import torch

from lolama_core import Llama
from lolama_core.protocols import DecoderKernel
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import Runner
from lolama_core.testing.decoder_kernel import SHAPES, DecoderKernelSuite, run_by
from lolama_quant.int8.quantizer import Int8Quantizer
from lolama_quant.triton import compiler
from lolama_quant.triton.decoder_kernel import TritonDecoderKernel

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NO_TRITON = pytest.mark.skipif(
    not INTERPRETED or find_spec("triton") is None, reason="runs in the session `triton`"
)


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
        model, plain = self.model(**SHAPES[name]), self.model(**SHAPES[name])
        Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
        for path, module in model.named_modules():
            if hasattr(module, "scale"):
                wide = module.weight.float() * module.scale[:, None]
                plain.get_submodule(path).get_parameter("weight").copy_(wide)
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
