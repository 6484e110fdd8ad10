import copy

import pytest
import torch
from contract import SHAPES_ON, OnnxContract, millions

from cfii import create_model


class TestTransUNet(OnnxContract):
    name = "transunet"

    @classmethod
    def shortened(cls, model):
        model = copy.deepcopy(model)
        model.encoder.vit.blocks = model.encoder.vit.blocks[:2]  # of twelve
        return model


@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameters_of_the_paper(in_channels):
    with torch.device(SHAPES_ON):
        base = create_model("transunet", 9, in_channels, cfii=False)
        model = create_model("transunet", 9, in_channels)
    assert millions(base) == pytest.approx(105.28, rel=1e-3)
    assert millions(model) < millions(base)


@torch.no_grad()
def test_attends_as_timm_does_at_its_own_size():
    encoder = create_model("transunet", 2, image_size=(64, 48), cfii=False).encoder.eval()
    torch.nn.init.normal_(encoder.vit.pos_embed, std=0.1)
    images = torch.randn(2, 3, 64, 48)
    tokens = encoder.vit.forward_features(images)[:, 1:]
    torch.testing.assert_close(encoder(images)[-1].flatten(2).transpose(1, 2), tokens, rtol=1e-4, atol=1e-4)
    assert [f.shape[1:] for f in encoder(images)] == [(64, 32, 24), (256, 16, 12), (512, 8, 6), (768, 4, 3)]


def test_the_upsamplers_widths_halve():
    with torch.device(SHAPES_ON):
        full, half = (create_model("transunet", 9, cfii=cfii).decoder for cfii in (False, True))
    assert [block.convs[0].out_channels for block in full.blocks] == [256, 128, 64, 16]
    assert [block.convs[0].out_channels for block in half.blocks] == [128, 64, 32, 8]
