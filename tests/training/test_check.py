"""`cfii check`, as a user runs it."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from command import call
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, "check", *arguments)


@pytest.fixture
def glands(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("Train_Folder", "Test_Folder"):
        for name in ("img", "labelcol"):
            (tmp_path / part / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / "img" / f"{i}.png")
            mask = np.zeros((20, 30), np.uint8)
            mask[5:12, 4 : 10 + i] = 1 + i
            Image.fromarray(mask).save(tmp_path / part / "labelcol" / f"{i}.png")
    return tmp_path


def test_a_good_set(run, glands, tmp_path):
    code, out, _ = run("--data.name", "glas", "--data.root", glands, "--picture", tmp_path / "look.png")
    assert code == 0 and "glas, train: 3 cases" in out and "gland" in out and "every file can be used" in out
    assert (tmp_path / "look.png").is_file() and (tmp_path / "look_test.png").is_file() and "note" not in out


def test_a_bad_set(run, glands, tmp_path):
    (glands / "Train_Folder" / "img" / "1.png").write_bytes(b"nothing")
    file = glands / "Test_Folder" / "labelcol" / "2.png"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(file)
    code, out, _ = run("--data.name", "glas", "--data.root", glands, "--picture", tmp_path / "look.png")
    assert code == 1 and f"error: {glands / 'Train_Folder' / 'img' / '1.png'}: expected an image" in out
    assert f"error: {file}: expected 20 x 30" in out and "2 files cannot be used" in out


def test_images_in_two_splits_are_noticed(run, glands, tmp_path):
    shutil.copyfile(glands / "Train_Folder" / "img" / "0.png", glands / "Test_Folder" / "img" / "2.png")
    shutil.copyfile(glands / "Train_Folder" / "img" / "0.png", glands / "Train_Folder" / "img" / "1.png")
    _, out, _ = run("--data.name", "glas", "--data.root", glands, "--picture", tmp_path / "look.png")
    for note in ("train and test share 1 images or slices", "train holds 1 images or slices twice"):
        assert f"note: {note}" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.name", "glas"], "root: expected the folder of 'glas'"),
        (["--data.name", "glas", "--data.root", "/nowhere"], "root: expected the folder of GlaS, but /nowhere"),
        (["--data.name", "galaxies"], "galaxies"),
        (["--data.nmae", "glas"], "--data.nmae"),
        (["--data.batch_size", "0"], "batch_size"),
        (["--data.options", "{slicces: true}", "--data.root", "/"], "slicces"),
    ],
)
def test_wrong_settings_end_with_one_line(run, arguments, words):
    code, out, err = run(*arguments)
    assert code == 2 and words in err and "error: " in err and not out


def test_real_sets(run, real_data, tmp_path):
    synapse = real_data / "multiorgan_ct" / "synapse_layout_derived"
    code, out, _ = run("--data.name", "synapse", "--data.root", synapse, "--picture", tmp_path / "a.png")
    assert code == 0 and "stomach" in out and "note: train and test share 30 images" in out
    acdc = real_data / "acdc_nifti"
    code, out, _ = run("--data.name", "acdc", "--data.root", acdc, "--picture", tmp_path / "b.png")
    assert code == 0 and "86 cases of 4 patients" in out and "10 x 1.64 x 1.64 mm" in " ".join(out.split())


def test_the_command_is_installed():
    result = subprocess.run([sys.executable, "-m", "cfii", "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "check" in result.stdout
