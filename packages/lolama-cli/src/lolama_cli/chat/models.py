"""The models that a chat opens by name: in this process, or at a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lolama_cli.chat.partner import ChatPartner
from lolama_cli.draft import DraftChoice
from lolama_cli.model_choice import ModelChoice, tell_unsupported

if TYPE_CHECKING:
    from lolama_core.protocols import CausalLM
    from lolama_core.protocols.tools import ToolDefinition


class ChatModels:
    """Opens the first model of a chat, and those that ``/model`` and saved conversations name.

    Args:
        first: The first model, as the options describe it.
        drafts: What tries tokens ahead, in this process.
        address: The server that has the models; None for models in this process.
        image_mode: ``crop`` or ``pad``, instead of what a model was trained with.
        raw: Have models continue the text, without their chat templates.
        verbose: Tell more while weights are loaded.
        tools: Functions that models may call.
    """

    def __init__(
        self,
        first: ModelChoice,
        drafts: DraftChoice,
        address: str | None,
        *,
        image_mode: str | None,
        raw: bool,
        verbose: bool,
        tools: Sequence[ToolDefinition],
    ) -> None:
        self._first, self._drafts, self._address = first, drafts, address
        self._image_mode, self._raw, self._verbose = image_mode, raw, verbose
        self._tools = tools

    def open(self, name: str) -> ChatPartner:
        """The model of that name. In this process its weights are read later, by `ChatPartner.ready`.

        Raises:
            LolamaError: if it cannot be used, or cannot do what the options ask for.
        """
        if self._address is None:
            return self._open_here(name)
        return self._open_at_server(self._address, name)

    def _open_at_server(self, address: str, name: str) -> ChatPartner:
        from lolama_cli.chat.served_model import ServedChatModel
        from lolama_cli.server_run import ServedChoice

        return ServedChatModel(
            ServedChoice.at(address, name, no_think=self._first.no_think),
            raw=self._raw,
            image_mode=self._image_mode,
            needs_switch=name == self._first.name,
        )

    def _open_here(self, name: str) -> ChatPartner:
        from lolama_cli.chat.model import ChatModel

        chosen = self._first
        if name != chosen.name:
            # What the options said of the first model is no reason to refuse another.
            chosen = replace(chosen, name=name, template=None, needs_switch=False)
        files, tokenizer = chosen.open()
        self._drafts.open(files, tokenizer)

        def weights() -> CausalLM:
            tell_unsupported(files)
            model = chosen.load(files, verbose=self._verbose)
            self._drafts.load(verbose=self._verbose)
            return model

        return ChatModel(
            files,
            tokenizer,
            weights,
            raw=self._raw,
            image_mode=self._image_mode,
            draft=self._drafts.load,
            cache_dtype=chosen.stored,
            tools=self._tools,
        )
