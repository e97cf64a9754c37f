"""A tokenizer.json that a GGUF file has as a whole, in ``tokenizer.huggingface.json``."""

from __future__ import annotations

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import AddedTokenBlock
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.folder.vocabulary import parse_vocabulary
from lolama_hub.gguf.kept_tokenizer import Described
from lolama_hub.gguf.special_ids import read_special_ids

NAME = "huggingface.json"


def describe_whole(fields: Fields) -> Described:
    """What is to be known of that tokenizer.json.

    Args:
        fields: The metadata whose keys begin with ``tokenizer``, without that.

    Raises:
        ModelError: for one that cannot be used, and for an id of no token.
    """
    text = fields.get(NAME)
    if not isinstance(text, str):
        raise fields.refuse(NAME, "the text of a tokenizer.json")
    source = fields.path / f"tokenizer.{NAME}"
    vocabulary = parse_vocabulary(source, text)
    if vocabulary.misplaced is not None:
        reason = f"gives the added token {shown(vocabulary.misplaced)} an id that is not its place"
        raise ModelError(str(source), reason, "get the file again")
    texts = {number: token for token, number in vocabulary.ids.items()}
    added = {vocabulary.ids[token] for token in vocabulary.added}
    block, eos_ids = read_special_ids(fields, texts, added, adds_bos=False)
    # Tokens with these names are control tokens, whatever the tokenizer.json says.
    controls = [
        AddedTokenBlock(
            content=content,
            special=True,
            normalized=False,
            lstrip=False,
            rstrip=False,
            single_word=False,
        )
        for content in dict.fromkeys(
            token for token in (block["bos_token"], block["eos_token"]) if token
        )
        if content not in vocabulary.added
    ]
    if controls:
        block["added_tokens"] = controls
    return Described(block, max(texts) + 1, eos_ids, lambda: text)
