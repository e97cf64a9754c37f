"""How each architecture is published: one table a file, found here by config.json's ``model_type``."""

from lolama_hub.folder.layouts.layout import TextLayout, tensor_names
from lolama_hub.folder.layouts.llama import LLAMA
from lolama_hub.folder.layouts.mistral import MISTRAL
from lolama_hub.folder.layouts.qwen2 import QWEN2
from lolama_hub.folder.layouts.qwen3 import QWEN3

LAYOUTS = {layout.model_type: layout for layout in (LLAMA, MISTRAL, QWEN2, QWEN3)}

__all__ = ["LAYOUTS", "TextLayout", "tensor_names"]
