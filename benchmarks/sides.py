"""The sides of a comparison: networks in a precision and a mode, their steps, and what they are measured by.

A mode joins with + any of `channels_last` (the network and its images in that layout), `compile` (torch.compile,
static shapes) and `graph` (the whole step captured once as a CUDA graph and replayed); `eager` is none of them.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import memory
import torch
from cost import Ceiling, CeilingRuns, Counter, tensors
from timing import interleaved
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from cfii import CFIIOutput
from cfii.wrapper import Codec

# What autocast lowers to, or None; float32 and tf32 differ in what CUDA makes of a float32 product.
PRECISIONS = {"float32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MODE_PARTS = ("channels_last", "compile", "graph")
TASKS = ("inference", "training")

ceiling_runs = functools.cache(CeilingRuns)


@contextlib.contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Let CUDA round float32 products to TensorFloat-32 or not; bf16 and fp16 keep PyTorch's defaults."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    if precision in ("float32", "tf32"):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@dataclass
class Side:
    """One network, or part of one, in one mode.

    Args:
        name: in tables and in the JSON; sides of one name do the same work.
        model: on the device and in the layout of its mode.
        inputs: what it is called with: tensors or lists of them; the first one's first axis is the batch.
        criterion, target: of the training step; without a criterion all outputs (a network's logits and
            embeddings) are given a fixed gradient, so that the step has no loss.
        optimize: end the training step with SGD's.
        mode, precision: see above.
    """

    name: str
    model: nn.Module
    inputs: Sequence[Any]
    criterion: nn.Module | None = None
    target: Tensor | None = None
    optimize: bool = True
    mode: str = "eager"
    precision: str = "float32"

    def __post_init__(self) -> None:
        parts = self.mode.split("+")
        if "channels_last" in parts:
            self.inputs = tree_map(in_channels_last, self.inputs)
        self.graph = "graph" in parts
        self.run_model: Callable[..., Any] = self.model
        self.loss: Callable[..., Tensor] | None = self.criterion
        if "compile" in parts or self.graph:
            torch._dynamo.config.cache_size_limit = 1000  # many networks and sizes share one forward's code
        # Static shapes: every side of a sweep is compiled for its own size. In graphs the loss is compiled, since
        # its check of the labels reads values, which a capture cannot.
        if "compile" in parts:
            self.run_model = torch.compile(self.model, dynamic=False)
        if self.criterion is not None and ("compile" in parts or self.graph):
            self.loss = torch.compile(self.criterion, dynamic=False)
        aux = isinstance(self.model, Codec) and self.model.neck is not None
        self.training_options = {"return_aux": True} if aux else {}
        learning = [p for p in self.model.parameters() if p.requires_grad]
        # So small a rate that no weight changes: in fp16, without loss scaling, gradients may not be finite.
        self.optimizer = torch.optim.SGD(learning, lr=1e-9) if learning and self.optimize else None
        self.gradients: list[Tensor] | None = None

    @property
    def sample(self) -> Tensor:
        return tensors(self.inputs)[0]

    def autocast(self) -> contextlib.AbstractContextManager:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.sample.device.type, dtype) if dtype else contextlib.nullcontext()

    def outputs(self, eager: bool = False) -> Any:
        with self.autocast():
            return (self.model if eager else self.run_model)(*self.inputs, **self.training_options)

    def inference(self, eager: bool = False) -> None:
        with torch.no_grad(), self.autocast():
            (self.model if eager else self.run_model)(*self.inputs)

    def training(self, eager: bool = False) -> None:
        """Forward, loss, backward, a step of SGD; no gradient is left behind."""
        output = self.outputs(eager)
        if self.loss is None:
            self.backward(output)
        else:
            (self.criterion if eager else self.loss)(output, self.target).backward()
        if self.optimizer is not None:
            self.optimizer.step()
        self.clear()

    def clear(self) -> None:
        for x in [*self.model.parameters(), *tensors(self.inputs)]:
            x.grad = None

    def backward(self, output: Any) -> None:
        """From gradients that are as good as a loss's, but cost nothing: always the same."""
        if isinstance(output, CFIIOutput):
            output = output.logits, output.embeddings  # the class maps have no loss by default
        outputs = tensors(output)
        if self.gradients is None:
            self.gradients = [torch.randn_like(x) / x.numel() for x in outputs]
        torch.autograd.backward(outputs, self.gradients)

    def prepare(self, task: str) -> Callable[[], None]:
        """The call to time: compiled, autotuned, captured."""
        self.model.train(task == "training")
        run = getattr(self, task)
        if not self.graph:
            run()
            return run
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # a capture must find everything set up
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            run()
        return captured.replay

    def count(self, task: str) -> Counter:
        """The operators that one eager step calls."""
        with Counter() as counter:
            getattr(self, task)(eager=True)
        return counter

    def saved(self) -> int:
        """Bytes that autograd keeps between an eager forward and its backward."""
        return memory.saved_bytes(lambda: self.outputs(eager=True), self.model.parameters())


