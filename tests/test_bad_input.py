"""Wrong calls of the public API: a `ValueError` or `TypeError` that cfii raises itself and that names the "
"argument."""

import traceback
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn, randn

import cfii
from cfii import CEU, CIT, ECEG, FEU, SIT, CFIILoss, CFIINeck, CFIIWrapper, InteractiveIterator, create_model

PACKAGE = Path(cfii.__file__).parent
NAN = float("nan")
LABELS = torch.zeros(2, 8, 8, dtype=torch.long)
LOGITS = torch.zeros(2, 3, 8, 8)


class Encoder(nn.Module):
    """Two stages of 8 and 16 channels; `change` is applied to what it returns."""

    def __init__(self, change=None):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.change, self.calls = change, 0

    def forward(self, x):
        first = self.first(x)
        features = [first, self.second(first)]
        self.calls += 1
        return self.change(features, self.calls) if self.change else features


class Decoder(nn.Module):
    def __init__(self, widths, change=None):
        super().__init__()
        self.convs, self.change = nn.ModuleList(nn.Conv2d(w, 4, 1) for w in widths), change

    def forward(self, features):
        size = features[0].shape[2:]
        maps = [nn.functional.interpolate(c(f), size) for c, f in zip(self.convs, features, strict=True)]
        return self.change(sum(maps)) if self.change else sum(maps)


def wrapper(encoder=None, decoder=Decoder, num_classes=3, *args, **options):
    return CFIIWrapper(Encoder() if encoder is None else encoder, decoder, num_classes, *args, **options)


def returns(change):
    """An encoder whose output is changed."""
    return Encoder(lambda features, calls: change(features))


def small(**options):
    return create_model("resunet", 3, **{"widths": [8, 16], **options})


def iterator():
    return InteractiveIterator([8, 16], [1, 2])


MAPS, EMBEDDINGS = [randn(2, 8, 8, 8), randn(2, 16, 4, 4)], [randn(2, 3, 8), randn(2, 3, 16)]

