"""What the commands do, on top of Lightning's trainer: fit, test, predict, check."""

from __future__ import annotations

import csv
import json
import platform
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import EarlyStopping

from cfii.codecs.registry import CFIIModel
from cfii.training.arrays import ENDINGS as ARRAY_ENDINGS
from cfii.training.check import check
from cfii.training.checkpoints import find_checkpoint, load_checkpoint
from cfii.training.data import SegmentationData
from cfii.training.explain import explain_prediction
from cfii.training.files import DataError, SettingsError, writing
from cfii.training.inference import predict_file
from cfii.training.nifti import ENDINGS as NIFTI_ENDINGS
from cfii.training.pictures import curves
from cfii.training.sets.folder import list_files
from cfii.training.task import ABOUT, SegmentationTask
from cfii.wrapper import Codec

PACKAGES = ("cfii", "torch", "lightning", "monai", "timm", "segmentation-models-pytorch", "numpy", "scipy")


class Runner(lightning.Trainer):
    """One run lives in one folder, `default_root_dir`: `checkpoints/`, logs, `model/`, `curves.png`, `test/`."""

    @property
    def root(self) -> Path:
        return Path(self.default_root_dir)

    def fit(
        self,
        model: SegmentationTask,
        datamodule: SegmentationData | None = None,
        ckpt_path: str | None = None,
        patience: int | None = None,
    ) -> None:
        """Train, or go on with a run.

        Args:
            model: what to train.
            datamodule: on what.
            ckpt_path: "last" goes on with the run in `default_root_dir` (and starts it, if there is none yet), a
                path with that checkpoint. Without it, a folder that holds a run is refused.
            patience: stop when `val_dice` has not risen for so many epochs.
        """
        last = self.root / "checkpoints" / "last.ckpt"
        if ckpt_path is None and last.is_file():
            raise SettingsError(
                f"default_root_dir: {self.root} holds a run; go on with it (--ckpt_path last) or give another "
                "folder (--trainer.default_root_dir)"
            )
        if patience is not None:
            self.callbacks.append(EarlyStopping("val_dice", mode="max", patience=patience))
        start = ckpt_path is None or (ckpt_path == "last" and not last.is_file())
        file = None if start else find_checkpoint(self.root, ckpt_path)
        super().fit(model, datamodule=datamodule, ckpt_path=file, weights_only=True)
        if self.is_global_zero and not self.interrupted:
            self.finish(model)

    def finish(self, model: SegmentationTask) -> None:
        """Curves, and the best network for `from_pretrained`."""
        history = read_history(self.root / "csv")
        if history:
            curves(history, self.root / "curves.png")
        best = self.root / "checkpoints" / "best.ckpt"
        if isinstance(model.network, CFIIModel) and best.is_file():
            model.load_state_dict(load_checkpoint(best)["state_dict"])
            model.network.save_pretrained(self.root / "model")
        score = self.checkpoint_callback.best_model_score if self.checkpoint_callback else None
        print(f"{'' if score is None else f'best val_dice {score:.4f}; '}all of the run is in {self.root}")

    def test(
        self, model: SegmentationTask, datamodule: SegmentationData | None = None, ckpt_path: str | None = None
    ) -> Any:
        """Score a trained network case by case; tables and pictures go to `test/`.

        Args:
            model: with the settings that it was trained with.
            datamodule: its test split is scored, or where it has none the validation split.
            ckpt_path: "best", "last" or a path; by default the run's best.
        """
        file = find_checkpoint(self.root, ckpt_path)
        scores = super().test(model, datamodule=datamodule, ckpt_path=file, verbose=False, weights_only=True)
        if self.is_global_zero:
            for results in model.results.values():
                print(results.markdown())
            print(f"tables and pictures: {self.root / 'test'}")
        return scores

    def predict(
        self,
        model: SegmentationTask,
        input: Path,
        output: Path,
        datamodule: SegmentationData | None = None,
        ckpt_path: str | None = None,
        explain: bool = False,
    ) -> None:
        """Predict a file, or every file of a folder, in its own size and geometry.

        Args:
            model: with the settings that it was trained with.
            input: NIfTI, HDF5, .npz or an image, or a folder of them.
            output: a file for a file, a folder for a folder.
            datamodule: for the network's size and the data set's options.
            ckpt_path: "best", "last" or a path; by default the run's best.
            explain: beside each prediction, a picture of what the network did inside, `<name>_explain.png`.
        """
        checkpoint = load_checkpoint(find_checkpoint(self.root, ckpt_path))
        about = checkpoint.get(ABOUT)
        if about is None:
            raise DataError(f"ckpt_path: expected a checkpoint of cfii fit, found one without {ABOUT!r}")
        model.num_classes, model.in_channels, model.mode = (
            about[key] for key in ("num_classes", "in_channels", "mode")
        )
        model.configure_model()
        if explain and not (isinstance(model.network, Codec) and model.network.neck is not None):
            raise SettingsError("explain: expected a network with CFII, got one without its neck")
        model.load_state_dict(checkpoint["state_dict"])
        model.to(self.strategy.root_device)
        options = model.inference_options(datamodule)
        reading = {"window": datamodule.options.get("window"), "channels": model.in_channels}
        files = [input] if input.is_file() else find_inputs(input)
        for file in files:
            target = output if input.is_file() else output / target_name(file)
            image, labels = predict_file(
                model.network, file, target, classes=about["classes"], **reading, **options
            )
            print(target)
            if explain:
                picture = target.with_name(f"{without_ending(target)}_explain.png")
                seen = {key: value for key, value in options.items() if key != "batch_size"}
                explain_prediction(
                    model.network, image, labels, picture, classes=about["classes"], name=file.name, **seen
                )
                print(picture)

    def check(
        self, model: SegmentationTask, datamodule: SegmentationData, picture: Path = Path("check.png")
    ) -> None:
        """Read every file of a data set, report what is wrong, draw a mosaic.

        Args:
            model: not used.
            datamodule: whose files.
            picture: of the first split; the others' names end in _val and _test.
        """
        if not check(datamodule, picture):
            raise SystemExit(1)


