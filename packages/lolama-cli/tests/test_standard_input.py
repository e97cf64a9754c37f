"""A prompt, standard input, or both."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import termios
import time
from pathlib import Path

import pytest
from known_model import write
from patience import until
from program import shell
from warm_program import run, start

SAYS_PROMPT = "{{ bos_token }}{{ raise_exception(messages[0].content | tojson) }}"


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose error tells the prompt that it was given."""
    directory = tmp_path_factory.mktemp("models") / "echo"
    return write(directory, chat_template=SAYS_PROMPT)


def prompt_in(error: str) -> str:
    """The prompt that the template of `echo` was given."""
    start = error.index('"')
    text: str = json.JSONDecoder().raw_decode(error[start:])[0]
    return text


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_the_prompt_from_standard_input(base: Path, arguments: tuple[str, ...]) -> None:
    outcome = run("generate", "-m", base, "--max-tokens", "3", *arguments, stdin=b"xyz\n")
    assert (outcome.code, outcome.out) == (0, b"abc")


@pytest.mark.parametrize(
    ("piped", "prompt"),
    [
        (b"a\nb\n", "a\nb\n\nSay:"),
        (b"a\r\n", "a\n\nSay:"),
        (b" a\n\n", " a\n\n\nSay:"),
        ("été 🐑".encode(), "été 🐑\n\nSay:"),
        (b"", "Say:"),
        (b"\n", "Say:"),
    ],
)
def test_row_170_what_is_piped_in_goes_before_the_prompt(
    echo: Path, piped: bytes, prompt: str
) -> None:
    outcome = run("generate", "-m", echo, "Say:", stdin=piped)
    assert outcome.code == 3
    assert prompt_in(outcome.err) == prompt


@pytest.mark.parametrize(
    ("script", "prompt"),
    [
        ('lolama generate -m "$1" Say: < "$2"', "notes\n\nSay:"),
        ('{ printf no; sleep 0.3; printf tes; } | lolama generate -m "$1" Say:', "notes\n\nSay:"),
        ('lolama generate -m "$1" Say: <&-', "Say:"),
        ('lolama generate -m "$1" Say: 0> /dev/null', "Say:"),  # as nohup leaves it
        # A loop reads its lines from standard input, and so does every program in it.
        ('while read -r n; do lolama generate -m "$1" --no-stdin $n; done < "$2"', "notes"),
    ],
)
def test_row_170_in_scripts(echo: Path, tmp_path: Path, script: str, prompt: str) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("notes\n")
    outcome = shell(script, echo, notes)
    assert prompt_in(outcome.err) == prompt, outcome.err


def test_row_170_a_terminal_is_not_waited_for(echo: Path) -> None:
    ours, theirs = os.openpty()
    _, err = start("generate", "-m", echo, "Say:", stdin=theirs).communicate()
    os.close(ours)
    os.close(theirs)
    assert prompt_in(err.decode()) == "Say:"


@pytest.mark.parametrize(
    ("arguments", "words"), [(("Say:",), b"--no-stdin"), ((), b"waiting for the prompt")]
)
def test_row_171_a_pipe_that_nobody_writes_to_is_mentioned_and_waited_for(
    echo: Path, arguments: tuple[str, ...], words: bytes
) -> None:
    ours, theirs = os.pipe()
    process = start("generate", "-m", echo, *arguments, stdin=ours)
    os.close(ours)
    with process.stderr:
        told = process.stderr.readline()
        assert told.startswith(b"note: waiting for")
        assert words in told
        os.write(theirs, b"late")
        os.close(theirs)
        error = process.stderr.read().decode()
    assert process.wait() == 3
    assert prompt_in(error) == "\n\n".join(["late", *arguments])


def test_row_171_no_stdin_does_not_wait(echo: Path) -> None:
    ours, theirs = os.pipe()
    _, err = start("generate", "-m", echo, "--no-stdin", "Say:", stdin=ours).communicate()
    os.close(ours)
    os.close(theirs)
    assert prompt_in(err.decode()) == "Say:"
    assert b"note" not in err


def test_row_172_a_pipe_that_does_not_block_is_read_to_its_end(echo: Path) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)  # which the program shares
    process = start("generate", "-m", echo, "Say:", stdin=ours)
    os.write(theirs, b"first, ")
    until(lambda: not waiting_in(ours))
    time.sleep(0.1)  # reads on, and finds nothing
    os.write(theirs, b"last")
    os.close(theirs)
    os.close(ours)
    with process.stderr:
        error = process.stderr.read().decode()
    assert process.wait() == 3
    assert prompt_in(error) == "first, last\n\nSay:"


def waiting_in(pipe: int) -> int:
    """Bytes that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_row_170_what_is_no_text_is_refused(echo: Path) -> None:
    def refused(stdin: bytes, *words: str) -> None:
        run("generate", "-m", echo, "Say:", stdin=stdin).refused(2, *words)

    refused(b"ab\xff", "standard input", "0xff", "offset 2")
    refused(b"a\0b", "standard input", "NUL", "offset 1")
    refused(b"a" * 8_000_001, "prompt", "8,000,000")
    refused(b"a" * 8_000_000, "prompt", "8,000,006")
    unreadable = shell('lolama generate -m "$1" Say: < /proc/self/mem', echo)
    unreadable.refused(2, "standard input", "cannot be read", "--no-stdin")


def test_row_170_options_that_ask_for_standard_input_and_leave_it_alone(echo: Path) -> None:
    for arguments in ((), ("-",), ("--image", "-", "x"), ("--batch", "-")):
        run("generate", "-m", echo, "--no-stdin", *arguments).refused(2, "--no-stdin")
