"""How far a command is, on a terminal; nothing of it elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from terminal import Terminal
from warm_program import run

from lolama.steps import counted, named
from lolama_cli.progress_line import ProgressLine, duration


def shown(reports: list[tuple[float, int, int]]) -> list[str]:
    """What is drawn of reports: at which second, steps that are done, steps that there are."""
    stream = io.StringIO()
    now = 0.0
    line = ProgressLine("reading", stream, clock=lambda: now)
    for now, done, count in reports:  # noqa: B007 # the clock reads it
        line(done, count)
    line.erase()
    return stream.getvalue().split("\r")[1:]


def test_row_206_the_share_that_is_done_and_the_time_left() -> None:
    assert shown([(5, 0, 40), (7, 1, 40), (25, 20, 40), (45, 40, 40)]) == [
        "reading: 0 %\x1b[K",
        "reading: 2 %, 78 s left\x1b[K",
        "reading: 50 %, 20 s left\x1b[K",
        "reading: 100 %, 0 s left\x1b[K",
        "\x1b[K",
    ]


def test_row_206_it_is_not_drawn_a_thousand_times_a_second() -> None:
    reports = [(n / 1000, n, 1000) for n in range(1000)]
    assert len(shown(reports)) <= 12


def test_row_206_a_second_phase_begins_anew() -> None:
    assert shown([(0, 0, 2), (100, 2, 2), (100, 0, 4), (110, 1, 4)])[2:4] == [
        "reading: 0 %\x1b[K",
        "reading: 25 %, 30 s left\x1b[K",
    ]


def test_row_206_a_phase_may_have_a_name() -> None:
    stream = io.StringIO()
    line = ProgressLine("reading", stream, clock=iter([0.0, 1.0, 2.0]).__next__)
    for steps in (named(line, "writing"), line, named(line, "comparing")):
        assert steps is not None
        steps(0, 2)
    assert stream.getvalue().split("\r")[1:] == [
        "writing: 0 %\x1b[K",
        "reading: 0 %\x1b[K",
        "comparing: 0 %\x1b[K",
    ]


def test_row_206_steps_that_nobody_reads_have_no_name() -> None:
    told: list[tuple[int, int]] = []

    def tell(done: int, count: int) -> None:
        told.append((done, count))

    assert named(tell, "writing") is tell and named(None, "writing") is None


def test_row_206_nothing_is_drawn_for_what_takes_no_steps() -> None:
    assert shown([]) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3540, "59 min"), (3600, "1 h 0 min")],
)
def test_row_206_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_row_206_steps_are_told_of_items_that_are_done_with() -> None:
    told: list[tuple[int, int]] = []
    items = counted("ab", 2, lambda done, count: told.append((done, count)))
    assert (next(items), told) == ("a", [(0, 2)])
    assert (next(items), told) == ("b", [(0, 2), (1, 2)])
    assert (list(items), told) == ([], [(0, 2), (1, 2), (2, 2)])
    assert list(counted("ab", 2, None)) == ["a", "b"]


COMMANDS = {
    "reading the text": ("eval", "-m"),
    "comparing": ("quantize", "--report", "-o", "OUT", "-m"),
    "quantizing": ("quantize", "-o", "OUT", "-m"),
    "running 3 times": ("bench", "--repeats", "2", "--max-tokens", "2", "-m"),
    "writing": ("convert",),
}


# There are as many steps in four texts as in many.
FOUR_TEXTS = """
import lolama_quant
texts = lolama_quant.default_text()[:4]
lolama_quant.default_text = lambda: texts
"""


@pytest.mark.parametrize("what", COMMANDS)
def test_row_206_a_terminal_is_told_how_far_a_command_is(
    what: str, base: Path, tmp_path: Path
) -> None:
    words = [str(tmp_path / "out") if word == "OUT" else word for word in COMMANDS[what]]
    command: list[str | Path] = [*words, base]
    if what == "writing":
        command.append(tmp_path / "out")
    terminal = Terminal(*command, before=FOUR_TEXTS)
    assert terminal.end() == 0
    before, _, after = terminal.out.rpartition(b"\r\x1b[K")
    assert f"\r{what}: 0 %\x1b[K".encode() in before
    # It is gone when the result comes, and the result is whole.
    assert b"%\x1b[K" not in after and after.strip()


@pytest.mark.parametrize("what", COMMANDS)
def test_row_206_a_pipe_is_told_nothing(what: str, base: Path, tmp_path: Path) -> None:
    words = [str(tmp_path / "out") if word == "OUT" else word for word in COMMANDS[what]]
    target = [tmp_path / "out"] if what == "writing" else []
    outcome = run(*words, base, *target, before=FOUR_TEXTS)
    assert (outcome.code, outcome.err) == (0, "")
    assert b"\r" not in outcome.out
