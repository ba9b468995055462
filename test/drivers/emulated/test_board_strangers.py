"""AMD's own libraries judge the emulated board: unmodified, from Debian, each in a process."""

from __future__ import annotations

import glob
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from test.drivers.emulated.thunk import WRONG

ROOT = Path(__file__).resolve().parents[3]
THUNK = next(iter(glob.glob("/usr/lib/*/libhsakmt.so.1")), "")

# Python has a package `test` of its own, which this one must precede.
START = """
import runpy, sys, types
package = sys.modules["test"] = types.ModuleType("test")
package.__path__ = ["test"]
runpy.run_module("test.drivers.emulated.thunk", run_name="__main__")
"""

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the library is led on x86-64 only"),
    pytest.mark.skipif(not THUNK, reason="libhsakmt1 is not installed"),
]


def run_thunk(board: str, mistake: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START, board, THUNK, mistake],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=60, check=False,
    )


@pytest.mark.parametrize("board", ["gfx90a", "gfx1030"])
def test_the_thunk_goes_from_open_to_close(board: str) -> None:
    result = run_thunk(board)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "done\n"


@pytest.mark.parametrize("mistake", sorted(WRONG))
def test_a_wrong_board_does_not_get_past_the_thunk(mistake: str) -> None:
    result = run_thunk("gfx1030", mistake)
    assert result.returncode == 1 and "in task" in result.stderr, result.stderr
