"""What every public call checks first: an error names the argument, what was expected and what came."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor


def require_count(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least`; anything that counts as an index, but no bool."""
    try:
        count = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None:
        raise TypeError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    if count < least:
        raise ValueError(f"{name}: expected at least {least}, got {value!r}")
    return count


def require_number(name: str, value: object, least: float = 0.0) -> float:
    """A finite number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise ValueError(f"{name}: expected {least:g} or more, a finite number, got {value!r}")
    return value


def require_flag(name: str, value: object) -> None:
    """A bool: the word "False" would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")


def require_list(name: str, values: object) -> list:
    if isinstance(values, str) or not isinstance(values, Sequence | set):
        raise TypeError(f"{name}: expected a list, got {values!r}")
    return list(values)


def require_counts(name: str, values: object) -> list[int]:
    """A list of at least one whole number of at least 1."""
    values = require_list(name, values)
    if not values:
        raise ValueError(f"{name}: expected at least one whole number, got none")
    return [require_count(name, value) for value in values]


def require_size(name: str, size: object) -> tuple[int, int] | None:
    """(height, width) of one number or two; None stays."""
    if size is None:
        return None
    extents = [size, size] if not isinstance(size, Sequence) else size
    if isinstance(size, str) or len(extents) != 2:
        raise ValueError(f"{name}: expected None, a positive integer or (height, width), got {size!r}")
    return require_count(name, extents[0]), require_count(name, extents[1])


def require_stage_list(name: str, stages: object, count: int) -> list[Tensor]:
    """A list of `count` tensors, one a stage."""
    if isinstance(stages, (Tensor, str)) or not isinstance(stages, Sequence):  # torch 2.4 compiles no union here
        raise TypeError(f"{name}: expected a list of {count} stages, got {describe(stages)}")
    if len(stages) != count:
        raise ValueError(f"{name}: expected {count} stages, got {len(stages)}")
    return list(stages)


def require_map(x: Tensor, channels: int, name: str) -> None:
    """Raise unless `x` is a (B, channels, H, W) map of floats."""
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{name}: expected a feature map (B, {channels}, H, W), got {describe(x)}")
    require_floats(x, name)


def require_embeddings(x: Tensor, channels: int, name: str) -> None:
    """Raise unless `x` is (B, N, channels) of floats."""
    if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[2] != channels:
        raise ValueError(f"{name}: expected class embeddings (B, N, {channels}), got {describe(x)}")
    require_floats(x, name)


def require_floats(x: Tensor, name: str) -> None:
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected floating-point values, got {describe(x)} of {x.dtype}; use x.float()")
    # A condition on sizes would tie an exported program to those of its example.
    # (Zero channels are a placeholder for a stage, as in SMP.)
    if not torch.compiler.is_compiling() and (len(x) == 0 or 0 in x.shape[2:]):
        raise ValueError(f"{name}: expected at least one sample and one pixel, got {describe(x)}")


def require_same(name: str, sizes: Sequence[int], other: str, other_sizes: Sequence[int]) -> None:
    """Raise unless two tensors agree in batch (and classes)."""
    if not torch.compiler.is_compiling() and tuple(sizes) != tuple(other_sizes):
        what = "batch" if len(sizes) == 1 else "batch and classes"
        raise ValueError(f"{name}: expected the {what} of {other}, {tuple(other_sizes)}, got {tuple(sizes)}")


def refuse_scripting(module: object) -> NoReturn:
    """As the method `__prepare_scriptable__`, which torch.jit.script calls on a module and all those inside."""
    raise TypeError(
        f"torch.jit.script: {type(module).__name__} is not written in TorchScript's subset of Python; use "
        'cfii.export(model, "model.onnx") or ".pt2", torch.export.export or torch.compile (torch.jit.trace works)'
    )


def describe(x: object) -> str:
    return f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
