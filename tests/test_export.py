"""Files of `cfii.export` and of `cfii export`: what they hold, and what leaves none."""

import importlib
import json
import sys
import warnings

import pytest
import torch

import cfii
from cfii import CFIIWrapper, create_model
from cfii.__main__ import main

pytest.importorskip("onnxruntime")
import onnx
import onnxruntime

export_module = importlib.import_module("cfii.export")
formats = importlib.import_module("cfii.formats")


def small(**options):
    return create_model("resunet", 3, in_channels=1, **{"widths": [4, 6], **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "abdomen"
    small().save_pretrained(folder)
    return folder


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """(exit code, standard output, standard error) of `cfii export`, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cfii", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
            raise SystemExit(0)
        return caught.value.code, *capsys.readouterr()

    return run


class FixedDecoder(torch.nn.Module):
    """Works for one size of features only, as some decoders do, and says so to no one."""

    def __init__(self, widths):
        super().__init__()
        self.conv, self.place = torch.nn.Conv2d(widths[0], 3, 1), torch.nn.Parameter(torch.randn(3, 32, 32))

    def forward(self, features):
        y = self.conv(features[0])
        return y + self.place if tuple(y.shape[2:]) == (32, 32) else y + self.place.mean()


def fixed():
    encoder = create_model("resunet", 3, 1, widths=[4, 6]).encoder
    return CFIIWrapper(encoder, FixedDecoder, 3, in_channels=1)


def test_onnx_by_the_command(command, folder):
    code, out, err = command(folder, "--format", "onnx", "--image-size", "32")
    assert code == 0 and err == "" and out.startswith("abdomen.onnx: dynamic batch, height, width; largest")
    model = onnx.load("abdomen.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "cfii_version": cfii.__version__,
        "num_classes": "3",
        "in_channels": "1",
        "dynamic_axes": "batch,height,width",
        "image_size": "any",
    }
    for value, name, channels in (
        (model.graph.input[0], "images", 1),
        (model.graph.output[0], "logits", 3),
    ):
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        assert value.name == name and dims == ["batch", channels, "height", "width"]
    network, session = cfii.from_pretrained(folder), onnxruntime.InferenceSession("abdomen.onnx")
    for shape in ((1, 1, 1, 1), (5, 1, 47, 90), (2, 1, 128, 33)):
        images = torch.randn(shape)
        with torch.no_grad():
            expected = network(images)
        (actual,) = session.run(None, {"images": images.numpy()})
        assert (torch.from_numpy(actual) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_pt2_by_the_command(command, folder):
    code, out, err = command(folder, "--format=pt2", "--output=new/x.pt2", "--image-size", "32", "40")
    assert code == 0 and err == "" and out.startswith("new/x.pt2: dynamic ")
    metadata = {"cfii.json": ""}
    program = torch.export.load("new/x.pt2", extra_files=metadata).module()
    assert json.loads(metadata["cfii.json"])["num_classes"] == "3"
    images = torch.randn(5, 1, 47, 90)
    with torch.no_grad():
        torch.testing.assert_close(program(images), cfii.from_pretrained(folder)(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_one_size_only(tmp_path, format):
    model, file = fixed(), tmp_path / f"x.{format}"
    with pytest.warns(UserWarning, match=r"takes images of \(32, 32\) only"):
        exported = cfii.export(model, file, image_size=32)
    assert exported.dynamic_axes == ("batch",) and exported.image_size == (32, 32)
    assert exported.difference < 1e-4
    images = torch.randn(4, 1, 32, 32)
    run = formats.ROUTES[format][1](file)
    with torch.no_grad():
        torch.testing.assert_close(run(images), model.eval()(images), rtol=1e-4, atol=1e-4)


def test_an_attempt_without_end_is_cut(tmp_path, monkeypatch):
    """The sizes of Swin's windows make algebra that grows without end."""
    monkeypatch.setattr(export_module, "PATIENCE", 0.5)
    with pytest.warns(UserWarning, match=r"as for any size it failed with more than 0\.5 seconds of work"):
        exported = cfii.export(small(widths=[4, 6, 8, 10]), tmp_path / "x.pt2", image_size=32)
    assert exported.dynamic_axes == ("batch",)


def test_the_network_stays_as_it_is(tmp_path):
    model = small(widths=[4, 6, 8]).train()
    model.encoder.eval()
    modes, state = [m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.random.get_rng_state()
    cfii.export(torch.compile(model), tmp_path / "x.pt2", image_size=16)
    assert [m.training for m in model.modules()] == modes and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)
    model(torch.randn(1, 1, 16, 16)).sum().backward()


def test_a_file_that_gives_other_logits_is_not_kept(tmp_path, monkeypatch):
    write, load = formats.ROUTES["pt2"]
    wrong = (write, lambda file: lambda images: load(file)(images) + 1e-2)
    monkeypatch.setitem(formats.ROUTES, "pt2", wrong)
    (tmp_path / "x.pt2").write_text("old")
    with pytest.raises(ValueError, match=r"images of \(16, 16\) it failed with ValueError: its logits differ"):
        cfii.export(small(), tmp_path / "x.pt2", image_size=16)
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt2"]
    assert (tmp_path / "x.pt2").read_text() == "old"


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(tmp_path, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(ImportError, match=rf'needs {missing}: pip install "cfii\[export\]"'):
        cfii.export(small(), tmp_path / "x.onnx")


def test_too_much_for_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LARGEST_ONNX", 1000)
    with pytest.raises(ValueError, match=r'up to 1\.5 GiB of weights.*use "pt2"'):
        cfii.export(small(), tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: cfii.export(torch.nn.Conv2d(1, 3, 1), f / "x.pt2"), TypeError, "model: expected a network of"),
        (lambda f: cfii.export(small().double(), f / "x.pt2"), ValueError, r"model: .*got torch\.float64"),
        (
            lambda f: cfii.export(small(), f / "x.pt"),
            ValueError,
            "format: expected one of 'onnx', 'pt2', got 'pt'",
        ),
        (
            lambda f: cfii.export(small(), f / "x.onnx", "pt2"),
            ValueError,
            r"file: expected .* ends in \.pt2, got",
        ),
        (
            lambda f: cfii.export(small(), f / "x.pt2", image_size=0),
            ValueError,
            "image_size: expected at least 1",
        ),
    ],
)
def test_wrong_calls(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: model"),
        (["nowhere/at/all"], "path_or_repo: expected a folder"),
        (["run/checkpoints/best.ckpt"], "cfii fit leaves its best network in model/"),
        (["saved", "--format", "tflite"], "invalid choice: 'tflite'"),
        (["saved", "--image-size", "a"], "invalid int value: 'a'"),
        (["saved", "--image-size", "1", "2", "3"], "image_size: expected"),
        (["saved", "--output", "x.txt"], "file: expected a name that ends in .onnx"),
    ],
)
def test_wrong_settings_end_with_one_line(command, folder, arguments, words):
    code, out, err = command(*(folder if argument == "saved" else argument for argument in arguments))
    lines = err.splitlines()
    assert code == 2 and out == "" and len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: torch.nn.Sequential(m, torch.nn.Sigmoid())])
def test_scripting_is_refused(wrap):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch say that TorchScript is deprecated
        with pytest.raises(TypeError, match=r"torch\.jit\.script: CFIIModel is not .*cfii\.export"):
            torch.jit.script(wrap(small()))


@torch.no_grad()
def test_tracing_works_at_any_size():
    model = small().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the checks on sizes, which a trace leaves out
        traced = torch.jit.trace(model, torch.randn(2, 1, 16, 24))
    for shape in ((1, 1, 16, 24), (3, 1, 45, 31)):
        images = torch.randn(shape)
        torch.testing.assert_close(traced(images), model(images))
