"""accuracy.py trains, scores and compares; what is finished is not run again; its statistics are right."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))
import accuracy  # noqa: E402
import arms  # noqa: E402
import tables  # noqa: E402

from cfii import CFIIWrapper  # noqa: E402

OWN = "acdc-small, dsb2018, glas-small, hippocampus, monuseg-small, wbc"  # recipes
WIDE = "wide:ffn_ratio=3,lambda_eu=0.1"
ARMS = ["plain", "cfii-full", WIDE]
SMALL = ["--trainer.limit_train_batches=2", "--trainer.max_epochs=1", "--data.size=16"]


def command(folder, *arguments):
    call = [sys.executable, str(FOLDER / "accuracy.py"), "--results", folder / "json", "--runs", folder / "runs"]
    return subprocess.run([*map(str, call), *map(str, arguments)], capture_output=True, text=True)


def test_a_series_is_run_once_and_compared(tmp_path):
    series = ["--sets", "demo", "--codecs", "resunet:widths=[4,8]", "--arms", *ARMS, "--seeds", 0, *SMALL]
    first = command(tmp_path, *series)
    assert first.returncode == 0, first.stderr + first.stdout
    records = tables.load(tmp_path / "json")
    assert sorted(record["arm"] for record in records) == sorted(ARMS)
    by_arm = {record["arm"]: record for record in records}
    assert by_arm["plain"]["parameters_M"] < by_arm["cfii-full"]["parameters_M"]
    assert by_arm[WIDE]["parameters_M"] < by_arm["cfii-full"]["parameters_M"]
    for record in records:
        assert record["epochs"] == 1 and record["size"] == [16, 16] and record["seconds"] > 0
        assert {"strict", "paper"} <= record["scores"].keys()
        assert 0 <= record["scores"]["strict"]["mean"]["dice"] <= 1
        assert len(record["history"]["val_dice"]) == 1
        assert ("classes_alike" in record) == (record["arm"] != "plain")
        assert {"torch", "cfii", "device"} <= record["machine"].keys()
    assert "| resunet:widths=[4,8] | cfii-full |" in first.stdout
    assert (tmp_path / "json" / "scatter.svg").is_file() and (tmp_path / "json" / "curves.svg").is_file()

    lost = next((tmp_path / "json").glob("*-plain-*seed0.json"))
    before = json.loads(lost.read_text())
    lost.unlink()  # as after an interruption between training and writing: its checkpoint is scored again
    second = command(tmp_path, *series)
    assert "3 runs, 2 of them finished before" in second.stdout, second.stderr + second.stdout
    assert json.loads(lost.read_text())["scores"] == before["scores"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sets", "glas=/nowhere"], "--sets: expected NAME=FOLDER"),
        (["--sets", "gals"], "expected a file or one of the recipes .* of the benchmarks: " + OWN),
        (["--sets", "demo", "--arms", "half"], "--arms: expected plain, plain-half"),
    ],
)
def test_wrong_calls(arguments, message):
    with pytest.raises(SystemExit, match=message):
        accuracy.list_runs(*accuracy.parse(arguments))


def test_every_set_has_a_test_part(tmp_path):
    """Without splits of its own every fifth subject; a validation split, where there is no test split."""

    def write(folder, count):
        for kind, low in (("img", 0), ("labelcol", 0)):
            (folder / kind).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((8, 8), low, np.uint8)
                pixels[: i % 7 + 1] = 255
                Image.fromarray(pixels).save(folder / kind / f"{i:02}.png")

    write(tmp_path / "flat", 11)
    flat = arms.Data("folder", tmp_path / "flat", size=8, val_fraction=0.2)
    test = flat.cases("test").names
    assert test == ["04", "09"] and len(flat.cases("train")) == 7 and len(flat.cases("val")) == 2
    assert not set(test) & {*flat.cases("train").names, *flat.cases("val").names}

    write(tmp_path / "split" / "train", 5), write(tmp_path / "split" / "val", 3)
    split = arms.Data("folder", tmp_path / "split", size=8, val_fraction=0.2)
    assert len(split.cases("test")) == 3 and len(split.cases("train")) == 4 and len(split.cases("val")) == 1


def test_volumes_are_held_back_whole(tmp_path):
    """No slice of a volume is trained on while others are scored; a test split without labels scores nothing."""
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (tmp_path / folder).mkdir()
        for i in range(6 if folder.endswith("Tr") else 2):
            voxels = np.zeros((8, 7, 3 + i), np.uint8)
            voxels[:4] = 1
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / folder / f"{i}.nii.gz")
    description = {
        "labels": {"0": "background", "1": "organ"},
        "modality": {"0": "MRI"},
        "training": [{"image": f"imagesTr/{i}.nii.gz", "label": f"labelsTr/{i}.nii.gz"} for i in range(6)],
        "test": [f"imagesTs/{i}.nii.gz" for i in range(2)],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))

    volumes = arms.Data("decathlon", tmp_path, size=8, val_fraction=0.2, options={"slices": False})
    assert volumes.cases("test").names == ["4"] and volumes.cases("test")[0].shape == (7, 7, 8)
    parts = volumes.cases("train"), volumes.cases("val")
    assert sum(map(len, parts)) == 3 + 4 + 5 + 6 + 8 and all(len(part[0].shape) == 2 for part in parts)
    assert not set(parts[0].subjects) & set(parts[1].subjects)

    slices = arms.Data("decathlon", tmp_path, size=8, val_fraction=0.2)
    assert set(slices.cases("test").subjects) == {"4"} and len(slices.cases("test")) == 7


def test_forms():
    """Halves gives the decoder the second halves as they are; full keeps the plain decoder's widths."""

    def build(form, cfii=True, **options):
        options = {"widths": [4, 8], **options}
        task = arms.Task(
            form, name="unet", cfii=cfii, options=options, num_classes=3, in_channels=1, mode="multiclass"
        )
        task.configure_model()
        return task.network

    def shapes(module):
        return [parameter.shape for parameter in module.parameters()]

    halves, cfii, plain = build("halves"), build("recipe"), build("recipe", cfii=False)
    features = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    out, embeddings, class_logits = halves.neck(features)
    assert all(torch.equal(o, f[:, f.shape[1] // 2 :]) for o, f in zip(out, features, strict=True))
    assert embeddings == [] == class_logits and halves.stages == []
    assert shapes(halves.encoder) == shapes(cfii.encoder) and shapes(halves.decoder) == shapes(cfii.decoder)
    assert halves(torch.randn(1, 1, 8, 8)).shape == (1, 3, 8, 8)

    full = build("full", num_heads=2)
    assert isinstance(full, CFIIWrapper) and full.neck.rejoin
    assert full.neck.iterator.interaction[0].num_heads == 2
    assert shapes(full.encoder) == shapes(plain.encoder) and shapes(full.decoder) == shapes(plain.decoder)


def made_up(name, codec, arm, seed, dice, **changes):
    cell = {"dice": dice / 100, "iou": 0.5, "hd95": None}
    return {
        "set": name, "codec": codec, "arm": arm, "seed": seed, "epochs": 3, "size": [8, 8], "parameters_M": 1.0,
        "cases": {"train": 4, "val": 1, "test": 2}, "scores": {"strict": {"a": cell, "b": cell, "mean": cell}},
        "history": {"val_dice": [[0.0, dice / 100]]}, "seconds": 10.0, "extra": [], **changes,
    }  # fmt: skip


def test_differences_are_paired():
    """The seeds' own spread does not count, their differences do; Student's t for three of them is 4.303."""
    records = [made_up("x", "unet", "plain", s, d) for s, d in enumerate((50.0, 60.0, 70.0))]
    records += [made_up("x", "unet", "cfii", s, d) for s, d in enumerate((51.0, 62.0, 73.0))]
    records += [made_up("x", "unet", "cfii", 7, 99.0)]  # no plain run with this seed
    differences = tables.against_plain(tables.grouped(records), ("x", "unet", "cfii"))
    assert list(differences.values()) == pytest.approx([1, 2, 3])
    middle, half = tables.interval([1, 2, 3])
    assert middle == pytest.approx(2) and half == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert tables.interval([1.0])[1] == float("inf")
    table = tables.markdown(records, list(arms.ARMS))
    assert "alike" not in table
    assert "| unet | plain | 1.00 | 3 | 60.00 | 60.00 | 60.00 ± 10.00 | – | 10 |" in table
    assert "+2.00 [-0.48, +4.48]" in table


def test_classes_alike_has_a_column():
    records = [made_up("x", "unet", "plain", 0, 80.0), made_up("x", "unet", "cfii", 0, 81.0)]
    records += [made_up("x", "unet", "cfii", s, 81.0, classes_alike=c) for s, c in ((1, 0.80), (2, 0.78))]
    table = tables.markdown(records, list(arms.ARMS))
    assert "| against plain | alike | s |" in table
    assert "| unet | plain | 1.00 | 1 | 80.00 | 80.00 | 80.00 | – | – | 10 |" in table
    assert "| +1.00 | -2.00 | 10 |" in table  # of the two runs that have it


def test_tables_over_sets_and_beside_the_paper():
    records = [made_up("glas", "resunet:widths=[8]", "cfii", 0, 90.0)]
    for name, gain in (("x", 1.0), ("glas", 3.0)):
        for seed in range(2):
            records.append(made_up(name, "unet", "plain", seed, 80.0))
            records.append(made_up(name, "unet", "cfii", seed, 80.0 + gain + seed))
    table = tables.markdown(records, list(arms.ARMS))
    assert "| resunet:widths=[8] | cfii | 1.00 | 1 | 90.00 | 90.00 | 90.00 | – | 92.25 | 10 |" in table
    assert "| swinunet | plain | – | – | – | – | – | – | 89.67 | – |" in table
    assert "| unet | cfii | 2 | 2 | +2.50" in table  # (1 + 3) / 2 and (2 + 4) / 2


def test_other_conditions_are_other_runs():
    """What departs from the recipe has files and tables of its own; averages are over sets that depart alike."""
    series = ["--sets", "wbc", "dsb2018", "--arms", "cfii", "--seeds", "0"]
    names = {run.name for run in accuracy.list_runs(*accuracy.parse(series))}
    longer = {run.name for run in accuracy.list_runs(*accuracy.parse([*series, "--trainer.max_epochs=9"]))}
    assert len(names | longer) == 4

    records = []
    for name, epochs, gain in (("x", 5, 1.0), ("y", 9, 2.0), ("x", None, -1.0), ("y", None, -4.0)):
        extra = [] if epochs is None else [f"--trainer.max_epochs={epochs}"]
        for arm, more in (("plain", 0.0), ("cfii", gain)):
            records += [made_up(name, "unet", arm, s, 70.0 + s + more, extra=extra) for s in range(2)]
    table = tables.markdown(records, list(arms.ARMS))
    assert "**x** `--trainer.max_epochs=5`: 4 cases" in table and "**x**: 4 cases" in table
    recipe, _, other = table.partition("**All sets**:")[2].partition("**All sets** `--trainer.max_epochs`")
    assert "| unet | cfii | 2 | 2 | -2.50" in recipe and "| unet | cfii | 2 | 2 | +1.50" in other


def test_plots_are_whole_files(tmp_path):
    records = [made_up("x", "unet", arm, seed, 80.0 + seed) for arm in arms.ARMS for seed in range(2)]
    tables.scatter(records, tmp_path / "scatter.svg"), tables.curves(records, tmp_path / "curves.svg")
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["curves.svg", "scatter.svg"]
    assert all("</svg>" in file.read_text() for file in tmp_path.iterdir())
