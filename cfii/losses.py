"""The training loss (paper, section 3.3, equation 20)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cfii.arguments import describe, require_choice, require_count, require_number
from cfii.pixels import full_precision
from cfii.wrapper import CFIIOutput

MODES = ("multiclass", "binary", "multilabel")
SMOOTH = 1e-5
EPSILON = 1e-6


class CFIILoss(nn.Module):
    r"""Dice, cross-entropy, and the distance between class embeddings.

    $$L = L_{Dice} + L_{CE} + \lambda_{EU} L_{EU} \quad (20)$$
    $$L_{EU} = 10 \ln(100/D + 1), \qquad D = \sqrt{\textstyle\sum_{i,j}\lVert e_i - e_j\rVert^2 + \epsilon}$$

    where $e_1 \ldots e_N$ are one sample's interacted class embeddings at one stage, the sum runs over all
    ordered pairs and $\epsilon = 10^{-6}$ keeps the gradient finite where all coincide. $L_{EU}$ is the mean
    over the batch and the stages.

    Left open by the paper, decided here: $L_{EU}$ as in the code of its source (Li et al. 2022), with the mean
    over the batch, and over all stages. Dice as in TransUNet: softmax (sigmoid), sums over batch and pixels,
    squared denominators, smooth 1e-5, mean over all classes, background included.

    Everything is computed in float32 or better, autocast or not.

    Args:
        num_classes: the number of output channels.
        mode: "multiclass" (softmax, a label map), "binary" (one sigmoid channel, a map of 0 and 1), or
            "multilabel" (a sigmoid per channel, a map of 0 and 1 per channel), as in SMP.
        lambda_eu: the paper's $\lambda_{EU}$.
        ignore_index: pixels with this label count in neither Dice nor cross-entropy.
        class_weights: a weight per class, in cross-entropy (as in torch, normalised over the pixels) and in
            the mean over classes of Dice; in "binary" mode it does not apply.
        class_maps_weight: of a cross-entropy between each stage's class maps (`class_logits`) and the labels at
            that stage's size, nearest. The paper has none, hence 0.
        across_processes: in distributed training, take the sums of Dice and of cross-entropy over the batches of
            all processes, so that the gradients are those of one process with the whole batch. (Each process's
            own Dice, averaged, is another loss.)

    Shapes:
        output: a `CFIIOutput`, or plain logits (B, num_classes, H, W), then without $L_{EU}$.
        target: (B, H, W) or (B, 1, H, W); in "multilabel" mode (B, num_classes, H, W). Any dtype, whole numbers.
        -> a scalar; `terms` returns the unweighted parts by name. A batch in which all is ignored gives Dice
        and cross-entropy 0.

    Raises:
        ValueError: a shape does not fit, or labels lie outside 0 … num_classes - 1 (the values are shown;
            not checked inside `torch.compile`).

    Source: CFII-Net, section 3.3; Li et al. 2022 for $L_{EU}$; Chen et al. 2021 (TransUNet) for Dice.

    Examples:
        >>> loss = CFIILoss(9)(model(images, return_aux=True), labels)
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        mode: Literal["multiclass", "binary", "multilabel"] = "multiclass",
        lambda_eu: float = 0.3,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        class_maps_weight: float = 0.0,
        across_processes: bool = False,
    ) -> None:
        super().__init__()
        require_choice("mode", mode, MODES)
        if ignore_index is not None:
            require_count("ignore_index", ignore_index, least=-(2**31))
        num_classes = require_count("num_classes", num_classes)
        if (mode == "binary") != (num_classes == 1 and mode != "multilabel"):
            raise ValueError(
                "num_classes and mode: expected 1 class in 'binary' mode, 2 or more in 'multiclass' and 1 or "
                f"more in 'multilabel', got {num_classes} in {mode!r}"
            )
        for name, weight in (("lambda_eu", lambda_eu), ("class_maps_weight", class_maps_weight)):
            require_number(name, weight)
        if class_weights is not None:
            try:
                class_weights = torch.as_tensor(class_weights, dtype=torch.float32)
            except (TypeError, ValueError) as error:
                raise TypeError(f"class_weights: expected numbers, got {class_weights!r}") from error
            if class_weights.shape != (num_classes,) or not (class_weights >= 0).all() or not class_weights.any():
                raise ValueError(
                    f"class_weights: expected {num_classes} weights of 0 or more, not all 0, one per class, got "
                    f"{class_weights.tolist()}"
                )
        self.num_classes, self.mode = num_classes, mode
        self.lambda_eu, self.ignore_index = lambda_eu, ignore_index
        self.class_maps_weight, self.across_processes = class_maps_weight, across_processes
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, output: CFIIOutput | Tensor, target: Tensor) -> Tensor:
        terms = self.terms(output, target)
        return self.total(terms)

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The loss of its terms."""
        total = terms["dice"] + terms["cross_entropy"] + self.lambda_eu * terms["embedding"]
        return total + self.class_maps_weight * terms["class_maps"] if "class_maps" in terms else total

    def terms(self, output: CFIIOutput | Tensor, target: Tensor) -> dict[str, Tensor]:
        """The parts of the loss, unweighted: "dice", "cross_entropy", "embedding" (0 for plain logits), and
        with a `class_maps_weight` "class_maps"."""
        if isinstance(output, Tensor):
            output = CFIIOutput(output, [], [])
        if not isinstance(output, CFIIOutput):
            raise TypeError(f"output: expected a CFIIOutput or a tensor of logits, got {describe(output)}")
        logits, embeddings = output.logits, output.embeddings
        if not logits.is_floating_point() or logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"output: expected logits (B, {self.num_classes}, H, W) of floats, got {describe(logits)}"
            )
        with full_precision(logits.device):
            logits = in_float(logits)
            labels = self.labels(logits, target)
            valid = torch.ones_like(labels) if self.ignore_index is None else labels != self.ignore_index
            valid = valid.bool()
            self.require_labels(labels, valid)
            labels = labels.where(valid, 0)
            if self.mode == "multiclass":
                probabilities = logits.softmax(1)
                truth = one_hot(labels, self.num_classes, logits.dtype)
                valid_maps = valid[:, None]
            else:
                probabilities = logits.sigmoid()
                truth = labels.to(logits.dtype)
                valid_maps = valid
            terms = {
                "dice": self.dice(probabilities.where(valid_maps, 0), truth.where(valid_maps, 0)),
                "cross_entropy": self.cross_entropy(logits, truth, valid),
                "embedding": embedding_loss(embeddings) if embeddings else logits.new_zeros(()),
            }
            if self.class_maps_weight:
                maps = [in_float(m) for m in output.class_logits]
                losses = [self.class_map_loss(m, labels, valid) for m in maps]
                terms["class_maps"] = torch.stack(losses).mean() if losses else logits.new_zeros(())
            return terms

    def labels(self, logits: Tensor, target: Tensor) -> Tensor:
        """The target as int64 labels: (B, H, W) for "multiclass", else (B, num_classes, H, W)."""
        b, n, *size = logits.shape
        shapes = [(b, n, *size)] if self.mode == "multilabel" else [(b, *size), (b, 1, *size)]
        if not isinstance(target, Tensor) or tuple(target.shape) not in shapes:
            expected = " or ".join(map(str, shapes))
            raise ValueError(f"target: expected labels of shape {expected}, got {describe(target)}")
        labels = target.long()
        if (
            target.is_floating_point()
            and not torch.compiler.is_compiling()
            and not torch.equal(labels.to(target.dtype), target)
        ):
            raise ValueError("target: expected whole numbers, got a map with fractions or NaN")
        return labels.reshape(shapes[0] if self.mode == "multiclass" else (b, n, *size))

    def require_labels(self, labels: Tensor, valid: Tensor) -> None:
        if torch.compiler.is_compiling():  # looking at values would break the graph
            return
        last = self.num_classes - 1 if self.mode == "multiclass" else 1
        wrong = valid & ((labels < 0) | (labels > last))
        try:
            found = bool(wrong.any())
        except RuntimeError:  # torch.func.vmap lets no one look at values
            return
        if found:
            values = labels[wrong].unique().tolist()
            shown = ", ".join(map(str, values[:10])) + (", …" if len(values) > 10 else "")
            raise ValueError(
                f"target: expected labels 0 … {last} in {self.mode!r} mode"
                + (f" or ignore_index = {self.ignore_index}" if self.ignore_index is not None else "")
                + f", got also {shown}"
            )

    def dice(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """1 - Dice per class over batch and pixels, (weighted) mean over the classes."""
        dims = (0, 2, 3)
        overlap = self.gather((probabilities * truth).sum(dims))
        volume = self.gather(probabilities.square().sum(dims) + truth.square().sum(dims))
        loss = 1 - (2 * overlap + SMOOTH) / (volume + SMOOTH)
        if self.class_weights is None or self.mode == "binary":
            return loss.mean()
        return (loss * self.class_weights).sum() / self.class_weights.sum()

    def cross_entropy(self, logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """Mean over the pixels that count, each with its class's weight; 0 if none counts."""
        if self.mode == "multiclass":
            weights = truth if self.class_weights is None else truth * self.class_weights[:, None, None]
            loss = -(weights * logits.log_softmax(1)).sum(1)
            weight = weights.sum(1)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            weight = torch.ones_like(loss)
            if self.class_weights is not None and self.mode == "multilabel":
                weight = weight * self.class_weights[:, None, None]
            loss = loss * weight
        total = self.gather((weight * valid).sum())
        return self.gather(loss.where(valid, 0).sum()) / total.where(total > 0, 1)

    def class_map_loss(self, maps: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Cross-entropy of one stage's class maps; one-channel networks have two: background and foreground."""
        size, flat = maps.shape[2:], self.mode != "multilabel" or self.num_classes == 1
        labels, valid = (x.reshape(len(maps), -1, *x.shape[-2:]).to(maps.dtype) for x in (labels, valid))
        labels, valid = (F.interpolate(x, size, mode="nearest-exact").long() for x in (labels, valid))
        if flat:
            truth = one_hot(labels[:, 0], maps.shape[1], maps.dtype)
            loss, valid = -(truth * maps.log_softmax(1)).sum(1), valid[:, 0]
        else:
            loss = F.binary_cross_entropy_with_logits(maps, labels.to(maps.dtype), reduction="none")
        total = self.gather(valid.sum().to(maps.dtype))
        return self.gather((loss * valid).sum()) / total.where(total > 0, 1)

    def gather(self, total: Tensor) -> Tensor:
        """The sum over all processes, with its gradient, if `across_processes`."""
        if self.across_processes and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            from torch.distributed.nn.functional import all_reduce  # some builds of PyTorch have none

            return all_reduce(total)
        return total


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """(B, H, W) -> (B, num_classes, H, W); unlike PyTorch's it looks at no values, for torch.func.vmap."""
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes[:, None, None]).to(dtype)


def embedding_loss(embeddings: Sequence[Tensor]) -> Tensor:
    """L_EU: the mean over stages and batch; each stage is (B, N, C_i)."""
    return torch.stack([stage_loss(in_float(e)) for e in embeddings]).mean()


def stage_loss(e: Tensor) -> Tensor:
    # The sum over ordered pairs is 2N times the squared distances to the mean.
    squares = 2 * e.shape[1] * (e - e.mean(1, keepdim=True)).square().sum((1, 2))
    return (10 * torch.log(100 / (squares + EPSILON).sqrt() + 1)).mean()


def in_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
