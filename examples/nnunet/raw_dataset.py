"""A small data set in nnU-Net's raw format: a generated phantom, or cases of a task of the Decathlon.

    pip install "cfii[train]"
    export nnUNet_raw=...
    python examples/nnunet/raw_dataset.py                                        # Dataset900_Phantom
    python examples/nnunet/raw_dataset.py --data Task04_Hippocampus --id 904     # Dataset904_Hippocampus

The Decathlon is the Medical Segmentation Decathlon; nnU-Net's own nnUNetv2_convert_MSD_dataset converts a whole
task. Every fifth case goes to imagesTs, with its labels in labelsTs, so that nnUNetv2_evaluate_simple can score
predictions.
"""

import argparse
import json
import os
from itertools import islice
from pathlib import Path

import nibabel
import numpy as np

from cfii.training.sets import open_set


def phantom(slices=8):
    """(name, image, labels) of volumes: 64x64 voxels of 1 mm in a slice, slices 5 mm apart."""
    cases = open_set("phantom", None, size=64)
    for first in range(0, len(cases), slices):
        stack = [cases[i] for i in range(first, first + slices)]
        arrays = np.stack([c.image[0] for c in stack], -1), np.stack([c.label for c in stack], -1)
        yield f"phantom{first:03}", *(nibabel.Nifti1Image(x, np.diag((1.0, 1.0, 5.0, 1.0))) for x in arrays)


def decathlon(task):
    """The same of a task's folder."""
    for file in sorted((task / "labelsTr").glob("[!.]*.nii.gz")):
        yield file.name.removesuffix(".nii.gz"), nibabel.load(task / "imagesTr" / file.name), nibabel.load(file)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a Decathlon task's folder; by default the phantom")
    parser.add_argument("--id", type=int, default=900)
    parser.add_argument("--cases", type=int, default=20)
    args = parser.parse_args(arguments)

    if args.data:
        about, cases = json.loads((args.data / "dataset.json").read_text()), decathlon(args.data)
        labels, channels = {name: int(value) for value, name in about["labels"].items()}, about["modality"]
    else:
        labels = {name: value for value, name in enumerate(open_set("phantom", None).classes)}
        channels, cases = {"0": "noNorm"}, phantom()
    name = args.data.resolve().name.split("_")[-1] if args.data else "Phantom"
    target = Path(os.environ["nnUNet_raw"]) / f"Dataset{args.id:03}_{name}"  # noqa: SIM112
    count = {"Tr": 0, "Ts": 0}
    for i, (case, image, label) in enumerate(islice(cases, args.cases)):
        part = "Ts" if i % 5 == 4 else "Tr"
        count[part] += 1
        for folder in (f"images{part}", f"labels{part}"):
            (target / folder).mkdir(parents=True, exist_ok=True)
        for channel, volume in enumerate(nibabel.four_to_three(image) if image.ndim == 4 else [image]):
            nibabel.save(volume, target / f"images{part}" / f"{case}_{channel:04}.nii.gz")
        nibabel.save(label, target / f"labels{part}" / f"{case}.nii.gz")
    about = {"channel_names": channels, "labels": labels, "numTraining": count["Tr"], "file_ending": ".nii.gz"}
    (target / "dataset.json").write_text(json.dumps(about, indent=2))
    print(f"{target}: {count['Tr']} cases to train on, {count['Ts']} to predict")
    return target


if __name__ == "__main__":
    main()
