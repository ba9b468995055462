"""Matrix units: D = A·B + C of small matrices whose elements are spread over the lanes of a wave.

An instruction of this kind is one op, MATRIX, whatever the vendor; what differs is data: the shape,
the types, and which element each item of each lane's operands is.
"""

from __future__ import annotations

from typing import NamedTuple

from compiler.dtype import DType


class Digit(NamedTuple):
    """A digit of a number and what it is worth: number // divisor % base * weight."""

    divisor: int
    base: int
    weight: int

    def of(self, number: int) -> int:
        """What the digit is worth in `number`."""
        return number // self.divisor % self.base * self.weight


class Positions(NamedTuple):
    """Where elements lie along one axis of a matrix: digits of the lane and of the item."""

    lanes: tuple[Digit, ...] = ()
    items: tuple[Digit, ...] = ()

    def of_lane(self, lane: int) -> int:
        """The lane's part of the position."""
        return sum(digit.of(lane) for digit in self.lanes)

    def of_item(self, item: int) -> int:
        """The item's part of the position."""
        return sum(digit.of(item) for digit in self.items)


class Fragment(NamedTuple):
    """A matrix in the registers of a wave: `items` elements in every lane.

    `axes` are (row, depth) of A, (depth, column) of B, (row, column) of C and D.
    """

    axes: tuple[Positions, Positions]
    items: int

    def position(self, lane: int, item: int) -> tuple[int, int]:
        """The element that an item of a lane is."""
        first, second = (axis.of_lane(lane) + axis.of_item(item) for axis in self.axes)
        return first, second

    def offsets(self, axis: int) -> tuple[int, ...]:
        """How far along an axis the items of one lane lie apart, each distance once."""
        return tuple(dict.fromkeys(map(self.axes[axis].of_item, range(self.items))))

    def item(self, first: int, second: int) -> int:
        """The item at these offsets along both axes."""
        wanted = [first, second]
        return next(i for i in range(self.items) if [a.of_item(i) for a in self.axes] == wanted)


class MatrixUnit(NamedTuple):
    """One matrix instruction: (rows × depth) · (depth × columns), by `lanes` threads together.

    `inputs` is the type of A's and B's elements, `sums` that of C and D, with which products are
    added up. `name` is the back end's, `operand` its type of a lane's part of A and of B, or of the
    registers that hold it.
    """

    name: str
    rows: int
    columns: int
    depth: int
    inputs: DType
    sums: DType
    a: Fragment
    b: Fragment
    c: Fragment
    lanes: int
    operand: str
