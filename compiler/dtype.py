"""Element types: what is stored in a buffer and computed in a register."""

from __future__ import annotations

import math
import struct
from typing import Final

ConstType = bool | int | float


class DType:
    """One element type, or a vector of one; instances are unique, so `is` and `==` agree.

    `name` is the name users know, `bits` the storage width of one lane, `kind` one of
    'b' (bool), 'i', 'u', 'f'; `priority` orders the promotion of mixed operands;
    `lanes` is 1 except for vector registers inside a kernel.
    """

    __slots__ = ("name", "bits", "kind", "priority", "lanes", "_vectors", "scalar")

    def __init__(self, name: str, bits: int, kind: str, priority: int) -> None:
        self.name, self.bits, self.kind, self.priority = name, bits, kind, priority
        self.lanes = 1
        self._vectors: dict[int, DType] = {}
        self.scalar: DType = self

    def vec(self, lanes: int) -> DType:
        """The vector type of `lanes` lanes of this scalar type (itself for one lane)."""
        if lanes == 1:
            return self.scalar
        found = self.scalar._vectors.get(lanes)
        if found is None:
            found = DType(self.name, self.bits, self.kind, self.priority)
            found.lanes, found.scalar = lanes, self.scalar
            self.scalar._vectors[lanes] = found
        return found

    @property
    def itemsize(self) -> int:
        """Bytes one lane takes in memory."""
        return (self.bits + 7) // 8

    @property
    def has_infinity(self) -> bool:
        """Whether infinities are among the values: all floats' but float8_e4m3fn's."""
        return self.kind == "f" and self.name != "float8_e4m3fn"

    @property
    def min(self) -> ConstType:
        """The smallest value: -inf for floats that have it."""
        if self.kind == "f":
            return -self.max
        if self.kind == "b":
            return False
        return -(1 << (self.bits - 1)) if self.kind == "i" else 0

    @property
    def max(self) -> ConstType:
        """The largest value: inf for floats that have it."""
        if self.kind == "f":
            return math.inf if self.has_infinity else greatest_finite(self)
        if self.kind == "b":
            return True
        return (1 << (self.bits - 1)) - 1 if self.kind == "i" else (1 << self.bits) - 1

    def const(self, value: ConstType) -> ConstType:
        """`value` as this type holds it: truncated, wrapped or rounded as a cast would."""
        if self.kind == "b":
            return bool(value)
        if self.kind == "f":
            return round_to(float(value), self.scalar)
        if isinstance(value, float) and not math.isfinite(value):
            return 0 if math.isnan(value) else (self.max if value > 0 else self.min)
        wrapped = int(value) & ((1 << self.bits) - 1)
        if self.kind == "i" and wrapped >> (self.bits - 1):
            wrapped -= 1 << self.bits
        return wrapped

    def __repr__(self) -> str:
        base = f"dtypes.{self.name}"
        return base if self.lanes == 1 else f"{base}.vec({self.lanes})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (self.name, self.lanes))


def round_to(value: float, dtype: DType) -> float:
    """Rounds a Python float to nearest-even in a float type, as a cast from float64 does.

    Overflow gives infinity, or the greatest value where there is none (float8_e4m3fn). The 8-bit
    types are rounded to by way of float32, as PyTorch does.
    """
    if dtype.bits == 64 or math.isnan(value) or value == 0:
        return value
    if math.isinf(value):
        return math.copysign(dtype.max, value)
    try:
        if dtype.bits == 8:
            value = float(struct.unpack("<f", struct.pack("<f", value))[0])
        elif dtype.name == "float32":
            return float(struct.unpack("<f", struct.pack("<f", value))[0])
        elif dtype.name == "float16":
            return float(struct.unpack("<e", struct.pack("<e", value))[0])
    except OverflowError:
        return math.copysign(dtype.max, value)
    exponent_bits, mantissa_bits = FORMATS[dtype.name]
    mantissa, exponent = math.frexp(value)
    lowest = 3 - (1 << (exponent_bits - 1))  # of the least normal number, as frexp gives it
    scale = max(exponent, lowest) - mantissa_bits - 1
    rounded = math.ldexp(float(round(math.ldexp(mantissa, exponent - scale))), scale)
    if abs(rounded) > greatest_finite(dtype):
        return math.copysign(dtype.max, value)
    return math.copysign(rounded, value)


def greatest_finite(dtype: DType) -> float:
    """The greatest number of a float type that is not infinite."""
    if not dtype.has_infinity:
        return 448.0
    exponent_bits, mantissa_bits = FORMATS[dtype.name]
    return math.ldexp(2 - 2.0**-mantissa_bits, (1 << (exponent_bits - 1)) - 1)


def float_bits(value: float, dtype: DType) -> int:
    """The bits of a value that a float type below 32 bits holds."""
    value = round_to(value, dtype)
    if dtype.name == "bfloat16":
        return int(struct.unpack("<I", struct.pack("<f", value))[0]) >> 16
    if dtype.name == "float8_e4m3fn":
        if math.isnan(value):
            return 0xFF if math.copysign(1, value) < 0 else 0x7F
        value = math.ldexp(value, -8)  # float16 with 8 more in the exponent's bias
    half = int(struct.unpack("<H", struct.pack("<e", value))[0])
    if dtype.bits == 16:
        return half
    return half >> 8 if dtype.name == "float8_e5m2" else (half >> 8 & 0x80) | (half >> 7 & 0x7F)


