"""The contracts between lolama's packages: protocols, the values they exchange, and the errors they raise.

Importing this module loads neither torch nor any implementation, and names are imported when they are first
used. ``lolama_core.testing`` has a suite of tests for each protocol; a package that implements one subclasses
the suite.
"""

from typing import TYPE_CHECKING

from lolama_core.protocols.lazy_names import lazy_names

if TYPE_CHECKING:
    from lolama_core.protocols.checkpoint import Checkpoint as Checkpoint
    from lolama_core.protocols.checkpoint import CheckpointIO as CheckpointIO
    from lolama_core.protocols.checkpoint import GGUFHeader as GGUFHeader
    from lolama_core.protocols.checkpoint import TensorHeader as TensorHeader
    from lolama_core.protocols.constraint import Constraint as Constraint
    from lolama_core.protocols.constraint import ForcingConstraint as ForcingConstraint
    from lolama_core.protocols.decoder_kernel import DecoderKernel as DecoderKernel
    from lolama_core.protocols.decoder_kernel import DecoderStep as DecoderStep
    from lolama_core.protocols.family import ModelFamily as ModelFamily
    from lolama_core.protocols.image import ImageProcessor as ImageProcessor
    from lolama_core.protocols.kv_cache import CacheSlots as CacheSlots
    from lolama_core.protocols.kv_cache import KVCache as KVCache
    from lolama_core.protocols.model import CausalLM as CausalLM
    from lolama_core.protocols.model import HasTextModel as HasTextModel
    from lolama_core.protocols.model import PromptLogits as PromptLogits
    from lolama_core.protocols.quantizer import LinearKernel as LinearKernel
    from lolama_core.protocols.quantizer import Quantizer as Quantizer
    from lolama_core.protocols.sampling import LogitsProcessor as LogitsProcessor
    from lolama_core.protocols.source import ModelSource as ModelSource
    from lolama_core.protocols.text import Tokenizer as Tokenizer
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".checkpoint": ["Checkpoint", "CheckpointIO", "GGUFHeader", "TensorHeader"],
            ".constraint": ["Constraint", "ForcingConstraint"],
            ".decoder_kernel": ["DecoderKernel", "DecoderStep"],
            ".family": ["ModelFamily"],
            ".image": ["ImageProcessor"],
            ".kv_cache": ["CacheSlots", "KVCache"],
            ".model": ["CausalLM", "HasTextModel", "PromptLogits"],
            ".quantizer": ["LinearKernel", "Quantizer"],
            ".sampling": ["LogitsProcessor"],
            ".source": ["ModelSource"],
            ".text": ["Tokenizer"],
        },
    )
