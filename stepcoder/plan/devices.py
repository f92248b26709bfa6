"""The table of devices: facts of data sheets, nothing measured here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from stepcoder.plan.config import PlanConfig

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """What one rank computes on."""

    name: str
    memory_gib: float
    """What torch reports as the total, which is less than the name says."""
    bf16_tflops: float
    """Dense, without sparsity, with accumulation in fp32."""
    fp32_tflops: float
    """Without TF32, which torch leaves off by default."""
    bandwidth: float
    """GB/s to the device's memory."""
    link: float
    """GB/s one way from a rank to the others of its machine: NVLink, else PCIe."""
    pcie: float
    """GB/s one way to host memory."""

    def tflops(self, precision: str) -> float:
        """The dense peak in a precision."""
        return self.bf16_tflops if precision == "bf16" else self.fp32_tflops


# Data sheets of NVIDIA: H200 and H100 (SXM), A100 (SXM), L40S; Ada architecture white paper for the 4090.
DEVICES = {
    device.name: device
    for device in (
        Device("h200", 139.8, 989, 67, 4800, 450, 64),
        Device("h100", 79.1, 989, 67, 3350, 450, 64),
        Device("a100-80", 79.1, 312, 19.5, 2039, 300, 32),
        Device("a100-40", 39.4, 312, 19.5, 1555, 300, 32),
        Device("l40s", 44.4, 362, 91.6, 864, 32, 32),
        Device("4090", 23.6, 165, 82.6, 1008, 32, 32),
        # Processors differ too much for a fact: two cores with AVX2 at 3 GHz, and one channel of memory.
        Device("cpu", 0.0, 0.2, 0.2, 20, 10, 20),
    )
}


def device_of(config: PlanConfig) -> Device:
    """The device of a plan, with what the settings say in place of the table's figures."""
    device = DEVICES[config.gpu]
    if config.gpu == "cpu":
        device = replace(device, memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB)
    own = {
        "memory_gib": config.gpu_memory_gib,
        f"{config.precision}_tflops": config.gpu_tflops,
        "bandwidth": config.gpu_bandwidth,
        "link": config.link_bandwidth,
    }
    given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    return replace(device, **given)
