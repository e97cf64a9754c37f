"""Names of models: the aliases of `catalog`, a user's own, ids of the Hub, and what was probably meant."""

from __future__ import annotations

import re
import stat
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.source import ModelInfo
from lolama_core.protocols.utf8 import decode_utf8
from lolama_hub.catalog import MODELS as MODELS
from lolama_hub.folder.fields import shown

# The Hub's own rules for each part: letters, digits, "-", "_" and ".", the last two not at either end.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_LABEL = r"[A-Za-z0-9](?:-?[A-Za-z0-9._])*"
HUB_ID = re.compile(
    rf"({_PART}/{_PART})(?::({_LABEL}))?(?:@([A-Za-z0-9_][A-Za-z0-9._/-]{{0,199}}))?"
)
"""``owner/name:label@revision``; the label says which model, of a repository that has several in GGUF."""

_FIELDS = ("repo", "parameters", "description", "kind", "license", "gated", "size", "context")
_MOST_BYTES = 2**20


def aliases_file() -> Path:
    """Where a user's own aliases are: ``aliases.toml`` in the user's configuration directory."""
    return platformdirs.user_config_path("lolama") / "aliases.toml"


def models() -> tuple[ModelInfo, ...]:
    """The models that have a short name: `MODELS`, then the user's own.

    Raises:
        UsageError: naming the line or alias of the user's file that cannot be used.
    """
    return MODELS + _own_models(aliases_file())


def find(alias: str) -> ModelInfo | None:
    """The model that ``alias`` stands for, or None.

    Raises:
        UsageError: as `models`.
    """
    found = next((model for model in MODELS if model.alias == alias), None)
    return found or next((model for model in models() if model.alias == alias), None)


def suggest(name: str) -> str:
    """The next step for someone who typed a name that means nothing: sizes, the closest alias, or all."""
    # Ids are long; only the part after the owner resembles an alias.
    typed = name.strip().lower().rpartition("/")[2][:80]
    aliases = [model.alias for model in models()]
    sizes = [alias for alias in aliases if alias.startswith(f"{typed}:")]
    if sizes:
        return f"say which size: {', '.join(sizes)}"
    close = get_close_matches(typed, aliases, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    families: dict[str, list[str]] = {}
    for family, _, size in (alias.partition(":") for alias in aliases):
        families.setdefault(family, []).extend([size] if size else [])
    more = {name: "/…" if len(sizes) > 1 else "" for name, sizes in families.items()}
    listed = (
        f"{name}:{sizes[0]}{more[name]}" if sizes else name for name, sizes in families.items()
    )
    return f"the aliases are {', '.join(listed)}; a folder is given by its path"


def _own_models(path: Path) -> tuple[ModelInfo, ...]:
    """A table for each alias, such as ``[mine]`` with ``repo = "owner/name@revision"``."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, "is not a regular file")
        if status.st_size > _MOST_BYTES:
            raise _refused(path, "is larger than 1 MiB")
        values = tomllib.loads(decode_utf8(path.read_bytes()))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _refused(path, f"is not valid TOML ({error})"[:200]) from None
    except ValueError as error:
        raise _refused(path, str(error)) from None
    return tuple(_own_model(path, alias, fields) for alias, fields in values.items())


def _own_model(path: Path, alias: str, fields: object) -> ModelInfo:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", alias):
        raise _refused(path, f"{shown(alias)} cannot be an alias: letters, digits and . _ : - can")
    if any(model.alias == alias for model in MODELS):
        raise _refused(path, f"{alias} is an alias of lolama's own")
    if not isinstance(fields, dict):
        raise _refused(path, f"{alias} is no table; write [{alias}] and the fields below it")
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise _refused(
            path, f"{alias} has the field {shown(unknown[0])}; there are {', '.join(_FIELDS)}"
        )
    given: dict[str, Any] = {
        "parameters": "?",
        "description": "of your own",
        "kind": "text",
        "license": "see its page",
        "gated": False,
        "size": 0,
        "context": 0,
        **fields,
    }
    for name in _FIELDS:
        expected = {"gated": bool, "size": int, "context": int}.get(name, str)
        value = given.get(name)
        if type(value) is not expected or (isinstance(value, str) and not value.isprintable()):
            raise _refused(path, f"{alias}.{name} is {shown(value)}, expected {_KINDS[expected]}")
    if not HUB_ID.fullmatch(given["repo"]):
        raise _refused(path, f"{alias}.repo is {shown(given['repo'])}, expected owner/name")
    if given["kind"] not in ("text", "vision"):
        raise _refused(path, f"{alias}.kind is {shown(given['kind'])}, expected text or vision")
    return ModelInfo(alias=alias, **given)


_KINDS = {str: "a text", int: "a whole number", bool: "true or false"}


def _refused(path: Path, reason: str) -> UsageError:
    return UsageError(str(path), reason, "correct or remove it")
