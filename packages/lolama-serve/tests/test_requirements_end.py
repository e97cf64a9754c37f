"""Requirement 20: how a server ends while it answers.

docs/serve-requirements.md tells where each requirement comes from.
"""

from __future__ import annotations

import signal

import pytest
from faulty_host import PATIENCE
from live_server import everything
from served_process import open_streams, port_of, slow_process

from lolama_core.testing.promises import Promises


def test_requirement_20_at_sigterm_each_stream_gets_an_end() -> None:
    with slow_process() as process:
        streams = open_streams(port_of(process), 3)
        process.send_signal(signal.SIGTERM)
        for stream in streams:
            rest = everything(stream)
            assert b"is being stopped" in rest or b"data: [DONE]" in rest
            assert rest.endswith(b"0\r\n\r\n")  # the whole of a chunked answer
        assert process.wait(PATIENCE) == 0


@pytest.mark.promise
def test_requirement_20_the_process_ends_within_five_seconds(promises: Promises) -> None:
    with slow_process() as process:
        streams = open_streams(port_of(process), 20)
        with promises.within(5, "the end of a server with open streams"):
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
        for stream in streams:
            stream.close()
