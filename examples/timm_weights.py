"""A backbone of timm's with pretrained weights, CFII, and a U-Net decoder: fine-tune all of it.

    pip install "cfii[train]"
    python examples/timm_weights.py                                     # timm's own weights, which it downloads
    python examples/timm_weights.py --weights resnet18.safetensors      # weights that you have: no connection
    python examples/timm_weights.py --encoder convnext_tiny --size 224 --data DIR

Any name of docs/timm.md. The file is what safetensors.torch.save_file writes of the encoder's state_dict().
"""

import argparse

import timm
import torch

from cfii import CFIILoss, create_model
from cfii.training.data import SegmentationData


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--weights", default=True, help="a safetensors file; by default timm's own weights")
    parser.add_argument("--data", help="a folder of images and masks; by default the phantom")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args(arguments)

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = "folder" if args.data else "phantom"
    data = SegmentationData(name, args.data, args.size, batch_size=args.batch, num_workers=0)
    classes = len(data.cases("train").classes)
    model = create_model("timm-unet", classes, encoder_name=args.encoder, encoder_weights=args.weights).to(device)

    # The mean and standard deviation that the weights expect; grey images become three equal channels.
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(args.encoder).to_dict())
    mean, std = (torch.tensor(config[key], device=device)[:, None, None] for key in ("mean", "std"))

    def normalise(images):
        return (images.to(device).expand(-1, 3, -1, -1) - mean) / std

    criterion = CFIILoss(classes)
    optimizer = torch.optim.AdamW(model.parameter_groups(lr=1e-3, encoder_lr=1e-4))  # trained weights move less
    losses = []
    for epoch in range(args.epochs):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            loss = criterion(model(normalise(batch["image"]), return_aux=True), batch["label"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {sum(losses[-len(loader) :]) / len(loader):.3f}")
    return model, losses


if __name__ == "__main__":
    main()
