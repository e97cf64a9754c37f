"""How much memory a load takes, each time in a fresh interpreter, and what is mapped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import (
    Llama,
    LlamaConfig,
    LlamaFamily,
    load,
    load_model,
    open_checkpoint,
    write_checkpoint,
)
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_core.testing.checkpoint import tiny_config

SHAPE: dict[str, JSON] = {
    "vocab_size": 8000,
    "d_model": 1024,
    "num_heads": 16,
    "num_kv_heads": 4,
    "num_layers": 6,
    "hidden_dim": 4096,
    "max_seq_len": 64,
}
CONSTANT_MIB = 24
"""What a load takes beside weights: code of torch that runs for the first time, the model's objects."""

LOAD = """
import json, re, sys
from pathlib import Path
import torch
from lolama_core import LlamaFamily, load_model, open_checkpoint
import lolama_core.model.llama

def mib(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

files = open_checkpoint(Path(sys.argv[1]), immutable=sys.argv[2] == "mapped")
before, own = mib("VmRSS"), mib("RssAnon")
model = load_model(files, {"llama": LlamaFamily()}, device="cpu", dtype=sys.argv[3])
weights = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
print(json.dumps([weights, mib("VmHWM") - before, mib("RssAnon") - own]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of about 220 MB in bfloat16."""
    directory = tmp_path_factory.mktemp("large") / "model"
    model = LlamaFamily().build(SHAPE, lambda config: pytest.fail("it has no text model"))

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, parameter in model.named_parameters():
            yield name, torch.full(parameter.shape, 0.5, dtype=torch.bfloat16)

    config = {**tiny_config(), "model": SHAPE, "dtype": "bfloat16"}
    write_checkpoint(directory, config, tensors(), tokenizer_json="{}")  # type: ignore[arg-type]
    return directory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is counted by Linux")
@pytest.mark.parametrize(
    ("way", "dtype"), [("read", "bfloat16"), ("mapped", "bfloat16"), ("read", "float16")]
)
def test_the_peak_is_the_weights(large: Path, way: str, dtype: str) -> None:
    """One that is converted holds one more tensor, here 7 % of all, and leaves no holes in memory."""
    command = [sys.executable, "-c", LOAD, str(large), way, dtype]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    weights, peak, own = json.loads(done.stdout)
    assert weights > 200
    assert peak <= 1.1 * weights + CONSTANT_MIB
    if way == "mapped":
        assert own <= CONSTANT_MIB  # all else can be had again from the file


def test_the_built_in_model_is_mapped_and_a_folder_is_not() -> None:
    maps, directory = Path("/proc/self/maps"), LlamaFamily.builtins["demo"]
    if not maps.exists():
        pytest.skip("the system does not list maps")
    weights = str(directory / "model.safetensors")
    model, _ = load(directory, device="cpu")
    assert weights not in maps.read_text()
    built_in, _ = load(device="cpu")
    assert weights in maps.read_text()
    read = model.state_dict()
    for name, tensor in built_in.state_dict().items():
        assert torch.equal(tensor, read[name]), name


@pytest.mark.parametrize("block", [{"eos_ids": [1, 8]}, {"eos_ids": [], "vocab_size": 9}])
def test_row_119_ids_past_the_vocabulary(tmp_path: Path, block: dict[str, Any]) -> None:
    shape = {
        **SHAPE,
        "vocab_size": 8,
        "d_model": 8,
        "num_heads": 2,
        "num_kv_heads": 2,
        "hidden_dim": 8,
    }
    model = Llama(LlamaConfig.from_json(shape))
    config: Any = {**tiny_config(), "model": shape, "dtype": "float32", "generation": block}
    write_checkpoint(tmp_path / "m", config, model.state_dict().items(), tokenizer_json="{}")
    with pytest.raises(ModelError, match="goes up to the id 8, the vocabulary to 7"):
        load_model(open_checkpoint(tmp_path / "m"), {"llama": LlamaFamily()})
