import numpy as np
import pytest
from PIL import Image

from cfii.training.files import DataError, NoSuchSplit
from cfii.training.sets import open_set
from cfii.training.sets.folder import folder

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
    data = folder(pairs)
    case = data[0]
    assert len(data) == 6 and data.values == list(VALUES) and data.names == list("012345")
    assert case.image.shape == (3, 16, 20) and case.label.dtype == np.uint8
    stored = np.array(Image.open(pairs / "labelcol" / "0.png"))
    assert np.array_equal(np.array(VALUES)[case.label], stored)
    assert np.array_equal(
        (case.image * 255).round(), np.array(Image.open(pairs / "img" / "0.bmp")).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("names", [("images", "masks"), ("images", "labels"), ("image", "mask")])
def test_other_names_of_the_folders(pairs, names):
    (pairs / "img").rename(pairs / names[0])
    (pairs / "labelcol").rename(pairs / names[1])
    assert len(folder(pairs)) == 6


def test_splits(pairs, tmp_path):
    for part in ("Train_Folder", "valid"):
        (tmp_path / "set" / part).mkdir(parents=True)
        for name in ("img", "labelcol"):
            (tmp_path / "set" / part / name).symlink_to(pairs / name)
    assert len(open_set("folder", tmp_path / "set", "val")) == 6
    with pytest.raises(NoSuchSplit, match="expected a folder Test_Folder"):
        open_set("folder", tmp_path / "set", "test")
    with pytest.raises(NoSuchSplit, match="expected a folder Val_Folder"):
        folder(pairs, "val")


def test_one_folder_of_masks_for_each_class(tmp_path, rng):
    for name in ("img", "labelcol/vessel", "labelcol/disc"):
        (tmp_path / name).mkdir(parents=True)
    for i in range(3):
        image(rng).save(tmp_path / "img" / f"{i}.png")
        for name in ("vessel", "disc"):
            mask(rng, values=(0, 255)).save(tmp_path / "labelcol" / name / f"{i}.png")
    data = folder(tmp_path)
    assert data.multilabel and data.classes == ("disc", "vessel") and data[1].label.shape == (2, 16, 20)
    assert np.array_equal(data[1].label[0], np.array(Image.open(tmp_path / "labelcol" / "disc" / "1.png")) > 0)
    (tmp_path / "labelcol" / "disc" / "1.png").unlink()
    with pytest.raises(DataError, match=r"img.1\.png: expected a mask 1\.\* in .*disc"):
        folder(tmp_path)


def test_masks_named_by_class(tmp_path, rng):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for name in ("a", "a_b"):
        image(rng).save(tmp_path / "images" / f"{name}.png")
    for name in ("a_liver_000", "a_liver_001", "a_b_liver", "a_b_spleen_000"):
        mask(rng, values=(0, 255)).save(tmp_path / "masks" / f"{name}.png")
    data = folder(tmp_path)
    assert data.classes == ("liver", "spleen") and data.multilabel
    a, b = data[0].label, data[1].label
    parts = [np.array(Image.open(tmp_path / "masks" / f"a_liver_00{i}.png")) > 0 for i in (0, 1)]
    assert np.array_equal(a[0], parts[0] | parts[1]) and not a[1].any() and b[1].any()
    mask(rng).save(tmp_path / "masks" / "c_liver.png")
    with pytest.raises(DataError, match=r"c_liver\.png: expected the name of an image"):
        folder(tmp_path)


def test_one_mask_for_each_object(tmp_path, rng):
    for i in range(2):
        for name in ("images", "masks"):
            (tmp_path / f"case{i}" / name).mkdir(parents=True)
        image(rng).save(tmp_path / f"case{i}" / "images" / "x.png")
        for j in range(3):
            mask(rng, values=(0, 255)).save(tmp_path / f"case{i}" / "masks" / f"{j}.png")
    data = folder(tmp_path)
    assert data.classes == ("background", "object") and not data.multilabel and data.names == ["case0", "case1"]
    assert 0.7 < data[0].label.mean() < 1
    for file in (tmp_path / "case1" / "masks").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="case1: expected one image in images/ and at least one mask"):
        folder(tmp_path)


def test_instance_ids(pairs):
    assert folder(pairs, foreground=True)[0].label.max() == 1
    assert folder(pairs, foreground=True).classes == ("background", "foreground")


