"""Patterns that explode: given up with one error, in processes of their own, since nothing else ends them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

from lolama_core.testing.promises import Promises


def exploding(pattern: str) -> str:
    native = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "!": 1}, merges=[]))
    native.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return str(native.to_str())


PATTERN = "(a+)+$"
PANIC = "a" * 40 + "!"  # more attempts at one place than the library allows: it panics
ENDLESS = ("a" * 20 + "!") * 2000  # fewer, but at each of many places: more than a minute
EXPLODE = """
import sys
from lolama_core import Tokenizer
from lolama_core.protocols.errors import ModelError
from lolama_core.text import encoder
encoder._SECONDS_PER_CALL = float(sys.argv[3])
tokenizer = Tokenizer.from_file(sys.argv[1])
for text in sys.argv[2], "aa!":
    try:
        print(tokenizer.encode(text))
    except ModelError as error:
        print(error)
"""


@pytest.mark.parametrize("text", [PANIC, ENDLESS], ids=["panic", "endless"])
@pytest.mark.parametrize("escaped", [False, True])
def test_a_pattern_that_explodes(tmp_path: Path, text: str, escaped: bool) -> None:
    """One error each time; nothing on the standard error; and the process can end."""
    source = exploding(PATTERN)
    if escaped:  # another way to write the same JSON
        source = source.replace('"Regex"', '"\\u0052egex"')
        assert '"Regex"' not in source
    path = tmp_path / "tokenizer.json"
    path.write_text(source, encoding="utf-8")
    seconds = "60" if text is PANIC else "0.2"
    done = subprocess.run(
        [sys.executable, "-c", EXPLODE, str(path), text, seconds],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "RUST_BACKTRACE": "full"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert str(path) in first
    if text is PANIC:
        assert second == "[0, 0, 1]"
    else:  # the first call is still busy in there
        assert str(path) in second and "explodes" in second


@pytest.mark.promise
@pytest.mark.parametrize("text", [PANIC, ENDLESS], ids=["panic", "endless"])
def test_row_54_a_pattern_that_explodes_is_given_up_soon(text: str, promises: Promises) -> None:
    program = (
        "import sys\n"
        "from lolama_core import Tokenizer\n"
        "tokenizer = Tokenizer(sys.argv[1])\n"
        "print(flush=True)\n"
        "tokenizer.encode(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, exploding(PATTERN), text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with promises.within(4, "a pattern that explodes"):
            assert process.wait(60) == 1
