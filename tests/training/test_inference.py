import h5py
import numpy as np
import pytest
import torch
from cases_in_memory import Given
from PIL import Image

from cfii import create_model
from cfii.training.files import DataError
from cfii.training.inference import evaluate, predict, predict_file
from cfii.training.resize import Resize


class Brighter(torch.nn.Module):
    """Class 1 where the first channel is above 0.5; counts the batches."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        self.batches.append(tuple(x.shape))
        return torch.cat([0.5 - x[:, :1], x[:, :1] - 0.5], 1)


@pytest.fixture
def volume():
    return np.random.default_rng(0).random((1, 11, 20, 30), dtype=np.float32)


def test_slices_go_in_batches(volume):
    model = Brighter()
    labels = predict(model, volume, batch_size=4)
    assert np.array_equal(labels, volume[0] > 0.5) and labels.dtype == np.uint8
    assert model.batches == [(4, 1, 20, 30)] * 2 + [(3, 1, 20, 30)]
    assert np.array_equal(predict(model, volume[:, 5]), labels[5])


def test_modes_and_gradients_are_left_alone(volume):
    model = Brighter()
    model.inner = torch.nn.Dropout()
    predict(model.train(), volume)
    assert model.training and model.inner.training
    predict(model.eval(), volume)
    assert not model.training


def test_resized(volume):
    smooth = np.repeat(np.repeat(volume[:, :, ::5, ::5], 10, 2), 10, 3)
    for rule in ("bilinear", "transunet"):
        model = Brighter()
        labels = predict(model, smooth, resize=Resize(48, rule))
        assert labels.shape == smooth.shape[1:] and (labels == (smooth[0] > 0.5)).mean() > 0.85
        assert model.batches[0] == (8, 1, 48, 48)


def test_sliding_window_equals_the_whole_for_a_local_network():
    image = np.random.default_rng(0).random((3, 150, 170), dtype=np.float32)
    model = Brighter()
    assert np.array_equal(predict(model, image, roi_size=64), image[0] > 0.5)
    assert all(shape[2:] == (64, 64) for shape in model.batches)


def test_multilabel(volume):
    masks = predict(Brighter(), volume, multilabel=True)
    assert masks.shape == (2, 11, 20, 30) and masks.dtype == bool and np.array_equal(masks[1], volume[0] > 0.5)
    assert predict(Brighter(), volume[:, 0], multilabel=True).shape == (2, 20, 30)


def test_grey_images_fit_models_for_colours(volume):
    model = create_model("resunet", num_classes=2, widths=(8, 16))
    assert predict(model, volume[:, :2]).shape == (2, 20, 30)


def test_evaluate(volume):
    labels = (volume > 0.5).astype(np.uint8)
    results = evaluate(Brighter(), Given([volume, volume], [labels[0], labels[0]]), "paper")
    assert results.summary()["organ"]["dice"]["mean"] == 1 and list(results.scores) == ["case0", "case1"]
    small = evaluate(Brighter(), Given([volume[:, 0]], [labels[0, 0]]), resize=Resize(16), at_network_size=True)
    assert 0 < small.summary()["organ"]["dice"]["mean"] < 1
    with pytest.raises(DataError, match="expected labels to score against"):
        evaluate(Brighter(), Given([volume], [None]))


def test_arrays(tmp_path, volume):
    with h5py.File(tmp_path / "a.h5", "w") as data:
        data["image"] = volume[0]
    np.savez(tmp_path / "b.npz", img=volume[0, 0])
    predict_file(Brighter(), tmp_path / "a.h5", tmp_path / "out" / "a.h5")
    predict_file(Brighter(), tmp_path / "b.npz", tmp_path / "out" / "b.h5", key="img")
    with h5py.File(tmp_path / "out" / "a.h5") as a, h5py.File(tmp_path / "out" / "b.h5") as b:
        assert np.array_equal(a["label"], volume[0] > 0.5) and np.array_equal(b["label"], volume[0, 0] > 0.5)


def test_arrays_of_either_name(tmp_path, volume):
    """TransUNet's and SSL4MIS's "image", MT-UNet's "img", without being told."""
    for key in ("image", "img"):
        np.savez(tmp_path / f"{key}.npz", **{key: volume[0]})
        predict_file(Brighter(), tmp_path / f"{key}.npz", tmp_path / f"{key}.h5")
        with h5py.File(tmp_path / f"{key}.h5") as data:
            assert np.array_equal(data["label"], volume[0] > 0.5)
    np.savez(tmp_path / "other.npz", picture=volume[0])
    with pytest.raises(DataError, match=r"other\.npz: expected an array 'image' or 'img', found 'picture'"):
        predict_file(Brighter(), tmp_path / "other.npz", tmp_path / "other.h5")


def test_grey_images_are_repeated_for_networks_that_do_not_say(volume):
    model = Brighter()
    predict(model, volume, in_channels=3)
    assert model.batches[0] == (8, 3, 20, 30)


def test_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.bmp")
    predict_file(Brighter(), tmp_path / "a.bmp", tmp_path / "a.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), pixels[..., 0] > 127)
    predict_file(
        Brighter(),
        tmp_path / "a.bmp",
        tmp_path / "m.png",
        multilabel=True,
        classes=("dark", "bright"),
        roi_size=32,
    )
    assert np.array_equal(np.array(Image.open(tmp_path / "m_bright.png")) > 0, pixels[..., 0] > 127)


def test_wrong_calls_are_named(tmp_path, volume):
    with pytest.raises(ValueError, match="image: expected"):
        predict(Brighter(), volume[0, 0])
    with pytest.raises(ValueError, match="resize and roi_size: expected one of them"):
        predict(Brighter(), volume, resize=Resize(8), roi_size=8)
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        predict(Brighter(), volume, batch_size=0)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.png: expected an image that Pillow reads"):
        predict_file(Brighter(), tmp_path / "a.png", tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"target: expected a name that ends in \.png"):
        predict_file(Brighter(), tmp_path / "a.png", tmp_path / "b.bmp")
