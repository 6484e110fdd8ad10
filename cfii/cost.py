"""What a network has to compute: multiply-accumulates, counted by torch's FlopCounterMode."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cfii.probe import dry_runs


def multiply_accumulates(module: nn.Module, *inputs: Tensor) -> dict[str, int]:
    """Multiply-accumulates of one forward in eval mode, of the module and of each module inside that takes part.

    Counted are convolutions, matrix products and attention as the matrix products it is; activations, gates and
    interpolation are not. Of norms only the means that the neck takes by a matrix product are.

    Args:
        module: runs on the meta device, as a copy without weights; what cannot run there runs once for real, its
            state restored.
        *inputs: tensors of the shapes to count for.

    Returns:
        By name, as in `named_modules`: "" is the whole; a module that is never called has no entry.
    """
    try:
        return count(module, [x.to("meta") for x in inputs], real=False)
    except Exception:  # a module may raise anything on the meta device; what is wrong anyway is raised below
        return count(module, list(inputs), real=True)


def count(module: nn.Module, inputs: list[Tensor], real: bool) -> dict[str, int]:
    run = dry_runs(module, real)[-1]  # in eval mode
    # The fused kernels for attention are not all known to the counter. With gradients, as torch's tracker of
    # modules fails without them where a parameter is handed to a module (learned embeddings).
    with FlopCounterMode(display=False) as counter, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        run(*inputs)
    root = f"{type(module).__name__}."
    counted = {
        name.removeprefix(root): sum(operations.values()) // 2
        for name, operations in counter.get_flop_counts().items()
        if name.startswith(root)
    }
    return {"": counter.get_total_flops() // 2, **counted}
