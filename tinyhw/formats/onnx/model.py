"""The messages of an ONNX file that matter for running it, as objects.

Names are those of onnx.proto (IR version 14); what only tools read (documentation, metadata, shapes
of intermediate values, training information) is skipped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tinyhw.formats.onnx.wire import (
    BYTES,
    FIXED32,
    VARINT,
    Source,
    encode_varint,
    fields,
    quoted,
    signed,
    text,
)

# Attribute values: numbers, bytes, tensors, graphs, and lists of one of these.
Attribute: TypeAlias = "int | float | bytes | TensorProto | GraphProto | TypeProto | list[Any]"

MAX_RANK: Final = 64  # NumPy's
MAX_VALUES: Final = 1 << 16  # inputs of a node, and outputs
_OBJECT_BYTES: Final = 700  # what a small message costs: its object, its lists, its place in one
_NUMBER_BYTES: Final = 48  # what an element of a list of numbers costs

# AttributeProto.AttributeType, and the fields that hold them
_REFERENCE, _NAME, _TYPE = 21, 1, 20
_TYPE_OF_FIELD: Final = {
    2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 22: 11, 14: 13, 7: 6, 8: 7, 9: 8, 10: 9, 11: 10, 23: 12, 15: 14,
}
_FIELD_OF_TYPE: Final = {kind: number for number, kind in _TYPE_OF_FIELD.items()}
_LISTS: Final = frozenset({7, 8, 9, 10, 11, 15, 23})


@dataclass(slots=True)
class TensorProto:
    """A stored tensor; its elements are in `raw`, or in `parts` (of field `part_field`)."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    raw: memoryview | None = None
    part_field: int = 0
    parts: list[memoryview] = field(default_factory=list)
    external: dict[str, str] | None = None


@dataclass(slots=True)
class SparseTensorProto:
    """A tensor of zeros but for `values` at `indices`."""

    values: TensorProto
    indices: TensorProto
    dims: list[int]


@dataclass(slots=True)
class TypeProto:
    """A value's type: `kind` is "tensor", "sequence", "optional", "map" or "sparse_tensor"."""

    kind: str = ""
    elem_type: int = 0  # of tensors: TensorProto.DataType
    shape: tuple[int | str | None, ...] | None = None  # None where unknown
    inner: TypeProto | None = None  # of sequences and optionals


@dataclass(slots=True)
class ValueInfo:
    """An input or output of a graph."""

    name: str
    type: TypeProto


@dataclass(slots=True)
class Reference:
    """An attribute within a function that is one of the function's call."""

    name: str


@dataclass(slots=True)
class NodeProto:
    """One operator applied to named values."""

    op_type: str = ""
    domain: str = ""
    name: str = ""
    overload: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Attribute | Reference] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or (f"the node of {self.outputs[0]!r}" if self.outputs else "a node")


@dataclass(slots=True)
class GraphProto:
    """Nodes in an order in which each comes after what it reads."""

    name: str = ""
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    sparse_initializers: list[SparseTensorProto] = field(default_factory=list)
    inputs: list[ValueInfo] = field(default_factory=list)
    outputs: list[ValueInfo] = field(default_factory=list)


@dataclass(slots=True)
class FunctionProto:
    """An operator that the model defines by nodes."""

    name: str = ""
    domain: str = ""
    overload: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    defaults: dict[str, Attribute | Reference] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class ModelProto:
    """A whole file."""

    graph: GraphProto
    opsets: dict[str, int]
    functions: list[FunctionProto]
    ir_version: int


def read_model(source: Source, data: memoryview) -> ModelProto:
    """The model in a file's bytes; raises MalformedInput."""
    graph: GraphProto | None = None
    opsets: dict[str, int] = {}
    functions: list[FunctionProto] = []
    version = 0
    for number, kind, value in fields(source, data):
        if number == 1:
            version = _int(source, kind, value, "ModelProto.ir_version")
        elif number == 7:
            if graph is not None:
                source.refuse("it has two graphs")
            graph = _graph(source, _bytes(source, kind, value, "ModelProto.graph"))
        elif number == 8:
            domain, wanted = _opset(source, _bytes(source, kind, value, "ModelProto.opset_import"))
            opsets[domain] = wanted
        elif number == 25:
            functions.append(_function(source, _bytes(source, kind, value, "ModelProto.functions")))
    if graph is None:
        source.refuse("it has no graph, so it is no ONNX model")
    return ModelProto(graph, opsets, functions, version)


