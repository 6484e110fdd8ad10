"""The neck between an encoder and a decoder (paper, section 3 and figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cfii.arguments import (
    require_choice,
    require_count,
    require_flag,
    require_list,
    require_map,
    require_stage_list,
)
from cfii.eceg import ECEG
from cfii.interaction import CIT, SIT
from cfii.iterator import SIT_MIN_STRIDE, InteractiveIterator, require_strides
from cfii.pixels import Conv1x1
from cfii.tables import table
from cfii.updaters import FEU


def chunk(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """The first and the last `half` channels."""
    if 2 * half == x.shape[1]:
        return x.split(half, 1)  # whose backward, unlike a slice's, makes no map of zeros
    return x[:, :half], x[:, -half:]


def half_width(width: int) -> int:
    """C_i of a stage with `width` channels; the halves of an odd width share the middle channel."""
    return (width + 1) // 2


class StageOverview(NamedTuple):
    """One stage of the encoder's list, as `CFIINeck.overview` describes it."""

    stage: int  # its index, as in `CFIINeck.stages`
    stride: int
    in_channels: int
    out_channels: int
    interaction: str  # "SIT", "CIT", "halved" (plain F2) or "passed through"
    parameters: int

    def cells(self) -> tuple[object, ...]:
        """For a table."""
        width = f"{self.in_channels} -> {self.out_channels}"
        return self.stage, self.stride, width, self.interaction, self.parameters


