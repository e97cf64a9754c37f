"""The Python face of lolama, and the one place that wires its packages together.

    from lolama import TextGenerator, load_model, load_tokenizer

    model, tokenizer = load_model("demo"), load_tokenizer("demo")
    print(TextGenerator(model, tokenizer).generate(tokenizer.encode("Once upon a time")).text)

Names are imported when they are first used, so that ``import lolama`` alone does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lolama.__about__ import __version__

if TYPE_CHECKING:
    from lolama.wiring import load_model, load_tokenizer
    from lolama_core import (
        BatchGenerator,
        Generation,
        GenerationConfig,
        Llama,
        LlamaConfig,
        PrefixCache,
        TextGenerator,
    )

_HOME = {
    "BatchGenerator": "lolama_core",
    "Generation": "lolama_core",
    "GenerationConfig": "lolama_core",
    "Llama": "lolama_core",
    "LlamaConfig": "lolama_core",
    "PrefixCache": "lolama_core",
    "TextGenerator": "lolama_core",
    "load_model": "lolama.wiring",
    "load_tokenizer": "lolama.wiring",
}

__all__ = [
    "BatchGenerator",
    "Generation",
    "GenerationConfig",
    "Llama",
    "LlamaConfig",
    "PrefixCache",
    "TextGenerator",
    "__version__",
    "load_model",
    "load_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