def read_tensor(source: Source, data: memoryview) -> TensorProto:
    """A TensorProto; its elements stay where they are."""
    source.charge(_OBJECT_BYTES)
    new = TensorProto()
    for number, kind, value in source.nested(data):
        if number == 1:
            _numbers(source, kind, value, new.dims, "TensorProto.dims")
            if len(new.dims) > MAX_RANK:
                source.refuse(f"a tensor has more than {MAX_RANK} dimensions, the limit")
        elif number == 2:
            new.data_type = _int(source, kind, value, "TensorProto.data_type")
        elif number == 8:
            new.name = _text(source, kind, value, "TensorProto.name")
        elif number == 9:
            new.raw = _bytes(source, kind, value, "TensorProto.raw_data")
        elif number in (4, 5, 7, 10, 11):
            if new.part_field not in (0, number):
                source.refuse(f"tensor {quoted(new.name)} has its elements in two fields")
            new.part_field = number
            source.charge(0 if new.parts == [] else 200)
            new.parts.append(encode_varint(value) if kind == VARINT else value)
        elif number == 3:
            source.refuse(f"tensor {quoted(new.name)} is a segment of one, which no file has")
        elif number == 13:
            key, entry = _pair(source, _bytes(source, kind, value, "TensorProto.external_data"))
            new.external = {**(new.external or {}), key: entry}
            if len(new.external) > 16:
                source.refuse(f"tensor {quoted(new.name)} has more than 16 external_data entries")
        elif number == 14 and value == 1 and new.external is None:
            new.external = {}
    return new


def _graph(source: Source, data: memoryview) -> GraphProto:
    source.charge(_OBJECT_BYTES)
    new = GraphProto()
    for number, kind, value in source.nested(data):
        if number == 1:
            new.nodes.append(_node(source, _bytes(source, kind, value, "GraphProto.node")))
        elif number == 2:
            new.name = _text(source, kind, value, "GraphProto.name")
        elif number == 5:
            given = _bytes(source, kind, value, "GraphProto.initializer")
            new.initializers.append(read_tensor(source, given))
        elif number == 11:
            new.inputs.append(_value_info(source, _bytes(source, kind, value, "GraphProto.input")))
        elif number == 12:
            given = _bytes(source, kind, value, "GraphProto.output")
            new.outputs.append(_value_info(source, given))
        elif number == 15:
            given = _bytes(source, kind, value, "GraphProto.sparse_initializer")
            new.sparse_initializers.append(_sparse(source, given))
    return new


def _node(source: Source, data: memoryview) -> NodeProto:
    source.charge(_OBJECT_BYTES)
    new = NodeProto()
    for number, kind, value in source.nested(data):
        if number == 1:
            new.inputs.append(_text(source, kind, value, "NodeProto.input"))
        elif number == 2:
            new.outputs.append(_text(source, kind, value, "NodeProto.output"))
        elif number == 3:
            new.name = _text(source, kind, value, "NodeProto.name")
        elif number == 4:
            new.op_type = _text(source, kind, value, "NodeProto.op_type")
        elif number == 5:
            given = _bytes(source, kind, value, "NodeProto.attribute")
            name, attribute = _attribute(source, given)
            new.attributes[name] = attribute
        if max(len(new.inputs), len(new.outputs)) > MAX_VALUES:
            source.refuse(f"a node has more than {MAX_VALUES} inputs or outputs, the limit")
        if number == 7:
            new.domain = domain_name(_text(source, kind, value, "NodeProto.domain"))
        elif number == 8:
            new.overload = _text(source, kind, value, "NodeProto.overload")
    return new