# what the message names: calls
CALLS = {
    "channels": [
        lambda: ECEG(0, 3),
        lambda: ECEG(-8, 3),
        lambda: ECEG(8.5, 3),
        lambda: ECEG("8", 3),
        lambda: SIT(1),
        lambda: CIT(0),
        lambda: CIT(None),
        lambda: CEU(8, 0),
        lambda: FEU(8, -1),
        lambda: InteractiveIterator([], []),
        lambda: InteractiveIterator([8, 0], [1, 2]),
        lambda: InteractiveIterator(8, 1),
    ],
    "deep_channels": [lambda: CEU(0, 8), lambda: FEU(0, 8), lambda: FEU("a", 8)],
    "num_classes": [
        lambda: ECEG(8, 0),
        lambda: ECEG(8, 2.5),
        lambda: CFIINeck([8], [1], 0),
        lambda: CFIINeck([8], [1], "3"),
        lambda: wrapper(num_classes=0),
        lambda: wrapper(num_classes=-1),
        lambda: wrapper(num_classes=2.0),
        lambda: wrapper(num_classes=True),
        lambda: wrapper(num_classes=None),
        lambda: create_model("unet", 0),
        lambda: create_model("unet", "9"),
        lambda: CFIILoss(0),
        lambda: CFIILoss(1),
        lambda: CFIILoss(3, mode="binary"),
        lambda: CFIILoss("3"),
    ],
    "num_heads": [lambda: SIT(8, num_heads=3), lambda: CIT(8, num_heads=0), lambda: SIT(8, num_heads=-2)],
    "ffn_ratio": [lambda: SIT(8, ffn_ratio=0), lambda: CIT(8, ffn_ratio=NAN), lambda: SIT(8, ffn_ratio="2")],
    "features": [
        lambda: ECEG(8, 3)(randn(8, 8, 8)),
        lambda: ECEG(8, 3)(randn(2, 9, 8, 8)),
        lambda: ECEG(8, 3)(np.zeros((2, 8, 8, 8))),
        lambda: ECEG(8, 3)(torch.zeros(2, 8, 8, 8, dtype=torch.long)),
        lambda: ECEG(8, 3)(randn(2, 8, 0, 8)),
        lambda: ECEG(8, 3)(None),
        lambda: SIT(8)(randn(2, 3, 8), randn(2, 9, 4, 4)),
        lambda: SIT(8)(randn(2, 3, 8), randn(2, 8, 16)),
        lambda: CIT(8)(randn(2, 3, 8), randn(3, 8, 4, 4)),
        lambda: FEU(16, 8)(randn(2, 16, 4, 4), randn(2, 9, 8, 8)),
        lambda: FEU(16, 8)(randn(2, 16, 4, 4), randn(3, 8, 8, 8)),
        lambda: iterator()(MAPS[:1], EMBEDDINGS),
        lambda: iterator()(MAPS[0], EMBEDDINGS),
        lambda: iterator()([MAPS[1], MAPS[0]], EMBEDDINGS),
        lambda: CFIINeck([16, 32], [1, 2], 3)([randn(2, 16, 8, 8)]),
        lambda: CFIINeck([16, 32], [1, 2], 3)(randn(2, 16, 8, 8)),
        lambda: CFIINeck([16, 32], [1, 2], 3)([randn(2, 16, 8, 8), randn(2, 16, 4, 4)]),
    ],
    "deep_features": [
        lambda: FEU(16, 8)(randn(2, 15, 4, 4), randn(2, 8, 8, 8)),
        lambda: FEU(16, 8)("x", randn(2, 8, 8, 8)),
    ],
    "embeddings": [
        lambda: SIT(8)(randn(2, 8), randn(2, 8, 4, 4)),
        lambda: CIT(8)(randn(2, 3, 9), randn(2, 8, 4, 4)),
        lambda: CIT(8)([1, 2], randn(2, 8, 4, 4)),
        lambda: CEU(16, 8)(randn(2, 3, 16), randn(2, 4, 8)),
        lambda: CEU(16, 8)(randn(2, 3, 16), randn(2, 3, 9)),
        lambda: iterator()(MAPS, EMBEDDINGS[:1]),
        lambda: iterator()(MAPS, [EMBEDDINGS[1], EMBEDDINGS[0]]),
        lambda: CFIINeck([8], [1], 3, embeddings="implicit"),
        lambda: small(embeddings="implicit"),
    ],
    "deep_embeddings": [lambda: CEU(16, 8)(randn(2, 3, 15), randn(2, 3, 8))],
    "strides": [
        lambda: InteractiveIterator([8, 16], [2, 1]),
        lambda: InteractiveIterator([8, 16], [1]),
        lambda: InteractiveIterator([8, 16], [0, 1]),
        lambda: InteractiveIterator([8, 16], "12"),
        lambda: CFIINeck([8, 16], [2, 1], 3),
        lambda: CFIINeck([8, 16], [1, NAN], 3),
    ],
    "in_channels": [
        lambda: CFIINeck([], [], 3),
        lambda: CFIINeck([8, -8], [1, 2], 3),
        lambda: CFIINeck(8, [1], 3),
        lambda: CFIINeck(["a"], [1], 3),
        lambda: wrapper(in_channels=0),
        lambda: wrapper(in_channels=4),
        lambda: wrapper(in_channels="3"),
        lambda: create_model("unet", 3, 0),
        lambda: create_model("unet", 3, in_channels=1.5),
    ],
    "stages": [
        lambda: wrapper(stages=[5]),
        lambda: wrapper(stages=[]),
        lambda: wrapper(stages=[-1]),
        lambda: wrapper(stages="all"),
        lambda: small(stages=[9]),
        lambda: CFIINeck([8, 16], [1, 2], 3, stages=[2]),
    ],
    "update_embeddings": [lambda: small(update_embeddings="False"), lambda: small(update_embeddings=None)],
    "update_features": [lambda: wrapper(update_features=0)],
    "pad": [lambda: wrapper(pad="no")],
    "cfii": [lambda: create_model("resunet", 3, cfii="no"), lambda: create_model("resunet", 3, cfii=None)],
    "lr": [lambda: small().parameter_groups(lr=-1, encoder_lr=1), lambda: small().parameter_groups("a", 1)],
    "encoder_lr": [lambda: small().parameter_groups(lr=1, encoder_lr=NAN)],
    "start": [lambda: wrapper(start="zero"), lambda: small(start=0)],
    "sit_min_stride": [lambda: small(sit_min_stride="4"), lambda: small(sit_min_stride=-1)],
    "encoder": [
        lambda: wrapper(encoder=Encoder),
        lambda: wrapper(encoder="resnet18"),
        lambda: wrapper(encoder=returns(lambda f: f[0])),
        lambda: wrapper(encoder=returns(lambda f: [])),
        lambda: wrapper(encoder=returns(lambda f: [f[0], None])),
        lambda: wrapper(encoder=returns(lambda f: f[::-1])),
        lambda: wrapper(encoder=returns(lambda f: [x.flatten(1) for x in f])),
        lambda: wrapper(encoder=returns(lambda f: [x.flatten(2) for x in f])),
        lambda: wrapper(encoder=returns(lambda f: [x[:1] for x in f])),
        lambda: wrapper(encoder=Encoder(lambda f, calls: f if calls % 2 else f[:1])),
        lambda: wrapper(encoder=wrapper()),
        lambda: wrapper(encoder=nn.Conv2d(3, 8, 3)),
        lambda: wrapper(encoder=nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), in_channels=3),
    ],
    "decoder": [
        lambda: wrapper(decoder=lambda widths: "decoder"),
        lambda: wrapper(decoder=3),
        lambda: wrapper(decoder=None),
        lambda: wrapper(decoder=lambda: Decoder([8, 16])),
        lambda: wrapper(decoder=Decoder([8, 16], lambda x: (x, x))),
        lambda: wrapper(decoder=Decoder([8, 16], lambda x: [x])),
        lambda: wrapper(decoder=Decoder([8, 16], lambda x: x.flatten(1))),
        lambda: wrapper(decoder=Decoder([8, 16], lambda x: None)),
        lambda: wrapper(decoder=Decoder([8, 17])),
        lambda: wrapper(decoder=lambda widths: Decoder([8, 16])),
        lambda: wrapper(decoder=Decoder([8, 16], lambda x: torch.zeros(2, 4, 9, 9))),
        lambda: wrapper(decoder=lambda widths: Decoder([w + 1 for w in widths])),
    ],
    "head": [
        lambda: wrapper(head="conv"),
        lambda: wrapper(head=nn.Conv2d(4, 5, 1)),
        lambda: wrapper(head=nn.Conv2d(9, 3, 1)),
        lambda: wrapper(head=nn.Conv2d),
    ],
    "images": [
        lambda: small()(randn(3, 16, 16)),
        lambda: small()(randn(1, 4, 16, 16)),
        lambda: small()(np.zeros((1, 3, 16, 16), np.float32)),
        lambda: small()(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)),
        lambda: small()(None),
        lambda: small()([randn(1, 3, 16, 16)]),
        lambda: small()(randn(1, 3, 0, 16)),
        lambda: small()(randn(1, 3, 16, 16, dtype=torch.float64)),
        lambda: small().double()(randn(1, 3, 16, 16)),
        lambda: small()(randn(1, 3, 16, 16, dtype=torch.complex64)),
        lambda: wrapper()(randn(1, 3, 16, 16).to("meta")),
        lambda: wrapper(encoder=Encoder().to("meta"))(randn(1, 3, 16, 16)),
    ],
    "smp_model": [
        lambda: CFIIWrapper.from_smp(nn.Conv2d(3, 3, 1)),
        lambda: CFIIWrapper.from_smp(smp.Unet),
        lambda: CFIIWrapper.from_smp(None),
        lambda: CFIIWrapper.from_smp(wrapper()),
        lambda: CFIIWrapper.from_smp(smp.Unet("resnet18", encoder_weights=None, aux_params={"classes": 2})),
    ],
    "mode": [lambda: CFIILoss(3, mode="softmax"), lambda: CFIILoss(3, mode=None)],
    "lambda_eu": [
        lambda: CFIILoss(3, lambda_eu=-1),
        lambda: CFIILoss(3, lambda_eu=NAN),
        lambda: CFIILoss(3, lambda_eu="a"),
    ],
    "class_weights": [
        lambda: CFIILoss(3, class_weights=[1, 2]),
        lambda: CFIILoss(3, class_weights=[1, -1, 1]),
        lambda: CFIILoss(3, class_weights=[0, 0, 0]),
        lambda: CFIILoss(3, class_weights=[1, NAN, 1]),
        lambda: CFIILoss(3, class_weights="abc"),
    ],
    "ignore_index": [lambda: CFIILoss(3, ignore_index="255"), lambda: CFIILoss(3, ignore_index=1.5)],
    "output": [
        lambda: CFIILoss(3)(LOGITS[0], LABELS),
        lambda: CFIILoss(4)(LOGITS, LABELS),
        lambda: CFIILoss(3)(LOGITS.numpy(), LABELS),
        lambda: CFIILoss(3)([LOGITS], LABELS),
        lambda: CFIILoss(3)((LOGITS, [], []), LABELS),
        lambda: CFIILoss(3)(None, LABELS),
        lambda: CFIILoss(3)(LOGITS.long(), LABELS),
    ],
    "target": [
        lambda: CFIILoss(3)(LOGITS, LABELS[:, :4]),
        lambda: CFIILoss(3)(LOGITS, LABELS + 3),
        lambda: CFIILoss(3)(LOGITS, LABELS - 1),
        lambda: CFIILoss(3)(LOGITS, LABELS + 0.5),
        lambda: CFIILoss(3)(LOGITS, LABELS * NAN),
        lambda: CFIILoss(3)(LOGITS, LABELS.numpy()),
        lambda: CFIILoss(3)(LOGITS, None),
        lambda: CFIILoss(3, mode="multilabel")(LOGITS, LABELS),
        lambda: CFIILoss(1, mode="binary")(LOGITS[:, :1], LABELS + 255),
    ],
    "name": [lambda: create_model("resnet", 3), lambda: create_model(None, 3), lambda: create_model(["unet"], 3)],
    "image_size": [
        lambda: create_model("unet", 3, image_size=0),
        lambda: create_model("unet", 3, image_size="224"),
        lambda: create_model("unet", 3, image_size=(1, 2, 3)),
        lambda: wrapper(image_size=-4),
    ],
    "widths": [
        lambda: create_model("resunet", 3, widths=[]),
        lambda: create_model("resunet", 3, widths=[8, 0]),
        lambda: create_model("unet", 3, widths=8),
        lambda: create_model("unet", 3, widths=["a", "b"]),
    ],
    "encoder_name": [
        lambda: create_model("timm-unet", 3),
        lambda: create_model("timm-unet", 3, encoder_name="resnet1000"),
        lambda: create_model("smp-unet", 3, encoder_name="resnet1000"),
        lambda: create_model("timm-unet", 3, encoder_name=18),
    ],
    "encoder_weights": [
        lambda: create_model("transunet", 3, encoder_weights="/nowhere/x.safetensors"),
        lambda: create_model("smp-unet", 3, encoder_name="resnet18", encoder_weights="imagnet"),
    ],
    "unknown|unexpected": [
        lambda: small(witdhs=[8, 16]),
        lambda: wrapper(update_embedding=False),
        lambda: ECEG(8, 3, groups=2),
        lambda: CFIINeck([8], [1], 3, heads=2),
    ],
    "pattern": [lambda: cfii.list_models(3)],
    "path_or_repo": [lambda: cfii.from_pretrained("/nowhere/model"), lambda: cfii.from_pretrained(3)],
}
CASES = [(name, i) for name, calls in CALLS.items() for i in range(len(calls))]


@pytest.mark.parametrize(("name", "i"), CASES, ids=[f"{name}-{i}" for name, i in CASES])
def test_wrong_call(name, i):
    with pytest.raises((ValueError, TypeError), match=name) as caught:
        CALLS[name][i]()
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    inside = Path(frame.filename).is_relative_to(PACKAGE)
    # Python itself names an unknown keyword
    assert inside or name == "unknown|unexpected", f"raised in {frame.filename}: {caught.value}"
