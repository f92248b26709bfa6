"""Writes `examples/problems.jsonl`: the problems that ship, in APPS+ format with the extra key `family`.

    python -m examples.generate [--out FILE]

The same seed gives the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the repository's root is not on the path then
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.long import long_problems
from examples.short import short_problems

SEED = 14
SHORT_ROUNDS = 3
"""How often the quotas of the short problems are drawn: a small model needs many compositions to learn the parts."""
OUT = Path(__file__).resolve().parent / "problems.jsonl"


def problems(seed: int = SEED, rounds: int = 1) -> list[dict[str, Any]]:
    """All problems, the short ones first; more rounds add families to those of fewer rounds."""
    return [*short_problems(seed, SHORT_ROUNDS * rounds), *long_problems(seed, rounds)]


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="file to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of every choice (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="how often the quotas are drawn (default: %(default)s)")
    options = parser.parse_args()
    lines = [json.dumps(problem, ensure_ascii=False) for problem in problems(options.seed, options.rounds)]
    aside = options.out.with_name(options.out.name + ".part")
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    aside.replace(options.out)
    print(f"{len(lines)} problems written to {options.out}")


if __name__ == "__main__":
    main()
