"""A data set's splits and loaders, for Lightning."""

from __future__ import annotations

import warnings
from collections.abc import Sized
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from torch.utils.data import DataLoader, DistributedSampler

from cfii.arguments import require_count
from cfii.training.cases import CaseSet, Slices, hold_out
from cfii.training.files import NoSuchSplit, SettingsError
from cfii.training.resize import Resize, Rule
from cfii.training.samples import Samples
from cfii.training.sets import SPLITS, open_set

Name = Literal["synapse", "acdc", "glas", "monuseg", "decathlon", "folder", "phantom"]


class SegmentationData(lightning.LightningDataModule):
    """One of the data sets, as batches for training and as cases for scoring.

    Args:
        name: of the data set.
        root: its folder; "phantom" needs none.
        size: of the network's input, height and width, or one number for both.
        resize: the rule, see `cfii.training.resize.Resize`.
        batch_size: images in a batch, on each device.
        num_workers: processes that read; 0 reads in the main one.
        val_fraction: where the set has no validation split, this part of its training split is held out, at
            random by patient; 0 trains on all, without validation. The test split is never used to choose
            anything.
        cache_gb: samples are kept in memory, in each worker, up to so many gigabytes; 0 reads them again each
            epoch.
        seed: of what is held out, and of the order of training.
        options: of the data set: `label_order` (synapse), `window` and `slices` (decathlon), `values`,
            `foreground`, `classes` and `channels` (folder).
    """

    def __init__(
        self,
        name: Name = "folder",
        root: Path | None = None,
        size: int | tuple[int, int] = 224,
        resize: Rule = "bilinear",
        batch_size: int = 8,
        num_workers: int = 2,
        val_fraction: float = 0.2,
        cache_gb: float = 1.0,
        seed: int = 1234,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require_count("batch_size", batch_size)
        require_count("num_workers", num_workers, least=0)
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction: expected 0 or a number below 1, got {val_fraction}")
        self.name, self.root, self.options = name, root, dict(options or {})
        self.resize = Resize(size, resize)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.val_fraction, self.cache_gb, self.seed = val_fraction, cache_gb, seed
        self.opened: dict[str, CaseSet] = {}

    def open(self, split: str) -> CaseSet:
        return open_set(self.name, self.root, split, **self.options)

    def splits(self) -> dict[str, CaseSet]:
        """The splits that the set has.

        Raises:
            NoSuchSplit: none at all.
        """
        found: dict[str, CaseSet] = {}
        reasons = []
        for split in SPLITS:
            try:
                found[split] = self.open(split)
            except NoSuchSplit as error:
                reasons.append(error)
        if not found:
            raise reasons[0]
        return found

    def cases(self, split: str) -> CaseSet:
        """The cases of a split, opened once.

        "val" is held out of "train" where the set has none; "test" is "val" where the set has none.

        Raises:
            NoSuchSplit: the set has none, and none is held out.
        """
        if split not in self.opened:
            if split == "test":
                try:
                    self.opened["test"] = self.open("test")
                except NoSuchSplit:
                    self.opened["test"] = self.cases("val")
                    warnings.warn(
                        f"{self.name} has no test split here: the validation split is scored", stacklevel=2
                    )
            else:
                self.opened.update(self.train_and_val())
        if split not in self.opened:
            raise NoSuchSplit(
                f"{self.root}: expected a validation split, found none; or give a val_fraction above 0"
            )
        return self.opened[split]

    def train_and_val(self) -> dict[str, CaseSet]:
        train = self.open("train")
        try:
            return {"train": train, "val": self.open("val")}
        except NoSuchSplit:
            if not self.val_fraction:
                return {"train": train}
        train, val = hold_out(train, self.val_fraction, self.seed)
        return {"train": train, "val": val}

    def processes(self) -> tuple[int, int]:
        """(their number, which of them this is)"""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def train_dataloader(self) -> DataLoader:
        samples = Samples(self.cases("train"), self.resize, self.cache_gb)
        world, _ = self.processes()
        if len(samples) < self.batch_size * world:
            raise SettingsError(
                f"batch_size: expected at most the {len(samples)} training samples"
                + (f" over {world} processes" if world > 1 else "")
                + f", got {self.batch_size}"
            )
        return self.loader(samples, train=True)

    def val_dataloader(self) -> DataLoader | list:
        try:
            cases = self.cases("val")
        except NoSuchSplit:
            return []
        return self.loader(Samples(as_images(cases), self.resize, self.cache_gb))

    def test_dataloader(self) -> DataLoader:
        """The places of the cases, which are read one at a time, in the process that scores them."""
        places = range(len(self.cases("test")))
        return DataLoader(places, batch_size=None, sampler=self.sampler(places))

    def loader(self, samples: Samples, train: bool = False) -> DataLoader:
        return DataLoader(
            samples,
            self.batch_size,
            sampler=self.sampler(samples, train),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            drop_last=train,
        )

    def sampler(self, samples: Sized, train: bool = False) -> DistributedSampler:
        """Also for one process: the order depends on seed and epoch alone, whatever came before, so that a
        resumed run sees the same batches, and so do several processes together."""
        world, rank = self.processes()
        return DistributedSampler(samples, world, rank, shuffle=train, seed=self.seed, drop_last=train)


def as_images(cases: CaseSet) -> CaseSet:
    """The cases themselves, or the slices of volumes."""
    return cases if len(cases[0].shape) == 2 else Slices(cases)
