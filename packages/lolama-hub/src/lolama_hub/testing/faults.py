"""What can go wrong between a client and the Hub, as values that `StandInHub` acts out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

Place = Literal["revision", "tree", "head", "resolve", "file"]
"""Which request: the commit of a revision, the list of files, HEAD of a file, GET of a file at the Hub (which
sends large ones on), GET of a large file at the file server."""

Kind = Literal[
    "status",
    "reset",
    "close",
    "stall",
    "trickle",
    "flip",
    "drop-headers",
    "ignore-range",
    "headers",
    "html",
    "body",
]


@dataclass
class Fault:
    """One fault, acted out ``times`` times at the requests it applies to.

    Attributes:
        kind: ``status`` answers ``status``; ``reset``, ``close``, ``stall`` and ``trickle`` happen after
            ``after`` bytes of the body; ``flip`` inverts the bit at byte ``after``; ``drop-headers`` leaves
            out those in ``headers`` and ``headers`` sets them; ``ignore-range`` sends the whole file;
            ``html`` answers a web page with 200; ``body`` answers ``body`` with 200.
        place: Where it happens.
        times: How often; a large number for ever.
        skip: Requests that pass unharmed before.
        name: Only for this file; any if empty.
        after: Bytes of the whole file, at which it happens.
        status: The status code of a fault ``status``.
        headers: The headers of a fault ``status`` or ``body``.
        body: The body of a fault ``body``.
    """

    kind: Kind
    place: Place = "file"
    times: int = 1
    skip: int = 0
    name: str = ""
    after: int = 0
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __str__(self) -> str:
        details = f" {self.status}" if self.kind == "status" else f" after {self.after}"
        return f"{self.times} × {self.kind}{details} at {self.place}"


ALWAYS = 10**9


def random_script(seed: int, size: int) -> list[Fault]:
    """One to four faults, some of which a client can get over and some not.

    Args:
        seed: The same seed gives the same faults.
        size: Bytes of the large file.
    """
    chance = random.Random(seed)
    script = []
    for _ in range(chance.choice([1, 1, 2, 2, 3, 4])):
        kind: Kind = chance.choice(
            ["status", "status", "reset", "reset", "close", "close", "stall", "flip", "ignore-range",
             "trickle", "drop-headers", "headers", "html", "body"]
        )  # fmt: skip
        place: Place = chance.choice(
            ["revision", "tree", "head", "resolve", "file", "file", "file"]
        )
        headers: dict[str, str] = {}
        if kind == "headers":
            name = chance.choice(
                ["ETag", "X-Linked-Etag", "Content-Length", "Content-Range", "Location"]
            )
            value = chance.choice(
                ["../../escaped", "0", "12", "bytes 0-1/2", "", "http://127.0.0.1:9/x"]
            )
            headers = {name: value}
        elif kind == "drop-headers":
            headers = dict.fromkeys(
                chance.sample(["ETag", "X-Linked-Etag", "X-Repo-Commit"], 2), ""
            )
        elif kind == "status" and chance.random() < 0.3:
            headers = {"Retry-After": chance.choice(["0", "1", "3600", "-1", "soon"])}
        script.append(
            Fault(
                kind=kind,
                place=place,
                times=chance.choice([1, 1, 2, 3, ALWAYS]),
                after=chance.randrange(size),
                status=chance.choice([400, 401, 403, 404, 408, 416, 418, 429, 500, 502, 503, 504]),
                headers=headers,
                body=chance.choice([b"", b"{}", b"[]", b'{"sha": 1}', b"[[]]", b"\xff", b"null"]),
            )
        )
    return script
