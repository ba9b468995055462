"""Kernels as lines of JSON: what was compiled, for what, and what came out.

Graphs and targets are spelled with names, not with numbers or pickles, so that a recording of one
revision can be read by another, by a human too, and cannot run code.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op, toposort
from compiler.matrix import Digit, Fragment, MatrixUnit, Positions
from compiler.target import Target

_CLASSES = {c.__name__: c for c in (Digit, Fragment, MatrixUnit, Positions, Target)}


class MalformedRecord(ValueError):
    """A recording holds what no recording of ours does."""


@dataclass(frozen=True)
class Record:
    """One kernel: `graph` and `target` as text, the `source` made of them, and who asked first."""

    graph: str
    target: str
    source: str
    test: str = ""

    @classmethod
    def of(cls, ast: Node, target: Target, source: str, test: str = "") -> Record:
        """The record of a compilation."""
        return cls(graph_text(ast), _dump(_encode(target, {})), source, test)

    @property
    def key(self) -> tuple[str, str]:
        """What decides the source."""
        return self.graph, self.target

    def ast(self) -> Node:
        """The graph as nodes."""
        nodes: list[Node] = []
        try:
            for op, dtype, src, arg in json.loads(self.graph):
                parts = tuple(nodes[i] for i in src)
                nodes.append(Node(Op[op], _dtype(dtype), parts, _decode(arg, nodes)))
            return nodes[-1]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise MalformedRecord(f"The graph of a record cannot be read: {error!r}.") from error

    def target_object(self) -> Target:
        """The target as the compiler takes it."""
        target = _decode(json.loads(self.target), [])
        if not isinstance(target, Target):
            raise MalformedRecord(f"A record is for {self.target}, which is no target.")
        return target


def graph_text(root: Node) -> str:
    """A graph as a list of [op, dtype, sources, arg], sources before their users."""
    numbers: dict[Node, int] = {}
    lines = []
    for node in _order(root):
        src = [numbers[s] for s in node.src]
        lines.append(_dump([node.op.name, repr(node.dtype), src, _encode(node.arg, numbers)]))
        numbers[node] = len(numbers)
    return "[" + ",\n".join(lines) + "]"


def _order(root: Node) -> list[Node]:
    """Every node below the root, those in arguments (extents) too."""
    found: dict[Node, None] = {}
    for node in toposort(root):
        for part in _nodes_in(node.arg):
            found.update(dict.fromkeys(_order(part)))
        found[node] = None
    return list(found)


def _nodes_in(arg: Any) -> Iterator[Node]:
    if isinstance(arg, Node):
        yield arg
    elif isinstance(arg, tuple):
        for part in arg:
            yield from _nodes_in(part)


def _encode(value: Any, numbers: dict[Node, int]) -> Any:
    match value:
        case Op():
            return {"op": value.name}
        case None | bool() | int() | str():
            return value
        case float():
            return {"float": value.hex()}
        case DType():
            return {"dtype": repr(value)}
        case Node():
            return {"node": numbers[value]}
        case _ if is_dataclass(value) or hasattr(value, "_fields"):
            names = getattr(value, "_fields", None) or [f.name for f in fields(value)]
            members = {name: _encode(getattr(value, name), numbers) for name in names}
            return {"class": type(value).__name__, "members": members}
        case tuple():
            return [_encode(part, numbers) for part in value]
    raise TypeError(f"{value!r} has no place in a record")


def _decode(value: Any, nodes: list[Node]) -> Any:
    match value:
        case list():
            return tuple(_decode(part, nodes) for part in value)
        case {"op": name}:
            return Op[name]
        case {"float": text}:
            return float.fromhex(text)
        case {"dtype": text}:
            return _dtype(text)
        case {"node": number}:
            return nodes[number]
        case {"class": name, "members": members}:
            return _CLASSES[name](**{key: _decode(part, nodes) for key, part in members.items()})
        case dict():
            raise MalformedRecord(f"{value} is no part of a record.")
    return value


def _dtype(text: str) -> DType:
    """The type that a repr (`dtypes.float32.vec(4)`) stands for."""
    name, _, lanes = text.removeprefix("dtypes.").partition(".vec(")
    dtype = dtypes.from_name(name)
    return dtype.vec(int(lanes.rstrip(")"))) if lanes else dtype


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


# ---- files ----


def write(path: Path, records: Iterable[Record]) -> None:
    """Makes a recording, in an order that does not depend on who was first."""
    with gzip.open(path, "wt", compresslevel=3) as file:
        for record in sorted(records, key=lambda r: r.key):
            file.write(_dump(record.__dict__) + "\n")


def read(path: Path) -> dict[tuple[str, str], Record]:
    """The kernels of a recording. Raises OSError, MalformedRecord."""
    found: dict[tuple[str, str], Record] = {}
    with gzip.open(path, "rt") as file:
        try:
            for line in file:
                record = Record(**json.loads(line))
                known = found.get(record.key)
                if known is None or record.test < known.test:
                    found[record.key] = record
        except (ValueError, TypeError, EOFError) as error:
            raise MalformedRecord(f"{path} is no recording: {error}.") from error
    return found
