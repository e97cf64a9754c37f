"""How each architecture is published: one table a file, found here by config.json's ``model_type``."""

from lolama_hub.folder.layouts.ernie4_5 import ERNIE4_5
from lolama_hub.folder.layouts.exaone4 import EXAONE4
from lolama_hub.folder.layouts.gemma import GEMMA, GEMMA2, GEMMA3, VAULT_GEMMA
from lolama_hub.folder.layouts.glm import GLM, GLM4
from lolama_hub.folder.layouts.granite import GRANITE, GRANITE_HYBRID
from lolama_hub.folder.layouts.granite_moe import GRANITE_MOE
from lolama_hub.folder.layouts.helium import HELIUM
from lolama_hub.folder.layouts.layout import TextLayout, tensor_names
from lolama_hub.folder.layouts.llama import LLAMA
from lolama_hub.folder.layouts.ministral import MINISTRAL
from lolama_hub.folder.layouts.ministral3 import MINISTRAL3
from lolama_hub.folder.layouts.mistral import MISTRAL
from lolama_hub.folder.layouts.mixtral import MIXTRAL
from lolama_hub.folder.layouts.olmo2 import OLMO2
from lolama_hub.folder.layouts.olmo3 import OLMO3
from lolama_hub.folder.layouts.olmoe import OLMOE
from lolama_hub.folder.layouts.phi3 import PHI3
from lolama_hub.folder.layouts.qwen2 import QWEN2
from lolama_hub.folder.layouts.qwen2_moe import QWEN2_MOE
from lolama_hub.folder.layouts.qwen3 import QWEN3
from lolama_hub.folder.layouts.qwen3_moe import QWEN3_MOE
from lolama_hub.folder.layouts.seed_oss import SEED_OSS
from lolama_hub.folder.layouts.smollm3 import SMOLLM3
from lolama_hub.folder.layouts.transforms import transforms

LAYOUTS = {
    layout.model_type: layout
    for layout in (
        ERNIE4_5,
        EXAONE4,
        GEMMA,
        GEMMA2,
        GEMMA3,
        GLM,
        GLM4,
        GRANITE,
        GRANITE_HYBRID,
        GRANITE_MOE,
        HELIUM,
        LLAMA,
        MINISTRAL,
        MINISTRAL3,
        MISTRAL,
        MIXTRAL,
        OLMO2,
        OLMO3,
        OLMOE,
        PHI3,
        QWEN2,
        QWEN2_MOE,
        QWEN3,
        QWEN3_MOE,
        SEED_OSS,
        SMOLLM3,
        VAULT_GEMMA,
    )
}

__all__ = ["LAYOUTS", "TextLayout", "tensor_names", "transforms"]
