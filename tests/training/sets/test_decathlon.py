import json
import shutil

import pytest

from cfii.training.files import DataError, NoSuchSplit
from cfii.training.sets.decathlon import decathlon


def test_every_file_loads(real_data):
    volumes = decathlon(real_data / "msd_hippocampus", slices=False)
    assert len(volumes) == 120 and volumes.classes == ("background", "Anterior", "Posterior")
    for case in volumes:
        assert (
            case.label.max() == 2 and case.spacing == (1, 1, 1) and 0 <= case.image.min() < case.image.max() <= 1
        )
    slices = decathlon(real_data / "msd_hippocampus")
    assert len(slices) == sum(case.shape[0] for case in volumes) and len(set(slices.subjects)) == 120


@pytest.fixture
def task(real_data, tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        for name in ("hippocampus_001", "hippocampus_003"):
            source = real_data / "msd_hippocampus" / "Task04_Hippocampus" / folder / f"{name}.nii.gz"
            shutil.copyfile(source, tmp_path / folder / f"{name}.nii.gz")
    names = ("hippocampus_001", "hippocampus_003")
    description = {
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "modality": {"0": "MRI"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": ["./imagesTr/hippocampus_001.nii.gz"],
    }
    return tmp_path, description


def write(task, **changes):
    root, description = task
    (root / "dataset.json").write_text(json.dumps({**description, **changes}))
    return root


def test_splits(task):
    root = write(task)
    assert len(decathlon(root, slices=False)) == 2 and decathlon(root, "test")[0].label is None
    with pytest.raises(NoSuchSplit, match="expected cases for the split 'val'"):
        decathlon(root, "val")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": []}, r"dataset\.json: expected at least one case, found an empty list"),
        ({"labels": {"0": "background", "2": "x"}}, r"dataset\.json: expected labels 0 to 1"),
        ({"labels": None}, r"dataset\.json: expected the task's dataset\.json"),
        ({"training": [{"image": "../x.nii.gz", "label": "x"}]}, r"dataset\.json: expected files within"),
        ({"training": [{"image": "x.nii.gz", "label": "x.nii.gz"}]}, r"x\.nii\.gz: expected this file"),
        ({"modality": {"0": "T1", "1": "T2"}}, r"hippocampus_001\.nii\.gz: expected 2 channels"),
        ({"labels": {"0": "background", "1": "x"}}, r"labelsTr.*\.nii\.gz: expected labels 0 to 1, found also 2"),
    ],
)
def test_wrong_descriptions_are_named(task, changes, message):
    with pytest.raises(DataError, match=message):
        decathlon(write(task, **changes))
