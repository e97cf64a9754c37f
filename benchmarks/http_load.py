"""Many clients of ``lolama serve`` at once: their answers, what they are refused, and its memory.

    python -m benchmarks.http_load                       64 clients, 2,000 requests of the model demo
    python -m benchmarks.http_load --requests 200 --clients 16

Every request has a prompt, a length, settings and a seed of its own. Half are streamed, and a third of all
clients leave before their answer has ended. Each answer is compared with the one that the same request gets
alone, in float32. The server's memory is its anonymous memory and what of it is swapped out.
"""

from __future__ import annotations

import argparse
import http.client
import json
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lolama import TextGenerator, load_model, load_tokenizer

_WARM = 500
"""Requests after which memory must not grow any more."""

_WORDS = (
    "dog cat girl boy king bird tree house river cake ball friend garden red old little".split()
)


@dataclass(frozen=True)
class Load:
    """One request, and what its client does.

    Attributes:
        body: The body of a completion.
        leaves_after: Events, or tenths of a second without a stream, after which it leaves; None if it stays.
    """

    body: dict[str, Any]
    leaves_after: int | None


@dataclass
class Tally:
    """What came of the requests.

    Attributes:
        answers: Request → its text.
        left: Clients that left.
        refused: Times that one was told to come back later.
        tokens: Tokens of all answers.
        wrong: What should not have been, in words.
        memory: (requests done, bytes) in the order of time.
    """

    answers: dict[int, str] = field(default_factory=dict)
    left: int = 0
    refused: int = 0
    tokens: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)


def make_loads(count: int, seed: int) -> list[Load]:
    """Requests of mixed lengths; no two begin alike for long."""
    rng = random.Random(seed)
    loads = []
    for number in range(count):
        words = rng.choices(_WORDS, k=rng.choice([3, 10, 40, 120]))
        body = {
            "prompt": f"Story {number}: the " + " ".join(words),
            "max_tokens": rng.choice([1, 8, 24, 64]),
            "temperature": rng.choice([0, 0.7, 1]),
            "top_p": rng.choice([0.9, 1]),
            "seed": number,
            "stream": rng.random() < 0.5,
        }
        leaves = rng.randrange(6) if rng.random() < 1 / 3 else None
        loads.append(Load(body, leaves))
    return loads


