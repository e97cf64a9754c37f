"""Dynamic RoPE past the length a model was trained on: rows that are run anew with each position.

Dynamic scaling turns *every* position by a base that depends on the length of the whole row. Past the
original length, keys computed earlier, and all that later layers made of them, are therefore wrong. The only
exact continuation is to run the whole row again, from its input embeddings, which this cache keeps.

Under LongRoPE this happens once: past the original length every position has other angles, and keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lolama_core.model.cache_slots import Slots
from lolama_core.model.config import LlamaConfig
from lolama_core.model.kv_cache import KVCache, write_rows
from lolama_core.model.rope_scaling import dynamic_beyond
from lolama_core.protocols import CacheSlots
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.inference import ordinary

RunBlocks: TypeAlias = Callable[[Tensor, CacheSlots, KVCache | None], Tensor]
"""(B, T, D), its places and the cache → (B, T, D) behind all blocks."""


def new_cache(
    config: LlamaConfig, batch_size: int, capacity: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    """An empty cache of a model, of the kind that its rotary scaling asks for.

    Raises:
        UsageError: for more positions than the model can attend over.
    """
    if not 1 <= capacity <= config.max_seq_len:
        raise UsageError(
            "KV cache",
            f"{capacity} positions asked of a model that attends over {config.max_seq_len}",
            "shorten the text",
        )
    sizes: dict[str, Any] = {
        "num_layers": config.num_layers,
        "batch_size": batch_size,
        "num_kv_heads": config.num_kv_heads,
        "capacity": capacity,
        "head_dim": config.head_dim,
        "dtype": dtype,
        "device": device,
    }
    limit = dynamic_beyond(config.rope_scaling)
    if limit is not None:
        scaling = config.rope_scaling
        settles = scaling is not None and scaling.type == "longrope"
        return DynamicCache(limit=limit, settles=settles, width=config.d_model, **sizes)
    return KVCache(**sizes)


class DynamicCache(KVCache):
    """A `KVCache` that also keeps input embeddings.

    Args:
        limit: Length up to which keys and values stay right.
        settles: Whether those of longer rows stay right, too, once they are computed anew.
        width: D, of the input embeddings.
        **sizes: As for `KVCache`.
    """

    def __init__(self, *, limit: int, width: int, settles: bool = False, **sizes: Any) -> None:
        super().__init__(**sizes)
        self._limit, self._settles = limit, settles
        shape = (self.batch_size, self.capacity, width)
        wide = torch.promote_types(self.dtype, torch.float32)
        self._inputs = ordinary(lambda: torch.zeros(shape, dtype=wide, device=self.device))
        # How many leading positions of each row have keys and values.
        self._written: tuple[int, ...] = self.lengths
        # Whether they are those of a row past the limit.
        self._long = (False,) * self.batch_size

    @property
    def changed_by(self) -> str:
        """See `KVCache.changed_by`."""
        return "LongRoPE" if self._settles else "dynamic RoPE"

    def run(self, blocks: RunBlocks, embeds: Tensor, slots: CacheSlots) -> Tensor:
        """(B, T, D) new embeddings → (B, T, D) behind all blocks, whatever the row's length.

        Raises:
            ModelError: for positions that see each other in both directions, which it does not remember.
        """
        if slots.spans:
            reason = f"has {self.changed_by}, so positions of a picture cannot see each other"
            raise ModelError("model", reason, "leave the picture out")
        history = self.remember_inputs(embeds, slots)  # (B, max(totals), D)
        long = tuple(total > self._limit for total in slots.totals)
        if self.is_written_before(slots) and self._are_right(slots, long):
            self._long = long
            return blocks(embeds, slots, self)
        batch, cache = embeds.shape[0], self if self._settles else None
        whole = Slots((0,) * batch, slots.totals, history.shape[1], history.device)
        hidden = blocks(history.to(embeds.dtype), whole, cache)
        self._long = long if self._settles else self._long
        # Row b's new positions end at its total; padding repeats the last one.
        columns = slots.positions.clamp(max=history.shape[1] - 1)
        return hidden[torch.arange(batch, device=hidden.device)[:, None], columns]

    def _are_right(self, slots: CacheSlots, long: tuple[bool, ...]) -> bool:
        """Whether keys and values before ``slots`` are those of rows as long as these become."""
        if not self._settles:
            return not any(long)
        rows = zip(slots.starts, self._long, long, strict=True)
        return all(not start or was == now for start, was, now in rows)

    def remember_inputs(self, embeds: Tensor, slots: CacheSlots) -> Tensor:
        """Keep (B, T, D) input embeddings; return those of all valid positions (B, max(totals), D)."""
        assert isinstance(slots, Slots)
        stored = self._inputs[:, None]  # (B, 1, capacity, D): one head as wide as the model
        return write_rows(stored, embeds[:, None], slots)[:, 0]

    def is_written_before(self, slots: CacheSlots) -> bool:
        """Whether every position before ``slots`` has keys and values, or only remembered inputs."""
        pairs = zip(self._written, slots.starts, strict=True)
        return all(have >= start for have, start in pairs)

    def reserve(self, counts: Sequence[int], width: int) -> Slots:
        """See `KVCache.reserve`."""
        slots = super().reserve(counts, width)
        self._keep_written(slots.starts)
        return slots

    def update(
        self, layer: int, keys: Tensor, values: Tensor, slots: CacheSlots
    ) -> tuple[Tensor, Tensor]:
        """See `KVCache.update`."""
        self._written = slots.totals
        return super().update(layer, keys, values, slots)

    def write_in_place(self, slots: CacheSlots) -> tuple[list[Tensor], list[Tensor]]:
        """See `KVCache.write_in_place`."""
        self._written = slots.totals
        return super().write_in_place(slots)

    def truncate(self, lengths: Sequence[int]) -> None:
        """See `KVCache.truncate`."""
        super().truncate(lengths)
        self._keep_written(lengths)

    def _keep_written(self, lengths: Sequence[int]) -> None:
        self._written = tuple(map(min, self._written, lengths))
