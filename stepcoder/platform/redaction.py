"""Takes secrets out of texts that leave the machine or stay in a log."""

from __future__ import annotations

import os
import re
from typing import Final

SECRET_VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "STEPCODER_SANDBOX_TOKEN",
    "STEPCODER_NOTIFY_URL",
)
"""Environment variables that hold secrets: the keys of the secret that pods read."""
_NAMES: Final = {"MLFLOW_TRACKING_USERNAME"}
"""Who somebody is tells nobody's password, and is often an ordinary word, such as `stepcoder`."""
HIDDEN: Final = "***"
_SHORTEST: Final = 6
"""Values with fewer characters stand in ordinary words; hiding those would tell more than it keeps."""
_PATTERNS: Final = (
    (re.compile(r"(?<=//)[^/\s]+@"), f"{HIDDEN}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"(?i)([?&](?:x-amz-[\w-]+|awsaccesskeyid|token|key|signature|sig|password|access_token)=)[^&\s'\"]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{20,}\b"), HIDDEN),
    (re.compile(r"(?i)(hooks\.slack(?:-gov)?\.com/)\S+?(?=[\s'\")]|$)"), rf"\1{HIDDEN}"),
)


def redacted(text: str) -> str:
    """The text with the environment's secrets, and what looks like one, replaced by `***`."""
    values = (os.environ.get(name, "").strip() for name in SECRET_VARIABLES if name not in _NAMES)
    for value in sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def first_line(error: BaseException) -> str:
    """An error in one line, without what must not be in a log."""
    text = redacted(str(error).strip())
    return text.splitlines()[0][:500] if text else type(error).__name__
