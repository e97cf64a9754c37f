"""From a model's files to a tokenizer. Nothing here needs torch.

`native_tokenizer` reads tokenizer.json itself.
"""

from __future__ import annotations

from lolama_core.files.untrusted import read_text
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles
from lolama_core.text.tokenizer import Tokenizer


def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """The tokenizer of resolved model files.

    Raises:
        ModelError: if there is none, or its files cannot be used.
    """
    block, generation = files.config["tokenizer"], files.config["generation"]
    path = files.tokenizer.tokenizer_json
    if path is None:
        reason = "has no tokenizer: neither tokenizer.json nor tokenizer.model is in its folder"
        remedy = (
            "put there what it was trained with (transformers' save_pretrained of a fast tokenizer "
            "writes tokenizer.json), or use ids"
        )
        if files.config.get("source", {}).get("format") == "gguf":
            reason = "comes from a GGUF file that has no tokenizer"
            remedy = "get a file that has one, or use ids"
        raise ModelError(files.name, reason, remedy)
    return Tokenizer(
        read_text(path),
        chat_template=files.tokenizer.chat_template,
        bos_token=block.get("bos_token"),
        eos_token=block.get("eos_token"),
        special_tokens=block.get("special_tokens", {}),
        control_tokens=block.get("control_tokens", ()),
        added_tokens=block.get("added_tokens", ()),
        add_bos=block.get("add_bos", False),
        eos_ids=generation.get("eos_ids", ()),
        source=str(path),
    )
