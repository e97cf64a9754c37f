"""The tokenizer of the built-in model as a GGUF file: texts have the ids that its tokenizer.json gives."""

from __future__ import annotations

from pathlib import Path

import lolama_core
import lolama_quant
from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.text.tokenizer import Tokenizer
from lolama_hub.gguf.tokenizer import read_gguf_tokenizer
from lolama_hub.store.place import Store
from lolama_hub.testing.gguf_metadata import byte_level_metadata, write_gguf

DEMO = Path(lolama_core.__file__).parent / "demo"
HELD_OUT = Path(lolama_quant.__file__).parent / "held_out.txt"


def test_held_out_stories_have_the_same_ids(tmp_path: Path) -> None:
    text = (DEMO / "tokenizer.json").read_text(encoding="utf-8")
    template = (DEMO / "chat_template.jinja").read_text(encoding="utf-8")
    original = Tokenizer(text, bos_token="<|bos|>", eos_token="<|eos|>", chat_template=template)
    metadata = byte_level_metadata(text, bos_token_id=0, eos_token_id=1, add_bos_token=True)
    metadata["tokenizer.chat_template"] = template
    file = write_gguf(tmp_path / "demo.gguf", metadata)
    found = read_gguf_tokenizer(
        file,
        FileCheckpointIO().gguf(file).metadata,
        original.vocab_size,
        store=Store(tmp_path / "store"),
        label="demo",
    )
    assert found.files.tokenizer_json is not None
    ours = Tokenizer(
        found.files.tokenizer_json.read_text(encoding="utf-8"),
        chat_template=found.files.chat_template,
        bos_token=found.block["bos_token"],
        eos_token=found.block["eos_token"],
        add_bos=found.block["add_bos"],
        eos_ids=found.eos_ids,
    )
    stories = HELD_OUT.read_text(encoding="utf-8").split("\n\n")
    assert len(stories) == 240
    for story in stories:
        ids = original.encode_ids(story)
        assert ours.encode_ids(story) == ids
        assert ours.decode(ids) == original.decode(ids)
    assert (ours.bos_id, ours.eos_ids) == (original.bos_id, original.eos_ids)
    talk = [{"role": "user", "content": "What does a cow say?<|eos|>"}]
    assert ours.render_chat(talk) == original.render_chat(talk)  # type: ignore[arg-type]
    assert found.size == original.vocab_size
