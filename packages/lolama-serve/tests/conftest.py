"""Fixtures: a server of the built-in model, within this process (`client_of`) or on a port.

`live` is started as for users, and is well after each test; `listening` starts uvicorn's own server.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# pytest imports tests by path (importlib mode), so a module that they share has to be put in reach.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from live_server import Live
    from served_demo import DemoHost
    from starlette.testclient import TestClient

_PATIENCE = 60
"""Seconds in which a server has started or ended."""


@pytest.fixture
def host() -> DemoHost:
    """The models of `client` and of `listening`; a test may change what it says."""
    from served_demo import DemoHost

    return DemoHost()


@pytest.fixture
def client_of(host: DemoHost) -> Iterator[Callable[..., TestClient]]:
    """Starts a server within this process; named arguments are fields of `ServeOptions`."""
    from starlette.testclient import TestClient

    from lolama_serve import ServeOptions, make_app

    with ExitStack() as stack:

        def start(**options: Any) -> TestClient:
            app = make_app(host, ServeOptions(**{"models": ["demo"], **options}))
            return stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))

        yield start


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> TestClient:
    """A client of a server with ordinary options."""
    return client_of()


@pytest.fixture
def listening(host: DemoHost) -> Iterator[Callable[..., str]]:
    """Starts a server on a free port, in a thread; the function gives its address."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(_served(host, options))


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    """The server of `live`, the same for all tests of a file; a file may have one of its own."""
    from faulty_host import FaultyHost
    from live_server import serving

    with serving(FaultyHost(sees_pictures=True), parallel=2) as started:
        yield started


@pytest.fixture
def live(shared: Live) -> Iterator[Live]:
    """A server with nothing in it, which is well afterwards."""
    yield shared
    shared.well()


@contextmanager
def _served(host: DemoHost, options: dict[str, Any]) -> Iterator[str]:
    import uvicorn

    from lolama_serve import ServeOptions, make_app

    app = make_app(host, ServeOptions(**{"models": ["demo"], **options}))
    config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        late = time.monotonic() + _PATIENCE
        while not server.started:
            assert thread.is_alive() and time.monotonic() < late, "the server does not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_PATIENCE)
        assert not thread.is_alive(), "the server does not end"
