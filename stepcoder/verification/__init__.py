"""Which records can be trusted, and why not the others: reads raw records, writes the dataset folder.

Readers of the formats are in `stepcoder.problems`, running code in `stepcoder.sandbox`.
"""

from stepcoder.verification.card import Card
from stepcoder.verification.config import VerifyConfig
from stepcoder.verification.reasons import Reason
from stepcoder.verification.verify import verify

__all__ = ["Card", "Reason", "VerifyConfig", "verify"]
