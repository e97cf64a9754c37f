"""The contracts between lolama's packages: protocols, the values they exchange, and the errors they raise.

Importing this module loads neither torch nor any implementation. ``lolama_core.testing`` has a suite of
tests for each protocol; a package that implements one subclasses the suite.
"""

from lolama_core.protocols.checkpoint import Checkpoint, CheckpointIO, GGUFHeader, TensorHeader
from lolama_core.protocols.constraint import Constraint, ForcingConstraint
from lolama_core.protocols.decoder_kernel import DecoderKernel, DecoderStep
from lolama_core.protocols.family import ModelFamily
from lolama_core.protocols.image import ImageProcessor
from lolama_core.protocols.kv_cache import CacheSlots, KVCache
from lolama_core.protocols.model import CausalLM, HasTextModel, PromptLogits
from lolama_core.protocols.quantizer import LinearKernel, Quantizer
from lolama_core.protocols.sampling import LogitsProcessor
from lolama_core.protocols.source import ModelSource
from lolama_core.protocols.text import Tokenizer

__all__ = [
    "CacheSlots",
    "CausalLM",
    "Checkpoint",
    "CheckpointIO",
    "Constraint",
    "DecoderKernel",
    "DecoderStep",
    "ForcingConstraint",
    "GGUFHeader",
    "HasTextModel",
    "ImageProcessor",
    "KVCache",
    "LinearKernel",
    "LogitsProcessor",
    "ModelFamily",
    "ModelSource",
    "PromptLogits",
    "Quantizer",
    "TensorHeader",
    "Tokenizer",
]
