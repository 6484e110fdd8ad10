"""Saving and loading: arguments as JSON, weights as safetensors, in a folder or on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor

WEIGHTS = "model.safetensors"


class HubMixin(PyTorchModelHubMixin, library_name="cfii", tags=["image-segmentation", "medical"]):
    """huggingface_hub's mixin with files replaced whole, nothing unpickled, and shapes that must fit.

    Only the number of classes may change between saving and loading.
    """

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: dict[str, Any] | None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write `config.json`, `model.safetensors` and a model card; see huggingface_hub.

        Each file is written beside its place and renamed, so that an interrupted save leaves the old one whole.
        """
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".saving-") as temporary:
            super().save_pretrained(temporary, config=config, model_card_kwargs=model_card_kwargs)
            for file in sorted(Path(temporary).iterdir(), reverse=True):  # weights before config
                if file.name != "README.md" or not (target / file.name).exists():
                    os.replace(file, target / file.name)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id=repo_id or target.name,
            config=config,
            model_card_kwargs=model_card_kwargs,
            **push_to_hub_kwargs,
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        file = str(save_directory / WEIGHTS)
        save_model(self, file)  # tensors that share their memory once
        weights = load_file(file)
        save_file(weights, file, {"num_classes": str(self.num_classes), "sha256": digest(weights)})

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        **arguments: Any,
    ) -> HubMixin:
        # huggingface_hub before 1.0 hands these on too, for its own download.
        older = {name: arguments.pop(name) for name in ("proxies", "resume_download") if name in arguments}
        if os.path.isdir(model_id):
            file = os.path.join(model_id, WEIGHTS)
        else:
            file = hf_hub_download(
                repo_id=model_id,
                filename=WEIGHTS,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                **older,
            )
        if arguments.get("encoder_weights"):  # about to be replaced: neither fetched nor needed
            arguments["encoder_weights"] = None
        model = cls(**arguments)
        load_weights(model, file)
        return model.to(map_location).eval()


def digest(weights: dict[str, Tensor]) -> str:
    """Of all names, types, shapes and values: safetensors itself would not notice a changed value."""
    total = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else b"")
    return total.hexdigest()


def load_weights(model: Any, file: str) -> None:
    """Load a file that `save_pretrained` wrote; with another number of classes all but what depends on it."""
    try:
        weights = load_file(file)
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            saved_classes = int(metadata.get("num_classes", model.num_classes))
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{file}: could not be read as a safetensors file: {error}") from error
    if "sha256" in metadata and metadata["sha256"] != digest(weights):
        raise ValueError(f"{file}: its values are not those that were saved: the file is damaged; get it again")
    own = model.state_dict()
    other_shape = sorted(name for name in weights.keys() & own.keys() if weights[name].shape != own[name].shape)
    # Tensors that share their memory are saved once.
    saved_storages = {own[name].data_ptr() for name in weights.keys() & own.keys()}
    missing = sorted(name for name in own.keys() - weights.keys() if own[name].data_ptr() not in saved_storages)
    unexpected = sorted(weights.keys() - own.keys())
    if saved_classes != model.num_classes:
        # The head is a module only if the decoder does not give num_classes channels by itself.
        in_head = [name for name in missing + unexpected if name.startswith("head.")]
        left_out = sorted({*other_shape, *in_head})
        missing, unexpected = ([n for n in names if n not in in_head] for names in (missing, unexpected))
        weights = {name: weight for name, weight in weights.items() if name not in left_out}
        other_shape = []
    if other_shape or missing or unexpected:
        raise ValueError(
            f"{file}: does not fit the network that its config describes; of another shape: "
            f"{other_shape or 'none'}; missing: {missing or 'none'}; unknown: {unexpected or 'none'}. Only "
            "num_classes may differ from the saved network's"
        )
    model.load_state_dict(weights, strict=False)
    if saved_classes != model.num_classes:
        warnings.warn(
            f"from_pretrained: num_classes is {model.num_classes}, the saved network's {saved_classes}; these "
            f"were left out and start anew: {', '.join(left_out)}",
            stacklevel=4,
        )