def in_channels_last(x: Any) -> Any:
    if not isinstance(x, Tensor) or x.ndim != 4:
        return x
    return x.detach().contiguous(memory_format=torch.channels_last).requires_grad_(x.requires_grad)


def in_modes(modes: Sequence[str], name: str, model: nn.Module, *args: Any, **options: Any) -> list[Side]:
    """The network once a mode (the other arguments are those of `Side`); modes of one layout share the module."""
    last = None
    if any("channels_last" in mode for mode in modes):
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return [Side(name, last if "channels_last" in mode else model, *args, mode=mode, **options) for mode in modes]


def measure(sides: list[Side], task: str, repeats: int) -> list[dict[str, Any]]:
    """One row a side, all of them timed taking turns, with the machine's ceilings between them.

    A side that fails to start (out of memory, an operator that does not compile or cannot be captured) gives a
    row with its "error" instead.
    """
    first = sides[0]
    device, precision, cuda = str(first.sample.device), first.precision, first.sample.is_cuda
    ceilings = ceiling_runs(device, PRECISIONS[precision] or torch.float32)
    rows, runs, costs = [], dict(ceilings.runs), {}
    with float32_products(precision):
        for i, side in enumerate(sides):
            row = {
                **{"network": side.name, "task": task, "mode": side.mode, "precision": precision},
                **{"batch": len(side.sample), "shape": list(side.sample.shape)},
            }
            rows.append(row)
            try:
                runs[str(i)] = side.prepare(task)
                if not side.graph:  # its memory belongs to the graph as long as there is one
                    peak = memory.peak_bytes(getattr(side, task), device)
                    row["peak_MiB"] = (peak + memory.held_bytes(side.model)) / 2**20
                if side.name not in costs:
                    costs[side.name] = side.count(task)
                if task == "training":
                    row["saved_MiB"] = side.saved() / 2**20
            except Exception as error:  # recorded, whatever it is
                runs.pop(str(i), None)
                row["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                print(f"{side.name}, {side.mode}, {task}: {row['error']}", flush=True)
                side.clear()
                gc.collect()
        warm_up = 5 if cuda else 1
        latency = interleaved(runs, repeats, device, warm_up=warm_up)
        throughput = interleaved(runs, repeats, device, wait=False) if cuda else latency
    ceiling = ceilings.ceiling(throughput)
    for i, (side, row) in enumerate(zip(sides, rows, strict=True)):
        if str(i) not in runs:
            continue
        seconds = throughput[str(i)]["median_s"]
        row |= {f"latency_{k.removesuffix('_s')}_ms": 1e3 * v for k, v in latency[str(i)].items()}
        row |= {
            "images_per_s": row["batch"] / seconds,
            "images_per_s_q1": row["batch"] / throughput[str(i)]["q3_s"],
            "images_per_s_q3": row["batch"] / throughput[str(i)]["q1_s"],
            **against_ceiling(costs[side.name], seconds, ceiling),
        }
    return rows


def against_ceiling(counter: Counter, seconds: float, ceiling: Ceiling) -> dict[str, float]:
    """What a step has to do, the least time for it, and the fractions of the ceilings that it reaches."""
    return {
        "GFLOP": counter.flops / 1e9,
        "GB_moved": counter.bytes / 1e9,
        "roofline_ms": 1e3 * ceiling.bound(counter.calls),
        "of_matrix_ceiling": counter.flops / seconds / ceiling.flops_per_s,
        "of_copy_ceiling": counter.bytes / seconds / ceiling.bytes_per_s,
        "matrix_ceiling_TFLOP_per_s": ceiling.flops_per_s / 1e12,
        "copy_ceiling_GB_per_s": ceiling.bytes_per_s / 1e9,
    }
