"""Errors as the answers of each API tell them."""

from __future__ import annotations

import json
import re
from typing import Any

from lolama_core.protocols.errors import (
    LolamaError,
    NotAvailableError,
    ResourceError,
    UsageError,
)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


class APIError(Exception):
    """An answer that says what is wrong.

    Args:
        status: The HTTP status.
        message: What is wrong, and what to do.
        type: The kind of error; by default that of the status.
        param: The field of the request that it is about.
        code: A name of the error for programs.
        retry_after: After how many seconds to try again.
        facts: Further fields of the error.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.type = type or _TYPES.get(status, "server_error")
        self.retry_after, self.facts = retry_after, facts

    def as_openai(self) -> dict[str, Any]:
        """The body of the answer, as OpenAI's API has it."""
        error = {"message": self.message, "type": self.type, "param": self.param}
        return {"error": {**error, "code": self.code, **self.facts}}

    def as_anthropic(self) -> dict[str, Any]:
        """The body of the answer, as Anthropic's API has it."""
        kind = {
            "exceed_context_size_error": "invalid_request_error",
            "server_error": "api_error",
            "unavailable_error": "overloaded_error",
            "not_supported_error": "invalid_request_error",
        }.get(self.type, self.type)
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def as_ollama(self) -> dict[str, Any]:
        """The body of the answer, as ollama's API has it."""
        return {"error": self.message}


class ContextExceeded(APIError):
    """A prompt that is longer than the context.

    Args:
        length: Positions of the prompt.
        context: How many there may be.
    """

    def __init__(self, length: int, context: int) -> None:
        message = (
            f"the prompt has {length:,} tokens, and with one of the answer exceeds the available context "
            f"size of {context:,}; shorten it, or start the server with a larger context"
        )
        super().__init__(
            400,
            message,
            type="exceed_context_size_error",
            code="context_length_exceeded",
            n_prompt_tokens=length,
            n_ctx=context,
        )


def being_stopped() -> APIError:
    """The answer to a request that has not ended when the server does."""
    return APIError(503, "the server is being stopped; try again later")


def api_error(error: Exception) -> APIError:
    """The answer to a request that led to ``error``. What is unknown tells nothing of the machine."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, NotAvailableError):
        return APIError(501, _without_folders(error))
    if isinstance(error, UsageError):
        return APIError(400, str(error), param=error.subject)
    if isinstance(error, ResourceError):
        return APIError(503, _without_folders(error), retry_after=10)
    if isinstance(error, LolamaError):
        return APIError(500, _without_folders(error))
    return APIError(500, "the server failed at this request; its log says why")


def _without_folders(error: LolamaError) -> str:
    """The error with the last part of each path alone: where files lie on this machine is told to nobody."""
    return re.sub(r"(?<![\w.:/])/(?:[^/\s]+/)+", "", str(error))


def error_body(path: str, error: APIError) -> bytes:
    """The body of an error, in JSON, as the API to which ``path`` belongs has it."""
    if path.startswith("/v1/messages"):
        facts = error.as_anthropic()
    elif path.startswith("/api/"):
        facts = error.as_ollama()
    else:
        facts = error.as_openai()
    return json.dumps(facts).encode()
