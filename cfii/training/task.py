"""Training, validation and scoring of a network, as Lightning's loop calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import lightning
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from cfii.codecs import create_model
from cfii.losses import CFIILoss
from cfii.training.augment import RotateFlip
from cfii.training.cases import Case
from cfii.training.data import SegmentationData
from cfii.training.files import SettingsError
from cfii.training.inference import predict, resized
from cfii.training.metrics import Protocol
from cfii.training.pictures import bars, overlays
from cfii.training.resize import decide
from cfii.training.results import Results
from cfii.training.validation import count_pixels, mean_dice
from cfii.wrapper import Codec

ABOUT = "cfii"  # the key under which a checkpoint tells what the network is for
POWER = 0.9


class SegmentationTask(lightning.LightningModule):
    """A network, its loss, its optimiser and its schedule.

    Args:
        name: of `create_model`.
        cfii: with the interaction, or the same codec, plain.
        options: of `create_model`, such as `encoder_name`, `widths`, `embeddings`.
        network: instead, a module of your own, from images (B, channels, H, W) to logits (by import path:
            `class_path`, `init_args`).
        num_classes: of the network; by default the data's.
        in_channels: of the images; by default the data's. Grey images are repeated to it.
        mode: "multiclass", "multilabel", or "binary" for two classes on one sigmoid channel; by default by the
            data.
        lambda_eu: see `CFIILoss`.
        class_weights: see `CFIILoss`.
        class_maps_weight: see `CFIILoss`.
        optimizer: any of torch's, by import path.
        encoder_lr: another learning rate for the encoder.
        lr_scheduler: "poly": lr · (1 - step / steps)^0.9 after each step, as in TransUNet; any of torch's by
            import path, stepped after each epoch; or none.
        augment: random rotation and flipping (`RotateFlip`).
        legacy_nearest: rotate images by nearest neighbour, as TransUNet's code does; for comparison.
        at_network_size: score at the network's size instead of the images' own, as the field does for GlaS and
            MoNuSeg.
        roi_size: test and predict by MONAI's sliding window of this size, at the images' own resolution,
            instead of resizing.
        compile: with `torch.compile`.
        seed: of initialisation, augmentation and whatever is drawn in training.

    Logged: `train_loss` and its terms, `lr`; `val_loss`; `val_dice`, the mean over the classes of the mean over
    the cases where a class is there or predicted, at the network's size, slices of one volume counted together.
    """

    def __init__(
        self,
        name: str = "resunet",
        cfii: bool = True,
        options: dict[str, Any] | None = None,
        network: nn.Module | None = None,
        num_classes: int | None = None,
        in_channels: int | None = None,
        mode: Literal["multiclass", "multilabel", "binary"] | None = None,
        lambda_eu: float = 0.3,
        class_weights: list[float] | None = None,
        class_maps_weight: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        encoder_lr: float | None = None,
        lr_scheduler: Literal["poly"] | LRSchedulerCallable | None = None,
        augment: bool = True,
        legacy_nearest: bool = False,
        at_network_size: bool = False,
        roi_size: int | None = None,
        compile: bool = False,
        seed: int = 1234,
    ) -> None:
        super().__init__()
        if encoder_lr is not None and network is not None and not isinstance(network, Codec):
            raise SettingsError("encoder_lr: expected None for a network of your own, whose encoder is not known")
        self.name, self.cfii, self.options = name, cfii, dict(options or {})
        self.network = network
        self.num_classes, self.in_channels, self.mode = num_classes, in_channels, mode
        self.loss_options = {
            "lambda_eu": lambda_eu,
            "class_weights": class_weights,
            "class_maps_weight": class_maps_weight,
        }
        self.optimizer, self.encoder_lr, self.lr_scheduler = optimizer, encoder_lr, lr_scheduler
        self.augment = RotateFlip(seed, legacy_nearest) if augment else None
        self.at_network_size, self.roi_size = at_network_size, roi_size
        self.compiles, self.seed = compile, seed
        self.criterion: CFIILoss | None = None
        self.results: dict[str, Results] = {}

    # --- what the network is -----------------------------------------------------------------------------------

    @property
    def data(self) -> SegmentationData:
        return self.trainer.datamodule

    def setup(self, stage: str) -> None:
        """Fit the network to the data, where the settings leave it open."""
        cases = self.data.cases("test" if stage == "test" else "train")
        if self.mode is None:
            self.mode = "multilabel" if cases.multilabel else "multiclass"
        if (self.mode == "multilabel") != cases.multilabel:
            raise SettingsError(
                f"mode: expected 'multilabel' for data with several classes in a pixel only, got {self.mode!r}"
            )
        if self.mode == "binary" and len(cases.classes) != 2:
            raise SettingsError(f"mode: 'binary' is for two classes, the data has {len(cases.classes)}")
        expected = 1 if self.mode == "binary" else len(cases.classes)
        self.num_classes = expected if self.num_classes is None else self.num_classes
        if self.num_classes != expected:
            raise SettingsError(
                f"num_classes: expected {expected}, as in the data ({', '.join(cases.classes)}), got "
                f"{self.num_classes}"
            )
        self.in_channels = cases.channels if self.in_channels is None else self.in_channels
        if cases.channels not in (1, self.in_channels):
            raise SettingsError(f"in_channels: expected {cases.channels}, as in the data, got {self.in_channels}")

    def configure_model(self) -> None:
        if self.criterion is not None:
            return
        try:
            self.criterion = CFIILoss(self.num_classes, self.mode, across_processes=True, **self.loss_options)
            self.network = self.create() if self.network is None else self.network
        except (ValueError, TypeError) as error:
            raise SettingsError(f"model: {error}") from error
        if self.compiles:
            self.network.compile()

    def create(self) -> nn.Module:
        # Drawn apart from everything else, so that it does not depend on what came before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return create_model(self.name, self.num_classes, self.in_channels, cfii=self.cfii, **self.options)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[ABOUT] = {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "mode": self.mode,
            "classes": list(self.data.cases("train").classes),
        }

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    # --- training ----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        if self.encoder_lr is None:
            optimizer = self.optimizer(p for p in self.network.parameters() if p.requires_grad)
        else:
            # The rest keeps the optimiser's own rate.
            groups = self.network.parameter_groups(lr=self.encoder_lr, encoder_lr=self.encoder_lr)
            for group in groups:
                if group["name"] == "rest":
                    del group["lr"]
            optimizer = self.optimizer(groups)
        if self.lr_scheduler is None:
            return optimizer
        if self.lr_scheduler == "poly":
            steps = self.trainer.estimated_stepping_batches
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: max(1 - step / steps, 0) ** POWER
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        schedule = self.lr_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        # Dropout and its like depend on the batch alone: a resumed run draws what it would have drawn.
        state = np.random.SeedSequence([self.seed, self.current_epoch, batch_index, self.global_rank])
        torch.manual_seed(int(state.generate_state(1, np.uint64)[0]))

    def output(self, images: Tensor) -> Any:
        images = images if images.shape[1] != 1 else images.expand(-1, self.in_channels, -1, -1)
        return self.network(images, return_aux=True) if isinstance(self.network, Codec) else self.network(images)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        images, labels = batch["image"], batch["label"]
        if self.augment is not None:
            images, labels = self.augment(images, labels, batch["index"].tolist(), self.current_epoch)
        terms = self.criterion.terms(self.output(images), labels)
        loss = self.criterion.total(terms)
        logged = {"train_loss": loss.detach(), "train_dice_loss": terms.pop("dice").detach()}
        logged |= {f"train_{name}": value.detach() for name, value in terms.items()}
        logged["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(images))
        return loss

    # --- validation --------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self.counts: list[Tensor] = []

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        output = self.output(batch["image"])
        loss = self.criterion(output, batch["label"])
        self.log("val_loss", loss, on_epoch=True, batch_size=len(batch["image"]), sync_dist=True)
        logits = output if isinstance(output, Tensor) else output.logits
        labels = decide(logits, self.mode == "multilabel")
        counts = count_pixels(labels, batch["label"], len(self.results_classes()))
        index = batch["index"].to(counts)[:, None, None].expand(-1, 1, 3)
        self.counts.append(torch.cat([index, counts], 1))

    def on_validation_epoch_end(self) -> None:
        gathered = self.all_gather(torch.cat(self.counts)).flatten(0, -3)
        # Processes get equal numbers of samples, so some may be there twice: each counts once.
        rows = {int(row[0, 0]): row[1:] for row in gathered.cpu()}
        names = self.trainer.val_dataloaders.dataset.cases.names
        self.log("val_dice", mean_dice({names[i]: rows[i] for i in sorted(rows)}), prog_bar=True)

    # --- scoring -----------------------------------------------------------------------------------------------

    def results_classes(self) -> list[str]:
        """The classes that count: all but the background."""
        classes = list(self.data.cases("train").classes)
        return classes if self.mode == "multilabel" else classes[1:]

    def inference_options(self, data: SegmentationData) -> dict[str, Any]:
        """For `predict`."""
        return {
            "resize": None if self.roi_size else data.resize,
            "roi_size": self.roi_size,
            "batch_size": data.batch_size,
            "multilabel": self.mode == "multilabel",
            "in_channels": self.in_channels,
        }

    def labels(self, image: np.ndarray) -> np.ndarray:
        """Labels of an image or a volume, in its own size."""
        return predict(self.network, image, **self.inference_options(self.data))

    def case(self, index: int) -> Case:
        """A case to score, at the size at which it is scored."""
        case = self.data.cases("test")[index]
        return resized(case, self.data.resize) if self.at_network_size else case

    def on_test_epoch_start(self) -> None:
        cases = self.data.cases("test")
        self.results = {p: Results(cases.classes, p, cases.multilabel) for p in get_args(Protocol)}

    def test_step(self, index: int, batch_index: int) -> None:
        case = self.case(index)
        labels = self.labels(case.image)
        for results in self.results.values():
            if case.name not in results.scores:
                results.add_case(case, labels)

    def on_test_epoch_end(self) -> None:
        """Gather all processes' scores; the first writes tables and pictures to `test/` in the run's folder."""
        order = self.data.cases("test").names
        for protocol, results in self.results.items():
            results.merge(gather(results), order)
            dice = results.summary()["mean"]["dice"]["mean"]
            self.log(f"test_dice_{protocol}", dice, rank_zero_only=True)
        if self.trainer.is_global_zero:
            self.report(Path(self.trainer.default_root_dir) / "test")

    def report(self, folder: Path) -> None:
        for protocol, results in self.results.items():
            results.save(folder / protocol)
            bars(results, folder / protocol / "bars.png")
        cases = self.data.cases("test")
        overlays(
            self.results["strict"],
            lambda name: self.case(cases.names.index(name)),
            lambda case: self.labels(case.image),
            cases.classes,
            folder / "overlays.png",
        )


def gather(results: Results) -> list[Results]:
    """Every process's."""
    if not (dist.is_available() and dist.is_initialized()):
        return [results]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, results)
    return parts