class CFIINeck(nn.Module):
    r"""Class-embedding interaction on the features of an encoder, for a decoder.

    $$F_{1,i}, F_{2,i} = \mathrm{chunk}(F_i), \quad E_i = \mathrm{ECEG}_i(F_{1,i}), \quad
      (F', E') = \mathrm{InteractiveIterator}(F_2, E)$$

    where the stage $F_i$ has $2C_i$ channels and its halves $C_i$. The decoder receives $F'_i$, as in the
    paper, or $[F_{1,i}; F'_i]$ at the encoder's width (`rejoin`).

    Left open by the paper, decided here: a stage of odd width 2C - 1 gives two halves of C channels that
    share the middle one; with one class (a single sigmoid channel) there are still N = 2 embeddings, since a
    softmax over one class says nothing.

    Args:
        in_channels: the encoder's width at each stage. Like every list here, from shallow to deep.
        strides: the image's size divided by each stage's.
        num_classes: the number of classes, background included.
        stages: indices of the stages that take part; by default all with at least 3 channels (narrower
            halves would have a single channel, which LayerNorm makes a constant) that are not in `keep`.
        keep: indices of the stages that pass at full width, such as the raw image in an SMP encoder's list.
        rejoin: deliver $[F_1; F'_2]$, at the encoder's width, instead of $F'_2$.
        embeddings: "explicit" (ECEG) or "learned" (one vector a class and stage; Table 4's "initialize").
        start: "identity": the neck starts close to handing $F_2$ on unchanged (`start_as_identity`), which trains
            more reliably, from scratch as well (docs/accuracy.md); or "default": all its weights start at their
            usual scale (`initialise`).
        update_embeddings: this and all that follow as in `InteractiveIterator`: CEU between stages.
        update_features: FEU between stages.
        num_heads: of SIT and CIT.
        ffn_ratio: of SIT's and CIT's FFNs.
        sit_min_stride: the smallest stride that is given SIT.

    Shapes:
        features [(B, in_channels[i], H_i, W_i)] -> features [(B, out_channels[i], H_i, W_i)] of all stages,
        embeddings [(B, N, C_i)] and class_logits [(B, N, H_i, W_i)] of the stages that take part;
        class_logits is empty with learned embeddings.

    Attributes:
        out_channels: the widths it delivers. A stage that neither takes part nor is kept is halved as well
            (plain $F_2$), unless `rejoin`.
        stages: the indices of the stages that take part.

    `print(neck)` shows a table of the stages, from `overview`; `print(neck.iterator)` and the like the modules.

    Raises:
        ValueError: an argument or a shape does not fit.

    Source: CFII-Net, section 3.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        *,
        stages: Sequence[int] | None = None,
        keep: Sequence[int] = (),
        rejoin: bool = False,
        embeddings: Literal["explicit", "learned"] = "explicit",
        update_embeddings: bool = True,
        update_features: bool = True,
        num_heads: int = 1,
        ffn_ratio: float = 2.0,
        sit_min_stride: int = SIT_MIN_STRIDE,
        start: Literal["identity", "default"] = "identity",
    ) -> None:
        super().__init__()
        in_channels = [require_count("in_channels", w, least=0) for w in require_list("in_channels", in_channels)]
        keep = list(keep)
        if not any(in_channels):
            raise ValueError(f"in_channels: expected the width of at least one stage, got {in_channels}")
        strides = require_strides(strides, len(in_channels))
        num_classes = require_count("num_classes", num_classes)
        require_choice("embeddings", embeddings, ("explicit", "learned"))
        require_choice("start", start, ("identity", "default"))
        if stages is None:
            stages = [i for i, width in enumerate(in_channels) if width >= 3 and i not in keep]
        self.stages = require_stages(stages, in_channels, keep)
        self.takes_part = [i in self.stages for i in range(len(in_channels))]
        self.in_channels, self.strides, self.rejoin, self.keep = in_channels, strides, rejoin, keep
        self.num_embeddings = max(num_classes, 2)
        self.out_channels = [
            width if rejoin or i in keep else half_width(width) for i, width in enumerate(in_channels)
        ]

        channels = [half_width(in_channels[i]) for i in self.stages]
        if embeddings == "explicit":
            self.eceg = nn.ModuleList(ECEG(width, self.num_embeddings) for width in channels)
            self.learned = None
        else:
            self.eceg = None
            self.learned = nn.ParameterList(torch.randn(self.num_embeddings, width) for width in channels)
        self.iterator = InteractiveIterator(
            channels,
            [strides[i] for i in self.stages],
            update_embeddings=update_embeddings,
            update_features=update_features,
            num_heads=num_heads,
            ffn_ratio=ffn_ratio,
            sit_min_stride=sit_min_stride,
        )
        initialise(self)
        if start == "identity":
            start_as_identity(self.iterator)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        features = require_stage_list("features", features, len(self.in_channels))
        for i, (feature, width) in enumerate(zip(features, self.in_channels, strict=True)):
            require_map(feature, width, f"features[{i}]")

        halves = [(f, f) if i in self.keep else chunk(f, half_width(f.shape[1])) for i, f in enumerate(features)]
        embeddings, class_logits = self.embed([halves[i][0] for i in self.stages])
        interacted, embeddings = self.iterator([halves[i][1] for i in self.stages], embeddings)

        out, remaining = [], list(interacted)
        for feature, (first, second), takes_part in zip(features, halves, self.takes_part, strict=True):
            if takes_part:
                second = remaining.pop(0)
            if takes_part and self.rejoin:
                rest = feature.shape[1] - second.shape[1]  # F1 without the channel that odd halves share
                first = first if rest == first.shape[1] else first[:, :rest]
                feature = torch.cat([first, second], 1)
            out.append(feature if self.rejoin else second)
        return out, embeddings, class_logits

    def parts(self, k: int) -> dict[str, nn.Module]:
        """The modules of the k-th of the stages that take part, by their names in the paper."""
        parts = {} if self.eceg is None else {"ECEG": self.eceg[k]}
        if k + 1 < len(self.stages):  # the deepest stage has no deeper neighbour
            updaters = {"CEU": self.iterator.ceu, "FEU": self.iterator.feu}
            parts |= {name: modules[k] for name, modules in updaters.items() if modules is not None}
        interaction = self.iterator.interaction[k]
        return {**parts, type(interaction).__name__: interaction}

    def overview(self) -> list[StageOverview]:
        """Every stage of the encoder's list, from shallow to deep, with the parameters that belong to it."""
        rows = []
        for i, width in enumerate(self.in_channels):
            kind, parameters = "passed through" if self.out_channels[i] == width else "halved", 0
            if i in self.stages:
                k = self.stages.index(i)
                parts = self.parts(k)
                kind = list(parts)[-1]
                parameters = sum(p.numel() for part in parts.values() for p in part.parameters())
                parameters += 0 if self.learned is None else self.learned[k].numel()
            rows.append(StageOverview(i, self.strides[i], width, self.out_channels[i], kind, parameters))
        return rows

    def __repr__(self) -> str:
        rows = self.overview()
        without = [name for name, x in (("CEU", self.iterator.ceu), ("FEU", self.iterator.feu)) if x is None]
        what = [f"{self.num_embeddings} {'explicit' if self.learned is None else 'learned'} class embeddings"]
        what += [f"without {' and '.join(without)}"] if without else []
        what += [f"{sum(row.parameters for row in rows):,} parameters"]
        header = ("stage", "stride", "width", "interaction", "parameters")
        stages = table(header, [row.cells() for row in rows], ">><<>")
        return f"{type(self).__name__}: {', '.join(what)}\n{stages}"

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the inputs of what is done at each pixel (ECEG, CIT, FEU); compute it again in the backward.

        It trades time for memory, mostly at full resolution. On a CPU large maps are treated so anyway, as it
        saves time there; a compiler decides for itself what to keep.
        """
        require_flag("enable", enable)
        for module in self.modules():
            if hasattr(module, "recompute"):
                module.recompute = enable

    def embed(self, first: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The class embeddings of the stages that take part, and their class maps."""
        if self.eceg is None:
            return [e.expand(f.shape[0], -1, -1) for e, f in zip(self.learned, first, strict=True)], []
        pairs = [eceg(f) for eceg, f in zip(self.eceg, first, strict=True)]
        return [embeddings for embeddings, _ in pairs], [class_logits for _, class_logits in pairs]


