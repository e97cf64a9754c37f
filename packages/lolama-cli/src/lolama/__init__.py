"""The Python face of lolama, and the one place that wires its packages together.

    import lolama

    llm = lolama.load("demo")
    print(llm.generate("Once upon a time"))

Names are imported when they are first used, so that ``import lolama`` alone does not wait for torch.
"""

from typing import TYPE_CHECKING

from lolama.__about__ import __version__ as __version__
from lolama_core.protocols import moved_modules
from lolama_core.protocols.lazy_names import lazy_names

if TYPE_CHECKING:
    from lolama.conversation import Conversation as Conversation
    from lolama.language_model import LanguageModel as LanguageModel
    from lolama.language_model import load as load
    from lolama.reply_stream import ReplyStream as ReplyStream
    from lolama.saving import save as save
    from lolama.wiring import load_model as load_model
    from lolama.wiring import load_tokenizer as load_tokenizer
    from lolama_core import BatchGenerator as BatchGenerator
    from lolama_core import Drafting as Drafting
    from lolama_core import Emission as Emission
    from lolama_core import Engine as Engine
    from lolama_core import Generation as Generation
    from lolama_core import GenerationConfig as GenerationConfig
    from lolama_core import Llama as Llama
    from lolama_core import LlamaConfig as LlamaConfig
    from lolama_core import PrefixCache as PrefixCache
    from lolama_core import TextGenerator as TextGenerator
    from lolama_core import TokenLogprobs as TokenLogprobs
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".conversation": ["Conversation"],
            ".language_model": ["LanguageModel", "load"],
            ".reply_stream": ["ReplyStream"],
            ".saving": ["save"],
            ".wiring": ["load_model", "load_tokenizer"],
            "lolama_core": [
                "BatchGenerator",
                "Drafting",
                "Emission",
                "Engine",
                "Generation",
                "GenerationConfig",
                "Llama",
                "LlamaConfig",
                "PrefixCache",
                "TextGenerator",
                "TokenLogprobs",
            ],
        },
    )

moved_modules.install(
    {
        "lolama.conversion": "lolama.convert",
        "lolama.evaluation": "lolama.evaluate",
        "lolama.information": "lolama.info",
        "lolama.quantized": "lolama.quantize",
        "lolama.remembered": "lolama.file_facts",
        "lolama.report": "lolama.doctor",
        "lolama.speed": "lolama.bench",
    }
)
