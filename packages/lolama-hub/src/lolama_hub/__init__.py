"""Published models for lolama: aliases, Hugging Face folders, and what their tensors are called here.

>>> from lolama_hub import HuggingFaceSource
>>> [model.alias for model in HuggingFaceSource().list()][:2]
['tinyllama', 'open_llama_3b']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lolama_hub.__about__ import __version__

if TYPE_CHECKING:
    from lolama_hub.registry import MODELS
    from lolama_hub.source import HuggingFaceSource
    from lolama_hub.store import Store

__all__ = ["MODELS", "HuggingFaceSource", "Store", "__version__"]


def __getattr__(name: str) -> object:
    """Load what is asked for, when it is asked for (PEP 562)."""
    if name == "MODELS":
        from lolama_hub.registry import MODELS

        return MODELS
    if name == "HuggingFaceSource":
        from lolama_hub.source import HuggingFaceSource

        return HuggingFaceSource
    if name == "Store":
        from lolama_hub.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
