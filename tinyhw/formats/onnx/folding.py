"""Operators on the host, for what is known before anything runs: shapes and what they come from.

A shape that a model computes (Shape, Gather, Concat ...) stays a number that way, so that
everything else has a fixed shape. Only small values are kept on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np

from compiler.dtype import dtypes
from tinyhw.errors import IndexOutOfRange, ShapeError
from tinyhw.formats.onnx.registry import Call, Value, int_list
from tinyhw.formats.onnx.tensors import DTYPES, MAX_HOST_ELEMENTS, Array

Rule: TypeAlias = Callable[..., Any]

HOST_DTYPES: Final = frozenset({
    dtypes.bool, *dtypes.ints, dtypes.float16, dtypes.float32, dtypes.float64
})
FOLDS: Final[dict[str, Rule]] = {}


def fold(call: Call, inputs: list[Value]) -> Any:
    """The outputs of a node whose inputs are arrays; NotImplemented if it is not for the host."""
    rule = FOLDS.get(call.node.op_type) if not call.node.domain else None
    if rule is None or not inputs:
        return NotImplemented
    if not all(x is None or isinstance(x, np.ndarray) for x in inputs):
        return NotImplemented
    with np.errstate(all="ignore"):
        found = rule(call, *inputs)
    if found is NotImplemented:
        return found
    outputs = [np.asarray(x) for x in (found if isinstance(found, tuple) else (found,))]
    if any(x.size > MAX_HOST_ELEMENTS for x in outputs):
        return NotImplemented
    return tuple(outputs)


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def declare(function: Rule) -> Rule:
        for name in names:
            FOLDS[name] = function
        return function

    return declare


def _elementwise(name: str, function: Callable[..., Any]) -> None:
    def rule(call: Call, *inputs: Array) -> Any:
        if "axis" in call.attributes or "broadcast" in call.attributes:  # before version 7
            return NotImplemented
        if math.prod(np.broadcast_shapes(*(x.shape for x in inputs))) > MAX_HOST_ELEMENTS:
            return NotImplemented
        return function(*inputs)

    FOLDS[name] = rule


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    quotient = a // b
    return np.asarray(quotient + ((a % b != 0) & ((a < 0) != (b < 0))).astype(a.dtype))


_ELEMENTWISE: Final[dict[str, Callable[..., Any]]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide,
    "Equal": np.equal, "Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal, "And": np.logical_and, "Or": np.logical_or,
    "Xor": np.logical_xor, "Not": np.logical_not, "Neg": np.negative, "Abs": np.abs,
    "Floor": np.floor, "Ceil": np.ceil, "Sign": np.sign, "Where": np.where,
    "Identity": lambda x: x,
}
for _name, _function in _ELEMENTWISE.items():
    _elementwise(_name, _function)


@_rule("Max", "Min")
def _extreme(call: Call, *inputs: Array) -> Any:
    if math.prod(np.broadcast_shapes(*(x.shape for x in inputs))) > MAX_HOST_ELEMENTS:
        return NotImplemented
    combine = np.maximum if call.node.op_type == "Max" else np.minimum
    found = inputs[0]
    for x in inputs[1:]:
        found = combine(found, x)
    return found


@_rule("Mod")
def _mod(call: Call, a: Array, b: Array) -> Any:
    if math.prod(np.broadcast_shapes(a.shape, b.shape)) > MAX_HOST_ELEMENTS:
        return NotImplemented
    return np.fmod(a, b) if call.int("fmod", 0) else np.mod(a, b)


@_rule("Cast")
def _cast(call: Call, x: Array) -> Any:
    wanted = DTYPES.get(call.int("to"))
    if wanted is None or wanted not in HOST_DTYPES or (
        x.dtype.kind == "f" and wanted.kind in "iu" and not np.isfinite(x).all()
    ):
        return NotImplemented
    return x.astype(wanted.name)


@_rule("Concat")
def _concat(call: Call, *parts: Array) -> Any:
    return np.concatenate(parts, call.int("axis", 1))


@_rule("Gather")
def _gather(call: Call, x: Array, indices: Array) -> Any:
    axis = call.int("axis", 0)
    if x.size // max(x.shape[axis], 1) * indices.size > MAX_HOST_ELEMENTS:
        return NotImplemented
    return np.take(x, indices, axis)


@_rule("Squeeze")
def _squeeze(call: Call, x: Array, axes: Array | None = None) -> Any:
    given = call.ints("axes", ()) if axes is None else int_list(axes)
    return np.squeeze(x, tuple(given)) if given else np.squeeze(x)


@_rule("Unsqueeze")
def _unsqueeze(call: Call, x: Array, axes: Array | None = None) -> Any:
    return np.expand_dims(x, tuple(call.ints("axes") if axes is None else int_list(axes)))


@_rule("Reshape")
def _reshape(call: Call, x: Array, shape: Array | None = None) -> Any:
    given = call.ints("shape") if shape is None else int_list(shape)
    return x.reshape(resolved_shape(x.shape, given, bool(call.int("allowzero", 0))))


def resolved_shape(old: tuple[int, ...], given: list[int], allowzero: bool) -> list[int]:
    """The shape that Reshape means: 0 keeps an extent, -1 is what is left."""
    new = list(given)
    if not allowzero:
        for i, extent in enumerate(new):
            if extent == 0:
                if i >= len(old):
                    raise IndexOutOfRange(f"The shape {given} keeps an axis that {old} lacks.")
                new[i] = old[i]
    if new.count(-1) > 1 or any(extent < -1 for extent in new):
        raise ShapeError(f"{given} is no shape.")
    if -1 in new:
        rest = math.prod(extent for extent in new if extent != -1)
        if not rest or math.prod(old) % rest:
            raise ShapeError(f"The shape {old} cannot become {given}.")
        new[new.index(-1)] = math.prod(old) // rest
    return new


@_rule("Slice")
def _slice(call: Call, x: Array, *given: Array | None) -> Any:
    return x[slices(call, x.shape, given)]


def slices(
    call: Call, shape: tuple[int, ...], given: tuple[Array | None, ...]
) -> tuple[slice, ...]:
    """What Slice takes of each axis; from inputs, or before version 10 from attributes."""
    if call.version < 10:
        starts, ends = call.ints("starts"), call.ints("ends")
        axes, steps = call.ints("axes", range(len(starts))), [1] * len(starts)
    else:
        lists = [None if x is None else int_list(x) for x in (*given, *(None,) * 4)]
        if lists[0] is None or lists[1] is None:
            raise ShapeError("Slice needs starts and ends.")
        starts, ends = lists[0], lists[1]
        axes = list(range(len(starts))) if lists[2] is None else lists[2]
        steps = [1] * len(starts) if lists[3] is None else lists[3]
    found = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if not -len(shape) <= axis < len(shape) or not step:
            raise IndexOutOfRange(f"Axis {axis}, step {step} of {shape} is no slice.")
        stop: int | None = end
        n = shape[axis]
        if step < 0 and end < 0 and end < -n:
            stop = None  # behind the first element, going backwards
        found[axis] = slice(start, stop, step)
    return tuple(found)


@_rule("Transpose")
def _transpose(call: Call, x: Array) -> Any:
    return np.transpose(x, call.ints("perm", range(x.ndim)[::-1]))


@_rule("Split")
def _split(call: Call, x: Array, sizes: Array | None = None) -> Any:
    axis = call.int("axis", 0)
    given = call.ints("split", ()) if sizes is None else int_list(sizes)
    parts = given or equal_parts(x.shape[axis], call.int("num_outputs", call.outputs))
    return tuple(np.split(x, np.cumsum(parts)[:-1], axis))


def equal_parts(extent: int, count: int) -> list[int]:
    """The extents of `count` parts, the last of which may be smaller."""
    if count < 1:
        raise ShapeError(f"An axis of {extent} cannot be split into {count} parts.")
    size = -(-extent // count)
    parts = [size] * (extent // size if size else count)
    parts += [extent - sum(parts)] if sum(parts) < extent else []
    return parts + [0] * (count - len(parts))


@_rule("Expand")
def _expand(call: Call, x: Array, shape: Array) -> Any:
    wanted = np.broadcast_shapes(x.shape, tuple(int_list(shape)))
    return NotImplemented if math.prod(wanted) > MAX_HOST_ELEMENTS else np.broadcast_to(x, wanted)


@_rule("ConstantOfShape")
def _constant_of_shape(call: Call, shape: Array) -> Any:
    wanted = int_list(shape)
    if math.prod(wanted) > MAX_HOST_ELEMENTS or min(wanted, default=0) < 0:
        return NotImplemented
    value: Any = np.float32(0)
    if call.has("value"):
        value = call.run.stored(call.attributes["value"])
    if not isinstance(value, np.ndarray | np.generic):
        return NotImplemented
    return np.broadcast_to(np.reshape(value, ()), wanted)


@_rule("Range")
def _range(call: Call, start: Array, limit: Array, delta: Array) -> Any:
    begin, end, step = (x.reshape(()).item() for x in (start, limit, delta))
    if start.dtype.kind not in "iu" or not step or abs((end - begin) / step) > MAX_HOST_ELEMENTS:
        return NotImplemented
    count = max(math.ceil((end - begin) / step), 0)
    return (np.arange(count) * step + begin).astype(start.dtype)


@_rule("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduce(call: Call, x: Array, axes: Array | None = None) -> Any:
    given = call.ints("axes", ()) if axes is None else int_list(axes)
    if not x.size or (not given and call.int("noop_with_empty_axes", 0)):
        return NotImplemented
    over = tuple(given) or None
    keep = bool(call.int("keepdims", 1))
    name = call.node.op_type.removeprefix("Reduce").lower()
    if name in ("prod", "sum"):
        return getattr(np, name)(x, axis=over, keepdims=keep, dtype=x.dtype)
    return getattr(np, name)(x, axis=over, keepdims=keep)


@_rule("NonZero")
def _nonzero(call: Call, x: Array) -> Any:
    return np.array(np.nonzero(x), np.int64).reshape(max(x.ndim, 1), -1)
