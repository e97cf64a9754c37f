"""The Python face of lolama, and the one place that wires its packages together.

    from lolama import TextGenerator, load_model, load_tokenizer

    model, tokenizer = load_model("demo"), load_tokenizer("demo")
    print(TextGenerator(model, tokenizer).generate(tokenizer.encode("Once upon a time")).text)

Names are imported when they are first used, so that ``import lolama`` alone does not wait for torch.
"""

from typing import TYPE_CHECKING

from lolama.__about__ import __version__ as __version__
from lolama_core.protocols.lazy_names import lazy_names

if TYPE_CHECKING:
    from lolama.wiring import load_model as load_model
    from lolama.wiring import load_tokenizer as load_tokenizer
    from lolama_core import BatchGenerator as BatchGenerator
    from lolama_core import Generation as Generation
    from lolama_core import GenerationConfig as GenerationConfig
    from lolama_core import Llama as Llama
    from lolama_core import LlamaConfig as LlamaConfig
    from lolama_core import PrefixCache as PrefixCache
    from lolama_core import TextGenerator as TextGenerator
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".wiring": ["load_model", "load_tokenizer"],
            "lolama_core": [
                "BatchGenerator",
                "Generation",
                "GenerationConfig",
                "Llama",
                "LlamaConfig",
                "PrefixCache",
                "TextGenerator",
            ],
        },
    )
