"""The shapes of a picture encoder and of a model around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from lolama_core.protocols.checks import (
    check_boolean,
    check_integer,
    check_number,
    from_mapping,
    is_integer,
    refused,
)
from lolama_core.protocols.types import JSON
from lolama_vision.picture_marks import checked_ids
from lolama_vision.preprocessing import Preprocessing

_PACKAGE = "lolama-vision"

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
ProjectorKind = Literal["mlp", "pixel_shuffle", "average_pool"]

# Far above any published model, far below what would hang or exhaust a machine before it is refused.
_LIMITS = {
    "image_size": 1 << 12,
    "patch_size": 1 << 10,
    "width": 1 << 15,
    "num_layers": 1 << 9,
    "num_heads": 1 << 10,
    "mlp_dim": 1 << 18,
    "image_token_id": 1 << 22,
}
_MOST_TILES = 64
_SWITCHES = (
    *("class_token", "keep_class_token", "patch_bias", "pre_norm", "post_norm"),
    "bucket_positions",
)


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Sizes and switches of CLIP's or SigLIP's vision transformer; by default ViT-L/14 at 336 pixels.

    Args:
        image_size: Side S of its square input, in pixels.
        patch_size: Side of a patch, in pixels; divides ``image_size``.
        width: Dv, of the residual stream.
        num_layers: As published. Those behind the last feature layer are neither kept nor run.
        num_heads: Attention heads; divides ``width``.
        mlp_dim: Inner width of the feed-forward network.
        activation: ``quick_gelu``, x·σ(1.702 x), is OpenAI's; ``gelu`` is the exact one; ``gelu_tanh``, by a
            tanh, is SigLIP's.
        eps: Added to the variance inside LayerNorm.
        feature_layer: Whose output is used: 0 is the embeddings, k the k-th layer, negative from the end.
            Outputs of several layers stand side by side.
        class_token: Whether a class token stands before the patches; SigLIP has none.
        keep_class_token: Whether it is among the features.
        patch_bias: A bias in the patch embedding; CLIP has none.
        pre_norm: A norm in front of the layers; SigLIP has none.
        post_norm: A norm over the features.
        bucket_positions: Find the position of a patch by where it begins, as a fraction of the side, in
            float32, as Idefics3 does. In most grids it is the patch's own.
        downscale: Side of the squares of features that the projector makes one position of.
        preprocessing: What is done to pictures first.

    Raises:
        ModelError: naming the field, its value and what was expected.
    """

    image_size: int = 336
    patch_size: int = 14
    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_dim: int = 4096
    activation: Activation = "quick_gelu"
    eps: float = 1e-5
    feature_layer: int | Sequence[int] = -2
    class_token: bool = True
    keep_class_token: bool = False
    patch_bias: bool = False
    pre_norm: bool = True
    post_norm: bool = False
    bucket_positions: bool = False
    downscale: int = 1
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "width", "num_layers", "num_heads", "mlp_dim"):
            check_integer(name, getattr(self, name), _LIMITS[name])
        if self.patch_size > self.image_size:
            raise refused("patch_size", self.patch_size, f"at most image_size ({self.image_size})")
        if self.width % self.num_heads:
            raise refused("num_heads", self.num_heads, f"a divisor of width ({self.width})")
        if self.activation not in get_args(Activation):
            raise refused("activation", self.activation, "quick_gelu, gelu or gelu_tanh")
        check_number("eps", self.eps, 0.0, 1.0)
        self._check_feature_layer()
        for name in _SWITCHES:
            check_boolean(name, getattr(self, name))
        if self.keep_class_token and not self.class_token:
            raise refused("keep_class_token", True, "false, since there is no class token")
        if isinstance(self.preprocessing, Mapping):
            block = from_mapping(Preprocessing, self.preprocessing, "preprocessing", _PACKAGE)
            object.__setattr__(self, "preprocessing", block)
        if not isinstance(self.preprocessing, Preprocessing):
            raise refused("preprocessing", self.preprocessing, "an object")
        self._check_tiles()
        self._check_split()
        check_integer("downscale", self.downscale, self.grid)
        if self.grid % self.downscale:
            raise refused("downscale", self.downscale, f"a divisor of {self.grid} patches a side")
        if self.keep_class_token and self.downscale > 1:
            raise refused("downscale", self.downscale, "1, since keep_class_token is true")

    def _check_feature_layer(self) -> None:
        layers, chosen = self.num_layers, self.feature_layer
        if isinstance(chosen, list | tuple):
            chosen = tuple(chosen)
            object.__setattr__(self, "feature_layer", chosen)
        several = chosen if isinstance(chosen, tuple) else (chosen,)
        if not 1 <= len(several) <= layers + 1:
            raise refused("feature_layer", chosen, f"1 to {layers + 1} layers")
        if not all(is_integer(layer, -layers - 1, layers) for layer in several):
            raise refused("feature_layer", chosen, f"from {-layers - 1} to {layers}")
        if self.post_norm is True and len(several) > 1:
            raise refused("feature_layer", chosen, "one layer, since post_norm is true")

    def _check_tiles(self) -> None:
        for height, width in self.preprocessing.pinpoints:
            if height % self.image_size or width % self.image_size:
                expected = f"multiples of image_size ({self.image_size})"
                raise refused("pinpoints", [height, width], expected)
            if height * width > _MOST_TILES * self.image_size**2:
                raise refused("pinpoints", [height, width], f"at most {_MOST_TILES} tiles")

    def _check_split(self) -> None:
        longest, marks = self.preprocessing.longest_edge, self.preprocessing.marks
        if marks is None:
            return
        side = self.preprocessing.most_tiles_a_side(self.image_size)
        if side**2 > _MOST_TILES:
            raise refused("longest_edge", longest, f"what {_MOST_TILES} tiles hold")
        if not marks.has(side):
            expected = f"{side} rows of marks for {side} tiles"
            raise refused("marks tiles", marks.tiles, expected)

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """The layers whose outputs are the features, each counted from the embeddings, which are 0."""
        chosen = self.feature_layer
        several = (chosen,) if isinstance(chosen, int) else chosen
        return tuple(k + self.num_layers + 1 if k < 0 else k for k in several)

    @property
    def layers_used(self) -> int:
        """How many layers it takes to get the features."""
        return max(self.feature_layers)

    @property
    def feature_width(self) -> int:
        """Df, of a feature: the width of each layer that it is made of."""
        return self.width * len(self.feature_layers)

    @property
    def grid(self) -> int:
        """Patches along each side."""
        return self.image_size // self.patch_size

    @property
    def features_per_tile(self) -> int:
        """P, features of one encoded square: a patch each, and the class token if it is kept."""
        return self.grid**2 + int(self.keep_class_token)

    @property
    def tokens_per_tile(self) -> int:
        """Positions that one encoded square takes in a prompt."""
        return self.features_per_tile // self.downscale**2


