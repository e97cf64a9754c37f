"""What is said about an error, and the exit code; the program as a whole is in ``test_faults``."""

from __future__ import annotations

import errno

import pytest

from lolama_cli.console import ClosedPipeError
from lolama_cli.errors import Settings, Terminated, error_line, report
from lolama_core.protocols.errors import AuthorisationError, ModelError


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ModelError("a.json", "is empty", "fetch it"), 3, "error: a.json: is empty; fetch it\n"),
        (
            MemoryError(),
            6,
            "error: memory: there is not enough of it; use a smaller model\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            6,
            "error: /x: No space left on device; free some space\n",
        ),
        (
            KeyError("weights"),
            1,
            "error: lolama: KeyError: 'weights', which is a bug; "
            "report it with what `lolama --debug ...` prints\n",
        ),
        (KeyboardInterrupt(), 130, ""),
        (Terminated(), 143, ""),
        (ClosedPipeError(), 141, ""),
    ],
)
def test_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, Settings()) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


def test_debug_shows_where_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ModelError("a.json", "is empty", "")
    except ModelError as error:
        report(error, Settings(debug=True))
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("\nerror: a.json: is empty\n")


def test_a_token_is_never_shown() -> None:
    line = error_line(AuthorisationError("hub", "refused the token hf_AbCdEf123456", ""))
    assert line == "error: hub: refused the token hf_…"


def test_a_line_has_an_end() -> None:
    assert len(error_line(ModelError("x" * 5000, "y" * 5000, ""))) == 1000
