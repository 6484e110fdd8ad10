import numpy as np
import pytest
from PIL import Image

from cfii.training.files import DataError
from cfii.training.images import ImageFiles, Pair, read_image, read_mask


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def save(folder, name, array):
    Image.fromarray(array).save(folder / name)
    return folder / name


def test_modes(tmp_path, rng):
    colour = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    for name in ("a.png", "a.bmp", "a.tif"):
        assert np.array_equal((read_image(save(tmp_path, name, colour)) * 255).round(), colour.transpose(2, 0, 1))
    grey = colour[..., 0]
    image = read_image(save(tmp_path, "grey.png", grey))
    assert image.shape == (3, 12, 10) and (image[0] == image[2]).all()
    assert read_image(tmp_path / "grey.png", channels=1).shape == (1, 12, 10)
    assert read_image(tmp_path / "a.png", channels=1).shape == (1, 12, 10)
    alpha = np.dstack([colour, np.full((12, 10), 7, np.uint8)])
    assert np.array_equal(read_image(save(tmp_path, "alpha.png", alpha)), read_image(tmp_path / "a.png"))
    deep = (grey.astype(np.uint16) + 3) * 100
    low, high = deep.min(), deep.max()
    expected = (deep - low) / (high - low)
    np.testing.assert_allclose(read_image(save(tmp_path, "deep.png", deep), 1)[0], expected, atol=1e-6)
    np.testing.assert_allclose(
        read_image(save(tmp_path, "real.tif", deep.astype(np.float32)), 1)[0], expected, atol=1e-6
    )
    assert read_image(save(tmp_path, "photo.jpg", colour)).shape == (3, 12, 10)


def test_mask_modes(tmp_path):
    mask = np.array([[0, 1], [2, 0]], np.uint8)
    assert np.array_equal(read_mask(save(tmp_path, "a.png", mask), None), mask)
    palette = Image.fromarray(mask)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(tmp_path / "palette.png", None), mask)
    assert read_mask(save(tmp_path, "bits.png", mask > 0), None).tolist() == [[0, 1], [1, 0]]
    assert np.array_equal(read_mask(save(tmp_path, "rgb.png", np.dstack([mask] * 3)), None), mask)


def test_values_may_be_in_any_order(tmp_path):
    mask = save(tmp_path, "m.png", np.array([[255, 0], [128, 255]], np.uint8))
    image = save(tmp_path, "i.png", np.zeros((2, 2), np.uint8))
    cases = ImageFiles([Pair("a", image, mask)], values=[128, 255, 0], classes=["rest", "nucleus", "gap"])
    assert cases[0].label.tolist() == [[1, 2], [0, 1]]
    with pytest.raises(DataError, match=r"m\.png: expected the mask values 0, 128, found also 255"):
        ImageFiles([Pair("a", image, mask)], values=[0, 128])[0]
    with pytest.raises(ValueError, match="classes: expected 2 names, got 1"):
        ImageFiles([Pair("a", image, mask)], values=[0, 128], classes=["x"])
    with pytest.raises(ValueError, match="channels: expected 1 or 3, got 4"):
        ImageFiles([Pair("a", image, mask)], channels=4)


def test_stacks_are_refused(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), i, np.uint8)) for i in range(3)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"stack\.tif: expected one image, found a stack of 3"):
        read_image(tmp_path / "stack.tif")


def test_a_flipped_bit_in_a_png_is_found(tmp_path, rng):
    file = save(tmp_path, "a.png", rng.integers(0, 256, (40, 40), dtype=np.uint8))
    data = file.read_bytes()
    for place in range(60, len(data) - 20, 97):
        damaged = bytearray(data)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.png: expected an image"):
            read_mask(file, None)


POLYGONS = """<?xml version="1.0"?>
<Annotations MicronsPerPixel="0.252"><Annotation Id="1"><Regions>
<Region Id="1"><Vertices><Vertex X="2" Y="3"/><Vertex X="8" Y="3"/><Vertex X="8" Y="9"/><Vertex X="2" Y="9"/>
</Vertices></Region>
<Region Id="2"><Vertices><Vertex X="15.2" Y="1"/><Vertex X="18.9" Y="4.5"/><Vertex X="13"
Y="6"/></Vertices></Region> <Region Id="3"><Vertices><Vertex X="1" Y="1"/></Vertices></Region>
</Regions></Annotation></Annotations>"""


def test_polygons(tmp_path):
    file = tmp_path / "a.xml"
    file.write_text(POLYGONS)
    mask = read_mask(file, (12, 20))
    expected = np.zeros((12, 20), np.uint8)
    expected[3:10, 2:9] = 1
    assert np.array_equal(mask[:, :12], expected[:, :12])
    assert mask[4, 15] == 1 and 6 < mask[:, 12:].sum() < 25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POLYGONS[:200], "expected an XML file"),
        ("<Annotations/>", "expected at least one Region"),
        (POLYGONS.replace('X="8"', 'X="NaN"'), "expected regions within the image"),
        (POLYGONS.replace('X="8"', 'X="800"'), "expected regions within the image"),
        (POLYGONS.replace('X="8"', ""), "expected an XML file"),
        (POLYGONS.replace("?>", '?><!DOCTYPE a [<!ENTITY b "c">]>', 1), "found a document type"),
    ],
)
def test_bad_polygons_are_named(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=rf"a\.xml: .*{message}"):
        read_mask(tmp_path / "a.xml", (12, 20))