def find_inputs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SettingsError(f"input: expected a file or a folder, got {folder}, which is neither")
    others = [f for f in folder.iterdir() if f.name.endswith((*NIFTI_ENDINGS, *ARRAY_ENDINGS))]
    files = sorted({*list_files(folder), *others})
    if not files:
        raise SettingsError(f"input: expected images, NIfTI, HDF5 or .npz files in {folder}, found none")
    return files


def target_name(file: Path) -> str:
    """The same name, with the extension that predictions of such a file have."""
    if file.name.endswith(NIFTI_ENDINGS):
        return file.name
    return f"{file.stem}{'.h5' if file.suffix in ARRAY_ENDINGS else '.png'}"


def without_ending(file: Path) -> str:
    """The name without its extension, which may be `.nii.gz`."""
    ending = next((e for e in NIFTI_ENDINGS if file.name.endswith(e)), file.suffix)
    return file.name.removesuffix(ending)


def read_history(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """(epoch, value) of everything in CSVLogger's files, later versions (resumed runs) over earlier ones."""
    found: dict[str, dict[float, float]] = defaultdict(dict)
    versions = sorted(folder.glob("version_*/metrics.csv"), key=lambda file: int(file.parent.name.split("_")[1]))
    for file in versions:
        for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
            for name, value in row.items():
                if value and name not in ("epoch", "step"):
                    found[name][float(row["epoch"])] = float(value)
    return {name: sorted(values.items()) for name, values in found.items()}


def write_versions(file: Path) -> None:
    """What a run depends on, beside its settings."""
    versions = {"python": platform.python_version(), "machine": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    with writing(file) as temporary:
        temporary.write_text(json.dumps(versions, indent=1) + "\n", encoding="utf-8")
