"""Every op of the table in ops.py on emulated boards: one machine has all of a vendor's.

Each once on each of AMD's boards and, as NVRTC takes its time, some on NVIDIA's; with
TINYHW_FULL=1 variants too. On another machine, `AMD=1 EMULATE=gfx1201` or `NV=1 EMULATE=sm_90`
runs all tests of this folder but these.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest

from compiler import nvrtc
from test.tinyhw.boards import AMD, NVIDIA
from test.tinyhw.compare import expected_of, same
from test.tinyhw.expected import Expected
from test.tinyhw.ops import OPS, Op
from tinyhw import Tensor, TinyJit
from tinyhw.device import Device

FULL = os.environ.get("TINYHW_FULL") == "1"
# Variants where there is time: they take other ways through tensor methods, seldom other kernels.
ONCE = [op for op in OPS if not op.variant]


@pytest.fixture(params=range(len(AMD)), ids=AMD)
def board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device's name. Devices stay open, so that all tests of a process share the machine."""
    monkeypatch.setenv("EMULATE", ",".join(AMD))
    return f"AMD:{request.param}"


@functools.lru_cache(maxsize=16)
def known(name: str) -> Expected:
    """What PyTorch gives, for all boards."""
    op = next(op for op in OPS if op.name == name)
    return expected_of(op.theirs, op.inputs, op.gradient)


@pytest.mark.parametrize("op", OPS if FULL else ONCE, ids=lambda op: op.name)
def test_an_op_on_a_board(op: Op, board: str) -> None:
    same(op.ours, *op.inputs, gradient=op.gradient, rtol=op.rtol, atol=op.atol, device=board,
         expected=known(op.name))


@pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
@pytest.mark.parametrize("number", range(len(NVIDIA)), ids=NVIDIA)
@pytest.mark.parametrize("op", ONCE[::16], ids=lambda op: op.name)
def test_an_op_on_an_nvidia_board(
    op: Op, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMULATE", ",".join(NVIDIA))
    same(op.ours, *op.inputs, gradient=op.gradient, rtol=op.rtol, atol=op.atol,
         device=f"NV:{number}", expected=known(op.name))


def test_tensors_go_from_gpu_to_gpu_by_the_copy_engine(board: str) -> None:
    other = "AMD:1" if board != "AMD:1" else "AMD:2"
    data = np.arange(30_000, dtype=np.float32)
    x = Tensor(data, device=board)
    for _ in range(10):  # nothing waits for the host; each hop overwrites the temporary of another
        x = ((x + 1).to(other) * 2).to(board) / 2
    queues = [Device.runtime(Device.canonicalize(name)).copy_queue for name in (board, other)]
    before = [queue.last_point.value for queue in queues]
    np.testing.assert_array_equal(x.numpy(), data + 10)
    assert [queue.last_point.value for queue in queues] == [value + 10 for value in before]


def test_a_replay_copies_from_gpu_to_gpu(board: str) -> None:
    other = "AMD:1" if board != "AMD:1" else "AMD:2"
    jit = TinyJit(lambda x: ((x * 2).to(other) + 1).to(board) * 3)
    kept = [jit(Tensor(np.full(5000, i, np.float32), device=board)) + 0 for i in range(8)]
    Tensor.realize(*kept)
    for i, tensor in enumerate(kept):
        np.testing.assert_array_equal(tensor.numpy(), (2 * i + 1) * 3)
