"""An HTTP server for lolama: the APIs of OpenAI, Anthropic, ollama and llama.cpp over one engine.

Names are imported when they are first used. There are none yet.
"""

from typing import TYPE_CHECKING

from lolama_core.protocols.lazy_names import lazy_names
from lolama_serve.__about__ import __version__ as __version__

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, {})
