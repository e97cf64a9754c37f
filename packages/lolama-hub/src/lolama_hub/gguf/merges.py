"""The merges that a GGUF file lists: which two tokens become one, the first of them first."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.gguf.token_list import TokenList, list_of, refused

# Llama 3 has 280,147 and Gemma 4 has 514,906, twice as many as tokens.
_MOST_MERGES = 2**22
_MOST_CHARACTERS = 2**25


def read_merges(fields: Fields, tokens: TokenList) -> list[JSON]:
    """The merges as tokenizer.json has them: pairs of tokens that make a token.

    Args:
        fields: The metadata whose keys begin with ``tokenizer``, without that.
        tokens: Its tokens.

    Raises:
        ModelError: for one that does not lead from tokens to a token.
    """
    name = "ggml.merges"
    merges = list_of(fields, name, str, most=_MOST_MERGES)
    if not merges:
        raise fields.refuse(name, "a list of pairs of tokens")
    if sum(map(len, merges)) > _MOST_CHARACTERS:
        raise refused(fields, name, f"has more than {_MOST_CHARACTERS} characters")
    pairs: dict[tuple[str, str], None] = {}
    for number, merge in enumerate(merges):
        # A token may begin with a space, and never ends with one.
        cut = merge.find(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if cut < 1 or not {left, right, left + right} <= tokens.ids.keys():
            reason = f"has at {number} {shown(merge)}, which does not make a token of two"
            raise refused(fields, name, reason)
        pairs[left, right] = None
    return [list(pair) for pair in pairs]
