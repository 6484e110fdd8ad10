"""transformers_backbone.py and hub.py"""

import json

import pytest
import torch
from scripts import load

transformers = pytest.importorskip("transformers")


def same(a, b, channels):
    images = torch.randn(1, channels, 64, 45)
    with torch.no_grad():
        return torch.equal(a.eval()(images), b.eval()(images))


def test_backbone_round_trip(tmp_path):
    model, again = load("transformers_backbone").main(["--out", str(tmp_path)])
    assert same(model, again, 3)
    assert len(model.stages) == 4
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["num_classes"] == 4 and saved["backbone"]["hidden_sizes"] == [16, 32, 48, 64]


def test_trained_backbone(tmp_path):
    """What save_pretrained of transformers wrote, here a small ConvNeXt, is where training starts."""
    torch.manual_seed(3)
    config = transformers.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_channels=1)
    transformers.ConvNextModel(config).save_pretrained(tmp_path / "trained")
    trained = transformers.ConvNextModel.from_pretrained(tmp_path / "trained").state_dict()
    out = tmp_path / "out"
    model, again = load("transformers_backbone").main(
        ["--backbone", str(tmp_path / "trained"), "--out", str(out)]
    )
    assert same(model, again, 1)
    own = model.encoder.state_dict()
    shared = [name for name in own if name in trained]
    assert len(shared) > 0.8 * len(trained)
    # three steps of 1e-4 lie between
    assert all(torch.allclose(own[name], trained[name], atol=1e-3) for name in shared)


def test_hub(tmp_path):
    with pytest.warns(UserWarning, match="num_classes is 3, the saved network's 9"):
        model, again, other = load("hub").main(["--out", str(tmp_path)])
    assert same(model, again, 1)
    assert other(torch.randn(1, 1, 32, 32)).shape == (1, 3, 32, 32)
    assert {"config.json", "model.safetensors", "README.md"} <= {file.name for file in tmp_path.iterdir()}
