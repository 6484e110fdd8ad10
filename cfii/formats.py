"""The two file formats of `export`: how a traced program is written, with what it says of itself, and loaded."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

Format = Literal["onnx", "pt2"]
AXES = {"batch": 0, "height": 2, "width": 3}
OLDEST_FOR_ONNX = (2, 7)  # 2.6 fails on sizes as symbols, inside its own decompositions
LARGEST_ONNX = 1536 * 2**20  # bytes of weights, beyond which torch writes them to a second file
METADATA = "cfii.json"  # in a .pt2; in ONNX the metadata's own entries


def write_onnx(program: torch.export.ExportedProgram, file: Path, metadata: dict[str, str]) -> None:
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells of every step of its optimisation
    try:
        onnx = torch.onnx.export(
            program, (), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
        )
    finally:
        logger.setLevel(level)
    onnx.model.metadata_props.update(metadata)
    for value in (*onnx.model.graph.inputs, *onnx.model.graph.outputs):
        for axis in metadata["dynamic_axes"].split(","):  # instead of torch's own symbols
            value.shape[AXES[axis]] = axis
    onnx.save(str(file))


def load_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what fails is raised too
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def require_onnx(model: nn.Module) -> None:
    """Raise unless all that ONNX needs is there, and the weights fit into one file."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing or torch.__version__ < OLDEST_FOR_ONNX:
        what = ", ".join(missing) or f"torch 2.7 or newer, not {torch.__version__}"
        raise ImportError(f'format: "onnx" needs {what}: pip install "cfii[export]"')
    total = sum(x.numel() * x.element_size() for x in model.state_dict().values())
    if total > LARGEST_ONNX:
        raise ValueError(
            f'format: an ONNX file holds up to 1.5 GiB of weights, these have {total} bytes; use "pt2"'
        )


def write_pt2(program: torch.export.ExportedProgram, file: Path, metadata: dict[str, str]) -> None:
    torch.export.save(program, str(file), extra_files={METADATA: json.dumps(metadata)})


def load_pt2(file: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(str(file)).module()


ROUTES = {"onnx": (write_onnx, load_onnx), "pt2": (write_pt2, load_pt2)}
