"""Runs the nodes of a graph: constants on the host, everything else as lazy Tensors."""

from __future__ import annotations

import struct
from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final

import numpy as np

from compiler.errors import TinyhwError
from drivers.errors import HardwareError, MalformedInput
from tinyhw.errors import JitError, ModelError, NotSupported
from tinyhw.formats.onnx.folding import fold
from tinyhw.formats.onnx.model import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    Reference,
    SparseTensorProto,
    TensorProto,
)
from tinyhw.formats.onnx.registry import Call, Entry, Value, find
from tinyhw.formats.onnx.tensors import Array, Folder, load_sparse, load_tensor
from tinyhw.formats.onnx.wire import Source
from tinyhw.tensor import Tensor

MAX_NODES: Final = 1_000_000  # that one call may run, loops unrolled
MAX_NESTING: Final = 32  # graphs in graphs, functions in functions

# What wrong attributes or shapes end in, where an operator does not look first.
_CONFUSED: Final = (
    TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError,
    RuntimeError, MemoryError, struct.error,
)


class Interpreter:
    """A model's graph, run with the values of its inputs.

    `reads` tells whether a value had to be read from the device to go on, which no capture can.
    """

    def __init__(self, model: ModelProto, source: Source, folder: Folder, device: str) -> None:
        self.model, self.source, self.folder, self.device = model, source, folder, device
        self.functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self.reads = False
        self._nodes = self._nesting = 0
        self._stored: dict[int, Tensor | Array] = {}  # by id of the proto, which the model keeps
        self._uploaded: dict[int, Tensor] = {}  # by id of an array in `_stored`

    # ---- values ----
    def stored(self, proto: TensorProto | SparseTensorProto) -> Tensor | Array:
        """A tensor of the file; the same object each time."""
        found = self._stored.get(id(proto))
        if found is None:
            if isinstance(proto, SparseTensorProto):
                found = load_sparse(self.source, self.folder, proto)
            else:
                found = load_tensor(self.source, self.folder, proto, self.device)
            self._stored[id(proto)] = found
            if isinstance(found, np.ndarray) and found.size > 1:
                self._uploaded[id(found)] = Tensor(found, self.device)
        return found

    def tensor(self, value: Value) -> Tensor:
        """A value as a Tensor."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, np.ndarray):
            found = self._uploaded.get(id(value))
            return Tensor(value, self.device) if found is None else found
        what = "an empty optional" if value is None else "a sequence"
        raise TypeError(f"{what} stands where a tensor must")

    def array(self, value: Value) -> Array:
        """A value as an array; reads the device if it must."""
        if isinstance(value, np.ndarray):
            return value
        self.reads = True
        return self.tensor(value).numpy()

    # ---- graphs ----
    def run(self, inputs: Mapping[str, Value]) -> list[Value]:
        """The outputs of the model's graph."""
        self._nodes = self._nesting = 0
        scope: ChainMap[str, Value] = ChainMap(dict(inputs))
        return self._graph(self.model.graph, scope, self.model.opsets, {}, set(inputs))

    def run_body(self, call: Call, graph: GraphProto, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a graph among a node's attributes."""
        names = [info.name for info in graph.inputs]
        if len(inputs) != len(names):
            raise TypeError(f"its body takes {len(names)} inputs and gets {len(inputs)}")
        scope = ChainMap[str, Value](dict(zip(names, inputs, strict=True)), *call.scope.maps)
        return self._graph(graph, scope, call.opsets, call.references, set(names))

    def _graph(
        self, graph: GraphProto, scope: ChainMap[str, Value], opsets: dict[str, int],
        references: dict[str, Any], given: set[str],
    ) -> list[Value]:
        for proto in graph.initializers:
            if proto.name not in given:
                scope[proto.name] = self.stored(proto)
        for sparse in graph.sparse_initializers:
            if sparse.values.name not in given:
                scope[sparse.values.name] = self.stored(sparse)
        self._run_nodes(graph.nodes, scope, opsets, references)
        return [self._look_up(scope, info.name) for info in graph.outputs]

    def _run_nodes(
        self, nodes: list[NodeProto], scope: ChainMap[str, Value], opsets: dict[str, int],
        references: dict[str, Any],
    ) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            self.source.refuse(f"its graphs nest deeper than {MAX_NESTING}")
        for node in nodes:
            self._nodes += 1
            if self._nodes > MAX_NODES:
                self.source.refuse(f"a call runs more than {MAX_NODES} nodes")
            try:
                self._node(node, scope, opsets, references)
            except (ModelError, JitError, MalformedInput):
                raise
            except NotSupported as error:
                raise NotSupported(self._where(node) + error.detail) from error
            except HardwareError:
                raise
            except (TinyhwError, *_CONFUSED) as error:
                reason = str(error) or type(error).__name__
                raise ModelError(self._where(node) + reason, operation=node.op_type) from error
        self._nesting -= 1

    def _where(self, node: NodeProto) -> str:
        return f"{self.source.name}: {node.label} ({node.op_type}) cannot be computed: "

    def _look_up(self, scope: MutableMapping[str, Value], name: str) -> Value:
        if name not in scope:
            self.source.refuse(f"nothing computes {name!r}, which is used")
        return scope[name]

    # ---- nodes ----
    def _node(
        self, node: NodeProto, scope: ChainMap[str, Value], opsets: dict[str, int],
        references: dict[str, Any],
    ) -> None:
        inputs = [self._look_up(scope, name) if name else None for name in node.inputs]
        attributes: dict[str, Any] = {}
        for name, value in node.attributes.items():
            if not isinstance(value, Reference):
                attributes[name] = value
            elif value.name in references:
                attributes[name] = references[value.name]
        function = self.functions.get((node.domain, node.op_type, node.overload))
        if function is not None:
            found: Any = tuple(self._function(function, inputs, attributes))
        else:
            version = opsets.get(node.domain, 0)
            entry = find(node.domain, node.op_type, version)
            if entry is None:
                raise NotSupported(f"{node.op_type} is not there in version {version}.")
            call = Call(node, version, self, scope, attributes, references, opsets)
            found = fold(call, inputs)
            if found is NotImplemented:
                found = entry.function(call, *self._arguments(entry, inputs))
        outputs = found if isinstance(found, tuple) else (found,)
        for i, name in enumerate(node.outputs):
            if name:
                if i >= len(outputs):
                    raise NotSupported(f"Output {i + 1} of {node.op_type} is not supported.")
                scope[name] = outputs[i]

    def _arguments(self, entry: Entry, inputs: list[Value]) -> list[Any]:
        found: list[Any] = []
        for i, value in enumerate(inputs):
            if value is None or entry.takes_as_is(i):
                found.append(value)
            elif i in entry.host:
                found.append(self.array(value))
            else:
                found.append(self.tensor(value))
        return found

    def _function(
        self, function: FunctionProto, inputs: list[Value], attributes: dict[str, Any]
    ) -> list[Value]:
        if len(inputs) > len(function.inputs):
            raise TypeError(f"it takes {len(function.inputs)} inputs and gets {len(inputs)}")
        given = [*inputs, *[None] * (len(function.inputs) - len(inputs))]
        scope: ChainMap[str, Value] = ChainMap(dict(zip(function.inputs, given, strict=True)))
        references = {**function.defaults, **attributes}
        self._run_nodes(function.nodes, scope, function.opsets, references)
        return [self._look_up(scope, name) for name in function.outputs]
