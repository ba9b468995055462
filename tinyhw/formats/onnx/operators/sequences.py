"""Sequences of tensors and optional values: Python's lists and None."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyhw.errors import IndexOutOfRange, ShapeError
from tinyhw.formats.onnx.folding import equal_parts
from tinyhw.formats.onnx.registry import ALL, Call, Value, operator
from tinyhw.tensor import Tensor


def _sequence(value: Value) -> list[Any]:
    if not isinstance(value, list):
        raise ShapeError("A tensor stands where a sequence must.")
    return value


def _place(call: Call, position: Value, count: int, default: int) -> int:
    """A position from the front, in [0, count)."""
    at = default if position is None else int(call.scalar(position))
    at = at + count if at < 0 else at
    if not 0 <= at < count:
        raise IndexOutOfRange(f"Position {at} is outside a sequence of {count}.")
    return at


@operator("SequenceConstruct", as_is=ALL)
def construct(call: Call, *items: Value) -> list[Any]:
    """A sequence of its inputs."""
    return list(items)


@operator("SequenceEmpty")
def empty(call: Call) -> list[Any]:
    """A sequence without elements."""
    return []


@operator("SequenceAt", as_is=ALL)
def at(call: Call, sequence: Value, position: Value) -> Value:
    """One element."""
    items = _sequence(sequence)
    found: Value = items[_place(call, position, len(items), 0)]
    return found


@operator("SequenceInsert", as_is=ALL)
def insert(call: Call, sequence: Value, item: Value, position: Value = None) -> list[Any]:
    """With another element before a position, or at the end."""
    items = list(_sequence(sequence))
    where = len(items) if position is None else int(call.scalar(position))
    if not -len(items) <= where <= len(items):
        raise IndexOutOfRange(f"Position {where} is outside a sequence of {len(items)}.")
    items.insert(where, item)
    return items


@operator("SequenceErase", as_is=ALL)
def erase(call: Call, sequence: Value, position: Value = None) -> list[Any]:
    """Without one element, the last one unless told."""
    items = list(_sequence(sequence))
    del items[_place(call, position, len(items), -1)]
    return items


@operator("SequenceLength", as_is=ALL)
def length(call: Call, sequence: Value) -> Value:
    """The number of elements."""
    return np.array(len(_sequence(sequence)), np.int64)


@operator("ConcatFromSequence", as_is=ALL)
def concat_from_sequence(call: Call, sequence: Value) -> Tensor:
    """The elements one behind the other, or along a new axis."""
    first, *rest = (call.run.tensor(item) for item in _sequence(sequence))
    axis = call.int("axis")
    return first.stack(*rest, dim=axis) if call.int("new_axis", 0) else first.cat(*rest, dim=axis)


@operator("SplitToSequence", as_is=(1,))
def split_to_sequence(call: Call, x: Tensor, sizes: Value = None) -> list[Any]:
    """Parts along an axis."""
    axis = call.int("axis", 0)
    n = x._fixed(axis)
    if sizes is None:
        parts = list(x.split([1] * n, axis))
        return parts if call.int("keepdims", 1) else [part.squeeze(axis) for part in parts]
    given = call.run.array(sizes)
    if given.ndim:
        return list(x.split([int(size) for size in given], axis))
    size = int(given)
    if size < 1:
        raise ShapeError(f"An axis cannot be split into parts of {size}.")
    return list(x.split(equal_parts(n, -(-n // size)) if n % size == 0 else [
        *[size] * (n // size), n % size
    ], axis))


@operator("SequenceMap", as_is=ALL)
def sequence_map(call: Call, *inputs: Value) -> tuple[Value, ...]:
    """A graph for each element."""
    body = call.graph("body")
    count = len(_sequence(inputs[0]))
    each = []
    for i in range(count):
        given = [x[i] if isinstance(x, list) else x for x in inputs]
        each.append(call.run.run_body(call, body, given))
    return tuple([found[i] for found in each] for i in range(len(body.outputs)))


@operator("Optional", as_is=ALL)
def optional(call: Call, value: Value = None) -> Value:
    """A value, or nothing."""
    return value


@operator("OptionalHasElement", as_is=ALL)
def optional_has_element(call: Call, value: Value = None) -> Value:
    """Whether there is a value."""
    return np.array(value is not None)


@operator("OptionalGetElement", as_is=ALL)
def optional_get_element(call: Call, value: Value) -> Value:
    """The value that is there."""
    if value is None:
        raise ShapeError("An optional without a value is read.")
    return value
