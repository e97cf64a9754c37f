"""``lolama serve`` as a process: what it refuses, what it answers, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import LIMIT, until
from program import COMMAND, environment
from warm_program import run

PAGE = Path(__file__).resolve().parents[4] / "docs" / "serve.md"


@contextmanager
def served(*options: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server, and its process."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("w"),
        env=environment(),
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), (folder / "log").read_text()
        yield line.split()[-1], process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(LIMIT)
        assert process.stdout is not None
        process.stdout.close()


def ask(address: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
    """The JSON of an answer; of an error, its status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code


def wait_until_ready(address: str) -> None:
    until(lambda: ask(f"{address}/health") == {"status": "ok"})


def test_the_page_is_right_about_the_first_request(tmp_path: Path) -> None:
    page = PAGE.read_text()
    command = re.findall(r"^lolama serve (-m demo)$", page, re.M)
    [body] = re.findall(r"-d '(\{.*\})'$", page, re.M)
    with served(*command[0].split(), folder=tmp_path) as (address, process):
        wait_until_ready(address)
        answer = ask(f"{address}/v1/chat/completions", json.loads(body))
        assert answer["choices"][0]["message"]["content"] == "Two plus three is five."
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0


def test_it_answers_as_generate_does(tmp_path: Path) -> None:
    settings = {"temperature": 1, "top_p": 0.8, "seed": 7, "max_tokens": 30}
    options = ["--temperature", "1", "--top-p", "0.8", "--seed", "7", "--max-tokens", "30"]
    options += ["--repetition-penalty", "1", "--raw", "--dtype", "float32"]
    alone = run("generate", "-m", "demo", *options, "Once upon a time")
    assert alone.code == 0, alone.err
    with served("-m", "demo", "--dtype", "float32", folder=tmp_path) as (address, _):
        answer = ask(f"{address}/v1/completions", {"prompt": "Once upon a time", **settings})
    assert answer["choices"][0]["text"] == alone.out.decode().removesuffix("\n")


def test_it_starts_without_a_model_and_loads_what_is_asked_for(tmp_path: Path) -> None:
    with served(folder=tmp_path) as (address, _):
        names = {one["id"] for one in ask(f"{address}/v1/models")["data"]}
        assert {"demo", "demo-vision"} <= names
        answer = ask(f"{address}/v1/completions", {"prompt": "Once", "model": "demo"})
        assert answer["model"] == "demo"
        assert ask(f"{address}/v1/completions", {"prompt": "Once"}) == 400


def test_a_request_names_no_path(tmp_path: Path) -> None:
    with served(folder=tmp_path) as (address, _):
        for name in ("/etc/passwd", "../demo", str(tmp_path), "file:///etc/passwd"):
            assert ask(f"{address}/v1/completions", {"prompt": "a", "model": name}) == 404


def test_settings_of_the_command_hold_where_a_request_gives_none(tmp_path: Path) -> None:
    options = ("-m", "demo", "--seed", "5", "--temperature", "0.5", "--max-tokens", "3")
    with served(*options, folder=tmp_path) as (address, _):
        answer = ask(f"{address}/completion", {"prompt": "Once", "n_predict": 50})
        told = answer["generation_settings"]
        assert (told["seed"], told["temperature"]) == (5, 0.5)
        assert answer["tokens_predicted"] == 3
        answer = ask(f"{address}/completion", {"prompt": "Once", "seed": 6})
        assert answer["generation_settings"]["seed"] == 6


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run("serve", "--port", str(port)).refused(
            2, f"--port: {port} of 127.0.0.1", "choose another"
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host", "0.0.0.0"), ("--host", "--api-key")),
        (("--port", "70000"), ("--port", "65535")),
        (("--port", "-1"), ("--port",)),
        (("--parallel", "0"), ("--parallel", "1 or more")),
        (("--max-queue", "-1"), ("--max-queue", "0 or more")),
        (("--context", "0"), ("--context",)),
        (("--sleep-idle", "-1"), ("--sleep-idle",)),
        (("--sleep-idle", "nan"), ("--sleep-idle",)),
        (("--cache-memory", "much"), ("--cache-memory", "2GB")),
        (("--api-key", ""), ("--api-key", "empty")),
        (("--model-memory", "1MB", "-m", "demo"), ("--model-memory: allows 1,000,000", "demo")),
        (("-m", "nothing-like-it"), ("nothing-like-it",)),
        (("--temperature", "-1"), ("--temp",)),
    ],
)
def test_what_makes_no_sense_is_refused(options: tuple[str, ...], words: tuple[str, ...]) -> None:
    run("serve", *options).refused(2, *words)


def test_a_model_that_cannot_be_loaded_ends_it(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in base.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    outcome = run("serve", "--port", "0", "-m", broken)
    assert outcome.code == 3 and outcome.err.count("\n") == 1, outcome.err
