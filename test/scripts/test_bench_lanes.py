"""A block of GPU threads as vectors and loops computes what the threads do."""

from __future__ import annotations

import numpy as np
import pytest

from bench_emulated import chain, elements, input_of, product, stored
from bench_lanes import on_lanes
from compiler.amdgpu import gpu_target
from compiler.compile import linear_kernel
from compiler.ir import Op
from test.compiler.linear_interpreter import run


def chained(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(2 * x + y, 0) / 2 + x


CASES = {
    "elementwise": (chain(1 << 10), ((1 << 10,),) * 2, chained),
    "uneven elementwise": (chain(77), ((77,),) * 2, chained),
    "sum of rows": (input_of(1, 5, 300).reduce(Op.ADD, (1,)), ((5, 300),), lambda x: x.sum(1)),
    "sum of columns": (input_of(1, 100, 33).reduce(Op.ADD, (0,)), ((100, 33),), lambda x: x.sum(0)),
    "product through local memory": (product(64), ((64, 64),) * 2, np.matmul),
}


@pytest.mark.parametrize("bits", [128, 512])
@pytest.mark.parametrize("name", CASES)
def test_threads_on_lanes_agree_with_numpy(name: str, bits: int) -> None:
    value, shapes, truth = CASES[name]
    kernel = linear_kernel(stored(value), gpu_target("gfx1100", compute_units=1))
    lanes = on_lanes(kernel, bits)
    assert lanes.grid == kernel.grid and lanes.block == (1, 1, 1)
    assert any(node.dtype.lanes == bits // 32 for node in lanes.body)
    assert not any(node.op in (Op.THREAD, Op.BARRIER) for node in lanes.body)
    random = np.random.default_rng(0)
    inputs = [random.standard_normal(shape, dtype=np.float32) for shape in shapes]
    out = np.full(elements(value), np.nan, np.float32)
    run(lanes, [out, *(array.ravel().copy() for array in inputs)])
    np.testing.assert_allclose(out, truth(*inputs).ravel(), rtol=1e-4, atol=1e-4)
