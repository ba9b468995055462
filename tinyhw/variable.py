"""Variables: integers known only at launch, which may stand as extents of shapes."""

from __future__ import annotations

from compiler.ir import Extent, Node, Op
from tinyhw.errors import VariableError


class Variable:
    """An integer in [min, max]; `Variable("n", 1, 10).bind(3)` is an extent whose value is 3.

    A kernel made with it works for every value in the interval. Arithmetic with a Variable
    gives index expressions, which are extents too.
    """

    __slots__ = ("node",)
    node: Node

    def __init__(self, name: str, min: int, max: int) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise VariableError(f"A Variable's name must be an identifier, not {name!r}.")
        if not (type(min) is int and type(max) is int and 0 <= min <= max):
            raise VariableError(
                f"Variable {name!r} has the bounds {min!r} and {max!r}; "
                "they must be integers with 0 <= min <= max."
            )
        self.node = Node.variable(name, min, max)

    @property
    def name(self) -> str:
        """The name, by which values are given at launch."""
        return str(self.node.arg[0])

    @property
    def min(self) -> int:
        """The least value that it can have."""
        return int(self.node.arg[1])

    @property
    def max(self) -> int:
        """The greatest value that it can have."""
        return int(self.node.arg[2])

    def bind(self, value: int) -> Node:
        """The extent that is this Variable with a present value."""
        if type(value) is not int:
            raise VariableError(f"Variable {self.name!r} is bound to {value!r}, not an integer.")
        if not self.min <= value <= self.max:
            raise VariableError(
                f"Variable {self.name!r} is bound to {value}, outside [{self.min}, {self.max}]."
            )
        constant = Node.const(value, self.node.dtype)
        return Node(Op.BIND, self.node.dtype, (self.node, constant))

    def __add__(self, other: Extent) -> Node:
        return self.node + other

    __radd__ = __add__

    def __sub__(self, other: Extent) -> Node:
        return self.node - other

    def __mul__(self, other: Extent) -> Node:
        return self.node * other

    __rmul__ = __mul__

    def __floordiv__(self, other: Extent) -> Node:
        return self.node // other

    def __mod__(self, other: Extent) -> Node:
        return self.node % other

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.min}, {self.max})"


def unbind(bound: Node) -> tuple[Node, int]:
    """The VARIABLE node and the value of what `Variable.bind` returned."""
    if bound.op is not Op.BIND:
        raise VariableError(f"{bound!r} is not a bound Variable.")
    variable, value = bound.src
    return variable, int(value.arg)
