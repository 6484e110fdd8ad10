"""Cases as the network's input: resized tensors."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from cfii.training.cases import CaseSet
from cfii.training.files import DataError
from cfii.training.resize import Resize


class Samples(Dataset):
    """Two-dimensional cases, resized, for a `DataLoader`.

    A sample is a dict: "image" (channels, *size) float32; "label" (*size) int64, or (classes, *size) uint8 for
    multilabel data; "index", its place in the set.

    Args:
        cases: slices or images with labels.
        resize: to the network's size.
    """

    def __init__(self, cases: CaseSet, resize: Resize) -> None:
        self.cases, self.resize = cases, resize

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        case = self.cases[index]
        if case.label is None or len(case.shape) != 2:
            raise DataError(
                f"{case.file}: expected a two-dimensional image with labels to train on, found "
                + ("no labels" if case.label is None else "a volume; cut it with Slices")
            )
        label = self.resize.label(case.label)
        label = label.byte() if self.cases.multilabel else label.long()
        return {"image": self.resize.image(case.image), "label": label, "index": index}
