"""Small linear kernels written by hand, and a way to run them without any driver."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.build import build
from compiler.code_object import CodeObject
from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.target import Target

Array = npt.NDArray[Any]
VOID = dtypes.void


def param(slot: int, dtype: DType, size: int) -> Node:
    return Node(Op.PARAM, dtype, (), (slot, size))


def const(value: float, dtype: DType = dtypes.index) -> Node:
    return Node.const(value, dtype)


def splat(value: Node, lanes: int) -> Node:
    if lanes == 1:
        return value
    return Node(Op.BROADCAST, value.dtype.vec(lanes), (value,))


def load(pointer: Node, index: Node, lanes: int = 1, gate: Node | None = None) -> Node:
    gates = () if gate is None else (gate,)
    return Node(Op.LOAD, pointer.dtype.vec(lanes), (pointer, index, *gates))


def store(pointer: Node, index: Node, value: Node, gate: Node | None = None) -> Node:
    gates = () if gate is None else (gate,)
    return Node(Op.STORE, VOID, (pointer, index, value, *gates))


def loop(stop: int, step: int = 1, number: int = 0) -> Node:
    return Node(Op.LOOP, dtypes.index, (const(0), const(stop), const(step)), number)


def end(opened: Node) -> Node:
    return Node(Op.END, VOID, (opened,))


def in_order(*statements: Node) -> tuple[Node, ...]:
    """The statements in their order, every value before its first use."""
    body: list[Node] = []

    def add(node: Node) -> None:
        if node in body and node.dtype is not VOID:
            return
        for s in node.src:
            if s.dtype is not VOID and s.op is not Op.LOOP:
                add(s)
        body.append(node)

    for statement in statements:
        add(statement)
    return tuple(body)


def kernel(
    params: Sequence[Node], *statements: Node, written: Sequence[int] = (0,), name: str = "kernel"
) -> LinearKernel:
    return LinearKernel(name, tuple(params), in_order(*statements), written=frozenset(written))


def elementwise(
    size: int,
    lanes: int,
    outputs: Sequence[DType] | DType,
    inputs: Sequence[DType],
    compute: Callable[..., Any],
) -> LinearKernel:
    """`out[i] = compute(in0[i], in1[i], ...)` in steps of `lanes`; `size` is a multiple of it.

    With several outputs `compute` returns as many nodes.
    """
    outs = [outputs] if isinstance(outputs, DType) else list(outputs)
    params = [param(i, dtype, size) for i, dtype in enumerate((*outs, *inputs))]
    i = loop(size, lanes)
    values = compute(*(load(p, i, lanes) for p in params[len(outs) :]))
    values = [values] if isinstance(outputs, DType) else values
    stores = [store(p, i, value) for p, value in zip(params, values, strict=False)]
    return kernel(params, i, *stores, end(i), written=range(len(outs)))


class Program:
    """A CodeObject in executable memory of this process."""

    def __init__(self, code: CodeObject) -> None:
        self.code = code
        self.memory = mmap.mmap(
            -1, len(code.image) + 1, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
        self.memory.write(code.image)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for relocation in code.relocations:
            struct.pack_into("<Q", self.memory, relocation.offset, base + relocation.addend)
        unsigned = ctypes.c_uint32
        signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, unsigned, unsigned, unsigned)
        self.entry = signature(base + code.entry)

    def __call__(self, *arguments: Array | int, grid: tuple[int, int, int] = (1, 1, 1)) -> None:
        """Runs every block of the grid, one after the other."""
        slots = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        kernarg = struct.pack(f"<{len(slots)}q", *slots)
        for z in range(grid[2]):
            for y in range(grid[1]):
                for x in range(grid[0]):
                    self.entry(kernarg, x, y, z)


def run(
    linear: LinearKernel,
    target: Target,
    *arguments: Array | int,
    grid: tuple[int, int, int] = (1, 1, 1),
) -> None:
    """Builds and runs a kernel once."""
    Program(build(linear, target))(*arguments, grid=grid)


AS_BITS = {dtypes.bfloat16: "uint16", **dict.fromkeys(dtypes.fp8s, "uint8")}
NUMPY: dict[DType, Any] = {d: np.dtype(AS_BITS.get(d, d.name)) for d in dtypes.all}
"""NumPy's type of each element type; what it does not have is handled as its bits."""


