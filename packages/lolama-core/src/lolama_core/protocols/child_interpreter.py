"""How packages start a Python of their own, so that nothing of the current directory is run.

That may be a model's folder, and Python would look for modules there first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def command(code: str, *arguments: str) -> list[str]:
    """The command line that runs ``code`` in a new interpreter, which reads no ``PYTHON…`` variables.

    The code has to set ``sys.path`` (see `search_path`) before it imports more than the standard library.
    """
    isolated = [sys.executable, "-I", "-W", "ignore", "-X", f"utf8={sys.flags.utf8_mode}"]
    return [*isolated, "-c", code, *arguments]


def search_path(*packages: str) -> list[str]:
    """Where the new interpreter looks for modules: where this one does, but for the current directory.

    Args:
        packages: Imported here, needed there. Where they come from stands last in any case, even if that is
            the current directory.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        here = ""
    homes = [str(Path(str(sys.modules[name].__file__)).parents[1]) for name in packages]
    return [*(entry for entry in sys.path if entry not in ("", here)), *homes]
