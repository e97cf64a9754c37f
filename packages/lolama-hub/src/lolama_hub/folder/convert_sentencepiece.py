"""Folders whose only tokenizer is a sentencepiece ``tokenizer.model``: made into a tokenizer.json, once.

The file's pieces and scores are read with sentencepiece's own schema; no code and no class name of the
folder plays a part. The ids are those of the sentencepiece library, with one exception that transformers'
``LlamaConverter`` makes too: runs of spaces are kept, even where the file asks for them to be merged into
one. (Loading such a file with transformers 5.23 also loses one of two leading spaces.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import ModelError, NotAvailableError, ResourceError, shortage
from lolama_core.protocols.types import JSON
from lolama_core.protocols.whole_file import write_whole
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.folder.files import SENTENCEPIECE, Folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_VERSION = 1  # of what `convert` writes
_MAX_BYTES = 64 * 2**20  # twenty times the largest published one
_SPACE = "▁"  # what sentencepiece writes for a space
_BPE = 2  # sentencepiece's TrainerSpec.ModelType
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # sentencepiece's SentencePiece.Type
_REMEDY = "use a version of the model that has tokenizer.json"


def convert(folder: Folder, config: Fields) -> Path:
    """The folder's ``tokenizer.model`` as a tokenizer.json in the store, written unless it is there already.

    It is kept under the content of the file.

    Args:
        folder: The model's folder.
        config: tokenizer_config.json, for ``legacy``, ``add_prefix_space`` and added tokens.

    Raises:
        ModelError: for one that cannot be represented, or is not there.
        NotAvailableError: if sentencepiece is not installed.
    """
    path = folder.require(SENTENCEPIECE)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        found = shortage(error, str(path))
        if found is not None:
            raise found from None
        reason = f"cannot be read: {error.strerror}"
        raise ModelError(str(path), reason, "check the file and its permissions") from None
    if len(data) > _MAX_BYTES:
        raise ModelError(str(path), f"is larger than {_MAX_BYTES // 2**20} MiB", _REMEDY)
    # transformers' names: legacy (the default) puts a space before text that follows a control token too.
    legacy = config.get("legacy") is not False
    prefix = config.get("add_prefix_space") is not False
    added = _added_tokens(folder, config)
    digest = hashlib.sha256(data).hexdigest()
    identity: JSON = [_VERSION, digest, legacy, prefix, [list(row) for row in added]]
    place = folder.store.place("tokenizers", folder.label, identity)
    product = place.with_name(place.name + ".json")
    if not product.exists():
        tokenizer = _build(path, data, legacy=legacy, prefix=prefix)
        _add(path, tokenizer, added)
        _write(product, tokenizer.to_str())
    return product


def _added_tokens(folder: Folder, config: Fields) -> list[tuple[int, str, bool]]:
    """(id, text, special) of tokens that the folder adds to the file's own."""
    found: dict[int, tuple[str, bool]] = {}
    extra = "added_tokens.json"
    for token, number in folder.json(extra).items():
        if not is_integer(number):
            reason = f"gives {shown(token)} the id {shown(number)}"
            raise ModelError(str(folder.root / extra), reason, _REMEDY)
        found[number] = (token, True)
    decoder = config.get("added_tokens_decoder")
    for number_text, entry in (decoder if isinstance(decoder, dict) else {}).items():
        content = entry.get("content") if isinstance(entry, dict) else None
        if (
            not isinstance(entry, dict)
            or not isinstance(content, str)
            or not number_text.isdecimal()
        ):
            raise config.refuse("added_tokens_decoder", "an object of ids and tokens")
        found[int(number_text[:18])] = (content, entry.get("special") is True)
    return [(number, *found[number]) for number in sorted(found)]


