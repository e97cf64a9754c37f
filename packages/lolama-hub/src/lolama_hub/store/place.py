"""Where lolama keeps what it fetched, and what it made out of other people's files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import platformdirs

from lolama_core.protocols.errors import ResourceError, shortage
from lolama_core.protocols.types import JSON

PARTIAL = ".part"
"""Ends the name of a fetched file that is not whole, or not verified."""

STAGING = ".partial"
"""Ends the name of the directory in which a model grows."""


class Store:
    """A directory of fetched and converted files, each kind in its own sub-directory.

    ``models`` holds what was fetched (see `snapshots`); what was converted is keyed by its source.

    Args:
        root: The directory; by default the environment's ``LOLAMA_HOME``, else the user's cache.

    Raises:
        ResourceError: if no directory can have that name.
    """

    def __init__(self, root: Path | None = None) -> None:
        chosen = root or os.environ.get("LOLAMA_HOME") or platformdirs.user_cache_dir("lolama")
        self.root = Path(os.path.expanduser(chosen))
        try:
            self.root.stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # it may be made yet, or not be needed
        except (OSError, ValueError) as error:
            raise unusable(self.root, error) from None

    def place(self, kind: str, label: str, identity: JSON) -> Path:
        """Where the product of one conversion belongs. Its parent exists; the place itself may not.

        Args:
            kind: What it is, the sub-directory.
            label: Who it came from, for people who look into the store; not part of the key.
            identity: Everything the product depends on.

        Raises:
            ResourceError: if the store cannot be made.
        """
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", label)[:64].strip("-.")
        return self.directory(kind) / f"{readable}-{digest[:24]}"

    def directory(self, *names: str) -> Path:
        """A directory inside the store, made if need be.

        Raises:
            ResourceError: if it cannot be made.
        """
        directory = self.root.joinpath(*names)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(directory, error) from None
        return directory


def folder_name(repo: str) -> str:
    """``owner--name`` for ``owner/name``, and ``owner--name--Q4_K_M`` for ``owner/name:Q4_K_M``."""
    # No id of the Hub holds "--", and no label of a file, so there is one way back.
    return repo.replace("/", "--").replace(":", "--")


def repo_name(folder: str) -> str:
    """The way back."""
    return folder.replace("--", "/", 1).replace("--", ":", 1)


def unusable(directory: Path, error: OSError | ValueError) -> ResourceError:
    """The error for a part of the store that cannot be made or read."""
    found = shortage(error, str(directory))
    if found is not None:
        return found
    reason = getattr(error, "strerror", None) or "is no possible name"
    remedy = "set LOLAMA_HOME to a directory that can be written to"
    return ResourceError(str(directory), f"cannot be used: {reason}", remedy)