@dataclass(frozen=True, kw_only=True)
class VLMConfig:
    """A language model that is shown pictures: the ``model`` block of family ``llava``.

    Args:
        vision_config: The encoder.
        text_config: The ``model`` block of the language model, and ``family`` if that is another than
            ``llama``.
        image_token_id: The id that stands for a picture in a prompt.
        projector: ``mlp``: two linears. ``pixel_shuffle``: features of a square of patches side by side, and
            one linear without a bias. ``average_pool``: their average, an RMSNorm, and one linear without a
            bias (Gemma 3).
        projector_bias: Biases in the projector ``mlp``.
        projector_norm_eps: Added to the variance inside the projector's norm, which ``average_pool`` has,
            and ``mlp`` in VipLLaVA; None for no norm.
        bidirectional_pictures: The positions of a picture see each other, also those behind them (Gemma 3).
        feature_scale: What embeddings of pictures are multiplied with, as the language model multiplies those
            of tokens (Granite); None for nothing.
        picture_ids: The ids that stand for a picture where no chat template writes them: ``image_token_id``
            once, and those around it; empty for that alone.

    Raises:
        ModelError: naming the field, its value and what was expected.
    """

    vision_config: VisionConfig
    text_config: Mapping[str, JSON]
    image_token_id: int
    projector: ProjectorKind = "mlp"
    projector_bias: bool = True
    projector_norm_eps: float | None = None
    bidirectional_pictures: bool = False
    feature_scale: float | None = None
    picture_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.vision_config, Mapping):
            block = from_mapping(VisionConfig, self.vision_config, "vision_config", _PACKAGE)
            object.__setattr__(self, "vision_config", block)
        if not isinstance(self.vision_config, VisionConfig):
            raise refused("vision_config", self.vision_config, "an object")
        if not isinstance(self.text_config, Mapping):
            raise refused("text_config", self.text_config, "an object")
        check_integer("text_config d_model", self.text_config.get("d_model"), 1 << 17)
        check_integer("image_token_id", self.image_token_id, _LIMITS["image_token_id"], low=0)
        if self.projector not in get_args(ProjectorKind):
            raise refused("projector", self.projector, "mlp, pixel_shuffle or average_pool")
        if self.projector == "mlp" and self.vision_config.downscale > 1:
            expected = "pixel_shuffle or average_pool, since downscale is more than 1"
            raise refused("projector", self.projector, expected)
        for name in ("projector_bias", "bidirectional_pictures"):
            check_boolean(name, getattr(self, name))
        if self.projector_norm_eps is not None or self.projector == "average_pool":
            check_number("projector_norm_eps", self.projector_norm_eps, 0.0, 1.0)
        if self.feature_scale is not None:
            check_number("feature_scale", self.feature_scale, 1e-6, 1e6)
        ids = checked_ids("picture_ids", self.picture_ids)
        if ids and ids.count(self.image_token_id) != 1:
            raise refused("picture_ids", list(ids), f"{self.image_token_id} once among them")
        object.__setattr__(self, "picture_ids", ids)

    @property
    def text_width(self) -> int:
        """D, of the language model's residual stream."""
        width = self.text_config["d_model"]
        assert isinstance(width, int)
        return width

    @classmethod
    def from_json(cls, values: Mapping[str, JSON]) -> VLMConfig:
        """Read the ``model`` block of a canonical configuration.

        Raises:
            ModelError: for a missing or unknown field, or a value that makes no sense.
        """
        return from_mapping(cls, values, "model", _PACKAGE)

    def to_json(self) -> dict[str, JSON]:
        """The ``model`` block that `from_json` reads."""
        return asdict(self)
