import pytest
import torch
from contract import SHAPES_ON, OnnxContract, millions

from cfii import create_model
from cfii.codecs.swinunet import Expand


class TestSwinUNet(OnnxContract):
    """timm computes its windows' masks from the size: torch does not come to an end with symbols for sizes."""

    name = "swinunet"
    compiles = exports = onnx = "one size"


@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameters_of_the_paper(in_channels):
    with torch.device(SHAPES_ON):
        base = create_model("swinunet", 9, in_channels, cfii=False)
        model = create_model("swinunet", 9, in_channels)
    assert millions(base) == pytest.approx(27.17, rel=1e-3)
    assert millions(model) < millions(base)


def test_expand_lays_the_pieces_of_a_pixel_side_by_side():
    expand = Expand(3, 2, scale=2)
    x = torch.zeros(1, 2, 3, 3)
    x[0, 1, 2] = torch.randn(3)
    y = expand(x)
    assert y.shape == (1, 4, 6, 2)
    rows, columns = y[0].detach().abs().sum(-1).nonzero(as_tuple=True)
    assert set(rows.tolist()) == {2, 3} and set(columns.tolist()) == {4, 5}


@pytest.mark.parametrize("image_size", [None, 64, (96, 160)])
def test_made_for_a_size_runs_at_others(image_size):
    model = create_model("swinunet", 3, image_size=image_size).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 130, 70)).shape == (1, 3, 130, 70)
