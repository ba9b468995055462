"""Measures tinyhw side by side with NumPy and, where installed, PyTorch and tinygrad.

    python scripts/bench.py                        # everything, as a table
    python scripts/bench.py --only 'matmul|sum'    # the rows whose names match
    python scripts/bench.py --json                 # for machines
    python scripts/bench.py --device NV            # on a GPU, and what its queues do (bench_gpu.py)

Every library runs in the same process on the same inputs and the same number of threads. Inputs
change from call to call, results are compared with NumPy's, and a call counts as finished when
its result could be read. The libraries take turns within each row, so that a change in the
machine's load meets all of them. Times are medians; `×` columns are the other library's time
divided by tinyhw's, so above 1 tinyhw is faster. `host` stands in the rows of the emulated board
alone: the same scheduled kernel compiled for this processor (`bench_emulated.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Sequence

THREAD_VARIABLES = (
    "TINYHW_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)
LIBRARIES = ("tinyhw", "numpy", "torch", "tinygrad", "host")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `arguments` stand in for sys.argv."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="PATTERN", default="", help="rows to run (a regex)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", metavar="NAME", help="tinyhw's device, for example CLANG")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each cell")
    parser.add_argument(
        "--libraries",
        type=lambda text: tuple(text.split(",")),
        default=LIBRARIES,
        help=f"those to compare, of {','.join(LIBRARIES)}",
    )
    options = parser.parse_args(arguments)
    for name in options.libraries:
        if name not in LIBRARIES:
            parser.error(f"unknown library {name!r}; known are {', '.join(LIBRARIES)}")
    try:
        re.compile(options.only)
    except re.error as error:
        parser.error(f"--only {options.only!r} is no regular expression: {error}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the status is 1 if a result was wrong or a library failed in a row."""
    options = parse(arguments)
    # Before the first import of any of the libraries, which read them once.
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(options.threads)
    if options.device:
        os.environ[options.device.upper()] = "1"

    from bench_measure import Report, measure_rows
    from bench_rows import rows

    every = rows((options.device or "").upper())
    chosen = [row for row in every if re.search(options.only, row.name)]
    if not chosen:
        print(f"bench: no row matches {options.only!r}", file=sys.stderr)
        return 1
    report = Report(
        machine=f"{platform.machine()}, {options.threads} threads, Python "
        f"{platform.python_version()}",
        libraries=options.libraries,
    )
    try:
        measure_rows(chosen, report, seconds=options.seconds, live=not options.json)
    except KeyboardInterrupt:
        print("\nbench: interrupted; the rows so far stand above.", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(report.as_json(), indent=1))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
