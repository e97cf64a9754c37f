"""What lolama uses of huggingface_hub, which reads the environment as it is imported, and does not check it.

Importing this module raises a NetworkError or UsageError where the environment makes no sense.
"""

from __future__ import annotations

import os

from lolama_core.protocols.errors import NetworkError, UsageError
from lolama_hub.download.addresses import is_web_address


def _no_endpoint() -> NetworkError:
    # What it is set to is not shown, since it may hold a password.
    reason = "is not a web address: http:// or https://, a host and, if need be, a port"
    return NetworkError("HF_ENDPOINT", reason, "correct or unset it")


if not is_web_address(os.environ.get("HF_ENDPOINT") or "https://huggingface.co"):
    raise _no_endpoint()  # before huggingface_hub prints what it is
try:
    from huggingface_hub import constants, get_cached_repo_tree, get_session, get_token
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
except ValueError as error:
    raise UsageError(
        "the environment",
        f"sets up huggingface_hub in a way that it does not understand ({error})"[:200],
        "correct or unset the variables that begin with HF_",
    ) from None

__all__ = [
    "CachedRepoTreeNotFoundError",
    "constants",
    "endpoint",
    "get_cached_repo_tree",
    "get_session",
    "get_token",
]


def endpoint() -> str:
    """The Hub's address: ``HF_ENDPOINT``, or its usual one.

    Raises:
        NetworkError: if it is no address.
    """
    if not is_web_address(constants.ENDPOINT):
        raise _no_endpoint()
    return str(constants.ENDPOINT)
