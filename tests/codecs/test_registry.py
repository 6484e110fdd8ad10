import pytest
import torch
from contract import SHAPES_ON

from cfii import create_model, list_models


def test_list_models():
    assert list_models("res*") == ["resunet"] and list_models("x*") == []
    assert len(list_models("smp-*")) == 12
    assert {"resunet", "unet", "transunet", "swinunet", "timm-unet"} <= set(list_models())


@pytest.mark.parametrize("image_size", [64, (64, 96), [64, 96]])
def test_image_size(image_size):
    with torch.device(SHAPES_ON):
        model = create_model("swinunet", 3, 1, image_size)
        assert create_model("resunet", 3, image_size=image_size, widths=[8, 12]).num_classes == 3
    assert model.encoder.get_submodule("layers_0").blocks[0].input_resolution == (
        16,
        16 if image_size == 64 else 24,
    )
    with pytest.raises(ValueError, match="image_size: expected None, a positive integer or"):
        create_model("swinunet", 3, image_size=(64, 64, 64))


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="name: expected one of 'resunet'"):
        create_model("resnet", 3)
    with pytest.raises(
        TypeError, match="unknown argument width; 'resunet' takes widths and the neck's embeddings"
    ):
        create_model("resunet", 3, width=[8, 12])
    with pytest.raises(TypeError, match="unknown argument num_head"):
        create_model("resunet", 3, cfii=False, num_head=2)
    with pytest.raises(TypeError, match="create_model: widths: expected a value that JSON can hold"):
        create_model("resunet", 3, widths=torch.tensor([8, 12]))
