"""Modules and names that have moved: importable as before for one version, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder

    class _FinderAndLoader(MetaPathFinder, Loader): ...

else:  # Python asks for their methods alone, and `importlib.abc` imports a dozen other modules
    _FinderAndLoader = object


def homes(package: str, rooms: Mapping[str, str]) -> dict[str, str]:
    """Old name → new name of modules that have moved into rooms of their package.

    Args:
        package: Its import name.
        rooms: Room → its modules, with spaces between them; ``old:new`` if the name has changed, too.
    """
    return {
        f"{package}.{old}": f"{package}.{room}.{new or old}"
        for room, modules in rooms.items()
        for old, _, new in (module.partition(":") for module in modules.split())
    }


_ROOMS = {
    "files": "checkpoint:checkpoint_reader checkpoint_config checkpoint_io checkpoint_writer load_weights "
    "quantization safetensors_file:safetensors_reader safetensors_writer untrusted_files:untrusted",
    "generation": "batch_generator generation_config generator prefix_cache request request_factory sampling "
    "text_stream",
    "model": "attention block cache_slots config device family feed_forward kv_cache linear llama no_init "
    "norm rope",
    "runtime": "decoding_steps:recorded_step",
    "text": "chat_template native_guard template_budget template_sandbox tokenizer",
}

HOMES = homes("lolama_core", _ROOMS)
"""Old name → new name. What 0.1 had besides has other contents now."""


class MovedModules(_FinderAndLoader):
    """Finds modules by the names that they had.

    A module that is found has one object for both names, so objects that were pickled by the old one load.

    Args:
        homes: Old name → new name.
    """

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._homes = homes
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        return ModuleSpec(fullname, self) if fullname in self._homes else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, by its new name."""
        home = self._homes[spec.name]
        warnings.warn(
            f"{spec.name} has moved: import {home}; the old name goes with version 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        module = import_module(home)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run. Python has just given the module the spec of its old name."""
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)


def install(homes: Mapping[str, str]) -> None:
    """Let modules of a package be imported by the names that they had.

    Args:
        homes: Old name → new name.
    """
    # Before Python's own finder: where `old` is a package now, that finds `old.part` as a second module.
    sys.meta_path.insert(0, MovedModules(homes))


def moved_names(module: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module some of whose names are in others now.

    Args:
        module: Its ``__name__``.
        homes: Module → names that it has now.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{name} has moved: import it from {home_of[name]}; in {module} it goes with version 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(home_of[name]), name)

    return get
