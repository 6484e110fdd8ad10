"""Compare a module with its literal form: outputs, and gradients of inputs and of every parameter."""

from __future__ import annotations

import torch

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative, in norm


def flat(outputs):
    """The tensors of a tensor, tuple or list of lists, in order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for output in outputs for tensor in flat(output)]


def relative_error(a, b):
    scale = b.norm().item()
    return (a - b).norm().item() / scale if scale else a.norm().item()


def assert_parity(module, literal, inputs, dtype, jointly=False):
    """`module(*inputs)` and `literal(module, *inputs)` are the same function; inputs may be lists.

    Every gradient is compared by itself, or all of them as one vector (`jointly`).
    """
    module = module.to(dtype)
    inputs = [
        [x.to(dtype).requires_grad_() for x in given]
        if isinstance(given, list)
        else given.to(dtype).requires_grad_()
        for given in inputs
    ]
    outputs, expected = flat(module(*inputs)), flat(literal(module, *inputs))
    assert [x.shape for x in outputs] == [x.shape for x in expected]
    weights = [torch.randn_like(x) for x in expected]
    names = [f"input {i}" for i in range(len(flat(inputs)))] + [name for name, _ in module.named_parameters()]
    with_respect_to = flat(inputs) + list(module.parameters())
    gradients, expected_gradients = (
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(xs, weights, strict=True)), with_respect_to)
        for xs in (outputs, expected)
    )
    errors = {f"output {i}": relative_error(*pair) for i, pair in enumerate(zip(outputs, expected, strict=True))}
    if jointly:
        names = ["everything"]
        gradients, expected_gradients = (
            [torch.cat([g.flatten() for g in gs])] for gs in (gradients, expected_gradients)
        )
    for name, ours, oracle in zip(names, gradients, expected_gradients, strict=True):
        errors[f"gradient of {name}"] = relative_error(ours, oracle)
    worst = max(errors, key=errors.get)
    assert errors[worst] <= TOLERANCE[dtype], f"{worst}: relative error {errors[worst]:.1e}"