def ask(port: int, load: Load) -> tuple[int, str, int]:
    """Send a request; leave early if its client does.

    Returns:
        Status, text and tokens of the answer; status 0 if the client has left, 429 with the seconds to wait.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", "/v1/completions", json.dumps(load.body))
        if load.leaves_after is not None and not load.body["stream"]:
            time.sleep(load.leaves_after / 10)
            return 0, "", 0
        response = connection.getresponse()
        if response.status == 429:
            return 429, response.getheader("Retry-After") or "", 0
        if response.status != 200:
            return response.status, response.read().decode(), 0
        if not load.body["stream"]:
            facts = json.loads(response.read())
            return 200, facts["choices"][0]["text"], facts["usage"]["completion_tokens"]
        text, tokens, events, ended = "", 0, 0, False
        for line in response:
            if not line.startswith(b"data: "):
                continue
            if load.leaves_after is not None and events >= load.leaves_after:
                return 0, "", 0
            events += 1
            if line == b"data: [DONE]\n":
                ended = True
                continue
            facts = json.loads(line[6:])
            if "error" in facts:
                return 500, json.dumps(facts), 0
            text += facts["choices"][0]["text"]
            tokens = facts.get("timings", {}).get("predicted_n", tokens)
        return (200, text, tokens) if ended else (500, "the stream has no end", 0)
    finally:
        connection.close()


def run(port: int, pid: int, loads: list[Load], clients: int) -> tuple[Tally, float]:
    """Send all requests, by a number of clients at a time.

    Returns:
        What came of them, and the seconds that it took.
    """
    tally, todo, lock = Tally(), queue.SimpleQueue[int](), threading.Lock()
    for number in range(len(loads)):
        todo.put(number)
    done = 0

    def work() -> None:
        nonlocal done
        while True:
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            status, text, tokens = ask(port, loads[number])
            while status == 429:
                with lock:
                    tally.refused += 1
                    if not text.isdecimal():
                        tally.wrong.append(f"request {number}: 429 without Retry-After")
                time.sleep(0.2)
                status, text, tokens = ask(port, loads[number])
            with lock:
                done += 1
                if status == 200:
                    tally.answers[number] = text
                    tally.tokens += tokens
                elif status == 0:
                    tally.left += 1
                else:
                    tally.wrong.append(f"request {number}: {status} {text[:200]}")
                if done % 50 == 0:
                    tally.memory.append((done, anonymous_bytes(pid)))

    started = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally, time.perf_counter() - started


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a process, and what of it is swapped out."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(n) * 1024 for n in re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB", status, re.M))


def compare(loads: list[Load], tally: Tally) -> None:
    """Generate each answer alone, and note those that differ."""
    tokenizer = load_tokenizer("demo")
    generator = TextGenerator(load_model("demo", device="cpu", dtype="float32"), tokenizer)
    for number, text in tally.answers.items():
        body = loads[number].body
        alone = generator.generate(
            body["prompt"],
            max_new_tokens=body["max_tokens"],
            temperature=body["temperature"],
            top_p=body["top_p"],
            seed=body["seed"],
            repetition_penalty=1.0,
        )
        if alone.text != text:
            tally.wrong.append(f"request {number}: {text!r:.80}, and alone {alone.text!r:.80}")


def main() -> int:
    """Run it, and print what came of it; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--max-queue", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    command = [sys.executable, "-m", "lolama_cli", "serve", "-m", "demo", "--port", "0"]
    command += ["--device", "cpu", "--dtype", "float32", "--parallel", str(options.parallel)]
    command += ["--max-queue", str(options.max_queue)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().rpartition(":")[2])
        _wait_until_ready(port)
        loads = make_loads(options.requests, options.seed)
        tally, seconds = run(port, server.pid, loads, options.clients)
        idle = _metrics(port)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
    compare(loads, tally)
    if code:
        tally.wrong.append(f"the server ended with {code}")
    for name in ("llamacpp:requests_processing", "lolama:cache_bytes"):
        if idle[name]:
            tally.wrong.append(f"{name} is {idle[name]} at the end")
    _tell(options.requests, tally, seconds)
    return 1 if tally.wrong else 0


def _wait_until_ready(port: int) -> None:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        if connection.getresponse().status == 200:
            return
        time.sleep(0.2)


def _metrics(port: int) -> dict[str, float]:
    """Gauges and counters once the last request has gone."""
    found: dict[str, float] = {}
    for _ in range(100):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if line[:1] != "#"]
        found = {name: float(value) for name, _, value in pairs}
        if not found["llamacpp:requests_processing"]:
            break
        time.sleep(0.1)
    return found


def _tell(requests: int, tally: Tally, seconds: float) -> None:
    late = [size for done, size in tally.memory if done >= _WARM]
    print(f"{requests:,} requests: {len(tally.answers):,} answered, {tally.left:,} left early")
    print(f"429 was answered {tally.refused:,} times, each with Retry-After")
    print(f"{tally.tokens:,} tokens in {seconds:.1f} s, {tally.tokens / seconds:,.0f} tokens/s")
    if late:
        growth = (max(late) - late[0]) / late[0]
        print(
            f"anonymous memory after {_WARM} requests {late[0] / 1e6:,.1f} MB, at most "
            f"{max(late) / 1e6:,.1f} MB later ({growth:+.1%}), {late[-1] / 1e6:,.1f} MB at the end"
        )
    print(f"wrong: {len(tally.wrong)}")
    for line in tally.wrong[:20]:
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
