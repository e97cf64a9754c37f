"""Model files, configurations and tokenizers that cannot be trusted, rows 28 to 56 of docs/faults.md.

The installed program against a damaged Hugging Face folder; the packages' own tests go through more variants.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from program import Outcome
from warm_program import run

from lolama_core.testing.promises import Promises

Header = dict[str, Any]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A folder of one's own, to be damaged."""
    return Path(shutil.copytree(published, tmp_path / "model"))


def generate(folder: Path, *options: str, stdin: bytes = b"z", prompt: str = "") -> Outcome:
    arguments: tuple[str | Path, ...] = ("generate", "-m", folder, "--max-tokens", "3", *options)
    return run(*arguments, prompt) if prompt else run(*arguments, stdin=stdin)


def refused(folder: Path, *words: str) -> None:
    generate(folder).refused(3, *words)


def with_header(folder: Path, change: Callable[[Header], object], *, text: bytes = b"") -> Path:
    """Rewrite the header of the weights: changed in place, or replaced by ``text``."""
    path = folder / WEIGHTS
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = text or json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


def edit(folder: Path, name: str, **changes: object) -> None:
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**values, **changes}))


def first(header: Header) -> Header:
    """What the header says about one tensor."""
    entry: Header = header["model.norm.weight"]
    return entry


def test_the_folder_is_sound_before_it_is_damaged(folder: Path) -> None:
    outcome = generate(folder)
    assert (outcome.code, outcome.out, outcome.err) == (0, b"abc", "")


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0"])
def test_row_28_empty_and_seven_bytes(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    refused(folder, WEIGHTS)


@pytest.mark.parametrize("length", [0, 2**63, 10**7])
def test_row_29_header_lengths(folder: Path, length: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused(folder, WEIGHTS, "header")


def test_row_30_truncated(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, WEIGHTS)


def test_row_31_trailing_bytes(folder: Path) -> None:
    with open(folder / WEIGHTS, "ab") as file:
        file.write(b"\0" * 8)
    refused(folder, WEIGHTS)


@pytest.mark.parametrize("shift", [(-4, -4), (4, 4), (0, -4), (0, -(10**9))])
def test_row_32_overlap_gap_and_end_before_start(folder: Path, shift: tuple[int, int]) -> None:
    def change(header: Header) -> None:
        start, end = first(header)["data_offsets"]
        first(header)["data_offsets"] = [start + shift[0], end + shift[1]]

    with_header(folder, change)
    refused(folder, WEIGHTS)


@pytest.mark.parametrize("shape", [[-1, 288], [2**40, 2**40], [288.0], ["288"], None])
def test_row_33_shapes(folder: Path, shape: object) -> None:
    with_header(folder, lambda header: first(header).update(shape=shape))
    refused(folder, WEIGHTS)


def test_row_34_unknown_dtype(folder: Path) -> None:
    with_header(folder, lambda header: first(header).update(dtype="F31"))
    refused(folder, WEIGHTS, "F31")


def test_row_35_duplicate_key(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + length].strip()
    entry = json.dumps(first(json.loads(text))).encode()
    with_header(folder, lambda _: None, text=text[:-1] + b',"model.norm.weight":' + entry + b"}")
    refused(folder, WEIGHTS, "model.norm.weight", "twice")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "git-lfs"),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", "HTML"),
        (pickle.dumps({"a": 1}), "pickle"),
    ],
)
def test_row_36_something_else_of_that_name(folder: Path, content: bytes, word: str) -> None:
    (folder / WEIGHTS).write_bytes(content)
    refused(folder, WEIGHTS, word)


def with_300_000_tensors(folder: Path) -> Path:
    entries = ",".join(
        f'"t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(300_000)
    )
    text = ("{" + entries + "}").encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text)
    return folder


def test_row_37_a_header_of_300_000_tensors(folder: Path) -> None:
    refused(with_300_000_tensors(folder), WEIGHTS)


@pytest.mark.promise
def test_row_37_a_header_of_300_000_tensors_is_refused_soon(
    folder: Path, promises: Promises
) -> None:
    with_300_000_tensors(folder)
    run("--version")  # the first of all runs waits for its host
    with promises.within(2, "a run with a header of 300,000 tensors"):
        refused(folder, WEIGHTS)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "device"])
