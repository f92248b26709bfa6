"""Training on several machines: a step's work as a TrainJob of Kubeflow Trainer (API v2, release 2.2 or newer).

`manifest.py` is the object, `cluster.py` the few requests to the Kubernetes API, `follow.py` what happens from its
creation to its end. The machines run `python -m stepcoder.platform.launch STEP`.
"""

from __future__ import annotations

from stepcoder.platform.trainjob.follow import train
from stepcoder.platform.trainjob.manifest import Machines

__all__ = ["Machines", "train"]
