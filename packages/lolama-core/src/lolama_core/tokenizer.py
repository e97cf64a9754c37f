"""Text and ids, by a ``tokenizer.json``."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsIndex, cast, overload

from lolama_core.chat_template import ChatTemplate
from lolama_core.native_guard import call_native
from lolama_core.plain_numbers import whole_number
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import Message, TokenizerBlock
from lolama_core.protocols.utf8 import is_unicode
from lolama_core.token_ids import TokenIds, token_ids
from lolama_core.untrusted_files import read_text

if TYPE_CHECKING:
    import tokenizers
    from torch import Tensor

# A pattern in a tokenizer file may take exponential time. Honest ones do a megabyte in well under a second.
_SECONDS_PER_CALL = 2.0
_SECONDS_PER_MEGABYTE = 2.0


class Tokenizer:
    """A tokenizer in the format of the ``tokenizers`` library, with its chat template.

    Args:
        tokenizer_json: The text of ``tokenizer.json``.
        chat_template: Jinja source, or None.
        bos_token, eos_token: Control tokens by their text, or None.
        add_bos: Begin texts with BOS even if the file's own post-processor does not.
        eos_ids: Ids that end a text; the id of ``eos_token`` always does.
        source: The file's name, for messages.

    Attributes:
        tokenizer_json, chat_template: As given.
        block: The other arguments, as a checkpoint's configuration has them.

    Raises:
        ModelError: if the file is damaged or contradicts itself.
    """

    def __init__(
        self,
        tokenizer_json: str,
        *,
        chat_template: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        add_bos: bool = False,
        eos_ids: Iterable[int] = (),
        source: str = "tokenizer.json",
    ) -> None:
        from tokenizers import Tokenizer as NativeTokenizer

        self._source = source
        self.tokenizer_json, self.chat_template = tokenizer_json, chat_template
        self.block = TokenizerBlock(bos_token=bos_token, eos_token=eos_token, add_bos=add_bos)
        self._native: tokenizers.Tokenizer = call_native(
            lambda: NativeTokenizer.from_str(tokenizer_json), subject=source
        )
        self._native.no_padding()
        self._native.no_truncation()
        # As the library understood it: a file may spell "Regex" with escapes.
        self._has_pattern = any(
            b'"Regex"' in part.__getstate__()
            for part in (self._native.normalizer, self._native.pre_tokenizer)
            if part is not None
        )
        self._in_use = threading.Lock()
        vocabulary = self._native.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise ModelError(source, "has an empty vocabulary", "fetch the file again")
        self._vocab_size = max(vocabulary.values()) + 1
        self._specials = {
            token_id: token
            for token_id, token in self._native.get_added_tokens_decoder().items()
            if token.special
        }
        decoder = json.loads(self._native.decoder.__getstate__()) if self._native.decoder else None
        if '"Regex"' in json.dumps(decoder):
            raise ModelError(source, "has a decoder with a pattern", "use another tokenizer.json")
        names = (
            [f"<0x{byte:02X}>" for byte in range(256)] if _mentions(decoder, "ByteFallback") else []
        )
        self._byte_ids = frozenset(vocabulary[name] for name in names if name in vocabulary)
        self.bos_token, self.eos_token = bos_token, eos_token
        self._bos_id = self._control_id(vocabulary, bos_token)
        eos_id = self._control_id(vocabulary, eos_token)
        self._eos_ids = frozenset(eos_ids) | ({eos_id} if eos_id is not None else frozenset())
        self._adds_bos = self._bos_id is not None and (
            add_bos or self._native.encode("", add_special_tokens=True).ids[:1] == [self._bos_id]
        )
        self._placeholders = self._add_placeholders()
        self._template = ChatTemplate(chat_template) if chat_template is not None else None

    @classmethod
    def from_file(cls, path: Path | str, **settings: str | None) -> Tokenizer:
        """Read a ``tokenizer.json``; the other arguments are those of `Tokenizer`."""
        return cls(read_text(Path(path)), source=str(path), **settings)  # type: ignore[arg-type]

    def _control_id(self, vocabulary: Mapping[str, int], token: str | None) -> int | None:
        if token is None:
            return None
        if token not in vocabulary:
            raise ModelError(
                self._source,
                f"does not contain the control token {token!r:.40}",
                "fetch the files again",
            )
        return vocabulary[token]

    def _add_placeholders(self) -> dict[str, str]:
        """For each control token a twin that no user can type: an added token with a secret spelling.

        Encoding with ``encode_special_tokens`` leaves control tokens in a text alone, but still finds
        other added tokens. So a template's own control tokens are swapped for their twins, the whole
        conversation is encoded in one go (which keeps every space and merge as it would be), and the twins'
        ids are turned back.
        """
        from tokenizers import AddedToken

        secret = secrets.token_hex(8)
        placeholders = {}
        self._twin_ids: dict[int, int] = {}
        twins = []
        for token_id, token in sorted(self._specials.items()):
            spelling = f"<|{secret}:{token_id}|>"
            placeholders[token.content] = spelling
            twins.append(
                AddedToken(
                    spelling,
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                    special=False,
                )
            )
        if twins:
            self._native.add_tokens(twins)
        for token_id, token in self._specials.items():
            twin = self._native.token_to_id(placeholders[token.content])
            assert twin is not None
            self._twin_ids[twin] = token_id
        return placeholders

    @property
    def vocab_size(self) -> int:
        """Number of ids: each is below it."""
        return self._vocab_size

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text."""
        return self._bos_id

    @property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end a text."""
        return self._eos_ids

    @property
    def has_chat_template(self) -> bool:
        """Whether `render_chat` can be used."""
        return self._template is not None

    def is_special(self, token_id: SupportsIndex) -> bool:
        """Whether the id is a control token, which `decode` leaves out."""
        return whole_number(token_id) in self._specials

    def is_byte(self, token_id: SupportsIndex) -> bool:
        """Whether the id is a single byte (``<0xE2>``), whose text depends on the ids around it."""
        return whole_number(token_id) in self._byte_ids

    def encode_ids(
        self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[int]:
        """Text → ids; see `lolama_core.protocols.Tokenizer`."""
        ids = self._encode(text, add_special_tokens, split_special_tokens)
        return self.ensure_bos(ids) if add_special_tokens else ids

    @overload
    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool = ...,
        split_special_tokens: bool = ...,
        return_tensors: None = None,
    ) -> list[int]: ...
    @overload
    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool = ...,
        split_special_tokens: bool = ...,
        return_tensors: Literal["pt"],
    ) -> Tensor: ...
    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
        return_tensors: Literal["pt"] | None = None,
    ) -> list[int] | Tensor:
        """`encode_ids`, or with ``return_tensors="pt"`` a (1, T) int64 tensor ready for a model."""
        ids = self.encode_ids(
            text, add_special_tokens=add_special_tokens, split_special_tokens=split_special_tokens
        )
        if return_tensors is None:
            return ids
        import torch

        return torch.tensor([ids], dtype=torch.int64)

    def ensure_bos(self, ids: TokenIds) -> list[int]:
        """``ids`` with exactly one BOS in front, if this tokenizer begins texts with one."""
        ids = token_ids(ids)
        if not self._adds_bos or self._bos_id is None:
            return ids
        start = 0
        while start < len(ids) and ids[start] == self._bos_id:
            start += 1
        return [self._bos_id, *ids[start:]]

    def decode(self, ids: TokenIds | SupportsIndex, *, skip_special_tokens: bool = True) -> str:
        """Ids → text. Takes one row as a list, a tensor or an array, or one id.

        Raises:
            UsageError: for several rows, or what is no id.
        """
        one = whole_number(ids)
        plain = [one] if one is not None else token_ids(cast("TokenIds", ids))
        # The twins are ours alone; to everyone else an id past the vocabulary has no text.
        known = [i for i in plain if 0 <= i < self._vocab_size]
        text: str = self._native.decode(known, skip_special_tokens=skip_special_tokens)
        return text

    def render_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """A conversation → ids, by the chat template; see `lolama_core.protocols.Tokenizer`."""
        if self._template is None:
            raise ModelError(
                self._source, "the model has no chat template", "use --raw, or encode the text"
            )
        text = self._template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            control_tokens=self._placeholders,
            bos_token=self.bos_token or "",
            eos_token=self.eos_token or "",
        )
        return [self._twin_ids.get(i, i) for i in self._encode(text, False, True)]

    def _encode(self, text: str, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        if not is_unicode(text):
            raise UsageError(
                "text", "holds half of a surrogate pair, which is not Unicode", "give UTF-8 text"
            )

        def run() -> list[int]:
            # The switch is the tokenizer's, not the call's: no other thread may turn it meanwhile.
            with self._in_use:
                self._native.encode_special_tokens = split_special_tokens
                # The batch call, unlike the single one, lets other threads run meanwhile.
                [encoding] = self._native.encode_batch(
                    [text], add_special_tokens=add_special_tokens
                )
            ids: list[int] = encoding.ids
            return ids

        if not self._has_pattern:
            return run()
        seconds = _SECONDS_PER_CALL + _SECONDS_PER_MEGABYTE * len(text) / 1e6
        return call_native(run, subject=self._source, seconds=seconds)


def _mentions(value: object, kind: str) -> bool:
    """Whether a part of that type is anywhere in a tokenizer's JSON."""
    return re.search(rf'"type": "{kind}"', json.dumps(value)) is not None
