"""What the machines of one training tell one another besides tensors: which of them failed, and why.

Each machine has one process that launches its ranks. A machine whose ranks fail leaves the error in the store through
which the machines met; all others see it, end their ranks and end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from stepcoder.errors import DataError, StepCoderError

MEETING_SECONDS: Final = 3600
"""How long a machine waits for the others at the start: some of them may still have to be found and load the image."""
_LOOK_SECONDS: Final = 0.3
_LOST_SECONDS: Final = 10.0
"""How long the first machine may be out of reach before the others end."""
_KEY: Final = "fault"


@dataclass(frozen=True)
class Nodes:
    """The machines that train together, as Kubeflow Trainer's torch runtime tells each of them."""

    count: int = 1
    number: int = 0
    """This machine's, from 0; number 0 has rank 0, which publishes."""
    address: str = "127.0.0.1"
    """Address of machine 0."""
    port: int = 0
    """Port on which machine 0 is met; 0 on a single machine: any."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Nodes:
        """From `PET_NNODES`, `PET_NODE_RANK`, `PET_MASTER_ADDR` and `PET_MASTER_PORT`.

        Raises:
            DataError: there are several machines, and something about them is missing or no number.
        """
        given = {name: environment.get(name, "") for name in ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_PORT")}
        if given["PET_NNODES"] in ("", "1"):
            return cls()
        address = environment.get("PET_MASTER_ADDR", "")
        if wrong := [f"{name}={value!r}" for name, value in given.items() if not value.isdecimal()]:
            raise DataError(f"{', '.join(wrong)}: not a number; the torch policy of the training runtime sets it")
        if not address:
            raise DataError("PET_MASTER_ADDR: is empty; the torch policy of the training runtime sets it")
        return cls(int(given["PET_NNODES"]), int(given["PET_NODE_RANK"]), address, int(given["PET_MASTER_PORT"]))

    @property
    def meeting(self) -> dict[str, Any]:
        """How torchrun's agent finds the others."""
        if self.count == 1:
            # The machine's own name may not resolve in a container.
            return {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
        return {
            "rdzv_backend": "static",
            "rdzv_endpoint": f"{self.address}:{self.port}",
            "rdzv_configs": {"rank": self.number, "timeout": MEETING_SECONDS},
        }


ALONE: Final = Nodes()


class Watch:
    """Tells the other machines of this one's fault, and ends this one when another has failed or machine 0 is gone."""

    def __init__(self, nodes: Nodes, fault: Path) -> None:
        """Prepares the watch.

        Args:
            nodes: the machines.
            fault: the file in which a rank of this machine leaves its error, see `ranks.leave_fault`.
        """
        self.nodes = nodes
        self.error: StepCoderError | None = None
        """Why another machine has ended this one."""
        self._fault = fault
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="nodes-watch")

    def __enter__(self) -> Self:
        if self.nodes.count > 1:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def tell(self, error: StepCoderError) -> None:
        """Tells the other machines why this one has failed, unless another was first."""
        if self.nodes.count == 1 or self.error is not None:
            return
        with contextlib.suppress(Exception):  # They are gone, or have failed too.
            self._tell(self._store(seconds=5), str(error), error.exit_status)
            # Machine 0 holds the store: the others need a moment to read it.
            time.sleep(3 * _LOOK_SECONDS if self.nodes.number == 0 else 0)

    def _tell(self, store: Any, text: str, status: int) -> None:
        mine = json.dumps({"node": self.nodes.number, "error": text, "exit_status": status})
        store.compare_set(_KEY, "", mine)

    def _store(self, seconds: float) -> Any:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        store = TCPStore(
            self.nodes.address,
            self.nodes.port,
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=seconds),
        )
        store.set_timeout(timedelta(seconds=_LOST_SECONDS))  # That was the time to meet.
        return PrefixStore("stepcoder-nodes", store)

    def _watch(self) -> None:
        try:
            store = self._store(MEETING_SECONDS)
        except Exception:  # The agent has the same trouble, and tells.
            return
        told, heard = False, time.monotonic()
        while not self._ended.wait(_LOOK_SECONDS):
            try:
                if not told and self._fault.exists():
                    mine = json.loads(self._fault.read_text())
                    self._tell(store, f"rank {mine['rank']}: {mine['error']}", mine["exit_status"])
                    told = True
                if store.check([_KEY]):
                    found = json.loads(store.get(_KEY))
                    if found["node"] != self.nodes.number:
                        kind = DataError if found["exit_status"] == DataError.exit_status else StepCoderError
                        self._end(kind(f"node {found['node']}: {found['error']}"))
                    return
                heard = time.monotonic()
            except Exception as error:
                if time.monotonic() - heard > _LOST_SECONDS:
                    self._end(StepCoderError(f"node 0 is out of reach: {type(error).__name__}: {error}"))
                    return

    def _end(self, error: StepCoderError) -> None:
        self.error = error
        # The agent ends its ranks on this signal.
        os.kill(os.getpid(), signal.SIGTERM)
