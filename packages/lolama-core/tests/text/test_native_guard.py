from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from lolama_core.protocols.errors import EXIT_MODEL, ModelError
from lolama_core.testing.promises import Promises
from lolama_core.text.native_guard import call_native


class Panic(BaseException):
    """What a panic in Rust looks like: no `Exception`."""


def complain() -> int:
    os.write(2, b"thread panicked at src/lib.rs\n")
    return 5


def test_the_result_comes_back() -> None:
    assert call_native(lambda: 5, subject="x") == 5
    assert call_native(lambda: 5, subject="x", seconds=60.0) == 5
    assert call_native(lambda: None, subject="x", seconds=60.0) is None


@pytest.mark.parametrize("seconds", [None, 60.0])
@pytest.mark.parametrize("kind", [ValueError, Panic, MemoryError, RecursionError])
def test_every_failure_is_one_error(kind: type[BaseException], seconds: float | None) -> None:
    def fail() -> None:
        raise kind("line one\n  line two " + "x" * 1000)

    with pytest.raises(
        ModelError, match=r"tokenizer\.json: cannot be used: line one line two x*;"
    ) as e:
        call_native(fail, subject="tokenizer.json", seconds=seconds)
    assert e.value.exit_code == EXIT_MODEL
    assert len(str(e.value)) < 400


def test_row_420_what_cannot_be_printed_is_escaped() -> None:
    def fail() -> None:
        raise ValueError("Token `\0\x1b[31m\ud800` out of vocabulary")

    with pytest.raises(ModelError, match=r"Token `\\x00\\x1b\[31m\\ud800` out of") as caught:
        call_native(fail, subject="x")
    assert str(caught.value).isprintable()


def test_a_failure_without_words() -> None:
    def fail() -> None:
        raise Panic

    with pytest.raises(ModelError, match="Panic"):
        call_native(fail, subject="x")


@pytest.mark.parametrize("seconds", [None, 60.0])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_none(kind: type[BaseException], seconds: float | None) -> None:
    def interrupt() -> None:
        raise kind

    with pytest.raises(kind):
        call_native(interrupt, subject="x", seconds=seconds)


def test_it_gives_up() -> None:
    """While the call goes on: it ends here only after the error is there."""
    release, ended = threading.Event(), threading.Event()

    def endless() -> None:
        release.wait()
        ended.set()

    with pytest.raises(ModelError, match=r"x: took longer than 0\.2 s"):
        call_native(endless, subject="x", seconds=0.2)
    assert not ended.is_set()
    release.set()
    assert ended.wait(60)


def test_row_425_a_process_that_is_stopped_meanwhile_gives_nothing_up() -> None:
    """It is stopped for longer than the call may take, and the call still has something to do then."""
    code = (
        "import os, signal, subprocess, sys, time\n"
        "from lolama_core.text.native_guard import call_native\n"
        "def stop():\n"
        "    time.sleep(0.1)\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    time.sleep(0.1)\n"
        "    return 7\n"
        "wakes = ['sh', '-c', f'sleep 2; kill -CONT {os.getpid()}; sleep 1; kill -CONT {os.getpid()}']\n"
        "with subprocess.Popen(wakes):\n"
        "    sys.exit(call_native(stop, subject='x', seconds=1.0))\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 7


@pytest.mark.promise
def test_it_gives_up_when_it_says(promises: Promises) -> None:
    release = threading.Event()
    with promises.within(0.3, "giving up after 0.2 s"), pytest.raises(ModelError):
        call_native(release.wait, subject="x", seconds=0.2)
    release.set()


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_native_complaints_are_not_shown(
    seconds: float | None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call_native(complain, subject="x", seconds=seconds) == 5
    os.write(2, b"visible again\n")
    print("also from Python", file=sys.stderr)
    assert capfd.readouterr() == ("", "visible again\nalso from Python\n")


def test_stderr_comes_back_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        complain()
        raise Panic

    for _ in range(3):
        with pytest.raises(ModelError):
            call_native(fail, subject="x")
    os.write(2, b"visible again\n")
    assert capfd.readouterr().err == "visible again\n"


def test_threads_share_one_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """Calls that overlap, whichever begins and ends first, leave it as it was."""
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first() -> None:
        first_is_in.set()
        second_is_in.wait(60)
        complain()

    def second() -> None:
        second_is_in.set()
        first_is_out.wait(60)
        complain()

    def run_first() -> None:
        call_native(first, subject="x")
        first_is_out.set()

    one = threading.Thread(target=run_first)
    one.start()
    first_is_in.wait(60)
    call_native(second, subject="x")
    one.join()
    os.write(2, b"visible again\n")
    assert capfd.readouterr().err == "visible again\n"


def test_no_files_are_left_open() -> None:
    def count() -> int:
        handle = os.open(os.devnull, os.O_RDONLY)
        os.close(handle)
        return handle

    before = count()
    for _ in range(20):
        call_native(lambda: 1, subject="x")
    assert count() == before


def test_without_a_stderr() -> None:
    """A program started with it closed works all the same."""
    code = (
        "import os, sys\n"
        "from lolama_core.text.native_guard import call_native\n"
        "os.close(2)\n"
        "sys.exit(call_native(lambda: 7, subject='x'))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE).returncode == 7


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    code = (
        "import threading\n"
        "from lolama_core.text.native_guard import call_native\n"
        "try:\n"
        "    call_native(threading.Event().wait, subject='x', seconds=0.1)\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "took longer" in done.stdout
