"""Brings up an NVIDIA GPU step by step, from open() to a matrix product, and says what fails.

    python scripts/bringup_nv.py                        # the hardware
    EMULATE=1 python scripts/bringup_nv.py              # an emulated Hopper
    python scripts/bringup_nv.py --device NV:1 --html report.html --json -

Each step prints pass, fail or skipped, what it saw, and on failure what to do next.
The exit status is 1 when a step failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import bringup_high as high
import bringup_nv_low as low
from bringup_nv_low import DMESG, Bench
from bringup_run import bring_up
from bringup_steps import Step

STEPS: Final[tuple[Step[Bench], ...]] = (
    Step("node permissions", low.permissions),
    Step("version", low.version, ("node permissions",), DMESG),
    Step("board", low.board, ("version",), DMESG),
    Step("allocate", low.allocate, ("board",), f"Is memory left (nvidia-smi)? {DMESG}"),
    Step("CPU write/read", low.host_access, ("allocate",)),
    Step("channel", low.channel, ("allocate",), DMESG),
    Step("timestamp", low.timestamps, ("channel",)),
    Step("copy engine", low.copies, ("channel",), DMESG),
    Step("launch", low.constants, ("channel",), DMESG),
    Step("device", high.device, ("launch", "copy engine"), DMESG),
    Step("shared memory", high.local_memory, ("device",), DMESG),
    Step("local memory", high.scratch, ("device",), DMESG),
    Step("fault report", high.fault_report, ("device",), DMESG),
    Step("bandwidth", high.bandwidth, ("device",), DMESG),
    Step("launch latency", high.launch_latency, ("device",), DMESG),
    Step("matmul", high.matmul, ("device", "shared memory"), DMESG),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all steps, prints and writes the report."""
    return bring_up("NV", "Bring-up of an NVIDIA GPU", STEPS, Bench, arguments)


if __name__ == "__main__":
    sys.exit(main())
