"""Tokenizer files of a folder: tokenizer.json as it is, the control tokens, the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, TokenizerBlock, TokenizerFiles
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.folder.files import SENTENCEPIECE, Folder
from lolama_hub.folder.special_tokens import read_special_tokens
from lolama_hub.folder.vocabulary import read_vocabulary

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
_LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@dataclass(frozen=True)
class TokenizerParts:
    """What a folder says about its tokenizer.

    Attributes:
        files: tokenizer.json and the chat template.
        block: The canonical ``tokenizer`` block.
        ids: Token → id of all.
        size: One more than the highest id.
        eos_id: The id of ``eos_token``, if both exist.
    """

    files: TokenizerFiles
    block: TokenizerBlock
    ids: Mapping[str, int]
    size: int
    eos_id: int | None


def read_tokenizer(
    folder: Folder, vocab_size: int, *, picture_template: str | None = None
) -> TokenizerParts:
    """Read the tokenizer of a folder; a sentencepiece ``tokenizer.model`` is converted once if it is alone.

    A folder may have neither: its model is given ids, of which any may come out.

    Args:
        folder: The model's folder.
        vocab_size: Rows of the model's embedding; every id must be below it.
        picture_template: For a vision model: the template to use if the folder has none that shows
            pictures, such as a text model's own; empty to use what it has.

    Raises:
        ModelError: naming the file, and the token whose id is past the vocabulary.
        NotAvailableError: if a conversion needs packages that are not installed.
    """
    path = folder.root / CONFIG
    config = Fields(
        path, folder.json(CONFIG), {"add_bos_token": None, "split_special_tokens": False}
    )
    if config.boolean("split_special_tokens"):
        raise config.refuse("split_special_tokens", "false: control tokens are no text")
    tokenizer_json = folder.find("tokenizer.json")
    converted = tokenizer_json is None
    if converted and folder.find(SENTENCEPIECE) is None:
        # Ids in, logits out needs none; whoever wants text is told by `load_tokenizer`.
        return TokenizerParts(
            files=TokenizerFiles(),
            block={"bos_token": None, "eos_token": None, "add_bos": False},
            ids={},
            size=vocab_size,
            eos_id=None,
        )
    if tokenizer_json is None:
        from lolama_hub.folder.convert_sentencepiece import convert

        tokenizer_json = convert(folder, config)
    vocabulary = read_vocabulary(tokenizer_json, folder.io)
    token, highest = max(vocabulary.ids.items(), key=lambda item: item[1])
    _check_id(tokenizer_json, token, highest, vocab_size)
    if vocabulary.misplaced is not None:
        token = vocabulary.misplaced
        raise ModelError(
            str(tokenizer_json),
            f"gives the added token {shown(token)} the id {vocabulary.ids[token]}, which is not its place",
            "added tokens must have ids of their own, counted on from the number of the other tokens",
        )
    is_llama = converted or config.get("tokenizer_class") in _LLAMA_CLASSES
    special = read_special_tokens(
        folder,
        config,
        vocabulary,
        defaults=_LLAMA_TOKENS if is_llama else {},
        only_names=converted,
    )
    ids = {**vocabulary.ids, **special.ids}
    names = dict(special.names)
    bos, eos = names.pop("bos_token", None), names.pop("eos_token", None)
    for name in (bos, eos):
        if name is not None and name in special.ids:
            _check_id(path, name, special.ids[name], vocab_size)
    add_bos = config.get("add_bos_token")
    if add_bos is None:
        add_bos = is_llama and bos in ids
    elif not isinstance(add_bos, bool):
        raise config.refuse("add_bos_token", "true or false")
    if add_bos and bos not in ids:
        raise ModelError(
            str(path), f"add_bos_token is true, but bos_token {shown(bos)} is not a token", _REMEDY
        )
    template = _chat_template(folder, config)
    if picture_template is not None:
        template = _processor_template(folder) or template
        if template is None or "image" not in template:
            template = picture_template or template
    block: TokenizerBlock = {"bos_token": bos, "eos_token": eos, "add_bos": add_bos}
    if names:
        block["special_tokens"] = names
    if special.unnamed:
        block["control_tokens"] = special.unnamed
    if special.added:
        block["added_tokens"] = special.added
    return TokenizerParts(
        files=TokenizerFiles(tokenizer_json=tokenizer_json, chat_template=template),
        block=block,
        ids=ids,
        # A token that only tokenizer_config.json has may be one that the model never learned, such as a
        # ``pad_token`` of whoever trained it further.
        size=min(vocab_size, max(highest, *special.ids.values(), 0) + 1),
        eos_id=ids.get(eos) if eos is not None else None,
    )


def _check_id(path: Path, token: str, number: int, vocab_size: int) -> None:
    if number >= vocab_size:
        raise ModelError(
            str(path),
            f"the token {shown(token)} has the id {number}, but the model's vocabulary has {vocab_size}",
            "the tokenizer and config.json must be of the same model",
        )


def _chat_template(folder: Folder, config: Fields) -> str | None:
    """The Jinja source: a file of its own, else in tokenizer_config.json, else in chat_template.json.

    Of several named templates it is the one called ``default``, as in transformers.
    """
    path = folder.find("chat_template.jinja")
    if path is not None:
        return folder.io.read_text(path)
    fields = config
    if config.get("chat_template") is None:
        alone = "chat_template.json"
        fields = Fields(folder.root / alone, folder.json(alone))
    value = fields.get("chat_template")
    expected = "text, or a list of named templates"
    if isinstance(value, list):
        named: dict[JSON, JSON] = {}
        for entry in value:
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise fields.refuse("chat_template", expected)
            named[entry["name"]] = entry.get("template", False)
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise fields.refuse("chat_template", expected)
    return value


def _processor_template(folder: Folder) -> str | None:
    """The template of a processor, which knows of pictures, where the tokenizer beside it may not."""
    for name in ("chat_template.json", "processor_config.json"):
        values = folder.json(name)
        value = values.get("chat_template")
        if folder.find("chat_template.jinja") is None and value is not None:
            if not isinstance(value, str):
                raise Fields(folder.root / name, values).refuse("chat_template", "text")
            return value
    return None
