"""The data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfii.training.cases import CaseSet
from cfii.training.files import SettingsError
from cfii.training.sets.acdc import acdc
from cfii.training.sets.decathlon import decathlon
from cfii.training.sets.folder import folder
from cfii.training.sets.glas import glas
from cfii.training.sets.monuseg import monuseg
from cfii.training.sets.phantom import phantom
from cfii.training.sets.synapse import synapse

SETS: dict[str, Callable[..., CaseSet]] = {
    "synapse": synapse,
    "acdc": acdc,
    "glas": glas,
    "monuseg": monuseg,
    "decathlon": decathlon,
    "folder": folder,
    "phantom": phantom,
}
SPLITS = ("train", "val", "test")


def open_set(name: str, root: str | Path | None, split: str = "train", **options: Any) -> CaseSet:
    """One split of a data set.

    Args:
        name: "synapse", "acdc", "glas", "monuseg", "decathlon", "folder" or "phantom".
        root: its folder.
        split: "train", "val" or "test".
        **options: the set's own, see the function of its name.

    Raises:
        SettingsError: an unknown name, split or option.
        NoSuchSplit: the set has no such split.
        DataError: files that cannot be used, named.
    """
    if name not in SETS:
        raise SettingsError(f"name: expected one of {', '.join(SETS)}, got {name!r}")
    if split not in SPLITS:
        raise SettingsError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    known = [p.name for p in inspect.signature(SETS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SettingsError(f"options: {name!r} takes {', '.join(known) or 'none'}, got {', '.join(unknown)}")
    if root is None and name != "phantom":
        raise SettingsError(f"root: expected the folder of {name!r}, got None")
    return SETS[name](root, split, **options)
