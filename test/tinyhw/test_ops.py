"""Every op of the table in ops.py, forwards and backwards, on the device under test."""

from __future__ import annotations

import pytest

from test.tinyhw.compare import same
from test.tinyhw.ops import OPS, Op


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_an_op(op: Op) -> None:
    same(op.ours, *op.inputs, theirs=op.theirs, gradient=op.gradient, rtol=op.rtol, atol=op.atol)
