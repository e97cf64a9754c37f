"""Sizes of memory as users write them."""

from __future__ import annotations

import pytest

from lolama_cli.sizes import read_size
from lolama_core.protocols.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2_000_000_000),
        ("2gb", 2_000_000_000),
        (" 1.5 GiB ", 1_610_612_736),
        ("800M", 800_000_000),
        ("800mib", 838_860_800),
        ("4k", 4_000),
        ("1T", 1_000_000_000_000),
        ("12345", 12_345),
        ("12345 B", 12_345),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert read_size(text, "--it") == size


@pytest.mark.parametrize(
    "text", ["", "GB", "0", "0.1", "-1GB", "1e9", "2XB", "2 GB more", "nan", "iB", "1i", "9" * 400]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--it: .* is no size of memory; write it as 2GB"):
        read_size(text, "--it")
