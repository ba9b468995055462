"""Vars: what a recorded list leaves open, and how replay values reach the native patcher.

An encoder names each open place with `PatchTable.add`. The table gives the Var a slot (one for
each way its value is encoded) and the place a patch with limits. At replay `fill` packs the
values into the slots, with one `struct` call when nothing unusual is asked for, and native
code checks the limits and writes the places.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compiler.dtype import DType, dtypes, float_bits
from drivers.errors import ArgumentMismatch, MissingVariable
from drivers.memory import Buffer, format_bytes
from drivers.native.layout import Patch
from drivers.timeline import Point

SIGNED_MINIMUM, SIGNED_MAXIMUM = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True)
class Var:
    """A value that is named when a list is submitted or replayed: `submit(n=3)`.

    It may stand for a buffer or a scalar argument, a grid size, a copy's buffer or size, a
    written or polled value, or a Point.
    """

    name: str


@dataclass(frozen=True)
class Encoding:
    """How a kind of value lies in its 8-byte slot: a struct format, and who converts it."""

    kind: str
    format: str
    takes: str
    convert: Callable[[Any], Any] | None = None


INTEGER = Encoding("integer", "q", "an integer")
UNSIGNED = Encoding("unsigned", "Q", "an integer")
TIMELINE = Encoding("timeline", "Q", "a Point")
MOMENT = Encoding("moment", "q", "a Point")


def buffer_encoding(address: Callable[[Buffer], int]) -> Encoding:
    """A Buffer as the address that `address` tells of it."""
    return Encoding("buffer", "Q", "a Buffer", address)


def _bits(dtype: DType, value: float) -> int:
    return float_bits(float(value), dtype)


_FLOATS = {
    "float64": Encoding("float", "d", "a number"),
    "float32": Encoding("float32", "f4x", "a number"),
    "float16": Encoding("float16", "e6x", "a number"),
    **{
        dtype.name: Encoding(dtype.name, "Q", "a number", functools.partial(_bits, dtype))
        for dtype in (dtypes.bfloat16, *dtypes.fp8s)
    },
}


def scalar_encoding(dtype: DType) -> tuple[Encoding, int, int]:
    """How a scalar argument of a type is encoded, and the limits of its value."""
    if dtype.kind == "f":
        return _FLOATS[dtype.name], SIGNED_MINIMUM, SIGNED_MAXIMUM
    if dtype is dtypes.uint64:
        return UNSIGNED, SIGNED_MINIMUM, SIGNED_MAXIMUM
    return INTEGER, int(dtype.min), int(dtype.max)


def encode_scalar(dtype: DType, value: object, where: str, device: str) -> bytes:
    """The 8 bytes of argument memory for a value that is known when it is recorded."""
    encoding, minimum, maximum = scalar_encoding(dtype)
    try:
        given = encoding.convert(value) if encoding.convert else value
        packed = struct.pack("<" + encoding.format, given)
    except (struct.error, TypeError, ValueError, OverflowError) as error:
        raise ArgumentMismatch(
            f"{where} takes {encoding.takes} of type {dtype.name}, not {value!r}.",
            device=device,
            operation="exec",
        ) from error
    if encoding is INTEGER and not minimum <= int(value) <= maximum:  # type: ignore[call-overload]
        raise ArgumentMismatch(
            f"{where} is {value}, but {dtype.name} goes from {minimum} to {maximum}.",
            device=device,
            operation="exec",
        )
    return packed


@dataclass(frozen=True)
class Place:
    """One open place, for messages: which Var, where it stands, its limits."""

    name: str
    where: str
    minimum: int
    maximum: int


class PatchTable:
    """The open places of one list, and the values for them."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._slots: dict[tuple[str, Encoding], int] = {}
        self._patches: list[tuple[int, int, int, int, int]] = []
        self.places: list[Place] = []
        self._sizes: list[tuple[str | int, str | int, str]] = []

    def add(
        self,
        var: Var,
        encoding: Encoding,
        offset: int,
        where: str,
        width: int = 8,
        minimum: int = SIGNED_MINIMUM,
        maximum: int = SIGNED_MAXIMUM,
    ) -> None:
        """Leaves `width` bytes at `offset` of the block open for `var`."""
        slot = self._slots.setdefault((var.name, encoding), len(self._slots))
        self._patches.append((offset, slot, width, minimum, maximum))
        self.places.append(Place(var.name, where, minimum, maximum))

    def need(self, buffer: str | int, size: str | int, where: str) -> None:
        """Checks at replay that a buffer holds a size; strings are names of Vars."""
        self._sizes.append((buffer, size, where))

    @property
    def names(self) -> list[str]:
        """The Vars, each once, in the order of their first use."""
        return list(dict.fromkeys(name for name, _ in self._slots))

    @property
    def value_bytes(self) -> int:
        """How large the values are in memory."""
        return 8 * len(self._slots)

    @property
    def patch_count(self) -> int:
        """How many places are open."""
        return len(self._patches)

    @property
    def patch_bytes(self) -> int:
        """How large the patches are in memory."""
        return len(self._patches) * ctypes.sizeof(Patch)

    def write_patches(self, address: int) -> None:
        """Writes the patches for native code."""
        for i, (offset, slot, width, minimum, maximum) in enumerate(self._patches):
            patch = Patch.from_address(address + i * ctypes.sizeof(Patch))
            patch.offset, patch.slot, patch.width = offset, slot, width
            patch.minimum, patch.maximum = minimum, maximum

    def filler(self) -> Filler:
        """Made once for a bound list: packs the values of a replay."""
        return Filler(self, list(self._slots), self._sizes, self._device)

    def out_of_limits(self, index: int, given: dict[str, Any]) -> ArgumentMismatch:
        """The error for a value that native code refused."""
        place = self.places[index]
        value = given[place.name]
        if isinstance(value, Buffer):
            return ArgumentMismatch(f"{value!r} for {place.name} ({place.where}) has no memory.")
        return ArgumentMismatch(
            f"{place.name} is {value}, but {place.where} goes from {place.minimum} to "
            f"{place.maximum}.",
            device=self._device,
            operation="replay",
        )