FORMATS: Final[dict[str, tuple[int, int]]] = {
    "float64": (11, 52),
    "float32": (8, 23),
    "bfloat16": (8, 7),
    "float16": (5, 10),
    "float8_e5m2": (5, 2),
    "float8_e4m3fn": (4, 3),
}
"""(exponent bits, mantissa bits) of each float type. The exponent of all ones is infinity and NaN
but in float8_e4m3fn, of which only 0x7F and 0xFF are no numbers (OCP 8-bit floating point)."""


class dtypes:  # noqa: N801  (the name that tinygrad's users know)
    """Every element type, by name."""

    bool: Final = DType("bool", 8, "b", 0)
    int8: Final = DType("int8", 8, "i", 1)
    uint8: Final = DType("uint8", 8, "u", 2)
    int16: Final = DType("int16", 16, "i", 3)
    uint16: Final = DType("uint16", 16, "u", 4)
    int32: Final = DType("int32", 32, "i", 5)
    uint32: Final = DType("uint32", 32, "u", 6)
    int64: Final = DType("int64", 64, "i", 7)
    uint64: Final = DType("uint64", 64, "u", 8)
    float8_e4m3fn: Final = DType("float8_e4m3fn", 8, "f", 9)
    float8_e5m2: Final = DType("float8_e5m2", 8, "f", 10)
    float16: Final = DType("float16", 16, "f", 11)
    bfloat16: Final = DType("bfloat16", 16, "f", 12)
    float32: Final = DType("float32", 32, "f", 13)
    float64: Final = DType("float64", 64, "f", 14)
    # Inside the compiler only: positions in buffers, and nodes that have no value.
    index: Final = DType("index", 64, "i", 7)
    void: Final = DType("void", 0, "v", -1)

    char, uchar, short, ushort = int8, uint8, int16, uint16
    int, uint, long, ulong = int32, uint32, int64, uint64
    half, float, double = float16, float32, float64
    float8_e4m3 = fp8e4m3 = float8_e4m3fn
    fp8e5m2 = float8_e5m2

    default_float: DType = float32
    default_int: DType = int32

    fp8s: Final = (float8_e4m3fn, float8_e5m2)
    narrow_floats: Final = (*fp8s, float16, bfloat16)  # computed in float32
    floats: Final = (*narrow_floats, float32, float64)
    sints: Final = (int8, int16, int32, int64)
    uints: Final = (uint8, uint16, uint32, uint64)
    ints: Final = sints + uints
    all: Final = (bool, *ints, *floats)

    @staticmethod
    def is_float(dtype: DType) -> bool:  # type: ignore[valid-type]
        """Whether `dtype` is a floating-point type."""
        return dtype.kind == "f"

    @staticmethod
    def is_bool(dtype: DType) -> bool:  # type: ignore[valid-type]
        """Whether `dtype` is bool."""
        return dtype.kind == "b"

    @staticmethod
    def finfo(dtype: DType) -> tuple[int, int]:  # type: ignore[valid-type]
        """(exponent bits, mantissa bits) of a float type; raises KeyError for another."""
        return FORMATS[dtype.name]

    @staticmethod
    def is_int(dtype: DType) -> bool:  # type: ignore[valid-type]
        """Whether `dtype` is a signed or unsigned integer (bool is neither)."""
        return dtype.kind in "iu"

    @staticmethod
    def is_unsigned(dtype: DType) -> bool:  # type: ignore[valid-type]
        """Whether `dtype` is an unsigned integer."""
        return dtype.kind == "u"

    @staticmethod
    def from_name(name: str) -> DType:
        """The type of that name; raises KeyError for an unknown one."""
        return _BY_NAME[name]


_BY_NAME: dict[str, DType] = {d.name: d for d in (*dtypes.all, dtypes.index, dtypes.void)}


def _restore(name: str, lanes: int) -> DType:
    return _BY_NAME[name].vec(lanes)


# The promotion lattice: each type's next wider ones, as in JAX and tinygrad.
_WIDER: Final[dict[DType, tuple[DType, ...]]] = {
    dtypes.bool: (dtypes.int8, dtypes.uint8),
    dtypes.int8: (dtypes.int16,),
    dtypes.int16: (dtypes.int32,),
    dtypes.int32: (dtypes.int64,),
    dtypes.int64: dtypes.narrow_floats,
    dtypes.uint8: (dtypes.int16, dtypes.uint16),
    dtypes.uint16: (dtypes.int32, dtypes.uint32),
    dtypes.uint32: (dtypes.int64, dtypes.uint64),
    dtypes.uint64: dtypes.narrow_floats,
    dtypes.float8_e4m3fn: (dtypes.float16, dtypes.bfloat16),
    dtypes.float8_e5m2: (dtypes.float16, dtypes.bfloat16),
    dtypes.float16: (dtypes.float32,),
    dtypes.bfloat16: (dtypes.float32,),
    dtypes.float32: (dtypes.float64,),
    dtypes.float64: (),
}


def _ancestors(dtype: DType) -> set[DType]:
    found, todo = {dtype}, [dtype]
    while todo:
        for wider in _WIDER[todo.pop()]:
            if wider not in found:
                found.add(wider)
                todo.append(wider)
    return found


def least_upper_dtype(*given: DType) -> DType:
    """The narrowest type that every given type promotes to.

    An 8-bit float only where one is given: of int64 and uint64, it would hold next to nothing.
    """
    common = set.intersection(*(_ancestors(d) for d in given))
    if not any(d in dtypes.fp8s for d in given):
        common.difference_update(dtypes.fp8s)
    return min(common, key=lambda d: d.priority)
