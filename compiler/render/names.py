"""What renderers of text share: names for values, and what a walk over the body must know."""

from __future__ import annotations

import re
from collections import Counter

from compiler.errors import InvalidKernel
from compiler.ir import Node, Op
from compiler.linear import LinearKernel


class Names:
    """The operand text of every node computed so far.

    Buffers are `data0`, `data1`, ..., by argument slot; Variables keep their name behind `var_`;
    all other values are called after their operation and counted: `load0`, `mul3`.
    """

    def __init__(self, kernel: LinearKernel, prefix: str = "") -> None:
        self.kernel, self.prefix = kernel, prefix
        self._counts: Counter[str] = Counter()
        self._text: dict[Node, str] = {}
        for slot, param in enumerate(kernel.params):
            name = f"data{slot}" if param.op is Op.PARAM else f"var_{identifier(param.arg[0])}"
            self._text[param] = prefix + name

    def fresh(self, stem: str) -> str:
        """A name that is in use nowhere else."""
        number = self._counts[stem]
        self._counts[stem] += 1
        return f"{self.prefix}{stem}{number}"

    def __setitem__(self, node: Node, text: str) -> None:
        self._text[node] = text

    def __getitem__(self, node: Node) -> str:
        found = self._text.get(node)
        if found is None:
            raise InvalidKernel(
                f"Kernel {self.kernel.name} uses {node!r} before it is computed.",
                operation="render",
            )
        return found


def identifier(name: str) -> str:
    """`name` with everything replaced that no language allows in a name."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def is_constant(node: Node) -> bool:
    """Whether all lanes are known now."""
    return (
        node.op is Op.RAMP
        or splat_value(node) is not None
        or (node.op is Op.STACK and all(s.op is Op.CONST for s in node.src))
    )


def splat_value(node: Node) -> Node | None:
    """The CONST that all lanes have, if it is one."""
    if node.op is Op.BROADCAST:
        node = node.src[0]
    return node if node.op is Op.CONST else None


def uniform_gate(gate: Node | None) -> Node | None:
    """A gate that is the same in all lanes, as one bool."""
    if gate is not None and gate.op is Op.BROADCAST:
        return gate.src[0]
    return gate if gate is not None and gate.dtype.lanes == 1 else None


def is_first_lane(gate: Node) -> bool:
    """Whether a gate is known to be open in the first lane alone."""
    if gate.op is not Op.CMPLT or gate.src[0].op is not Op.RAMP:
        return False
    limit = splat_value(gate.src[1])
    return limit is not None and limit.arg == 1


def vector_loops(body: tuple[Node, ...]) -> set[Node]:
    """The loops that compute with vectors already, which no compiler need vectorise again."""
    found: set[Node] = set()
    open_loops: list[Node] = []
    for node in body:
        if node.op is Op.LOOP:
            open_loops.append(node)
        elif node.op is Op.END:
            open_loops.pop()
        elif any(s.dtype.lanes > 1 for s in node.src):
            found.update(open_loops)
    return found
