"""lolama-core: a LLaMA-family language model in readable PyTorch, from weights to text.

    from lolama_core import TextGenerator, load

    model, tokenizer = load("demo")
    print(TextGenerator(model, tokenizer).generate("Once upon a time"))

To read it, begin with `reference`: LLaMA on one page. Then come the modules that do the same fast: `model`
(config, rope, norm, attention, feed_forward, block, llama, kv_cache, cache_slots, masks), `generation`
(generator, engine, schedule, request, sampling, text_stream), `text.tokenizer`, and `runtime.runner`.

Names are imported when they are first used: ``lolama_core.protocols`` alone loads neither torch nor any
model code.
"""

import warnings
from typing import TYPE_CHECKING

from lolama_core.__about__ import __version__ as __version__
from lolama_core.protocols import moved_modules
from lolama_core.protocols.lazy_names import lazy_names

if TYPE_CHECKING:
    from lolama_core.files.checkpoint_io import FileCheckpointIO as FileCheckpointIO
    from lolama_core.files.checkpoint_reader import FileCheckpoint as FileCheckpoint
    from lolama_core.files.checkpoint_reader import open_checkpoint as open_checkpoint
    from lolama_core.files.checkpoint_writer import write_checkpoint as write_checkpoint
    from lolama_core.files.gguf_writer import write_gguf as write_gguf
    from lolama_core.files.load_weights import load_into as load_into
    from lolama_core.files.prefix_file import read_prefix_file as read_prefix_file
    from lolama_core.files.quantization import quantization_block as quantization_block
    from lolama_core.generation.batch_generator import BatchGenerator as BatchGenerator
    from lolama_core.generation.engine import Engine as Engine
    from lolama_core.generation.generation_config import GenerationConfig as GenerationConfig
    from lolama_core.generation.generator import TextGenerator as TextGenerator
    from lolama_core.generation.hidden_states import hidden_states as hidden_states
    from lolama_core.generation.keywords import Keywords as Keywords
    from lolama_core.generation.prefix_cache import PrefixCache as PrefixCache
    from lolama_core.generation.sampling import Sampler as Sampler
    from lolama_core.generation.scoring import prompt_logits as prompt_logits
    from lolama_core.generation.speculation import Drafting as Drafting
    from lolama_core.generation.text_stream import TextStream as TextStream
    from lolama_core.generation.token_stream import TokenStream as TokenStream
    from lolama_core.loading import build_module as build_module
    from lolama_core.loading import load as load
    from lolama_core.loading import load_model as load_model
    from lolama_core.loading import use_kernels_ as use_kernels_
    from lolama_core.loading_parts import build_unloaded as build_unloaded
    from lolama_core.loading_parts import read_part as read_part
    from lolama_core.model.config import LlamaConfig as LlamaConfig
    from lolama_core.model.device import choose_device as choose_device
    from lolama_core.model.device import choose_dtype as choose_dtype
    from lolama_core.model.device import suit_threads as suit_threads
    from lolama_core.model.dtypes import suited_dtype as suited_dtype
    from lolama_core.model.family import LlamaFamily as LlamaFamily
    from lolama_core.model.free_memory import free_memory as free_memory
    from lolama_core.model.kv_cache import KVCache as KVCache
    from lolama_core.model.llama import Llama as Llama
    from lolama_core.model.rope_scaling import RopeScaling as RopeScaling
    from lolama_core.observation.ablation import ablate as ablate
    from lolama_core.observation.explanation import explain as explain
    from lolama_core.observation.explanation import reference_sources as reference_sources
    from lolama_core.observation.explanation import second_view as second_view
    from lolama_core.observation.observed import ObservedLayer as ObservedLayer
    from lolama_core.observation.observed import ObservedPass as ObservedPass
    from lolama_core.observation.observer import Observer as Observer
    from lolama_core.observation.observer import observe as observe
    from lolama_core.observation.sampling_steps import SamplingStep as SamplingStep
    from lolama_core.observation.sampling_steps import sampling_steps as sampling_steps
    from lolama_core.plugins import PluginAttempt as PluginAttempt
    from lolama_core.plugins import installed_families as installed_families
    from lolama_core.plugins import installed_family as installed_family
    from lolama_core.plugins import installed_quantizer as installed_quantizer
    from lolama_core.plugins import installed_source as installed_source
    from lolama_core.plugins import plugin_attempts as plugin_attempts
    from lolama_core.protocols.causal_module import CausalLMModule as CausalLMModule
    from lolama_core.protocols.generation import Emission as Emission
    from lolama_core.protocols.generation import Generation as Generation
    from lolama_core.protocols.generation import TokenLogprobs as TokenLogprobs
    from lolama_core.runtime.in_use import decoder_in_use as decoder_in_use
    from lolama_core.runtime.in_use import kernels_in_use as kernels_in_use
    from lolama_core.runtime.in_use import slower_blocks as slower_blocks
    from lolama_core.runtime.kernels import Kernels as Kernels
    from lolama_core.runtime.kernels import set_kernels as set_kernels
    from lolama_core.runtime.runner import Runner as Runner
    from lolama_core.runtime.runner import forget as forget
    from lolama_core.runtime.runner import runner_of as runner_of
    from lolama_core.text.token_bytes import TokenBytes as TokenBytes
    from lolama_core.text.token_bytes import token_bytes as token_bytes
    from lolama_core.text.tokenizer import Tokenizer as Tokenizer
    from lolama_core.text.tokenizer_loading import load_tokenizer as load_tokenizer
    from lolama_core.text.tool_calls import CallArguments as CallArguments
    from lolama_core.text.tool_calls import CallBegin as CallBegin
    from lolama_core.text.tool_calls import ContentPiece as ContentPiece
    from lolama_core.text.tool_calls import ToolCallParser as ToolCallParser
    from lolama_core.text.tool_calls import ToolEvent as ToolEvent
    from lolama_core.text.tool_formats import ToolFormat as ToolFormat
    from lolama_core.text.tool_formats import tool_format_of as tool_format_of
    from lolama_core.text.tool_grammars import function_names as function_names
    from lolama_core.text.tool_grammars import tool_lark as tool_lark
    from lolama_core.text.tool_prompts import told_turns as told_turns
    from lolama_core.text.vocabulary import vocabulary_difference as vocabulary_difference
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".generation.batch_generator": ["BatchGenerator"],
            ".generation.engine": ["Engine"],
            ".files.checkpoint_reader": ["FileCheckpoint", "open_checkpoint"],
            ".files.checkpoint_io": ["FileCheckpointIO"],
            ".files.checkpoint_writer": ["write_checkpoint"],
            ".model.config": ["LlamaConfig"],
            ".model.rope_scaling": ["RopeScaling"],
            ".model.device": ["choose_device", "choose_dtype", "suit_threads"],
            ".model.dtypes": ["suited_dtype"],
            ".model.family": ["LlamaFamily"],
            ".model.free_memory": ["free_memory"],
            ".generation.generation_config": ["GenerationConfig"],
            ".generation.generator": ["TextGenerator"],
            ".generation.hidden_states": ["hidden_states"],
            ".generation.keywords": ["Keywords"],
            ".model.kv_cache": ["KVCache"],
            ".model.llama": ["Llama"],
            ".text.tokenizer_loading": ["load_tokenizer"],
            ".files.load_weights": ["load_into"],
            ".loading": ["build_module", "load", "load_model", "use_kernels_"],
            ".loading_parts": ["build_unloaded", "read_part"],
            ".generation.prefix_cache": ["PrefixCache"],
            ".observation.ablation": ["ablate"],
            ".observation.explanation": ["explain", "reference_sources", "second_view"],
            ".observation.observed": ["ObservedLayer", "ObservedPass"],
            ".observation.observer": ["Observer", "observe"],
            ".observation.sampling_steps": ["SamplingStep", "sampling_steps"],
            ".plugins": [
                "PluginAttempt",
                "installed_families",
                "installed_family",
                "installed_quantizer",
                "installed_source",
                "plugin_attempts",
            ],
            ".protocols.causal_module": ["CausalLMModule"],
            ".files.prefix_file": ["read_prefix_file"],
            ".files.gguf_writer": ["write_gguf"],
            ".files.quantization": ["quantization_block"],
            ".protocols.generation": ["Emission", "Generation", "TokenLogprobs"],
            ".runtime.in_use": ["decoder_in_use", "kernels_in_use", "slower_blocks"],
            ".runtime.kernels": ["Kernels", "set_kernels"],
            ".runtime.runner": ["Runner", "forget", "runner_of"],
            ".generation.sampling": ["Sampler"],
            ".generation.scoring": ["prompt_logits"],
            ".generation.speculation": ["Drafting"],
            ".generation.text_stream": ["TextStream"],
            ".generation.token_stream": ["TokenStream"],
            ".text.token_bytes": ["TokenBytes", "token_bytes"],
            ".text.tokenizer": ["Tokenizer"],
            ".text.tool_calls": [
                "CallArguments",
                "CallBegin",
                "ContentPiece",
                "ToolCallParser",
                "ToolEvent",
            ],
            ".text.tool_formats": ["ToolFormat", "tool_format_of"],
            ".text.tool_grammars": ["function_names", "tool_lark"],
            ".text.tool_prompts": ["told_turns"],
            ".text.vocabulary": ["vocabulary_difference"],
        },
    )

moved_modules.install(moved_modules.HOMES)

# torch says so on standard error at its first import. Nothing here uses NumPy.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy", category=UserWarning)
