"""MONAI's transforms, network, loss, sliding window and metrics, with CFII between encoder and decoder.

    pip install "cfii[train]"
    python examples/monai_training.py                # a generated phantom, a minute or two on two CPU cores
    python examples/monai_training.py --data DIR     # images and masks, in any layout of docs/data.md

It trains on patches and predicts whole images window by window. For volumes, MONAI's
SliceInferer(roi_size=(64, 64), spatial_dim=2) takes the place of the SlidingWindowInferer.
"""

import argparse

import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric, HausdorffDistanceMetric
from monai.networks.nets import FlexibleUNet
from monai.transforms import AsDiscrete, Compose, RandCropByPosNegLabeld, RandScaleIntensityd, SpatialPadd
from monai.utils import set_determinism

from cfii import CFIIWrapper
from cfii.losses import embedding_loss
from cfii.training.data import SegmentationData

KEYS = ("image", "label")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder of images and masks; by default the phantom")
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8, help="images, of two patches each")
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args(arguments)

    set_determinism(0)
    sets = SegmentationData("folder" if args.data else "phantom", args.data)
    # MONAI's dictionaries; of your own files, with LoadImaged: {"image": "a.nii.gz", "label": "b.nii.gz"}.
    items = {s: [{"image": c.image, "label": c.label[None]} for c in sets.cases(s)] for s in ("train", "val")}
    crop = RandCropByPosNegLabeld(KEYS, "label", (args.patch, args.patch), num_samples=2)
    # No flipping here: of the classes two are the left and the right kidney.
    brighten = RandScaleIntensityd("image", 0.1, prob=0.5)
    augment = Compose([SpatialPadd(KEYS, (args.patch, args.patch)), crop, brighten])
    train = DataLoader(Dataset(items["train"], augment), batch_size=args.batch, shuffle=True)
    channels, classes = sets.cases("train").channels, len(sets.cases("train").classes)

    unet = FlexibleUNet(channels, classes, "resnet18", decoder_channels=(128, 64, 32, 16, 8))
    model = CFIIWrapper(unet.encoder, unet.decoder, classes, head=unet.segmentation_head)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for epoch in range(args.epochs):
        for batch in train:
            output = model(batch["image"], return_aux=True)  # model(images) alone gives the logits
            loss = criterion(output.logits, batch["label"]) + 0.3 * embedding_loss(output.embeddings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {sum(losses[-len(train) :]) / len(train):.3f}")

    infer = SlidingWindowInferer((args.patch, args.patch), sw_batch_size=8, overlap=0.5, mode="gaussian")
    metrics = {"Dice": DiceMetric(False), "HD95": HausdorffDistanceMetric(False, percentile=95)}
    predicted, truth = AsDiscrete(argmax=True, to_onehot=classes), AsDiscrete(to_onehot=classes)
    model.eval()
    for batch in DataLoader(Dataset(items["val"])):  # one by one, as sizes may differ
        with torch.no_grad():
            logits = infer(batch["image"], model)
        masks = [predicted(x) for x in decollate_batch(logits)]
        expected = [truth(x) for x in decollate_batch(batch["label"])]
        for metric in metrics.values():
            metric(masks, expected)
    scores = {name: metric.aggregate().item() for name, metric in metrics.items()}
    print("  ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    return model, losses, scores


if __name__ == "__main__":
    main()
