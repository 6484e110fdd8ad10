"""What every network of `create_model` promises, as one base class through which each of them runs."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import warnings

import pytest
import timm
import torch

import cfii
from cfii import create_model

CLASSES = 4
# torch finds dynamic sizes by itself from 2.6 on; before, it compiles and exports for one size at a time.
FINDS_SIZES = hasattr(torch.export.Dim, "DYNAMIC")
# The device for tests of shapes alone. Before 1.0.21 timm computes with values while it builds a transformer.
SHAPES_ON = "meta" if hasattr(timm.layers, "calculate_drop_path_rates") else "cpu"


def millions(model):
    """Parameters in millions: weights and affine terms, no buffers."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def dead_parameters(model, images):
    """The neck's parameters without a gradient, or with one of zeros, from the logits alone in one backward."""
    logits = model(images)
    (logits * torch.randn_like(logits)).mean().backward()
    return [n for n, p in model.neck.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


class CodecContract:
    name: str
    options: dict = {}
    size = (64, 96)
    odd_size = (61, 83)
    shapes_on = SHAPES_ON  # SMP cannot change in_channels on meta

    # Flags: what a codec cannot do is stated in its test class, with the reason.
    compiles = "any size"  # torch.compile as a whole graph, for "any size", "one size" or "never"
    exports = "any size"  # torch.export, likewise

    @classmethod
    def build(cls, **options):
        return create_model(cls.name, CLASSES, **cls.options | options)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        torch.manual_seed(0)
        return cls.build().eval()

    @classmethod
    def shortened(cls, model):
        """The network that is traced: its blocks once or twice, where it has many of a kind."""
        return model

    @pytest.fixture
    def traced(self, model):
        return self.shortened(model)

    @pytest.fixture
    def images(self):
        return torch.randn(2, 3, *self.size)

    def test_every_parameter_of_the_neck_learns_from_the_logits(self, model, images):
        trained = copy.deepcopy(model).train()
        assert dead_parameters(trained, images) == []
        torch.optim.SGD(trained.parameters(), lr=0.01).step()
        assert all(p.isfinite().all() for p in trained.parameters())

    def test_odd_sizes_and_a_batch_of_one(self, model):
        output = model(torch.randn(1, 3, *self.odd_size), return_aux=True)
        assert output.logits.shape == (1, CLASSES, *self.odd_size) and output.logits.isfinite().all()
        assert len(output.embeddings) == len(output.class_logits) == len(model.stages) > 0
        assert all(e.shape[:2] == (1, CLASSES) for e in output.embeddings)

    @pytest.mark.parametrize(("in_channels", "with_cfii"), [(1, True), (4, True), (3, False)])
    def test_in_channels_and_the_plain_form(self, in_channels, with_cfii):
        with torch.device(self.shapes_on):
            model = self.build(in_channels=in_channels, cfii=with_cfii)
            images = torch.zeros(2, in_channels, *self.size)
        assert model(images).shape == (2, CLASSES, *self.size)
        assert (model.neck is not None) == with_cfii

    def test_plain_is_refused_for_a_decoder_of_half_width(self, model):
        with pytest.raises(ValueError, match=r"cfii=False"):
            model.plain()

    @torch.no_grad()
    def test_channels_last(self, model, images):
        expected = model(images)
        other = copy.deepcopy(model).to(memory_format=torch.channels_last)
        actual = other(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * expected.std().item())

    @torch.no_grad()
    def test_bfloat16_autocast(self, model, images):
        expected = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = model(images)
        assert (actual.float() - expected).norm() < 0.1 * expected.norm()

    @torch.no_grad()
    def test_saves_and_loads(self, model, images, tmp_path):
        model.save_pretrained(tmp_path)
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            "README.md",
            "config.json",
            "model.safetensors",
        ]
        assert torch.equal(cfii.from_pretrained(tmp_path)(images), model(images))

    @torch.no_grad()
    def test_compiles(self, traced, images):
        if self.compiles == "never":
            pytest.skip(type(self).__doc__)
        torch._dynamo.reset()
        any_size = self.compiles == "any size" and FINDS_SIZES
        compiled = torch.compile(traced, fullgraph=True, dynamic=any_size, backend="eager")
        for x in (images, torch.randn(3, 3, *self.odd_size)) if any_size else (images,):
            torch.testing.assert_close(compiled(x), traced(x), rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def test_exports(self, traced, images):
        shapes, other = None, torch.randn_like(images)
        if self.exports == "any size" and FINDS_SIZES:
            dynamic = torch.export.Dim.DYNAMIC
            shapes = {"images": {0: dynamic, 2: dynamic, 3: dynamic}}
            other = torch.randn(3, 3, *self.odd_size)
        program = torch.export.export(traced, (images,), dynamic_shapes=shapes, strict=False).module()
        torch.testing.assert_close(program(other), traced(other), rtol=1e-4, atol=1e-4)


class OnnxContract(CodecContract):
    """And exports to ONNX: one codec of each kind, as it takes long; benchmarks/export.py tries more."""

    onnx = "any size"  # cfii.export for "any size" or for "one size", and for images of any batch

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a time limit in a destructor
    def test_onnx(self, traced, tmp_path, monkeypatch):
        """`cfii.export` itself compares with onnxruntime, on other batches and sizes, to 1e-4 of the logits."""
        check_onnx(traced, tmp_path, monkeypatch, self.size[0], self.onnx)


def check_onnx(model, folder, monkeypatch, size, expected):
    """Export for images about `size`, and compare once more at a size of this test's own."""
    if torch.__version__ < (2, 7) or not importlib.util.find_spec("onnxruntime"):
        pytest.skip("ONNX needs torch 2.7 and the packages of cfii[export]")
    if expected == "one size":  # no need to wait, where the attempt at any size has no end
        monkeypatch.setattr(importlib.import_module("cfii.export"), "PATIENCE", 10.0)
    file = folder / "model.onnx"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exported = cfii.export(model, file, image_size=size)
    assert [str(w.message) for w in said if "images of" in str(w.message)] == [] or expected == "one size"
    assert exported.dynamic_axes == (("batch", "height", "width") if expected == "any size" else ("batch",))
    run = importlib.import_module("cfii.formats").load_onnx(file)
    images = torch.randn(2, model.in_channels, size, size)
    if expected == "any size":
        images = torch.randn(2, model.in_channels, size + 7, size + 50)
    with torch.no_grad():
        logits = model.eval()(images)
    assert (run(images) - logits).abs().max() <= 1e-4 * logits.abs().max()
