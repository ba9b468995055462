"""Brings up an AMD GPU step by step, from open() to a matrix product, and says what fails and why.

    python scripts/bringup_amd.py                       # the hardware
    EMULATE=1 python scripts/bringup_amd.py             # an emulated gfx1100
    python scripts/bringup_amd.py --device AMD:1 --html report.html --json -

Each step prints pass, fail or skipped, what it saw, and on failure what to do next. The early
ones make system calls and write packets by hand; the later ones use the device as programs do.
The exit status is 1 when a step failed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import Final

import bringup_amd_high as high
import bringup_amd_low as low
from bringup_amd_low import DMESG, Bench
from bringup_page import page
from bringup_steps import Outcome, Report, Step, line_of, run_steps
from drivers.registry import emulated_system

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


def size(text: str) -> int:
    """A number of bytes: 65536, 64K, 16M."""
    found = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; 64K and 16M are")
    value = int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]
    if value < high.SMALLEST_COPY_BYTES:
        raise argparse.ArgumentTypeError(f"{text} is below {high.SMALLEST_COPY_BYTES}")
    return value


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `arguments` stand in for sys.argv."""
    parser = argparse.ArgumentParser(description="Bring up an AMD GPU, step by step.")
    parser.add_argument("--device", default="AMD:0", help="AMD:0, AMD:1, ...")
    parser.add_argument("--json", metavar="FILE", help="write the report there; - is stdout")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots")
    parser.add_argument("--largest", type=size, default=16 << 20, metavar="SIZE",
                        help="of the copies in the bandwidth step (default: 16M)")  # fmt: skip
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"AMD(:\d+)?", options.device):
        parser.error(f"{options.device!r} is no AMD device; AMD:0 is")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all steps, prints and writes the report."""
    options = parse(arguments)
    system = emulated_system("AMD")
    boards = system.description if system else ""
    text = sys.stderr if options.json == "-" else sys.stdout

    def show(outcome: Outcome) -> None:
        print(line_of(outcome), file=text, flush=True)

    where = f"emulated ({boards})" if boards else "on silicon"
    print(f"bring-up of {options.device}, {where}", file=text)
    bench = Bench(options.device, system, options.largest)
    try:
        outcomes = run_steps(STEPS, bench, show, bench.board_says)
    finally:
        bench.close()
    report = Report("Bring-up of an AMD GPU", options.device, boards, outcomes)
    failed = [outcome.name for outcome in outcomes if outcome.status == "fail"]
    print(f"failed: {', '.join(failed)}" if failed else "nothing failed", file=text)
    content = json.dumps(report.as_data(), indent=1)
    if options.json == "-":
        print(content)
    elif options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.write(content + "\n")
    if options.html:
        with open(options.html, "w", encoding="utf-8") as file:
            file.write(page(report))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
