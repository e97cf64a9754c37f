"""What every `CausalLM` and `ModelFamily` must do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM, ModelFamily
from lolama_core.protocols.causal_module import CausalLMModule
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import JSON


class CausalLMSuite:
    """Subclass it and define the fixture ``model``: float32, on the CPU, 32 positions or more."""

    tolerance = 1e-5

    @pytest.fixture
    def model(self) -> CausalLM:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    def ids(self, model: CausalLM, batch: int, length: int, seed: int = 0) -> Tensor:
        """Random ids (batch, length)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, model.vocab_size, (batch, length), generator=generator)

    def whole(self, model: CausalLM, ids: Tensor) -> Tensor:
        """Logits (B, T, V) of one pass without a cache: what every other way is compared with."""
        with torch.inference_mode():
            return model.forward_embeds(model.embed(ids), logits="all")

    def test_is_a_causal_lm(self, model: CausalLM) -> None:
        """It has every member of the protocol, and its logits are float32."""
        assert isinstance(model, CausalLM)
        logits = self.whole(model, self.ids(model, 2, 5))
        assert logits.shape == (2, 5, model.vocab_size)
        assert logits.dtype == torch.float32

    @torch.inference_mode()
    def test_last_is_the_last_of_all(self, model: CausalLM) -> None:
        """``logits="last"`` gives each row's own last position."""
        embeds = model.embed(self.ids(model, 2, 6))
        every = model.forward_embeds(embeds, logits="all")
        last = model.forward_embeds(embeds, lengths=[6, 3])
        torch.testing.assert_close(last[0], every[0, 5], atol=self.tolerance, rtol=0)
        torch.testing.assert_close(last[1], every[1, 2], atol=self.tolerance, rtol=0)

    def test_the_future_is_not_seen(self, model: CausalLM) -> None:
        """Changing a token changes nothing before it."""
        ids = self.ids(model, 1, 8)
        other = ids.clone()
        other[0, 5] = (other[0, 5] + 1) % model.vocab_size
        before, after = self.whole(model, ids), self.whole(model, other)
        torch.testing.assert_close(before[:, :5], after[:, :5], atol=self.tolerance, rtol=0)
        assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-4)

    @torch.inference_mode()
    @pytest.mark.parametrize("chunks", [[1] * 12, [12], [5, 7], [4, 1, 1, 6]])
    def test_continuing_is_exact(self, model: CausalLM, chunks: list[int]) -> None:
        """Pieces on a growing cache equal one pass over the whole."""
        ids = self.ids(model, 2, 12)
        cache = model.make_cache(2, 12)
        logits, start = [], 0
        for width in chunks:
            embeds = model.embed(ids[:, start : start + width])
            logits.append(model.forward_embeds(embeds, cache, logits="all"))
            cache.advance([width, width])
            start += width
        torch.testing.assert_close(
            torch.cat(logits, 1), self.whole(model, ids), atol=self.tolerance, rtol=0
        )

    @torch.inference_mode()
    def test_rows_of_different_length(self, model: CausalLM) -> None:
        """A padded batch equals each row alone, prompt and next token both."""
        lengths, following = [7, 2, 5], self.ids(model, 3, 1, seed=9)
        ids = self.ids(model, 3, 7)
        cache = model.make_cache(3, 8)
        prompt = model.embed_prompt(ids, lengths)
        first = model.forward_embeds(prompt.embeds, cache, prompt.lengths)
        cache.advance(prompt.lengths)
        second = model.forward_embeds(model.embed(following), cache)
        for row, length in enumerate(lengths):
            alone = torch.cat((ids[row : row + 1, :length], following[row : row + 1]), 1)
            expected = self.whole(model, alone)[0]
            torch.testing.assert_close(first[row], expected[-2], atol=self.tolerance, rtol=0)
            torch.testing.assert_close(second[row], expected[-1], atol=self.tolerance, rtol=0)

    @torch.inference_mode()
    def test_the_cache_is_never_advanced_inside(self, model: CausalLM) -> None:
        """A pass that is abandoned can be done again, with the same result."""
        ids = self.ids(model, 1, 4)
        cache = model.make_cache(1, 6)
        first = model.forward_embeds(model.embed(ids), cache)
        assert cache.lengths == (0,)
        assert torch.equal(first, model.forward_embeds(model.embed(ids), cache))

    @torch.inference_mode()
    def test_truncating_goes_back(self, model: CausalLM) -> None:
        """After `truncate`, another continuation is as if the first had never been."""
        ids, cache = self.ids(model, 1, 10), own_cache(model.make_cache(1, 10))
        model.forward_embeds(model.embed(ids), cache)
        cache.advance([10])
        cache.truncate([4])
        other = self.ids(model, 1, 3, seed=5)
        logits = model.forward_embeds(model.embed(other), cache, logits="all")
        expected = self.whole(model, torch.cat((ids[:, :4], other), 1))[:, 4:]
        torch.testing.assert_close(logits, expected, atol=self.tolerance, rtol=0)

    def test_prompt_keys_identify_positions(self, model: CausalLM) -> None:
        """One key a position in use; the same prefix has the same keys."""
        ids = self.ids(model, 2, 5)
        ids[1, :3] = ids[0, :3]
        ids[1, 3] = (ids[0, 3] + 1) % model.vocab_size
        prompt = model.embed_prompt(ids, [5, 4])
        assert tuple(map(len, prompt.keys)) == prompt.lengths == (5, 4)
        assert prompt.keys[0][:3] == prompt.keys[1][:3]
        assert prompt.keys[0][3] != prompt.keys[1][3]

    def test_unknown_inputs_are_refused(self, model: CausalLM) -> None:
        """Nothing handed to the model is silently ignored."""
        with pytest.raises(UsageError):
            model.embed_prompt(self.ids(model, 1, 3), [3], no_such_input=1)

    def test_a_cache_has_a_limit(self, model: CausalLM) -> None:
        """More positions than the model attends over are refused."""
        with pytest.raises(UsageError):
            model.make_cache(1, model.max_seq_len + 1)


class ModelFamilySuite:
    """Subclass it and define the fixtures ``family`` and ``config``, a ``model`` block it builds."""

    @pytest.fixture
    def family(self) -> ModelFamily:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    @pytest.fixture
    def config(self) -> Mapping[str, JSON]:
        """A ``model`` block."""
        raise NotImplementedError("a subclass defines this fixture")

    def build_text(self, config: Mapping[str, JSON]) -> CausalLMModule:
        """Builds the language model inside; a text family has no use for it."""
        return _no_text_model()

    def test_builds_on_the_meta_device(
        self, family: ModelFamily, config: Mapping[str, JSON]
    ) -> None:
        """No memory is taken before weights arrive."""
        module = family.build(config, self.build_text)
        assert isinstance(module, CausalLM)
        assert all(parameter.is_meta for parameter in module.parameters())

    def test_builtins_are_checkpoints(self, family: ModelFamily) -> None:
        """Every built-in model is a directory with a configuration."""
        for directory in family.builtins.values():
            assert (directory / "config.json").is_file()


def _no_text_model() -> NoReturn:
    raise AssertionError("this family has no language model inside")
