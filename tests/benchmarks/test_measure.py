from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.contestants import SETS, Contestant, PeerError
from benchmarks.measure import Plan, measure
from benchmarks.results import Results
from benchmarks.summary import REFERENCES

from benchmarks import measure as module

PLAN = Plan(
    prompts=(128,),
    contexts=(128, 2048),
    rows=(4,),
    steps=12,
    rounds=2,
    long_rounds=1,
    loads=2,
)
START = {"importing": 1.0, "loading": 1.0, "first": 1.0, "memory": 1, "peak": 1}


class FakePeer:
    """Answers at once, and writes down in which order it was asked; ``bad`` ends at its third job."""

    log: list[tuple[str, str]] = []  # noqa: RUF012 - shared on purpose, emptied by the fixture

    def __init__(self, contestant: Contestant, path: Path, threads: int) -> None:
        self.label = contestant.label
        self.jobs = 0
        self.hello: dict[str, Any] = {"start": START, "detail": f"{threads} threads"}
        if self.label == "worse":
            raise PeerError("ended with 1: no room")
        self.log.append((self.label, "start"))

    def ask(self, job: dict[str, Any]) -> list[float]:
        self.jobs += 1
        if self.label == "bad" and self.jobs == 3:
            raise PeerError("ended with -9: killed")
        self.log.append((self.label, job["do"]))
        return [0.5] * job.get("steps", 1)

    def close(self) -> None:
        self.log.append((self.label, "close"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    FakePeer.log.clear()
    monkeypatch.setattr(module, "PeerProcess", FakePeer)
    monkeypatch.setattr(module, "read_bandwidth", lambda threads: 1e9)

    def run(*labels: str) -> tuple[Results, list[int]]:
        results = Results("", "", 2, "160m", "16-bit", {})
        kept: list[int] = []
        contestants = [Contestant(label, "eager", "hf-bf16") for label in labels]
        paths = {"hf-bf16": Path("model")}
        measure(PLAN, contestants, paths, results, lambda: kept.append(len(results.bandwidth)))
        return results, kept

    return run


def test_every_measurement_goes_round_all_peers(run: Any) -> None:
    results, kept = run("a", "b")
    jobs = [entry for entry in FakePeer.log if entry[1] in ("steps", "prefill")]
    assert jobs[0::2] == [("a", what) for _, what in jobs[1::2]]
    assert [label for label, _ in jobs] == ["a", "b"] * (len(jobs) // 2)
    assert len(results.bandwidth) == 2 and kept == [1, 2]


def test_long_jobs_run_in_fewer_rounds(run: Any) -> None:
    results, _ = run("a")
    (row,) = results.rows
    rounds = {
        (kind, size): len(times) for kind in row.times for size, times in row.times[kind].items()
    }
    assert rounds == {
        ("decode", "128"): 2,
        ("prefill", "128"): 2,
        ("batch", "4"): 1,
        ("decode", "2048"): 1,
    }
    assert len(row.times["decode"]["128"][0]) == 12 and len(row.times["batch"]["4"][0]) == 6
    assert len(row.starts) == 2 and row.detail == "2 threads"
    assert FakePeer.log.count(("a", "start")) == FakePeer.log.count(("a", "close")) == 2


def test_a_peer_that_ends_leaves_the_others_running(run: Any) -> None:
    results, _ = run("bad", "worse", "good")
    bad, worse, good = results.rows
    assert bad.failure == "batch 4: ended with -9: killed"
    assert worse.failure == "ended with 1: no room" and not worse.starts
    assert len(good.times["decode"]["128"]) == 2 and not good.failure


def test_references_take_part() -> None:
    labels = {contestant.label for peers in SETS.values() for contestant in peers}
    assert all(labels.issuperset(references) for references in REFERENCES.values())
