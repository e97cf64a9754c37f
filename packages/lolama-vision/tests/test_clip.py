from __future__ import annotations

import pytest
import torch
from oracle import close, copy_clip, reference_clip, vision_config

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
def test_the_activations_differ_by_more_than_the_tolerance() -> None:
    theirs = reference_clip()
    outputs = []
    for activation in ("quick_gelu", "gelu"):
        ours = CLIPVisionEncoder(vision_config(activation=activation))
        copy_clip(theirs, ours)
        outputs.append(ours(PIXELS))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


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
