"""Looks for wrong results with random programs, for as long as it is given.

    python scripts/fuzz.py --seconds 600                  # everything in turn, for ten minutes
    python scripts/fuzz.py --seed 12 --seconds 60 shapes
    AMD=1 EMULATE=gfx1201 python scripts/fuzz.py graphs   # on another device

    index     index arithmetic: what the simplifier builds against evaluation
    graphs    programs of Tensors: values, and gradients, against NumPy's reading of their graph
    shapes    chains of movements, writes and Variables against NumPy's

The programs are those of the tests (`test/compiler/index_programs.py`, `test/tinyhw/`), so it needs
the repository and hypothesis. Batches of programs run in processes of their own, each with the next
seed: a crash of a kernel is a finding too, and the memory that kernels take is given back.

Prints the smallest failing program of the first batch that fails, and how to run that batch again.
The exit status is 0 if nothing was found, 1 if something was, 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent

PROPERTIES: Final = {
    "index": (
        "test.compiler.index_programs:simplified_is_as_written",
        "test.compiler.index_programs:conditions_keep_their_truth",
        "test.compiler.index_programs:divides_by_variables",
    ),
    "graphs": (
        "test.tinyhw.tensor_programs:program_computes_its_graph",
        "test.tinyhw.tensor_programs:gradients_compute_their_graph",
        "test.tinyhw.tensor_programs:gradients_are_slopes",
    ),
    "shapes": (
        "test.tinyhw.shape_programs:movements_are_numpys",
        "test.tinyhw.shape_programs:variable_movements_are_numpys",
        "test.tinyhw.shape_programs:writes_are_numpys",
    ),
}
"""What can be fuzzed: functions of hypothesis' data object that raise where they find something."""

BATCH_TIMEOUT_S: Final = 1800.0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `arguments` stand in for sys.argv."""
    parser = argparse.ArgumentParser(description="Look for wrong results with random programs.")
    parser.add_argument("what", nargs="*", choices=[*PROPERTIES, []], metavar="WHAT",
                        help=f"{', '.join(PROPERTIES)} (default: all)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the first batch (default: 0)")
    parser.add_argument("--seconds", type=float, default=60.0,
                        help="before no further batch begins (default: 60)")  # fmt: skip
    parser.add_argument("--examples", type=int, default=200, metavar="N",
                        help="programs in a batch, for each property (default: 200)")  # fmt: skip
    parser.add_argument("--batch", action="store_true", help="run one batch in this process")
    return parser.parse_args(arguments)


def search(check: Callable[[Any], None], seed: int, examples: int) -> None:
    """Tries a property; raises what it raises for the smallest program that was found."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    chosen = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )

    def example(data: Any) -> None:
        check(data)

    seeded(seed)(chosen(given(st.data())(example)))()


def batch(what: str, seed: int, examples: int) -> None:
    """One batch of each property, in this process."""
    if "test" not in sys.modules:  # as pytest has it: our folder, not Python's own package `test`
        package = sys.modules["test"] = ModuleType("test")
        package.__path__ = [str(ROOT / "test")]
    for name in PROPERTIES[what]:
        module, function = name.split(":")
        search(getattr(importlib.import_module(module), function), seed, examples)


def run_batch(what: str, seed: int, examples: int) -> str:
    """One batch in another process; what it found, or nothing."""
    command = [sys.executable, __file__, "--batch", "--seed", str(seed),
               "--examples", str(examples), what]  # fmt: skip
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TINYHW_CACHE": "0"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=BATCH_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"It took more than {BATCH_TIMEOUT_S:g} s."
    if not done.returncode:
        return ""
    killed = f"Ended by signal {-done.returncode}.\n" if done.returncode < 0 else ""
    return f"{killed}{done.stdout}{done.stderr}"


def fuzz(kinds: Sequence[str], first_seed: int, seconds: float, examples: int) -> bool:
    """Batches of every kind in turn until the time is over; whether nothing was found."""
    end = time.monotonic() + seconds
    batches = 0
    for seed in itertools.count(first_seed):
        for what in kinds:
            found = run_batch(what, seed, examples)
            if found:
                print(found)
                print(f"Found by: python scripts/fuzz.py --batch --seed {seed} "
                      f"--examples {examples} {what}")  # fmt: skip
                return False
            batches += 1
        if time.monotonic() >= end:
            break
    print(f"{', '.join(kinds)}: {batches} batches of {examples} programs for each property, "
          f"seeds {first_seed} to {seed}, nothing found")  # fmt: skip
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Looks, and reports."""
    options = parse(arguments)
    kinds = list(options.what or PROPERTIES)
    if options.batch:
        for what in kinds:
            batch(what, options.seed, options.examples)
        return 0
    return 0 if fuzz(kinds, options.seed, options.seconds, options.examples) else 1


if __name__ == "__main__":
    sys.exit(main())
