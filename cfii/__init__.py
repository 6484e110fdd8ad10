"""cfii: plug-in class-embedding interaction for medical image segmentation, after CFII-Net."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cfii.diagram import diagram
from cfii.eceg import CSA, ECEG
from cfii.export import Exported, export
from cfii.interaction import CIT, SIT
from cfii.iterator import InteractiveIterator
from cfii.losses import CFIILoss
from cfii.neck import CFIINeck
from cfii.summary import Summary, summary
from cfii.updaters import CEU, FEU
from cfii.wrapper import CFIIOutput, CFIIWrapper

if TYPE_CHECKING:
    from cfii.codecs import CFIIModel, create_model, from_pretrained, list_models

__version__ = "0.1.0"

__all__ = [
    "CEU",
    "CIT",
    "CSA",
    "ECEG",
    "FEU",
    "SIT",
    "CFIILoss",
    "CFIIModel",
    "CFIINeck",
    "CFIIOutput",
    "CFIIWrapper",
    "Exported",
    "InteractiveIterator",
    "Summary",
    "create_model",
    "diagram",
    "export",
    "from_pretrained",
    "list_models",
    "summary",
]


def __getattr__(name: str) -> Any:
    # The codecs load huggingface_hub (and some of them timm and SMP): on first use, not with `import cfii`.
    if name in ("CFIIModel", "create_model", "from_pretrained", "list_models"):
        import cfii.codecs

        return getattr(cfii.codecs, name)
    if name == "visualize":  # needs matplotlib
        return importlib.import_module("cfii.visualize")
    raise AttributeError(f"module 'cfii' has no attribute {name!r}")
