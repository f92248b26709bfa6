"""The one place that names images. The version is part of Kubeflow's cache key, so never `latest`."""

from __future__ import annotations

from stepcoder import __version__

TRAINER = f"stepcoder/trainer:{__version__}"
"""Everything, torch included: sft, ppo-stage, evaluate."""
TOOLS = f"stepcoder/tools:{__version__}"
"""No torch: resolve-inputs, verify-dataset, promotion-gate, register-model, notify, the sandbox service."""
