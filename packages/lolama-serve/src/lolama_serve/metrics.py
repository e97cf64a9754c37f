"""Counters of what the server has done, as Prometheus reads them."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lolama_serve.job import Running

# They have llama.cpp's names, so that what watches a server of llama.cpp can watch this one.
_COUNTERS = {
    "llamacpp:prompt_tokens": "Prompt tokens that were run.",
    "llamacpp:prompt_tokens_cached": "Prompt tokens that were found, and not run again.",
    "llamacpp:prompt_seconds": "Seconds that prompts took.",
    "llamacpp:tokens_predicted": "Tokens that were generated.",
    "llamacpp:tokens_predicted_seconds": "Seconds that tokens took, without the first of each text.",
    "llamacpp:n_decode": "Steps of the engine.",
    "llamacpp:spec_decode_num_draft_tokens": "Tokens that were tried ahead of their turn.",
    "llamacpp:spec_decode_num_accepted_tokens": "Tokens tried ahead that the texts have.",
    "lolama:requests_refused": "Requests that found the queue full.",
}
_GAUGES = {
    "llamacpp:prompt_tokens_seconds": "Prompt tokens a second, on average.",
    "llamacpp:predicted_tokens_seconds": "Generated tokens a second of one text, on average.",
    "llamacpp:requests_processing": "Answers that are being generated.",
    "llamacpp:requests_deferred": "Answers that wait for their turn.",
    "llamacpp:n_busy_slots_per_decode": "Texts that a step of the engine adds to, on average.",
    "llamacpp:n_tokens_max": "Most tokens that a prompt and its text had together.",
    "lolama:cache_bytes": "Bytes of keys and values in use.",
    "lolama:cache_bytes_kept": "Bytes of keys and values kept for prompts that begin alike.",
}
_ENDS = "lolama:answers"


class Metrics:
    """The counters of one server.

    Attributes:
        counts: Counter → its value.
        ends: Why answers ended → how many did.
        longest: Most tokens that a prompt and its text had together.
        rows: Texts that steps have added to, all steps together.
        started: When they began to count, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.counts: dict[str, float] = dict.fromkeys(_COUNTERS, 0)
        self.ends: Counter[str] = Counter()
        self.rows = self.longest = 0
        self.started = time.time()
        self._durations: list[float] = []

    def stepped(self, rows: int) -> None:
        """Count a step of the engine that added to ``rows`` texts."""
        self.counts["llamacpp:n_decode"] += 1
        self.rows += rows

    def refuse(self) -> None:
        """Count a request that found the queue full."""
        self.counts["lolama:requests_refused"] += 1

    def count(self, running: Running) -> None:
        """Count the answers of a job, those that were broken off included."""
        ended = {answer.index: answer for answer in running.answers}
        for index, submission in enumerate(running.submissions):
            timings, answer = submission.timings, ended.get(index)
            if answer is not None:
                drafted, accepted = answer.result.drafted_tokens, answer.result.accepted_tokens
                self.counts["llamacpp:spec_decode_num_draft_tokens"] += drafted
                self.counts["llamacpp:spec_decode_num_accepted_tokens"] += accepted
                self._durations.append(time.monotonic() - timings.submitted)
                del self._durations[:-32]
            if timings.first or answer is not None:
                cached = 0 if answer is None else answer.result.cached_tokens
                self.counts["llamacpp:prompt_tokens"] += timings.prompt - cached
                self.counts["llamacpp:prompt_tokens_cached"] += cached
                self.counts["llamacpp:prompt_seconds"] += timings.prompt_seconds
                self.longest = max(self.longest, timings.prompt + timings.tokens)
            self.counts["llamacpp:tokens_predicted"] += timings.tokens
            self.counts["llamacpp:tokens_predicted_seconds"] += timings.decode_seconds
            self.ends["broken_off" if answer is None else answer.finish_reason] += 1

    def seconds_until_room(self) -> int:
        """In how many seconds a request may find room: as long as one takes on average."""
        if not self._durations:
            return 1
        return max(1, math.ceil(sum(self._durations) / len(self._durations)))

    def text(self, processing: int, deferred: int, cache_bytes: int, kept_bytes: int) -> bytes:
        """All of them, in the text format of Prometheus.

        Args:
            processing: Answers that are being generated.
            deferred: Answers that wait.
            cache_bytes: Bytes of keys and values in use.
            kept_bytes: Bytes of those that are merely kept.
        """
        counts = self.counts
        steps = counts["llamacpp:n_decode"]
        gauges = {
            "llamacpp:prompt_tokens_seconds": _rate(
                counts["llamacpp:prompt_tokens"], counts["llamacpp:prompt_seconds"]
            ),
            "llamacpp:predicted_tokens_seconds": _rate(
                counts["llamacpp:tokens_predicted"], counts["llamacpp:tokens_predicted_seconds"]
            ),
            "llamacpp:requests_processing": processing,
            "llamacpp:requests_deferred": deferred,
            "llamacpp:n_busy_slots_per_decode": _rate(self.rows, steps),
            "llamacpp:n_tokens_max": self.longest,
            "lolama:cache_bytes": cache_bytes,
            "lolama:cache_bytes_kept": kept_bytes,
        }
        found = [_metric(name, _COUNTERS[name], "counter", value) for name, value in counts.items()]
        found += [_metric(name, _GAUGES[name], "gauge", value) for name, value in gauges.items()]
        ends = Metric(_ENDS, "Answers, by why they ended.", "counter")
        for reason, count in sorted(self.ends.items()):
            ends.add_sample(f"{_ENDS}_total", {"reason": reason}, count)
        return generate_latest(_registry([*found, ends]))


class _Collector(Collector):
    """Hands metrics to a registry as they are."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _registry(metrics: Sequence[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Collector(metrics))
    return registry


def _metric(name: str, help: str, kind: str, value: float) -> Metric:
    metric = Metric(name, help, kind)
    metric.add_sample(f"{name}_total" if kind == "counter" else name, {}, value)
    return metric


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
