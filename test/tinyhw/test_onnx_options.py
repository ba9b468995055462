"""Attributes of operators in their combinations, and older versions, against onnxruntime.

Only with TINYHW_FULL=1. What onnxruntime itself refuses is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tinyhw.formats.onnx import OnnxModel

FULL = os.environ.get("TINYHW_FULL") == "1"
RNG = np.random.default_rng(0)


class Case(NamedTuple):
    """A node: its inputs (None for one that is left out), of which `known` are constants."""

    op: str
    inputs: list[Any]
    opset: int
    attributes: dict[str, Any]
    outputs: int = 1
    known: tuple[int, ...] = ()


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def of(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def model_of(case: Case) -> bytes:
    names = [f"i{k}" if x is not None else "" for k, x in enumerate(case.inputs)]
    given = {k: x for k, x in enumerate(case.inputs) if x is not None}
    inputs = [
        helper.make_tensor_value_info(names[k], helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for k, x in given.items() if k not in case.known
    ]
    weights = [numpy_helper.from_array(x, names[k]) for k, x in given.items() if k in case.known]
    outputs = [f"o{k}" for k in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, **case.attributes)
    graph = helper.make_graph(
        [node], "g", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], weights
    )
    opsets = [helper.make_opsetid("", case.opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def windows() -> Iterator[Case]:
    x = floats(1, 2, 7, 9)
    for auto, strides, ceil in product(
        ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"), ([1, 1], [2, 3]), (0, 1)
    ):
        how: dict[str, Any] = {"kernel_shape": [3, 2], "strides": strides, "auto_pad": auto}
        if auto == "NOTSET":
            how |= {"pads": [1, 0, 1, 1], "ceil_mode": ceil}
        yield Case("MaxPool", [x], 17, how, 2)
        yield Case("AveragePool", [x], 17, how)
        yield Case("AveragePool", [x], 17, {**how, "count_include_pad": 1})
        how.pop("ceil_mode", None)
        yield Case("LpPool", [x], 17, {**how, "p": 3})
        for dilations, group in product(([1, 1], [2, 1]), (1, 2)):
            if dilations == [1, 1] or not auto.startswith("SAME"):
                how |= {"dilations": dilations, "group": group}
                inputs = [floats(2, 4, 8, 9), floats(6, 4 // group, 3, 2), floats(6)]
                yield Case("Conv", inputs, 17, how)
    for extra, shape in product(([0, 0], [1, 1]), (None, [11, 13])):
        how = {"strides": [2, 2], "output_padding": extra}
        how |= {"output_shape": shape} if shape else {"pads": [1, 0, 0, 1]}
        yield Case("ConvTranspose", [floats(1, 2, 5, 6), floats(2, 3, 3, 3)], 17, how)


def resizing() -> Iterator[Case]:
    x = floats(1, 2, 7, 9)
    transforms = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    rounds = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    for mode, transform, rounding in product(("nearest", "linear", "cubic"), transforms, rounds):
        if mode != "nearest" and rounding != "floor":
            continue
        how = {"mode": mode, "coordinate_transformation_mode": transform, "nearest_mode": rounding}
        for scales in (of(1, 1, 2, 1.5), of(1, 1, 0.6, 0.7)):
            yield Case("Resize", [x, None, scales], 13, how, 1, (2,))
        for sizes in ([1, 2, 14, 5], [1, 2, 3, 20]):
            yield Case("Resize", [x, None, None, np.array(sizes)], 13, how, 1, (3,))
    for mode, padding, corners in product(
        ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (0, 1)
    ):
        how2 = {"mode": mode, "padding_mode": padding, "align_corners": corners}
        yield Case("GridSample", [floats(1, 2, 5, 6), floats(1, 3, 4, 2)], 16, how2)
    yield Case("Upsample", [x, of(1, 1, 2, 3)], 9, {"mode": "linear"}, 1, (1,))
    yield Case("Upsample", [x], 7, {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "nearest"})
    regions = np.array([[1, 1, 6, 7], [0, 2, 4, 5]], np.float32)
    for opset, ratio in product((10, 16), (0, 2)):
        how3 = {"output_height": 2, "output_width": 3, "sampling_ratio": ratio}
        yield Case("RoiAlign", [floats(2, 3, 8, 8), regions, np.array([0, 1])], opset, how3)


def recurrent() -> Iterator[Case]:
    for (op, outputs, gates), direction in product(
        (("LSTM", 3, 4), ("GRU", 2, 3), ("RNN", 2, 1)), ("forward", "reverse", "bidirectional")
    ):
        n = 2 if direction == "bidirectional" else 1
        inputs = [floats(5, 2, 3), floats(n, 4 * gates, 3), floats(n, 4 * gates, 4)]
        inputs += [floats(n, 8 * gates), np.array([5, 3], np.int32), floats(n, 2, 4)]
        how: dict[str, Any] = {"direction": direction, "hidden_size": 4}
        if op == "LSTM":
            inputs.append(floats(n, 2, 4))
            yield Case(op, [*inputs, floats(n, 12)], 14, how, outputs)
        if op == "GRU":
            yield Case(op, inputs, 14, {**how, "linear_before_reset": 1}, outputs)
        yield Case(op, inputs, 14, how, outputs)


def versions() -> Iterator[Case]:
    x = floats(1, 2, 7, 9)
    for op, keep, axes in product(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd"),
        (0, 1), ({"axes": [1, -1]}, {}),
    ):
        yield Case(op, [x], 11, {"keepdims": keep, **axes})
    for opset, axis in product((9, 11, 13, 17), (0, 1, 2)):
        yield Case("Softmax", [x], opset, {"axis": axis})
        yield Case("LogSoftmax", [x], opset, {"axis": axis})
        yield Case("Flatten", [x], opset, {"axis": axis})
    yield Case("Squeeze", [floats(1, 3, 1, 2)], 11, {"axes": [0, 2]})
    yield Case("Squeeze", [floats(1, 3, 1, 2), np.array([0, 2])], 13, {}, 1, (1,))
    yield Case("Split", [floats(4, 6)], 11, {"axis": 1}, 3)
    yield Case("TopK", [x, np.array([3])], 11, {"axis": 2}, 2, (1,))
    yield Case("Clip", [x], 6, {"min": -0.5, "max": 0.5})
    yield Case("Slice", [x], 9, {"starts": [1, -3], "ends": [100, -1], "axes": [2, 3]})
    yield Case("Pad", [x], 2, {"pads": [0, 0, 1, 2, 0, 0, 3, 1], "mode": "reflect"})
    amounts = np.array([0, 0, 1, -2, 0, 0, 3, 1])
    yield Case("Pad", [x, amounts, np.array(2, np.float32)], 11, {}, 1, (1,))
    for opset in (9, 15):
        yield Case("BatchNormalization", [x, *(floats(2) for _ in range(3)), of(2, 3)], opset, {})
    yield Case("InstanceNormalization", [x, floats(2), floats(2)], 13, {})
    yield Case("Dropout", [x], 10, {})
    gemm = {"transB": 1, "alpha": 0.5, "beta": 2.0}
    yield Case("Gemm", [floats(3, 4), floats(5, 4), floats(5)], 9, gemm)
    yield Case("Einsum", [floats(2, 3, 4), floats(2, 4, 5)], 13, {"equation": "bij, bjk -> bik"})
    yield Case("Trilu", [x, np.array(-1)], 14, {"upper": 0})
    yield Case("CumSum", [x, np.array(2)], 14, {"exclusive": 1, "reverse": 1})
    places = np.array([[0, -1], [2, 5]])
    yield Case("OneHot", [places, np.array(4), of(2, 7)], 13, {"axis": 0}, 1, (1,))
    for reduction in ("none", "add", "mul", "max", "min"):
        inputs = [floats(4, 3), np.array([[1], [3]]), floats(2, 3)]
        yield Case("ScatterND", inputs, 18, {"reduction": reduction})
    yield Case("GatherND", [floats(2, 3, 4), np.array([[1], [0]])], 13, {"batch_dims": 1})
    yield Case("DepthToSpace", [floats(1, 8, 2, 3)], 13, {"blocksize": 2, "mode": "CRD"})
    zero = np.array([3, 100], np.uint8)
    yield Case("QuantizeLinear", [x, of(0.1, 0.2), zero], 13, {"axis": 1})
    yield Case("Mod", [floats(5), floats(5)], 13, {"fmod": 1})
    for op in ("Mod", "Div"):
        yield Case(op, [np.array([-7, 7, -3]), np.array([3, -3, 5])], 13, {})
    yield Case("Pow", [of(2, 3), np.array([3, 2])], 13, {})


def check(cases: Callable[[], Iterator[Case]]) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    compared, refused = 0, 0
    for case in cases():
        data = model_of(case)
        given = {
            f"i{k}": x for k, x in enumerate(case.inputs) if x is not None and k not in case.known
        }
        try:
            session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
            expected = session.run(None, given)
        except Exception:  # its classes of errors have no common base but this
            refused += 1
            continue
        what = f"{case.op} {case.attributes} of version {case.opset}"
        found = OnnxModel(data)(given)
        for wanted, tensor in zip(expected, found.values(), strict=True):
            assert tensor.shape == wanted.shape, what
            assert tensor.dtype.name == wanted.dtype.name, what
            np.testing.assert_allclose(
                tensor.numpy(), wanted, rtol=1e-4, atol=1e-5, err_msg=what
            )
        compared += 1
    assert compared > 5 * refused


if FULL:

    @pytest.mark.parametrize("cases", [windows, resizing, recurrent, versions])
    def test_options_mean_what_they_mean_to_onnxruntime(
        cases: Callable[[], Iterator[Case]],
    ) -> None:
        check(cases)
