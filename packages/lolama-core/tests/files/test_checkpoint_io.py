from __future__ import annotations

import pytest

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols import CheckpointIO
from lolama_core.testing.checkpoint import CheckpointIOSuite


class TestFileCheckpointIO(CheckpointIOSuite):
    @pytest.fixture
    def checkpoint_io(self) -> CheckpointIO:
        return FileCheckpointIO()
