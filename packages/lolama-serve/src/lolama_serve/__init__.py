"""An HTTP server for lolama: the APIs of OpenAI, Anthropic, ollama and llama.cpp over one engine.

    from lolama.serving import LocalModels
    from lolama_serve import ServeOptions, serve

    serve(LocalModels(["demo"]), ServeOptions(models=["demo"]))

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from lolama_core.protocols.lazy_names import lazy_names
from lolama_serve.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from lolama_serve.app import make_app as make_app
    from lolama_serve.listening import serve as serve
    from lolama_serve.logs import log_to as log_to
    from lolama_serve.options import ServeOptions as ServeOptions
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".app": ["make_app"],
            ".options": ["ServeOptions"],
            ".listening": ["serve"],
            ".logs": ["log_to"],
        },
    )
