"""Split a network of MONAI's, trained or not, into encoder and decoder, and put CFII between them.

    pip install "cfii[train]"
    python examples/monai_network.py                    # MONAI's BasicUNet with random weights
    python examples/monai_network.py --weights FILE     # your trained one: a state dict

Here MONAI's BasicUNet; the same two classes do for any network whose forward can be cut behind its last encoder
stage. The wrapped network shares all modules with the original.
"""

import argparse

import torch
from monai.networks.nets import BasicUNet
from torch import nn

from cfii import CFIIWrapper


class Encoder(nn.Module):
    """The first half of BasicUNet.forward: five maps, from shallow to deep."""

    def __init__(self, unet: BasicUNet) -> None:
        super().__init__()
        self.stages = nn.ModuleList([unet.conv_0, unet.down_1, unet.down_2, unet.down_3, unet.down_4])

    def forward(self, x):
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """The second half, on the list of the five maps."""

    def __init__(self, unet: BasicUNet) -> None:
        super().__init__()
        self.steps = nn.ModuleList([unet.upcat_4, unet.upcat_3, unet.upcat_2, unet.upcat_1])

    def forward(self, features):
        *skips, x = features
        for step, skip in zip(self.steps, reversed(skips), strict=True):
            x = step(x, skip)
        return x


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="a state dict of this BasicUNet, as torch.save writes it")
    args = parser.parse_args(arguments)

    torch.manual_seed(0)
    unet = BasicUNet(spatial_dims=2, in_channels=1, out_channels=9)
    if args.weights:
        unet.load_state_dict(torch.load(args.weights, map_location="cpu", weights_only=True))
    model = CFIIWrapper(Encoder(unet), Decoder(unet), num_classes=9, head=unet.final_conv)

    unet.eval(), model.eval()
    with torch.no_grad():
        images = torch.randn(2, 1, 96, 80)
        before, without, after = unet(images), model.plain()(images), model(images)
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (unet, model.neck)]
    print(f"{millions[0]:.2f} M parameters, CFII adds {millions[1]:.2f} M")
    print(f"cut in two and joined again: the largest change of a logit is {(without - before).abs().max():.1e}")
    change = (after - before).std() / before.std()
    print(f"with CFII, untrained: logits change by {change:.1%} of their standard deviation. Train from here.")
    return unet, model


if __name__ == "__main__":
    main()
