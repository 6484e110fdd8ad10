"""Weights: what a test saves is what a network starts from; names reach timm and SMP."""

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file

from cfii import create_model

# A network's name and options, and the module whose weights its encoder takes.
CASES = {
    "timm": ("timm-unet", {"encoder_name": "resnet10t"}, lambda: timm.create_model("resnet10t")),
    "swinunet": ("swinunet", {}, lambda: timm.create_model("swin_tiny_patch4_window7_224")),
    "tu-": ("smp-unet", {"encoder_name": "tu-resnet10t"}, lambda: timm.create_model("resnet10t")),
    "smp": ("smp-fpn", {"encoder_name": "resnet18"}, lambda: smp.encoders.get_encoder("resnet18")),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """Name and options of a network, a module like its encoder, and the file of that module's weights."""
    name, options, make = CASES[request.param]
    module = make()
    for x in module.state_dict().values():
        if x.is_floating_point():
            x.normal_(std=0.02)
    path = tmp_path / "weights.safetensors"
    save_file(module.state_dict(), path)
    return name, options, module, path


def flat(module):
    """The state with names as timm flattens them: layers.0 is layers_0 in its feature encoders."""
    return {key.removeprefix("model.").replace(".", "_"): x for key, x in module.state_dict().items()}


def test_weights_from_a_file(case):
    name, options, module, path = case
    encoder = create_model(name, 3, encoder_weights=str(path), **options).encoder
    own, given = flat(encoder), flat(module)
    assert own and set(own) <= set(given)
    assert all(torch.equal(x, given[key]) for key, x in own.items())


def test_grey_images_adapt_the_first_convolution_as_timm_does(tmp_path):
    module = timm.create_model("resnet10t")
    path = tmp_path / "weights.safetensors"
    save_file(module.state_dict(), path)
    encoder = create_model("timm-unet", 3, 1, encoder_name="resnet10t", encoder_weights=str(path)).encoder
    first, given = (next(p for p in m.parameters() if p.ndim == 4) for m in (encoder, module))
    torch.testing.assert_close(first, given.sum(1, keepdim=True))


@pytest.mark.parametrize("weights", [True, "imagenet"])
@pytest.mark.parametrize(("name", "prefix"), [("timm-unet", ""), ("smp-unet", "tu-")])
def test_timms_own_weights_are_asked_for(name, prefix, weights, monkeypatch):
    asked = []
    create = timm.create_model

    def recorded(model_name, pretrained=False, **options):
        asked.append(pretrained)
        return create(model_name, **options)

    monkeypatch.setattr(timm, "create_model", recorded)
    create_model(name, 3, encoder_name=prefix + "resnet10t", encoder_weights=weights)
    assert asked[-1] is True
    create_model(name, 3, encoder_name=prefix + "resnet10t")
    assert asked[-1] is False


def test_smps_own_weights_are_asked_for(monkeypatch, tmp_path):
    module = smp.encoders.get_encoder("resnet18")
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def downloaded(repo_id, filename, revision):
        asked.append(repo_id)
        return tmp_path / filename

    monkeypatch.setattr(smp.encoders, "hf_hub_download", downloaded)
    for weights in ("imagenet", True):
        encoder = create_model("smp-unet", 3, encoder_name="resnet18", encoder_weights=weights).encoder
        assert asked and torch.equal(encoder.conv1.weight, module.conv1.weight)


def test_wrong_weights_are_named(tmp_path):
    other = tmp_path / "weights.pth"
    other.write_bytes(b"")
    for path in (str(other), "missing.safetensors"):
        for name, encoder in (("timm-unet", "resnet10t"), ("smp-unet", "resnet18"), ("smp-unet", "tu-resnet10t")):
            with pytest.raises(ValueError, match=r"encoder_weights: expected .*\.safetensors file, got"):
                create_model(name, 3, encoder_name=encoder, encoder_weights=path)
