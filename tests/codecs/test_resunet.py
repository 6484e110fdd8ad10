import pytest
import torch
from contract import OnnxContract, dead_parameters, millions

from cfii import create_model


class TestResUNet(OnnxContract):
    name = "resunet"
    options = {"widths": [8, 12, 16]}


@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameters_of_the_paper(in_channels):
    model = create_model("resunet", num_classes=9, in_channels=in_channels)
    assert millions(model) == pytest.approx(23.49, abs=0.1)


def test_plain_form_is_the_same_codec_at_full_width():
    model, plain = create_model("resunet", num_classes=9), create_model("resunet", num_classes=9, cfii=False)
    assert plain.neck is None and plain.stages == []
    assert millions(model.encoder) == millions(plain.encoder)
    assert plain.decoder.blocks[0].up.out_channels == 64 and model.decoder.blocks[0].up.out_channels == 32
    output = plain(torch.randn(2, 3, 40, 33), return_aux=True)
    assert output.logits.shape == (2, 9, 40, 33) and output.embeddings == output.class_logits == []


@pytest.mark.parametrize(
    "options",
    [{"embeddings": "learned"}, {"update_embeddings": False}, {"update_features": False}, {"num_heads": 2}],
)
def test_ablations(options):
    model = create_model("resunet", num_classes=3, widths=(8, 12, 16), **options)
    assert dead_parameters(model, torch.randn(2, 3, 16, 16)) == []
