"""The log of the server: one JSON object a line, with the id of the request that it is about."""

from __future__ import annotations

import json
import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

logger = logging.getLogger("lolama.serve")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that the current task works for."""


class JSONLines(logging.Formatter):
    """Writes a record as JSON. What a client sent cannot begin a line of its own: JSON escapes it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record; one whose message is a dictionary has its fields."""
        facts: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if (found := request_id.get()) is not None:
            facts["request"] = found
        if isinstance(record.msg, dict):
            facts |= record.msg
        else:
            facts["message"] = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            facts["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(facts, default=str)


def log_to(stream: TextIO, level: int = logging.INFO) -> None:
    """Write what the server and uvicorn tell to ``stream``.

    Args:
        stream: Such as standard error.
        level: The least important kind of record that is written.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONLines())
    for name in ("lolama.serve", "uvicorn"):
        found = logging.getLogger(name)
        found.handlers, found.propagate = [handler], False
        found.setLevel(level if name == "lolama.serve" else max(level, logging.WARNING))
