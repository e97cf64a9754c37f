"""Published models for lolama: aliases, Hugging Face folders, and what their tensors are called here.

>>> from lolama_hub import HuggingFaceSource
>>> [model.alias for model in HuggingFaceSource().list()][:2]
['tinyllama', 'open_llama_3b']
"""

from typing import TYPE_CHECKING

from lolama_core.protocols import moved_modules
from lolama_core.protocols.lazy_names import lazy_names
from lolama_hub.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from lolama_hub.gguf.export import OUTTYPES as OUTTYPES
    from lolama_hub.gguf.export import as_gguf as as_gguf
    from lolama_hub.registry import MODELS as MODELS
    from lolama_hub.source import HuggingFaceSource as HuggingFaceSource
    from lolama_hub.store.digests import file_digest as file_digest
    from lolama_hub.store.digests import file_identity as file_identity
    from lolama_hub.store.locks import locked as locked
    from lolama_hub.store.locks import try_lock as try_lock
    from lolama_hub.store.place import Store as Store
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".store.digests": ["file_digest", "file_identity"],
            ".gguf.export": ["OUTTYPES", "as_gguf"],
            ".registry": ["MODELS"],
            ".source": ["HuggingFaceSource"],
            ".store.locks": ["locked", "try_lock"],
            ".store.place": ["Store"],
        },
    )

moved_modules.install(
    moved_modules.homes(
        "lolama_hub",
        {
            "download": "hf_cache hub_api:api hub_errors:errors retries selection transfer",
            "folder": "bin_conversion:convert_pickled child_process config:text_config fields "
            "generation:generation_config layouts model_folder:resolve rope:rope_config "
            "sentencepiece_conversion:convert_sentencepiece tokenizers:tokenizer_files vision_config "
            "vision_folder:resolve_vision weights:weight_names",
            "folder.layouts": "layouts.layout:layout layouts.llama:llama layouts.llava:llava "
            "layouts.mistral:mistral layouts.qwen2:qwen2",
            "store": "locks snapshots",
        },
    )
)
