"""Sums, extremes, norms, positions of extremes, and running ones."""

from __future__ import annotations

from compiler.dtype import dtypes
from tinyhw.errors import ShapeError
from tinyhw.formats.onnx.registry import Call, int_list, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor

_REDUCTIONS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
)


@operator(*_REDUCTIONS, host=(1,))
def reduce(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
    """All elements along some axes as one; the axes are an input in newer versions."""
    over = call.ints("axes", ()) if axes is None else int_list(axes)
    name = call.node.op_type.removeprefix("Reduce")
    if not over:
        if call.int("noop_with_empty_axes", 0):
            return _reduced(name, x, ()) if name != "Mean" else x
        over = list(range(x.ndim))
    given = tuple(axis % max(x.ndim, 1) for axis in over)
    found = _reduced(name, x, given)
    if call.int("keepdims", 1):
        return found.reshape([1 if i in given else n for i, n in enumerate(x.shape)])
    return found


def _reduced(name: str, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """One of the reductions, without the axes, in the type of x."""
    dtype = x.dtype
    if name in ("Sum", "Prod", "Mean", "Max", "Min"):
        if not axes:
            return x
        if name == "Sum":
            return x.sum(axes, dtype=dtype)
        if name == "Prod":
            return x.prod(axes, dtype=dtype)
        if name == "Mean":
            count = 1
            for axis in axes:
                count *= x._fixed(axis)
            if dtypes.is_float(dtype):
                return x.mean(axes)
            return x.sum(axes, dtype=dtype).div(count, rounding_mode="trunc").cast(dtype)
        if 0 in x.shape:  # the extreme of no elements is what any element replaces
            rest = tuple(n for i, n in enumerate(x.shape) if i not in axes)
            nothing = dtype.min if name == "Max" else dtype.max
            return Tensor.full(rest, nothing, dtype=dtype, device=x.device)
        return x.max(axes) if name == "Max" else x.min(axes)
    if name == "L1":
        return _reduced("Sum", x.abs(), axes)
    if name == "SumSquare":
        return _reduced("Sum", x * x, axes)
    y = x if dtypes.is_float(dtype) else x.cast(dtypes.float32)
    if name == "L2":
        return _reduced("Sum", y * y, axes).sqrt().cast(dtype)
    if name == "LogSum":
        return _reduced("Sum", y, axes).log().cast(dtype)
    if not axes:
        return x
    if 0 in x.shape:
        return _reduced("Sum", y, axes).log().cast(dtype)
    return y.logsumexp(axes).cast(dtype)


@operator("ArgMax", "ArgMin")
def arg_extreme(call: Call, x: Tensor) -> Tensor:
    """Where along an axis the greatest (least) element stands, the first or the last such."""
    axis, keep = call.int("axis", 0), bool(call.int("keepdims", 1))
    last = bool(call.int("select_last_index", 0))
    y = x.flip(axis) if last else x
    greatest = call.node.op_type == "ArgMax"
    found = y.argmax(axis, keepdim=keep) if greatest else y.argmin(axis, keepdim=keep)
    found = found.cast(dtypes.int64)
    return x._fixed(axis) - 1 - found if last else found


@operator("CumSum", "CumProd", host=(1,))
def running(call: Call, x: Tensor, axis: Array) -> Tensor:
    """Sums (products) of all elements so far along an axis."""
    along = int_list(axis)[0]
    if not -x.ndim <= along < x.ndim:
        raise ShapeError(f"Axis {along} is not there in {x.shape}.")
    backwards = bool(call.int("reverse", 0))
    y = x.flip(along) if backwards else x
    adds = call.node.op_type == "CumSum"
    y = y.cumsum(along, dtype=x.dtype) if adds else y.cumprod(along, dtype=x.dtype)
    if call.int("exclusive", 0) and y.shape[along]:
        pads: list[tuple[int, int] | None] = [None] * x.ndim
        pads[along] = (1, -1)
        y = y.pad(pads, value=0 if adds else 1)
    return y.flip(along) if backwards else y
