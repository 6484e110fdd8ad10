"""The picture of a network's inside: everything is in it, in its place, and nothing overlaps."""

import builtins
import importlib
import io
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import cfii
from cfii import create_model
from cfii.inside import look_inside
from cfii.visualize import MAX_CLASSES, draw, explain


def network(num_classes, in_channels=1, stages=3, **options):
    return create_model("resunet", num_classes, in_channels, widths=[8] * stages, **options).eval()


def overlapping(figure):
    """Pairs of axes and texts that lie over one another, and texts that are cut off."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = [(f"axes {i}", axis.bbox) for i, axis in enumerate(figure.axes)]
    labels = [text for axis in figure.axes for text in (*axis.get_xticklabels(), *axis.get_yticklabels())]
    texts = [(t.get_text(), t.get_window_extent(renderer)) for t in (*figure.texts, *labels) if t.get_text()]
    found = [
        (a, b)
        for i, (a, box) in enumerate(axes + texts)
        for b, other in (axes + texts)[i + 1 :]
        if box.x0 < other.x1 and other.x0 < box.x1 and box.y0 < other.y1 and other.y0 < box.y1
    ]
    outside = [
        name
        for name, box in texts
        if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1
    ]
    return found + outside


def says(figure):
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("stages", [1, 3, 6])
@pytest.mark.parametrize("num_classes", [1, 2, 9, 30])
@pytest.mark.parametrize("shape", [(64, 64), (40, 72)])
def test_nothing_overlaps(num_classes, stages, shape):
    n = max(num_classes, 2)
    names = ["background", *(f"a rather long name of a class {i}" for i in range(1, n))]
    image = torch.rand(1 if stages == 3 else 3, *shape)
    truth = torch.randint(0, n, shape)
    model = network(num_classes, len(image), stages)
    figure = explain(model, image, classes=names, truth=truth, title="case_0001.png, slice 12")
    assert overlapping(figure) == []
    shown = min(n, MAX_CLASSES)
    cells = stages * (1 + 2 * shown + 2) + 3  # masks; gates and attention; cosines; prediction, truth, image
    assert len(figure.axes) == cells + 3  # scales
    assert sum("a rather long" in text for text in says(figure)) == shown - 1


def images_of(figure):
    return [np.asarray(axis.images[-1].get_array()) for axis in figure.axes if axis.images]


def test_it_shows_what_is_inside():
    model, image = network(4, stages=2), torch.rand(1, 21, 30)
    inside = look_inside(model, image[None])
    figure = explain(model, image)
    shown = images_of(figure)
    for gates, attention in zip(inside.gates, inside.attention, strict=True):
        for n in range(4):
            assert any(x.shape == gates.shape[2:] and np.allclose(x, gates[0, n]) for x in shown)
            assert any(x.shape == attention.shape[3:] and np.allclose(x, 4 * attention[0, 0, n]) for x in shown)
    e = inside.after[0][0]
    cosine = torch.nn.functional.cosine_similarity(e[:, None], e[None], dim=2).numpy()
    assert any(x.shape == (4, 4) and np.allclose(x, cosine, atol=1e-6) for x in shown)
    # The padded part of a map lies outside of what is shown.
    gates = next(axis for axis in figure.axes if axis.images and axis.images[0].get_array().shape == (11, 15))
    assert gates.images[0].get_extent() == [-0.5, 29.5, 21.5, -0.5] and gates.get_ylim() == (20.5, -0.5)
    assert says(figure)[:2] == ["Masks: each stage's class maps …", "… and the network's"]
    assert "stage 1 (1/2)" in says(figure) and any(t.startswith("stage 0 (1/1)\nCIT: ") for t in says(figure))


def test_masks_follow_the_class_maps():
    inside = look_inside(network(3, stages=2), torch.rand(1, 1, 8, 8))
    maps = [torch.full_like(y, -9.0) for y in inside.class_logits]
    maps[0][:, 2], maps[1][:, 0] = 9.0, 9.0
    figure = draw(inside._replace(class_logits=maps), torch.rand(1, 8, 8))
    deep, shallow = figure.axes[:2]
    assert len(deep.images) == 1  # background alone
    assert len(shallow.images) == 2 and (shallow.images[1].get_array()[..., 3] == 0.6).all()


def test_learned_embeddings_and_other_codecs():
    figure = explain(network(3, embeddings="learned"), torch.rand(1, 16, 16))
    assert says(figure).count("learned embeddings: no class maps") == 2 and overlapping(figure) == []
    model = create_model("smp-unet", 2, encoder_name="resnet18", encoder_weights=None)
    figure = explain(model, np.random.default_rng(0).random((1, 33, 40), dtype=np.float32))  # grey, repeated
    assert overlapping(figure) == []


@pytest.mark.parametrize("num_classes", [1, 3])
def test_multilabel(num_classes):
    names = ["a", "b", "c"][:num_classes]
    truth = torch.randint(0, 2, (num_classes, 16, 16)).bool()
    figure = explain(network(num_classes), torch.rand(1, 16, 16), classes=names, truth=truth, multilabel=True)
    assert overlapping(figure) == []
    assert ("1 a" in says(figure)) == (num_classes == 1) and ("0 a" in says(figure)) == (num_classes == 3)


def test_the_classes_with_most_pixels_have_a_row():
    inside = look_inside(network(20), torch.rand(1, 1, 8, 8))
    logits = torch.zeros_like(inside.logits)
    logits[0, 17, :4], logits[0, 13, 4:] = 1, 1
    texts = says(draw(inside._replace(logits=logits), torch.rand(1, 8, 8)))
    assert {"0", "13", "17"} <= set(texts) and f"{MAX_CLASSES} of 20 classes" in texts


def test_the_file_is_a_picture(tmp_path):
    explain(network(2), torch.rand(1, 16, 16)).savefig(tmp_path / "a.png")
    file = io.BytesIO()
    explain(network(2), torch.rand(1, 1, 16, 16)).savefig(file, format="svg")
    assert (tmp_path / "a.png").stat().st_size > 10_000 and b"<svg" in file.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": torch.rand(2, 16, 16)}, r"image: expected one image \(3, H, W\), or a grey one"),
        ({"image": torch.rand(2, 3, 16, 16)}, "image: expected one image"),
        ({"classes": ["a"]}, "classes: expected the names of 2 classes, got 1"),
        ({"truth": torch.zeros(15, 16)}, r"truth: expected labels of shape \(16, 16\), got \(15, 16\)"),
    ],
)
def test_what_does_not_fit(change, words):
    arguments = {"image": torch.rand(3, 16, 16), **change}
    with pytest.raises(ValueError, match=words):
        explain(network(2, 3), **arguments)


def test_without_matplotlib(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **options):
        if name.split(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return real(name, *rest, **options)

    assert cfii.visualize is sys.modules["cfii.visualize"]
    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "cfii.visualize")
    with pytest.raises(ImportError, match=r"draws with matplotlib .*: pip install 'cfii\[train\]'"):
        importlib.import_module("cfii.visualize")