def _attribute(source: Source, data: memoryview) -> tuple[str, Attribute | Reference]:
    """An attribute's name and value; a reference to one of the function's call stays one."""
    source.charge(_OBJECT_BYTES)
    name, reference, declared = "", "", 0
    values: dict[int, Any] = {}
    for number, kind, value in source.nested(data):
        if number == _NAME:
            name = _text(source, kind, value, "AttributeProto.name")
        elif number == _REFERENCE:
            reference = _text(source, kind, value, "AttributeProto.ref_attr_name")
        elif number == _TYPE:
            declared = _int(source, kind, value, "AttributeProto.type")
        elif number in (7, 8):
            _numbers(source, kind, value, values.setdefault(number, []), "AttributeProto.ints")
        elif number in _TYPE_OF_FIELD:
            found = _attribute_value(source, number, kind, value)
            if number in _LISTS:
                values.setdefault(number, []).append(found)
            else:
                values[number] = found
    if reference:
        return name, Reference(reference)
    if not declared and len(values) == 1:  # files before IR version 2 have no type
        declared = _TYPE_OF_FIELD[next(iter(values))]
    if declared not in _FIELD_OF_TYPE:
        source.refuse(f"attribute {quoted(name)} has the type {declared}; known are 1 to 14")
    where = _FIELD_OF_TYPE[declared]
    default: Any = [] if where in _LISTS else {2: 0.0, 3: 0, 4: b""}.get(where)
    chosen = values.get(where, default)
    if chosen is None:
        source.refuse(f"attribute {quoted(name)} has no value")
    return name, chosen


def _attribute_value(source: Source, number: int, kind: int, value: Any) -> Any:
    if number == 2:
        if kind != FIXED32:
            source.refuse("AttributeProto.f is no float")
        return struct.unpack("<f", value)[0]
    if number == 3:
        return _int(source, kind, value, "AttributeProto.i")
    given = _bytes(source, kind, value, "AttributeProto")
    if number in (4, 9):
        source.charge(64 + len(given))
        return bytes(given)
    if number in (5, 10):
        return read_tensor(source, given)
    if number in (6, 11):
        return _graph(source, given)
    if number in (14, 15):
        return _type(source, given)
    return _sparse(source, given)


def _sparse(source: Source, data: memoryview) -> SparseTensorProto:
    source.charge(_OBJECT_BYTES)
    new = SparseTensorProto(TensorProto(), TensorProto(), [])
    for number, kind, value in source.nested(data):
        if number == 1:
            new.values = read_tensor(source, _bytes(source, kind, value, "SparseTensorProto"))
        elif number == 2:
            new.indices = read_tensor(source, _bytes(source, kind, value, "SparseTensorProto"))
        elif number == 3:
            _numbers(source, kind, value, new.dims, "SparseTensorProto.dims")
    return new


def _function(source: Source, data: memoryview) -> FunctionProto:
    source.charge(_OBJECT_BYTES)
    new = FunctionProto()
    for number, kind, value in source.nested(data):
        if number == 1:
            new.name = _text(source, kind, value, "FunctionProto.name")
        elif number == 4:
            new.inputs.append(_text(source, kind, value, "FunctionProto.input"))
        elif number == 5:
            new.outputs.append(_text(source, kind, value, "FunctionProto.output"))
        elif number == 6:
            new.attributes.append(_text(source, kind, value, "FunctionProto.attribute"))
        elif number == 7:
            new.nodes.append(_node(source, _bytes(source, kind, value, "FunctionProto.node")))
        elif number == 9:
            given = _bytes(source, kind, value, "FunctionProto.opset_import")
            domain, version = _opset(source, given)
            new.opsets[domain] = version
        elif number == 10:
            new.domain = domain_name(_text(source, kind, value, "FunctionProto.domain"))
        elif number == 11:
            given = _bytes(source, kind, value, "FunctionProto.attribute_proto")
            name, attribute = _attribute(source, given)
            new.defaults[name] = attribute
        elif number == 13:
            new.overload = _text(source, kind, value, "FunctionProto.overload")
    return new


def _value_info(source: Source, data: memoryview) -> ValueInfo:
    source.charge(_OBJECT_BYTES)
    new = ValueInfo("", TypeProto())
    for number, kind, value in source.nested(data):
        if number == 1:
            new.name = _text(source, kind, value, "ValueInfoProto.name")
        elif number == 2:
            new.type = _type(source, _bytes(source, kind, value, "ValueInfoProto.type"))
    return new


_KINDS: Final = {1: "tensor", 4: "sequence", 5: "map", 8: "sparse_tensor", 9: "optional"}


