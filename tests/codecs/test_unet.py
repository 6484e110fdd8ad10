import pytest
import torch
from contract import OnnxContract, millions

from cfii import create_model
from cfii.codecs.unet import UNetEncoder


class TestUNet(OnnxContract):
    name = "unet"
    options = {"widths": [8, 12, 16]}


@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameters_of_the_paper(in_channels):
    with torch.device("meta"):
        base = create_model("unet", 9, in_channels, cfii=False)
        model = create_model("unet", 9, in_channels)
    assert millions(base) == pytest.approx(31.04, rel=1e-3)
    assert millions(model) < millions(base)


def test_encoder():
    features = UNetEncoder(1, widths=(4, 8, 12))(torch.randn(2, 1, 16, 12))
    assert [f.shape for f in features] == [(2, 4, 16, 12), (2, 8, 8, 6), (2, 12, 4, 3)]


def test_half_width_decoder():
    full, half = (create_model("unet", 9, widths=[8, 12, 16], cfii=cfii).decoder for cfii in (False, True))
    assert [block.up.out_channels for block in full.blocks] == [8, 12]
    assert [block.up.out_channels for block in half.blocks] == [4, 6]
