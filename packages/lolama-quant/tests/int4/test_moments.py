"""Second moments of what linears read."""

import pytest
import torch
from torch import Tensor, nn

from lolama_quant.int4.moments import Moments


class Reader(nn.Module):
    """Two linears that read one tensor, one that reads another of the same size, one that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 6)
        self.three, self.idle = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.three(self.one(x) + self.two(x)[..., :4])
        return y


NAMES = ("one", "two", "three", "idle")


def test_are_means_over_all_tokens() -> None:
    reader = Reader()
    moments = Moments(reader, NAMES)
    texts = [torch.randn(2, 3, 4), torch.randn(1, 5, 4)]
    moments.gather(lambda: [reader(text) for text in texts])
    rows = torch.cat([text.flatten(0, 1) for text in texts])
    own = moments.of("one")
    assert own is not None
    torch.testing.assert_close(own, rows.T @ rows / 11)
    inner = reader.one(rows) + reader.two(rows)[..., :4]
    third = moments.of("three")
    assert third is not None
    torch.testing.assert_close(third, (inner.T @ inner / 11).detach())


def test_tokens_count_by_their_importance() -> None:
    reader = Reader()
    moments = Moments(reader, NAMES)
    text, importance = torch.randn(2, 3, 4), torch.rand(2, 3)
    moments.gather(lambda: reader(text), importance)
    own = moments.of("one")
    assert own is not None
    rows = text.flatten(0, 1)
    torch.testing.assert_close(own, rows.T @ (importance.flatten()[:, None] * rows) / 6)
    assert sorted(moments._sums) == ["one", "three"]


def test_tokens_in_another_order_count_alike() -> None:
    linear, rows = nn.Linear(4, 1), torch.randn(6, 4)
    moments = Moments(nn.Sequential(linear), ("0",))
    moments.gather(lambda: linear(rows), torch.rand(2, 3))
    own = moments.of("0")
    assert own is not None
    torch.testing.assert_close(own, rows.T @ rows / 6)


def test_those_below_the_diagonal_are_those_above_it() -> None:
    linear, x = nn.Linear(1100, 1), torch.randn(1200, 1100)
    moments = Moments(nn.Sequential(linear), ("0",))
    moments.gather(lambda: linear(x))
    found = moments.of("0")
    assert found is not None
    torch.testing.assert_close(found, x.T @ x / 1200, rtol=1e-4, atol=1e-5)
    assert torch.equal(found, found.T)


def test_linears_that_read_one_tensor_share_it() -> None:
    reader = Reader()
    moments = Moments(reader, NAMES)
    moments.gather(lambda: reader(torch.randn(5, 4)))
    assert sorted(moments._sums) == ["one", "three"]
    one, two = moments.of("one"), moments.of("two")
    assert one is not None and two is not None and torch.equal(one, two)


def test_there_are_none_of_fewer_tokens_than_inputs() -> None:
    reader = Reader()
    moments = Moments(reader, NAMES)
    moments.gather(lambda: reader(torch.randn(3, 4)))
    assert [moments.of(name) for name in NAMES] == [None] * 4


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_there_are_none_of_inputs_that_are_not_finite(value: float) -> None:
    reader, x = Reader(), torch.randn(9, 4)
    x[5, 2] = value
    moments = Moments(reader, NAMES)
    moments.gather(lambda: reader(x))
    assert moments.of("one") is None


def test_hooks_are_gone_whatever_happens() -> None:
    reader = Reader()
    with pytest.raises(RuntimeError):
        Moments(reader, NAMES).gather(lambda: reader(torch.randn(5, 3)))
    assert not any(linear._forward_pre_hooks for linear in reader.children())
