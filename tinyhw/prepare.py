"""The first step of scheduling: no marks of gradients, and Variables apart from their values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compiler.ir import MOVEMENT, Node, Op, Shape
from compiler.symbolic import with_sources
from tinyhw.errors import VariableError


def walk(roots: Iterable[Node]) -> list[Node]:
    """Every node below the roots, sources before their users."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[Node | None] = []
    path: list[Node] = []  # nodes whose sources are on the stack above a None
    for root in roots:
        if root in seen:
            continue
        stack.append(root)
        while stack:
            node = stack.pop()
            if node is None:
                order.append(path.pop())
            elif node not in seen:
                seen.add(node)
                if node.src:
                    path.append(node)
                    stack.append(None)
                    stack.extend(reversed(node.src))
                else:
                    order.append(node)
    return order


def users_of(order: Iterable[Node]) -> dict[Node, list[Node]]:
    """For every node of `order`, the nodes of it that have it as a source, once each."""
    found: dict[Node, list[Node]] = {}
    for node in order:
        found[node] = []
        src = node.src
        if len(src) == 1:
            found[src[0]].append(node)
        else:
            for s in dict.fromkeys(src):
                found[s].append(node)
    return found


def rebuilt(node: Node, src: tuple[Node, ...]) -> Node:
    """`node` on other sources; reshapes of reshapes and permutes of permutes become one."""
    if src == node.src:
        return node
    if node.op is Op.RESHAPE:
        return src[0].reshape(node.arg)
    if node.op is Op.PERMUTE:
        return src[0].permute(node.arg)
    return with_sources(node, src)


def has_variables(shape: Shape) -> bool:
    """Whether some extent is not a plain number."""
    return any(type(extent) is not int for extent in shape)


class Preparation:
    """Prepares graphs: DETACH goes, each BIND becomes its VARIABLE, its value goes to `values`.

    `done` maps every original node to what it became. What is copied to another device is
    stored as it is copied: a CONTIGUOUS is put before a COPY of a view.
    """

    def __init__(self) -> None:
        self.done: dict[Node, Node] = {}
        self.values: dict[str, int] = {}
        self.variables: dict[str, Node] = {}
        self.binds: dict[Node, Node] = {}  # VARIABLE -> the BIND that gave its value

    def run(self, roots: Iterable[Node]) -> None:
        """Prepares the graphs of `roots`; may be called again for more."""
        done = self.done
        for node in walk(roots):
            if node in done:
                continue
            op = node.op
            if op is Op.DETACH:
                done[node] = done[node.src[0]]
            elif op is Op.BIND:
                done[node] = self._bind(node)
            elif op is Op.COPY:
                done[node] = self._copy(node)
            elif not node.src:
                done[node] = node if op is not Op.IOTA else self._with_argument(node, ())
            else:
                src = tuple([done[s] for s in node.src])
                if op in MOVEMENT and _symbolic(node):
                    done[node] = self._with_argument(node, src)
                else:
                    done[node] = rebuilt(node, src)

    def _bind(self, node: Node) -> Node:
        variable, value = node.src
        name, given = str(variable.arg[0]), int(value.arg)
        other = self.variables.setdefault(name, variable)
        if other is not variable:
            raise VariableError(
                f"Two Variables are named {name}: one of [{other.arg[1]}, {other.arg[2]}], one of "
                f"[{variable.arg[1]}, {variable.arg[2]}].",
                operation="realize",
                remedy="Use one Variable, or give the other a name of its own.",
            )
        known = self.values.setdefault(name, given)
        if known != given:
            raise VariableError(
                f"The Variable {name} is bound to {known} and to {given} in one computation.",
                operation="realize",
                remedy="Realize one of the tensors before binding the Variable to another value.",
            )
        self.binds[variable] = node
        return variable

    def _copy(self, node: Node) -> Node:
        source = self.done[node.src[0]]
        if source.device is None or source.device == node.arg:
            return source
        stored = source
        while stored.op is Op.RESHAPE or stored.op is Op.AFTER:
            stored = stored.src[0]
        if stored.op in MOVEMENT:
            source = source.contiguous()
        return node.with_src((source,))

    def _with_argument(self, node: Node, src: tuple[Node, ...]) -> Node:
        new = Node(node.op, node.dtype, src, self._argument(node.arg))
        if new.origin is None:
            new.origin = node.origin
        return new

    def _argument(self, arg: Any) -> Any:
        if isinstance(arg, Node):
            self.run((arg,))
            return self.done[arg]
        if type(arg) is tuple:
            return tuple(self._argument(part) for part in arg)
        return arg


def _symbolic(node: Node) -> bool:
    if has_variables(node.shape) or has_variables(node.src[0].shape):
        return True
    if node.op is Op.SHRINK or node.op is Op.PAD:
        return any(has_variables(pair) for pair in node.arg)
    return False
