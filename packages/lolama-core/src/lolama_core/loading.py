"""From files to a model and a tokenizer, ready to run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lolama_core.files.checkpoint_reader import FileCheckpoint, open_checkpoint
from lolama_core.files.load_weights import load_into
from lolama_core.files.quantization import prepare_quantized_
from lolama_core.model.device import activation_dtype, choose_device, choose_dtype, memory_errors
from lolama_core.model.family import LlamaFamily
from lolama_core.model.linear import share_linear_
from lolama_core.model.llama import Llama
from lolama_core.plugins import not_installed
from lolama_core.protocols import ModelFamily
from lolama_core.protocols.config_errors import naming_file
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.inference import ordinary
from lolama_core.protocols.notices import unsupported
from lolama_core.protocols.types import JSON, GenerationDefaults, ModelFiles
from lolama_core.runtime.kernels import Kernels, set_kernels
from lolama_core.text.tokenizer_loading import load_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lolama_core.protocols.causal_module import CausalLMModule
    from lolama_core.text.tokenizer import Tokenizer

DEMO = "demo"


def load(
    model: str | Path = DEMO,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    kernels: Kernels | None = None,
) -> tuple[Llama, Tokenizer]:
    """A text model and its tokenizer, from a lolama checkpoint directory or the built-in ``demo``.

    Args:
        model: Path of the directory, or ``demo``.
        device: ``cpu``, ``cuda``, ``mps``; the best one here if not given.
        dtype: ``float32``, ``bfloat16``, ``float16``; what suits the device if not given.
        kernels: What makes it fast; those of installed packages if not given. See `set_kernels`.

    Raises:
        ModelError: if the files cannot be used; a folder in Hugging Face's layout needs lolama-hub.
        UsageError: for a device or dtype that is not to be had, or a path that does not exist.

    Example:
        >>> model, tokenizer = load("demo")
    """
    family = LlamaFamily()
    built_in = str(model) in family.builtins
    path = family.builtins[str(model)] if built_in else Path(model)
    if not os.path.exists(path):  # which no name is too long for
        raise UsageError(
            str(model),
            "is neither a directory nor the built-in model demo",
            "give the path of a lolama checkpoint",
        )
    files = open_checkpoint(path, immutable=built_in)
    if notice := unsupported(files):
        warnings.warn(notice, stacklevel=2)
    made = load_model(files, {family.name: family}, device=device, dtype=dtype, kernels=kernels)
    assert isinstance(made, Llama)
    return made, load_tokenizer(files)


def load_model(
    files: ModelFiles,
    families: Mapping[str, ModelFamily],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    kernels: Kernels | None = None,
) -> CausalLMModule:
    """Build the model that ``files`` describe, and fill it.

    The one order in which models are made: build on the meta device, give it the layout of quantized weights
    if they are, then load, so that neither random numbers nor a second copy of the weights ever exist.

    Args:
        files: From `open_checkpoint`, or from a model source.
        families: Families by name, to choose from; also for the language model inside a vision model.
        device, dtype, kernels: As for `load`.

    Raises:
        NotAvailableError: if no family here builds such a model.
        ModelError: if files or configuration cannot be used.
        ResourceError: if it does not fit into memory.
    """
    import torch

    where = choose_device(device)
    weights = choose_dtype(dtype, where, getattr(torch, files.config["dtype"]))
    checkpoint = FileCheckpoint(files)

    def build() -> CausalLMModule:
        module = build_module(files, families)
        prepare_quantized_(module, files.config, files.name)
        # Norms and biases are a thousandth of the weights, and meet activations element by element: they
        # have the precision of those.
        vectors = activation_dtype(where, weights)
        load_into(module, checkpoint, weights, where, vector_dtype=vectors)
        module.to(where)  # what is computed rather than loaded (RoPE frequencies)
        return module

    # Ordinary parameters wherever the model is loaded: those of inference mode could never train.
    with memory_errors(where):
        module = ordinary(build)
    share_linear_(module)
    module.eval().requires_grad_(False)
    generation = files.config["generation"]
    ids, known = generation.get("eos_ids", []), generation.get("vocab_size")
    highest = module.vocab_size - 1
    for name, found in (("eos_ids", max(ids, default=-1)), ("vocab_size", (known or 0) - 1)):
        if found > highest:
            reason = f"generation.{name} goes up to the id {found:,}, the vocabulary to {highest:,}"
            raise ModelError(files.name, reason, "repair config.json, or replace the model")
    module.generation_defaults = GenerationDefaults(
        eos_ids=frozenset(ids),
        vocab_size=known,
        sampling=generation.get("sampling", {}),
        unsupported=tuple(generation.get("unsupported", ())),
    )
    if kernels is not None:
        set_kernels(module, kernels)
    return module


def use_kernels_(module: nn.Module) -> None:
    """Deprecated: kernels are found when a generation begins, for the model as it is then."""
    warnings.warn(
        "use_kernels_ does nothing: a generation looks at the model when it begins; delete the call",
        DeprecationWarning,
        stacklevel=2,
    )


def build_module(files: ModelFiles, families: Mapping[str, ModelFamily]) -> CausalLMModule:
    """The empty model, on the meta device.

    Raises:
        NotAvailableError: if no family here builds such a model.
        ModelError: for a configuration that makes no sense.
    """
    known = {LlamaFamily.name: LlamaFamily(), **families}

    def family(name: object) -> ModelFamily:
        if not isinstance(name, str) or name not in known:
            raise not_installed("lolama.families", name, files.name)
        return known[name]

    def build_text(config: Mapping[str, JSON]) -> CausalLMModule:
        block = {field: value for field, value in config.items() if field != "family"}
        text = family(config.get("family", LlamaFamily.name))
        with naming_file(files, "model.text_config"):
            return text.build(block, build_text)

    chosen = family(files.family)
    with naming_file(files):
        return chosen.build(files.config["model"], build_text)
