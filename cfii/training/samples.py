"""Cases as the network's input: resized tensors."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from cfii.training.cases import CaseSet
from cfii.training.files import DataError
from cfii.training.resize import Resize


class Samples(Dataset):
    """Two-dimensional cases, resized, for a `DataLoader`.

    A sample is a dict: "image" (channels, *size) float32; "label" (*size), or (classes, *size) for multilabel
    data, as small whole numbers; "index", its place in the set.

    Args:
        cases: slices or images with labels.
        resize: to the network's size.
        cache_gb: samples are kept in memory, in each process that reads, up to so many gigabytes (2^30 bytes).
    """

    def __init__(self, cases: CaseSet, resize: Resize, cache_gb: float = 0) -> None:
        self.cases, self.resize = cases, resize
        self.room = cache_gb * 2**30
        self.kept: dict[int, dict[str, Tensor | int]] = {}

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        if index in self.kept:
            return self.kept[index]
        sample = self.read(index)
        size = sample["image"].nbytes + sample["label"].nbytes
        if size <= self.room:
            self.room -= size
            self.kept[index] = sample
        return sample

    def read(self, index: int) -> dict[str, Tensor | int]:
        case = self.cases[index]
        if case.label is None or len(case.shape) != 2:
            raise DataError(
                f"{case.file}: expected a two-dimensional image with labels to train on, found "
                + ("no labels" if case.label is None else "a volume; cut it with Slices")
            )
        return {"image": self.resize.image(case.image), "label": self.resize.label(case.label), "index": index}
