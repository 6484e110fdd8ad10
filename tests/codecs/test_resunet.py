import pytest
import torch

from cfii import create_model
from cfii.codecs.resunet import ResUNetEncoder


def parameters(model):
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameters_of_the_paper(in_channels):
    assert parameters(create_model("resunet", num_classes=9, in_channels=in_channels)) == pytest.approx(
        23.49, abs=0.1
    )


def test_plain_form_is_the_same_codec_at_full_width():
    model, plain = create_model("resunet", num_classes=9), create_model("resunet", num_classes=9, cfii=False)
    assert plain.neck is None and plain.stages == []
    assert parameters(model.encoder) == parameters(plain.encoder)
    assert plain.decoder.blocks[0].up.out_channels == 64 and model.decoder.blocks[0].up.out_channels == 32
    output = plain(torch.randn(2, 3, 40, 33), return_aux=True)
    assert output.logits.shape == (2, 9, 40, 33) and output.embeddings == output.class_logits == []


def test_encoder():
    features = ResUNetEncoder(1, widths=(4, 8, 12))(torch.randn(2, 1, 16, 12))
    assert [f.shape for f in features] == [(2, 4, 16, 12), (2, 8, 8, 6), (2, 12, 4, 3)]


def test_every_parameter_learns_from_the_logits():
    model = create_model("resunet", num_classes=3, widths=(8, 12, 16))
    logits = model(torch.randn(2, 3, 20, 28))
    (logits * torch.randn_like(logits)).mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    "options",
    [{"embeddings": "learned"}, {"update_embeddings": False}, {"update_features": False}, {"num_heads": 2}],
)
def test_ablations(options):
    model = create_model("resunet", num_classes=3, widths=(8, 12, 16), **options)
    logits = model(torch.randn(2, 3, 16, 16))
    (logits * torch.randn_like(logits)).mean().backward()
    assert [n for n, p in model.neck.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
