"""Which tokens of a GGUF file begin and end texts, and what chat templates call them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.types import TokenizerBlock
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.gguf.token_list import refused

BOS, EOS = "ggml.bos_token_id", "ggml.eos_token_id"
ENDS = (EOS, "ggml.eot_token_id", "ggml.eom_token_id")
# Names that chat templates have for tokens of which lolama itself makes nothing.
NAMED = {
    "ggml.unknown_token_id": "unk_token",
    "ggml.seperator_token_id": "sep_token",  # llama.cpp's own spelling
    "ggml.padding_token_id": "pad_token",
    "ggml.cls_token_id": "cls_token",
    "ggml.mask_token_id": "mask_token",
}
# A file names one or two ends of a reply, where generation_config.json may list several. llama.cpp knows the
# others by their texts, and so does lolama.
END_TEXTS = frozenset(
    """<|eot_id|> <|eom_id|> <|im_end|> <|end|> <|endoftext|> <|end_of_text|> <end_of_turn>
    <end_of_utterance> <EOT> [EOT] [EOS] <｜end▁of▁sentence｜>""".split()
)
_NO_DEFAULTS: Mapping[str, int] = MappingProxyType({})


def read_special_ids(
    fields: Fields,
    texts: Mapping[int, str],
    added: Container[int],
    *,
    adds_bos: bool,
    defaults: Mapping[str, int] = _NO_DEFAULTS,
) -> tuple[TokenizerBlock, list[int]]:
    """The canonical ``tokenizer`` block, and all ids that end a text.

    A name whose id is that of no token is left out, as in llama.cpp: many files have one for padding. BOS and
    what ends a text must be tokens.

    Args:
        fields: The metadata whose keys begin with ``tokenizer``, without that.
        texts: Id → text of all tokens.
        added: Ids of those that are found in a text before anything else.
        adds_bos: Whether texts begin with BOS if the file does not say.
        defaults: What a key that is absent means, if that is such an id.

    Raises:
        ModelError: for an id of no token, and for texts that are to begin with BOS if there is none.
    """
    ids = {name: number for name, number in defaults.items() if number in added}
    ids |= {name: _token_id(fields, name, texts) for name in (BOS, *ENDS) if name in fields}
    add_bos = adds_bos and BOS in ids
    if fields.get("ggml.add_bos_token") is not None:
        add_bos = fields.boolean("ggml.add_bos_token")
        if add_bos and BOS not in ids:
            raise refused(fields, "ggml.add_bos_token", f"is true, but there is no {BOS}")
    block: TokenizerBlock = {
        "bos_token": texts[ids[BOS]] if BOS in ids else None,
        "eos_token": texts[ids[EOS]] if EOS in ids else None,
        "add_bos": add_bos,
    }
    named = {name: fields.get(key) for key, name in NAMED.items()}
    special = {
        name: texts[value] for name, value in named.items() if is_integer(value) and value in texts
    }
    if special:
        block["special_tokens"] = special
    known = {number for number, text in texts.items() if text in END_TEXTS and number in added}
    return block, sorted(known | {ids[name] for name in ENDS if name in ids})


def _token_id(fields: Fields, name: str, texts: Mapping[int, str]) -> int:
    number = fields.get(name)
    if not is_integer(number) or number not in texts:
        highest = max(texts, default=0)
        reason = f"is {shown(number)}, which is the id of no token: they go up to {highest}"
        raise refused(fields, name, reason)
    return number
