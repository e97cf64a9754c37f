"""Pictures for lolama: CLIP, image processing, LLaVA, and the built-in model `demo-vision`.

    from lolama_vision import CLIPImageProcessor, read_picture

    processor = CLIPImageProcessor.from_config(model._vlm_config.vision_config)
    inputs = processor.preprocess(read_picture(Path("photo.jpg")).image)

Names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lolama_vision.__about__ import __version__

if TYPE_CHECKING:
    from lolama_vision.clip import CLIPVisionEncoder
    from lolama_vision.config import Preprocessing, VisionConfig, VLMConfig
    from lolama_vision.family import LlavaFamily
    from lolama_vision.image_file import Picture, read_picture
    from lolama_vision.image_processor import CLIPImageProcessor
    from lolama_vision.llava import LLaVA
    from lolama_vision.merge import place_pictures

_HOME = {
    "CLIPImageProcessor": "image_processor",
    "CLIPVisionEncoder": "clip",
    "LLaVA": "llava",
    "LlavaFamily": "family",
    "Picture": "image_file",
    "Preprocessing": "config",
    "VLMConfig": "config",
    "VisionConfig": "config",
    "place_pictures": "merge",
    "read_picture": "image_file",
}

__all__ = [
    "CLIPImageProcessor",
    "CLIPVisionEncoder",
    "LLaVA",
    "LlavaFamily",
    "Picture",
    "Preprocessing",
    "VLMConfig",
    "VisionConfig",
    "__version__",
    "place_pictures",
    "read_picture",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
