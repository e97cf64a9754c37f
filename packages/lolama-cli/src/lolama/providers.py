"""The names that 0.1 had for what is now in `lolama_core.plugins`. They go with version 0.3."""

from __future__ import annotations

import warnings
from typing import Any

import lolama_core

_NOW = {
    "Attempt": "PluginAttempt",
    "attempts": "plugin_attempts",
    "families": "installed_families",
    "family": "installed_family",
    "quantizer": "installed_quantizer",
    "source": "installed_source",
}


def __getattr__(name: str) -> Any:
    if name not in _NOW:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    now = _NOW[name]
    warnings.warn(
        f"lolama.providers.{name} has moved: use lolama_core.{now}; the old name goes with version 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(lolama_core, now)
