"""cfii: plug-in class-embedding interaction for medical image segmentation, after CFII-Net."""

from __future__ import annotations

from cfii.eceg import CSA, ECEG
from cfii.interaction import CIT, SIT
from cfii.iterator import InteractiveIterator
from cfii.neck import CFIINeck
from cfii.updaters import CEU, FEU

__version__ = "0.1.0"

__all__ = ["CEU", "CIT", "CSA", "ECEG", "FEU", "SIT", "CFIINeck", "InteractiveIterator"]
