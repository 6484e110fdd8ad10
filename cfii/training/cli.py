"""The `cfii` command: settings from a recipe, a file and the command line, and errors in one line."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cfii.training.checkpoints import AtomicCheckpointIO
from cfii.training.data import SegmentationData
from cfii.training.files import DataError, SettingsError, writing
from cfii.training.runner import Runner, write_versions
from cfii.training.task import SegmentationTask

RECIPES = resources.files("cfii") / "recipes"


class Parser(LightningArgumentParser):
    """Wrong settings end with one line and exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        fail(message)


class SaveSettings(SaveConfigCallback):
    """The settings of a run as `config.yaml`, and versions, in its folder; those of its test in `test/`."""

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero or self.already_saved:
            return
        folder = trainer.root if stage == "fit" else trainer.root / "test"
        with writing(folder / "config.yaml") as temporary:
            self.parser.save(self.config, temporary, skip_none=False, skip_check=True)
        write_versions(folder / "versions.json")
        self.already_saved = True


class CLI(LightningCLI):
    """LightningCLI with the four commands, the run's folder and its loggers."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {command: {"model", "datamodule"} for command in ("fit", "test", "predict", "check")}

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, MisconfigurationException) as error:
            fail(error)

    def instantiate_trainer(self, **kwargs: Any) -> Runner:
        settings = self._get(self.config_init, "trainer", default={})
        root = Path(settings.get("default_root_dir") or "runs/cfii").resolve()
        kwargs["default_root_dir"] = root
        if settings.get("logger") in (None, True) and self.subcommand == "fit":
            kwargs["logger"] = [CSVLogger(root, name="csv"), TensorBoardLogger(root, name="tensorboard")]
        elif self.subcommand != "fit":
            kwargs["logger"] = False
        kwargs["plugins"] = [*as_list(settings.get("plugins")), AtomicCheckpointIO()]
        callbacks = as_list(settings.get("callbacks"))
        if settings.get("enable_progress_bar") is not False:
            callbacks.append(RichProgressBar())
        if self.subcommand in ("fit", "test") and settings.get("enable_checkpointing") is not False:
            folder = root / "checkpoints"
            # Two callbacks, as the last epoch is to be kept whatever its score. The last is saved last.
            best = ModelCheckpoint(folder, "best", monitor="val_dice", mode="max", enable_version_counter=False)
            last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
            callbacks += [best, last]
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)


def as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def recipes() -> list[str]:
    return sorted(file.name.removesuffix(".yaml") for file in RECIPES.iterdir() if file.name.endswith(".yaml"))


def find_recipe(name: str) -> str:
    """A path as it is; a bare name is a packaged recipe."""
    if Path(name).is_file():
        return name
    if name not in recipes():
        raise SettingsError(f"config: expected a file or one of the recipes {', '.join(recipes())}, got {name!r}")
    return str(RECIPES / f"{name}.yaml")


def with_recipes(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the files of packaged recipes."""
    found = list(arguments)
    for i, argument in enumerate(found):
        option, equals, value = argument.partition("=")
        if option in ("--config", "-c"):
            if equals:
                found[i] = f"{option}={find_recipe(value)}"
            elif i + 1 < len(found):
                found[i + 1] = find_recipe(found[i + 1])
    return found


def with_values(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `--explain` alone as `--explain=true`: jsonargparse wants a value."""
    found = list(arguments)
    for i, argument in enumerate(found):
        if argument == "--explain" and found[i + 1 : i + 2] not in (["true"], ["false"]):
            found[i] = "--explain=true"
    return found


def fail(message: object) -> None:
    text = str(message)
    if "Original Traceback" in text:  # from a process that reads for a DataLoader: its last line is the message
        text = text.rpartition("DataError: ")[2]
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(2)


def command(
    task: type[SegmentationTask] = SegmentationTask, data: type[SegmentationData] = SegmentationData
) -> CLI:
    """Run what the process's arguments say. Lightning's launchers start further processes with them."""
    for name in ("lightning.pytorch", "lightning.fabric"):  # no tips, and errors in one line
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's own use of PyTorch, which its user cannot change.
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    return CLI(
        task,
        data,
        trainer_class=Runner,
        save_config_callback=SaveSettings,
        parser_class=Parser,
        seed_everything_default=1234,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        parser_kwargs={"prog": "cfii", "epilog": "Beside these: cfii --version, cfii export MODEL"},
    )


def main() -> None:
    try:
        sys.argv[1:] = with_values(with_recipes(sys.argv[1:]))
        command()
    except (DataError, SettingsError, MisconfigurationException) as error:
        fail(error)
