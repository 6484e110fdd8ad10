import literal
import pytest
import torch
from parity import assert_parity

from cfii import CEU, FEU


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("num_classes", [2, 9, 117])
@pytest.mark.parametrize(("deep_channels", "channels"), [(16, 8), (7, 15), (8, 8)])
def test_ceu_is_equations_15_and_16(dtype, num_classes, deep_channels, channels):
    inputs = [torch.randn(2, num_classes, deep_channels), torch.randn(2, num_classes, channels)]
    assert_parity(CEU(deep_channels, channels), literal.ceu, inputs, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("deep_channels", "channels"), [(16, 8), (7, 15), (8, 8)])
@pytest.mark.parametrize(
    ("deep_size", "size"),
    [((1, 1), (1, 1)), ((1, 1), (3, 2)), ((4, 4), (8, 8)), ((5, 3), (9, 6)), ((6, 6), (6, 6))],
)
def test_feu_is_equations_17_to_19(dtype, deep_channels, channels, deep_size, size):
    inputs = [torch.randn(2, deep_channels, *deep_size), torch.randn(2, channels, *size)]
    assert_parity(FEU(deep_channels, channels), literal.feu, inputs, dtype)


def test_feu_keeps_channels_last():
    module = FEU(16, 8).double()
    deep, f = torch.randn(2, 16, 4, 3).double(), torch.randn(2, 8, 8, 6).double()
    last = module(deep.to(memory_format=torch.channels_last), f.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, module(deep, f))


def test_without_gradients_gives_the_same():
    module, deep, f = FEU(16, 8), torch.randn(2, 16, 4, 3), torch.randn(2, 8, 8, 6, requires_grad=True)
    expected = module(deep, f)
    with torch.no_grad():
        torch.testing.assert_close(module(deep, f), expected)


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match=r"deep_features: expected a feature map \(B, 16, H, W\)"):
        FEU(16, 8)(torch.randn(2, 8, 4, 4), torch.randn(2, 8, 8, 8))
    with pytest.raises(ValueError, match=r"deep_embeddings: expected class embeddings \(B, N, 16\)"):
        CEU(16, 8)(torch.randn(2, 3, 8), torch.randn(2, 3, 8))
