"""A backbone of Hugging Face's transformers with CFII, as a class that the Hugging Face Hub can keep.

    pip install "cfii[train]" transformers
    python examples/transformers_backbone.py                                   # a small ResNet, random weights
    python examples/transformers_backbone.py --backbone microsoft/resnet-18    # downloads trained weights
    python examples/transformers_backbone.py --backbone DIR --push user/name   # a folder of save_pretrained's

Hub and JSON know numbers and words, not modules. So the class takes the backbone's configuration and builds the
modules itself; the mixin saves its arguments.
"""

import argparse
import json

import torch
from huggingface_hub import PyTorchModelHubMixin
from transformers import AutoBackbone, AutoConfig

from cfii import CFIILoss, CFIIWrapper
from cfii.codecs.timm import PyramidDecoder

SMALL = {
    "model_type": "resnet",
    "embedding_size": 16,
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [16, 32, 48, 64],
    "layer_type": "basic",
}


class BackboneUNet(CFIIWrapper, PyTorchModelHubMixin, library_name="cfii"):
    def __init__(self, backbone: dict, num_classes: int) -> None:
        encoder = AutoBackbone.from_config(AutoConfig.for_model(**backbone))
        super().__init__(encoder, PyramidDecoder, num_classes)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", help="a repository's name or a folder with trained weights")
    parser.add_argument("--out", default="runs/transformers")
    parser.add_argument("--push", help="a repository to push to, user/name, after `hf auth login`")
    args = parser.parse_args(arguments)

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(args.backbone) if args.backbone else AutoConfig.for_model(**SMALL)
    config.out_features = config.stage_names[1:]  # all its stages but the stem
    # As JSON has it: to_dict() has numbers for keys, which older versions of huggingface_hub do not save.
    model = BackboneUNet(json.loads(config.to_json_string()), num_classes=4)
    if args.backbone:
        # Not AutoBackbone.from_pretrained, which takes a folder's name for a repository's.
        trained = type(model.encoder).from_pretrained(args.backbone, config=config)
        model.encoder.load_state_dict(trained.state_dict())

    images, labels = torch.randn(2, config.num_channels, 64, 96), torch.randint(0, 4, (2, 64, 96))
    optimizer, criterion = torch.optim.AdamW(model.parameter_groups(lr=1e-3, encoder_lr=1e-4)), CFIILoss(4)
    for _ in range(3):  # your loader in its place
        loss = criterion(model(images, return_aux=True), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.save_pretrained(args.out)
    if args.push:
        model.push_to_hub(args.push)
    again = BackboneUNet.from_pretrained(args.out)  # or the repository's name
    print(f"saved to {args.out} and loaded again; stages that interact: {again.stages}")
    return model, again


if __name__ == "__main__":
    main()
