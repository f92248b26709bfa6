"""The other side of one comparison: evalplus' checker, run by a Python that has evalplus (`--evalplus PYTHON`).

Reads a JSON list of programs a line, checks each with the given inputs, and prints the CPU seconds that a block took.
"""

from __future__ import annotations

import json
import os
import sys

from evalplus.eval import untrusted_check


def main() -> None:
    """Serves one block a line."""
    for line in sys.stdin:
        block = json.loads(line)
        before = os.times()
        for program in block["programs"]:
            status, _ = untrusted_check(
                "humaneval", program, block["inputs"], block["entry_point"], block["expected"], 0, [0.01] * 4
            )
            if status != "pass":
                raise SystemExit(f"a right program did not pass: {status}")
        after = os.times()
        print(sum(after[:4]) - sum(before[:4]), flush=True)


if __name__ == "__main__":
    main()
