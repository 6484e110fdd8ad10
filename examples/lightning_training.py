"""CFII in a LightningModule of your own.

    pip install "cfii[train]"
    python examples/lightning_training.py                # a generated phantom, a minute or two on two CPU cores
    python examples/lightning_training.py --data DIR     # images and masks, in any layout of docs/data.md

If you need nothing of your own in it, `cfii fit --config demo` is such a loop, complete: recipes, augmentation,
scores, resuming (docs/training.md).
"""

import argparse

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from cfii import CFIILoss, create_model
from cfii.training.data import SegmentationData


class Segmentation(lightning.LightningModule):
    def __init__(self, classes: int, channels: int, lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()  # only numbers: load_from_checkpoint builds the network again from them
        self.network = create_model("resunet", classes, channels, widths=(16, 32, 64, 64))
        # Across processes: several devices then take the steps of one with the whole batch.
        self.criterion = CFIILoss(classes, across_processes=True)

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, index):
        terms = self.criterion.terms(self.network(batch["image"], return_aux=True), batch["label"])
        loss = self.criterion.total(terms)
        self.log_dict({"train_loss": loss.detach()} | {k: v.detach() for k, v in terms.items()}, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        terms = self.criterion.terms(self.network(batch["image"]), batch["label"])
        self.log("val_dice_loss", terms["dice"], on_epoch=True, sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), self.hparams.lr)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder of images and masks; by default the phantom")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", default="runs/lightning")
    args = parser.parse_args(arguments)

    lightning.seed_everything(0)
    name = "folder" if args.data else "phantom"
    data = SegmentationData(name, args.data, args.size, batch_size=args.batch, num_workers=0)
    cases = data.cases("train")
    best = ModelCheckpoint(args.out, monitor="val_dice_loss")
    trainer = lightning.Trainer(max_epochs=args.epochs, callbacks=[best], default_root_dir=args.out, logger=False)
    trainer.fit(Segmentation(len(cases.classes), cases.channels), data)
    print({name: round(value.item(), 3) for name, value in trainer.callback_metrics.items()})
    return Segmentation.load_from_checkpoint(best.best_model_path, weights_only=True), trainer


if __name__ == "__main__":
    main()
