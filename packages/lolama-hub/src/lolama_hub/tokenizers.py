"""Tokenizer files of a folder: tokenizer.json as it is, the control tokens, the chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, TokenizerBlock, TokenizerFiles
from lolama_hub.fields import LARGEST_INTEGER, Fields, shown
from lolama_hub.folder import Folder
from lolama_hub.store import Store

CONFIG = "tokenizer_config.json"
_REMEDY = "get the file again"
# Classes whose add_bos_token is true when the key is left out.
_LLAMA_CLASSES = (
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "CodeLlamaTokenizer",
    "CodeLlamaTokenizerFast",
)
# What LlamaTokenizer takes for control tokens when a folder does not say.
_SENTENCEPIECE_TOKENS: Mapping[str, JSON] = {"bos_token": "<s>", "eos_token": "</s>"}


@dataclass(frozen=True)
class TokenizerParts:
    """What a folder says about its tokenizer.

    Attributes:
        files: tokenizer.json and the chat template.
        block: The canonical ``tokenizer`` block.
        size: One more than the highest id.
        eos_id: The id of ``eos_token``, if both exist.
    """

    files: TokenizerFiles
    block: TokenizerBlock
    size: int
    eos_id: int | None


def read_tokenizer(
    folder: Folder,
    vocab_size: int,
    store: Store,
    io: CheckpointIO,
    *,
    picture_template: str | None = None,
) -> TokenizerParts:
    """Read the tokenizer of a folder; a sentencepiece ``tokenizer.model`` is converted once if it is alone.

    Args:
        folder: The model's folder.
        vocab_size: Rows of the model's embedding; every id must be below it.
        store: Where a conversion is kept.
        io: Reader of untrusted files.
        picture_template: Of a model that sees: the template to use if the folder has none that shows
            pictures, such as a text model's own.

    Raises:
        ModelError: naming the file, and the token whose id is past the vocabulary.
        NotAvailableError: if a conversion needs packages that are not installed.
    """
    path, values = _read_optional(folder, CONFIG, io)
    config = Fields(path, values, {"add_bos_token": None})
    tokenizer_json = folder.find("tokenizer.json")
    defaults: Mapping[str, JSON] = {}
    default_class = ""
    if tokenizer_json is None:
        from lolama_hub.sentencepiece_conversion import convert

        tokenizer_json = convert(folder, config, store, io)
        defaults, default_class = _SENTENCEPIECE_TOKENS, "LlamaTokenizer"
    ids = _read_ids(tokenizer_json, io)
    token, highest = max(ids.items(), key=lambda item: item[1])
    if highest >= vocab_size:
        raise ModelError(
            str(tokenizer_json),
            f"the token {shown(token)} has the id {highest}, but the model's vocabulary has {vocab_size}",
            "the tokenizer and config.json must be of the same model",
        )
    _, special = _read_optional(folder, "special_tokens_map.json", io)
    bos, eos = (
        _control_token(config, special, defaults, name) for name in ("bos_token", "eos_token")
    )
    add_bos = config.get("add_bos_token")
    if add_bos is None:
        add_bos = config.get("tokenizer_class") in _LLAMA_CLASSES or default_class in _LLAMA_CLASSES
        add_bos = add_bos and bos in ids
    elif not isinstance(add_bos, bool):
        raise config.refuse("add_bos_token", "true or false")
    if add_bos and bos not in ids:
        raise ModelError(
            str(path), f"add_bos_token is true, but bos_token {shown(bos)} is not a token", _REMEDY
        )
    template = _chat_template(folder, config, io)
    if picture_template is not None:
        template = _processor_template(folder, io) or template
        if template is None or "image" not in template:
            template = picture_template
    return TokenizerParts(
        files=TokenizerFiles(tokenizer_json=tokenizer_json, chat_template=template),
        block={"bos_token": bos, "eos_token": eos, "add_bos": add_bos},
        size=highest + 1,
        eos_id=ids.get(eos) if eos is not None else None,
    )


def _read_optional(folder: Folder, name: str, io: CheckpointIO) -> tuple[Path, dict[str, JSON]]:
    path = folder.find(name)
    return folder.root / name, io.read_json(path) if path is not None else {}


def _read_ids(path: Path, io: CheckpointIO) -> dict[str, int]:
    """Token → id of everything a tokenizer.json knows; a vocabulary is a mapping, or a list for Unigram."""
    # Published files are larger than what `read_json` takes; core parses them again before any use.
    try:
        values = json.loads(io.read_text(path))
    except (ValueError, RecursionError) as error:
        reason = (
            "is nested too deeply" if isinstance(error, RecursionError) else "is not valid JSON"
        )
        raise ModelError(str(path), reason, _REMEDY) from None
    if not isinstance(values, dict):
        raise ModelError(str(path), "is no JSON object, so it is no tokenizer.json", _REMEDY)
    model = values.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    added = values.get("added_tokens", [])
    pairs: list[tuple[object, object]] = []
    if isinstance(vocab, dict):
        pairs += vocab.items()
    elif isinstance(vocab, list):
        pairs += [
            (row[0] if isinstance(row, list) and row else None, n) for n, row in enumerate(vocab)
        ]
    else:
        raise ModelError(str(path), "has no vocabulary, so it is no tokenizer.json", _REMEDY)
    if not isinstance(added, list):
        raise ModelError(str(path), f"added_tokens is {shown(added)}, expected a list", _REMEDY)
    for entry in added:
        if not isinstance(entry, dict):
            raise ModelError(str(path), f"the added token {shown(entry)} is not an object", _REMEDY)
        pairs.append((entry.get("content"), entry.get("id")))
    ids: dict[str, int] = {}
    for token, number in pairs:
        if (
            not isinstance(token, str)
            or isinstance(number, bool)
            or not isinstance(number, int)
            or not 0 <= number <= LARGEST_INTEGER
        ):
            raise ModelError(
                str(path), f"gives the token {shown(token)} the id {shown(number)}", _REMEDY
            )
        ids[token] = number
    if not ids:
        raise ModelError(str(path), "has an empty vocabulary", _REMEDY)
    return ids


def _control_token(
    config: Fields, special: Mapping[str, JSON], defaults: Mapping[str, JSON], name: str
) -> str | None:
    """The text of a control token: a string, or an object with its ``content``; null is "none"."""
    for values in (config.values, special, defaults):
        if name in values:
            value = values[name]
            if isinstance(value, dict):
                value = value.get("content")
            if value is None or isinstance(value, str):
                return value
            raise ModelError(str(config.path), f"{name} is {shown(value)}, expected text", _REMEDY)
    return None


def _chat_template(folder: Folder, config: Fields, io: CheckpointIO) -> str | None:
    """The Jinja source: a file of its own, else in tokenizer_config.json, else in chat_template.json.

    Of several named templates it is the one called ``default``, as in transformers.
    """
    path = folder.find("chat_template.jinja")
    if path is not None:
        return io.read_text(path)
    _, alone = _read_optional(folder, "chat_template.json", io)
    fields = (
        config
        if config.get("chat_template") is not None
        else Fields(folder.root / "chat_template.json", alone)
    )
    value = fields.get("chat_template")
    if isinstance(value, list):
        named = [
            entry for entry in value if isinstance(entry, dict) and entry.get("name") == "default"
        ]
        value = named[-1].get("template") if named else None
    if value is not None and not isinstance(value, str):
        raise fields.refuse("chat_template", "text, or a list of named templates")
    return value


def _processor_template(folder: Folder, io: CheckpointIO) -> str | None:
    """The template of a processor, which knows of pictures, where the tokenizer beside it may not."""
    for name in ("chat_template.json", "processor_config.json"):
        path, values = _read_optional(folder, name, io)
        value = values.get("chat_template")
        if folder.find("chat_template.jinja") is None and value is not None:
            if not isinstance(value, str):
                raise Fields(path, values).refuse("chat_template", "text")
            return value
    return None
