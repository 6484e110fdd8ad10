"""What happens inside a network: gates, attention, class embeddings, and numbers for them. No pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfii.arguments import describe, require_choice, require_embeddings
from cfii.wrapper import require_codec


class Inside(NamedTuple):
    """What a CFII network makes of images; every list runs shallow to deep over `stages`.

    Attributes:
        logits: (B, num_classes, H, W), at the images' size.
        class_logits: ECEG's class maps Y (B, N, H_i, W_i), eq. 5; empty with learned embeddings.
        attention: (B, heads, N, H_i, W_i). In CIT eq. 14's A: at each pixel the classes' weights sum to 1. In
            SIT the classes' rows of eq. 10's softmax, over the pixels: a map's sum is at most 1, as a class also
            attends to the classes.
        before: class embeddings (B, N, C_i) as they enter the iterator: ECEG's, or the learned ones.
        after: class embeddings (B, N, C_i) as the iterator returns them, after CEU and SIT or CIT.
        stages: indices in the encoder's list.
        strides: the image's size divided by each stage's.
        kinds: "SIT" or "CIT".
        size: (height, width) that the stages' maps cover: the images' size, padded at the right and the bottom.
    """

    logits: Tensor
    class_logits: list[Tensor]
    attention: list[Tensor]
    before: list[Tensor]
    after: list[Tensor]
    stages: list[int]
    strides: list[int]
    kinds: list[str]
    size: tuple[int, int]

    @property
    def gates(self) -> list[Tensor]:
        r"""Class gates $g = \sigma(Y)$, eq. 6: where each class is looked for."""
        return [y.sigmoid() for y in self.class_logits]


@torch.no_grad()
def look_inside(model: nn.Module, images: Tensor) -> Inside:
    """Run a network in eval mode, without gradients, and keep what its neck does on the way.

    The network stays as it is: forward hooks listen for this call alone, and every module's mode is restored.

    Args:
        model: a `CFIIWrapper` or a network of `create_model`, with the neck; also compiled or in DDP.
        images: (B, in_channels, H, W), on the network's device.

    Raises:
        TypeError, ValueError: not such a network, or not such images.

    Examples:
        >>> gates = look_inside(model, images).gates
    """
    model = require_interaction(model)
    neck, heard = model.neck, {}

    def hear_encoder(module: nn.Module, inputs: Any) -> None:
        heard["size"] = tuple(inputs[0].shape[2:])

    def hear_iterator(module: nn.Module, inputs: Any, output: Any) -> None:
        heard["before"], heard["after"] = list(inputs[1]), list(output[1])

    def hear_interaction(module: nn.Module, inputs: Any, output: Any) -> None:
        heard[module] = module.attention(*inputs)

    with evaluating(model), ExitStack() as hooks:
        hooks.enter_context(model.encoder.register_forward_pre_hook(hear_encoder))
        hooks.enter_context(neck.iterator.register_forward_hook(hear_iterator))
        for module in neck.iterator.interaction:
            hooks.enter_context(module.register_forward_hook(hear_interaction))
        # Past what .compile() may have put before forward: a graph would be compiled anew for the hooks.
        output = model.forward(images, return_aux=True)
    return Inside(
        logits=output.logits,
        class_logits=output.class_logits,
        attention=[heard[module] for module in neck.iterator.interaction],
        before=heard["before"],
        after=heard["after"],
        stages=list(neck.stages),
        strides=list(neck.iterator.strides),
        kinds=[type(module).__name__ for module in neck.iterator.interaction],
        size=heard["size"],
    )


@contextmanager
def classes_alike(model: nn.Module) -> Iterator[None]:
    r"""Inside this context SIT and CIT see $\bar E$, the mean over the classes, in every $E^n$'s place.

    What a trained network's score loses by it is what the network makes of telling the classes apart; attention
    among pixels, FEU and the embeddings' common part stay. Forward pre-hooks do it, and go with the context.

    Args:
        model: as `look_inside` takes it.

    Raises:
        TypeError, ValueError: not such a network.

    Examples:
        >>> with classes_alike(model):
        ...     logits = model(images)
    """

    def level(module: nn.Module, inputs: Any) -> tuple[Tensor, Tensor]:
        embeddings, features = inputs
        return embeddings.mean(1, keepdim=True).expand_as(embeddings), features

    iterator = require_interaction(model).neck.iterator
    with ExitStack() as hooks:
        for module in iterator.interaction:
            hooks.enter_context(module.register_forward_pre_hook(level))
        yield


def require_interaction(model: nn.Module) -> nn.Module:
    """The network itself, of whatever wraps it; raise if it has no neck."""
    model = require_codec(model)
    if model.neck is None:
        raise ValueError("model: expected a network with CFII, got a plain one (cfii=False)")
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In eval mode; every module's own mode is restored."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def cosine_similarity(embeddings: Tensor) -> Tensor:
    """Between every two class embeddings of a sample: (B, N, C) -> (B, N, N), from -1 to 1."""
    directions = F.normalize(embeddings, dim=2)
    return directions @ directions.mT


def embedding_distances(
    embeddings: Sequence[Tensor], metric: Literal["euclidean", "cosine"] = "euclidean"
) -> Tensor:
    r"""How far the class embeddings of a sample lie apart, at each stage; the mean over the samples.

    Args:
        embeddings: (B, N, C_i) of each stage, such as `Inside.before` and `Inside.after`.
        metric: "euclidean", the root of the mean of $\lVert e_i - e_j\rVert^2$ over all pairs i ≠ j, which is
            $L_{EU}$'s D over $\sqrt{N(N-1)}$; or "cosine", the mean of 1 - cos over these pairs, which does not
            depend on the embeddings' length.

    Returns:
        (stages,)
    """
    require_choice("metric", metric, ("euclidean", "cosine"))
    distances = []
    for i, e in enumerate(embeddings):
        require_embeddings(e, e.shape[-1] if isinstance(e, Tensor) else 0, f"embeddings[{i}]")
        e, pairs = e.float(), e.shape[1] * (e.shape[1] - 1)
        if metric == "euclidean":
            # The sum over ordered pairs is 2N times the squared distances to the mean.
            squares = 2 * e.shape[1] * (e - e.mean(1, keepdim=True)).square().sum((1, 2))
            distances.append((squares / pairs).sqrt().mean())
        else:
            distances.append(((1 - cosine_similarity(e)).sum((1, 2)) / pairs).mean())
    return torch.stack(distances)


def gate_overlap(inside: Inside, labels: Tensor, ignore_index: int | None = None) -> Tensor:
    r"""Soft Dice of the class gates with the truth, at each stage's own resolution.

    $$2 \sum_p g_p t_p \,/\, \textstyle\sum_p (g_p^2 + t_p^2)$$

    where p runs over the pixels of all images and $t_p$ is the part of a stage's pixel that the class covers, so
    that 1 is reached at any stride, by g = t alone. Of a pixel, what is padded or ignored does not count.

    Args:
        inside: of `look_inside`, for a network with explicit embeddings.
        labels: (B, H, W) or (B, 1, H, W) of the images, whole numbers, with 0 and 1 for one class; or one map of
            0 and 1 a class, (B, N, H, W).
        ignore_index: pixels with this label do not count.

    Returns:
        (stages, N), NaN for a class that the labels lack. With one class: background, foreground.

    Raises:
        ValueError: learned embeddings, which have no gates; labels that do not fit.
    """
    if not inside.class_logits:
        raise ValueError("inside: expected a network with explicit embeddings; learned ones have no class gates")
    truth, counts = membership(labels, inside, ignore_index)
    scores = []
    for gate in inside.gates:
        size = gate.shape[2:]
        t, inside_image = (F.adaptive_avg_pool2d(x, size) for x in (truth, counts))
        g = gate.float() * inside_image
        overlap, volume = (g * t).sum((0, 2, 3)), (g.square() + t.square()).sum((0, 2, 3))
        scores.append((2 * overlap / volume).where(t.sum((0, 2, 3)) > 0, torch.nan))
    return torch.stack(scores)


def membership(labels: Tensor, inside: Inside, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Each class's pixels (B, N, H, W), and the pixels that count (B, 1 or N, H, W), over what the maps cover."""
    b, _, height, width = inside.logits.shape
    n = inside.after[0].shape[1]
    shapes = [(b, height, width), (b, 1, height, width), (b, n, height, width)]
    if not isinstance(labels, Tensor) or tuple(labels.shape) not in shapes:
        raise ValueError(f"labels: expected a shape of {', '.join(map(str, shapes))}, got {describe(labels)}")
    maps = labels if labels.ndim == 4 else labels[:, None]
    maps = maps.byte() if maps.dtype == torch.bool else maps
    counts = torch.ones_like(maps, dtype=torch.bool) if ignore_index is None else maps != ignore_index
    single = maps.shape[1] == 1
    if not torch.isin(maps[counts], torch.arange(n if single else 2, device=maps.device)).all():
        found, last = maps[counts].unique().tolist(), n - 1 if single else 1
        raise ValueError(f"labels: expected whole numbers 0 to {last}, got {found}")
    truth = torch.cat([maps == i for i in range(n)], 1) if single else maps == 1
    padding = (0, inside.size[1] - width, 0, inside.size[0] - height)
    return F.pad((truth & counts).float(), padding), F.pad(counts.float(), padding)
