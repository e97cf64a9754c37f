"""What descendants of LLaMA do otherwise. All of it is off in a LLaMA, and its reader may skip this page."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Switches:
    """The fields of `LlamaConfig` that LLaMA does not have. Each default means "as LLaMA does it".

    Args:
        qk_norm: RMSNorm on queries and keys, ahead of their rotation: over each ``"head"`` (Qwen3), or over
            the ``"width"`` of all heads (OLMo 2). None: there is none.
        sliding_layers: The layers that have the ``sliding_window``; the others see all positions before.
            None: all layers have it.
    """

    qk_norm: Literal["head", "width"] | None = None
    sliding_layers: tuple[int, ...] | None = None

    def switches_off(self) -> set[str]:
        """Names of the switches that are off. A checkpoint does without them, so older versions read it."""
        return {
            switch.name
            for switch in fields(Switches)
            if getattr(self, switch.name) == switch.default
        }
