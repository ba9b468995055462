"""Every op of the table in ops.py, forwards and backwards, on the device under test.

On an emulated board (`AMD=1 EMULATE=...`) each second variant waits for TINYHW_FULL=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from test.tinyhw.compare import expected_of, same, torch
from test.tinyhw.expected import Expected, Nothing, load, save
from test.tinyhw.ops import OPS, Op

VARIANTS = [op for op in OPS if op.variant]
SOME = "EMULATE" in os.environ and os.environ.get("TINYHW_FULL") != "1"
LATER = set(map(id, VARIANTS[1::2])) if SOME else set()
CASES = [op for op in OPS if id(op) not in LATER]


FILE = os.environ.get("TINYHW_EXPECTED", "")
KNOWN = load(FILE) if FILE and isinstance(torch, Nothing) else {}


@pytest.fixture(scope="session", autouse=True)
def results() -> Iterator[dict[str, Expected]]:
    """What PyTorch gives; kept in a file, if that is asked for and PyTorch is there."""
    keeps = bool(FILE) and not isinstance(torch, Nothing)
    assert not (keeps and "PYTEST_XDIST_WORKER" in os.environ), "one process keeps results"
    yield KNOWN
    if keeps:
        save(FILE, KNOWN)


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.name)
def test_an_op(op: Op, results: dict[str, Expected]) -> None:
    if not isinstance(torch, Nothing):
        results[op.name] = expected_of(op.theirs, op.inputs, op.gradient)
    same(op.ours, *op.inputs, gradient=op.gradient, rtol=op.rtol, atol=op.atol,
         expected=results[op.name])
