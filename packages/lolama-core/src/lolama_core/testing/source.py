"""What every `ModelSource` must do."""

from __future__ import annotations

import json

import pytest

from lolama_core.protocols import CheckpointIO, ModelSource
from lolama_core.protocols.errors import LolamaError, UsageError
from lolama_core.protocols.source import ModelInfo
from lolama_core.protocols.types import FORMAT_NAME, FORMAT_VERSION


class ModelSourceSuite:
    """Subclass it and define the fixtures.

    ``source`` is the implementation; ``resolvable`` a name that it resolves without a network;
    ``absent`` a name that it understands but whose files are not here.
    """

    @pytest.fixture
    def source(self) -> ModelSource:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    @pytest.fixture
    def resolvable(self) -> str:
        """A name that resolves."""
        raise NotImplementedError("a subclass defines this fixture")

    @pytest.fixture
    def absent(self) -> str:
        """A name whose files would have to be fetched."""
        raise NotImplementedError("a subclass defines this fixture")

    @pytest.fixture
    def io(self) -> CheckpointIO:
        """core's file code, which a source is handed."""
        from lolama_core.files.checkpoint_io import FileCheckpointIO

        return FileCheckpointIO()

    def test_is_a_source(self, source: ModelSource) -> None:
        """It has every member of the protocol."""
        assert isinstance(source, ModelSource)

    def test_list_has_each_alias_once(self, source: ModelSource) -> None:
        """Aliases are unique, and each says what a person needs to choose by."""
        models = source.list()
        assert all(isinstance(model, ModelInfo) for model in models)
        assert len({model.alias for model in models}) == len(models)
        for model in models:
            assert model.repo
            assert model.parameters
            assert model.description
            assert model.license
            assert model.kind in ("text", "vision")

    def test_resolved_config_is_canonical(
        self, source: ModelSource, resolvable: str, io: CheckpointIO
    ) -> None:
        """The configuration is in the format of this version, and JSON through and through."""
        files = source.resolve(resolvable, io)
        config = files.config
        assert (config["format"], config["format_version"]) == (FORMAT_NAME, FORMAT_VERSION)
        assert {"family", "model", "dtype", "generation", "tokenizer"} <= config.keys()
        assert files.family == config["family"]
        assert json.loads(json.dumps(config, allow_nan=False)) == config

    def test_every_tensor_is_where_it_says(
        self, source: ModelSource, resolvable: str, io: CheckpointIO
    ) -> None:
        """Each location is a file that holds the key, and no two names share one."""
        tensors = source.resolve(resolvable, io).tensors
        assert tensors
        for location in tensors.values():
            assert location.key in io.header(location.path)
        places = {(location.path, location.key) for location in tensors.values()}
        assert len(places) == len(tensors)

    def test_tokenizer_is_there(
        self, source: ModelSource, resolvable: str, io: CheckpointIO
    ) -> None:
        """tokenizer.json is a readable file."""
        path = source.resolve(resolvable, io).tokenizer.tokenizer_json
        assert path is not None and io.read_text(path)

    def test_resolving_again_gives_the_same(
        self, source: ModelSource, resolvable: str, io: CheckpointIO
    ) -> None:
        """Nothing depends on whether a model was resolved before."""
        assert source.resolve(resolvable, io) == source.resolve(resolvable, io)

    @pytest.mark.parametrize("name", ["", " ", "a b/c", "../no/such", "a/b/c", "\0", "x" * 5000])
    def test_a_name_that_means_nothing_is_a_usage_error(
        self, source: ModelSource, io: CheckpointIO, name: str
    ) -> None:
        """It is the caller's mistake, on one line, with a way out."""
        with pytest.raises(UsageError) as caught:
            source.resolve(name, io)
        assert caught.value.remedy
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500

    def test_what_is_not_stored_is_neither_listed_nor_removed(
        self, source: ModelSource, resolvable: str, absent: str, io: CheckpointIO
    ) -> None:
        """Listing and sweeping an empty store is no error; removing from it is the caller's mistake."""
        assert list(source.stored(io)) == []
        assert source.collect_garbage() == 0
        for name in (resolvable, absent):
            with pytest.raises(UsageError):
                source.remove(name)

    def test_an_absent_model_is_a_typed_error(
        self, source: ModelSource, absent: str, io: CheckpointIO
    ) -> None:
        """It says what to do; it is never an unexpected exception."""
        with pytest.raises(LolamaError) as caught:
            source.resolve(absent, io)
        assert caught.value.remedy