class Filler:
    """Packs the values of a replay into their slots."""

    def __init__(
        self,
        table: PatchTable,
        slots: list[tuple[str, Encoding]],
        sizes: list[tuple[str | int, str | int, str]],
        device: str,
    ) -> None:
        self._slots, self._sizes, self._device = slots, sizes, device
        self._names = table.names
        self._count = len(self._names)
        self._pack = struct.Struct("<" + "".join(e.format for _, e in slots)).pack_into
        # Without buffers, points and conversions, the values go into struct as they are.
        self._plain = all(
            e.convert is None and e.kind not in ("timeline", "moment") for _, e in slots
        )
        self._order = [name for name, _ in slots]

    def fill(self, memory: memoryview, given: dict[str, Any]) -> None:
        """Writes the values; raises MissingVariable or ArgumentMismatch, naming the Var."""
        if len(given) != self._count:
            raise self._wrong_names(given)
        try:
            if self._plain:
                self._pack(memory, 0, *[given[name] for name in self._order])
                return
            values = []
            for name, encoding in self._slots:
                value = given[name]
                kind = encoding.kind
                if kind == "timeline":
                    value = value.timeline.address
                elif kind == "moment":
                    value = value.value
                elif encoding.convert is not None:
                    value = encoding.convert(value)
                values.append(value)
            self._pack(memory, 0, *values)
        except KeyError as error:
            raise self._wrong_names(given) from error
        except (struct.error, AttributeError, TypeError, ValueError, OverflowError) as error:
            raise self._wrong_value(given) from error
        for buffer, size, where in self._sizes:
            self._check_size(given, buffer, size, where)

    def _wrong_names(self, given: dict[str, Any]) -> MissingVariable:
        recorded = ", ".join(sorted(self._names)) or "none"
        for name in self._names:
            if name not in given:
                detail = f"No value was given for the Var {name!r}; this list has: {recorded}."
                return MissingVariable(detail, device=self._device, operation="replay")
        unknown = next(name for name in given if name not in self._names)
        detail = f"There is no Var {unknown!r} in this list; it has: {recorded}."
        return MissingVariable(detail, device=self._device, operation="replay")

    def _wrong_value(self, given: dict[str, Any]) -> ArgumentMismatch:
        for name, encoding in self._slots:
            value = given[name]
            if encoding.kind == "buffer":
                right = isinstance(value, Buffer)
            elif encoding.kind in ("timeline", "moment"):
                right = isinstance(value, Point)
            else:
                right = _packs(encoding, value)
            if not right:
                return ArgumentMismatch(
                    f"The Var {name!r} takes {encoding.takes} that fits into 64 bits, "
                    f"not {value!r}.",
                    device=self._device,
                    operation="replay",
                )
        return ArgumentMismatch("The values do not fit.", device=self._device, operation="replay")

    def _check_size(
        self, given: dict[str, Any], buffer: str | int, size: str | int, where: str
    ) -> None:
        holds = buffer if isinstance(buffer, int) else int(given[buffer].size_bytes)
        needs = size if isinstance(size, int) else int(given[size])
        if not 0 <= needs <= holds:
            raise ArgumentMismatch(
                f"{where} is {needs} bytes, but the buffer has {format_bytes(holds)} ({holds}).",
                device=self._device,
                operation="replay",
            )


def _packs(encoding: Encoding, value: object) -> bool:
    try:
        given = encoding.convert(value) if encoding.convert else value
        struct.pack("<" + encoding.format, given)
    except (struct.error, TypeError, ValueError, OverflowError):
        return False
    return True
