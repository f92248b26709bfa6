"""One variable for a private certificate authority: `AWS_CA_BUNDLE`, which alone boto3 reads."""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path

READ_BY_OTHERS = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""What MLflow and the webhook read, and the model hub and the sandbox's client; each replaces what is trusted."""


def trust_private_authority() -> None:
    """Makes all libraries trust what `AWS_CA_BUNDLE` names, and the public authorities as before.

    A variable that is set already stays as it is.
    """
    given = Path(os.environ.get("AWS_CA_BUNDLE", ""))
    unset = [name for name in READ_BY_OTHERS if not os.environ.get(name)]
    if not given.is_file() or not unset:
        return
    from requests import certs

    with tempfile.NamedTemporaryFile("w", prefix="stepcoder-", suffix=".pem", delete=False) as together:
        together.write(f"{Path(certs.where()).read_text()}\n{given.read_text()}")
    atexit.register(Path(together.name).unlink, missing_ok=True)
    os.environ.update(dict.fromkeys(unset, together.name))
