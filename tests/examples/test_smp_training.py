import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_model
from scripts import load

from cfii import CFIIWrapper


def test_loss_falls_and_the_best_weights_are_kept(tmp_path):
    file = tmp_path / "best.safetensors"
    model, losses, scores = load("smp_training").main(["--size", "32", "--epochs", "1", "--out", str(file)])
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    assert 0.1 < scores[0] < 1

    again = CFIIWrapper.from_smp(smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=9))
    load_model(again, file)
    images = torch.randn(1, 1, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), model.eval()(images))
    assert model(images).shape == (1, 9, 32, 40)


def test_folder(folder, tmp_path):
    arguments = ["--data", folder, "--batch", "4", "--size", "32", "--out", str(tmp_path / "a.safetensors")]
    model, _, scores = load("smp_training").main([*arguments, "--epochs", "4"])
    assert model.in_channels == 3 and model.num_classes == 2
    # The file is the best epoch's, which need not be the last.
    assert (tmp_path / "a.safetensors").exists() and len(scores) == 4
