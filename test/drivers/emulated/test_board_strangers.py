"""AMD's own libraries judge the emulated board: unmodified, from Debian, each in a process."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
THUNK = next(iter(glob.glob("/usr/lib/*/libhsakmt.so.1")), "")
RUNTIME = next(iter(glob.glob("/usr/lib/*/libhsa-runtime64.so.1")), "")

# Python has a package `test` of its own, which this one must precede.
START = """
import runpy, sys, types
package = sys.modules["test"] = types.ModuleType("test")
package.__path__ = ["test"]
runpy.run_module(sys.argv[1], run_name="__main__")
"""

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the library is led on x86-64 only"),
    pytest.mark.skipif(not THUNK, reason="libhsakmt1 is not installed"),
]
LINKER = shutil.which("ld.lld-19") or ""
needs_linker = pytest.mark.skipif(not LINKER, reason="lld-19 is not installed")
needs_runtime = pytest.mark.skipif(not RUNTIME, reason="libhsa-runtime64-1 is not installed")


def run(program: str, board: str, mistake: str = "", linker: str = "") -> tuple[int, str]:
    """Exit status and what it wrote of a program of this folder, which gets those arguments."""
    result = subprocess.run(
        [sys.executable, "-c", START, f"test.drivers.emulated.{program}", board, mistake, THUNK,
         RUNTIME, linker],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=60, check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("board", ["gfx90a", "gfx1030"])
def test_the_thunk_goes_from_open_to_close(board: str) -> None:
    assert run("thunk", board) == (0, "done\n")


@pytest.mark.parametrize(
    "mistake", ["version", "doorbell", "unmapped", "slot", "timeout", "elsewhere", "handle"]
)
def test_a_wrong_board_does_not_get_past_the_thunk(mistake: str) -> None:
    status, written = run("thunk", "gfx1030", mistake)
    assert status == 1 and "in task" in written, written


@needs_runtime
@pytest.mark.parametrize("board", ["gfx90a", "gfx1030"])
def test_the_runtime_goes_from_agents_over_barriers_and_copies_to_shut_down(board: str) -> None:
    assert run("runtime", board) == (0, "done\n")


@needs_runtime
@pytest.mark.parametrize(
    ("mistake", "noticed"),
    [
        ("version", "hsa_init returned"),
        ("doorbell", "completion signal"),
        ("elsewhere", "the copy, seen by the processor"),
        ("clock", "times"),
        ("completion", "completion signal"),
        ("dependency", "a barrier that waits"),
        ("read-index", "read index"),
        ("short-copy", "the copy:"),
        ("no-atomic", "copies"),
    ],
)
def test_a_wrong_board_does_not_get_past_the_runtime(mistake: str, noticed: str) -> None:
    status, written = run("runtime", "gfx1030", mistake)
    assert status == 1 and f"RuntimeError: {noticed}" in written, written


@needs_runtime
@needs_linker
def test_the_runtime_loads_code_and_its_kernels_and_ours_run() -> None:
    assert run("runtime", "gfx1030", linker=LINKER) == (0, "done\n")


@needs_runtime
@needs_linker
@pytest.mark.parametrize(
    ("mistake", "noticed"),
    [
        ("user-sgprs", "Memory access fault by GPU"),  # what the runtime says itself
        ("group-ids", "RuntimeError: the copy"),
        ("no-lds", "RuntimeError: sums"),
        ("fault-address", "RuntimeError: fault"),
    ],
)
def test_a_board_that_runs_kernels_wrong_does_not_get_past_the_runtime(
    mistake: str, noticed: str
) -> None:
    status, written = run("runtime", "gfx1030", mistake, LINKER)
    assert status != 0 and noticed in written, written
