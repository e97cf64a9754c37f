"""Pictures for lolama: the model family ``llava``.

This version registers the family and builds nothing yet; see `LlavaFamily`.
"""

from lolama_vision.__about__ import __version__
from lolama_vision.family import LlavaFamily

__all__ = ["LlavaFamily", "__version__"]
