"""The command line of a bring-up: runs a vendor's steps, prints and writes the report."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import bringup_high as high
from bringup_page import page
from bringup_steps import Outcome, Report, Step, line_of, run_steps
from drivers.registry import emulated_system
from drivers.system import System


class Bench(Protocol):
    """What the steps leave for each other."""

    def board_says(self) -> str:
        """What an emulated board knows of a failure."""

    def close(self) -> None:
        """Gives back what the steps took."""


Kind = TypeVar("Kind", bound=Bench)


def size(text: str) -> int:
    """A number of bytes: 65536, 64K, 16M."""
    found = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; 64K and 16M are")
    value = int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]
    if value < high.SMALLEST_COPY_BYTES:
        raise argparse.ArgumentTypeError(f"{text} is below {high.SMALLEST_COPY_BYTES}")
    return value


def parse(kind: str, title: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `arguments` stand in for sys.argv."""
    parser = argparse.ArgumentParser(description=f"{title}, step by step.")
    parser.add_argument("--device", default=f"{kind}:0", help=f"{kind}:0, {kind}:1, ...")
    parser.add_argument("--json", metavar="FILE", help="write the report there; - is stdout")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots")
    parser.add_argument("--largest", type=size, default=16 << 20, metavar="SIZE",
                        help="of the copies in the bandwidth step (default: 16M)")  # fmt: skip
    options = parser.parse_args(arguments)
    if not re.fullmatch(rf"{kind}(:\d+)?", options.device):
        parser.error(f"{options.device!r} is no {kind} device; {kind}:0 is")
    return options


def bring_up(
    kind: str, title: str, steps: Sequence[Step[Kind]],
    make_bench: Callable[[str, System | None, int], Kind], arguments: Sequence[str] | None,
) -> int:
    """Runs all steps on a device of a kind, prints and writes the report; the exit status."""
    options = parse(kind, title, arguments)
    system = emulated_system(kind)
    boards = system.description if system else ""
    text = sys.stderr if options.json == "-" else sys.stdout

    def show(outcome: Outcome) -> None:
        print(line_of(outcome), file=text, flush=True)

    where = f"emulated ({boards})" if boards else "on silicon"
    print(f"bring-up of {options.device}, {where}", file=text)
    bench = make_bench(options.device, system, options.largest)
    try:
        outcomes = run_steps(steps, bench, show, bench.board_says)
    finally:
        bench.close()
    report = Report(title, options.device, boards, outcomes)
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
