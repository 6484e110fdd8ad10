"""The drawing is what the modules are, and the drawing in the docs is what they are now."""

import itertools
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from cfii import create_model, diagram
from cfii.diagram import BOX, short

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def read(text):
    """(texts, boxes of a class's name, the drawing's width and height)"""
    root = ElementTree.fromstring(text)
    texts = [(e.text, float(e.get("x")), float(e.get("y"))) for e in root.iter(f"{SVG}text")]
    boxes = [e for e in root.iter(f"{SVG}rect") if "box" in e.get("class")]
    places = [(e.get("class").split()[1], *(float(e.get(k)) for k in ("x", "y", "width"))) for e in boxes]
    return texts, places, [float(x) for x in root.get("viewBox").split()[2:]]


def parameters(module):
    return short(sum(p.numel() for p in module.parameters()))


def test_the_drawing_in_the_docs_is_what_the_modules_give():
    script = runpy.run_path(str(DOCS / "draw.py"))
    assert script["FILE"].read_text(encoding="utf-8") == script["drawing"](), "run python docs/draw.py"


OPTIONS = [
    {},
    {"embeddings": "learned"},
    {"update_embeddings": False},
    {"update_embeddings": False, "update_features": False},
    {"stages": [0, 2]},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_stage_and_module_is_in_it(options):
    with torch.device("meta"):
        model = create_model("resunet", 5, widths=(8, 16, 32, 64), **options)
    neck = model.neck
    texts, boxes, (width, height) = read(diagram(model, "a <title> & more"))
    words = [text for text, _, _ in texts]
    assert words[0] == "a <title> & more"
    for i, stride in enumerate(neck.strides):
        assert words.count(f"1/{stride}") == 2
        inner = [w for w in words if w in (f"{neck.in_channels[i]} ch", f"{neck.out_channels[i]} ch")]
        assert len(inner) >= 2
    kinds = [kind for kind, *_ in boxes]
    for kind in ("SIT", "CIT"):
        assert kinds.count(kind) == sum(type(m).__name__ == kind for m in neck.iterator.interaction)
    assert kinds.count("encoder") == kinds.count("decoder") == 4
    assert kinds.count("ECEG") == len(neck.stages)
    for k in range(len(neck.stages)):
        for name, part in neck.parts(k).items():
            assert f"{name} {parameters(part)}" in words if name in ("CEU", "FEU") else parameters(part) in words
    updates = [x for x in (neck.iterator.ceu, neck.iterator.feu) if x is not None]
    assert kinds.count("update") == (len(neck.stages) - 1 if updates else 0)
    assert sum(w in ("E′, F′", "E′", "F′") for w in words) == kinds.count("update")
    assert words.count("halved") == 4 - len(neck.stages)
    total = ", ".join(f"{n} {parameters(getattr(model, n))}" for n in ("encoder", "neck", "decoder", "head"))
    assert total in words
    # Nothing sticks out; boxes of a row do not touch.
    assert all(0 < x < width - w and 0 < y < height - BOX for _, x, y, w in boxes)
    assert all(0 < x < width and 0 < y < height for _, x, y in texts)
    for y in {y for _, _, y, _ in boxes}:
        row = sorted((x, x + w) for _, x, top, w in boxes if top == y)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(row))


def test_other_encoders():
    model = create_model("smp-unet", 1, encoder_name="resnet18", encoder_weights=None)
    texts, _, _ = read(diagram(model))
    words = [text for text, _, _ in texts]
    assert words[0] == "CFIIModel" and words.count("passed through") == 1 and "3 ch" in words
    assert any(", 1 class, explicit class embeddings" in word for word in words)


def test_a_plain_network_has_no_drawing():
    with pytest.raises(ValueError, match="expected a network with CFII, got a plain one"):
        diagram(create_model("resunet", 2, widths=(8, 16), cfii=False))


def test_short():
    cases = {7: "7", 999: "999", 1000: "1.00 K", 27_698: "27.7 K", 527_000: "527 K", 999_950: "1.00 M"}
    assert {n: short(n) for n in cases} == cases and short(23_482_494) == "23.5 M"
