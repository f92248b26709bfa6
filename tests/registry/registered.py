"""What the registry holds, for tests."""

from __future__ import annotations

from stepcoder.platform import tracking
from stepcoder.platform.tracking import model_registry


def champion(name: str) -> str | None:
    """Address of the version that has the alias `champion`."""
    found = model_registry.holder(tracking.client(), name, "champion")
    return None if found is None else str(found.source)
