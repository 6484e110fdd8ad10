import numpy as np
import pytest
import torch
from PIL import Image

from cfii.training.folder import Folder, FolderError

VALUES = (0, 128, 255)


def image(rng, size=(20, 16), mode="RGB"):
    width, height = size
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 60000, (height, width), dtype=np.uint16))
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def mask(rng, size=(20, 16), values=VALUES):
    width, height = size
    pixels = np.array(values, dtype=np.uint8)[rng.integers(0, len(values), (height, width))]
    pixels.flat[: len(values)] = values
    return Image.fromarray(pixels)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def pairs(tmp_path, rng):
    """img/ and labelcol/ with six pairs."""
    for name in ("img", "labelcol"):
        (tmp_path / name).mkdir()
    for i in range(6):
        image(rng).save(tmp_path / "img" / f"{i}.bmp")
        mask(rng).save(tmp_path / "labelcol" / f"{i}.png")
    return tmp_path


def test_img_and_labelcol(pairs):
    data = Folder(pairs, size=24)
    pixels, labels = data[0]
    assert len(data) == 6 and data.values == list(VALUES)
    assert pixels.shape == (3, 24, 24) and pixels.min() >= 0 and pixels.max() <= 1
    assert labels.shape == (24, 24) and labels.unique().tolist() == [0, 1, 2] and labels.dtype == torch.int64


def test_nothing_is_changed_at_the_same_size(tmp_path, rng):
    picture, truth = image(rng, (16, 16)), mask(rng, (16, 16))
    picture.save(tmp_path / "a.bmp"), truth.save(tmp_path / "a.png")
    pixels, labels = Folder(tmp_path, size=16)[0]
    assert torch.equal((pixels * 255).round().byte(), torch.from_numpy(np.array(picture)).movedim(-1, 0))
    assert torch.equal(torch.tensor(VALUES)[labels], torch.from_numpy(np.array(truth)).long())


@pytest.mark.parametrize("names", [("{}.bmp", "{}.png"), ("{}.png", "{}_mask.png"), ("{}.bmp", "{}_anno.bmp")])
def test_side_by_side(tmp_path, rng, names):
    for i in range(3):
        image(rng, mode="L").save(tmp_path / names[0].format(i))
        mask(rng).save(tmp_path / names[1].format(i))
    data = Folder(tmp_path)
    assert [p.name for p in data.pairs[1]] == [name.format(1) for name in names]
    assert data.values == list(VALUES)


def test_a_lone_folder_inside(tmp_path, rng):
    (tmp_path / "Dataset 1").mkdir()
    (tmp_path / "README.md").write_text("about")
    image(rng).save(tmp_path / "Dataset 1" / "a.bmp"), mask(rng).save(tmp_path / "Dataset 1" / "a.png")
    assert len(Folder(tmp_path)) == 1


@pytest.mark.parametrize("mode", ["RGBA", "L", "I;16"])
def test_image_modes(tmp_path, rng, mode):
    image(rng, mode=mode).save(tmp_path / "a.png"), mask(rng).save(tmp_path / "a_mask.png")
    pixels, _ = Folder(tmp_path)[0]
    assert pixels.shape[0] == 3 and pixels.std() > 0.1 and pixels.min() >= 0 and pixels.max() <= 1


def break_size(root, rng):
    mask(rng, (16, 20)).save(root / "labelcol" / "3.png")


def break_image(root, rng):
    (root / "img" / "3.bmp").write_bytes((root / "img" / "3.bmp").read_bytes()[:200])


def break_mask(root, rng):
    (root / "labelcol" / "3.png").write_bytes(b"no image")


def lose_mask(root, rng):
    (root / "labelcol" / "3.png").unlink()


def lose_image(root, rng):
    (root / "img" / "3.bmp").unlink()


def lose_masks(root, rng):
    for path in (root / "labelcol").iterdir():
        path.unlink()
    (root / "labelcol").rmdir()


def colour_mask(root, rng):
    image(rng).save(root / "labelcol" / "3.png")


def noisy_mask(root, rng):
    image(rng, mode="L").save(root / "labelcol" / "3.png")


def double_mask(root, rng):
    mask(rng).save(root / "labelcol" / "3.tif")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_size, r"labelcol.3\.png: expected 20 x 16, like its image 3\.bmp, got 16 x 20"),
        (break_image, r"img.3\.bmp: expected an image that Pillow reads"),
        (break_mask, r"labelcol.3\.png: expected an image that Pillow reads"),
        (lose_mask, r"img.3\.bmp: expected a mask 3\.\*"),
        (lose_image, r"labelcol.3\.png: expected an image 3\.\*"),
        (lose_masks, r"labelcol: expected the folder"),
        (colour_mask, r"labelcol.3\.png: expected a mask with one value a pixel, found colours"),
        (noisy_mask, r"labelcol.3\.png: expected label maps saved without loss"),
        (double_mask, r"labelcol.3\.tif: expected one file of this name, found 3\.png"),
    ],
)
def test_damaged_folders_are_named(pairs, rng, damage, message):
    damage(pairs, rng)
    with pytest.raises(FolderError, match=message):
        Folder(pairs)


def test_other_bad_folders_are_named(tmp_path, rng):
    with pytest.raises(FolderError, match="expected a folder of images and masks, found none"):
        Folder(tmp_path / "missing")
    with pytest.raises(FolderError, match="found no masks"):
        Folder(tmp_path)
    image(rng).save(tmp_path / "a.png")
    with pytest.raises(FolderError, match="found no masks"):
        Folder(tmp_path)
    Image.new("L", (20, 16)).save(tmp_path / "a_mask.png")
    with pytest.raises(FolderError, match=r"a_mask\.png: expected at least two classes.*only the value 0"):
        Folder(tmp_path)
    for part in ("Train_Folder", "Test_Folder"):
        (tmp_path / "glas" / part / "img").mkdir(parents=True)
    with pytest.raises(FolderError, match="holds the folders Test_Folder, Train_Folder: pass one of them"):
        Folder(tmp_path / "glas")


def test_real_images(real_data):
    wbc = Folder(real_data / "wbc")
    assert wbc.values == [0, 128, 255] and len(wbc) == len(list((real_data / "wbc" / "Dataset 1").glob("*.bmp")))
    assert Folder(real_data / "monuseg" / "Train_Folder").values == [0, 255]
    assert Folder(real_data / "dsb2018").values == [0, 255]