@torch.no_grad()
def initialise(neck: CFIINeck) -> None:
    """Xavier's uniform weights and zero biases for every linear map, as in Mask2Former; FEU's gates at a tenth.

    Four linear maps without a norm lie between a feature and its class map (eq. 1-5). PyTorch's default
    shrinks each to a third of its variance: the gates then start within a few hundredths of 1/2 in every class,
    and all class embeddings start equal. FEU's gates see the maps without a norm: with maps of a standard
    deviation in the hundreds (an untrained CoaT) they would start at exactly 0 or 1 and never learn.

    ECEG's last bias alone is not 0, but PyTorch's: of an image without any features (a blank slice) all
    embeddings would be exactly 0, and every LayerNorm on their way multiplies the gradient of a zero by
    1/sqrt(1e-5): 10^16 was seen in three stages.
    """
    for module in neck.modules():
        if isinstance(module, (nn.Linear, Conv1x1)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in neck.modules():
        if isinstance(module, FEU):
            module.spatial.weight.mul_(0.1)
            module.channel.weight.mul_(0.1)
        elif isinstance(module, ECEG):
            bound = module.phi3.weight[0].numel() ** -0.5
            nn.init.uniform_(module.phi3.bias, -bound, bound)


@torch.no_grad()
def start_as_identity(iterator: InteractiveIterator) -> None:
    """Let SIT, CIT and FEU hand the features on almost unchanged.

    The last projection of every residual branch and FEU's gate weights start at a hundredth of their scale,
    their biases at 0, FEU's spatial gate (on this stage's map) at sigmoid(5) and its channel gate (on the
    deeper stage's) at sigmoid(-5). Never at exact zeros: they would cut the gradient to ECEG, CEU and the
    projections. A hundredth, not a tenth, because a normalised branch adds the same to small features as to
    large ones: encoders whose features have a standard deviation of 0.05 are common.
    """
    damped = []
    for module in iterator.modules():
        if isinstance(module, (SIT, CIT)):
            damped += [(module.out, 0.0), (module.ffn.fc2, 0.0)]
        elif isinstance(module, FEU):
            damped += [(module.spatial, 5.0), (module.channel, -5.0)]
    for projection, bias in damped:
        projection.weight.mul_(0.01)
        projection.bias.fill_(bias)


def require_stages(stages: Sequence[int], widths: Sequence[int], keep: Sequence[int]) -> list[int]:
    """The stages that take part, sorted; raise if one does not exist, is kept, or is too narrow."""
    stages = [require_count("stages", i, least=0) for i in require_list("stages", stages)]
    stages = sorted(set(stages))
    possible = [i for i, width in enumerate(widths) if width >= 3 and i not in keep]
    if not stages or not set(stages) <= set(possible):
        raise ValueError(
            f"stages: expected at least one of {possible} (of the widths {list(widths)}, those of at least 3 "
            f"channels that are not passed through), got {stages}"
        )
    return stages
