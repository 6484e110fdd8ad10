"""The commands, on small sets and on real ones."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from command import OWN, SMALL, TINY, call
from PIL import Image

import cfii
from cfii.training.cli import find_recipe, recipes

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice


@pytest.fixture
def cfii_command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(monkeypatch, capsys, *arguments)


FAST = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]


@pytest.mark.parametrize(
    ("recipe", "folder", "cases", "classes"),
    [
        ("glas", "glas", 2, 1),
        ("monuseg", "paper224/MoNuSeg", 14, 1),
        ("acdc", "acdc_h5", 2, 3),
        ("synapse", "multiorgan_ct/synapse_layout_derived", 1, 8),
    ],
)
def test_recipes_train_and_score_on_real_files(cfii_command, real_data, tmp_path, recipe, folder, cases, classes):
    settings = ["--config", recipe, "--data.root", real_data / folder, *SMALL, *FAST]
    small = [] if recipe == "monuseg" else ["--data.batch_size=2"]
    code, out, err = cfii_command("fit", *settings, *small)
    assert code == 0, err
    root = tmp_path / "runs" / recipe
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "versions.json", "curves.png"):
        assert (root / name).is_file(), name
    code, out, err = cfii_command("test", *settings)
    assert code == 0, err
    assert "Protocol `paper`" in out and "Protocol `strict`" in out
    for protocol in ("paper", "strict"):
        content = json.loads((root / "test" / protocol / "scores.json").read_text())
        assert len(content["cases"]) == cases and len(content["classes"]) == classes
        for name in ("scores.csv", "scores.md", "bars.png"):
            assert (root / "test" / protocol / name).is_file()
    assert np.array(Image.open(root / "test" / "overlays.png")).std() > 10
    assert cfii.from_pretrained(str(root / "model")).num_classes == classes + 1


def test_recipes_hold_what_the_paper_says():
    assert recipes() == ["acdc", "demo", "glas", "monuseg", "synapse"]
    paper = {"synapse": (0.006, 8), "acdc": (0.04, 8), "monuseg": (0.001, 4), "glas": (0.004, 4)}
    for name, (lr, batch) in paper.items():
        with open(find_recipe(name)) as file:
            recipe = yaml.safe_load(file)
        assert recipe["model"]["optimizer"]["init_args"]["lr"] == lr and recipe["data"]["batch_size"] == batch
        assert recipe["trainer"]["max_epochs"] == 600 and recipe["model"]["lambda_eu"] == 0.3
        assert recipe["data"]["size"] == 224


def test_options(cfii_command, tmp_path):
    """Plain codec, bf16, accumulation, encoder's own rate, class maps, early stopping."""
    options = ["--trainer.precision=bf16-mixed", "--trainer.accumulate_grad_batches=2", "--model.encoder_lr=1e-4"]
    options += ["--model.class_maps_weight=0.1", "--patience=1", "--model.lambda_eu=0.3"]
    code, _, err = cfii_command("fit", *TINY, *FAST, *options)
    assert code == 0, err
    checkpoint = torch.load(tmp_path / "runs" / "demo" / "checkpoints" / "last.ckpt", weights_only=True)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert {group["name"]: group["initial_lr"] for group in groups} == {"rest": 2e-3, "encoder": 1e-4}
    assert checkpoint["cfii"]["num_classes"] == 9 and checkpoint["global_step"] == 2
    code, _, err = cfii_command("fit", *TINY, *FAST, "--model.cfii=false", "--trainer.default_root_dir=plain")
    assert code == 0, err
    state = torch.load(tmp_path / "plain" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("neck" in name for name in state)


def test_a_users_own_network(cfii_command, tmp_path):
    code, _, err = cfii_command("fit", *TINY, *FAST, *OWN)
    assert code == 0, err
    state = torch.load(tmp_path / "runs" / "demo" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert "network.encoder.stages.0.weight" in state


@pytest.mark.parametrize("mode", ["multilabel", "binary"])
def test_other_modes(cfii_command, tmp_path, mode):
    rng = np.random.default_rng(0)
    names = ["vessel", "disc"] if mode == "multilabel" else ["."]
    for name in ("img", *(f"labelcol/{n}" for n in names)):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
    for i in range(6):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / "img" / f"{i}.png")
        for k, name in enumerate(names):
            mask = 255 * (pixels[..., k] > 128).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / "set" / "labelcol" / name / f"{i}.png")
    settings = ["--data.name=folder", "--data.root=set", "--data.size=32", "--data.batch_size=2", *SMALL, *FAST]
    settings += [f"--model.mode={mode}", "--trainer.default_root_dir=run"]
    for command in ("fit", "test"):
        code, _, err = cfii_command(command, *settings)
        assert code == 0, err
    code, _, err = cfii_command("predict", *settings, "--input=set/img", "--output=out")
    assert code == 0, err
    expected = ["0_disc.png", "0_vessel.png"] if mode == "multilabel" else ["0.png"]
    assert sorted(p.name for p in (tmp_path / "out").glob("0*")) == expected


