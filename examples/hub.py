"""Save a network of create_model, put it on the Hugging Face Hub, load it, and load it for other classes.

    pip install cfii
    python examples/hub.py                      # a folder only: no connection needed
    python examples/hub.py --push user/name     # and the Hub, after `hf auth login`

The folder holds config.json (the arguments of create_model), model.safetensors and a model card, README.md.
Nothing in it is code, and nothing is unpickled.
"""

import argparse

import torch

import cfii


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/hub")
    parser.add_argument("--push", help="a repository to push to, user/name")
    args = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = cfii.create_model("unet", num_classes=9, in_channels=1, widths=[16, 32, 64]).eval()
    # ... train it here ...
    model.save_pretrained(args.out)
    source = args.out
    if args.push:
        model.push_to_hub(args.push, private=True, commit_message="Trained on the phantom")
        source = args.push

    again = cfii.from_pretrained(source)  # in eval mode; revision=, token= and the like go to the Hub
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    # For another number of classes all is kept but what depends on it; a warning names that.
    other = cfii.from_pretrained(source, num_classes=3)
    print(f"from {source}: {again.num_classes} classes as saved, {other.num_classes} for the next task")
    return model, again, other


if __name__ == "__main__":
    main()
