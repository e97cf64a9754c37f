from __future__ import annotations

from typing import Any

import pytest
import torch
from oracle import SIGLIP, close, copy_clip, reference_clip, reference_siglip, vision_config

from lolama_core.protocols.errors import ModelError
from lolama_vision import CLIPVisionEncoder, VisionConfig

PIXELS = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("layer", [-5, -3, -2, -1, 0, 1, 2, 3, 4])
def test_features_of_every_layer_equal_transformers(layer: int, activation: str) -> None:
    theirs = reference_clip(hidden_act=activation)
    expected = theirs(PIXELS, output_hidden_states=True).hidden_states[layer]
    for keep in (False, True):
        config = vision_config(feature_layer=layer, activation=activation, keep_class_token=keep)
        ours = CLIPVisionEncoder(config)
        copy_clip(theirs, ours)
        features = ours(PIXELS)
        assert features.shape[1] == config.features_per_tile
        close(features, expected if keep else expected[:, 1:])


@torch.inference_mode()
@pytest.mark.parametrize("side", [56, 60])
@pytest.mark.parametrize("layer", [-5, -2, -1, 0, 1, 4])
def test_features_of_siglip_equal_transformers(layer: int, side: int) -> None:
    """60 is no multiple of a patch: what is left over at the right and at the bottom is not seen."""
    theirs = reference_siglip(image_size=side)
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    result = theirs(pixels, output_hidden_states=True)
    config = vision_config(feature_layer=layer, image_size=side, **SIGLIP)
    ours = CLIPVisionEncoder(config)
    copy_clip(theirs, ours)
    features = ours(pixels)
    assert features.shape == (3, config.features_per_tile, 32)
    close(features, result.hidden_states[layer])


@torch.inference_mode()
def test_features_behind_the_last_norm_equal_transformers() -> None:
    theirs = reference_siglip()
    ours = CLIPVisionEncoder(vision_config(feature_layer=-1, post_norm=True, **SIGLIP))
    copy_clip(theirs, ours)
    close(ours(PIXELS), theirs(PIXELS).last_hidden_state)


@torch.inference_mode()
@pytest.mark.parametrize("layers", [(-2, -4, 1), (0, 4), (3, 3), (-1,)])
@pytest.mark.parametrize("keep", [False, True])
def test_features_of_several_layers_stand_side_by_side(layers: tuple[int, ...], keep: bool) -> None:
    theirs = reference_clip()
    states = theirs(PIXELS, output_hidden_states=True).hidden_states
    config = vision_config(feature_layer=layers, keep_class_token=keep)
    ours = CLIPVisionEncoder(config)
    copy_clip(theirs, ours)
    features = ours(PIXELS)
    assert features.shape[2] == config.feature_width
    assert len(ours.layers) == max(config.feature_layers)
    expected = torch.cat([states[layer] for layer in layers], dim=-1)
    close(features, expected if keep else expected[:, 1:])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feature_layer": []}, r"feature_layer: is \(\), expected 1 to 5 layers"),
        ({"feature_layer": [0, 5]}, r"feature_layer: is \(0, 5\), expected from -5 to 4"),
        ({"feature_layer": "-1"}, "feature_layer: is '-1', expected from -5 to 4"),
        ({"feature_layer": [1, 2], "post_norm": True}, "expected one layer, since post_norm"),
        ({"class_token": False, "keep_class_token": True}, "there is no class token"),
        ({"activation": "relu"}, "expected quick_gelu, gelu or gelu_tanh"),
        ({"patch_bias": 1}, "patch_bias: is 1, expected true or false"),
    ],
)
def test_switches_that_make_no_sense(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        vision_config(**changes)


@torch.inference_mode()
def test_the_activations_differ_by_more_than_the_tolerance() -> None:
    theirs = reference_clip()
    outputs = []
    for activation in ("quick_gelu", "gelu", "gelu_tanh"):
        ours = CLIPVisionEncoder(vision_config(activation=activation))
        copy_clip(theirs, ours)
        outputs.append(ours(PIXELS))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    assert (outputs[1] - outputs[2]).abs().max() > 1e-4


def test_layers_behind_the_feature_layer_are_not_made() -> None:
    published = VisionConfig()
    assert (published.layers_used, published.features_per_tile) == (23, 576)
    with torch.device("meta"):
        assert len(CLIPVisionEncoder(published).layers) == 23


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_with_wide_norms_and_biases(dtype: torch.dtype) -> None:
    theirs = reference_clip()
    ours = CLIPVisionEncoder(vision_config())
    copy_clip(theirs, ours)
    expected = ours(PIXELS)
    for parameter in ours.parameters():
        if parameter.dim() > 1:
            parameter.data = parameter.to(dtype)
    features = ours(PIXELS)
    assert features.dtype == torch.float32
    error = (features - expected).norm() / expected.norm()
    assert error < (0.02 if dtype == torch.bfloat16 else 0.003)
