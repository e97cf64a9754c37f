"""What importing costs, each time in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lolama_core
from lolama_core.testing.promises import Promises


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "statement",
    [
        "import lolama_core",
        "import lolama_core.protocols",
        "import lolama_core.protocols.errors, lolama_core.protocols.types",
        "from lolama_core.protocols import CausalLM, KVCache, ModelFamily, Tokenizer",
        "import lolama_core.generation.generation_config",
        "import lolama_core.text.chat_template, lolama_core.text.tokenizer",
        "import lolama_core.__main__",
        "import lolama_core.files.checkpoint_reader, lolama_core.files.checkpoint_io",
        "import lolama_core.text.tokenizer_loading",
    ],
)
def test_no_torch_without_need(statement: str) -> None:
    heavy = {"torch", "numpy", "transformers", "tokenizers", "jinja2", "safetensors", "PIL"}
    loaded = run(f"{statement}\nimport sys\nprint(*sys.modules)").split()
    assert heavy & {*loaded} == set()


def test_headers_and_tokenizers_are_read_without_torch() -> None:
    loaded = run(
        "import sys\n"
        "from lolama_core import FileCheckpoint, LlamaFamily, load_tokenizer, open_checkpoint\n"
        "files = open_checkpoint(LlamaFamily.builtins['demo'])\n"
        "assert FileCheckpoint(files).shapes()['norm.weight'] == (192,)\n"
        "assert load_tokenizer(files).encode_ids('Once upon a time')\n"
        "print(*sys.modules)\n"
    ).split()
    assert "tokenizers" in loaded
    assert "torch" not in loaded


def test_protocols_load_nothing_concrete() -> None:
    loaded = run("import lolama_core.protocols, sys; print(*sys.modules)").split()
    ours = {name for name in loaded if name.startswith("lolama")}
    assert all(
        name in ("lolama_core", "lolama_core.__about__") or name.startswith("lolama_core.protocols")
        for name in ours
    ), ours


MODELS = "from lolama_core import Llama, TextGenerator"


def test_models_and_generators_load_nothing_but_torch() -> None:
    code = (
        f"import sys, torch\nbefore = {{*sys.modules}}\n{MODELS}\nprint(*{{*sys.modules}} - before)"
    )
    loaded = {name.partition(".")[0] for name in run(code).split()}
    assert loaded - sys.stdlib_module_names == {"lolama_core"}


@pytest.mark.promise
def test_models_and_generators_cost_little_beside_torch(promises: Promises) -> None:
    clock = "time.perf_counter()"
    code = f"import time, torch\nbefore = {clock}\n{MODELS}\nprint({clock} - before)"
    least = min(float(run(code)) for _ in range(3))
    promises.hold(0.3, "importing a model and a generator after torch", least)


def test_every_public_name_is_there() -> None:
    public = vars(lolama_core)["__all__"]
    for name in public:
        assert getattr(lolama_core, name) is not None
    assert sorted(public) == public
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lolama_core.no_such_name  # type: ignore[attr-defined]
