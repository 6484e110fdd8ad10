import literal
import pytest
import torch
from parity import assert_parity

from cfii import CSA, ECEG


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("num_classes", [2, 9, 117])
@pytest.mark.parametrize("channels", [4, 15, 32])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (6, 10)])
def test_is_equations_1_to_8(dtype, num_classes, channels, size):
    assert_parity(ECEG(channels, num_classes), literal.eceg, [torch.randn(2, channels, *size)], dtype)


def test_channels_last_gives_the_same():
    module, x = ECEG(16, 5).double(), torch.randn(2, 16, 8, 6).double()
    for a, b in zip(module(x), module(x.to(memory_format=torch.channels_last)), strict=True):
        torch.testing.assert_close(a, b)


def test_csa_is_equations_2_and_3():
    module, x = CSA(8).double(), torch.randn(2, 8, 9, 5).double()
    channel_gate, spatial_gate = module(x)
    torch.testing.assert_close(spatial_gate * channel_gate[:, :, None, None] * x, literal.csa(module, x))


def test_makes_no_map_per_class():
    """Saved for the backward: a few maps of C channels and of N, never N maps of C."""
    channels, num_classes, pixels = 16, 40, 32 * 32
    saved = {}

    def pack(x):
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    module = ECEG(channels, num_classes)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        module(torch.randn(1, channels, 32, 32, requires_grad=True))
    assert sum(saved.values()) < 4 * pixels * (4 * channels + 2 * num_classes)


def test_half_precision_does_not_overflow():
    module, x = ECEG(4, 3), 100 * torch.randn(1, 4, 1024, 1024).abs()
    expected = module(x)[0]
    with torch.autocast("cpu", torch.float16):
        embeddings = module(x)[0]
    assert embeddings.isfinite().all()
    torch.testing.assert_close(embeddings.float(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def test_wrong_width_is_named():
    with pytest.raises(ValueError, match=r"features: expected a feature map \(B, 8, H, W\).*\(2, 7, 4, 4\)"):
        ECEG(8, 3)(torch.randn(2, 7, 4, 4))
    with pytest.raises(ValueError, match="num_classes"):
        ECEG(8, 0)
