"""Sizes of memory as users write them."""

from __future__ import annotations

import re

from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([kmgt]?i?)b?", re.IGNORECASE)


def read_size(text: str, subject: str) -> int:
    """``2GB``, ``1.5 GiB``, ``800M`` or a number of bytes → bytes, at least one.

    As usual, GB and G are 10^9 bytes, and GiB and Gi are 2^30.

    Raises:
        UsageError: about ``subject``, for anything else.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = None if found is None else {**_UNITS, **_BINARY}.get(found[2].lower())
    if found is None or unit is None or (size := int(float(found[1]) * unit)) < 1:
        reason = f"{shown(text, 40)} is no size of memory"
        raise UsageError(subject, reason, "write it as 2GB or 800MB")
    return size
