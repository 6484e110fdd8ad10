import json

import pytest
import torch

import cfii
from cfii import create_model, list_models


def test_list_models():
    assert "resunet" in list_models() and list_models("res*") == ["resunet"] and list_models("x*") == []


@pytest.mark.parametrize("plain", [True, False])
def test_saves_and_loads(tmp_path, plain):
    model = create_model("resunet", 3, in_channels=1, cfii=not plain, widths=[8, 12], num_heads=2).eval()
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["widths"] == [8, 12]
    again = cfii.from_pretrained(tmp_path).eval()
    images = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="name: expected one of resunet"):
        create_model("resnet", 3)
    with pytest.raises(
        TypeError, match="unknown argument width; 'resunet' takes widths and the neck's embeddings"
    ):
        create_model("resunet", 3, width=[8, 12])
    with pytest.raises(TypeError, match="unknown argument num_head"):
        create_model("resunet", 3, cfii=False, num_head=2)
