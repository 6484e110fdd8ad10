"""A picture of what happens inside a network. Needs matplotlib: `pip install "cfii[train]"`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cfii.arguments import describe
from cfii.inside import Inside, cosine_similarity, look_inside
from cfii.probe import device_of, dtype_of
from cfii.wrapper import require_codec

try:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
except ImportError as error:
    raise ImportError(f"cfii.visualize draws with matplotlib ({error}): pip install 'cfii[train]'") from error

from cfii.colours import palette, shorten, show_image, show_labels, show_outlines

MAX_CLASSES = 10  # rows; of more, those that the prediction has most of
MIN_COLUMNS = 3  # of each half: prediction, truth and image must fit
NUMBERED = 10  # similarity matrices of more classes have no numbers
# Inches.
CELL, GAP, MARGIN, NAMES, TITLE, HEADING, COLUMN_TITLE, BAR = 1.1, 0.06, 0.15, 1.35, 0.35, 0.3, 0.32, 0.55
BETWEEN = 0.45  # of the two halves
GATES, ATTENTION, COSINE = "viridis", "magma", "RdBu_r"


def explain(
    model: nn.Module,
    image: Tensor | np.ndarray,
    *,
    classes: Sequence[str] | None = None,
    truth: Tensor | np.ndarray | None = None,
    multilabel: bool = False,
    title: str | None = None,
) -> Figure:
    """Draw what a network makes of one image.

    Stages run from left to right in the order in which they interact, the deepest first. At the top, each stage's
    class maps as a mask, then the prediction, the truth and the image. Below, a row for each class: its gates on
    the left, and on the right its attention, in units of an even spread (in CIT over the classes, in SIT over the
    pixels and classes). At the bottom, the cosine between every two class embeddings before and after
    interaction, with the mean over the pairs.

    Args:
        model: a `CFIIWrapper` or a network of `create_model`, with the neck.
        image: (channels, H, W) or (1, channels, H, W), as the network takes it; a grey one is repeated.
        classes: names, the background's first (unless multilabel); by default numbers. With one output channel,
            the background's and the foreground's.
        truth: labels (H, W); multilabel (N, H, W).
        multilabel: every channel decides for itself.
        title: of the figure.

    Returns:
        A figure; `figure.savefig("inside.png")` writes it.

    Raises:
        TypeError, ValueError: not a network with CFII, or an image, names or a truth that do not fit.

    Example:
        >>> explain(model, image, classes=["background", "cell"]).savefig("inside.png")
    """
    codec = require_codec(model)
    values = torch.as_tensor(image)
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim != 3 or len(values) not in (1, codec.in_channels):
        raise ValueError(
            f"image: expected one image ({codec.in_channels}, H, W), or a grey one (1, H, W), got "
            f"{describe(values)}"
        )
    batch = values[None].to(device_of(codec), dtype_of(codec)).expand(-1, codec.in_channels, -1, -1)
    inside = look_inside(codec, batch)
    return draw(inside, values, classes=classes, truth=truth, multilabel=multilabel, title=title)


def draw(
    inside: Inside,
    image: Tensor | np.ndarray,
    *,
    classes: Sequence[str] | None = None,
    truth: Tensor | np.ndarray | None = None,
    multilabel: bool = False,
    title: str | None = None,
) -> Figure:
    """The figure of `explain`, from what `look_inside` found of one image (channels, H, W)."""
    if len(inside.logits) != 1:
        raise ValueError(f"inside: expected that of one image, got that of {len(inside.logits)}")
    count = inside.after[0].shape[1]
    names = [str(i) for i in range(count)] if classes is None else [str(name) for name in classes]
    if inside.logits.shape[1] == 1:  # a channel that decides for itself, as there are two embeddings
        multilabel = False
        names = ["background", *names] if len(names) == 1 else names
        truth = truth[0] if truth is not None and len(truth) == 1 and truth.ndim == 3 else truth
    if len(names) != count:
        raise ValueError(f"classes: expected the names of {count} classes, got {len(names)}: {names}")
    image = to_numpy(torch.as_tensor(image))
    picture = Picture(image, names, multilabel, inside)
    if truth is not None:
        truth = to_numpy(torch.as_tensor(truth))
        expected = ((count, *image.shape[1:]) if multilabel else image.shape[1:],)
        if truth.shape not in expected:
            raise ValueError(f"truth: expected labels of shape {expected[0]}, got {truth.shape}")
    picture.masks(truth)
    picture.class_rows()
    picture.similarities()
    if title is not None:
        picture.write(MARGIN, MARGIN / 2 + TITLE / 2, title, fontsize=11, va="center")
    return picture.figure


class Picture:
    """A figure whose places are fixed in inches, counted from the left and the top."""

    def __init__(self, image: np.ndarray, names: list[str], multilabel: bool, inside: Inside) -> None:
        self.image, self.names, self.multilabel, self.inside = image, names, multilabel, inside
        self.order = list(range(len(inside.stages)))[::-1]  # as the iterator runs
        self.prediction = decide(inside.logits, multilabel)
        self.shown = most_seen(self.prediction, len(names), multilabel)
        self.height = CELL * float(np.clip(image.shape[1] / image.shape[2], 0.4, 2.5))
        columns = max(len(self.order), MIN_COLUMNS)
        half = columns * (CELL + GAP)
        self.left, self.right = MARGIN + NAMES, MARGIN + NAMES + half + BETWEEN
        self.width = self.right + half + MARGIN
        self.y_masks = MARGIN + TITLE
        self.y_rows = self.y_masks + HEADING + COLUMN_TITLE + self.height + 0.3
        self.y_similarities = (
            self.y_rows + HEADING + COLUMN_TITLE + len(self.shown) * (self.height + GAP) + BAR + 0.1
        )
        self.total = self.y_similarities + HEADING + COLUMN_TITLE + CELL + BAR + 0.25
        self.figure = Figure(figsize=(self.width, self.total))
        self.figure.set_facecolor("white")

    # --- places ------------------------------------------------------------------------------------------------

    def axes(self, x: float, y: float, width: float = CELL, height: float | None = None) -> Axes:
        height = self.height if height is None else height
        box = (x / self.width, 1 - (y + height) / self.total, width / self.width, height / self.total)
        axis = self.figure.add_axes(box)
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set(linewidth=0.5, color="#888888")
        return axis

    def write(self, x: float, y: float, text: str, **options: object) -> None:
        options = {"fontsize": 9, "va": "top", **options}
        self.figure.text(x / self.width, 1 - y / self.total, text, **options)

    def place(self, start: float, column: int) -> float:
        return start + column * (CELL + GAP)

    def column_titles(self, start: float, y: float, lines: Sequence[str]) -> None:
        """Under a heading at y, over the cells below it."""
        for column, (k, line) in enumerate(zip(self.order, lines, strict=True)):
            x = self.place(start, column) + CELL / 2
            text = f"stage {self.inside.stages[k]} (1/{self.inside.strides[k]})\n{line}".rstrip()
            self.write(
                x, y + HEADING + COLUMN_TITLE - 0.03, text, fontsize=7, ha="center", va="bottom", linespacing=1.1
            )

    def bar(self, start: float, y: float, colours: str, low: float, high: float, ticks: dict[float, str]) -> None:
        """A horizontal scale."""
        axis = self.axes(start, y, 2 * CELL, 0.12)
        scale = ScalarMappable(cmap=colours)
        scale.set_clim(low, high)
        bar = self.figure.colorbar(scale, cax=axis, orientation="horizontal")
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
        bar.ax.tick_params(labelsize=7, length=2, pad=1)
        bar.outline.set_linewidth(0.5)

    def cover(self, axis: Axes) -> tuple[float, float, float, float]:
        """Where a stage's map lies on the image: it may cover padding at the right and the bottom."""
        height, width = self.inside.size
        axis.set_xlim(-0.5, self.image.shape[2] - 0.5)
        axis.set_ylim(self.image.shape[1] - 0.5, -0.5)
        return (-0.5, width - 0.5, height - 0.5, -0.5)

    # --- the parts ---------------------------------------------------------------------------------------------

    def masks(self, truth: np.ndarray | None) -> None:
        """The mask that each stage's class maps would give, then the prediction."""
        self.write(self.left, self.y_masks, "Masks: each stage's class maps …", weight="bold")
        self.write(self.right, self.y_masks, "… and the network's", weight="bold")
        top = self.y_masks + HEADING + COLUMN_TITLE
        if self.inside.class_logits:
            self.column_titles(self.left, self.y_masks, ["" for _ in self.order])
        else:
            self.nothing(top)
        for column, k in enumerate(self.order if self.inside.class_logits else []):
            axis = self.axes(self.place(self.left, column), top)
            self.show_mask(axis, self.mask(self.inside.class_logits[k]))
        cells = {"prediction": self.prediction, **({} if truth is None else {"truth": truth}), "image": None}
        for column, (name, labels) in enumerate(cells.items()):
            axis = self.axes(self.place(self.right, column), top)
            show_image(axis, self.image)
            if labels is not None:
                show_labels(axis, labels, self.names, self.multilabel, alpha=0.6)
            if name == "prediction" and truth is not None:
                show_outlines(axis, truth, self.names, self.multilabel)
            axis.set_aspect("auto")
            centre = self.place(self.right, column) + CELL / 2
            self.write(centre, top - 0.03, name, fontsize=7, ha="center", va="bottom")

    def mask(self, class_logits: Tensor) -> np.ndarray:
        """The labels of a stage's class maps, enlarged to the image."""
        labels = class_logits[0] > 0 if self.multilabel else class_logits[0].argmax(0, keepdim=True)
        enlarged = nn.functional.interpolate(labels[None].float(), self.inside.size, mode="nearest-exact")[0]
        cut = to_numpy(enlarged)[:, : self.image.shape[1], : self.image.shape[2]]
        return cut > 0 if self.multilabel else cut[0].astype(int)

    def show_mask(self, axis: Axes, labels: np.ndarray) -> None:
        show_image(axis, self.image)
        show_labels(axis, labels, self.names, self.multilabel, alpha=0.6)
        axis.set_aspect("auto")

    def class_rows(self) -> None:
        """Gates on the left, attention on the right, a class a row."""
        rows = f"{len(self.shown)} of {len(self.names)} classes" if len(self.shown) < len(self.names) else ""
        self.write(MARGIN, self.y_rows + HEADING + COLUMN_TITLE - 0.03, rows, fontsize=7, va="bottom")
        self.write(self.left, self.y_rows, "Class gates σ(Y)", weight="bold")
        self.write(self.right, self.y_rows, "Attention, in units of an even spread", weight="bold")
        top = self.y_rows + HEADING + COLUMN_TITLE
        attention = [relative(self.inside.attention[k][0], self.inside.kinds[k])[self.shown] for k in self.order]
        ranges = [(float(a.min()), float(a.max())) for a in attention]
        kinds = [self.inside.kinds[k] for k in self.order]
        self.column_titles(
            self.right,
            self.y_rows,
            [f"{kind}: {low:.3g} to {high:.3g}" for kind, (low, high) in zip(kinds, ranges, strict=True)],
        )
        if self.inside.class_logits:
            self.column_titles(self.left, self.y_rows, ["" for _ in self.order])
        else:
            self.nothing(top)
        for row, n in enumerate(self.shown):
            y = top + row * (self.height + GAP)
            self.name(n, y + self.height / 2)
            for column, k in enumerate(self.order):
                if self.inside.class_logits:
                    gate = to_numpy(self.inside.class_logits[k][0, n].sigmoid())
                    self.heat(self.place(self.left, column), y, gate, GATES, 0, 1)
                self.heat(self.place(self.right, column), y, attention[column][row], ATTENTION, *ranges[column])
        bottom = top + len(self.shown) * (self.height + GAP) + 0.08
        if self.inside.class_logits:
            self.bar(self.left, bottom, GATES, 0, 1, {0: "0", 0.5: "0.5", 1: "1"})
        self.bar(self.right, bottom, ATTENTION, 0, 1, {0: "lowest", 1: "highest"})
        self.write(self.right + 2 * CELL + 0.25, bottom - 0.01, "of each column", fontsize=7)

    def heat(self, x: float, y: float, values: np.ndarray, colours: str, low: float, high: float) -> None:
        axis = self.axes(x, y)
        extent = self.cover(axis)
        scale = {"cmap": colours, "vmin": low, "vmax": high}
        axis.imshow(values, **scale, extent=extent, aspect="auto", interpolation="nearest")
        self.cover(axis)

    def name(self, n: int, y: float) -> None:
        """A class's number, colour and name, to the left of its row."""
        colour = palette(len(self.names), self.multilabel)(n)
        box = (MARGIN / self.width, 1 - (y + 0.07) / self.total, 0.14 / self.width, 0.14 / self.total)
        self.figure.add_artist(Rectangle(box[:2], *box[2:], color=colour, transform=self.figure.transFigure))
        name = self.names[n] if self.names[n] == str(n) else f"{n} {self.names[n]}"
        self.write(MARGIN + 0.2, y, shorten(name, 18), fontsize=8, va="center")

    def similarities(self) -> None:
        """The cosine of every two class embeddings."""
        y, n = self.y_similarities, len(self.names)
        top = y + HEADING + COLUMN_TITLE
        halves = {"before": (self.left, self.inside.before), "after": (self.right, self.inside.after)}
        for when, (start, embeddings) in halves.items():
            self.write(start, y, f"Cosine of class embeddings {when} interaction", weight="bold")
            cosines = [to_numpy(cosine_similarity(embeddings[k].float())[0]) for k in self.order]
            means = [(c.sum() - np.trace(c)) / (n * (n - 1)) for c in cosines]
            self.column_titles(start, y, [f"mean {mean:.2f}" for mean in means])
            for column, cosine in enumerate(cosines):
                axis = self.axes(self.place(start, column), top, CELL, CELL)
                axis.imshow(cosine, cmap=COSINE, vmin=-1, vmax=1, interpolation="nearest")
                if n <= NUMBERED:
                    axis.set_xticks(range(n), range(n), fontsize=6)
                    if column == 0:
                        axis.set_yticks(range(n), range(n), fontsize=6)
                    axis.tick_params(length=0, pad=1.5)
        self.bar(self.left, top + CELL + 0.25, COSINE, -1, 1, {-1: "-1", 0: "0", 1: "1"})

    def nothing(self, y: float) -> None:
        self.write(self.left, y + 0.1, "learned embeddings: no class maps", fontsize=8, color="#555555")


def to_numpy(x: Tensor) -> np.ndarray:
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).numpy()


def decide(logits: Tensor, multilabel: bool) -> np.ndarray:
    """Labels (H, W) of one image's logits, or (N, H, W)."""
    if multilabel:
        return to_numpy(logits[0] > 0)
    return to_numpy((logits[0, 0] > 0).long() if logits.shape[1] == 1 else logits[0].argmax(0))


def most_seen(prediction: np.ndarray, count: int, multilabel: bool) -> list[int]:
    """The classes that have a row: all, or the background and those that the prediction has most of."""
    if count <= MAX_CLASSES:
        return list(range(count))
    pixels = prediction.sum((1, 2)) if multilabel else np.bincount(prediction.ravel(), minlength=count)
    pixels = pixels.astype(float)
    if not multilabel:
        pixels[0] = np.inf
    return sorted(np.argsort(-pixels, kind="stable")[:MAX_CLASSES].tolist())


def relative(attention: Tensor, kind: str) -> np.ndarray:
    """Attention (heads, N, H, W) -> its mean over the heads, in units of an even spread (N, H, W)."""
    n, height, width = attention.shape[1:]
    return to_numpy(attention.float().mean(0)) * (n if kind == "CIT" else n + height * width)
