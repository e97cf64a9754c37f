"""How often it is tried again, and how long is waited before: on a clock that only waiting moves."""

from __future__ import annotations

import pytest

from lolama_core.protocols.errors import NetworkError
from lolama_hub.download.retries import ATTEMPTS, LONGEST_WAIT, Retries, TransientError

ERROR = NetworkError("owner/model", "fails", "try again later")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each wait, none of which takes place."""
    waited: list[float] = []
    monkeypatch.setattr("lolama_hub.download.retries.time.sleep", waited.append)
    return waited


def test_row_07_waits_double_until_it_gives_up(waits: list[float]) -> None:
    retries = Retries()
    for _ in range(ATTEMPTS - 1):
        retries.failed(TransientError(ERROR))
    with pytest.raises(NetworkError, match="fails"):
        retries.failed(TransientError(ERROR))
    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_progress_is_a_new_beginning(waits: list[float]) -> None:
    retries = Retries()
    for _ in range(20):
        retries.failed(TransientError(ERROR))
        retries.progressed()
    assert waits == [0.5] * 20


def test_row_06_it_waits_as_long_as_a_server_asks(waits: list[float]) -> None:
    retries = Retries()
    retries.failed(TransientError(ERROR, wait=7.0))
    retries.failed(TransientError(ERROR, wait=0.0))
    assert waits == [7.0, 0.0]


@pytest.mark.parametrize("asked", [86_400.0, LONGEST_WAIT + 0.001])
def test_row_06_but_not_as_long_as_a_server_likes(waits: list[float], asked: float) -> None:
    with pytest.raises(NetworkError):
        Retries().failed(TransientError(ERROR, wait=asked))
    assert waits == []


def test_row_06_all_waits_together_are_bounded(waits: list[float]) -> None:
    retries = Retries()
    retries.failed(TransientError(ERROR, wait=0.75 * LONGEST_WAIT))
    with pytest.raises(NetworkError):
        retries.failed(TransientError(ERROR, wait=0.5 * LONGEST_WAIT))
    assert waits == [0.75 * LONGEST_WAIT]