def _build(path: Path, data: bytes, *, legacy: bool, prefix: bool) -> Tokenizer:
    try:
        # The class is found by its name, because the module is generated and has no types.
        schema: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError:
        raise NotAvailableError(
            str(path),
            "is a sentencepiece tokenizer, which needs a package that is not installed",
            "run: pip install 'lolama-hub[sentencepiece]'",
        ) from None
    try:
        proto = schema.ModelProto.FromString(data)
        _refuse_unsupported(path, proto)
        return _assemble(
            proto, legacy=legacy, prefix=prefix and proto.normalizer_spec.add_dummy_prefix
        )
    except (ModelError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # protobuf's errors share no base with ValueError everywhere, and a panic inside tokenizers is not even
    # an Exception; either way the file is what is wrong.
    except BaseException as error:
        raise ModelError(
            str(path),
            f"is not a sentencepiece model ({type(error).__name__})",
            "get the file again",
        ) from error


def _refuse_unsupported(path: Path, proto: Any) -> None:
    """What tokenizer.json cannot express exactly."""
    problem = ""
    if proto.trainer_spec.model_type != _BPE:
        # In a Unigram tokenizer.json the control tokens are pieces like any other: typed text reaches them.
        problem = "is not a BPE model"
    elif (
        proto.trainer_spec.treat_whitespace_as_suffix
        or not proto.normalizer_spec.escape_whitespaces
    ):
        problem = "treats spaces in a way that is not supported"
    elif not proto.pieces:
        problem = "has no pieces"
    else:
        known = (_NORMAL, _UNKNOWN, _CONTROL, _BYTE)
        strange = next((piece.piece for piece in proto.pieces if piece.type not in known), None)
        if strange is not None:
            problem = (
                f"has a user-defined or unused piece ({shown(strange)}), which is not supported"
            )
    if problem:
        raise ModelError(str(path), problem, _REMEDY)


def _assemble(proto: Any, *, legacy: bool, prefix: bool) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    pieces = proto.pieces
    unknown = next((piece.piece for piece in pieces if piece.type == _UNKNOWN), None)
    tokenizer = Tokenizer(
        BPE(
            vocab={piece.piece: n for n, piece in enumerate(pieces)},
            merges=list(_merges(pieces)),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=proto.trainer_spec.byte_fallback,
        )
    )
    steps: list[Any] = []
    if proto.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    if prefix and legacy:
        steps.append(normalizers.Prepend(_SPACE))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    if prefix and not legacy:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=_SPACE, prepend_scheme="first", split=False
        )
    parts: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens(
        [
            AddedToken(piece.piece, special=True, normalized=False)
            for piece in pieces
            if piece.type in (_UNKNOWN, _CONTROL)
        ]
    )
    return tokenizer


def _merges(pieces: Any) -> Iterator[tuple[str, str]]:
    """The merges in the order sentencepiece takes them: best score of the merged piece first.

    Only text may be merged out of text, so control tokens and bytes are left out of it: with them, a
    typed ``</s>`` could become the control token.
    """
    text = {piece.piece: n for n, piece in enumerate(pieces) if piece.type == _NORMAL}
    for whole in sorted(text, key=lambda piece: (-pieces[text[piece]].score, text[piece])):
        splits = ((whole[:n], whole[n:]) for n in range(1, len(whole)))
        yield from sorted(
            (pair for pair in splits if pair[0] in text and pair[1] in text),
            key=lambda pair: (text[pair[0]], text[pair[1]]),
        )


def _add(path: Path, tokenizer: Tokenizer, added: list[tuple[int, str, bool]]) -> None:
    from tokenizers import AddedToken

    for number, token, special in added:
        expected = tokenizer.token_to_id(token)
        if expected is None:
            expected = tokenizer.get_vocab_size()
        if number != expected:
            raise ModelError(
                str(path.parent),
                f"the added token {shown(token)} has the id {number}, expected {expected}",
                "the tokenizer's files must be of one version",
            )
        entry = AddedToken(token, special=special, normalized=False)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([entry])


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise ResourceError(
            str(path), f"cannot be written: {error.strerror}", "free some space, or set LOLAMA_HOME"
        ) from None
