"""OnnxModel: how it is called, what it captures, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from drivers.errors import MalformedInput
from tinyhw import Tensor, dtypes
from tinyhw.errors import DtypeError, ModelError, NotSupported, ShapeError
from tinyhw.formats.onnx import OnnxModel

FLOAT = TensorProto.FLOAT


def value(name: str, shape: list[Any] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], opset: int = 22,
    **kwargs: Any,
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(a, n) for n, a in kwargs.pop("weights", {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset), *kwargs.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, **kwargs)


def linear() -> onnx.ModelProto:
    """relu(x @ w + b) with a batch of any size."""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.standard_normal((4, 3), np.float32), "b": rng.standard_normal(3, np.float32)
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"], name="last"),
    ]
    return model_of(nodes, [value("x", ["n", 4])], [value("y", ["n", 3])], weights=weights)


def expected_of_linear(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    w, b = (numpy_helper.to_array(t) for t in linear().graph.initializer)
    return np.maximum(x @ w + b, 0)


def test_a_model_takes_names_or_a_dict_and_gives_a_dict(tmp_path: Path) -> None:
    path = tmp_path / "linear.onnx"
    path.write_bytes(linear().SerializeToString())
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    for model in (OnnxModel(path), OnnxModel(path.read_bytes())):
        for found in (model(x=x), model({"x": Tensor(x)}), model(x=x.tolist())):
            assert list(found) == ["y"]
            np.testing.assert_allclose(found["y"].numpy(), expected_of_linear(x), rtol=1e-5)
    assert "x → y" in repr(model)


def test_calls_of_one_shape_are_captured_and_their_results_stay() -> None:
    model = OnnxModel(linear().SerializeToString())
    rng = np.random.default_rng(2)
    xs = [rng.standard_normal((n, 4), np.float32) for n in (2, 3, 2, 3, 2, 3, 2)]
    found = [model(x=x)["y"] for x in xs]
    assert model.captured
    for x, y in zip(xs, found, strict=True):
        np.testing.assert_allclose(y.numpy(), expected_of_linear(x), rtol=1e-4, atol=1e-6)


def test_shapes_that_a_model_computes_are_known_before_it_runs() -> None:
    """The way exporters flatten: Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Mul", ["n", "two"], ["m"]),
        helper.make_node("Unsqueeze", ["m", "axes"], ["m1"]),
        helper.make_node("Concat", ["m1", "rest"], ["shape"], axis=0),
        helper.make_node("Pow", ["base", "x"], ["e"]),
        helper.make_node("Reshape", ["e", "shape"], ["y"]),
    ]
    weights = {
        "base": np.array(2, np.float32),
        "zero": np.array(0), "two": np.array(2), "axes": np.array([0]), "rest": np.array([-1])
    }
    proto = model_of(nodes, [value("x", None)], [value("y", None)], weights=weights)
    model = OnnxModel(proto.SerializeToString())
    for n in (3, 5, 3, 3):
        x = np.random.default_rng(n).standard_normal((n, 2, 4), np.float32)
        np.testing.assert_allclose(
            model(x=x)["y"].numpy(), np.exp2(x).reshape(2 * n, 4), rtol=1e-5
        )
    assert model.captured


def test_a_model_that_computes_nothing_has_nothing_to_capture() -> None:
    proto = model_of(
        [helper.make_node("Transpose", ["x"], ["y"])], [value("x", [2, 3])], [value("y", [3, 2])]
    )
    model = OnnxModel(proto.SerializeToString())
    for i in range(4):
        x = np.arange(6, dtype=np.float32).reshape(2, 3) + i
        np.testing.assert_array_equal(model(x=x)["y"].numpy(), x.T)
    assert not model.captured


def test_a_model_whose_shape_depends_on_a_value_runs_node_by_node() -> None:
    proto = model_of(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", [6]), value("shape", [2], TensorProto.INT64)], [value("y", None)],
    )
    model = OnnxModel(proto.SerializeToString())
    x = np.arange(6, dtype=np.float32)
    for shape in ([2, 3], [3, 2], [1, 6], [6, 1]):
        found = model(x=x, shape=np.array(shape))["y"]
        assert found.shape == tuple(shape)
    assert not model.captured


