"""What every `Checkpoint` and `CheckpointIO` must do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lolama_core.protocols import Checkpoint, CheckpointIO
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import FORMAT_NAME, FORMAT_VERSION, CanonicalConfig
from lolama_core.testing import gguf_file as gguf

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def tiny_config() -> CanonicalConfig:
    """The smallest complete configuration; its ``model`` block means nothing."""
    return {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "family": "llama",
        "model": {},
        "dtype": "float32",
        "generation": {"eos_ids": [2], "vocab_size": 8},
        "tokenizer": {"bos_token": None, "eos_token": "</s>", "add_bos": False},
    }


class CheckpointSuite:
    """Subclass it and define the fixture ``checkpoint``: one with at least two tensors."""

    @pytest.fixture
    def checkpoint(self) -> Checkpoint:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    def test_is_a_checkpoint(self, checkpoint: Checkpoint) -> None:
        """It has every member of the protocol."""
        assert isinstance(checkpoint, Checkpoint)

    def test_config_is_canonical(self, checkpoint: Checkpoint) -> None:
        """The configuration is in the format of this version and names its family."""
        config = checkpoint.config
        assert (config["format"], config["format_version"]) == (FORMAT_NAME, FORMAT_VERSION)
        assert config["family"]
        assert {"model", "dtype", "generation", "tokenizer"} <= config.keys()

    def test_yields_every_tensor_once(self, checkpoint: Checkpoint) -> None:
        """`tensors` and `names` agree."""
        names = [name for name, _ in checkpoint.tensors()]
        assert len(names) == len(set(names)) >= 2
        assert frozenset(names) == checkpoint.names()

    def test_shapes_are_those_of_the_tensors(self, checkpoint: Checkpoint) -> None:
        """What `shapes` tells beforehand is true of names that are there; the model has a name."""
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors()}
        assert checkpoint.shapes().items() <= found.items()
        assert checkpoint.name

    def test_can_be_read_again(self, checkpoint: Checkpoint) -> None:
        """A second pass gives equal tensors, and changing what the first gave changes nothing."""
        first = {name: tensor.clone() for name, tensor in checkpoint.tensors()}
        for _, tensor in checkpoint.tensors():
            tensor.zero_()
        again = dict(checkpoint.tensors())
        assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())

    def test_prefix_selects(self, checkpoint: Checkpoint) -> None:
        """A prefix selects the names that start with it."""
        for prefix in {name[: len(name) // 2 + 1] for name in checkpoint.names()}:
            expected = {name for name in checkpoint.names() if name.startswith(prefix)}
            assert {name for name, _ in checkpoint.tensors(prefix)} == expected
        assert list(checkpoint.tensors("no tensor is called so")) == []

    def test_can_be_left_early(self, checkpoint: Checkpoint) -> None:
        """A pass that is given up does not disturb the next."""
        next(checkpoint.tensors())
        assert len(list(checkpoint.tensors())) == len(checkpoint.names())

    def test_weights_are_finite(self, checkpoint: Checkpoint) -> None:
        """Neither NaN nor infinities get through."""
        assert all(bool(tensor.isfinite().all()) for _, tensor in checkpoint.tensors())


class CheckpointIOSuite:
    """Subclass it and define the fixture ``checkpoint_io``."""

    @pytest.fixture
    def checkpoint_io(self) -> CheckpointIO:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    def test_header_tells_what_was_written(
        self, checkpoint_io: CheckpointIO, tmp_path: Path
    ) -> None:
        """Names, dtypes and shapes survive writing."""
        tensors = {"a.weight": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
        directory = tmp_path / "model"
        checkpoint_io.write(directory, tiny_config(), tensors.items(), tokenizer_json="{}")
        [path] = directory.glob("*.safetensors")
        found = {
            name: (entry.dtype, entry.shape) for name, entry in checkpoint_io.header(path).items()
        }
        assert found == {"a.weight": ("F32", (2, 3)), "b": ("BF16", (4,))}

    def test_config_and_texts_survive(self, checkpoint_io: CheckpointIO, tmp_path: Path) -> None:
        """So do the configuration, the tokenizer and the template."""
        directory = tmp_path / "model"
        checkpoint_io.write(
            directory, tiny_config(), [], tokenizer_json='{"a": 1}', chat_template="ä"
        )
        assert checkpoint_io.read_json(directory / "config.json") == tiny_config()
        assert checkpoint_io.read_json(directory / "tokenizer.json") == {"a": 1}
        assert checkpoint_io.read_text(directory / "chat_template.jinja") == "ä"

    def test_never_overwrites(self, checkpoint_io: CheckpointIO, tmp_path: Path) -> None:
        """An existing directory is refused and left alone."""
        (tmp_path / "model").mkdir()
        with pytest.raises(UsageError, match="exists"):
            checkpoint_io.write(tmp_path / "model", tiny_config(), [], tokenizer_json="{}")
        assert list(tmp_path.rglob("*")) == [tmp_path / "model"]

    def test_all_or_nothing(self, checkpoint_io: CheckpointIO, tmp_path: Path) -> None:
        """If the tensors stop coming, nothing is left."""

        def broken() -> Iterator[tuple[str, Tensor]]:
            yield "a", torch.zeros(2)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            checkpoint_io.write(tmp_path / "model", tiny_config(), broken(), tokenizer_json="{}")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[1]",
            b'{"a": 1, "a": 2}',
            b'{"a": NaN}',
            b'{"a": 1e400}',
            b'{"a": ' + b"9" * 5000 + b"}",
            b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
            b'{"a": ' + b"[" * 100_000,
            b'{"a": "\xff"}',
            b"<!DOCTYPE html><html></html>",
            LFS_POINTER.encode(),
        ],
        ids=lambda content: repr(content[:16]),
    )
    def test_refuses_bad_json(
        self, checkpoint_io: CheckpointIO, tmp_path: Path, content: bytes
    ) -> None:
        """Anything but one plain object is an error that names the file."""
        path = tmp_path / "config.json"
        path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            checkpoint_io.read_json(path)
        assert caught.value.subject == str(path)
        with pytest.raises(ModelError, match=r"^it: ") as caught_again:
            checkpoint_io.parse_json(content, "it")
        assert caught_again.value.reason == caught.value.reason

    def test_parses_what_it_reads(self, checkpoint_io: CheckpointIO, tmp_path: Path) -> None:
        """JSON in memory means what it means in a file."""
        content = b'{"a": [1, null, "\xc3\xa4"]}'
        (tmp_path / "config.json").write_bytes(content)
        found = checkpoint_io.parse_json(content, "it")
        assert found == checkpoint_io.read_json(tmp_path / "config.json") == {"a": [1, None, "ä"]}

    @pytest.mark.parametrize("kind", ["missing", "directory"])
    def test_refuses_what_is_no_file(
        self, checkpoint_io: CheckpointIO, tmp_path: Path, kind: str
    ) -> None:
        """Each reader names a path that is no file."""
        path = tmp_path if kind == "directory" else tmp_path / "missing"
        for read in (
            checkpoint_io.read_text,
            checkpoint_io.read_json,
            checkpoint_io.header,
            checkpoint_io.gguf,
            checkpoint_io.gguf_parts,
        ):
            with pytest.raises(ModelError) as caught:
                read(path)
            assert caught.value.subject == str(path)

    def test_refuses_a_damaged_weights_file(
        self, checkpoint_io: CheckpointIO, tmp_path: Path
    ) -> None:
        """A file cut short is refused by its header alone."""
        directory = tmp_path / "model"
        checkpoint_io.write(directory, tiny_config(), [("a", torch.zeros(9))], tokenizer_json="{}")
        [path] = directory.glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ModelError) as caught:
            checkpoint_io.header(path)
        assert caught.value.subject == str(path)

    def test_gguf_tells_what_a_file_holds(
        self, checkpoint_io: CheckpointIO, tmp_path: Path
    ) -> None:
        """Keys with their values, and of each tensor the type's name and the shape in values."""
        path = tmp_path / "model.gguf"
        tensors = [gguf.tensor("a", gguf.F32, (2, 4)), gguf.tensor("b", gguf.Q8_0, (3, 32), 32)]
        content = gguf.gguf_bytes(
            [gguf.key("name", gguf.TEXT, gguf.text("ä"))], tensors, bytes(134)
        )
        path.write_bytes(content)
        header = checkpoint_io.gguf(path)
        assert (header.path, header.version, header.metadata) == (path, 3, {"name": "ä"})
        found = {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()}
        assert found == {"a": ("F32", (2, 4)), "b": ("Q8_0", (3, 32))}
        assert [part.path for part in checkpoint_io.gguf_parts(path)] == [path]
        path.write_bytes(content[:-1])
        for read in (checkpoint_io.gguf, checkpoint_io.gguf_parts):
            with pytest.raises(ModelError) as caught:
                read(path)
            assert caught.value.subject == str(path)

    def test_finds_all_parts_of_a_gguf_model(
        self, checkpoint_io: CheckpointIO, tmp_path: Path
    ) -> None:
        """They come in order, whichever is named; one that is missing is named."""
        paths = [tmp_path / f"model-0000{number}-of-00002.gguf" for number in (1, 2)]
        for number, path in enumerate(paths):
            entry = gguf.tensor(str(number), gguf.F32, (8,))
            path.write_bytes(gguf.gguf_bytes(gguf.split_keys(number, 2, 2), [entry], bytes(32)))
        for path in paths:
            assert [part.path for part in checkpoint_io.gguf_parts(path)] == paths
        paths[1].unlink()
        with pytest.raises(ModelError, match=paths[1].name):
            checkpoint_io.gguf_parts(paths[0])
