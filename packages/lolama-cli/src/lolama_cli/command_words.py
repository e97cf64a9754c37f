"""What Python calls a setting → what the command calls it.

Errors of the packages name settings as Python does: as their subject, and in their remedies as code, such as
`dtype="float32"` between backquotes. Whoever typed a command is told of its options.
"""

from __future__ import annotations

import re

from lolama_cli.settings import SETTINGS, option_of
from lolama_core.protocols.errors import LolamaError

STILL_THINKING = (
    "the model still thought when it had no tokens left: raise --max-tokens, or give --no-think"
)
"""What to say of a reply that never began."""

OPTIONS = {
    "api_key": "--api-key",
    "cache_bytes": "--cache-memory",
    "cache_dtype": "--cache-dtype",
    "calibration text": "--calibrate",
    "confirm": "--yes",
    "device": "--device",
    "directory": "-o",
    "draft": "--draft",
    "dtype": "--dtype",
    "embedding_bits": "--embedding-bits",
    "force": "--force",
    "host": "--host",
    "generate": "--raw",  # in Python, what continues a text without a chat template
    "images": "--image",
    "lm_head_bits": "--lm-head-bits",
    "logprobs": "--logprobs",
    "mode": "--image-mode",
    "model_bytes": "--model-memory",
    "outtype": "--outtype",
    "port": "--port",
    "quantize": "--quantize",
    "server": "--server",
    "system": "--system",
    "template": "--template",
    "thinking": "--no-think",
    **{row.name: option_of(key) for key, row in SETTINGS.items()},
}

_CODE = re.compile(r"`(\w+)(?:=([^`]+))?`")


def about_options(error: LolamaError) -> LolamaError:
    """The same error for whoever typed a command: about the option, with a remedy of options."""
    subject = OPTIONS.get(error.subject, error.subject)
    translated = type(error)(subject, error.reason, in_options(error.remedy))
    translated.exit_code = error.exit_code  # which a batch takes from its first error
    return translated


def in_options(remedy: str) -> str:
    """``remedy`` with an option in the place of each setting that stands as code."""
    return _CODE.sub(_option, remedy)


def _option(code: re.Match[str]) -> str:
    option, value = OPTIONS.get(code[1]), code[2]
    if option is None:
        return code[0]
    return option if value in (None, "True") else f"{option} {value.strip(chr(34))}"
