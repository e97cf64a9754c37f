"""LLaVA (Liu et al. 2023): a language model that is shown pictures.

Legend: B batch, T positions, D model width; N tiles, S pixels a side, P features a tile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lolama_core.protocols import CausalLM, KVCache
from lolama_core.protocols.causal_module import CausalLMModule
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.look import Look
from lolama_core.protocols.types import GenerationDefaults, Prompt, Spans
from lolama_vision.clip import CLIPVisionEncoder
from lolama_vision.config import VLMConfig
from lolama_vision.feature_cache import FeatureCache
from lolama_vision.merge import merge, place_pictures
from lolama_vision.picture_inputs import split_pictures
from lolama_vision.projector import make_projector
from lolama_vision.split import split_grid
from lolama_vision.tensor_bytes import bytes_of, sum_of
from lolama_vision.tiles import arrange, count_tokens

_TILES_AT_ONCE = 16
"""Squares that are encoded together. A picture may be 37 of them, whose activations would take a gigabyte."""

_INPUTS = ("pixel_values", "tiles_per_image", "image_sizes", "tokens_per_image")


class LLaVA(CausalLMModule):
    """A `CausalLM` around any `CausalLM`: encoder, projector, and the merge into its embeddings.

    Device and dtype are the language model's. On a GPU the encoder is there only while it encodes; what it
    made is kept by the picture's content, so that a chat encodes each picture once.

    Args:
        config: The encoder, and how it meets the language model.
        language_model: Reads the merged embeddings.
    """

    def __init__(self, config: VLMConfig, language_model: CausalLMModule) -> None:
        super().__init__()
        self._vlm_config = config
        # First, so that it is what `next(model.parameters())` belongs to.
        self.language_model = language_model
        self.projector = make_projector(config)
        self.vision_tower = CLIPVisionEncoder(config.vision_config)
        self.features = FeatureCache()
        # Empty before the first picture. A None that goes would be another model to a `Look`.
        self._encoder_was: tuple[()] | tuple[Look, list[int]] = ()
        self.generation_defaults = GenerationDefaults()

    @property
    def config(self) -> VLMConfig:
        """The encoder, and how it meets the language model."""
        return self._vlm_config

    @property
    def text(self) -> CausalLM:
        """The language model, by its protocol."""
        return self.language_model

    def text_model(self) -> CausalLM | None:
        """The language model, unless a subclass does more in `forward_embeds`; see `HasTextModel`."""
        written = type(self).forward_embeds is LLaVA.forward_embeds
        return self.text if written and "forward_embeds" not in vars(self) else None

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks of the language model."""
        return self.language_model.layers

    @property
    def max_seq_len(self) -> int:
        """Positions the model can attend over; a picture takes as many as it has features."""
        return self.text.max_seq_len

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: each token id is below it."""
        return self.text.vocab_size

    @property
    def device(self) -> torch.device:
        """Where inputs must be: where the language model is."""
        return self.text.device

    @property
    def dtype(self) -> torch.dtype:
        """How the language model's weights are stored."""
        return self.text.dtype

    def make_cache(self, batch_size: int, capacity: int) -> KVCache:
        """An empty cache of the language model."""
        return self.text.make_cache(batch_size, capacity)

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) token ids → (B, T, D), without any picture."""
        return self.text.embed(input_ids)

    def forward_embeds(
        self,
        embeds: Tensor,
        cache: KVCache | None = None,
        lengths: Sequence[int] | None = None,
        logits: Literal["last", "all"] = "last",
        spans: Spans = (),
    ) -> Tensor:
        """(B, T, D) → logits of the language model, float32."""
        more = {"spans": spans} if spans else {}
        return self.text.forward_embeds(embeds, cache, lengths, logits, **more)

    def forward(
        self, input_ids: Tensor, lengths: Sequence[int] | None = None, **inputs: Any
    ) -> Tensor:
        """(B, T) token ids and pictures → logits (B, T', V) of all positions, pictures merged in."""
        whole = (input_ids.shape[1],) * len(input_ids)
        prompt = self.embed_prompt(input_ids, lengths or whole, **inputs)
        return self.forward_embeds(
            prompt.embeds, None, prompt.lengths, logits="all", spans=prompt.spans
        )

    def embed_prompt(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        *,
        pixel_values: Tensor | None = None,
        tiles_per_image: Sequence[int] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        tokens_per_image: Sequence[int] | None = None,
        **others: Any,
    ) -> Prompt:
        """Ids and pictures → one sequence of embeddings a row.

        Args:
            input_ids: (B, T), right-padded.
            lengths: Ids in use of each row.
            pixel_values: (N, 3, S, S), all tiles of all pictures, in the order of their ``<image>``.
            tiles_per_image: The tiles of each picture; by default what ``image_sizes`` says, else 1.
            image_sizes: (height, width) of each picture; needed by a model that takes tiles.
            tokens_per_image: Checked, if given.

        Raises:
            UsageError: if pictures and image tokens, or the inputs among themselves, do not go together.
        """
        if others:
            raise UsageError(
                next(iter(others)),
                "is neither a generation setting nor an input of a vision model",
                f"its inputs are {', '.join(_INPUTS)}",
            )
        config = self.config.vision_config
        pictures, sizes = split_pictures(config, pixel_values, tiles_per_image, image_sizes)
        counts = [
            count_tokens(size, config, len(tiles))
            for tiles, size in zip(pictures, sizes, strict=True)
        ]
        if tokens_per_image is not None and list(tokens_per_image) != counts:
            reason = f"is {list(tokens_per_image)!s:.60}; these pictures take {counts!s:.60}"
            raise UsageError("tokens_per_image", reason, "use this model's image processor")
        ids = [row[:length] for row, length in zip(input_ids.tolist(), lengths, strict=True)]
        # A prompt as transformers' processors write it has the ids around tiles already.
        by_tile = [config.tokens_per_tile] * sum(map(len, pictures))
        images = sum(row.count(self.config.image_token_id) for row in ids)
        marked = config.preprocessing.marks is not None
        tile_by_tile = marked and len(pictures) < images == sum(by_tile)
        if tile_by_tile:
            counts = by_tile
        rows = place_pictures(ids, counts, self.config.image_token_id)
        embeds = self.text.embed(input_ids)  # (B, T, D)
        if not pictures:
            return Prompt(embeds, tuple(lengths), tuple(map(tuple, ids)))
        hashes = [_digest(tiles, size) for tiles, size in zip(pictures, sizes, strict=True)]
        features = self._features_of(pictures, sizes, hashes)
        if tile_by_tile:
            hashes = [
                b"%d %b" % (tile, digest)
                for digest, tiles in zip(hashes, pictures, strict=True)
                for tile in range(len(tiles))
            ]
            features = [tile for picture in features for tile in picture]
        elif marked:
            features = [self._marked(f, size) for f, size in zip(features, sizes, strict=True)]
        bidirectional = self.config.bidirectional_pictures
        return merge(embeds, ids, rows, features, hashes, bidirectional=bidirectional)

    def _marked(self, tiles: Tensor, size: tuple[int, int]) -> Tensor:
        """(tiles, P, D) → (tokens, D): between the embeddings of the ids that stand around tiles."""
        config = self.config.vision_config
        assert config.preprocessing.marks is not None
        pieces = config.preprocessing.marks.between(*split_grid(size, config))
        ids = torch.tensor([[one for piece in pieces for one in piece]], device=self.device)
        marks = torch.split(self.text.embed(ids)[0], [len(piece) for piece in pieces])
        parts = [
            part for pair in zip(marks, tiles.to(marks[0].dtype), strict=False) for part in pair
        ]
        return torch.cat([*parts, marks[-1]])

    def _features_of(
        self,
        pictures: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        hashes: Sequence[bytes],
    ) -> list[Tensor]:
        """(tokens, D) of each picture, those that were seen before from the cache."""
        # Training needs gradients of the weights as they are now.
        if torch.is_grad_enabled():
            return self._encode(pictures, sizes)
        self._forget_if_changed()
        known = {digest: self.features.get(digest) for digest in hashes}
        fresh = [n for n, digest in enumerate(hashes) if known[digest] is None]
        fresh = [n for n in fresh if hashes.index(hashes[n]) == n]  # the same one twice
        if fresh:
            encoded = self._encode([pictures[n] for n in fresh], [sizes[n] for n in fresh])
            if self.device.type != "cpu":  # the encoder has moved there and back
                self._encoder_was = self._encoder_is()
            for n, features in zip(fresh, encoded, strict=True):
                if not bool(torch.isfinite(features).all()):
                    raise ModelError(
                        "image", "its features are not finite", 'use `dtype="float32"` or bfloat16'
                    )
                known[hashes[n]] = features
                self.features.put(hashes[n], features)
        return [cast(Tensor, known[digest]) for digest in hashes]

    def _encode(self, pictures: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        device, config = self.device, self.config.vision_config
        with self._tower_on(device):
            parts = torch.split(torch.cat(list(pictures)), _TILES_AT_ONCE)
            encoded = [self.vision_tower(part.to(device)) for part in parts]
            features = torch.cat(encoded) if len(encoded) > 1 else encoded[0]  # (N, P, Df)
        projected: Tensor = self.projector(features)  # (N, P, D)
        newline: Tensor | None = self.projector.image_newline
        if (scale := self.config.feature_scale) is not None:
            projected, newline = projected * scale, None if newline is None else newline * scale
        if not config.preprocessing.needs_sizes:
            return list(projected)
        tiles = torch.split(projected, [len(picture) for picture in pictures])
        if newline is None:
            return list(tiles)
        return [arrange(t, newline, size, config) for t, size in zip(tiles, sizes, strict=True)]

    @contextmanager
    def _tower_on(self, device: torch.device) -> Iterator[None]:
        """The encoder where it is needed, and out of a GPU's memory afterwards, whatever happens."""
        if device.type == "cpu":
            yield
            return
        try:
            self.vision_tower.to(device)
            yield
        finally:
            self.vision_tower.to("cpu")

    def _forget_if_changed(self) -> None:
        """Drop the features that another encoder made: another by what it is, or by what its weights hold."""
        now = self._encoder_is()
        if now != self._encoder_was:
            self.features.clear()
            self._encoder_was = now

    def _encoder_is(self) -> tuple[Look, list[int]]:
        parts = (self.vision_tower, self.projector)
        # Contents too, since a write through ``weight.data`` is no change to torch. Summing them up takes a
        # hundredth of the time of encoding.
        sums = [sum_of(tensor) for part in parts for tensor in part.state_dict().values()]
        return Look(*parts), sums

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LLaVA:
        # Weights are about to move or to change their dtype.
        self.features.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _digest(tiles: Tensor, size: tuple[int, int]) -> bytes:
    """Identity of a picture as the encoder sees it, preprocessing included."""
    content = hashlib.sha256(repr((tuple(tiles.shape), str(tiles.dtype), size)).encode())
    content.update(bytes_of(tiles))
    return content.digest()
