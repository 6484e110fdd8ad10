"""Encoders and models of SMP and timm, as users bring them."""

from types import SimpleNamespace

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from contract import dead_parameters
from torch import nn

from cfii import CFIIWrapper
from cfii.features import read

# architecture, encoder, image size, the stages its decoder reads
SMP = [
    ("Unet", "resnet18", 64, [1, 2, 3, 4, 5]),
    ("Unet", "mit_b0", 64, [2, 3, 4, 5]),
    ("UnetPlusPlus", "resnet18", 64, [1, 2, 3, 4, 5]),
    ("MAnet", "mobilenet_v2", 64, [1, 2, 3, 4, 5]),
    ("Linknet", "resnet18", 64, [1, 2, 3, 4, 5]),
    ("FPN", "resnet18", 64, [2, 3, 4, 5]),
    ("PSPNet", "resnet18", 64, [3]),
    ("PAN", "resnet18", 128, [2, 3, 4, 5]),
    ("DeepLabV3", "resnet18", 64, [5]),
    ("DeepLabV3Plus", "resnet18", 64, [2, 5]),
    ("UPerNet", "tu-convnext_atto", 64, [2, 3, 4, 5]),
    ("Segformer", "mit_b0", 64, [2, 3, 4, 5]),
    ("DPT", "tu-vit_tiny_patch16_224", 224, [0, 1, 2, 3]),
]


def assert_alive(model, images):
    assert dead_parameters(model.train(), images) == []


@pytest.mark.parametrize(("architecture", "encoder", "size", "stages"), SMP)
def test_from_smp(architecture, encoder, size, stages):
    inner = getattr(smp, architecture)(encoder, encoder_weights=None, classes=3)
    model = CFIIWrapper.from_smp(inner)
    assert (
        model.encoder is inner.encoder
        and model.decoder is inner.decoder
        and model.head is inner.segmentation_head
    )
    assert model.stages == stages and model.num_classes == 3
    assert_alive(model, torch.randn(2, 3, size, size))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        plain, with_neck = inner.eval()(images), model.eval()(images)
    assert with_neck.shape == plain.shape


def test_from_smp_follows_a_pass_through_neck():
    """With the neck's changes switched off, the wrapped model is the model, at more sizes."""
    inner = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=2).eval()
    model = CFIIWrapper.from_smp(inner).eval()
    with torch.no_grad():
        for module in model.neck.iterator.interaction:
            for projection in (module.out, module.ffn.fc2):
                projection.weight.zero_(), projection.bias.zero_()
        for module in model.neck.iterator.feu:
            module.spatial.bias.fill_(1e3), module.channel.bias.fill_(-1e3)
        images = torch.randn(1, 1, 64, 96)
        torch.testing.assert_close(model(images), inner(images))
        assert model(torch.randn(1, 1, 45, 71)).shape == (1, 2, 45, 71)


def test_from_smp_takes_options():
    inner = smp.FPN("resnet18", encoder_weights=None, classes=2)
    model = CFIIWrapper.from_smp(inner, stages=[4, 5], embeddings="learned")
    assert model.stages == [4, 5] and model.neck.eceg is None


def test_from_smp_names_what_it_cannot_take():
    with pytest.raises(TypeError, match="smp_model: expected a segmentation_models_pytorch model"):
        CFIIWrapper.from_smp(nn.Conv2d(3, 3, 1))
    with_labels = smp.Unet("resnet18", encoder_weights=None, classes=2, aux_params={"classes": 4})
    with pytest.raises(ValueError, match="without a classification head"):
        CFIIWrapper.from_smp(with_labels)


class Sum(nn.Module):
    """A decoder for any widths: 1×1 to 8 channels, at the shallowest stage's size."""

    def __init__(self, widths):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, 8, 1) for width in widths)

    def forward(self, features):
        maps = [conv(f) for conv, f in zip(self.convs, features, strict=True)]
        return sum(nn.functional.interpolate(m, features[0].shape[2:]) for m in maps)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet18", {}, (65, 97)),
        ("convnext_atto", {}, (64, 96)),
        ("efficientnet_b0", {"in_chans": 4}, (64, 64)),
        ("rexnet_100", {}, (64, 64)),  # odd widths
        ("swin_tiny_patch4_window7_224", {}, (224, 224)),  # NHWC, bound to its image size
        ("swin_tiny_patch4_window7_224", {"img_size": (64, 96), "window_size": 4}, (64, 96)),
        ("mambaout_femto", {}, (64, 64)),  # NHWC
        ("vgg11", {}, (64, 64)),  # full resolution first
        ("hrnet_w18_small", {}, (64, 64)),
    ],
)
@pytest.mark.parametrize("built", [True, False])
def test_timm_pyramids(name, options, size, built):
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    encoder = timm.create_model(name, features_only=True, pretrained=False, **options)
    widths = encoder.feature_info.channels()
    model = CFIIWrapper(encoder, Sum(widths) if built else Sum, 3)
    assert model.neck.in_channels == widths
    in_channels = options.get("in_chans", 3)
    assert_alive(model, torch.randn(2, in_channels, *size))
    assert model(torch.randn(2, in_channels, *size)).shape == (2, 3, *size)


def test_output_forms():
    a, b, token = torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 4, 4), torch.zeros(1, 5)
    for output in ([a, b], (a, b), {"x": a, "y": b}, SimpleNamespace(feature_maps=(a, b))):
        maps, extras = read(output)
        assert maps[0] is a and maps[1] is b and extras == ()
    maps, extras = read(([a, b], [token]))
    assert maps[1] is b and extras[0][0] is token
    for wrong in (a, [], {}, None):
        with pytest.raises(TypeError, match="encoder: expected it to return a list, tuple or dict"):
            read(wrong)
    with pytest.raises(ValueError, match="its map 1 is a tensor of shape"):
        read([a, token])
