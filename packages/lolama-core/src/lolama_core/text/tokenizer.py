"""Text and ids, by a ``tokenizer.json``, which `tokenizer_loading` is handed and `native_tokenizer` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, SupportsIndex, cast, overload

from lolama_core.files.untrusted import read_text
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import AddedTokenBlock, TokenizerBlock
from lolama_core.text.chat_template import ChatTemplate
from lolama_core.text.chats import Chats
from lolama_core.text.encoder import Encoder
from lolama_core.text.native_decoder import Decoder
from lolama_core.text.native_tokenizer import add_past_vocabulary, read_native
from lolama_core.text.plain_numbers import whole_number
from lolama_core.text.stacked_ids import stacked_ids
from lolama_core.text.stand_ins import StandIns
from lolama_core.text.streamed_id import known_text
from lolama_core.text.token_ids import TokenIds, token_ids

if TYPE_CHECKING:
    from torch import Tensor

_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class Tokenizer(Chats):
    """A tokenizer in the format of the ``tokenizers`` library, with its chat template.

    Args:
        tokenizer_json: The text of ``tokenizer.json``.
        chat_template: Jinja source, or None.
        bos_token, eos_token: Control tokens by their text, or None.
        special_tokens: Other control tokens: the name that a chat template has for each, such as
            ``pad_token``, and its text.
        control_tokens: Texts of further ones, which have no name.
        added_tokens: Tokens to add to those of the file, in order; one that is there gets these flags.
        add_bos: Begin texts with BOS even if the file's own post-processor does not.
        eos_ids: Ids that end a text; the id of ``eos_token`` always does.
        source: The file's name, for messages.

    Attributes:
        tokenizer_json, chat_template: As given.
        block: The other arguments, as a checkpoint's configuration has them.
        decoder: Ids → text.
        controls: Ids of control tokens, but for words of the vocabulary that are merely called one.

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
        special_tokens: Mapping[str, str] = _NO_NAMES,
        control_tokens: Iterable[str] = (),
        added_tokens: Sequence[AddedTokenBlock] = (),
        add_bos: bool = False,
        eos_ids: Iterable[int] = (),
        source: str = "tokenizer.json",
    ) -> None:
        self._source = source
        self.tokenizer_json, self.chat_template = tokenizer_json, chat_template
        control_tokens = list(control_tokens)
        self.block = TokenizerBlock(
            bos_token=bos_token,
            eos_token=eos_token,
            special_tokens=dict(special_tokens),
            control_tokens=control_tokens,
            added_tokens=list(added_tokens),
            add_bos=add_bos,
        )
        native, vocabulary, self._specials, words = read_native(
            tokenizer_json, added_tokens, source
        )
        self._vocab_size = max(vocabulary.values()) + 1
        added = native.get_added_tokens_decoder()
        self.decoder = Decoder(native, vocabulary, source)
        self.bos_token, self.eos_token = bos_token, eos_token
        named = {"bos_token": bos_token, "eos_token": eos_token, **special_tokens}
        self._names = {name: token for name, token in named.items() if token is not None}
        self._bos_id = self._control_id(vocabulary, bos_token)
        eos_id = self._control_id(vocabulary, eos_token)
        self._eos_ids = frozenset(eos_ids) | ({eos_id} if eos_id is not None else frozenset())
        # A token that is called a control token is one, whatever its flag says: what a user types is never
        # taken for it. As in transformers, `decode` leaves out those with the flag alone.
        called = {*self._names.values(), *control_tokens}
        controls = {i: t for i, t in added.items() if i in self._specials or t.content in called}
        # A word of the vocabulary that is called ``pad_token`` is still decoded.
        words -= {bos_token, eos_token}
        named_words = {i for i, token in controls.items() if token.content in words}
        self.controls = frozenset(controls.keys() - (named_words - self._specials))
        self._stand_ins = StandIns(controls)
        add_past_vocabulary(
            native, vocabulary, self._stand_ins.added_tokens(), tokenizer_json, source
        )
        native.add_special_tokens([t for t in controls.values() if not t.special])
        self._stand_ins.bind(native.token_to_id)
        self._encoder = Encoder(
            native,
            {i: token.content for i, token in controls.items() if token.content not in words},
            source,
        )
        always = self._encoder.encode("", True, False)
        self._adds_bos = self._bos_id is not None and (add_bos or always[:1] == [self._bos_id])
        strange = [number for number in always if number not in vocabulary.values()]
        if strange:
            reason = f"puts the id {strange[0]} into every text, which is the id of no token"
            raise ModelError(source, reason, "fetch the file again")
        self._template = ChatTemplate(chat_template) if chat_template is not None else None

    @classmethod
    def from_file(cls, path: Path | str, **settings: str | None) -> Tokenizer:
        """Read a ``tokenizer.json``; the other arguments are those of `Tokenizer`."""
        return cls(read_text(Path(path)), source=str(path), **settings)  # type: ignore[arg-type]

    def _control_id(self, vocabulary: Mapping[str, int], token: str | None) -> int | None:
        if not token:
            return None
        if token not in vocabulary:
            reason = f"does not contain the control token {token!r:.40}"
            raise ModelError(self._source, reason, "fetch the files again")
        return vocabulary[token]

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
        """Whether the id's text depends on the ids around it, as that of a single byte (``<0xE2>``) does."""
        return whole_number(token_id) not in self.decoder.independent

    def encode_ids(
        self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[int]:
        """Text → ids; see `lolama_core.protocols.Tokenizer`."""
        ids = self._encoder.encode(text, add_special_tokens, split_special_tokens)
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
        text: list[str] | tuple[str, ...],
        *,
        add_special_tokens: bool = ...,
        split_special_tokens: bool = ...,
        return_tensors: None = None,
    ) -> list[list[int]]: ...
    @overload
    def encode(
        self,
        text: str | list[str] | tuple[str, ...],
        *,
        add_special_tokens: bool = ...,
        split_special_tokens: bool = ...,
        return_tensors: Literal["pt"],
    ) -> Tensor: ...
    def encode(
        self,
        text: str | list[str] | tuple[str, ...],
        *,
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
        return_tensors: Literal["pt"] | None = None,
    ) -> list[int] | list[list[int]] | Tensor:
        """`encode_ids` of one text, or a list with that of each of several.

        With ``return_tensors="pt"``, a (B, T) int64 tensor ready for a model, where B is 1 for one text.

        Raises:
            UsageError: for what is no text, and if texts of different length should make one tensor.
        """
        rows = [
            self.encode_ids(
                one,
                add_special_tokens=add_special_tokens,
                split_special_tokens=split_special_tokens,
            )
            for one in (text if isinstance(text, list | tuple) else [text])
        ]
        if return_tensors is not None:
            return stacked_ids(rows, return_tensors)
        return rows if isinstance(text, list | tuple) else rows[0]

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

        One id alone that a stream gave out has the text that it adds to the stream's (`StreamedId`).

        Raises:
            UsageError: for several rows, or what is no id.
            ModelError: if the tokenizer's own decoder fails at it.
        """
        text = known_text(ids, self) if skip_special_tokens else None
        if text is not None:
            return text
        one = whole_number(ids)
        plain = [one] if one is not None else token_ids(cast("TokenIds", ids))
        # The stand-ins are ours alone; to everyone else an id past the vocabulary has no text.
        known = [i for i in plain if 0 <= i < self._vocab_size]
        if skip_special_tokens:
            # The library itself does not leave out control tokens that a normalizer changes.
            known = [i for i in known if i not in self._specials]
        return self.decoder.decode(known)
