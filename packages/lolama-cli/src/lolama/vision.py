"""Pictures: ``from lolama.vision import CLIPImageProcessor``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import lolama_core
from lolama.files import expanded
from lolama_core.protocols import ImageProcessor
from lolama_core.protocols.arguments import listed
from lolama_core.protocols.checks import kind_of
from lolama_core.protocols.config_errors import naming_file
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.lazy_names import directory
from lolama_core.protocols.types import ImageInputs, ModelFiles

if TYPE_CHECKING:
    from PIL.Image import Image

    from lolama_vision import (
        CLIPImageProcessor,
        CLIPVisionEncoder,
        LLaVA,
        Picture,
        VisionConfig,
        VLMConfig,
        read_picture,
    )

    ImageSource: TypeAlias = str | Path | Image
    """A picture: the path of a file, or what PIL opened."""

_PICTURES = "give paths, or pictures that PIL opened, or leave it out"

__all__ = [
    "CLIPImageProcessor",
    "CLIPVisionEncoder",
    "LLaVA",
    "Picture",
    "VLMConfig",
    "VisionConfig",
    "count_positions",
    "processor_of",
    "read_picture",
]
__dir__ = directory(__name__, __all__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import lolama_vision

    return getattr(lolama_vision, name)


def processor_of(files: ModelFiles, mode: str | None = None) -> ImageProcessor | None:
    """The image processor of a resolved model; None for a text model.

    Args:
        files: From `lolama.names.resolve`.
        mode: ``crop`` or ``pad``, instead of what the model was trained with.

    Raises:
        ModelError: for a configuration that makes no sense.
        UsageError: for a mode that this model does not take.
    """
    with naming_file(files):
        family = lolama_core.installed_family(files.family, files.name)
        processor = family.image_processor(files.config["model"])
    if processor is None or mode is None:
        return processor
    import lolama_vision

    own = cast("CLIPImageProcessor", processor)
    return lolama_vision.CLIPImageProcessor.from_config(own.config, mode=cast("Any", mode))


def image_token_id(files: ModelFiles) -> int:
    """The id that stands for a picture in the prompts of a vision model."""
    token_id = files.config["model"]["image_token_id"]
    assert isinstance(token_id, int)
    return token_id


def picture_ids(files: ModelFiles) -> list[int]:
    """The ids that stand for a picture where no template writes them: `image_token_id`, and any around it."""
    ids = files.config["model"].get("picture_ids")
    return (
        cast("list[int]", list(ids))
        if isinstance(ids, list | tuple) and ids
        else [image_token_id(files)]
    )


def count_positions(files: ModelFiles, ids: Sequence[int], inputs: ImageInputs) -> int:
    """How many positions a prompt takes once its pictures are merged in; no weight is read for it.

    Raises:
        UsageError: if image tokens and pictures do not go together, with both numbers.
    """
    import lolama_vision

    tokens, image_id = inputs["tokens_per_image"], image_token_id(files)
    if image_id not in ids and len(tokens):
        count = f"{len(tokens)} picture{'' if len(tokens) == 1 else 's'}"
        reason = f"the model's chat template writes 0 <image> for {count}"
        raise UsageError("images", reason, "use `generate`")
    lolama_vision.place_pictures([ids], tokens, image_id)
    return len(ids) - list(ids).count(image_id) + sum(tokens)


def open_pictures(images: ImageSource | Sequence[ImageSource]) -> list[Image]:
    """The pixels of pictures, those of files read as strictly as `read_picture` does.

    Raises:
        UsageError: for what is neither a path nor a picture.
        ModelError: naming the file that cannot be used.
    """
    if isinstance(images, list | tuple) and not images:
        return []
    from PIL.Image import Image

    import lolama_vision

    opened = []
    single = isinstance(images, str | Path | Image)
    for one in [images] if single else listed("images", images, _PICTURES):
        if isinstance(one, Image):
            opened.append(one)
        elif isinstance(one, str | Path):
            picture = lolama_vision.read_picture(expanded(one), str(one))
            if picture.notice:
                warnings.warn(picture.notice, stacklevel=4)
            opened.append(picture.image)
        else:
            reason = f"holds {kind_of(one)}"
            raise UsageError("images", reason, _PICTURES)
    return opened
