import pytest
import torch
from contract import CodecContract, OnnxContract

from cfii import create_model
from cfii.codecs.timm import PyramidDecoder


class TestResNet(CodecContract):
    """Strides 2 to 32."""

    name = "timm-unet"
    options = {"encoder_name": "resnet10t"}


class TestConvNeXt(OnnxContract):
    """Strides 4 to 32."""

    name = "timm-unet"
    options = {"encoder_name": "convnext_atto"}


class TestDarkNet(CodecContract):
    """From stride 1 on."""

    name = "timm-unet"
    options = {"encoder_name": "sedarknet21"}


class TestSwin(CodecContract):
    """(B, H, W, C). For its flags see test_swinunet.py."""

    name = "timm-unet"
    compiles = exports = "one size"
    options = {"encoder_name": "swin_tiny_patch4_window7_224", "image_size": (64, 96)}


class TestOddWidths(CodecContract):
    name = "timm-unet"
    options = {"encoder_name": "gernet_s"}


def test_decoder_goes_on_to_the_images_size():
    decoder = PyramidDecoder([48, 96], strides=[4, 8])
    assert [block.convs[0].out_channels for block in decoder.blocks] == [48, 24, 12]
    assert decoder([torch.randn(1, 48, 5, 4), torch.randn(1, 96, 3, 2)]).shape == (1, 12, 20, 16)
    assert PyramidDecoder([8, 9], strides=[2, 4]).blocks[-1].convs[0].out_channels == 8


def test_encoder_made_for_one_size():
    model = create_model("timm-unet", 3, encoder_name="coatnet_pico_rw_224").eval()  # 224², no other
    with torch.no_grad():
        assert model(torch.randn(1, 3, 100, 224)).shape == (1, 3, 100, 224)
        with pytest.raises(ValueError, match=r"images: expected at most \(224, 224\) pixels"):
            model(torch.randn(1, 3, 100, 225))
        other = create_model("timm-unet", 3, image_size=(64, 96), encoder_name="coatnet_pico_rw_224").eval()
        assert other(torch.randn(1, 3, 64, 96)).shape == (1, 3, 64, 96)


def test_wrong_names_are_explained():
    with pytest.raises(TypeError, match="'timm-unet' needs encoder_name="):
        create_model("timm-unet", 3)
    with pytest.raises(ValueError, match=r"encoder_name: .* got 'resnet19'; did you mean resnet1"):
        create_model("timm-unet", 3, encoder_name="resnet19")
    with pytest.raises(
        ValueError, match=r'one stride \(16\).* use create_model\("smp-dpt", encoder_name="tu-vit_tiny'
    ):
        create_model("timm-unet", 3, encoder_name="vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"strides \[14, .*CFIIWrapper"):
        create_model("timm-unet", 3, encoder_name="vit_small_patch14_dinov2")
    with pytest.raises(
        ValueError, match=r"(strides \[12, 17\]; expected a pyramid|timm .* does not give the maps).*CFIIWrapper"
    ):
        create_model("timm-unet", 3, encoder_name="crossvit_9_240")
    with pytest.raises(TypeError, match="drop_pth_rate"):
        create_model("timm-unet", 3, encoder_name="resnet10t", drop_pth_rate=0.1)


def test_a_model_without_maps_is_named(monkeypatch):
    """As timm 1.0.8 has some; other errors of timm's stay its own."""

    def fail(name, **options):
        raise RuntimeError(message)

    monkeypatch.setattr("timm.create_model", fail)
    message = "features_only not implemented for Vision Transformer models."
    with pytest.raises(
        ValueError, match=r"encoder_name: timm .* does not give the maps of 'resnet18' .*CFIIWrapper"
    ):
        create_model("timm-unet", 3, encoder_name="resnet18")
    message = "out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):
        create_model("timm-unet", 3, encoder_name="resnet18")