def test_numbers_of_python_decide_shapes_and_branches_within_a_capture() -> None:
    proto = model_of(
        [helper.make_node("Expand", ["x", "shape"], ["e"]),
         helper.make_node("Mul", ["e", "e"], ["y"])],
        [value("x", [1, 1]), value("shape", [2], TensorProto.INT64)], [value("y", None)],
    )
    model = OnnxModel(proto.SerializeToString())
    for i in range(4):
        for shape in ([2, 3], [3, 2]):
            found = model(x=np.full((1, 1), i, np.float32), shape=shape)["y"]
            np.testing.assert_array_equal(found.numpy(), np.full(shape, i * i, np.float32))
    assert model.captured
    with pytest.raises(ShapeError, match=r"\(2\), not \(3,\)"):
        model(x=np.zeros((1, 1), np.float32), shape=[1, 2, 3])


def test_a_branch_is_chosen_by_value_and_sees_what_is_around_it() -> None:
    def body(op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["x", "x"], ["out"])
        return helper.make_graph([node], op, [], [value("out", None)])

    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=body("Add"), else_branch=body("Mul")
    )
    proto = model_of(
        [node], [value("c", [], TensorProto.BOOL), value("x", [2])], [value("y", [2])]
    )
    model = OnnxModel(proto.SerializeToString())
    x = np.array([3, 5], np.float32)
    for condition, wanted in ((True, x + x), (False, x * x), (True, x + x)):
        found = model(c=np.array(condition), x=x)["y"]
        np.testing.assert_array_equal(found.numpy(), wanted)


def test_functions_of_the_model_take_attributes_and_defaults() -> None:
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    reference = onnx.AttributeProto(
        name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope"
    )
    leaky.attribute.append(reference)
    function = helper.make_function(
        "mine", "Bent", ["a"], ["b"], [leaky], [helper.make_opsetid("", 22)],
        attribute_protos=[helper.make_attribute("slope", 0.5)],
    )
    nodes = [
        helper.make_node("Bent", ["x"], ["y"], domain="mine"),
        helper.make_node("Bent", ["x"], ["z"], domain="mine", slope=0.25),
    ]
    proto = model_of(
        nodes, [value("x", [2])], [value("y", [2]), value("z", [2])],
        functions=[function], opsets=[helper.make_opsetid("mine", 1)],
    )
    found = OnnxModel(proto.SerializeToString())(x=np.array([-4, 4], np.float32))
    assert found["y"].tolist() == [-2, 4]
    assert found["z"].tolist() == [-1, 4]


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", "int64", "uint64", "bool", "float16",
                                  "float32", "float64"])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("count", [5, 5000])
def test_stored_tensors_have_their_elements(kind: str, raw: bool, count: int) -> None:
    array = np.random.default_rng(3).integers(-100, 100, count).astype(kind)
    data = array.tobytes() if raw else array
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    stored = helper.make_tensor("w", element, [count], data, raw=raw)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "g", [], [value("y", [count], element)],
        [stored],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    found = OnnxModel(proto.SerializeToString())()["y"]
    assert found.dtype.name == kind
    np.testing.assert_array_equal(found.numpy(), array)


def test_bfloat16_is_stored_as_bits() -> None:
    stored = helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.5, -2.0])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "g", [],
        [value("y", [2], TensorProto.BFLOAT16)], [stored],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    found = OnnxModel(proto.SerializeToString())()["y"]
    assert found.dtype is dtypes.bfloat16
    assert found.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT2", "UINT2"])
@pytest.mark.parametrize("raw", [False, True])
def test_narrow_integers_are_weights_with_scales(kind: str, raw: bool) -> None:
    values = {"INT4": [-8, 7, -1], "UINT4": [15, 0, 9], "INT2": [-2, 1, -1], "UINT2": [3, 0, 2]}
    element = getattr(TensorProto, kind)
    stored = helper.make_tensor("w", element, [3], values[kind])
    if raw:
        stored = numpy_helper.from_array(numpy_helper.to_array(stored), "w")
    scale = numpy_helper.from_array(np.array(0.5, np.float32), "scale")
    for op, says in (("DequantizeLinear", None), ("QuantizeLinear", f"QuantizeLinear of {kind}")):
        inputs = ["w", "scale"] if says is None else ["scale", "scale", "w"]
        graph = helper.make_graph(
            [helper.make_node(op, inputs, ["y"])], "g", [], [value("y", None)], [stored, scale]
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 28)])
        if says is None:
            found = OnnxModel(proto.SerializeToString())()["y"]
            assert found.tolist() == [v / 2 for v in values[kind]]
        else:  # how far it would have to saturate is not kept
            with pytest.raises(NotSupported, match=f"(?i){says}"):
                OnnxModel(proto.SerializeToString())


