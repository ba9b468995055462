"""Operators by domain, name and version, and what one is called with.

    @operator("LeakyRelu")
    def leaky_relu(call: Call, x: Tensor) -> Tensor:
        return x.leaky_relu(call.float("alpha", 0.01))

An operator gets its inputs in order, None for one that is left out. They are Tensors but for the
positions named in `host` (an array: it decides a shape) and `as_is` (whatever the value is).
`since` is the first version of the operator set that means this; a version of an operator counts
until the next one. It returns a value, or a tuple of them for several outputs.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from compiler.dtype import DType
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.model import GraphProto, NodeProto, SparseTensorProto, TensorProto
from tinyhw.formats.onnx.tensors import DTYPES, Array, type_name
from tinyhw.tensor import Tensor

# What a name in a graph stands for: a Tensor, an array that is known on the host, a sequence, or
# None, an empty optional.
Value: TypeAlias = "Tensor | Array | list[Any] | None"
Operator: TypeAlias = Callable[..., Any]

ALL: Final = (-1,)  # in `as_is`: every position


@dataclass(frozen=True)
class Entry:
    """One version of an operator."""

    since: int
    function: Operator
    host: frozenset[int]
    as_is: frozenset[int]

    def takes_as_is(self, position: int) -> bool:
        """Whether that input is given as whatever it is."""
        return position in self.as_is or -1 in self.as_is


OPERATORS: Final[dict[tuple[str, str], list[Entry]]] = {}  # newest version first


def operator(
    *names: str, domain: str = "", since: int = 1, host: Sequence[int] = (),
    as_is: Sequence[int] = (),
) -> Callable[[Operator], Operator]:
    """Registers a function as operators of these names."""

    def declare(function: Operator) -> Operator:
        for name in names:
            versions = OPERATORS.setdefault((domain, name), [])
            versions.append(Entry(since, function, frozenset(host), frozenset(as_is)))
            versions.sort(key=lambda entry: -entry.since)
        return function

    return declare


def find(domain: str, name: str, version: int) -> Entry | None:
    """The operator of that name in a version of its set; None if it is not there."""
    for entry in OPERATORS.get((domain, name), ()):
        if entry.since <= version:
            return entry
    return None


class Interpreter(Protocol):
    """What an operator may ask of what runs it."""

    device: str

    def tensor(self, value: Value) -> Tensor:
        """A value as a Tensor."""

    def array(self, value: Value) -> Array:
        """A value as an array; reads the device if it must."""

    def run_body(self, call: Call, graph: GraphProto, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a graph among a node's attributes."""

    def stored(self, proto: TensorProto | SparseTensorProto) -> Tensor | Array:
        """A tensor among a node's attributes."""


_Ints: TypeAlias = list[int]  # within Call these names are its methods
_Floats: TypeAlias = list[float]


@dataclass(slots=True)
class Call:
    """A node that is being computed: its attributes, and the operator set's version."""

    node: NodeProto
    version: int
    run: Interpreter
    scope: ChainMap[str, Value]  # what graphs among its attributes see
    attributes: dict[str, Any]
    references: dict[str, Any]  # attributes of the function around it
    opsets: dict[str, int]

    @property
    def outputs(self) -> int:
        """How many outputs the node has."""
        return len(self.node.outputs)

    def wants(self, position: int) -> bool:
        """Whether an output is used."""
        return position < len(self.node.outputs) and bool(self.node.outputs[position])

    def has(self, name: str) -> bool:
        """Whether an attribute is given."""
        return name in self.attributes

    def _get(self, name: str, default: Any, kinds: type | tuple[type, ...]) -> Any:
        value = self.attributes.get(name, default)
        if value is None:
            raise ShapeError(f"The attribute {name!r} is missing.")
        if not isinstance(value, kinds):
            raise ShapeError(f"The attribute {name!r} has a wrong type.")
        return value

    def int(self, name: str, default: int | None = None) -> int:
        """An attribute that is an integer."""
        found = self._get(name, default, int)
        return int(found)

    def float(self, name: str, default: float | None = None) -> float:
        """An attribute that is a float."""
        found = self._get(name, default, (int, float))
        return float(found)

    def string(self, name: str, default: str | None = None) -> str:
        """An attribute that is a string."""
        found = self._get(name, None if default is None else default.encode(), bytes)
        return str(found, "utf-8", "replace")

    def strings(self, name: str, default: Sequence[str] | None = None) -> list[str]:
        """An attribute that is a list of strings."""
        given = None if default is None else [text.encode() for text in default]
        found = self._get(name, given, list)
        return [str(text, "utf-8", "replace") for text in found]

    def ints(self, name: str, default: Iterable[Any] | None = None) -> _Ints:
        """An attribute that is a list of integers."""
        found = self._get(name, None if default is None else list(default), list)
        if not all(isinstance(n, int) for n in found):
            raise ShapeError(f"The attribute {name!r} has a wrong type.")
        return list(found)

    def floats(self, name: str, default: Iterable[Any] | None = None) -> _Floats:
        """An attribute that is a list of floats."""
        found = self._get(name, None if default is None else list(default), list)
        return [float(n) for n in found]

    def graph(self, name: str) -> GraphProto:
        """An attribute that is a graph."""
        found = self._get(name, None, GraphProto)
        assert isinstance(found, GraphProto)
        return found

    def dtype(self, name: str, default: DType | None = None) -> DType:
        """An attribute that names an element type."""
        if default is not None and not self.has(name):
            return default
        return element_type(self.int(name))

    def scalar(self, value: Value) -> Any:
        """A value of one element as Python's number; reads the device if it must."""
        array = self.run.array(value)
        if array.size != 1:
            raise ShapeError(f"A value of the shape {array.shape} stands where one number must.")
        return array.reshape(()).item()


def element_type(number: int) -> DType:
    """The element type of a TensorProto.DataType."""
    if number not in DTYPES:
        raise NotSupported(
            f"Tensors have no elements of {type_name(number)}; there are "
            f"{', '.join(dtype.name for dtype in DTYPES.values())}."
        )
    return DTYPES[number]


def int_list(array: Array | None) -> list[int]:
    """An array that is a list of integers: a shape, axes, positions."""
    if array is None:
        return []
    return [int(n) for n in np.asarray(array).reshape(-1)]
