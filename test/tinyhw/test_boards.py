"""Every op of the table in ops.py once on each emulated board: one machine has them all.

On another machine, `AMD=1 EMULATE=gfx1201` runs all tests of this folder but these.
"""

from __future__ import annotations

import os

import pytest

from test.tinyhw.compare import same
from test.tinyhw.ops import OPS, Op

# Variants where there is time: they take other ways through tensor methods, seldom other kernels.
CASES = [op for op in OPS if not op.variant or os.environ.get("TINYHW_FULL") == "1"]
BOARDS = ("gfx1100", "gfx1030", "gfx1201")


@pytest.fixture(params=range(len(BOARDS)), ids=BOARDS)
def board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device's name. Devices stay open, so that all tests of a process share the machine."""
    monkeypatch.setenv("EMULATE", ",".join(BOARDS))
    return f"AMD:{request.param}"


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.name)
def test_an_op_on_a_board(op: Op, board: str) -> None:
    same(op.ours, *op.inputs, theirs=op.theirs, gradient=op.gradient, rtol=op.rtol, atol=op.atol,
         device=board)
