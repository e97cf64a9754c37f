"""lolama-core: a LLaMA-family language model in readable PyTorch, from weights to text.

    from lolama_core import TextGenerator, load

    model, tokenizer = load("demo")
    print(TextGenerator(model, tokenizer).generate(tokenizer.encode("Once upon a time")).text)

Names are imported when they are first used: ``lolama_core.protocols`` alone loads neither torch nor any
model code.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lolama_core.__about__ import __version__

if TYPE_CHECKING:
    from lolama_core.batch_generator import BatchGenerator
    from lolama_core.checkpoint import FileCheckpoint, open_checkpoint
    from lolama_core.checkpoint_io import FileCheckpointIO
    from lolama_core.checkpoint_writer import write_checkpoint
    from lolama_core.config import LlamaConfig, RopeScaling
    from lolama_core.decode import decoder_in_use
    from lolama_core.device import choose_device, choose_dtype, free_memory, suit_threads
    from lolama_core.family import LlamaFamily
    from lolama_core.generation_config import GenerationConfig
    from lolama_core.generator import TextGenerator, TokenStream
    from lolama_core.kv_cache import KVCache
    from lolama_core.linear import kernels_in_use
    from lolama_core.llama import Llama
    from lolama_core.load_weights import load_into
    from lolama_core.loading import (
        build_module,
        load,
        load_model,
        load_tokenizer,
        use_kernels_,
    )
    from lolama_core.prefix_cache import PrefixCache
    from lolama_core.quantization import quantization_block
    from lolama_core.request import Generation
    from lolama_core.sampling import Sampler
    from lolama_core.text_stream import TextStream
    from lolama_core.tokenizer import Tokenizer

# torch says so on standard error at its first import. Nothing here uses NumPy.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy", category=UserWarning)

_HOME = {
    "BatchGenerator": "batch_generator",
    "FileCheckpoint": "checkpoint",
    "FileCheckpointIO": "checkpoint_io",
    "Generation": "request",
    "GenerationConfig": "generation_config",
    "KVCache": "kv_cache",
    "Llama": "llama",
    "LlamaConfig": "config",
    "LlamaFamily": "family",
    "PrefixCache": "prefix_cache",
    "RopeScaling": "config",
    "Sampler": "sampling",
    "TextGenerator": "generator",
    "TextStream": "text_stream",
    "TokenStream": "generator",
    "Tokenizer": "tokenizer",
    "build_module": "loading",
    "choose_device": "device",
    "choose_dtype": "device",
    "decoder_in_use": "decode",
    "free_memory": "device",
    "kernels_in_use": "linear",
    "load": "loading",
    "load_into": "load_weights",
    "load_model": "loading",
    "load_tokenizer": "loading",
    "open_checkpoint": "checkpoint",
    "quantization_block": "quantization",
    "suit_threads": "device",
    "use_kernels_": "loading",
    "write_checkpoint": "checkpoint_writer",
}

__all__ = [
    "BatchGenerator",
    "FileCheckpoint",
    "FileCheckpointIO",
    "Generation",
    "GenerationConfig",
    "KVCache",
    "Llama",
    "LlamaConfig",
    "LlamaFamily",
    "PrefixCache",
    "RopeScaling",
    "Sampler",
    "TextGenerator",
    "TextStream",
    "TokenStream",
    "Tokenizer",
    "__version__",
    "build_module",
    "choose_device",
    "choose_dtype",
    "decoder_in_use",
    "free_memory",
    "kernels_in_use",
    "load",
    "load_into",
    "load_model",
    "load_tokenizer",
    "open_checkpoint",
    "quantization_block",
    "suit_threads",
    "use_kernels_",
    "write_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
