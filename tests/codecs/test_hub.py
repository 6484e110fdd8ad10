import json
import os
import shutil

import numpy as np
import pytest
import torch
from kills import kill_during
from safetensors.torch import load_file, save_file

import cfii
from cfii import create_model


@pytest.fixture
def folder(tmp_path):
    create_model("resunet", 5, in_channels=1, widths=[8, 12], num_heads=2).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("with_cfii", [True, False])
def test_saves_and_loads(tmp_path, with_cfii):
    model = create_model("resunet", 3, in_channels=1, cfii=with_cfii, widths=(8, 12), num_heads=2).eval()
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["widths"] == [8, 12]
    images = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(cfii.from_pretrained(tmp_path)(images), model(images))
        assert torch.equal(cfii.CFIIModel.from_pretrained(tmp_path)(images), model(images))


def test_another_number_of_classes_loads_all_but_what_depends_on_it(folder):
    with pytest.warns(UserWarning, match="num_classes is 2, the saved network's 5; these were left out") as said:
        model = cfii.from_pretrained(folder, num_classes=2)
    saved = load_file(folder / "model.safetensors")
    left_out = str(said[0].message).split("anew: ")[1].split(", ")
    assert model.num_classes == 2 and "head.weight" in left_out and any("eceg" in name for name in left_out)
    for name, x in model.state_dict().items():
        if name in left_out:
            assert name in saved and saved[name].shape != x.shape
        else:
            assert torch.equal(x, saved[name])


def test_a_head_that_comes_or_goes(folder):
    with pytest.warns(UserWarning, match=r"head\.bias, head\.weight"):
        model = cfii.from_pretrained(folder, num_classes=4)  # the decoder gives 4 channels by itself
    assert model.head is None
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 4, 8, 8)


def test_saving_again_keeps_the_card_and_replaces_the_rest(folder):
    (folder / "README.md").write_text("mine")
    model = create_model("resunet", 2, widths=[4, 6])
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"
    assert cfii.from_pretrained(folder).num_classes == 2
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_an_interrupted_save_leaves_the_old_files(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(
        "cfii.codecs.hub.save_model", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        create_model("resunet", 2, widths=[4, 6]).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_that_do_not_fit_are_refused(folder, tmp_path):
    file = folder / "model.safetensors"
    weights = load_file(file)
    for change, message in (
        ({"head.weight": torch.zeros(3, 3)}, r"of another shape: \['head.weight'\]"),
        ({"more": torch.zeros(3)}, r"unknown: \['more'\]"),
        ({"head.weight": None}, r"missing: \['head.weight'\]"),
    ):
        changed = {name: x for name, x in (weights | change).items() if x is not None}
        save_file(changed, file)
        with pytest.raises(ValueError, match=message):
            cfii.from_pretrained(folder)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: could not be read"):
        cfii.from_pretrained(folder)
    with pytest.raises(ValueError, match="does not fit the network"):
        save_file(weights, file)
        cfii.from_pretrained(folder, in_channels=3)


def test_encoder_weights_are_not_fetched_again(tmp_path, monkeypatch):
    import timm

    create = timm.create_model
    asked = []

    def recorded(name, pretrained=False, **options):
        asked.append(pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", recorded)
    create_model("timm-unet", 2, encoder_name="resnet10t", encoder_weights=True).save_pretrained(tmp_path)
    assert any(asked)
    asked.clear()
    cfii.from_pretrained(tmp_path)
    assert asked and not any(asked)


def test_from_the_hub(folder, tmp_path, monkeypatch):
    """The mixin asks huggingface_hub for each file; here a folder answers."""
    asked = []

    def download(repo_id, filename, **_):
        asked.append((repo_id, filename))
        return shutil.copy(folder / filename, tmp_path / filename)

    monkeypatch.setattr("cfii.codecs.hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    assert cfii.from_pretrained("user/name").num_classes == 5
    assert asked == [("user/name", "config.json"), ("user/name", "model.safetensors")]


def test_pushes_what_it_saves(monkeypatch):
    uploaded = {}

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, repo_id, **_):
            uploaded[repo_id] = sorted(os.listdir(folder_path))

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    create_model("resunet", 2, widths=[4, 6]).push_to_hub("user/name")
    assert uploaded == {"user/name": ["README.md", "config.json", "model.safetensors"]}


def test_flipped_bits_are_found(folder):
    """Anywhere in the file: in the header safetensors sees them, in the values only the digest does."""
    file = folder / "model.safetensors"
    content, rng = file.read_bytes(), np.random.default_rng(0)
    for trial in range(60):
        damaged = bytearray(content)
        damaged[rng.integers(len(content) if trial % 2 else 3000)] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors|missing|unknown"):
            cfii.from_pretrained(folder)
    file.write_bytes(content)
    cfii.from_pretrained(folder)


TIMM = '"name": "timm-unet", "num_classes": 5'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"config\.json: expected the JSON"),
        ("[1]", r"config\.json: expected an object with name and num_classes"),
        ('{"name": "resunet"}', r"config\.json: expected an object with name and num_classes"),
        ('{"name": "resunet", "num_classes": "5; import os"}', "num_classes: expected a whole number"),
        ('{"name": "os.system", "num_classes": 5}', "name: expected one of"),
        ('{"name": ["resunet"], "num_classes": 5}', "name: expected one of"),
        ('{"name": "resunet", "num_classes": 5, "colour": "red"}', "unknown argument colour"),
        ('{"name": "resunet", "num_classes": 5, "widths": [8, -12]}', "widths: expected at least 1, got -12"),
        ('{"name": "resunet", "num_classes": 5, "widths": "8, 12"}', "widths: expected a list"),
        (
            '{"name": "timm-unet", "num_classes": 5, "encoder_name": "../../evil"}',
            "encoder_name: expected one of",
        ),
        (f'{{{TIMM}, "encoder_name": "resnet18", "checkpoint_path": "x.pth"}}', "checkpoint_path: expected enc"),
        (f'{{{TIMM}, "encoder_name": "resnet18", "pretrained_cfg": {{}}}}', "pretrained_cfg: expected encoder_w"),
    ],
)
def test_hostile_configs_are_refused(folder, content, message):
    (folder / "config.json").write_text(content)
    with pytest.raises((ValueError, TypeError), match=message):
        cfii.from_pretrained(folder)


def save_forever(folder, done):
    model = create_model("resunet", 5, in_channels=1, widths=[8, 12], num_heads=2)
    for i in range(1_000_000):
        torch.nn.init.constant_(model.head.bias, i)
        model.save_pretrained(folder)
        done.value = i + 1


def test_fifty_kills_during_a_save_lose_nothing(folder):
    """Nothing is done between the saves, so nearly every kill falls into one."""
    rng, seen = np.random.default_rng(0), set()
    for _ in range(50):
        kill_during(save_forever, folder, rng)
        seen.add(cfii.from_pretrained(folder).head.bias[0].item())
    assert len(seen) > 3