def test_predict(cfii_command, tmp_path):
    assert cfii_command("fit", *TINY, *FAST)[0] == 0
    affine = np.diag((-2, 3, 4, 1))
    (tmp_path / "in").mkdir()
    volume = np.random.default_rng(0).random((20, 24, 5), dtype=np.float32)
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "in" / "a.nii.gz")
    np.savez(tmp_path / "in" / "b.npz", image=volume.T)
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(tmp_path / "in" / "c.bmp")
    code, out, err = cfii_command("predict", *TINY, "--input=in", "--output=out")
    assert code == 0, err
    assert out.split() == ["out/a.nii.gz", "out/b.h5", "out/c.png"]
    assert (nib.load(tmp_path / "out" / "a.nii.gz").affine == affine).all()
    code, _, err = cfii_command("predict", *TINY, "--input=in/a.nii.gz", "--output=one.nii")
    assert code == 0 and np.array_equal(
        np.asarray(nib.load(tmp_path / "one.nii").dataobj),
        np.asarray(nib.load(tmp_path / "out" / "a.nii.gz").dataobj),
    )
    for arguments, words in ((["--input=nowhere", "--output=out"], "nowhere"), (["--output=out"], "input")):
        code, _, err = cfii_command("predict", *TINY, *arguments)
        assert code == 2 and words in err and err.count("\n") == 1


def test_predict_explains(cfii_command, tmp_path):
    """A picture beside each prediction, of files of each kind, with windows as well."""
    assert cfii_command("fit", *TINY, *FAST)[0] == 0
    (tmp_path / "in").mkdir()
    volume = np.random.default_rng(0).random((20, 24, 3), dtype=np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "in" / "a.nii.gz")
    np.savez(tmp_path / "in" / "b.npz", image=volume.T)
    Image.fromarray((255 * volume[..., 0]).astype(np.uint8)).save(tmp_path / "in" / "c.bmp")
    code, out, err = cfii_command("predict", *TINY, "--input=in", "--output=out", "--explain")
    assert code == 0, err
    names = ["a.nii.gz", "a_explain.png", "b.h5", "b_explain.png", "c.png", "c_explain.png"]
    assert out.split() == [f"out/{name}" for name in names]
    for name in names[1::2]:
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) > 600 and np.array(picture).std() > 10
    plain = cfii_command("predict", *TINY, "--input=in/c.bmp", "--output=plain/c.png")
    assert plain[0] == 0 and [file.name for file in (tmp_path / "plain").iterdir()] == ["c.png"]
    assert (tmp_path / "plain" / "c.png").read_bytes() == (tmp_path / "out" / "c.png").read_bytes()
    window = ["--model.roi_size=16", "--input=in/c.bmp", "--output=window/c.png", "--explain", "true"]
    code, out, err = cfii_command("predict", *TINY, *window)
    assert code == 0 and out.split() == ["window/c.png", "window/c_explain.png"], err


FOREIGN = "{class_path: torch.nn.Conv2d, init_args: {in_channels: 1, out_channels: 9, kernel_size: 1}}"


@pytest.mark.parametrize("network", [["--model.cfii=false"], [f"--model.network={FOREIGN}"]])
def test_what_cannot_be_explained(cfii_command, tmp_path, network):
    assert cfii_command("fit", *TINY, *FAST, *network)[0] == 0
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(tmp_path / "c.bmp")
    files = ["--input=c.bmp", "--output=c.png"]
    code, _, err = cfii_command("predict", *TINY, *network, *files, "--explain")
    assert code == 2 and err.startswith("error: explain: expected a network with CFII") and err.count("\n") == 1
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named(cfii_command, real_data, tmp_path, workers):
    """Also from a process that reads for the loader."""
    shutil.copytree(real_data / "glas" / "Train_Folder", tmp_path / "set" / "Train_Folder")
    file = tmp_path / "set" / "Train_Folder" / "labelcol" / "8.png"
    file.write_bytes(file.read_bytes()[:100])
    settings = ["--config=glas", "--data.root=set", *SMALL, f"--data.num_workers={workers}"]
    code, _, err = cfii_command("fit", *settings, "--data.batch_size=2", "--trainer.enable_progress_bar=false")
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("error: set/Train_Folder/labelcol/8.png: expected an image"), err


def test_a_run_is_not_overwritten(cfii_command):
    assert cfii_command("fit", *TINY, *FAST)[0] == 0
    code, _, err = cfii_command("fit", *TINY, *FAST)
    assert code == 2 and "holds a run; go on with it (--ckpt_path last)" in err
    code, _, err = cfii_command("fit", *TINY, *FAST, "--trainer.max_epochs=3", "--ckpt_path=last")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["fit", "--config", "galaxies"],
            "expected a file or one of the recipes acdc, demo, glas, monuseg, synapse",
        ),
        (["fit", "--config=galaxies"], "got 'galaxies'"),
        (["fit", "--config", "glas"], "root: expected the folder of 'glas', got None"),
        (["fit", "--config", "glas", "--data.root", "/nowhere"], "but /nowhere is no folder"),
        (["fit", *TINY, "--data.batch_size", "1000"], "batch_size: expected at most the 400 training samples"),
        (["fit", *TINY, "--data.batchsize", "4"], "data.batchsize"),
        (["fit", *TINY, "--model.name", "resnot"], "name: expected one of"),
        (["fit", *TINY, "--model.options={widhts: [8]}"], "widhts"),
        (["fit", *TINY, "--model.class_weights=[1, 2]"], "class_weights: expected 9 weights"),
        (["fit", *TINY, "--model.num_classes=4"], "num_classes: expected 9"),
        (["fit", *TINY, "--model.mode=binary"], "mode: 'binary' is for two classes, the data has 9"),
        (["fit", *TINY, "--trainer.accelerator=abacus"], "abacus"),
        (["test", *TINY], "train first"),
        (["test", *TINY, "--ckpt_path=none.ckpt"], "got none.ckpt, which is none"),
        (["fti"], "fti"),
        ([], "subcommand"),
    ],
)
def test_wrong_settings_end_with_one_line(cfii_command, arguments, words):
    code, _, err = cfii_command(*arguments)
    lines = err.splitlines()
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0], err
