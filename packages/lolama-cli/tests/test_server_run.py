"""``lolama generate --server``: the same as without a server, and every way in which that cannot be."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from drawings import circle, encoded
from patience import until
from program import ENDLESS, Outcome
from program import run as run_cold
from served import running, serving
from warm_program import on_terminal, run, start

TALE = "Once upon a time"
HERE = ("--dtype", "float32")


def both(server: str, *arguments: str | Path, stdin: bytes = b"") -> tuple[Outcome, Outcome]:
    """The same command line without the server and with it."""
    return (
        run("generate", *HERE, *arguments, stdin=stdin),
        run("generate", "--server", server, *arguments, stdin=stdin),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seed", "5", TALE),
        ("--seed", "5", "--no-stream", TALE),
        ("--seed", "5", "--raw", "</s><|user|>What is two plus three?"),
        ("--seed", "6", "--top-k", "3", "--min-p", "0.1", "--repetition-penalty", "1.3", TALE),
        ("--temperature", "0", "--stop", "girl", "--stop", "boy", TALE),
        ("--temperature", "0", "--logit-bias", "557=-100", "--suppress-tokens", "3,4", TALE),
        ("--temperature", "0", "-n", "0", TALE),
        ("--temperature", "0", "--raw", "-n", "600", "word " * 200),
        ("--seed", "5", "--system", "You are a pirate.", TALE),
        ("--no-think", TALE),
        ("--raw", "--system", "x", TALE),
        ("word " * 3000,),
        ("--temperature", "0", "--regex", "[0-9]{3}", TALE),
        ("--temperature", "0", "--regex", "[0-9]{30}", "-n", "4", TALE),
        ("--regex", "[", TALE),
        ("--image", "/nonexistent.png", TALE),
    ],
)
def test_it_is_the_same_with_a_server_as_without(server: str, arguments: tuple[str, ...]) -> None:
    here, there = both(server, "-m", "demo", *arguments)
    assert there == here


def test_json_is_the_same(server: str) -> None:
    arguments = ("-m", "demo", "--json", "--seed", "7", "--logprobs", "3", "-n", "9", TALE)
    here, there = (json.loads(outcome.out) for outcome in both(server, *arguments))
    timings = there.pop("timings")
    assert timings.keys() == here.pop("timings").keys()
    assert 0 < timings["first_text"] <= timings["total"]
    # The server has run the same prompt for another test, or it has not.
    for told in (here, there):
        del told["cached_tokens"], told["drafted_tokens"], told["accepted_tokens"]
    assert there == here
    assert len(here["logprobs"]) == 9


def test_a_seed_is_drawn_and_told(server: str) -> None:
    drawn = json.loads(run("generate", "-m", "demo", "--server", server, "--json", TALE).out)
    arguments = ("-m", "demo", "--seed", str(drawn["seed"]), TALE)
    assert both(server, *arguments)[0].out.decode() == drawn["text"]


def test_pictures_and_what_is_piped_in(server: str, tmp_path: Path) -> None:
    red, blue = tmp_path / "red.png", tmp_path / "blue.png"
    red.write_bytes(encoded(circle()))
    blue.write_bytes(encoded(circle("blue", side=100)))
    asked = ("-m", "demo-vision", "--temperature", "0")
    question = "What is in the picture?"
    here, there = both(server, *asked, "-i", red, question)
    assert there == here
    assert b"red circle" in there.out
    here, there = both(server, *asked, "-i", "-", question, stdin=blue.read_bytes())
    assert there == here
    assert b"blue circle" in there.out
    here, there = both(server, *asked, "-i", red, "--image-mode", "pad", question)
    assert there == here
    here, there = both(server, "-m", "demo", "--temperature", "0", stdin=b"What is two plus two?")
    assert there == here
    assert there.out
    here, there = both(server, *asked, "-i", red, "-i", tmp_path / "none.png", question)
    assert there == here
    there.refused(3, "none.png")


def test_a_folder_is_the_same_model_wherever_the_server_was_started(
    chatty: Path, tmp_path: Path
) -> None:
    (tmp_path / chatty.name).symlink_to(chatty.parent)
    with serving("-m", chatty) as server:
        assert run("generate", "-m", chatty, "--server", server, "hello").out == b"As asked."
        elsewhere = ("generate", "-m", chatty.name, "--server", server, "hello")
        assert run(*elsewhere, folder=chatty.parent).out == b"As asked."
        for other in (chatty, tmp_path):  # no folder of that name, and one that is another
            outcome = run(*elsewhere, folder=other)
            outcome.refused(2, f"model '{chatty.name}'", "is not one that the server has")
        run("generate", "-m", "tinyllama", "--server", server, "hello").refused(
            2, "start the server with tinyllama", "--server none"
        )


def test_neither_torch_nor_a_tokenizer_is_imported(server: str) -> None:
    arguments = ("generate", "-m", "demo", "--server", server, "--seed", "1", TALE)
    outcome = run_cold(*arguments, python=("-X", "importtime"))
    assert outcome.code == 0
    lines = [line for line in outcome.err.splitlines() if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "lolama_cli" in names
    heavy = {"torch", "tokenizers", "jinja2", "PIL", "rich", "prompt_toolkit", "huggingface_hub"}
    assert not names & (heavy | {"starlette", "uvicorn", "msgspec", "lolama_vision"})


@pytest.mark.parametrize(
    "given",
    [
        ("--quantize",),
        ("--quantize", "4"),
        ("--device", "cpu"),
        ("--dtype", "float32"),
        ("--cache-dtype", "int8"),
        ("--draft", "off"),
        ("--prompt-cache", "x"),
        ("--template", "x"),
        ("--cache-memory", "1GB", "--batch", "x"),
    ],
)
def test_what_the_server_decides_is_refused(given: tuple[str, ...]) -> None:
    outcome = run("generate", "--server", "http://127.0.0.1:1", *given, TALE)
    outcome.refused(2, f"error: {given[0]}: is decided where http://127.0.0.1:1 was started")


def test_the_configuration_names_a_server_and_what_it_says_of_loading_is_for_runs_here(
    server: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'server = "{server}"\ndevice = "cuda:7"\nmodel = "demo"\n')
    env = {"LOLAMA_CONFIG": str(config)}
    asked = ("generate", "--seed", "5", TALE)
    expected = run("generate", "-m", "demo", *HERE, "--seed", "5", TALE)
    assert run(*asked, env=env) == expected
    assert run(*asked, "--server", "none", env=env).code != 0  # there is no such GPU
    assert run(*asked, env={"LOLAMA_SERVER": server, "LOLAMA_MODEL": "demo"}) == expected


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:8080", "ftp://x", "http://", "http://u:p@x", "http://x:99999"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    run("generate", "--server", address, TALE).refused(2, "--server", "http://127.0.0.1:8080")


def test_a_server_that_does_not_answer_is_an_error_and_nothing_runs_here() -> None:
    outcome = run("generate", "-m", "demo", "--server", "http://127.0.0.1:1", TALE)
    outcome.refused(4, "--server: http://127.0.0.1:1 does not answer", "lolama serve")


def test_another_store_is_another_server(server: str, tmp_path: Path) -> None:
    arguments = ("generate", "-m", "demo", "--server", server, TALE)
    outcome = run(*arguments, env={"LOLAMA_HOME": str(tmp_path)})
    outcome.refused(2, "another machine's models, or another LOLAMA_HOME")


def test_a_schema_and_a_grammar_go_along(server: str, tmp_path: Path) -> None:
    schema, grammar = tmp_path / "schema.json", tmp_path / "dogs.gbnf"
    schema.write_text(
        '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    )
    grammar.write_text('root ::= "cat" | "dog"')
    for option, file in (("--json-schema", schema), ("--grammar", grammar)):
        here, there = both(server, "-m", "demo", "--temperature", "0", option, file, TALE)
        assert there == here
        assert there.code == 0


def test_a_key_is_asked_for_and_taken() -> None:
    arguments = ("generate", "-m", "demo", "--seed", "5", TALE)
    with serving("-m", "demo", "--api-key", "right", "--api-key", "schlüssel") as server:
        asked = (*arguments, "--server", server)
        run(*asked).refused(5, "needs a key", "LOLAMA_API_KEY")
        run(*asked, env={"LOLAMA_API_KEY": "wrong"}).refused(5, "refuses the key")
        run(*asked, env={"LOLAMA_API_KEY": "clé日"}).refused(5, "refuses the key")
        right = run(*asked, env={"LOLAMA_API_KEY": "right"})
        other = run(*asked, env={"LOLAMA_API_KEY": "schlüssel"})
    assert right == other == run(*arguments, *HERE)


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that is none of lolama's; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{other.server_port}"
        finally:
            other.shutdown()
            thread.join()


def sends(status: int, body: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (404, b"nothing here", 4, "is no lolama serve"),
        (200, b"<html>", 4, "is no lolama serve"),
        (200, b"[1]", 4, "is no lolama serve"),
        (200, b'{"lolama": "0.0.1", "protocol": 1}', 2, "is lolama 0.0.1, and this is"),
        (503, b'{"error": {"message": "asleep"}}', 6, "refuses: asleep"),
    ],
)
def test_a_server_that_is_another_is_named(status: int, body: bytes, code: int, words: str) -> None:
    with answering(sends(status, body)) as address:
        outcome = run("generate", "-m", "demo", "--server", address, TALE)
    outcome.refused(code, address, words)


def test_ctrl_c_ends_the_work_at_the_server(endless: Path) -> None:
    with serving("-m", endless) as server:
        going = start("generate", "-m", endless, "--server", server, *ENDLESS)
        assert going.stdout.read(5)
        assert running(server) == 1
        going.send_signal(2)
        going.communicate()
        assert going.returncode == 130
        until(lambda: running(server) == 0)


def test_a_server_that_is_stopped_says_so(endless: Path) -> None:
    with serving("-m", endless) as server:
        going = start("generate", "-m", endless, "--server", server, *ENDLESS)
        assert going.stdout.read(5)
    _, err = going.communicate()
    assert going.returncode == 6, err
    assert b"the server is being stopped" in err


def test_the_most_tokens_of_a_server_are_told() -> None:
    with serving("-m", "demo", "--max-tokens", "4") as server:
        outcome = run("generate", "-m", "demo", "--server", server, "--seed", "5", TALE)
    assert outcome.err == "note: the server gives 4 tokens at most\n"
    assert outcome.out == run("generate", "-m", "demo", *HERE, "--seed", "5", "-n", "4", TALE).out


def test_a_context_that_is_full_is_told(server: str, short: Path) -> None:
    with serving("-m", short) as server:
        for text in ("abcdef", "abcdefghijklmno", "abcdefghijklmnopqrst"):
            here, there = both(server, "-m", short, "--temperature", "0", text)
            assert there == here


def test_on_a_terminal_it_looks_the_same(server: str) -> None:
    arguments = ("generate", "-m", "demo", "--seed", "5", TALE)
    assert on_terminal(*arguments, "--server", server) == on_terminal(*arguments, *HERE)
