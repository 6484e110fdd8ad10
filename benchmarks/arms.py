"""One arm of accuracy.py: a network in one of its forms, trained and scored by a recipe, from one seed.

The test part of a set: its own, if it has labels; else its validation split, with another held out of the
training split; else every fifth subject, as whole volumes if the recipe opens the set so. What is chosen, the
best epoch, is chosen on the validation part.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import common
import torch
from lightning.pytorch.callbacks import Callback, Timer
from torch import Tensor, nn

from cfii import CFIIWrapper
from cfii.codecs.registry import NECK_OPTIONS
from cfii.inside import classes_alike
from cfii.neck import CFIINeck, chunk, half_width
from cfii.training.cases import CaseSet, split_by
from cfii.training.cli import command, find_recipe
from cfii.training.data import SegmentationData, as_images
from cfii.training.files import DataError, NoSuchSplit, SettingsError, writing
from cfii.training.results import without_nan
from cfii.training.runner import read_history
from cfii.training.task import SegmentationTask

RECIPES = Path(__file__).parent / "recipes"
Form = Literal["recipe", "halves", "full"]

# name: the task's settings that differ from the recipe's
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"cfii": False},
    "plain-half": {"form": "halves"},
    "cfii": {},
    "cfii-full": {"form": "full"},
    "usual": {"options": {"start": "default"}},
    "learned": {"options": {"embeddings": "learned"}},
    "no-ceu": {"options": {"update_embeddings": False}},
    "no-feu": {"options": {"update_features": False}},
    "lambda-0": {"lambda_eu": 0.0},
    "lambda-0.3": {"lambda_eu": 0.3},
    "lambda-1": {"lambda_eu": 1.0},
    "class-maps": {"class_maps_weight": 0.3},
}
ABOUT = {
    "plain": "the codec without CFII, at its own widths",
    "plain-half": "CFII's encoder and half-width decoder, which is given the second halves as they are",
    "cfii": "CFII by the recipe, the decoder at half width as in the paper",
    "cfii-full": "CFII around the plain codec: the decoder keeps its widths",
    "usual": "CFII whose weights all start at their usual scale, not as the identity",
    "learned": "class embeddings that are parameters (the paper's Table 4, initialize)",
    "no-ceu": "without CEU (Table 4)",
    "no-feu": "without FEU (Table 4)",
    "lambda-0": "without L_EU (Table 6)",
    "lambda-0.3": "L_EU with the paper's weight (Table 6)",
    "lambda-1": "L_EU with weight 1 (Table 6)",
    "class-maps": "the stages' class maps supervised too, which the paper does not do",
}


def settings_of(arm: str) -> dict[str, Any]:
    """Of a known arm, or of NAME:OPTION=VALUE,..., options of the neck, the form or weights of the loss."""
    if arm in ARMS:
        return dict(ARMS[arm])
    name, options = common.parse_model(arm)
    if not options:
        raise SystemExit(f"--arms: expected {', '.join(ARMS)} or NAME:OPTION=VALUE,..., got {name!r}")
    settings = {key: options.pop(key) for key in ("form", "lambda_eu", "class_maps_weight") if key in options}
    return settings | {"options": options}


def recipe_of(name: str) -> str:
    """The file of a recipe: the package's, or one made for the benchmarks."""
    own = RECIPES / f"{name}.yaml"
    try:
        return str(own) if own.is_file() else find_recipe(name)
    except SettingsError as error:
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise SystemExit(f"--sets: {error}; of the benchmarks: {known}") from error


