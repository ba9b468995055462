"""Bringing up an NVIDIA GPU: steps pass on an emulated board, a broken one fails in its step."""

from __future__ import annotations

import errno
import json

import pytest

import bringup_nv
from bringup_nv_low import Bench
from bringup_steps import run_steps
from compiler import nvrtc
from drivers.emulated.system import EmulatedSystem
from drivers.system import StackedSystem, System

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")


@pytest.mark.parametrize("board", ["sm_89", "sm_90"])
def test_an_emulated_board_passes_every_step(board, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EMULATE", board)
    data = tmp_path / "report.json"
    status = bringup_nv.main(["--largest", "64K", "--json", str(data)])
    printed = capsys.readouterr().out
    assert printed.startswith(f"bring-up of NV:0, emulated ({board})\npass    node permissions")
    steps = {step["name"]: step["status"] for step in json.loads(data.read_text())["steps"]}
    assert [step.name for step in bringup_nv.STEPS] == list(steps)
    assert status == 0 and set(steps.values()) == {"pass"}, printed


class Broken(StackedSystem):
    """A kernel driver with one thing wrong: a node, or a call of unified memory by its number."""

    def __init__(self, below: System, node: str = "", number: int = -1) -> None:
        super().__init__(below)
        self.node, self.number = node, number

    def open(self, path: str, flags: int) -> int:
        if path == self.node:
            raise OSError(errno.EACCES, path)
        return super().open(path, flags)

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        if request == self.number:
            raise OSError(errno.EIO, "ioctl")
        return super().ioctl(descriptor, request, argument)


@pytest.mark.parametrize(
    ("node", "number", "step"),
    [
        ("/dev/nvidia-uvm", -1, "node permissions"),
        ("/dev/nvidia0", -1, "board"),
        ("", 37, "board"),  # UVM_REGISTER_GPU
        ("", 33, "allocate"),  # UVM_MAP_EXTERNAL_ALLOCATION
        ("", 27, "channel"),  # UVM_REGISTER_CHANNEL
    ],
)
def test_what_is_broken_fails_in_its_own_step(node, number, step):
    bench = Bench("NV:0", Broken(EmulatedSystem("sm_90"), node, number), 4096)
    outcomes = run_steps(bringup_nv.STEPS, bench, lambda outcome: None, bench.board_says)
    bench.close()
    failed = [outcome.name for outcome in outcomes if outcome.status == "fail"]
    assert failed[0] == step
    assert {outcome.status for outcome in outcomes} <= {"pass", "fail", "skipped"}
    assert all(outcome.seen for outcome in outcomes)
