"""What a stand-in hub has and has seen: its servers read it, and tests order faults in it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from lolama_hub.testing.faults import Fault, Place
from lolama_hub.testing.repository import Repository


@dataclass
class Request:
    """A request that came. ``sent`` is how many bytes of the body have gone out so far."""

    place: str
    path: str
    range: str
    authorised: bool
    sent: int = 0


class HubState:
    """Repositories, tokens, faults and requests. Each request is answered in a thread of its own.

    Args:
        rate: Bytes a second of a large file; 0 for as fast as it goes.

    Attributes:
        endpoint, file_server: Addresses of the two servers.
        repos: ``owner/name`` → what is published there.
        faults: Are acted out in order; each is used up.
        requests: Every request so far.
        gated: Repositories whose files need a token in ``members``.
        tokens: Tokens that exist.
        members: Those among them that were given access to what is gated.
        listing: What replaces the list of files of a repository, if anything.
        page_size: Files a page of a list.
        stopping: Is set when the servers stop.
    """

    endpoint: str
    file_server: str

    def __init__(self, rate: float) -> None:
        self.repos: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.gated: set[str] = set()
        self.tokens: set[str] = set()
        self.members: set[str] = set()
        self.listing: dict[str, object] = {}
        self.page_size = 1000
        self.rate = rate
        self.stopping = threading.Event()
        self._signatures: set[str] = set()
        self._lock = threading.Lock()

    def take_fault(self, place: Place, name: str) -> Fault | None:
        """The next fault for this request, if there is one."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.place == place and fault.name in ("", name):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def sign(self) -> str:
        """A signature that opens one large file once."""
        with self._lock:
            signature = f"{len(self._signatures):x}-{time.time_ns():x}"
            self._signatures.add(signature)
            return signature

    def redeem(self, signature: str) -> bool:
        """Whether it was given out and not used yet."""
        with self._lock:
            known = signature in self._signatures
            self._signatures.discard(signature)
            return known

    def record(self, request: Request) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(request)
