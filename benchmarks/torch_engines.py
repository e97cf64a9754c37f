"""The engines that are torch programs: lolama, transformers, and the plain eager loop."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.eager_loop import EagerLoop
from benchmarks.engine import ROOM, SteppedEngine, prompt, token


class TorchEngine(SteppedEngine):
    """What the three share: how a cache is filled without running the prompt, and the greedy step."""

    best: Tensor  # (B, 1): the last token chosen

    @abstractmethod
    def make_cache(self, rows: int, tokens: int) -> None:
        """Start with an empty cache that ``tokens`` and `ROOM` more will fit."""

    @abstractmethod
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, key/value heads, head_dim."""

    @abstractmethod
    def store(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        """Put keys and values (B, K, T, head_dim) of every layer into the empty cache."""

    @abstractmethod
    def logits(self, ids: Tensor) -> Tensor:
        """(B, T) ids → (B, V) of the last position; the cache has taken them in."""

    @torch.inference_mode()
    def start(self, tokens: int) -> None:
        """See `Engine`."""
        self.make_cache(1, tokens)
        self.best = self.logits(torch.tensor([prompt(tokens)])).argmax(-1, keepdim=True)

    @torch.inference_mode()
    def fill(self, rows: int, context: int) -> None:
        """See `SteppedEngine`.

        With random keys and values: how long a step takes does not depend on what they are, and running
        8192 tokens, or 64 rows, through a large model takes minutes.
        """
        layers, kv_heads, head_dim = self.cache_shape()
        shape = (2, rows, kv_heads, context, head_dim)
        self.make_cache(rows, context)
        generator = torch.Generator().manual_seed(0)
        made = [torch.randn(shape, generator=generator).to(self.dtype()) for _ in range(layers)]
        self.store([(keys, values) for keys, values in made])
        self.best = torch.full((rows, 1), token(context))

    @torch.inference_mode()
    def step(self) -> None:
        """See `SteppedEngine`."""
        self.best = self.logits(self.best).argmax(-1, keepdim=True)

    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of keys and values."""


class LolamaEngine(TorchEngine):
    """lolama with the kernels that are installed, or (``LOLAMA_BENCH_KERNELS=0``) as core alone is."""

    @staticmethod
    def import_library() -> None:
        """See `Engine`."""
        from lolama import wiring  # noqa: F401
        from lolama_core import (
            LlamaFamily,  # noqa: F401
            installed_source,
            load_model,  # noqa: F401
            suit_threads,  # noqa: F401
        )

        installed_source()  # lolama-hub, which knows what files a folder has

    def __init__(self, path: str, threads: int) -> None:
        from lolama import names
        from lolama_core import Llama, LlamaFamily, load_model, suit_threads
        from lolama_core.model.linear import Linear
        from lolama_core.runtime.kernels import Kernels
        from lolama_core.runtime.runner import Runner
        from lolama_quant.int8.backends import cpu

        torch.set_num_threads(threads)
        self.loaded = load_model(names.resolve(path), {"llama": LlamaFamily()}, device="cpu")
        suit_threads(self.loaded)  # as `lolama generate` does
        core_alone = os.environ.get("LOLAMA_BENCH_KERNELS") == "0"
        if core_alone:
            # What remains of int8 are torch's operators.
            cpu.int8_rows = lambda: 0  # type: ignore[attr-defined] # not one that it exports
        kernels = Kernels() if core_alone else Kernels.installed()
        self.model = Runner(self.loaded, kernels)
        self.kernels = {
            f"decoding by {run.kernel.name}: {run.kernel.describe()}"
            for run in self.model.native.values()
        }
        for module in self.loaded.modules():
            if isinstance(module, Linear):
                kernel = self.model.products.kernel_of(module.weight)
                if kernel is not None:
                    self.kernels.add(f"products by {kernel.name}: {kernel.describe()}")
        assert isinstance(self.loaded, Llama)
        self.config = self.loaded.config

    def detail(self) -> str:
        """See `Engine`."""
        used = "; ".join(sorted(self.kernels)) or "torch's products"
        return f"{used} ({torch.get_num_threads()} threads)"

    def make_cache(self, rows: int, tokens: int) -> None:
        """See `TorchEngine`."""
        self.cache = self.model.make_cache(rows, tokens + ROOM)

    def cache_shape(self) -> tuple[int, int, int]:
        """See `TorchEngine`."""
        return self.config.num_layers, self.config.num_kv_heads, self.config.head_dim

    def dtype(self) -> torch.dtype:
        """See `TorchEngine`."""
        return self.model.dtype

    def store(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        """See `TorchEngine`."""
        rows, width = layers[0][0].shape[0], layers[0][0].shape[2]
        slots = self.cache.reserve([width] * rows, width)
        for layer, (keys, values) in enumerate(layers):
            self.cache.update(layer, keys, values, slots)
        self.cache.advance([width] * rows)

    def logits(self, ids: Tensor) -> Tensor:
        """See `TorchEngine`."""
        logits = self.model.forward_embeds(self.model.embed(ids), self.cache)
        self.cache.advance([ids.shape[1]] * ids.shape[0])
        return logits

    def forget(self) -> None:
        """See `Engine`."""
        del self.cache


class LolamaRows(LolamaEngine):
    """lolama as a server runs it: the rows are requests of an `Engine`, with all that it does for a token."""

    def fill(self, rows: int, context: int) -> None:
        """See `SteppedEngine`. The prompts are run."""
        from lolama import GenerationConfig
        from lolama_core import Engine as Requests

        greedy = GenerationConfig.greedy(max_new_tokens=ROOM, ignore_eos=True)
        self.requests = Requests(self.loaded, rows=rows)
        for row in range(rows):
            # Texts that begin alike would be run once.
            self.requests.submit([3 + row, *prompt(context)[1:]], greedy)
        begun: set[int] = set()
        while len(begun) < rows:
            begun |= {ticket for ticket, _ in self.requests.step()}

    def step(self) -> None:
        """See `SteppedEngine`."""
        self.requests.step()

    def start(self, tokens: int) -> None:
        """See `Engine`."""
        self.fill(1, tokens)

    def forget(self) -> None:
        """See `Engine`."""
        del self.requests


class TransformersEngine(TorchEngine):
    """transformers with its dynamic cache, as its ``generate`` uses it, without what that adds."""

    @staticmethod
    def import_library() -> None:
        """See `Engine`. By name, since transformers imports each module when it is first asked for."""
        from transformers import AutoModelForCausalLM, DynamicCache, LlamaForCausalLM  # noqa: F401

    def __init__(self, path: str, threads: int) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()

    def detail(self) -> str:
        """See `Engine`."""
        return f"attention: {self.model.config._attn_implementation}"

    def make_cache(self, rows: int, tokens: int) -> None:
        """See `TorchEngine`."""
        from transformers import DynamicCache

        self.cache = DynamicCache()

    def cache_shape(self) -> tuple[int, int, int]:
        """See `TorchEngine`."""
        config = self.model.config
        head_dim = getattr(config, "head_dim", None)
        return (
            config.num_hidden_layers,
            config.num_key_value_heads,
            head_dim or config.hidden_size // config.num_attention_heads,
        )

    def dtype(self) -> torch.dtype:
        """See `TorchEngine`."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def store(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        """See `TorchEngine`."""
        for layer, (keys, values) in enumerate(layers):
            self.cache.update(keys, values, layer)

    def logits(self, ids: Tensor) -> Tensor:
        """See `TorchEngine`."""
        output = self.model(ids, past_key_values=self.cache, logits_to_keep=1)
        logits: Tensor = output.logits[:, -1]
        return logits

    def forget(self) -> None:
        """See `Engine`."""
        del self.cache


class EagerEngine(TorchEngine):
    """The plain loop of `benchmarks.eager_loop`."""

    @staticmethod
    def import_library() -> None:
        """See `Engine`."""
        import safetensors.torch  # noqa: F401

    def __init__(self, path: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = EagerLoop(Path(path))

    def detail(self) -> str:
        """See `Engine`."""
        return "torch's operators"

    def make_cache(self, rows: int, tokens: int) -> None:
        """See `TorchEngine`."""
        self.model.cache = []

    def cache_shape(self) -> tuple[int, int, int]:
        """See `TorchEngine`."""
        return self.model.layers, self.model.kv_heads, self.model.head_dim

    def dtype(self) -> torch.dtype:
        """See `TorchEngine`."""
        return self.model.embedding.dtype

    def store(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        """See `TorchEngine`."""
        self.model.cache = layers

    def logits(self, ids: Tensor) -> Tensor:
        """See `TorchEngine`."""
        return self.model(ids)

    def forget(self) -> None:
        """See `Engine`."""
        self.model.cache = []
