"""A set of given cases."""

from pathlib import Path

from cfii.training.cases import Case, CaseSet


class Given(CaseSet):
    def __init__(
        self, images, labels, classes=("background", "organ"), multilabel=False, subjects=None, spacing=None
    ):
        self.images, self.labels, self.spacing = images, labels, spacing
        self.classes, self.multilabel, self.channels = classes, multilabel, len(images[0])
        self.names = [f"case{i}" for i in range(len(images))]
        self.given_subjects = subjects

    @property
    def subjects(self):
        return self.given_subjects or self.names

    def load(self, index):
        file = Path(f"case{index}.npz")
        return Case(self.names[index], self.images[index], self.labels[index], file, spacing=self.spacing)