def _type(source: Source, data: memoryview) -> TypeProto:
    source.charge(_OBJECT_BYTES)
    new = TypeProto()
    for number, kind, value in source.nested(data):
        if number not in _KINDS:
            continue
        new.kind = _KINDS[number]
        inner = _bytes(source, kind, value, "TypeProto")
        for number_in, kind_in, value_in in source.nested(inner):
            if new.kind in ("sequence", "optional") and number_in == 1:
                new.inner = _type(source, _bytes(source, kind_in, value_in, "TypeProto"))
            elif new.kind == "tensor" and number_in == 1:
                new.elem_type = _int(source, kind_in, value_in, "TypeProto.elem_type")
            elif new.kind == "tensor" and number_in == 2:
                new.shape = _shape(source, _bytes(source, kind_in, value_in, "TensorShapeProto"))
    return new


def _shape(source: Source, data: memoryview) -> tuple[int | str | None, ...]:
    extents: list[int | str | None] = []
    for number, kind, value in source.nested(data):
        if number != 1:
            continue
        source.charge(_NUMBER_BYTES)
        extent: int | str | None = None
        dimension = _bytes(source, kind, value, "TensorShapeProto.dim")
        for number_in, kind_in, value_in in source.nested(dimension):
            if number_in == 1:
                given = _int(source, kind_in, value_in, "Dimension.dim_value")
                extent = given if given >= 0 else None  # some exporters say -1 for any
            elif number_in == 2:
                extent = _text(source, kind_in, value_in, "Dimension.dim_param")
        extents.append(extent)
    return tuple(extents)


def _opset(source: Source, data: memoryview) -> tuple[str, int]:
    source.charge(_NUMBER_BYTES)
    domain, version = "", 0
    for number, kind, value in source.nested(data):
        if number == 1:
            domain = domain_name(_text(source, kind, value, "OperatorSetIdProto.domain"))
        elif number == 2:
            version = _int(source, kind, value, "OperatorSetIdProto.version")
    return domain, version


def _pair(source: Source, data: memoryview) -> tuple[str, str]:
    key = entry = ""
    for number, kind, value in source.nested(data):
        if number == 1:
            key = _text(source, kind, value, "StringStringEntryProto.key")
        elif number == 2:
            entry = _text(source, kind, value, "StringStringEntryProto.value")
    return key, entry


def domain_name(domain: str) -> str:
    """A domain as this reader calls it: the standard one has two names."""
    return "" if domain == "ai.onnx" else domain


def _numbers(source: Source, kind: int, value: Any, into: list[Any], what: str) -> None:
    """A repeated number, alone or packed: int64 from varints, floats from 4 bytes each."""
    if kind == VARINT:
        source.charge(_NUMBER_BYTES)
        into.append(signed(value))
    elif kind == FIXED32:
        source.charge(_NUMBER_BYTES)
        into.append(struct.unpack("<f", value)[0])
    elif kind == BYTES and what == "AttributeProto.floats":
        source.charge(_NUMBER_BYTES * (len(value) // 4))
        into.extend(struct.unpack(f"<{len(value) // 4}f", value[: len(value) // 4 * 4]))
    elif kind == BYTES:
        source.charge(_NUMBER_BYTES * len(value))
        packed = bytes(value)
        at = 0
        while at < len(packed):
            end = at
            while end < len(packed) and packed[end] >= 0x80:
                end += 1
            for _, _, number in fields(source, memoryview(b"\x08" + packed[at : end + 1])):
                into.append(signed(number))
            at = end + 1
    else:
        source.refuse(f"{what} has the wire type {kind}; known are numbers")


def _int(source: Source, kind: int, value: Any, what: str) -> int:
    if kind != VARINT:
        source.refuse(f"{what} is no integer")
    return signed(value)


def _bytes(source: Source, kind: int, value: Any, what: str) -> memoryview:
    if kind != BYTES:
        source.refuse(f"{what} has the wire type {kind}; it must be {BYTES}")
    assert isinstance(value, memoryview)
    return value


def _text(source: Source, kind: int, value: Any, what: str) -> str:
    return text(source, _bytes(source, kind, value, what), what)


__all__ = [
    "Attribute",
    "FunctionProto",
    "GraphProto",
    "ModelProto",
    "NodeProto",
    "Reference",
    "SparseTensorProto",
    "TensorProto",
    "TypeProto",
    "ValueInfo",
    "domain_name",
    "read_model",
    "read_tensor",
]
