"""Products by matrix instructions, from our compiler through the driver to the emulated board.

Compiler and board each have their own reading of which lane holds what; here they must agree.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from compiler import amdgpu_matrix, nvidia_matrix, nvrtc
from compiler.compile import compile_kernel
from compiler.dtype import dtypes, float_bits
from compiler.ir import Node, Op
from compiler.target import Target
from drivers import Device, open_device
from test.compiler.linear_interpreter import to_bfloat16
from test.compiler.test_amdgpu import assign, typed
from test.compiler.test_matrix import convolution, plan_of, product, random, wide

BOARDS = {
    "AMD": ("gfx1100", "gfx1201", "gfx90a", "gfx942"), "NV": ("sm_75", "sm_89", "sm_90"),
}
KNOWN = amdgpu_matrix.MATRIX_UNITS | nvidia_matrix.MATRIX_UNITS
UNITS = [
    (arch, unit) for name, boards in BOARDS.items() for arch in boards for unit in KNOWN[arch]
    if name == "AMD" or unit.inputs in dtypes.fp8s or os.environ.get("TINYHW_FULL") == "1"
]


@pytest.fixture
def board(request, monkeypatch):
    name = next(name for name, boards in BOARDS.items() if request.param in boards)
    if name == "NV" and nvrtc.missing():
        pytest.skip(nvrtc.missing())
    monkeypatch.setenv("EMULATE", request.param)
    with open_device(name) as device:
        assert device.target.arch == request.param
        yield device


def launched(device: Device, value: Node, arrays: list[np.ndarray], target: Target) -> np.ndarray:
    assert plan_of(value, target).product is not None
    code = compile_kernel(assign(value), target)
    shape = tuple(map(int, value.shape))
    kind = np.dtype("uint16" if value.dtype is dtypes.bfloat16 else value.dtype.name)
    out = device.alloc(kind.itemsize * int(np.prod(shape)))
    given = [device.alloc(a.nbytes) for a in arrays]
    for buffer, array in zip(given, arrays, strict=True):
        buffer.cpu_view().cast("B")[: array.nbytes] = array.tobytes()
    out.cpu_view().cast("B")[:] = b"\xff" * out.size_bytes
    program = device.load(code)
    queue = device.compute_queue()
    queue.commands().exec(program, (out, *given), grid=code.grid).submit().wait(timeout_ms=60_000)
    return np.frombuffer(bytes(out.cpu_view()), kind).reshape(shape)


def stored(array: np.ndarray, unit) -> np.ndarray:
    """As memory holds it; what NumPy has no type for as bits."""
    if unit.inputs is dtypes.bfloat16:
        return (array.view(np.uint32) >> 16).astype(np.uint16)
    if unit.inputs in dtypes.fp8s:
        codes = [float_bits(float(value), unit.inputs) for value in array.flat]
        return np.array(codes, np.uint8).reshape(array.shape)
    return array


@pytest.mark.parametrize(
    "board, unit", UNITS, ids=[f"{a}-{u.inputs.name}" for a, u in UNITS], indirect=["board"]
)
@pytest.mark.parametrize("units", [1, 100], ids=["through local memory", "a wave alone"])
def test_every_unit_multiplies_as_numpy_does(board, unit, units):
    target = replace(board.target, threads=units)
    for m, k, n, transposed in ((64, 64, 64, ""), (45, 70, 33, "ab")):
        a, b = random(unit.inputs, m, k), random(unit.inputs, k, n)
        value = product(m, k, n, unit.inputs, unit.sums, transposed)
        given = [a.T.copy() if "a" in transposed else a, b.T.copy() if "b" in transposed else b]
        found = launched(board, value, [stored(x, unit) for x in given], target)
        np.testing.assert_allclose(found, wide(a) @ wide(b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("board", ["gfx1100"], indirect=True)
def test_a_convolution_with_bias_and_relu(board):
    value, x, w = convolution(2, 16, 32, 12, 3)
    bias = random(dtypes.float16, 32)
    shape = value.shape
    added = typed(3, (32,), dtypes.float16).reshape((1, 32, 1, 1)).expand(shape)
    value = value.alu(Op.ADD, added.cast(dtypes.float32)).alu(Op.MAX, Node.const(0, value.dtype))
    found = launched(board, value.cast(dtypes.bfloat16), [x, w, bias], board.target)
    view = np.lib.stride_tricks.sliding_window_view(wide(x), (3, 3), (2, 3))
    expected = np.einsum("bcyxij,fcij->bfyx", view, wide(w)) + wide(bias)[:, None, None]
    expected = to_bfloat16(np.maximum(expected, 0))
    got = (found.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-2)
