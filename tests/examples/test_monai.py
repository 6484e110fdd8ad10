"""monai_training.py and monai_network.py"""

import math

import pytest
import torch
from monai.networks.nets import BasicUNet
from scripts import load

# MONAI on absent organs, and on itself.
QUIET = pytest.mark.filterwarnings(
    "ignore:.*(ground truth|prediction) of class.*", "ignore:.*always_return_as_numpy.*"
)


@QUIET
def test_training():
    model, losses, scores = load("monai_training").main([])
    tenth = len(losses) // 10
    assert sum(losses[-tenth:]) < 0.8 * sum(losses[:tenth])
    assert 0.1 < scores["Dice"] < 1 and 0 < scores["HD95"] < 96 * math.sqrt(2)
    assert model.neck is not None and len(model.stages) > 2


@QUIET
def test_training_on_a_folder_of_images_of_different_sizes(folder):
    model, _, scores = load("monai_training").main(["--data", folder, "--batch", "4", "--patch", "32"])
    assert model.num_classes == 2 and 0 <= scores["Dice"] <= 1


def test_network_keeps_what_it_was_trained_to(tmp_path):
    torch.manual_seed(1)
    trained = BasicUNet(spatial_dims=2, in_channels=1, out_channels=9).eval()
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    unet, model = load("monai_network").main(["--weights", str(tmp_path / "weights.pt")])
    images = torch.randn(2, 1, 48, 64)
    with torch.no_grad():
        expected = trained(images)
        assert torch.equal(unet(images), expected)
        torch.testing.assert_close(model.plain()(images), expected)
        change = (model(images) - expected).std() / expected.std()
    assert 0 < change < 0.1
    assert model.stages == [0, 1, 2, 3, 4]
    assert {id(p) for p in unet.parameters()} <= {id(p) for p in model.parameters()}
    model.train()(images).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
