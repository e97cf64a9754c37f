"""``--logprobs``: whether it may be given."""

from __future__ import annotations

from lolama_cli.setting_options import generation_config
from lolama_core.protocols.errors import UsageError


def check_logprobs(count: int | None, *, as_json: bool) -> None:
    """Refuse a number that is out of range, or that has nowhere to be written.

    Raises:
        UsageError: naming the option.
    """
    generation_config(logprobs=count)
    if count is not None and not as_json:
        raise UsageError("--logprobs", "has no place in plain text", "add --json")
