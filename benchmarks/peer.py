"""One engine in a process of its own: reads jobs as JSON lines, answers with seconds.

    python -m benchmarks.peer lolama path/to/model

Jobs: ``{"do": "prefill", "tokens": 512}``, ``{"do": "decode", "context": 128, "steps": 16}``,
``{"do": "batch", "rows": 16, "context": 128, "steps": 8}`` and ``{"do": "memory"}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def token(i: int) -> int:
    """Some id, far from the control ids and below every vocabulary."""
    return 3 + i * 7 % 500


class Peer(ABC):
    """An engine with one sequence (or several of equal length) in its cache."""

    @abstractmethod
    def start(self, rows: int, tokens: int) -> None:
        """Empty the cache, and run prompts of so many tokens: returns when their logits are known."""

    @abstractmethod
    def step(self) -> None:
        """One token more for each row, chosen greedily."""

    def can_batch(self) -> bool:
        """Whether several rows can run at once."""
        return False


class LolamaPeer(Peer):
    """lolama, with whatever kernels are installed (``LOLAMA_BENCH_KERNELS=0``: with none)."""

    def __init__(self, path: str) -> None:
        import torch

        from lolama_core import FileCheckpointIO, LlamaFamily, load_model
        from lolama_core.linear import Linear
        from lolama_hub import HuggingFaceSource

        self.torch = torch
        files = HuggingFaceSource().resolve(path, FileCheckpointIO())
        self.model = load_model(files, {"llama": LlamaFamily()}, device="cpu")
        if os.environ.get("LOLAMA_BENCH_KERNELS") == "0":
            for module in self.model.modules():  # type: ignore[attr-defined]
                if isinstance(module, Linear):
                    module.kernel, module.kernel_rows = None, 0

    def start(self, rows: int, tokens: int) -> None:
        """See `Peer`."""
        with self.torch.inference_mode():
            ids = self.torch.tensor([[token(i) for i in range(tokens)]] * rows)
            self.cache = self.model.make_cache(rows, tokens + 256)
            logits = self.model.forward_embeds(self.model.embed(ids), self.cache)
            self.cache.advance([tokens] * rows)
            self.best = logits.argmax(-1, keepdim=True)

    def step(self) -> None:
        """See `Peer`."""
        with self.torch.inference_mode():
            logits = self.model.forward_embeds(self.model.embed(self.best), self.cache)
            self.cache.advance([1] * len(self.best))
            self.best = logits.argmax(-1, keepdim=True)

    def can_batch(self) -> bool:
        """See `Peer`."""
        return True


class TransformersPeer(Peer):
    """transformers with its dynamic cache, as ``generate`` uses it."""

    def __init__(self, path: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()

    def start(self, rows: int, tokens: int) -> None:
        """See `Peer`."""
        from transformers import DynamicCache

        with self.torch.inference_mode():
            ids = self.torch.tensor([[token(i) for i in range(tokens)]] * rows)
            self.cache = DynamicCache()
            output = self.model(ids, past_key_values=self.cache, logits_to_keep=1)
            self.best = output.logits[:, -1].argmax(-1, keepdim=True)

    def step(self) -> None:
        """See `Peer`."""
        with self.torch.inference_mode():
            output = self.model(self.best, past_key_values=self.cache, logits_to_keep=1)
            self.best = output.logits[:, -1].argmax(-1, keepdim=True)

    def can_batch(self) -> bool:
        """See `Peer`."""
        return True


class LlamaCppPeer(Peer):
    """llama.cpp through llama-cpp-python's plain binding of ``llama_decode``."""

    def __init__(self, path: str) -> None:
        from llama_cpp import Llama

        context = int(os.environ.get("BENCH_CONTEXT", "2048"))
        self.model = Llama(
            path,
            n_ctx=context,
            n_batch=512,
            n_threads=THREADS,
            n_threads_batch=THREADS,
            verbose=False,
        )

    def start(self, rows: int, tokens: int) -> None:
        """See `Peer`."""
        self.model.reset()
        self.model.eval([token(i) for i in range(tokens)])

    def step(self) -> None:
        """See `Peer`."""
        self.model.eval([self.model.sample(temp=0.0, repeat_penalty=1.0)])


class CTranslate2Peer(Peer):
    """CTranslate2's generator. It has no open cache, so a step is what one more token adds."""

    def __init__(self, path: str) -> None:
        import ctranslate2

        self.model = ctranslate2.Generator(path, intra_threads=THREADS)
        self.prompt: list[str] = []

    def generate(self, steps: int) -> None:
        """Prompt and ``steps`` new tokens."""
        self.model.generate_batch(
            [self.prompt],
            max_length=steps,
            min_length=steps,
            sampling_topk=1,
            include_prompt_in_result=False,
        )

    def start(self, rows: int, tokens: int) -> None:
        """See `Peer`."""
        self.prompt = [f"t{token(i)}" for i in range(tokens)]
        self.generate(1)

    def step(self) -> None:
        """See `Peer`."""
        raise NotImplementedError("measured through `generate`")


PEERS: dict[str, Callable[[str], Peer]] = {
    "lolama": LolamaPeer,
    "transformers": TransformersPeer,
    "llama.cpp": LlamaCppPeer,
    "ctranslate2": CTranslate2Peer,
}


def timed(action: Callable[[], None]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def run(peer: Peer, job: dict[str, Any]) -> list[float]:
    """Do one job; seconds of each repetition or step."""
    if job["do"] == "prefill":
        return [timed(lambda: peer.start(1, job["tokens"]))]
    rows, steps = job.get("rows", 1), job["steps"]
    if isinstance(peer, CTranslate2Peer):
        peer.start(1, job["context"])
        short, long = timed(lambda: peer.generate(1)), timed(lambda: peer.generate(1 + steps))
        return [(long - short) / steps] * steps
    if rows > 1 and not peer.can_batch():
        return []
    peer.start(rows, job["context"])
    peer.step()
    return [timed(peer.step) for _ in range(steps)]


def main() -> None:
    """Load, report, then answer jobs until standard input ends."""
    name, path = sys.argv[1:3]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not spoil the answers
    import torch

    torch.set_num_threads(THREADS)
    before = resident_bytes()
    begin = time.perf_counter()
    peer = PEERS[name](str(Path(path)))
    loaded = time.perf_counter() - begin
    answers.write(json.dumps({"load": loaded, "memory": resident_bytes() - before}) + "\n")
    answers.flush()
    for line in sys.stdin:
        job = json.loads(line)
        if job["do"] == "memory":
            import resource

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            reply: Any = {"memory": resident_bytes() - before, "peak": peak - before}
        else:
            reply = {"seconds": run(peer, job)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
