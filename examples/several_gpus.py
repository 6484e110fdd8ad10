"""Train on several GPUs, or several CPU processes, with torchrun and DistributedDataParallel.

    pip install "cfii[train]"
    torchrun --nproc-per-node 4 examples/several_gpus.py                # a generated phantom; one process per GPU
    torchrun --nproc-per-node 2 examples/several_gpus.py --data DIR     # images and masks, as in docs/data.md

On a machine without GPUs the processes talk through gloo. No parameter of CFII goes without a gradient, so
DistributedDataParallel needs no find_unused_parameters.
"""

import argparse
import os

import torch
import torch.distributed as dist
from safetensors.torch import save_model
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from cfii import CFIILoss, create_model
from cfii.training.resize import Resize
from cfii.training.samples import Samples
from cfii.training.sets import open_set


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder of images and masks; by default the phantom")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4, help="of each process")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--out", default="several_gpus.safetensors")
    args = parser.parse_args(arguments)

    gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if gpu else "gloo")  # torchrun's variables say who and where
    rank = dist.get_rank()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")

    torch.manual_seed(0)
    cases = open_set("folder" if args.data else "phantom", args.data)
    samples = Samples(cases, Resize(args.size))
    sampler = DistributedSampler(samples, drop_last=True)  # another part for each process
    loader = DataLoader(samples, args.batch, sampler=sampler, drop_last=True)
    model = create_model("resunet", len(cases.classes), cases.channels, widths=(16, 32, 64, 64)).to(device)
    if gpu:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    parallel = DistributedDataParallel(model, device_ids=[device.index] if gpu else None)
    # Dice over the batches of all processes, not the mean of each one's own, which is another loss.
    criterion = CFIILoss(len(cases.classes), across_processes=True)
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-3)
    losses = []
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            # Always through the parallel module, which sums the gradients; never model(...) itself.
            loss = criterion(parallel(batch["image"].to(device), return_aux=True), batch["label"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if rank == 0:
            print(f"epoch {epoch}: loss {sum(losses[-len(loader) :]) / len(loader):.3f}", flush=True)
    if rank == 0:
        save_model(model, args.out)
    dist.destroy_process_group()
    return model, losses


if __name__ == "__main__":
    main()