def bfloat16_to_float(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float_to_bfloat16(values: Array) -> Array:
    """The bits of float values rounded to nearest even."""
    rounded = [dtypes.bfloat16.const(float(v)) for v in values]
    return (
        np.array(rounded, np.float32)
        .view(np.uint32)
        .astype(np.uint64)
        .__rshift__(16)
        .astype(np.uint16)
    )


def _decoded(exponent_bits: int, mantissa_bits: int, infinite: bool) -> Array:
    """What the codes of an 8-bit float stand for (OCP 8-bit floating point, section 5)."""
    code = np.arange(256)
    bias, steps = (1 << (exponent_bits - 1)) - 1, 1 << mantissa_bits
    exponent, mantissa = code >> mantissa_bits & ((1 << exponent_bits) - 1), code % steps
    normal = (1 + mantissa / steps) * 2.0 ** (exponent - bias)
    values = np.where(exponent, normal, mantissa / steps * 2.0 ** (1 - bias))
    top = exponent == (1 << exponent_bits) - 1
    if infinite:
        values[top] = np.where(mantissa[top] == 0, np.inf, np.nan)
    else:
        values[top & (mantissa == steps - 1)] = np.nan
    return np.where(code < 128, values, -values).astype(np.float32)


FLOAT8 = {dtypes.float8_e4m3fn: _decoded(4, 3, False), dtypes.float8_e5m2: _decoded(5, 2, True)}


def float_to_float8(values: Array, dtype: DType) -> Array:
    """The code of the nearest value, the even one of two, after rounding to float32."""
    with np.errstate(over="ignore"):
        exact = np.asarray(values).astype(np.float32).astype(np.float64)
    known = FLOAT8[dtype].astype(np.float64)
    finite = np.flatnonzero(np.isfinite(known[:128]))
    known = known[finite]
    size = np.abs(exact)
    above = np.clip(np.searchsorted(known, size), 1, len(known) - 1)
    below = above - 1
    left, right = size - known[below], known[above] - size
    code = np.where((left < right) | ((left == right) & (below % 2 == 0)), below, above)
    if dtype is dtypes.float8_e5m2:  # half a step beyond the greatest is as near to infinity
        code = np.where(size >= 61440, 0x7C, code)
    code = np.where(np.isnan(exact), 0x7F, code)
    return (code | np.where(np.signbit(exact), 0x80, 0)).astype(np.uint8)


def as_floats(values: Array, dtype: DType) -> Array:
    """Values as NumPy can compute with them."""
    if dtype in FLOAT8:
        return FLOAT8[dtype][values]
    return bfloat16_to_float(values) if dtype is dtypes.bfloat16 else values


def as_stored(values: Array, dtype: DType) -> Array:
    """Float values rounded to a narrow type, as they lie in memory."""
    if dtype in FLOAT8:
        return float_to_float8(values, dtype)
    if dtype is dtypes.bfloat16:
        return float_to_bfloat16(values)
    with np.errstate(over="ignore"):
        return values.astype(NUMPY[dtype])


def random_values(dtype: DType, size: int, seed: int) -> Array:
    """Values with many edges of the type among them, no NaN."""
    rng = np.random.default_rng(seed)
    if dtype is dtypes.bool:
        return rng.integers(0, 2, size).astype(np.bool_)
    if dtype in AS_BITS:
        return as_stored(random_values(dtypes.float32, size, seed), dtype)
    kind = NUMPY[dtype]
    if dtype.kind == "f":
        edges = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 0.5, 3.0, float(np.finfo(kind).tiny)]
        values = rng.normal(0, 3, size).astype(kind)
    else:
        edges = [0, 1, int(dtype.max), int(dtype.min), int(dtype.max) - 1, 7, 2]
        edges += [-1, -7] if dtype.kind == "i" else []
        values = rng.integers(int(dtype.min), int(dtype.max), size, kind, endpoint=True)
    chosen = rng.random(size) < 0.4
    values[chosen] = rng.choice(np.array(edges, kind), size)[chosen]
    return values
