"""The one place that names images. The version is part of Kubeflow's cache key, so never `latest`.

`STEPCODER_REGISTRY` in the environment, for example `registry.example.com/team`, goes before both names: when the
pipeline is compiled, and when a sandbox container is started.
"""

from __future__ import annotations

import os

from stepcoder import __version__

REGISTRY = os.environ.get("STEPCODER_REGISTRY", "").strip().rstrip("/")
_PREFIX = f"{REGISTRY}/stepcoder" if REGISTRY else "stepcoder"

TRAINER = f"{_PREFIX}/trainer:{__version__}"
"""Everything, torch included: sft, ppo-stage, evaluate."""
TOOLS = f"{_PREFIX}/tools:{__version__}"
"""No torch: resolve-inputs, verify-dataset, promotion-gate, register-model, notify, the sandbox service."""
