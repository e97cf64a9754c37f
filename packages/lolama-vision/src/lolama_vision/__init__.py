"""Pictures for lolama: CLIP and SigLIP, image processing, LLaVA, and the built-in model `demo-vision`.

    from lolama_vision import CLIPImageProcessor, read_picture

    processor = CLIPImageProcessor.from_config(model.config.vision_config)
    inputs = processor.preprocess(read_picture(Path("photo.jpg")).image)

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from lolama_core.protocols.lazy_names import lazy_names
from lolama_vision.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from lolama_vision.clip import CLIPVisionEncoder as CLIPVisionEncoder
    from lolama_vision.config import VisionConfig as VisionConfig
    from lolama_vision.config import VLMConfig as VLMConfig
    from lolama_vision.family import LlavaFamily as LlavaFamily
    from lolama_vision.image_file import Picture as Picture
    from lolama_vision.image_file import read_picture as read_picture
    from lolama_vision.image_processor import CLIPImageProcessor as CLIPImageProcessor
    from lolama_vision.llava import LLaVA as LLaVA
    from lolama_vision.merge import place_pictures as place_pictures
    from lolama_vision.preprocessing import Preprocessing as Preprocessing
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".clip": ["CLIPVisionEncoder"],
            ".config": ["VLMConfig", "VisionConfig"],
            ".family": ["LlavaFamily"],
            ".image_file": ["Picture", "read_picture"],
            ".image_processor": ["CLIPImageProcessor"],
            ".llava": ["LLaVA"],
            ".merge": ["place_pictures"],
            ".preprocessing": ["Preprocessing"],
        },
    )
