"""The names of a package, each imported when it is first used: ``import lolama`` does not wait for torch.

The package lists them twice: for type checkers and editors as imports, and here as a table. A test holds the
two against each other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package needs for names that it does not import yet (PEP 562).

    Args:
        package: Its ``__name__``.
        homes: Module → the names that come from it. A module that begins with a dot is one of the package.

    Returns:
        Its ``__getattr__``, ``__dir__`` and ``__all__``. All three also know ``__version__`` if the package
        itself has imported one by then.

    Example:
        >>> __getattr__, __dir__, __all__ = lazy_names(__name__, {".generator": ["TextGenerator"]})
    """
    home_of = {name: module for module, names in homes.items() for name in names}
    version = [name for name in ("__version__",) if hasattr(sys.modules[package], name)]
    public = sorted([*home_of, *version])

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home_of[name], package), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return get, directory(package, public), public


def directory(module: str, public: Sequence[str]) -> Callable[[], list[str]]:
    """A module's ``__dir__``: its public names, and what Python itself keeps in a module.

    What ``dir``, ``help`` and completion then show is what the module offers, not what it imports.

    Args:
        module: Its ``__name__``.
        public: Its ``__all__``.
    """

    def list_names() -> list[str]:
        names = vars(sys.modules[module])
        return sorted({*public, *(name for name in names if name.startswith("__"))})

    return list_names
