import pytest
import torch
from scripts import load

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec.*"),  # Lightning's use of PyTorch
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*logging interval.*"),
]


def test_learns_and_the_checkpoint_loads(tmp_path):
    best, trainer = load("lightning_training").main(
        ["--size", "32", "--epochs", "2", "--out", str(tmp_path / "run")]
    )
    untrained = type(best)(9, 1)
    held_back = trainer.datamodule.val_dataloader()

    def dice_loss(module):
        module.eval().cpu()
        with torch.no_grad():
            losses = [module.criterion.terms(module(b["image"]), b["label"])["dice"] for b in held_back]
        return torch.stack(losses).mean().item()

    assert dice_loss(best) < dice_loss(untrained) - 0.05
    logged = trainer.callback_metrics
    assert dice_loss(best) == pytest.approx(logged["val_dice_loss"].item(), abs=1e-3)
    terms = logged["dice_epoch"] + logged["cross_entropy_epoch"] + 0.3 * logged["embedding_epoch"]
    assert logged["train_loss_epoch"].item() == pytest.approx(terms.item(), rel=1e-3)


def test_folder(folder, tmp_path):
    best, _ = load("lightning_training").main(
        ["--data", folder, "--size", "32", "--epochs", "1", "--batch", "4", "--out", str(tmp_path / "run")]
    )
    assert best(torch.randn(1, 3, 40, 33)).shape == (1, 2, 40, 33)
