"""Checkpoints for another number of ranks: DeepSpeed's universal format, made when it is needed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from stepcoder.platform import ranks


@contextmanager
def as_universal(folder: Path, name: str) -> Iterator[Path]:
    """Turns a checkpoint of any number of ranks, in a scratch folder, into one that any other number can load."""
    from argparse import Namespace

    from deepspeed.checkpoint import ds_to_universal

    def convert() -> Path:
        scratch = Path(tempfile.mkdtemp(prefix="stepcoder-universal-"))
        settings = Namespace(
            input_folder=str(folder / name),
            output_folder=str(scratch / name),
            # In this process: forking one that holds torch's threads can hang.
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=False,
        )
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            ds_to_universal.main(settings)
        return scratch

    scratch = ranks.once_a_machine(convert)
    try:
        yield scratch
        ranks.together("checkpoint loaded")
    finally:
        if ranks.local_rank() == 0:
            shutil.rmtree(scratch, ignore_errors=True)
