"""Brings up an AMD GPU step by step, from open() to a matrix product, and says what fails and why.

    python scripts/bringup_amd.py                       # the hardware
    EMULATE=1 python scripts/bringup_amd.py             # an emulated gfx1100
    python scripts/bringup_amd.py --device AMD:1 --html report.html --json -

Each step prints pass, fail or skipped, what it saw, and on failure what to do next. The early
ones make system calls and write packets by hand; the later ones use the device as programs do.
The exit status is 1 when a step failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import bringup_amd_low as low
import bringup_high as high
from bringup_amd_low import DMESG, Bench
from bringup_run import bring_up
from bringup_steps import Step

BY_HAND = ("events", "allocate")
STEPS: Final[tuple[Step[Bench], ...]] = (
    Step("node permissions", low.permissions),
    Step("version", low.version, ("node permissions",), DMESG),
    Step("topology", low.topology, ("version",)),
    Step("VM", low.address_space, ("topology",), "Does another process debug this one? " + DMESG),
    Step("allocate", low.allocate, ("VM",), "Is VRAM left (rocm-smi), and are limits set? "
         + DMESG),
    Step("CPU write/read", low.host_access, ("allocate",)),
    Step("events", low.events, ("allocate",), DMESG),
    Step("SDMA copy", low.sdma_copy, BY_HAND, DMESG),
    Step("PM4 NOP", low.pm4_nop, BY_HAND, DMESG),
    Step("RELEASE_MEM", low.release_mem, ("PM4 NOP",), DMESG),
    Step("timestamp", low.timestamps, ("RELEASE_MEM",)),
    Step("dispatch", low.dispatch, ("RELEASE_MEM",), DMESG),
    Step("device", high.device, ("dispatch", "SDMA copy"), DMESG),
    Step("LDS", high.local_memory, ("device",), DMESG),
    Step("scratch", high.scratch, ("device",), DMESG),
    Step("fault report", high.fault_report, ("device",), DMESG),
    Step("bandwidth", high.bandwidth, ("device",), DMESG),
    Step("launch latency", high.launch_latency, ("device",), DMESG),
    Step("matmul", high.matmul, ("device", "LDS"), DMESG),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all steps, prints and writes the report."""
    return bring_up("AMD", "Bring-up of an AMD GPU", STEPS, Bench, arguments)


if __name__ == "__main__":
    sys.exit(main())
