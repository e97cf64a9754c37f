"""What every `LogitsProcessor` must do."""

from __future__ import annotations

import pytest
import torch

from lolama_core.protocols import LogitsProcessor


class LogitsProcessorSuite:
    """Subclass it and define the fixture ``processor``."""

    @pytest.fixture
    def processor(self) -> LogitsProcessor:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    @pytest.mark.parametrize("batch", [1, 3])
    def test_is_pure(self, processor: LogitsProcessor, batch: int) -> None:
        """Same shape out, arguments untouched, the same answer twice, something left to choose."""
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn((batch, 50), generator=generator)
        input_ids = torch.randint(0, 50, (batch, 7), generator=generator)
        before = scores.clone(), input_ids.clone()
        result = processor(input_ids, scores)
        assert result.shape == scores.shape
        assert torch.equal(scores, before[0]) and torch.equal(input_ids, before[1])
        assert torch.equal(result, processor(input_ids, scores))
        assert bool(torch.isfinite(result).any(-1).all())
