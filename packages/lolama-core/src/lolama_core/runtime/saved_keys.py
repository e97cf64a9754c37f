"""The keys of a text's positions as JSON and back, exactly, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from lolama_core.protocols.types import JSON, PromptKey
from lolama_core.protocols.utf8 import is_unicode

_DEEPEST = 8
_LARGEST = 2**63


def keys_to_json(keys: Sequence[PromptKey]) -> list[JSON]:
    """Whole numbers, texts, bytes, booleans, None and tuples of them; none from the first other key on."""
    known = next((n for n, key in enumerate(keys) if not _is_known(key)), len(keys))
    return [_to_json(key) for key in keys[:known]]


def keys_from_json(values: Sequence[JSON]) -> tuple[PromptKey, ...]:
    """What `keys_to_json` was given.

    Raises:
        ValueError: for a value that it never returns.
    """
    return tuple(_from_json(value) for value in values)


def _is_known(key: PromptKey, depth: int = 0) -> bool:
    if isinstance(key, int):  # of which bool is one
        return abs(key) < _LARGEST
    if type(key) is str:
        return is_unicode(key)
    if type(key) is tuple:
        return depth < _DEEPEST and all(_is_known(part, depth + 1) for part in key)
    return key is None or type(key) is bytes


def _to_json(key: PromptKey) -> JSON:
    if isinstance(key, tuple):
        return [_to_json(part) for part in key]
    if isinstance(key, bytes):
        return {"bytes": key.hex()}
    if isinstance(key, int) and not isinstance(key, bool):
        return int(key)
    assert key is None or isinstance(key, bool | str)
    return key


def _from_json(value: JSON) -> PromptKey:
    if isinstance(value, list):
        return tuple(_from_json(part) for part in value)
    if isinstance(value, dict):
        match value:
            case {"bytes": str(spelled), **others} if not others:
                return bytes.fromhex(spelled)
        raise ValueError("an object that is no bytes")
    if isinstance(value, float):
        raise ValueError("a fraction")
    return value
