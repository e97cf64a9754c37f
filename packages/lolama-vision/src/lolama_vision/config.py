"""The shapes of a picture encoder and of a model around it."""

from __future__ import annotations

from collections.abc import Mapping
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

_PACKAGE = "lolama-vision"

ImageMode = Literal["crop", "pad", "tiles"]
Activation = Literal["quick_gelu", "gelu"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Far above any published model, far below what would hang or exhaust a machine before it is refused.
_LIMITS = {
    "image_size": 1 << 12,
    "patch_size": 1 << 10,
    "width": 1 << 15,
    "num_layers": 1 << 9,
    "num_heads": 1 << 10,
    "mlp_dim": 1 << 18,
    "image_token_id": 1 << 22,
    "shortest_edge": 1 << 12,
}
_MOST_TILES = 64
_MOST_PINPOINTS = 256


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to a picture before it is encoded; the defaults are those of LLaVA-1.5.

    Args:
        mode: ``crop``: the shorter side becomes ``shortest_edge``, then the middle is cut out (Hugging
            Face). ``pad``: made square with the mean color first, so nothing is cut away (the original
            LLaVA). ``tiles``: the whole picture, then pieces of it at a higher resolution (LLaVA-NeXT).
        shortest_edge: Pixels. None: the size of the encoder's input.
        stretch: Resize both sides to ``shortest_edge``, whatever the proportions.
        mean, std: Mean and deviation of each channel, on a scale from 0 to 1.
        rescale_factor: The factor from stored values to that scale.
        resample: Pillow's number of the filter; 3 is bicubic.
        pinpoints: ``tiles``: (height, width) of the resolutions to choose from, in pixels.
    """

    mode: ImageMode = "crop"
    shortest_edge: int | None = None
    stretch: bool = False
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    rescale_factor: float = 1 / 255
    resample: int = 3
    pinpoints: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in get_args(ImageMode):
            raise refused("mode", self.mode, "crop, pad or tiles")
        if self.shortest_edge is not None:
            check_integer("shortest_edge", self.shortest_edge, _LIMITS["shortest_edge"])
        check_boolean("stretch", self.stretch)
        for name, low in (("mean", -1e3), ("std", 1e-6)):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or len(values) != 3:
                raise refused(name, values, "a number for each of three channels")
            checked = tuple(check_number(name, value, low, 1e3) for value in values)
            object.__setattr__(self, name, checked)
        check_number("rescale_factor", self.rescale_factor, 1e-9, 1e3)
        if not is_integer(self.resample, 0, 5):
            raise refused("resample", self.resample, "a filter from 0 to 5")
        object.__setattr__(self, "pinpoints", self._checked_pinpoints())
        if (self.mode == "tiles") != bool(self.pinpoints):
            raise refused(
                "pinpoints", list(self.pinpoints), "resolutions if mode is tiles, else none"
            )

    def _checked_pinpoints(self) -> tuple[tuple[int, int], ...]:
        expected = f"at most {_MOST_PINPOINTS} pairs of height and width"
        if not isinstance(self.pinpoints, list | tuple) or len(self.pinpoints) > _MOST_PINPOINTS:
            raise refused("pinpoints", self.pinpoints, expected)
        for pair in self.pinpoints:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise refused("pinpoints", self.pinpoints, expected)
            for side in pair:
                check_integer("pinpoints", side, 1 << 14)
        return tuple((height, width) for height, width in self.pinpoints)


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Sizes of a CLIP vision transformer; the defaults are those of ViT-L/14 at 336 pixels.

    Args:
        image_size: Side S of its square input, in pixels.
        patch_size: Side of a patch, in pixels; divides ``image_size``.
        width: Dv, of the residual stream.
        num_layers: As published. Those behind ``feature_layer`` are neither kept nor run.
        num_heads: Attention heads; divides ``width``.
        mlp_dim: Inner width of the feed-forward network.
        activation: ``quick_gelu``, x·σ(1.702 x), is OpenAI's; ``gelu`` is the exact one.
        eps: Added to the variance inside LayerNorm.
        feature_layer: Whose output is used: 0 is the embeddings, k the k-th layer, negative from the end.
        keep_class_token: Whether the class token is among the features.
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
    feature_layer: int = -2
    keep_class_token: bool = False
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "width", "num_layers", "num_heads", "mlp_dim"):
            check_integer(name, getattr(self, name), _LIMITS[name])
        if self.patch_size > self.image_size:
            raise refused("patch_size", self.patch_size, f"at most image_size ({self.image_size})")
        if self.width % self.num_heads:
            raise refused("num_heads", self.num_heads, f"a divisor of width ({self.width})")
        if self.activation not in get_args(Activation):
            raise refused("activation", self.activation, "quick_gelu or gelu")
        check_number("eps", self.eps, 0.0, 1.0)
        layers = self.num_layers
        if not is_integer(self.feature_layer, -layers - 1, layers):
            raise refused("feature_layer", self.feature_layer, f"from {-layers - 1} to {layers}")
        check_boolean("keep_class_token", self.keep_class_token)
        if isinstance(self.preprocessing, Mapping):
            block = from_mapping(Preprocessing, self.preprocessing, "preprocessing", _PACKAGE)
            object.__setattr__(self, "preprocessing", block)
        if not isinstance(self.preprocessing, Preprocessing):
            raise refused("preprocessing", self.preprocessing, "an object")
        self._check_tiles()

    def _check_tiles(self) -> None:
        for height, width in self.preprocessing.pinpoints:
            if height % self.image_size or width % self.image_size:
                expected = f"multiples of image_size ({self.image_size})"
                raise refused("pinpoints", [height, width], expected)
            if height * width > _MOST_TILES * self.image_size**2:
                raise refused("pinpoints", [height, width], f"at most {_MOST_TILES} tiles")

    @property
    def layers_used(self) -> int:
        """How many layers it takes to get the features."""
        negative = self.feature_layer < 0
        return self.feature_layer + (self.num_layers + 1 if negative else 0)

    @property
    def grid(self) -> int:
        """Patches along each side."""
        return self.image_size // self.patch_size

    @property
    def features_per_tile(self) -> int:
        """P, features of one encoded square: a patch each, and the class token if it is kept."""
        return self.grid**2 + int(self.keep_class_token)


@dataclass(frozen=True, kw_only=True)
class VLMConfig:
    """A language model that is shown pictures: the ``model`` block of family ``llava``.

    Args:
        vision_config: The encoder.
        text_config: The ``model`` block of the language model, and ``family`` if that is another than
            ``llama``.
        image_token_id: The id that stands for a picture in a prompt.
        projector_bias: Biases in the projector.

    Raises:
        ModelError: naming the field, its value and what was expected.
    """

    vision_config: VisionConfig
    text_config: Mapping[str, JSON]
    image_token_id: int
    projector_bias: bool = True

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
        check_boolean("projector_bias", self.projector_bias)

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
