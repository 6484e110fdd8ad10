import pytest
import segmentation_models_pytorch as smp
import torch
from contract import FINDS_SIZES, CodecContract, OnnxContract, check_onnx, dead_parameters

from cfii import CFIIWrapper, create_model
from cfii.codecs.smp import with_half_widths


class SMPContract(CodecContract):
    shapes_on = "cpu"


class TestUnet(SMPContract, OnnxContract):
    name = "smp-unet"
    options = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": [32, 16, 16]}


class TestUnetPlusPlus(SMPContract):
    name = "smp-unetplusplus"
    options = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": [32, 16, 16]}


class TestMAnet(SMPContract):
    name = "smp-manet"
    options = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": [32, 16, 16]}


class TestLinknet(SMPContract):
    name = "smp-linknet"
    options = {"encoder_name": "resnet18", "encoder_depth": 3}


class TestFPN(SMPContract):
    name = "smp-fpn"
    options = {"encoder_name": "resnet18", "encoder_depth": 3}


class TestPSPNet(SMPContract, OnnxContract):
    """Its pooling to 2 × 2 and more has new windows at every size, which the ONNX exporter fixes to those of the
    example: onnxruntime fails on others."""

    onnx = "one size"
    name = "smp-pspnet"
    options = {"encoder_name": "resnet18"}


class TestPAN(SMPContract):
    """Its decoder pools the deepest map three times: images must have 128 pixels or more, and torch.export's
    solver fails on the sizes of the pooled maps as symbols."""

    name = "smp-pan"
    exports = "one size"
    options = {"encoder_name": "resnet18", "encoder_depth": 3}
    size = (128, 160)
    odd_size = (131, 150)


class TestDeepLabV3(SMPContract):
    name = "smp-deeplabv3"
    options = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": 32}


class TestDeepLabV3Plus(SMPContract):
    name = "smp-deeplabv3plus"
    options = {"encoder_name": "resnet18", "encoder_depth": 3}


class TestUPerNet(SMPContract):
    """Pools as PSPNet does: ONNX for one size. torch 2.4 does not compile its enumerate(…, start=1)."""

    name = "smp-upernet"
    options = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": 32}
    compiles = "any size" if FINDS_SIZES else "never"


class TestSegformer(SMPContract):
    name = "smp-segformer"
    options = {"encoder_name": "resnet18", "encoder_depth": 3}


class TestDPT(SMPContract, OnnxContract):
    """Prefix tokens beside the maps; the decoder halves the deepest map once more."""

    name = "smp-dpt"
    options = {
        "encoder_name": "tu-vit_tiny_patch16_224",
        "decoder_intermediate_channels": [16, 32, 32, 32],
        "decoder_fusion_channels": 32,
    }


