"""Variables: integers known only at launch, which may stand as extents of shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from compiler.ir import Extent, Node, Op, find, substitute
from compiler.symbolic import bounds, evaluate
from tinyhw.errors import IndexOutOfRange, VariableError


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
        return binding(self.node, value)

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


def binding(variable: Node, value: int) -> Node:
    """A VARIABLE node with a value."""
    return Node(Op.BIND, variable.dtype, (variable, Node.const(value, variable.dtype)))


def unbound(extent: Node) -> tuple[Node, dict[str, int]]:
    """An index expression without the values that its Variables are bound to, and those."""
    binds = {bind: bind.src[0] for bind in find(extent, Op.BIND)}
    values = {str(bind.src[0].arg[0]): int(bind.src[1].arg) for bind in binds}
    return substitute(extent, binds), values


def without_value(extent: Extent) -> Extent:
    """An extent without the values of its Variables."""
    return unbound(extent)[0] if isinstance(extent, Node) else extent


@dataclass(frozen=True)
class Condition:
    """An amount over VARIABLEs that must not be negative, and what is wrong where it is."""

    amount: Node
    wrong: str
    values: tuple[tuple[str, int], ...]
    """Those with which it was noted."""
    noted: ClassVar[list[Condition] | None] = None
    """Where a TinyJit that captures collects what its replays must check again."""

    def check(self, values: Mapping[str, int]) -> None:
        """Raises IndexOutOfRange for values with which it does not hold."""
        variables = {v: values[str(v.arg[0])] for v in find(self.amount, Op.VARIABLE)}
        if evaluate(self.amount, variables) < 0:
            given = ", ".join(f"{name}={values[name]}" for name, _ in self.values)
            raise IndexOutOfRange(f"{self.wrong} where {given}.")


def require_not_negative(amounts: Iterable[Extent], wrong: Callable[[], str]) -> None:
    """Raises IndexOutOfRange if an amount is negative for the present values of its Variables.

    What does not hold for all values is noted for a capture's replays. `wrong` says what is wrong,
    for any values.
    """
    for amount in amounts:
        if isinstance(amount, Node):
            if bounds(amount)[0] < 0:
                _require_of_values(amount, wrong)
        elif amount < 0:
            raise IndexOutOfRange(f"{wrong()}.")


def _require_of_values(amount: Node, wrong: Callable[[], str]) -> None:
    form, values = unbound(amount)
    if any(str(v.arg[0]) not in values for v in find(form, Op.VARIABLE)):
        return  # nothing is computed without a value
    condition = Condition(form, wrong(), tuple(sorted(values.items())))
    condition.check(values)
    if Condition.noted is not None:
        Condition.noted.append(condition)


def unbind(bound: Node) -> tuple[Node, int]:
    """The VARIABLE node and the value of what `Variable.bind` returned."""
    if bound.op is not Op.BIND:
        raise VariableError(f"{bound!r} is not a bound Variable.")
    variable, value = bound.src
    return variable, int(value.arg)
