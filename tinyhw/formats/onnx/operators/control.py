"""Branches and loops. What decides is known on the host, or read from the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyhw.errors import ShapeError
from tinyhw.formats.onnx.registry import ALL, Call, Value, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor


@operator("If", as_is=(0,))
def branch(call: Call, condition: Tensor | Array) -> tuple[Value, ...]:
    """The outputs of one of two graphs."""
    chosen = "then_branch" if call.scalar(condition) else "else_branch"
    return tuple(call.run.run_body(call, call.graph(chosen), []))


@operator("Loop", as_is=ALL)
def loop(
    call: Call, count: Value, condition: Value, *state: Value
) -> tuple[Value, ...]:
    """A graph as often as told, or while it says so; its steps are unrolled."""
    body = call.graph("body")
    limit = None if count is None else int(call.scalar(count))
    going = True if condition is None else bool(call.scalar(condition))
    values = list(state)
    collected: list[list[Value]] = [[] for _ in range(len(body.outputs) - 1 - len(values))]
    step = 0
    while going and (limit is None or step < limit):
        given: list[Value] = [np.array(step, np.int64), np.array(True), *values]
        again, *found = call.run.run_body(call, body, given)
        values, scans = found[: len(values)], found[len(values) :]
        for into, value in zip(collected, scans, strict=True):
            into.append(value)
        going = bool(call.scalar(again))
        step += 1
    return (*values, *(_stacked(call, each, 0) for each in collected))


def _stacked(call: Call, steps: list[Value], axis: int) -> Value:
    if not steps:
        raise ShapeError("A loop without steps has outputs for each step, of unknown shape.")
    if all(isinstance(value, np.ndarray) for value in steps):
        arrays: list[Any] = list(steps)
        return np.stack(arrays, axis)
    first, *rest = (call.run.tensor(value) for value in steps)
    return first.stack(*rest, dim=axis)


@operator("Scan", since=9)
def scan(call: Call, *inputs: Tensor) -> tuple[Value, ...]:
    """A graph for each element along an axis of some inputs, with a state."""
    return _scan(call, list(inputs), 0)


@operator("Scan")
def scan_batches(call: Call, *inputs: Any) -> tuple[Value, ...]:
    """`scan` before version 9: for each element of a batch, all of full length."""
    if inputs[0] is not None:
        raise ShapeError("Scan with lengths of its own is not supported.")
    given = [call.run.tensor(x) for x in inputs[1:]]
    each = [_scan(call, [x[b] for x in given], 0) for b in range(given[0]._fixed(0))]
    return tuple(_stacked(call, list(parts), 0) for parts in zip(*each, strict=True))


def _scan(call: Call, inputs: list[Tensor], axis: int) -> tuple[Value, ...]:
    body = call.graph("body")
    count = call.int("num_scan_inputs")
    states = len(inputs) - count
    outputs = len(body.outputs) - states
    if count < 1 or states < 0 or outputs < 0:
        raise ShapeError(f"Scan has {len(inputs)} inputs, of which {count} are scanned.")
    axes = call.ints("scan_input_axes", [axis] * count)
    backwards = call.ints("scan_input_directions", call.ints("directions", [0] * count))
    values: list[Value] = list(inputs[:states])
    scanned = inputs[states:]
    steps = scanned[0]._fixed(axes[0])
    collected: list[list[Value]] = [[] for _ in range(outputs)]
    for step in range(steps):
        parts = [
            x.select(a, steps - 1 - step if back else step)
            for x, a, back in zip(scanned, axes, backwards, strict=True)
        ]
        found = call.run.run_body(call, body, [*values, *parts])
        values = found[:states]
        for into, value in zip(collected, found[states:], strict=True):
            into.append(value)
    out_axes = call.ints("scan_output_axes", [axis] * outputs)
    out_back = call.ints("scan_output_directions", [0] * outputs)
    joined = [
        _stacked(call, each[::-1] if back else each, a)
        for each, a, back in zip(collected, out_axes, out_back, strict=True)
    ]
    return (*values, *joined)
