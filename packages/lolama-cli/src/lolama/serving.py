"""Models as a server uses them: what `lolama_serve` is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import lolama_core
from lolama import memory, names, wiring
from lolama.command_serving import CommandNames
from lolama.drafts import check_draft, check_tried
from lolama.served_loading import Loading as Loading
from lolama.served_loading import facts_of
from lolama.served_model import LocalModel
from lolama_core.protocols.errors import LolamaError, UsageError
from lolama_core.protocols.serving import ServedName
from lolama_core.protocols.types import JSON, ModelFiles
from lolama_serve import ServeOptions as ServeOptions
from lolama_serve import log_to as log_to
from lolama_serve import serve as serve

if TYPE_CHECKING:
    from lolama_core import Drafting, Tokenizer


class LocalModels(CommandNames):
    """The models of this machine, for a server; see `lolama_core.protocols.serving.ModelHost`.

    Those that are built in or were downloaded, and those that whoever started the server named. A request
    names models alone: no path of it is looked at, and nothing is downloaded.

    Args:
        given: Names and paths of models that were named at the start.
        loading: How they are loaded.
        aliases: What requests call the first of them in the place of its name, which is not told then.
        tags: Words that are told of it.
    """

    def __init__(
        self,
        given: Sequence[str] = (),
        loading: Loading | None = None,
        *,
        aliases: Sequence[str] = (),
        tags: Sequence[str] = (),
    ) -> None:
        self._given, self._loading = tuple(given), loading or Loading()
        self._aliases, self._tags = tuple(dict.fromkeys(aliases)), tuple(dict.fromkeys(tags))

    @property
    def given(self) -> tuple[str, ...]:
        """What requests call the models that were named at the start."""
        return (*self._aliases[:1], *self._given[1:]) if self._aliases else self._given

    def names(self) -> list[ServedName]:
        """The models that are here and can be read."""
        found = []
        for name in self.known():
            with suppress(LolamaError):  # one that cannot be read does not take the others with it
                found.append(self._served(name))
        return found

    def find(self, name: str) -> ServedName:
        """The model of that name; see `ModelHost`."""
        if name in self._aliases:
            name = self._aliases[0]
        known = self.known()
        if name not in known:
            raise UsageError("model", "is not here", f"use one of {', '.join(known)[:500]}")
        return self._served(name)

    def load(self, name: str) -> LocalModel:
        """Load it; see `ModelHost`."""
        if name not in self.known():
            raise UsageError("model", f"{name!r:.200} is not here", "see GET /v1/models")
        files = self.files_of(name)
        wiring.check(files)
        loading = self._loading
        asked = files
        if loading.template is not None:
            asked = names.with_chat_template(files, loading.template)
        tokenizer = wiring.tokenizer_of(asked)
        draft = self._draft(files, tokenizer)
        used = wiring.quantized(files, loading.bits)
        model = wiring.load_files(used, device=loading.device, dtype=loading.dtype)
        wiring.suit_threads(model)
        return LocalModel(name, used, model, tokenizer, loading, draft)

    def known(self) -> dict[str, None]:
        """Names in the order in which they are told; a dictionary, to look them up."""
        source = lolama_core.installed_source()
        stored = source.stored(lolama_core.FileCheckpointIO())
        complete = {one.repo for one in stored if one.complete}
        aliases = [one for one in source.list() if one.repo in complete]
        aliased = {one.repo for one in aliases}
        found = [*self.given, *names.builtin_models(), *(one.alias for one in aliases)]
        return dict.fromkeys([*found, *sorted(complete - aliased)])

    @property
    def named(self) -> Mapping[str, str]:
        """What commands call the models that were named at the start; see `CommandNames`."""
        return dict(zip(self._given, self.given, strict=True))

    def loaded_as(self) -> Mapping[str, JSON]:
        """What models are loaded as; see `CommandNames`."""
        loading = self._loading
        return {
            "bits": loading.bits,
            "dtype": loading.dtype or "auto",
            "template": loading.template,
            "cache_dtype": loading.cache_dtype,
        }

    def files_of(self, name: str) -> ModelFiles:
        """The files of a model, by what requests call it; see `CommandNames`."""
        aliased = self._aliases[:1] == (name,)
        return names.resolve(self._given[0] if aliased else name, fetch=False)

    def _served(self, name: str) -> ServedName:
        files = self.files_of(name)
        loading = self._loading
        dtype = loading.dtype or files.config["dtype"]
        need = memory.needed(files, context=1, dtype=dtype, bits=loading.bits)
        paths = {location.path for location in files.tensors.values()}
        created = int(max((path.stat().st_mtime for path in paths), default=0))
        first = name in self.given[:1]
        return ServedName(
            name=name,
            aliases=self._aliases[1:] if first else (),
            tags=self._tags if first else (),
            bytes=need.weights,
            created=created,
            facts=facts_of(files),
        )

    def _draft(self, files: ModelFiles, tokenizer: Tokenizer) -> Drafting:
        name = self._loading.draft
        if name in ("auto", "lookup", "off"):
            return cast("Drafting", name)
        check_tried(files)
        guessing = names.resolve(name, fetch=False)
        check_draft(guessing, wiring.tokenizer_of(guessing), files, tokenizer)
        used = wiring.quantized(guessing, self._loading.bits)
        return wiring.load_files(used, device=self._loading.device, dtype=self._loading.dtype)
