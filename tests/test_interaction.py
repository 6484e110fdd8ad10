import literal
import pytest
import torch
from parity import assert_parity

from cfii import CIT, SIT

SIZES = [(1, 1), (7, 7), (6, 10)]
WIDTHS = [(4, 1), (15, 1), (15, 3), (32, 1), (32, 8)]  # channels, heads
LITERAL = {SIT: literal.sit, CIT: literal.cit}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("num_classes", [2, 9, 117])
@pytest.mark.parametrize(("channels", "num_heads"), WIDTHS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interaction", [SIT, CIT])
def test_is_its_equations(interaction, dtype, num_classes, channels, num_heads, size):
    # 32 channels with 8 heads cover both of CIT's orders: folded for 2 classes, plain from 9 on.
    inputs = [torch.randn(2, num_classes, channels), torch.randn(2, channels, *size)]
    assert_parity(interaction(channels, num_heads), LITERAL[interaction], inputs, dtype)


@pytest.mark.parametrize("interaction", [SIT, CIT])
def test_channels_last_gives_the_same(interaction):
    module, e, f = interaction(16).double(), torch.randn(2, 5, 16).double(), torch.randn(2, 16, 8, 6).double()
    for a, b in zip(module(e, f), module(e, f.to(memory_format=torch.channels_last)), strict=True):
        torch.testing.assert_close(a, b)


def test_cit_embeddings_do_not_grow_with_the_image():
    module, e = CIT(8), torch.randn(1, 3, 8)
    small = torch.randn(1, 8, 4, 4)
    large = small.repeat(1, 1, 16, 16)  # the same pixels, 256 times
    torch.testing.assert_close(module(e, small)[0], module(e, large)[0], rtol=1e-4, atol=1e-5)


def test_cit_keeps_the_embedding_of_an_unattended_class():
    module = CIT(4)
    e, f = torch.randn(1, 3, 4), torch.randn(1, 4, 5, 5)
    with torch.no_grad():  # the scores are q's bias times the keys: +-1e4 for two opposite embeddings
        module.q.weight.zero_()
        module.k.weight.copy_(torch.eye(4))
        module.q.bias.copy_(1e4 * torch.tensor([1.0, -1.0, 0.0, 0.0]))
        e[0, 0], e[0, 1] = torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([-1.0, 1.0, 0.0, 0.0])
    torch.testing.assert_close(module(e, f)[0][0, 1], e[0, 1])


def test_half_precision_does_not_overflow():
    module = CIT(4)
    e, f = torch.randn(1, 3, 4), 100 * torch.randn(1, 4, 1024, 1024)
    expected = module(e, f)[0]
    with torch.autocast("cpu", torch.float16):
        embeddings = module(e, f)[0]
    torch.testing.assert_close(embeddings.float(), expected, rtol=0.02, atol=0.02)


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match=r"num_heads: expected a divisor of the 10 channels \(\[1, 2, 5, 10\]"):
        SIT(10, num_heads=3)
    with pytest.raises(ValueError, match=r"embeddings: expected class embeddings \(B, N, 8\)"):
        CIT(8)(torch.randn(2, 3, 7), torch.randn(2, 8, 4, 4))
    with pytest.raises(ValueError, match="features: expected a feature map"):
        SIT(8)(torch.randn(2, 3, 8), torch.randn(2, 7, 4, 4))
    with pytest.raises(ValueError, match="ffn_ratio"):
        SIT(8, ffn_ratio=0)