@dataclass(frozen=True)
class Run:
    """What is run: a set (a recipe and a folder), a codec (NAME or NAME:OPTION=VALUE,...), an arm, a seed."""

    set: str
    root: str | None
    codec: str
    arm: str
    seed: int
    extra: tuple[str, ...] = ()  # further arguments of `cfii fit`, for all arms

    @property
    def name(self) -> str:
        """Of its file and its folder."""
        parts = (self.set, self.codec, self.arm, *(x.lstrip("-") for x in self.extra), f"seed{self.seed}")
        return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)

    def arguments(self, folder: Path) -> list[str]:
        codec, options = common.parse_model(self.codec)
        settings = settings_of(self.arm)
        options |= settings.pop("options", {})
        given = {"name": codec, "seed": self.seed, "options": options, **settings}
        return [
            f"--config={recipe_of(self.set)}",
            f"--seed_everything={self.seed}",
            f"--data.seed={self.seed}",
            *([] if self.root is None else [f"--data.root={self.root}"]),
            f"--trainer.default_root_dir={folder}",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            *(f"--model.{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in given.items()),
            *self.extra,
        ]


class Halves(nn.Module):
    """The neck's cut without its interaction."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.keep, self.stages, self.rejoin = neck.keep, [], False

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        second = [f if i in self.keep else chunk(f, half_width(f.shape[1]))[1] for i, f in enumerate(features)]
        return second, [], []


class Task(SegmentationTask):
    """The recipes' task, with the network in one more form.

    Args:
        form: "recipe": as `create_model` builds it; "halves": without the interaction, see `Halves`; "full": CFII
            around the plain codec, which keeps its widths.
        **settings: of `SegmentationTask`.
    """

    def __init__(self, form: Form = "recipe", **settings: Any) -> None:
        super().__init__(**settings)
        self.form = form

    def configure_callbacks(self) -> list[Callback]:
        return [Timer()]  # its seconds are in the checkpoints: an interrupted run's count as well

    def create(self) -> nn.Module:
        if self.form == "full":
            self.cfii = False
        model = super().create()
        if self.form == "halves":
            model.neck = Halves(model.neck)
        if self.form == "full":
            model = CFIIWrapper(
                model.encoder,
                model.decoder,
                model.num_classes,
                model.head,
                in_channels=model.in_channels,
                **{key: value for key, value in self.options.items() if key in NECK_OPTIONS},
            )
        return model


class Data(SegmentationData):
    """The recipes' data, with a test part for every set."""

    @cached_property
    def parts(self) -> dict[str, CaseSet]:
        """The set's own splits, and what stands for a test split; found once, as finding them reads files."""
        own = {}
        for name in ("train", "val", "test"):
            with contextlib.suppress(NoSuchSplit):
                own[name] = super().open(name)
        if "test" in own and own["test"][0].label is None:  # the Decathlon's
            del own["test"]
        if "test" not in own and "val" in own:
            own["test"] = own.pop("val")
        if "test" not in own:
            cases = own["train"]
            subjects = list(dict.fromkeys(cases.subjects))
            if len(subjects) < 5:
                found = len(subjects)
                raise DataError(f"{self.root}: expected at least 5 cases, to hold back one, found {found}")
            own["train"], own["test"] = split_by(cases, cases.subjects, subjects[4::5])
        if "train" in own:
            own["train"] = as_images(own["train"])
        return own

    def open(self, split: str) -> CaseSet:
        if split not in self.parts:
            raise NoSuchSplit(f"{self.root}: expected a split {split!r}, found {', '.join(self.parts)}")
        return self.parts[split]


def train_and_score(run: Run, runs: Path, results: Path, threads: int | None) -> dict[str, Any]:
    """Train a run, or go on with it, score its best epoch on the test part, and write its JSON.

    Everything that it prints goes to `log.txt` in its folder.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    folder = runs / run.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        sys.argv = ["cfii", "fit", *run.arguments(folder), "--ckpt_path=last"]
        cli = command(Task, Data)
        trainer, task = cli.trainer, cli.model
        seconds = next(c for c in trainer.callbacks if isinstance(c, Timer)).time_elapsed("train")
        alike = None
        if isinstance(task.network.neck, CFIINeck):
            with classes_alike(task.network):
                trainer.test(task, datamodule=cli.datamodule)
            alike = task.results["strict"].summary()["mean"]["dice"]["mean"]
        trainer.test(task, datamodule=cli.datamodule)  # last, as its files replace those of the test before
    history = read_history(folder / "csv")
    machine = common.machine(str(trainer.strategy.root_device))
    del machine["command"]  # this process's own; what was asked for is in the record
    record = {
        "set": run.set,
        "codec": run.codec,
        "arm": run.arm,
        "seed": run.seed,
        "extra": list(run.extra),
        "epochs": trainer.max_epochs,
        "size": list(cli.datamodule.resize.size),
        "parameters_M": common.millions(task.network),
        "cases": {split: len(cli.datamodule.cases(split)) for split in ("train", "val", "test")},
        "scores": {
            protocol: {
                name: {metric: cell["mean"] for metric, cell in row.items()}
                for name, row in scored.summary().items()
            }
            for protocol, scored in task.results.items()
        },
        # The mean Dice, strict, with one embedding for all classes.
        **({} if alike is None else {"classes_alike": alike}),
        "history": {key: history[key] for key in ("train_loss", "val_dice") if key in history},
        "seconds": seconds,
        "machine": machine,
    }
    results.mkdir(parents=True, exist_ok=True)
    with writing(results / f"{run.name}.json") as temporary:
        temporary.write_text(json.dumps(without_nan(record), indent=1) + "\n", encoding="utf-8")
    return record
