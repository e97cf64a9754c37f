"""One engine in a process of its own: reads jobs as JSON lines, answers in JSON lines.

    python -m benchmarks.peer lolama path/to/model 2

The first answer tells how it started. Jobs are ``{"do": "prefill", "tokens": 512}`` and
``{"do": "steps", "rows": 1, "context": 128, "steps": 12}``; the answer is a list of seconds.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from benchmarks.engine import Engine, timed
from benchmarks.results import Start

# What the first prompt is, and where memory is looked at.
FIRST_PROMPT, FIRST_STEPS = 128, 8


def engine_class(name: str) -> type[Engine]:
    """The engine of that name; nothing of the others is imported."""
    if name in ("llama.cpp", "ctranslate2"):
        from benchmarks.native_engines import CTranslate2Engine, LlamaCppEngine

        return LlamaCppEngine if name == "llama.cpp" else CTranslate2Engine
    from benchmarks.torch_engines import EagerEngine, LolamaEngine, LolamaRows, TransformersEngine

    return {
        "lolama": LolamaEngine,
        "lolama rows": LolamaRows,
        "transformers": TransformersEngine,
        "eager": EagerEngine,
    }[name]


def resident_bytes() -> int:
    """Memory of this process that is in use now, pages of mapped files included."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The most that `resident_bytes` ever was."""
    if sys.platform == "linux":
        # Not ru_maxrss: that of a new process begins with the peak of the one that started it.
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def begin(name: str, path: str, threads: int) -> tuple[Engine, Start]:
    """Load the model and run its first prompt, from nothing but an imported torch."""
    import torch

    torch.set_num_threads(threads)
    kind = engine_class(name)
    before = resident_bytes()
    importing = timed(kind.import_library)
    loaded: list[Engine] = []
    loading = timed(lambda: loaded.append(kind(path, threads)))
    engine = loaded[0]
    first = timed(lambda: engine.reserve(FIRST_PROMPT)) + timed(lambda: engine.start(FIRST_PROMPT))
    engine.step_times(1, FIRST_PROMPT, FIRST_STEPS)
    steady, peak = resident_bytes() - before, peak_bytes() - before
    engine.forget()
    return engine, Start(importing, loading, first, steady, peak)


def run(engine: Engine, job: dict[str, Any]) -> list[float]:
    """Do one job; seconds of the prompt or of each step."""
    if job["do"] == "prefill":
        engine.reserve(job["tokens"])
        times = [timed(lambda: engine.start(job["tokens"]))]
    else:
        times = engine.step_times(job["rows"], job["context"], job["steps"])
    engine.forget()
    return times


def main() -> None:
    """Start, say how it went, then answer jobs until standard input ends."""
    name, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not spoil the answers
    engine, start = begin(name, path, threads)
    print(json.dumps({"start": vars(start), "detail": engine.detail()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(engine, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
