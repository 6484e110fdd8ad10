"""Predictions of whole images and volumes, in their own size and geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from PIL import Image
from torch import nn

from cfii.arguments import require_count
from cfii.training.arrays import ENDINGS as ARRAY_ENDINGS
from cfii.training.arrays import IMAGE_KEYS, read_arrays, scale_array
from cfii.training.cases import Case, CaseSet
from cfii.training.files import DataError, writing
from cfii.training.images import read_image
from cfii.training.metrics import Protocol
from cfii.training.nifti import ENDINGS, check_window, read_nifti, scale_intensity, write_nifti
from cfii.training.resize import Resize, decide
from cfii.training.results import Results


@torch.inference_mode()
def predict(
    model: nn.Module,
    image: np.ndarray,
    *,
    resize: Resize | None = None,
    roi_size: int | tuple[int, int] | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    multilabel: bool = False,
    in_channels: int | None = None,
) -> np.ndarray:
    """Labels of an image, or of a volume slice by slice.

    Args:
        model: from (B, channels, h, w) to logits (B, N, h, w); run in eval mode, on its parameters' device.
        image: float32 (channels, H, W) or (channels, D, H, W); a grey one is repeated to `in_channels`.
        resize: to the network's size, and back by the same rule.
        roi_size: instead, MONAI's sliding window (Gaussian weights) at the image's own resolution.
        overlap: of neighbouring windows.
        batch_size: slices, or windows, at a time.
        multilabel: every channel decides for itself.
        in_channels: of the model's images; by default its attribute of that name, if it has one.

    Returns:
        (H, W) or (D, H, W) uint8; (N, …) bool if multilabel. A network with one channel gives 0 and 1.
    """
    if image.ndim not in (3, 4):
        raise ValueError(f"image: expected (channels, H, W) or (channels, D, H, W), got {image.shape}")
    if resize is not None and roi_size is not None:
        raise ValueError(
            "resize and roi_size: expected one of them, as windows keep the image's resolution, got both"
        )
    require_count("batch_size", batch_size)
    in_channels = getattr(model, "in_channels", None) if in_channels is None else in_channels
    slices = repeat_grey(image[:, None] if image.ndim == 3 else image, in_channels)
    size = slices.shape[-2:]
    first = next(model.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    was_training = model.training
    model.eval()
    labels = []
    try:
        for start in range(0, slices.shape[1], batch_size):
            part = np.ascontiguousarray(slices[:, start : start + batch_size].swapaxes(0, 1))
            batch = torch.from_numpy(part) if resize is None else resize.image(part)
            batch = batch.float().to(device)
            if roi_size is None:
                logits = model(batch)
            else:
                logits = sliding_window_inference(batch, roi_size, batch_size, model, overlap, mode="gaussian")
            if resize is None:
                labels.append(decide(logits, multilabel).cpu().numpy())
            else:
                labels.append(resize.back(logits, size, multilabel))
    finally:
        model.train(was_training)
    stacked = np.concatenate(labels)  # (D, [N,] H, W)
    if multilabel:
        stacked = stacked.swapaxes(0, 1)
    return stacked if image.ndim == 4 else stacked[..., 0, :, :]


def repeat_grey(image: np.ndarray, channels: int | None) -> np.ndarray:
    """(1, …) -> (channels, …); whatever has more channels stays."""
    return image if channels is None or len(image) != 1 else np.repeat(image, channels, axis=0)


def predict_file(
    model: nn.Module,
    source: str | Path,
    target: str | Path,
    *,
    classes: Sequence[str] | None = None,
    window: tuple[float, float] | None = None,
    key: str | None = None,
    channels: int = 3,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict a file and write the labels in its own geometry.

    - NIfTI: labels with the affine, spacing and orientation of the image, so that they open over it in any
      viewer. Slices are taken in one anatomical orientation, however the file stores them (see
      `nifti.ORIENTATION`).
    - `.npz`, `.h5`: labels of the array's shape, as `label` in an HDF5 file.
    - images: a PNG of labels; for multilabel networks one for each class, `<target>_<class>.png`.

    Args:
        classes: names for multilabel images.
        window: for CT in NIfTI files, see `NiftiFiles`.
        key: of the image in `.npz` and `.h5`; by default "image", or MT-UNet's "img".
        channels: of image files, 3 or 1.
        **options: see `predict`.

    Returns:
        The image as it was read, and the labels, as `predict` takes and gives them.

    Raises:
        DataError: the source cannot be read.
        ValueError: the target's extension does not fit the source's.
    """
    source, target = Path(source), Path(target)
    window, multilabel = check_window(window), options.get("multilabel", False)
    if source.name.endswith(ENDINGS):
        require_ending(target, ENDINGS)
        volume = read_nifti(source)
        values = scale_intensity(volume.values, window, source)
        labels = predict(model, values, **options)
        write_nifti(target, labels, volume)
    elif source.name.endswith(ARRAY_ENDINGS):
        require_ending(target, (".h5", ".hdf5"))
        (image,) = read_arrays(source, [IMAGE_KEYS if key is None else key])
        if image.ndim not in (2, 3):
            raise DataError(f"{source}: expected an image (H, W) or (D, H, W), found {image.shape}")
        values = scale_array(image, source)[None]
        labels = predict(model, values, **options)
        with writing(target) as file, h5py.File(file, "w") as data:
            data.create_dataset("label", data=labels.astype(np.uint8), compression="gzip")
    else:
        require_ending(target, (".png",))
        values = read_image(source, channels)
        labels = predict(model, values, **options)
        if not multilabel:
            write_mask(target, labels)
        for i, mask in enumerate(labels if multilabel else []):
            name = classes[i] if classes else i
            write_mask(target.with_name(f"{target.stem}_{name}.png"), 255 * mask.astype(np.uint8))
    return values, labels


def write_mask(file: Path, labels: np.ndarray) -> None:
    with writing(file) as temporary:
        Image.fromarray(labels).save(temporary)


def require_ending(target: Path, endings: tuple[str, ...]) -> None:
    if not target.name.endswith(endings):
        raise ValueError(f"target: expected a name that ends in {' or '.join(endings)}, got {target}")


def evaluate(
    model: nn.Module,
    cases: CaseSet,
    protocol: Protocol = "strict",
    at_network_size: bool = False,
    **options: Any,
) -> Results:
    """Predict and score every case of a set.

    Args:
        protocol: see `metrics.score`.
        at_network_size: score after resizing the labels, as the field does for GlaS and MoNuSeg, instead of
            bringing predictions back to the image's own size.
        **options: see `predict`.
    """
    results = Results(cases.classes, protocol, cases.multilabel)
    for case in cases:
        if at_network_size and options.get("resize") is not None:
            case = resized(case, options["resize"])
        results.add_case(case, predict(model, case.image, multilabel=cases.multilabel, **options))
    return results


def resized(case: Case, resize: Resize) -> Case:
    """The case at the network's size; its pixels then have no size in mm."""
    label = None if case.label is None else resize.label(case.label).numpy()
    return replace(case, image=resize.image(case.image).numpy(), label=label, spacing=None)
