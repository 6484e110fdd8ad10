import literal
import pytest
import torch
from parity import assert_parity

from cfii import CIT, SIT, InteractiveIterator

CHANNELS, STRIDES = [8, 12, 15, 15], [1, 2, 4, 4]


def stages(num_classes=3):
    sizes = [(12, 10), (6, 5), (3, 3), (3, 3)]
    return (
        [torch.randn(2, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)],
        [torch.randn(2, num_classes, c) for c in CHANNELS],
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("update_embeddings", [True, False])
@pytest.mark.parametrize("update_features", [True, False])
def test_runs_from_deep_to_shallow(dtype, update_embeddings, update_features):
    iterator = InteractiveIterator(
        CHANNELS, STRIDES, update_embeddings=update_embeddings, update_features=update_features
    )
    # The shallowest stage's E' and nothing else depends on some last projections: all outputs are weighed.
    assert_parity(iterator, literal.iterate, list(stages()), dtype)


def test_interaction_is_chosen_by_stride():
    kinds = [type(m) for m in InteractiveIterator(CHANNELS, STRIDES).interaction]
    assert kinds == [CIT, CIT, SIT, SIT]
    kinds = [type(m) for m in InteractiveIterator(CHANNELS, STRIDES, sit_min_stride=8).interaction]
    assert kinds == [CIT] * 4


def test_inputs_are_left_alone():
    features, embeddings = stages()
    before = [list(features), list(embeddings)]
    InteractiveIterator(CHANNELS, STRIDES)(features, embeddings)
    assert all(
        a is b for x, y in zip(before, (features, embeddings), strict=True) for a, b in zip(x, y, strict=True)
    )


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match=r"strides: expected.*do not decrease.*\[4, 2\]"):
        InteractiveIterator([8, 8], [4, 2])
    with pytest.raises(ValueError, match="strides: expected one for each of the"):
        InteractiveIterator([8, 8], [4])
    features, embeddings = stages()
    with pytest.raises(ValueError, match="embeddings: expected 4 stages, got 3"):
        InteractiveIterator(CHANNELS, STRIDES)(features, embeddings[:3])
    with pytest.raises(TypeError, match="heads"):
        InteractiveIterator(CHANNELS, STRIDES, heads=2)
