"""A model of which only those parts are in memory that are needed: built without weights, read one by one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lolama_core.files.checkpoint_reader import FileCheckpoint
from lolama_core.files.load_weights import load_into
from lolama_core.loading import build_module
from lolama_core.model.device import activation_dtype
from lolama_core.model.linear import share_linear_
from lolama_core.protocols import ModelFamily
from lolama_core.protocols.inference import ordinary
from lolama_core.protocols.types import ModelFiles

if TYPE_CHECKING:
    from lolama_core.protocols.causal_module import CausalLMModule


def build_unloaded(files: ModelFiles, families: Mapping[str, ModelFamily]) -> CausalLMModule:
    """What `load_model` loads on a CPU, with its parameters on the meta device; see `read_part`.

    Args:
        files: Not quantized.
        families: As for `load_model`.

    Raises:
        NotAvailableError: if no family here builds such a model.
        ModelError: for a configuration that makes no sense.
    """
    module = ordinary(lambda: build_module(files, families))
    share_linear_(module)
    module.to(_dtype(files)).eval().requires_grad_(False)
    return module


def read_part(module: nn.Module, name: str, files: ModelFiles) -> dict[str, Tensor]:
    """The tensors of one part of a model, by their names inside it: those that `load_model` loads on a CPU.

    Args:
        module: From `build_unloaded`; it stays as it is.
        name: The name of a module inside it, such as ``layers.0``.
        files: What the model is made of.

    Raises:
        ModelError: as for `load_into`, of the tensors of this part.
        ResourceError: if there is no memory for them.

    Example:
        >>> block = read_part(build_unloaded(files, families), "layers.0", files)
        >>> block["attention.q_proj.weight"].shape
        (2048, 2048)
    """
    inside = {path: at for path, at in files.tensors.items() if path.startswith(f"{name}.")}
    part = copy.deepcopy(module.get_submodule(name))
    whole = nn.Module()  # with nothing but the part, under its own name, which errors tell
    *parents, last = name.split(".")
    parent = whole
    for path in parents:
        parent.add_module(path, nn.Module())
        parent = parent.get_submodule(path)
    parent.add_module(last, part)
    weights = _dtype(files)
    vectors = activation_dtype(torch.device("cpu"), weights)
    checkpoint = FileCheckpoint(replace(files, tensors=inside))
    ordinary(lambda: load_into(whole, checkpoint, weights, vector_dtype=vectors))
    return dict(part.state_dict())


def _dtype(files: ModelFiles) -> torch.dtype:
    found: torch.dtype = getattr(torch, files.config["dtype"])
    return found