def test_row_38_what_is_no_file(folder: Path, name: str, kind: str) -> None:
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "directory":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to("/dev/zero")
    refused(folder, name)


def sharded(folder: Path, shard: str) -> None:
    """Give the folder an index that puts everything into one file."""
    content = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    keys = json.loads(content[8 : 8 + length])
    (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {key: shard for key in keys if key != "__metadata__"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a/../../x"])
def test_row_39_an_index_that_leaves_the_folder(folder: Path, shard: str) -> None:
    sharded(folder, shard)
    refused(folder, "index.json", "plain name")


def test_row_39_a_link_that_leaves_the_folder(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to("../elsewhere")
    refused(folder, WEIGHTS, "leaves the model's folder")


def test_row_40_a_shard_that_is_absent(folder: Path) -> None:
    sharded(folder, "model-00002-of-00002.safetensors")
    refused(folder, "model-00002-of-00002.safetensors", "does not exist")


def test_row_41_missing_extra_and_misplaced_keys(folder: Path) -> None:
    def rename(header: Header) -> None:
        header["model.layers.0.mlp.extra.weight"] = header.pop("model.norm.weight")

    path = with_header(folder, rename)
    refused(folder, "model.norm.weight", "model.layers.0.mlp.extra.weight")
    path.write_bytes(path.read_bytes().replace(b"mlp.extra", b"mlp.other"))
    sharded(folder, "model-00001-of-00001.safetensors")
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(index.read_text().replace("mlp.other", "mlp.extra"))
    refused(folder, "model.layers.0.mlp.extra.weight")


def test_row_42_wrong_shape(folder: Path) -> None:
    edit(folder, "config.json", intermediate_size=33)
    refused(folder, "w_gate", "(32, 288)", "(33, 288)")


@pytest.mark.parametrize("dtype", ["I32", "F64"])
def test_row_43_integer_and_double_weights(folder: Path, dtype: str) -> None:
    def change(header: Header) -> None:
        entry = header["model.layers.0.mlp.down_proj.weight"]
        entry["dtype"] = dtype
        if dtype == "F64":
            entry["shape"][1] //= 2

    with_header(folder, change)
    refused(folder, dtype)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_row_44_non_finite_weights(folder: Path, value: str) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", float(value)))
    refused(folder, "weight", "NaN" if value == "nan" else "Inf")


class RunsCode:
    """A pickle that would make a file if it were opened without restriction."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_row_45_only_bin(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(state, folder / "pytorch_model.bin")
    store = {"LOLAMA_HOME": str(tmp_path / "store")}
    for _ in range(2):
        outcome = run("generate", "-m", folder, "--max-tokens", "3", "z", env=store)
        assert (outcome.code, outcome.out) == (0, b"abc")
    assert len(list((tmp_path / "store" / "converted").iterdir())) == 1
    marker = tmp_path / "it-ran"
    torch.save({**state, "x": RunsCode(marker)}, folder / "pytorch_model.bin")
    run("generate", "-m", folder, "z", env=store).refused(3, "pytorch_model.bin", "nothing in it")
    assert not marker.exists()


def test_row_46_a_file_cut_short_after_opening(folder: Path) -> None:
    # The reader is stopped between the header and the data by a hook on the one and only open.
    hook = (
        "import os\n"
        "from lolama_core.files import tensor_file as f\n"
        "read = f.TensorFile.read\n"
        "def cut(self, name, *rest, **more):\n"
        f"    os.truncate({str(folder / WEIGHTS)!r}, 5000)\n"
        "    return read(self, name, *rest, **more)\n"
        "f.TensorFile.read = cut\n"
    )
    run("generate", "-m", folder, "z", before=hook).refused(3, WEIGHTS)


@pytest.mark.parametrize("name", ["vocab_size", "num_hidden_layers", "hidden_size"])
def test_row_47_sizes_beyond_any_machine(folder: Path, name: str) -> None:
    for value in (10**12, 10**9):
        edit(folder, "config.json", **{name: value})
        refused(folder, name if value == 10**12 else "")


@pytest.mark.parametrize(
    "value", ["0", "-1", "true", "32.5", '"32"', "NaN", "9" * 5000, "[" * 5000]
)
def test_row_48_values_that_are_no_sizes(folder: Path, value: str) -> None:
    text = (folder / "config.json").read_text()
    broken = text.replace('"num_attention_heads": 8', f'"num_attention_heads": {value}')
    assert broken != text
    (folder / "config.json").write_text(broken)
    refused(folder, "config.json")


def test_row_49_heads_that_do_not_divide(folder: Path) -> None:
    edit(folder, "config.json", num_key_value_heads=3)
    refused(folder, "config.json", "8", "3")
    edit(folder, "config.json", num_key_value_heads=1, head_dim=35)
    refused(folder, "config.json", "head_dim", "35")


def test_row_50_missing_and_unknown_things_are_named(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("hidden_size", "hidden"))
    refused(folder, "config.json", "hidden_size")
    (folder / "config.json").write_text(text)
    edit(folder, "config.json", model_type="mamba9")
    refused(folder, "config.json", "mamba9")
    edit(folder, "config.json", model_type="llama", rope_scaling={"type": "spiral", "factor": 2.0})
    refused(folder, "config.json", "spiral")


def test_row_51_code_is_never_imported_and_nobody_is_asked(folder: Path) -> None:
    marker = folder / "it-ran"
    for module in ("configuration_x", "modeling_x", "tokenization_x"):
        (folder / f"{module}.py").write_text(f"open({str(marker)!r}, 'w')\nclass X: pass\n")
    edit(folder, "config.json", auto_map={"AutoConfig": "configuration_x.X"}, trust_remote_code=1)
    edit(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]})
    outcome = generate(folder, stdin=b"y\n")
    # The "y" was the prompt, and answered no question.
    assert (outcome.code, outcome.out, outcome.err) == (0, b"zab", "")
    assert not marker.exists()


def test_row_52_tokenizer_ids_past_the_vocabulary(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["vocab"]["new"] = 10**6
    (folder / "tokenizer.json").write_text(json.dumps(values))
    refused(folder, "tokenizer.json", "new", "1000000")


@pytest.mark.parametrize("content", ["", "{}", "{", "<html></html>", "[]", '{"model": 5}'])
def test_row_53_a_tokenizer_that_is_none(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    refused(folder, "tokenizer.json")


def explode(folder: Path) -> None:
    """Ask with a pattern that tries for ever, and be refused."""
    edit(
        folder,
        "tokenizer.json",
        pre_tokenizer={
            "type": "Split",
            "pattern": {"Regex": r"(a|a|aa)+$"},
            "behavior": "Isolated",
            "invert": False,
        },
    )
    generate(folder, prompt="a" * 60 + "!").refused(3, "tokenizer.json")


def test_row_54_a_regular_expression_that_explodes(folder: Path) -> None:
    explode(folder)


@pytest.mark.promise
def test_row_54_a_regular_expression_that_explodes_is_given_up_soon(
    folder: Path, promises: Promises
) -> None:
    run("--version")
    with promises.within(5, "a run with a regular expression that explodes"):
        explode(folder)


HOSTILE_TEMPLATES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ 9 ** (9 ** 9) }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 100000000 }}",
]


@pytest.mark.parametrize("template", HOSTILE_TEMPLATES)
def test_row_55_a_hostile_chat_template(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    refused(folder, "template")


@pytest.mark.promise
def test_row_55_a_hostile_chat_template_is_refused_soon(folder: Path, promises: Promises) -> None:
    run("--version")
    for template in HOSTILE_TEMPLATES:
        (folder / "chat_template.jinja").write_text(template)
        with promises.within(2, "a run with a hostile chat template", template):
            refused(folder, "template")


@pytest.mark.parametrize("text", ["</s>", "<|eot_id|>", "[INST]", "<image>", "<|user|>"])
def test_row_56_control_tokens_in_what_a_user_typed_are_text(published: Path, text: str) -> None:
    import lolama

    tokenizer = lolama.load_tokenizer(published)
    ids = tokenizer.encode_ids(text, split_special_tokens=True)
    assert tokenizer.decode(ids) == text
    specials = {tokenizer.encode_ids(token)[-1] for token in ("</s>", "<|user|>")}
    assert not specials & set(ids)
    outcome = generate(published, prompt=text + "z")
    assert (outcome.code, outcome.out) == (0, b"abc")
