"""An independent reading of docs/ir.md: evaluates tensor-level graphs with NumPy.

The oracle for the tensor library's tests. It knows nothing of kernels, and shares no code with
lowering: movement ops are NumPy's, a write is a copy with some elements replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from compiler.dtype import DType, dtypes
from compiler.ir import ALU, Extent, Node, Op, toposort
from compiler.symbolic import evaluate as evaluate_index

Array = np.ndarray[Any, Any]
Buffers = Callable[[Node], Array]


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """How the interpreter holds a type: bfloat16 as float32 whose low bits are zero."""
    if dtype in dtypes.fp8s:
        raise NotImplementedError(f"{dtype} is compared with PyTorch, not here")
    names = {dtypes.bfloat16: "float32", dtypes.index: "int64"}
    return np.dtype(names.get(dtype, dtype.name))


def rounded(array: Any, dtype: DType) -> Array:
    """`array` as values of `dtype`, rounded to nearest even."""
    if dtype is dtypes.bool:
        return np.asarray(array) != 0
    held = np.asarray(array).astype(numpy_dtype(dtype))
    if dtype is not dtypes.bfloat16:
        return held
    bits = np.atleast_1d(held).view(np.uint32)
    up = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    kept = np.where(np.isnan(np.atleast_1d(held)), bits, up).astype(np.uint32)
    return kept.view(np.float32).reshape(held.shape)


def interpret(root: Node, buffers: Buffers | Mapping[Node, Array]) -> Array:
    """The values of `root`; `buffers` gives those of a BUFFER, flat."""
    read = buffers if callable(buffers) else buffers.__getitem__
    done: dict[Node, Array] = {}
    with np.errstate(all="ignore"):
        for node in toposort(root):
            done[node] = _value(node, [done[s] for s in node.src], read, done)
    return np.broadcast_to(done[root], extents(root.shape))


def extents(shape: tuple[Extent, ...]) -> tuple[int, ...]:
    """A shape with bound Variables as their values."""
    return tuple(_int(extent) for extent in shape)


def _int(extent: Extent) -> int:
    return extent if isinstance(extent, int) else evaluate_index(extent, {})


def _value(node: Node, src: list[Array], read: Buffers, done: Mapping[Node, Array]) -> Array:
    if node.op in ALU:
        return rounded(_alu(node, src), node.dtype)
    match node.op:
        case Op.BUFFER:
            return read(node)
        case Op.CONST:
            return rounded(np.array(node.arg, dtype=_const_dtype(node)), node.dtype)
        case Op.IOTA:
            return np.arange(_int(node.arg), dtype=np.int64)
        case Op.BIND:
            return src[1]
        case Op.VARIABLE:
            return np.array(0)  # only its BIND has a value
        case Op.GATHER:
            return _gather(*src)
        case Op.REDUCE:
            return _reduce(node, src[0])
        case Op.CONTIGUOUS | Op.COPY | Op.DETACH:
            return src[0]
        case Op.ASSIGN:
            return np.broadcast_to(src[1], extents(node.shape))
        case Op.AFTER:
            return _after(node, src)
        case _:
            return _move(node, src[0])


def _const_dtype(node: Node) -> str:
    if node.dtype is dtypes.uint64:
        return "uint64"
    return "float64" if node.dtype.kind == "f" else "int64"


def _move(node: Node, x: Array) -> Array:
    x = np.broadcast_to(x, extents(node.src[0].shape))
    match node.op:
        case Op.RESHAPE:
            return x.reshape(extents(node.arg))
        case Op.PERMUTE:
            return x.transpose(node.arg)
        case Op.EXPAND:
            return np.broadcast_to(x, extents(node.arg))
        case Op.PAD:
            return np.pad(x, [extents(pair) for pair in node.arg])
        case Op.SHRINK:
            limits = [extents(pair) for pair in node.arg]
            for (start, stop), n in zip(limits, x.shape, strict=True):
                assert 0 <= start <= stop <= n, f"SHRINK {limits} of {x.shape}"
            return x[tuple(slice(start, stop) for start, stop in limits)]
        case Op.FLIP:
            return np.flip(x, node.arg)
        case Op.SKEW:
            axis, by, step, offset, extent = node.arg
            front = np.moveaxis(x, (axis, by), (0, 1))
            k = np.arange(front.shape[1])
            position = np.arange(_int(extent))[:, None] + step * k + offset
            if position.size:
                assert position.min() >= 0 and position.max() < front.shape[0], f"SKEW {node.arg}"
            return np.moveaxis(front[position, k], (0, 1), (axis, by))
        case _:
            raise NotImplementedError(f"{node.op.name} is no op of a tensor graph")


def _gather(x: Array, positions: Array) -> Array:
    inside = (positions >= 0) & (positions < len(x))
    if not len(x):
        return np.zeros((*positions.shape, *x.shape[1:]), x.dtype)
    found = x[np.where(inside, positions, 0)]
    return np.where(inside.reshape(inside.shape + (1,) * (x.ndim - 1)), found, x.dtype.type(0))


def _reduce(node: Node, x: Array) -> Array:
    op, axes = node.arg
    x = np.broadcast_to(x, extents(node.src[0].shape))
    wide = np.dtype("float32") if node.dtype.name == "float16" else x.dtype
    if op is Op.ADD:
        return rounded(x.sum(axes, dtype=wide, keepdims=True), node.dtype)
    if op is Op.MUL:
        return rounded(x.prod(axes, dtype=wide, keepdims=True), node.dtype)
    least = node.dtype.min
    return rounded(x.max(axes, keepdims=True, initial=least), node.dtype)


def _after(node: Node, src: list[Array]) -> Array:
    """The base with what each ASSIGN writes through its view."""
    base = node.src[0]
    result = np.broadcast_to(src[0], extents(base.shape)).copy()
    places = np.arange(result.size).reshape(result.shape)
    for assign, value in zip(node.src[1:], src[1:], strict=True):
        chain = []
        target = assign.src[0]
        while target is not base:
            chain.append(target)
            target = target.src[0]
        written = places
        for move in reversed(chain):
            written = written if move.op is Op.DETACH else _move(move, written)
        result.reshape(-1)[written.reshape(-1)] = value.reshape(-1)
    return result


def _alu(node: Node, src: list[Array]) -> Array:
    a = src[0]
    b = src[1] if len(src) > 1 else a
    match node.op:
        case Op.ADD:
            return a + b
        case Op.MUL:
            return a * b
        case Op.DIV:
            return a / b
        case Op.IDIV:
            return _divide(node, a, b)[0]
        case Op.MOD:
            return _divide(node, a, b)[1]
        case Op.MAX:
            return np.maximum(a, b)
        case Op.CMPLT:
            return a < b
        case Op.CMPNE:
            return a != b
        case Op.CMPEQ:
            return a == b
        case Op.AND:
            return a & b
        case Op.OR:
            return a | b
        case Op.XOR:
            return a ^ b
        case Op.SHL:
            return np.left_shift(a, b)
        case Op.SHR:
            return np.right_shift(a, b)
        case Op.WHERE:
            return np.where(a, b, src[2])
        case Op.SQRT:
            return np.sqrt(a)
        case Op.EXP2:
            return np.exp2(a)
        case Op.LOG2:
            return np.log2(a)
        case Op.SIN:
            return np.sin(a)
        case Op.TRUNC:
            return np.trunc(a)
        case Op.CAST:
            return _cast(a, node.src[0].dtype, node.dtype)
        case Op.BITCAST:
            return _bitcast(a, node.src[0].dtype, node.dtype)
        case _:
            raise NotImplementedError(f"{node.op.name} is no elementwise op")


def _divide(node: Node, a: Array, b: Array) -> tuple[Array, Array]:
    """Quotient and remainder like C's; an index's quotient goes towards minus infinity."""
    assert np.all(b != 0), "a division by zero would trap"
    if node.dtype is dtypes.index:
        return np.floor_divide(a, b), np.mod(a, b)
    remainder = np.fmod(a, b)
    return np.floor_divide(a - remainder, b), remainder


def _cast(a: Array, source: DType, target: DType) -> Array:
    if source.kind == "f" and target.kind in "iu":
        whole = np.trunc(np.nan_to_num(a.astype(np.float64), posinf=0, neginf=0))
        return whole.astype(np.int64 if target is not dtypes.uint64 else np.uint64)
    return a


def _bitcast(a: Array, source: DType, target: DType) -> Array:
    flat = np.ascontiguousarray(np.atleast_1d(a))
    raw = (flat.view(np.uint32) >> 16).astype(np.uint16) if source is dtypes.bfloat16 else flat
    if target is not dtypes.bfloat16:
        return raw.view(numpy_dtype(target)).reshape(a.shape)
    wide = raw.view(np.uint16).astype(np.uint32) << 16
    return wide.view(np.float32).reshape(a.shape)
