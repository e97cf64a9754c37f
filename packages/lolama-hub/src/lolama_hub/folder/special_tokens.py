"""What files beside tokenizer.json say about its tokens: which are special, how they are called, what to add.

tokenizer_config.json, special_tokens_map.json and added_tokens.json are read as transformers' fast tokenizers
(5.23) read them. Where tokenizer_config.json has ``added_tokens_decoder``, the other two do not count; else
special_tokens_map.json has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, AddedTokenBlock
from lolama_hub.folder.fields import LARGEST_INTEGER, Fields, shown
from lolama_hub.folder.files import Folder
from lolama_hub.folder.vocabulary import Vocabulary, added_token

STANDARD = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_EXTRA, _ADDITIONAL = "extra_special_tokens", "additional_special_tokens"
_TYPE = "__type"
_REMEDY = "get the file again"


@dataclass(frozen=True)
class SpecialTokens:
    """What the files say.

    Attributes:
        names: Name that a chat template may use → text of the token.
        unnamed: Texts of control tokens without a name.
        added: Tokens to add to tokenizer.json's, in order; one that is there already gets these flags.
        ids: Token → id of those among them that tokenizer.json does not have.
    """

    names: dict[str, str]
    unnamed: list[str]
    added: list[AddedTokenBlock]
    ids: dict[str, int]


def read_special_tokens(
    folder: Folder,
    config: Fields,
    vocabulary: Vocabulary,
    *,
    defaults: Mapping[str, str],
    only_names: bool,
) -> SpecialTokens:
    """Bring the files together.

    Args:
        folder: The model's folder.
        config: tokenizer_config.json.
        vocabulary: What tokenizer.json knows.
        defaults: Names whose absence means this token, if the vocabulary has it.
        only_names: What was added is in the vocabulary already.

    Raises:
        ModelError: naming the file and what it says.
    """
    values, listed = dict(config.values), list[AddedTokenBlock]()
    if values.get(_ADDITIONAL) is not None and not values.get(_EXTRA):
        values[_EXTRA] = values[_ADDITIONAL]
    declared: dict[str, int] = {}
    if "added_tokens_decoder" in values:
        numbered = _decoder(config)
    else:
        _merge_map(folder, values)
        numbered = {
            number: token
            for number, token in _legacy_list(folder, values).items()
            if token["content"] not in vocabulary.added
        }
    extra = values.get(_EXTRA)
    if isinstance(extra, dict):
        values = {**values, **extra}
    elif extra is not None and not isinstance(extra, list):
        raise config.refuse(_EXTRA, "a list of tokens, or an object of named ones")
    named = _named(config, values, list(extra) if isinstance(extra, dict) else [])
    for name, content in defaults.items():
        if name not in values and content in vocabulary.ids:
            named[name] = _token(config, name, content)
    rest = [_token(config, _EXTRA, one) for one in extra] if isinstance(extra, list) else []
    called = {token["content"] for token in named.values()}
    if not only_names:
        for number, token in sorted(numbered.items()):
            declared[token["content"]] = number
            listed.append({**token, "special": token["special"] or token["content"] in called})
        if "added_tokens_decoder" not in config.values:
            listed += [
                {**token, "special": True}
                for content, token in vocabulary.added.items()
                if content in called
            ]
    known = vocabulary.added.keys() | {token["content"] for token in listed}
    listed += [token for token in (*named.values(), *rest) if token["content"] not in known]
    added, ids = _new(listed, declared, vocabulary, config.path)
    return SpecialTokens(
        names={name: token["content"] for name, token in named.items()},
        unnamed=[token["content"] for token in rest if token["content"]],
        added=added,
        ids=ids,
    )


def _new(
    listed: list[AddedTokenBlock], declared: Mapping[str, int], vocabulary: Vocabulary, path: Path
) -> tuple[list[AddedTokenBlock], dict[str, int]]:
    """Those of the tokens that change something, and the ids of new ones."""
    added: dict[str, AddedTokenBlock] = {}
    ids: dict[str, int] = {}
    for token in listed:
        content = token["content"]
        if not content or content in added or token == vocabulary.added.get(content):
            continue
        added[content] = token
        if content not in vocabulary.ids:
            ids[content] = vocabulary.next_id + len(ids)
            if declared.get(content, ids[content]) != ids[content]:
                raise ModelError(
                    str(path),
                    f"the added token {shown(content)} has the id {declared[content]}, expected "
                    f"{ids[content]} after those of tokenizer.json",
                    "the tokenizer's files must be of one version",
                )
    return list(added.values()), ids


def _decoder(config: Fields) -> dict[int, AddedTokenBlock]:
    """``added_tokens_decoder``: id → token."""
    found: dict[int, AddedTokenBlock] = {}
    entries = config.get("added_tokens_decoder")
    if not isinstance(entries, dict):
        raise config.refuse("added_tokens_decoder", "an object of ids and tokens")
    for number, entry in entries.items():
        is_id = number.isdecimal() and number.isascii() and len(number) < 11
        if not is_id or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise config.refuse("added_tokens_decoder", "an object of ids and tokens")
        found[int(number)] = added_token(config.path, entry)
    return found


def _merge_map(folder: Folder, values: dict[str, JSON]) -> None:
    """Lay special_tokens_map.json over ``values``."""
    for name, value in folder.json("special_tokens_map.json").items():
        if isinstance(value, dict) and name != _EXTRA:
            value = {**value, "special": True, _TYPE: "AddedToken"}
        elif name == _EXTRA and isinstance(value, list):
            before = values.get(_EXTRA)
            value = [*(before if isinstance(before, list) else []), *value]
        elif name == _ADDITIONAL and not values.get(_EXTRA):
            values[_EXTRA] = value
        values[name] = value


def _legacy_list(folder: Folder, values: Mapping[str, JSON]) -> dict[int, AddedTokenBlock]:
    """added_tokens.json: id → token."""
    path = folder.root / "added_tokens.json"
    extra = values.get(_EXTRA)
    special = {_content(values.get(name)) for name in STANDARD}
    special |= {_content(one) for one in extra} if isinstance(extra, list) else set()
    found: dict[int, AddedTokenBlock] = {}
    for token, number in folder.json(path.name).items():
        if not is_integer(number, high=LARGEST_INTEGER):
            raise ModelError(str(path), f"gives {shown(token)} the id {shown(number)}", _REMEDY)
        found[number] = added_token(path, {"content": token, "special": token in special})
    return found


def _named(
    config: Fields, values: Mapping[str, JSON], extra: list[str]
) -> dict[str, AddedTokenBlock]:
    """The tokens that have a name, each that is set."""
    others = [
        name
        for name, value in values.items()
        if name not in STANDARD
        and name.endswith("_token")
        and _content(value) is not None
        and (not isinstance(value, dict) or value.get(_TYPE) == "AddedToken")
    ]
    return {
        name: _token(config, name, values[name])
        for name in dict.fromkeys((*STANDARD, *others, *extra))
        if values.get(name) is not None
    }


def _content(value: JSON) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _token(config: Fields, name: str, value: JSON) -> AddedTokenBlock:
    """A control token, spelled as text or as an object with its ``content``."""
    content = _content(value)
    if content is None:
        raise ModelError(str(config.path), f"{name} is {shown(value)}, expected text", _REMEDY)
    entry: Mapping[str, JSON] = value if isinstance(value, dict) else {"content": content}
    return {**added_token(config.path, entry, special=True), "special": True}
