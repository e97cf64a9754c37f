"""What the tests of all packages share: tensors drawn at random are the same in each run."""

from __future__ import annotations

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before fixtures of any scope, so that no draw depends on the tests before it."""
    torch.manual_seed(0)
