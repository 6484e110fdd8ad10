import timm
import torch
from safetensors.torch import save_file
from scripts import load

# timm's small test models came after 1.0.8.
ENCODER = "test_resnet" if timm.is_model("test_resnet") else "resnet10t"


def write_weights(file, name=ENCODER):
    torch.manual_seed(7)
    weights = timm.create_model(name).state_dict()
    save_file(weights, file)
    return weights


def test_weights_come_from_the_file_and_loss_falls(tmp_path, folder):
    file = str(tmp_path / "encoder.safetensors")
    weights = write_weights(file)
    arguments = ["--encoder", ENCODER, "--weights", file, "--size", "32"]
    model, losses = load("timm_weights").main([*arguments, "--epochs", "0"])
    own = model.encoder.state_dict()
    assert own and all(torch.equal(value, weights[name]) for name, value in own.items())
    assert not losses

    model, losses = load("timm_weights").main(arguments)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    moved = (model.encoder.state_dict()["conv1.0.weight"] - weights["conv1.0.weight"]).abs().max()
    assert 0 < moved < 0.05  # the trained weights, fine-tuned

    model, _ = load("timm_weights").main([*arguments, "--data", folder, "--batch", "4"])
    assert model.num_classes == 2