def test_options_are_checked(pairs):
    with pytest.raises(
        ValueError, match="options: 'folder' takes values, foreground, classes, channels, got size"
    ):
        open_set("folder", pairs, size=3)
    with pytest.raises(ValueError, match="name: expected one of"):
        open_set("fodler", pairs)
    with pytest.raises(ValueError, match="split: expected one of"):
        open_set("folder", pairs, "training")
    with pytest.raises(ValueError, match="root: expected the folder of 'glas', got None"):
        open_set("glas", None)


@pytest.mark.parametrize("names", [("{}.bmp", "{}.png"), ("{}.png", "{}_mask.png"), ("{}.bmp", "{}_anno.bmp")])
def test_side_by_side(tmp_path, rng, names):
    for i in range(3):
        image(rng, mode="L").save(tmp_path / names[0].format(i))
        mask(rng).save(tmp_path / names[1].format(i))
    data = folder(tmp_path)
    assert [data.pairs[1].image.name, data.pairs[1].mask.name] == [name.format(1) for name in names]
    assert data.values == list(VALUES)


def test_a_lone_folder_inside(tmp_path, rng):
    (tmp_path / "Dataset 1").mkdir()
    (tmp_path / "README.md").write_text("about")
    image(rng).save(tmp_path / "Dataset 1" / "a.bmp"), mask(rng).save(tmp_path / "Dataset 1" / "a.png")
    assert len(folder(tmp_path)) == 1


@pytest.mark.parametrize("mode", ["RGBA", "L", "I;16"])
def test_image_modes(tmp_path, rng, mode):
    image(rng, mode=mode).save(tmp_path / "a.png"), mask(rng).save(tmp_path / "a_mask.png")
    pixels = folder(tmp_path)[0].image
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


def lone_value(root, rng):
    mask(rng, values=(0, 128, 255, 77)).save(root / "labelcol" / "3.png")


def double_mask(root, rng):
    mask(rng).save(root / "labelcol" / "3.tif")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            break_size,
            r"labelcol.3\.png: expected 16 x 20 \(height x width\), like its image 3\.bmp, found 20 x 16",
        ),
        (break_image, r"img.3\.bmp: expected an image that Pillow reads"),
        (break_mask, r"labelcol.3\.png: expected an image that Pillow reads"),
        (lose_mask, r"img.3\.bmp: expected a mask 3\.\*"),
        (lose_image, r"labelcol.3\.png: expected an image 3\.\*"),
        (lose_masks, r"labelcol: expected the folder"),
        (colour_mask, r"labelcol.3\.png: expected a mask with one value a pixel, found colours"),
        (noisy_mask, r"labelcol.3\.png: expected label maps saved without loss"),
        (
            lone_value,
            r"labelcol.3\.png: expected values that other masks hold too .* found 77 in this mask alone",
        ),
        (double_mask, r"labelcol.3\.tif: expected one file of this name, found 3\.png"),
    ],
)
def test_damaged_folders_are_named(pairs, rng, damage, message):
    damage(pairs, rng)
    with pytest.raises(DataError, match=message):
        list(folder(pairs))


def test_other_bad_folders_are_named(tmp_path, rng):
    with pytest.raises(DataError, match="root: expected the folder of images and masks"):
        folder(tmp_path / "missing")
    with pytest.raises(DataError, match="found no masks"):
        folder(tmp_path)
    image(rng).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="found no masks"):
        folder(tmp_path)
    Image.new("L", (20, 16)).save(tmp_path / "a_mask.png")
    with pytest.raises(DataError, match=r"a_mask\.png: expected at least two classes.*only the value 0"):
        folder(tmp_path)
    with pytest.raises(DataError, match="expected a folder Val_Folder"):
        (tmp_path / "set" / "Train_Folder").mkdir(parents=True)
        folder(tmp_path / "set", "val")


def test_real_images(real_data):
    wbc = folder(real_data / "wbc")
    assert wbc.values == [0, 128, 255] and len(wbc) == len(list((real_data / "wbc" / "Dataset 1").glob("*.bmp")))
    assert folder(real_data / "monuseg").values == [0, 255]
    assert folder(real_data / "dsb2018").values == [0, 255]
    for name in ("wbc", "dsb2018", "dsb2018/stage1_train", "multiorgan_ct/totalsegmentator_slices"):
        for case in folder(real_data / name):
            assert case.label.any() or name == "dsb2018"
    objects, united = folder(real_data / "dsb2018" / "stage1_train"), folder(real_data / "dsb2018")
    for case in objects:
        if case.name in united.names:
            assert np.array_equal(case.label, united[united.names.index(case.name)].label)
    organs = folder(real_data / "multiorgan_ct" / "totalsegmentator_slices")
    assert organs.multilabel and "hip_left" in organs.classes
