"""Kernels of our own compiler: gfx1100 code on the translator against the processor's code."""

from __future__ import annotations

import ctypes
import functools
import math

import numpy as np
import pytest

from compiler import llvm
from compiler.amdgpu import KernelDescriptor, gpu_target
from compiler.compile import compile_kernel
from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op
from drivers.emulated.simt.dispatch import Dispatch, MemoryRange
from test.compiler import test_amdgpu as sources
from test.compiler.linear_kernels import NUMPY, Program, bfloat16_to_float, random_values
from test.drivers.emulated import gpu

TOO_LARGE = {"large", "large matmul"}


@functools.cache
def gpu_code(value: Node):
    return compile_kernel(value, gpu_target("gfx1100"))


def on_gpu(code, buffers) -> None:
    """Loads and launches a CodeObject as a driver would."""
    room = ctypes.create_string_buffer(len(code.image) + 4096)
    base = (ctypes.addressof(room) + 4095) & ~4095
    ctypes.memmove(base, code.image, len(code.image))
    descriptor = KernelDescriptor.decode(code.image, code.entry)
    kernarg = (ctypes.c_uint64 * len(buffers))(*(b.ctypes.data for b in buffers))
    at = ctypes.addressof(kernarg)
    rsrc2 = descriptor.compute_pgm_rsrc2
    following = iter(range(rsrc2 >> 1 & 31, 128))
    ids = tuple(next(following) if rsrc2 >> bit & 1 else -1 for bit in (7, 8, 9))
    memory = [MemoryRange(b.ctypes.data, b.ctypes.data + b.nbytes) for b in buffers]
    memory += [MemoryRange(base, base + len(code.image)), MemoryRange(at, at + len(kernarg) * 8)]
    fault = gpu.engine().run(Dispatch(
        base + code.entry + descriptor.kernel_code_entry_byte_offset, (at & 0xFFFFFFFF, at >> 32),
        ids, code.block, code.grid, tuple(memory), lds_bytes=code.local_bytes,
        scratch_bytes=code.private_bytes, float_mode=descriptor.compute_pgm_rsrc1 >> 12 & 0xFF,
    ))
    assert fault is None


def extents(value: Node) -> dict[int, int]:
    """Elements of every parameter of an expression, by its position."""
    found: dict[int, int] = {}
    todo, seen = [value], set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(node.src)
            if node.op is Op.PARAM:
                position = node.arg[0] if isinstance(node.arg, tuple) else node.arg
                found[position] = math.prod(map(int, node.shape))
    return found


def one_nan(codes: np.ndarray, dtype: DType) -> np.ndarray:
    """8-bit floats by their codes, with one for all that are no numbers."""
    largest = 0x7E if dtype is dtypes.float8_e4m3fn else 0x7C
    return np.where((codes & 0x7F) > largest, 0x7F, codes)


def agree(value: Node, tolerance: float, shifts: bool = False) -> None:
    """Both codes over the same buffers give the same results."""
    elements = extents(value)
    code = gpu_code(value)
    host = compile_kernel(value, llvm.host_target())
    given = [random_values(p.dtype, elements[j], 7 + j) for j, p in enumerate(code.params)]
    for j, param in enumerate(code.params):
        if not param.written and param.dtype.kind == "f" and param.dtype.name != "bfloat16":
            given[j] = np.where(np.isfinite(given[j]), given[j], NUMPY[param.dtype].type(2))
    if shifts:  # further than the width is not defined
        given[2] = (given[2] & (8 * given[2].itemsize - 1)).astype(given[2].dtype)
    ours, theirs = [g.copy() for g in given], [g.copy() for g in given]
    on_gpu(code, ours)
    Program(host)(*theirs, grid=host.grid)
    for param, got, want in zip(code.params, ours, theirs, strict=True):
        if param.dtype is dtypes.bfloat16:
            got, want = bfloat16_to_float(got), bfloat16_to_float(want)
        if param.dtype.kind == "f" and param.dtype.itemsize == 1:
            got, want = one_nan(got, param.dtype), one_nan(want, param.dtype)
        if param.dtype.kind == "f":
            np.testing.assert_allclose(
                got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance
            )
        else:
            assert np.array_equal(got, want)


@pytest.mark.parametrize("name", [n for n in sources.REAL if n not in TOO_LARGE])
def test_a_real_kernel_computes_what_the_processor_computes(name):
    value = sources.assign(sources.REAL[name]())
    loose = 2e-2 if "16" in name else 1e-3
    agree(value, loose)


@pytest.mark.parametrize("op", sources.TAKES, ids=lambda op: op.name)
def test_an_op_computes_what_the_processor_computes_for_every_dtype(op):
    for dtype in sources.TAKES[op]:
        value = sources.assign(sources.one_op(op, dtype))
        tolerance = {2: 1e-2, 4: 2e-6, 8: 1e-12}.get(dtype.itemsize, 0)
        agree(value, tolerance, op in (Op.SHL, Op.SHR))