def test_external_data_lie_in_the_models_folder(tmp_path: Path) -> None:
    proto = linear()
    path = tmp_path / "m" / "linear.onnx"
    path.parent.mkdir()
    onnx.save(
        proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(OnnxModel(path)(x=x)["y"].numpy(), expected_of_linear(x), rtol=1e-5)
    with pytest.raises(MalformedInput, match=r"'w' lies in the file 'weights.bin'.*by its path"):
        OnnxModel(path.read_bytes())

    outside = tmp_path / "weights.bin"
    (path.parent / "weights.bin").rename(outside)
    for location in ("../weights.bin", str(outside)):
        moved = onnx.load(path, load_external_data=False)
        for tensor in moved.graph.initializer:
            tensor.external_data[0].value = location
        path.write_bytes(moved.SerializeToString())
        with pytest.raises(MalformedInput, match="outside the model's folder"):
            OnnxModel(path)
    (path.parent / "link.bin").symlink_to(outside)
    for tensor in moved.graph.initializer:
        tensor.external_data[0].value = "link.bin"
    path.write_bytes(moved.SerializeToString())
    with pytest.raises(MalformedInput, match="outside the model's folder"):
        OnnxModel(path)


# --- what is refused -----------------------------------------------------------------------------


def test_all_operators_that_are_not_there_are_listed_with_their_nodes() -> None:
    inner = helper.make_graph(
        [helper.make_node("Nowhere", ["x"], ["o"], name="inner")], "b", [], [value("o", None)]
    )
    nodes = [
        helper.make_node("Warp", ["x"], ["a"], name="first", domain="far"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
    ]
    proto = model_of(
        nodes, [value("x", [1]), value("c", [], TensorProto.BOOL)], [value("y", [1])]
    )
    with pytest.raises(NotSupported) as raised:
        OnnxModel(proto.SerializeToString())
    assert "far.Warp (first)" in str(raised.value)
    assert str(raised.value).count("Nowhere (inner)") == 2


def test_a_newer_operator_set_is_refused() -> None:
    proto = linear()
    proto.opset_import[0].version = 1000
    with pytest.raises(NotSupported, match=r"version 1000 .* up to 28"):
        OnnxModel(proto.SerializeToString())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ModelError, "'x' is missing"),
        ({"z": 1}, ModelError, "no input 'z'; 'x' is missing"),
        ({"x": np.zeros((2, 5), np.float32)}, ShapeError, r"\(n, 4\), not \(2, 5\)"),
        ({"x": np.zeros(4, np.float32)}, ShapeError, r"\(n, 4\), not \(4,\)"),
        ({"x": np.zeros((2, 4), np.float64)}, DtypeError, "float32, not float64"),
    ],
)
def test_wrong_inputs_are_named(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        OnnxModel(linear().SerializeToString())(given)


def test_a_node_that_cannot_be_computed_is_named() -> None:
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"], name="square")]
    model = OnnxModel(model_of(nodes, [value("x", None)], [value("y", None)]).SerializeToString())
    with pytest.raises(ModelError, match=r"square \(MatMul\) cannot be computed: .*\(2, 3\)"):
        model(x=np.zeros((2, 3), np.float32))


def test_functions_that_call_each_other_in_a_circle_are_refused() -> None:
    opsets = [helper.make_opsetid("mine", 1)]
    functions = [
        helper.make_function(
            "mine", name, ["a"], ["b"],
            [helper.make_node(other, ["a"], ["b"], domain="mine")], opsets,
        )
        for name, other in (("One", "Two"), ("Two", "One"))
    ]
    proto = model_of(
        [helper.make_node("One", ["x"], ["y"], domain="mine")], [value("x", [1])],
        [value("y", [1])], functions=functions, opsets=opsets,
    )
    with pytest.raises(MalformedInput, match="calls itself"):
        OnnxModel(proto.SerializeToString())
