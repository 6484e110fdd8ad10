"""Tables that a person can read, whose numbers are those of the modules."""

import re

import pytest
import torch
from torch import nn

import cfii
from cfii import CFIINeck, CFIIWrapper, create_model, summary
from cfii.cost import multiply_accumulates
from cfii.tables import table


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def rows_of(text):
    """The lines of a table that begin with a stage's number."""
    return [line.split() for line in text.splitlines() if re.match(r" *\d+  ", line)]


OPTIONS = [
    {},
    {"embeddings": "learned"},
    {"update_embeddings": False},
    {"update_features": False, "sit_min_stride": 2},
    {"stages": [1, 3], "keep": [0], "rejoin": True},
    {"stages": [0, 2]},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_neck_is_a_table(options, monkeypatch):
    neck = CFIINeck([8, 13, 20, 32], [1, 2, 4, 8], 3, **options)
    monkeypatch.setattr(CFIINeck, "forward", None)  # nothing runs
    rows = rows_of(repr(neck))
    overview = neck.overview()
    assert [int(row[0]) for row in rows] == [0, 1, 2, 3] and [int(row[1]) for row in rows] == [1, 2, 4, 8]
    assert [int(row[2]) for row in rows] == [8, 13, 20, 32]
    assert [int(row[4]) for row in rows] == neck.out_channels
    assert [int(row[-1].replace(",", "")) for row in rows] == [row.parameters for row in overview]
    assert sum(row.parameters for row in overview) == parameters(neck)
    kinds = [" ".join(row[5:-1]) for row in rows]
    for i, kind in enumerate(kinds):
        if i in neck.stages:
            interaction = neck.iterator.interaction[neck.stages.index(i)]
            assert kind == type(interaction).__name__
        else:
            assert kind == ("passed through" if neck.out_channels[i] == neck.in_channels[i] else "halved")
    head = repr(neck).splitlines()[0]
    assert head.startswith("CFIINeck: 3 ") and f"{parameters(neck):,} parameters" in head
    assert ("learned" in head) == (neck.learned is not None)
    assert ("without CEU" in head) == (neck.iterator.ceu is None)
    assert ("without FEU" in head) == (neck.iterator.feu is None)
    # Inside the wrapper's repr too, and on the meta device.
    assert repr(neck.to("meta")) == repr(neck) and "stage  stride  width" in repr(nn.Sequential(neck))


def test_a_stages_parts_are_all_of_the_neck():
    neck = CFIINeck([8, 16, 32], [1, 2, 4], 3)
    parts = [neck.parts(k) for k in range(3)]
    assert [list(part) for part in parts] == [
        ["ECEG", "CEU", "FEU", "CIT"],
        ["ECEG", "CEU", "FEU", "CIT"],
        ["ECEG", "SIT"],
    ]
    assert parts[1]["FEU"] is neck.iterator.feu[1] and parts[2]["SIT"] is neck.iterator.interaction[2]


class Known(nn.Module):
    """6 · 4 · 3 · 9 + 6 · 4 · 5 multiply-accumulates for an image of 6 x 4, in halves of it for two calls."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.steps = nn.ModuleList([nn.Conv2d(3, 5, 1, groups=1), nn.BatchNorm2d(5)])

    def forward(self, x):
        return self.steps[1](self.steps[0](self.conv(x)))


class NeedsValues(Known):
    def forward(self, x):
        assert x.sum().item() == 0  # impossible on the meta device
        return super().forward(x)


@pytest.mark.parametrize("kind", [Known, NeedsValues])
def test_multiply_accumulates(kind):
    module = kind()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    counted = multiply_accumulates(module, torch.zeros(1, 1, 6, 4))
    conv, one = 24 * 9 * 3, 24 * 3 * 5
    assert counted[""] == conv + one and counted["conv"] == conv
    assert counted["steps.0"] == one and counted.get("steps.1", 0) == 0
    assert module.training and all(torch.equal(x, before[name]) for name, x in module.state_dict().items())


def test_attention_is_counted_as_products_wherever_it_runs():
    sit, tokens = cfii.SIT(8), 3 + 20
    inputs = torch.zeros(1, 3, 8), torch.zeros(1, 8, 4, 5)
    expected = tokens * 8 * 8 * 4 + 2 * tokens * tokens * 8 + 2 * tokens * 8 * 16
    assert multiply_accumulates(sit, *inputs)[""] == expected
    from cfii.cost import count

    assert count(sit, list(inputs), real=True)[""] == expected


def wrapped():
    import segmentation_models_pytorch as smp

    return CFIIWrapper.from_smp(smp.Unet("resnet18", encoder_weights=None, classes=3))


MODELS = {
    "resunet": lambda: create_model("resunet", 4, widths=[8, 16, 32]),
    "plain": lambda: create_model("resunet", 4, widths=[8, 16, 32], cfii=False),
    "one class, learned": lambda: create_model("resunet", 1, 1, widths=[8, 16], embeddings="learned"),
    "smp": wrapped,
    "stages": lambda: create_model("smp-fpn", 3, encoder_name="resnet18", encoder_weights=None, stages=[3, 4]),
}


@pytest.mark.parametrize("name", MODELS)
def test_summary(name):
    model = MODELS[name]()
    model.train()
    state = {n: x.clone() for n, x in model.state_dict().items()}
    found = summary(model, 64)
    assert model.training and all(torch.equal(x, state[n]) for n, x in model.state_dict().items())
    parts = dict(found.parts)
    total = parts.pop("total")
    assert list(parts) == [n for n in ("encoder", "neck", "decoder", "head") if getattr(model, n) is not None]
    assert total.parameters == parameters(model) == sum(c.parameters for c in parts.values())
    assert total.macs == sum(c.macs for c in parts.values()) > 0
    text = str(found)
    assert f"{model.in_channels} x 64 x 64" in text and f"{total.parameters:,}" in text
    assert max(map(len, text.splitlines())) <= 100
    if model.neck is None:
        assert found.stages == []
        return
    assert [s for s, _ in found.stages] == model.neck.overview()
    assert sum(macs for _, macs in found.stages) == parts["neck"].macs
    assert [s.stage for s, macs in found.stages if macs] == model.stages
    shares = [float(row[-2]) for row in rows_of(text.replace(" %", "")) if row[-1] != "-"]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_size():
    model = MODELS["resunet"]()
    small, large = (summary(model, size).parts["total"].macs for size in (32, (32, 64)))
    assert 1.9 < large / small < 2.2
    assert summary(model).image == (3, 224, 224)
    with pytest.raises(ValueError, match="image_size: expected None, a positive integer"):
        summary(model, (1, 2, 3))


def test_wrapped_networks():
    model = MODELS["resunet"]()
    for wrap in (lambda m: torch.compile(m, backend="eager"), nn.DataParallel):
        assert summary(wrap(model), 32) == summary(model, 32)
    with pytest.raises(TypeError, match=r"model: expected a CFIIWrapper or .*, got a Linear"):
        summary(nn.Linear(2, 2))


def test_table():
    text = table(("name", "count"), [("a", 1234), ("long name", 5)], "<>")
    assert text == "name       count\na          1,234\nlong name      5"
