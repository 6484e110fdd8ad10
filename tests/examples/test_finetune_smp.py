import segmentation_models_pytorch as smp
import torch
from scripts import load


def test_attaching_does_no_harm_and_training_goes_on():
    _, losses = load("finetune_smp").main(["--size", "32", "--batch", "8"])
    assert list(losses) == ["trained", "attached", "encoder frozen", "all"]
    assert abs(losses["attached"] - losses["trained"]) < 0.02
    assert losses["all"] < losses["encoder frozen"] < losses["attached"]


def test_own_model_keeps_its_encoder_while_frozen(tmp_path, folder, monkeypatch):
    smp.FPN("resnet18", encoder_weights=None, classes=2).save_pretrained(tmp_path / "trained")
    script, seen = load("finetune_smp"), []
    train = script.train

    def watch(model, *rest):
        before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
        train(model, *rest)
        after = model.encoder.state_dict()
        seen.append(all(torch.equal(before[name], value) for name, value in after.items()))

    monkeypatch.setattr(script, "train", watch)
    model, _ = script.main(
        ["--model", str(tmp_path / "trained"), "--data", folder, "--batch", "4", "--size", "64"]
    )
    assert seen == [True, False]  # weights and batch statistics
    assert type(model.decoder).__name__ == "FPNDecoder"
