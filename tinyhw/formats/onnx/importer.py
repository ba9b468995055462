"""OnnxModel: a file that is called with tensors and gives tensors."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from tinyhw.device import Device
from tinyhw.errors import DtypeError, JitError, ModelError, NotSupported, ShapeError
from tinyhw.formats.files import map_file
from tinyhw.formats.onnx import operators  # noqa: F401  (registers them)
from tinyhw.formats.onnx.folding import HOST_DTYPES
from tinyhw.formats.onnx.interpreter import MAX_NESTING, Interpreter
from tinyhw.formats.onnx.model import (
    FunctionProto,
    GraphProto,
    NodeProto,
    TensorProto,
    TypeProto,
    read_model,
)
from tinyhw.formats.onnx.registry import Value, find
from tinyhw.formats.onnx.tensors import DTYPES, NARROW, Array, Folder, type_name
from tinyhw.formats.onnx.wire import Source, quoted
from tinyhw.jit import TinyJit
from tinyhw.tensor import Tensor

NEWEST: Final = {  # versions of operator sets that are known: onnx 1.23
    "": 28, "ai.onnx.ml": 5, "ai.onnx.preview": 1, "ai.onnx.preview.training": 1,
    "ai.onnx.training": 1,
}
MAX_CAPTURES: Final = 8  # shapes of inputs for which a captured run is kept
# Which inputs may be integers of 2 and 4 bits.
_TAKE_NARROW: Final = {"DequantizeLinear": (0, 2), "Cast": (0,), "CastLike": (0,)}
_LISTED: Final = 100  # unsupported nodes that a message names

Given: TypeAlias = "Tensor | Array | list[Any] | tuple[Any, ...] | int | float | bool | None"


class OnnxModel:
    """An ONNX model; calling it runs it.

    model: a path, or the file's bytes. Weights stay in the mapped file until they are used.
    device: where it runs; the default device for None.

    `model(name=array)` or `model({"name": array})` gives a dict of the outputs by name. For every
    set of shapes the first calls run node by node and later ones replay a capture (TinyJit); a
    model whose shapes or branches depend on values runs node by node each time. An input that is
    given as a Python number, or a list of integers, may decide them: each value has a capture.

    Raises MalformedInput for a file that contradicts itself, NotSupported for operators that are
    not there (all of them, with their nodes), ModelError when a node cannot be computed.
    """

    def __init__(
        self, model: str | os.PathLike[str] | bytes | bytearray | memoryview,
        device: str | None = None,
    ) -> None:
        if isinstance(model, bytes | bytearray | memoryview):
            name, data, folder = "the model", memoryview(model).cast("B"), Folder(None)
        else:
            name, data = os.fspath(model), map_file(model)
            folder = Folder(Path(model).parent)
        source = Source(name, len(data))
        self.name, self.device = name, Device.canonicalize(device)
        self.model = read_model(source, data)
        self._run = Interpreter(self.model, source, folder, self.device)
        self._captures: OrderedDict[Any, TinyJit[..., dict[str, Any]] | None] = OrderedDict()
        _check_nodes(self._run)
        graph = self.model.graph
        for proto in graph.initializers:
            self._run.stored(proto)
        for sparse in graph.sparse_initializers:
            self._run.stored(sparse)
        stored = {proto.name for proto in graph.initializers}
        stored |= {sparse.values.name for sparse in graph.sparse_initializers}
        self.inputs = {i.name: i.type for i in graph.inputs if i.name not in stored}
        self._defaults = {i.name: i.type for i in graph.inputs if i.name in stored}
        self.outputs = {output.name: output.type for output in graph.outputs}

    def __repr__(self) -> str:
        return f"<OnnxModel {self.name}: {', '.join(self.inputs)} → {', '.join(self.outputs)}>"

    @property
    def captured(self) -> bool:
        """Whether calls of some shapes are replayed."""
        return any(jit is not None and jit.captured for jit in self._captures.values())

    def __call__(
        self, inputs: Mapping[str, Given] | None = None, /, **named: Given
    ) -> dict[str, Any]:
        """The outputs by name: Tensors (lists of them for sequences, None for empty optionals)."""
        given = {**(inputs or {}), **named}
        self._check_names(given)
        values = {name: self._input(name, given[name]) for name in given}
        key = _key(values)
        if key is None:
            return self._compute(values)
        known = {name: x for name, x in values.items() if not isinstance(x, Tensor)}
        tensors = {name: x for name, x in values.items() if isinstance(x, Tensor)}
        if key not in self._captures:
            self._captures[key] = TinyJit(lambda **given: self._compute({**given, **known}))
            if len(self._captures) > MAX_CAPTURES:
                self._captures.popitem(last=False)
        self._captures.move_to_end(key)
        jit = self._captures[key]
        self._run.reads = False
        try:
            found = self._compute(values) if jit is None else jit(**tensors)
        except JitError:  # it has nothing to replay: all that it does is known, or is a view
            self._captures[key] = None
            found = self._compute(values)
        if self._run.reads:
            self._captures[key] = None
            return found
        # The next replay overwrites what it gave.
        return {name: _kept(value) for name, value in found.items()}

    def _compute(self, values: Mapping[str, Value]) -> dict[str, Any]:
        outputs = self._run.run(values)
        found = {
            name: self._output(value)
            for name, value in zip(self.outputs, outputs, strict=True)
        }
        tensors = [t for value in found.values() for t in _tensors(value)]
        if tensors:
            tensors[0].realize(*tensors[1:])
        return found

    def _output(self, value: Value) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return [self._output(item) for item in value]
        return self._run.tensor(value).to(self.device)

    # ---- inputs ----
    def _check_names(self, given: Mapping[str, Any]) -> None:
        known = {**self.inputs, **self._defaults}
        wrong = [name for name in given if name not in known]
        missing = [name for name in self.inputs if name not in given]
        if wrong or missing:
            parts = [f"it has no input {', '.join(map(quoted, wrong))}"] if wrong else []
            parts += [f"{', '.join(map(quoted, missing))} is missing"] if missing else []
            raise ModelError(
                f"{self.name}: {'; '.join(parts)}. Its inputs are "
                f"{', '.join(map(quoted, known)) or 'none'}."
            )

    def _input(self, name: str, value: Any) -> Value:
        declared = self.inputs.get(name) or self._defaults[name]
        return self._as_declared(name, value, declared)

    def _as_declared(self, name: str, value: Any, declared: TypeProto) -> Value:
        if declared.kind == "optional" and declared.inner is not None:
            return None if value is None else self._as_declared(name, value, declared.inner)
        if declared.kind == "sequence" and declared.inner is not None:
            return [self._as_declared(name, item, declared.inner) for item in value]
        wanted = DTYPES.get(declared.elem_type)
        if declared.elem_type in NARROW:
            wanted = NARROW[declared.elem_type][1]
        if declared.kind != "tensor" or wanted is None:
            raise NotSupported(
                f"{self.name}: input {name!r} is a {declared.kind or 'value without type'} of "
                f"{type_name(declared.elem_type)}, which no tensor is."
            )
        given: Tensor | Array
        if isinstance(value, Tensor):
            given = value if value.device == self.device else value.to(self.device)
        elif _is_plain(value) and wanted in HOST_DTYPES:
            given = np.array(value, wanted.name)
        else:
            listed = isinstance(value, list | tuple)
            given = Tensor(value, self.device, wanted if listed else None)
        if given.dtype.name != wanted.name:
            raise DtypeError(
                f"{self.name}: input {name!r} has elements of {wanted.name}, not "
                f"{given.dtype.name}; cast it first."
            )
        shape = declared.shape
        if shape is not None and not _fits(shape, given.shape):
            raise ShapeError(
                f"{self.name}: input {name!r} has the shape {_shape_text(shape)}, not "
                f"{given.shape}."
            )
        return given


def _is_plain(value: Any) -> bool:
    """Whether an input is a Python number, or a list of integers: known before anything runs."""
    if isinstance(value, list | tuple):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) in (bool, int, float)


def _key(values: Mapping[str, Value]) -> tuple[Any, ...] | None:
    """What a capture is for: shapes of Tensors, and values of arrays; None for sequences."""
    key: list[Any] = []
    for name, x in sorted(values.items()):
        if isinstance(x, Tensor):
            key.append((name, x.shape, x.dtype.name))
        elif isinstance(x, np.ndarray):
            key.append((name, x.shape, x.dtype.name, x.tobytes()))
        else:
            return None
    return tuple(key)


def _kept(value: Any) -> Any:
    if isinstance(value, list):
        return [_kept(item) for item in value]
    return None if value is None else value.clone().realize()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _tensors(item)


def _fits(declared: tuple[int | str | None, ...], shape: tuple[Any, ...]) -> bool:
    return len(declared) == len(shape) and all(
        not isinstance(n, int) or n == m for n, m in zip(declared, shape, strict=True)
    )


def _shape_text(shape: tuple[int | str | None, ...] | None) -> str:
    return f"({', '.join('?' if n is None else str(n) for n in shape or ())})"


def _check_nodes(run: Interpreter) -> None:
    """Raises NotSupported that lists every node whose operator is not there."""
    model, source = run.model, run.source
    missing: list[str] = []
    for domain, version in model.opsets.items():
        if version > NEWEST.get(domain, version):
            raise NotSupported(
                f"{source.name}: it uses version {version} of the operator set "
                f"{domain or 'ai.onnx'!r}; versions up to {NEWEST[domain]} are known."
            )
    _check_functions(run)
    narrow = _narrow_values(model.graph.nodes, model.graph)
    bodies = [(model.graph.nodes, model.opsets, narrow, 0)]
    bodies += [(f.nodes, f.opsets, _narrow_values(f.nodes), 0) for f in model.functions]
    while bodies:
        nodes, opsets, narrow, depth = bodies.pop()
        if depth > MAX_NESTING:
            source.refuse(f"its graphs nest deeper than {MAX_NESTING}")
        for node in nodes:
            for graph in _graphs(node):
                inner = {**narrow, **_narrow_values(graph.nodes, graph)}
                bodies.append((graph.nodes, opsets, inner, depth + 1))
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            called = (node.domain, node.op_type, node.overload) in run.functions
            version = opsets.get(node.domain, 0)
            if not called and find(node.domain, node.op_type, version) is None:
                missing.append(f"{name} ({node.label})")
                continue
            takes = _TAKE_NARROW.get(name, ())
            kinds = {
                type_name(narrow[value]) for i, value in enumerate(node.inputs)
                if value in narrow and i not in takes
            }
            missing.extend(f"{name} of {kind} ({node.label})" for kind in sorted(kinds))
    if missing:
        shown = ", ".join(missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise NotSupported(
            f"{source.name}: these operators are not supported: {shown}{more}.", operation="load"
        )


def _narrow_values(nodes: list[NodeProto], graph: GraphProto | None = None) -> dict[str, int]:
    """Inputs and stored tensors of 2- and 4-bit integers, by name, with their types.

    They are kept in bytes, so only what does not ask how wide they are may read them.
    """
    kinds: dict[str, int] = {}
    if graph is not None:
        kinds |= {proto.name: proto.data_type for proto in graph.initializers}
        kinds |= {info.name: info.type.elem_type for info in graph.inputs}
    for node in nodes:
        stored = node.attributes.get("value") if node.op_type == "Constant" else None
        if isinstance(stored, TensorProto) and node.outputs:
            kinds[node.outputs[0]] = stored.data_type
    return {name: kind for name, kind in kinds.items() if kind in NARROW}


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    for value in node.attributes.values():
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, GraphProto):
                yield item


def _check_functions(run: Interpreter) -> None:
    """Refuses functions that call themselves, by whatever way."""
    state: dict[int, int] = {}  # id of a function -> 1 while it is looked at, 2 when done

    def visit(function: FunctionProto, depth: int) -> None:
        if state.get(id(function)) == 1 or depth > MAX_NESTING:
            run.source.refuse(
                f"its function {quoted(function.name)} calls itself, or functions nest deeper "
                f"than {MAX_NESTING}"
            )
        if state.get(id(function)) == 2:
            return
        state[id(function)] = 1
        pending = list(function.nodes)
        while pending:
            node = pending.pop()
            pending.extend(inner for graph in _graphs(node) for inner in graph.nodes)
            called = run.functions.get((node.domain, node.op_type, node.overload))
            if called is not None:
                visit(called, depth + 1)
        state[id(function)] = 2

    for function in run.model.functions:
        visit(function, 0)
