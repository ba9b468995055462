"""Every op of the table in ops.py, forwards and backwards, on the device under test.

On an emulated board (`AMD=1 EMULATE=...`) each second variant waits for TINYHW_FULL=1.
"""

from __future__ import annotations

import os

import pytest

from test.tinyhw.compare import same
from test.tinyhw.ops import OPS, Op

VARIANTS = [op for op in OPS if op.variant]
SOME = "EMULATE" in os.environ and os.environ.get("TINYHW_FULL") != "1"
LATER = set(map(id, VARIANTS[1::2])) if SOME else set()
CASES = [op for op in OPS if id(op) not in LATER]


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.name)
def test_an_op(op: Op) -> None:
    same(op.ours, *op.inputs, theirs=op.theirs, gradient=op.gradient, rtol=op.rtol, atol=op.atol)
