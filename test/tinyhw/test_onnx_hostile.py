"""ONNX files that somebody else wrote: they load, or one typed error names the file."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import TinyhwError
from drivers.errors import MalformedInput
from tinyhw import Tensor
from tinyhw.errors import NotSupported
from tinyhw.formats.onnx import OnnxModel
from tinyhw.formats.onnx.wire import Source, count_varints, encode_varint, fields, packed_varints

FULL = os.environ.get("TINYHW_FULL") == "1"
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def info(name: str, shape: list[Any] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def packed(name: str, values: list[int]) -> onnx.TensorProto:
    """A tensor whose elements are varints."""
    return helper.make_tensor(name, INT64, [len(values)], values)


def model(nodes: list[onnx.NodeProto], inputs: list[Any], weights: list[Any]) -> bytes:
    outputs = [info(nodes[-1].output[0], None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    return proto.SerializeToString()


def network() -> bytes:
    """Convolution, normalisation, and the shapes that a classifier computes."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "b", "b", "b", "v"], ["n"], epsilon=1e-3),
        helper.make_node("Clip", ["n", "low", "high"], ["k"]),
        helper.make_node("Resize", ["k", "", "scales"], ["r"], mode="linear"),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["batch"], axis=0),
        helper.make_node("Concat", ["batch", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["r", "flat"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"], axis=-1),
    ]
    weights = [
        weight("w", 2, 1, 3, 3), weight("b", 2),
        numpy_helper.from_array(np.ones(2, np.float32), "v"),
        helper.make_tensor("low", FLOAT, [], [-1.0]), helper.make_tensor("high", FLOAT, [], [1.0]),
        helper.make_tensor("scales", FLOAT, [4], [1.0, 1.0, 2.0, 2.0]), packed("zero", [0]),
        packed("rest", [-1]),
    ]
    return model(nodes, [info("x", [1, 1, 6, 6])], weights)


def loops() -> bytes:
    """A loop with a branch in it, and a scan's worth of attributes."""
    then = helper.make_graph(
        [helper.make_node("Add", ["v", "v"], ["t"])], "then", [], [info("t", None)]
    )
    other = helper.make_graph(
        [helper.make_node("Transpose", ["v"], ["e"], perm=[1, 0])], "else", [], [info("e", None)]
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("If", ["go"], ["n"], then_branch=then, else_branch=other),
            helper.make_node("Slice", ["n", "from", "to"], ["part"]),
        ],
        "body", [info("i", [], INT64), info("go", [], TensorProto.BOOL), info("v", [2, 2])],
        [info("again", [], TensorProto.BOOL), info("n", [2, 2]), info("part", None)],
    )
    nodes = [
        helper.make_node("Loop", ["count", "", "x"], ["last", "parts"], body=body),
        helper.make_node("ReduceSum", ["parts", "axes"], ["y"], keepdims=0),
    ]
    weights = [packed("count", [3]), packed("from", [0]), packed("to", [1]), packed("axes", [1])]
    return model(nodes, [info("x", [2, 2])], weights)


MODELS = {"network": (network(), (1, 1, 6, 6)), "loops": (loops(), (2, 2))}


@pytest.mark.parametrize("kind", MODELS)
def test_the_files_that_are_mutated_are_good(kind: str) -> None:
    data, shape = MODELS[kind]
    found = OnnxModel(data)(x=np.ones(shape, np.float32))["y"].numpy()
    assert np.isfinite(found).all()


@settings(max_examples=2000 if FULL else 200)
@given(data=st.data())
def test_mutated_files_build_a_graph_or_are_refused(data: st.DataObject) -> None:
    whole, shape = MODELS[data.draw(st.sampled_from(sorted(MODELS)))]
    mutated = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        match data.draw(st.sampled_from(["set", "flip", "insert", "delete", "copy"])):
            case "set":
                mutated[at] = data.draw(st.sampled_from([0, 1, 2, 0x0A, 0x7F, 0x80, 0xFF]))
            case "flip":
                mutated[at] ^= 1 << data.draw(st.integers(0, 7))
            case "insert":
                mutated[at:at] = data.draw(st.binary(min_size=1, max_size=3))
            case "delete":
                del mutated[at]
            case "copy":
                mutated[at:at] = mutated[: data.draw(st.integers(0, len(mutated)))][-40:]
    try:
        loaded = OnnxModel(bytes(mutated))
        if list(loaded.inputs) == ["x"]:
            # What a mutated shape asks for may be large: the graph is made, and not computed.
            loaded._run.run({"x": Tensor(np.ones(shape, np.float32))})
    except TinyhwError as error:
        assert str(error)


@pytest.mark.parametrize("kind", MODELS)
def test_truncated_files_are_refused(kind: str, tmp_path: Path) -> None:
    whole, _ = MODELS[kind]
    path = tmp_path / "short.onnx"
    for length in range(0, len(whole) - 10, 7):
        path.write_bytes(whole[:length])
        try:
            OnnxModel(path)
        except TinyhwError as error:
            assert str(path) in str(error)


@settings(max_examples=200)
@given(junk=st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    try:
        OnnxModel(junk)
    except TinyhwError as error:
        assert str(error).startswith("the model")


# --- memory ---------------------------------------------------------------------------------------


def message(number: int, content: bytes) -> bytes:
    return bytes(encode_varint(number << 3 | 2)) + bytes(encode_varint(len(content))) + content


SIZE = 4 << 20


def swelling(kind: str) -> bytes:
    """A file of about SIZE bytes that asks for as much memory as it can."""
    node = message(1, b"")  # in a graph
    attribute = message(5, b"\xa0\x01\x02")  # in a node: 0, without a name
    if kind == "empty nodes":
        graph = node * (SIZE // len(node))
    elif kind == "empty attributes":
        graph = message(1, attribute * (SIZE // len(attribute)))
    elif kind == "one-byte integers":
        graph = message(1, message(5, message(8, bytes(SIZE)) + b"\xa0\x01\x07"))
    elif kind == "names of inputs":
        graph = message(1, message(1, b"") * (SIZE // 2))
    elif kind == "packed elements":
        tensor = b"\x08" + bytes(encode_varint(SIZE)) + b"\x10\x07" + message(7, bytes(SIZE))
        graph = message(5, tensor)
    elif kind == "parts of elements":
        graph = message(5, b"\x10\x07" + message(7, b"") * (SIZE // 2))
    elif kind == "dimensions":
        graph = message(5, b"\x10\x07" + b"\x08\x01" * (SIZE // 2))
    else:
        assert kind == "a sparse tensor"
        values = message(1, b"\x10\x01")
        graph = message(15, values + message(2, b"\x10\x07") + b"\x18" + bytes(
            encode_varint(1 << 40)
        ))
        graph += message(10, bytes(SIZE))
    return b"\x08\x08" + message(7, graph) + message(8, b"\x10\x16")


@pytest.mark.parametrize("kind", [
    "one-byte integers", "packed elements", "dimensions", "a sparse tensor",
    *(["empty nodes", "empty attributes", "names of inputs", "parts of elements"] if FULL else []),
])
def test_files_that_swell_stay_within_the_memory_promised(kind: str) -> None:
    data = swelling(kind)
    tracemalloc.start()
    with pytest.raises(TinyhwError):
        OnnxModel(data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 * len(data) + (64 << 20)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (b"\x08\xff\xff\xff\xff\x7f\x10\x01" + message(9, bytes(8)), "claims 34359738367 elements"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x01", r"shape \[-1\]"),
        (b"\x08\x02\x10\x63", "element type type 99"),
        (b"\x08\x02\x10\x01" + message(5, b"\x01\x02"), "field 5; they belong into field 4"),
        (b"\x08\x02\x10\x01" + message(4, bytes(7)), "ends within an element"),
        (b"\x08\x02\x10\x07" + message(7, b"\x01"), "claims 2 elements; it has 1"),
        (b"\x08\x01\x10\x07" + message(7, b"\x80" * 10 + b"\x01"), "varint is longer"),
        (b"\x08\x01" * 65 + b"\x10\x07", "more than 64 dimensions"),
        (b"\x10\x01" + message(13, message(1, b"location") + message(2, b"/etc/passwd")),
         "given as bytes has no folder"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_named(tensor: bytes, says: str) -> None:
    graph = message(5, message(8, b"the_weight") + tensor)
    with pytest.raises(MalformedInput, match=says):
        OnnxModel(message(7, graph) + message(8, b"\x10\x16"))


def test_an_element_type_that_no_tensor_has_is_not_supported() -> None:
    graph = message(5, message(8, b"the_weight") + b"\x08\x02\x10\x08")
    with pytest.raises(NotSupported, match="'the_weight' has the element type string"):
        OnnxModel(message(7, graph) + message(8, b"\x10\x16"))


def test_graphs_nest_only_so_deep() -> None:
    graph = b""
    for _ in range(300):
        graph = message(1, message(5, message(6, graph) + b"\xa0\x01\x05"))
    with pytest.raises(MalformedInput, match="nest deeper than 100"):
        OnnxModel(message(7, graph))


def test_a_loop_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyhw.formats.onnx.interpreter.MAX_NODES", 1000)
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])], "b",
        [info("i", [], INT64), info("c", [], TensorProto.BOOL)],
        [info("d", [], TensorProto.BOOL)],
    )
    node = helper.make_node("Loop", ["count", ""], ["y"], body=body)
    node.output[:] = []
    nodes = [node, helper.make_node("Identity", ["count"], ["z"])]
    loaded = OnnxModel(model(nodes, [], [packed("count", [1 << 60])]))
    with pytest.raises(MalformedInput, match="more than 1000 nodes"):
        loaded()


# --- the wire format ------------------------------------------------------------------------------


@given(values=st.lists(st.integers(0, (1 << 64) - 1)))
def test_packed_varints_are_decoded_as_written(values: list[int]) -> None:
    data = memoryview(b"".join(bytes(encode_varint(value)) for value in values))
    found = np.empty(count_varints(data), np.uint64)
    assert len(found) == len(values)
    packed_varints(Source("it", len(data)), data, found)
    assert found.tolist() == values


@given(numbers=st.lists(st.tuples(st.integers(1, 500), st.integers(0, (1 << 64) - 1))))
def test_fields_are_read_as_written(numbers: list[tuple[int, int]]) -> None:
    data = b""
    for number, value in numbers:
        data += bytes(encode_varint(number << 3)) + bytes(encode_varint(value))
    found = [(n, v) for n, _, v in fields(Source("it", len(data)), memoryview(data))]
    assert found == numbers