def test_widths_are_halved():
    options = with_half_widths(smp.Unet, {"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]})
    assert options == {"encoder_depth": 4, "decoder_channels": [32, 16, 8, 4]}
    assert with_half_widths(smp.MAnet, {})["decoder_pab_channels"] == 32
    assert with_half_widths(smp.PSPNet, {}) == {"psp_out_channels": 256}
    assert with_half_widths(smp.Linknet, {}) == {}
    scse = {"decoder_attention_type": "scse", "decoder_channels": [64, 16, 8]}
    assert with_half_widths(smp.Unet, scse)["decoder_channels"] == [32, 16, 8]


@pytest.mark.parametrize("name", ["smp-unet", "smp-upernet", "smp-deeplabv3", "smp-dpt"])
def test_plain_form_is_smps_own(name):
    encoder = "tu-vit_tiny_patch16_224" if name == "smp-dpt" else "resnet18"
    model = create_model(name, 3, encoder_name=encoder, cfii=False).eval()
    classes = {"unet": smp.Unet, "upernet": smp.UPerNet, "deeplabv3": smp.DeepLabV3, "dpt": smp.DPT}
    extra = {"dynamic_img_size": True} if name == "smp-dpt" else {}
    theirs = classes[name.removeprefix("smp-")](encoder, encoder_weights=None, classes=3, **extra).eval()
    theirs.encoder.load_state_dict(model.encoder.state_dict())
    theirs.decoder.load_state_dict(model.decoder.decoder.state_dict())
    theirs.segmentation_head.load_state_dict(model.decoder.head.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs(images))


def test_centre_block_of_vgg_is_kept():
    model = create_model("smp-unet", 3, encoder_name="vgg11")
    assert len(list(model.decoder.decoder.center.parameters())) > 0


def test_the_registry_of_encoders_is_left_as_it_was():
    names = set(smp.encoders.encoders)
    create_model("smp-unet", 3, encoder_name="resnet18")
    with pytest.raises(ValueError):
        create_model("smp-unet", 3, encoder_name="resnet18", decoder_channels=[8])
    assert set(smp.encoders.encoders) == names


def test_wrong_options_are_named():
    with pytest.raises(
        TypeError, match="unknown argument decoder_chanels; 'smp-unet' with encoder 'resnet18' takes"
    ):
        create_model("smp-unet", 3, encoder_name="resnet18", decoder_chanels=[8])
    with pytest.raises(TypeError, match="unknown argument activation"):
        create_model("smp-unet", 3, encoder_name="resnet18", activation="sigmoid")
    with pytest.raises(TypeError, match="drop_pth_rate"):
        create_model("smp-unet", 3, encoder_name="tu-resnet10t", drop_pth_rate=0.1)
    with pytest.raises(ValueError, match=r"encoder_name: expected one of SMP's.* did you mean resnet18"):
        create_model("smp-unet", 3, encoder_name="resnet19")
    with pytest.raises(ValueError, match="encoder_weights: Wrong pretrained weights `imagenett`"):
        create_model("smp-unet", 3, encoder_name="resnet18", encoder_weights="imagenett")
    with pytest.raises(ValueError, match="encoder_name: expected"):
        create_model("smp-unet", 3, encoder_name="tu-resnet19")


ARCHITECTURES = {
    **{name: ("resnet18", "tu-convnext_atto") for name in ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN")},
    **{name: ("resnet18", "mit_b0") for name in ("PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet")},
    "Segformer": ("mit_b0", "tu-swin_tiny_patch4_window7_224"),
    "DPT": ("tu-vit_tiny_patch16_224", "tu-vit_base_patch16_siglip_224"),
}


@pytest.mark.parametrize(("name", "encoder"), [(n, e) for n, es in ARCHITECTURES.items() for e in es])
def test_from_smp_keeps_the_weights(name, encoder):
    if not FINDS_SIZES and "convnext" in encoder and name in ("UnetPlusPlus", "Linknet"):
        pytest.skip("SMP convolves maps of no channels there, which torch 2.4 refuses")
    options = {"decoder_readout": "ignore"} if "siglip" in encoder else {}
    theirs = getattr(smp, name)(encoder, encoder_weights=None, classes=3, **options)
    size = (224, 224) if encoder.startswith("tu-") and "224" in encoder else (128, 160)
    images = torch.randn(2, 3, *size)
    model = CFIIWrapper.from_smp(theirs)
    assert model.encoder is theirs.encoder and model.decoder is theirs.decoder
    assert dead_parameters(model.train(), images) == []
    with torch.no_grad():
        torch.testing.assert_close(model.plain().eval()(images), theirs.eval()(images))


def test_onnx_of_a_built_decoder(tmp_path, monkeypatch):
    options = {"encoder_depth": 3, "decoder_channels": [32, 16, 16], "in_channels": 1}
    theirs = smp.Unet("mobilenet_v2", encoder_weights=None, classes=3, **options)
    check_onnx(CFIIWrapper.from_smp(theirs), tmp_path, monkeypatch, 64, "any size")
