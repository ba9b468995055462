"""How C writes types and constants, and the helper functions that a kernel's text begins with.

Vectors are clang's `ext_vector_type`, named as in OpenCL C: `float16` has 16 lanes. A vector of
bools is a `charN` of 0 and -1, `char` being signed; narrow floats are their bits in a `ushort` or
`uchar`.
"""

from __future__ import annotations

import math
from typing import ClassVar

from compiler.dtype import ConstType, DType, dtypes, float_bits

NAMES = {
    dtypes.bool: "_Bool",
    dtypes.int8: "char",
    dtypes.uint8: "uchar",
    dtypes.int16: "short",
    dtypes.uint16: "ushort",
    dtypes.int32: "int",
    dtypes.uint32: "uint",
    dtypes.int64: "long",
    dtypes.uint64: "ulong",
    dtypes.index: "long",
    dtypes.float8_e4m3fn: "uchar",
    dtypes.float8_e5m2: "uchar",
    dtypes.float16: "ushort",
    dtypes.bfloat16: "ushort",
    dtypes.float32: "float",
    dtypes.float64: "double",
}
_SCALARS = {
    "uchar": "unsigned char",
    "ushort": "unsigned short",
    "uint": "unsigned int",
    "ulong": "unsigned long",
}
_MASKS = {8: "char", 16: "short", 32: "int", 64: "long"}


class CTypes:
    """Names of types; remembers which ones and which helpers the text needs."""

    names: ClassVar[dict[DType, str]] = NAMES
    function = "static inline"
    """How a helper function is declared."""

    def __init__(self) -> None:
        self.definitions: dict[str, str] = {}

    def scalar(self, dtype: DType) -> str:
        """One lane, in a register and in memory."""
        name = self.names[dtype.scalar]
        if name in _SCALARS:
            self.definitions.setdefault(name, f"typedef {_SCALARS[name]} {name};")
        return name

    def name(self, dtype: DType) -> str:
        """The register type."""
        if dtype.lanes == 1:
            return self.scalar(dtype)
        base = "char" if dtype.kind == "b" else self.names[dtype.scalar]
        return self.vector(base, dtype.lanes)

    def vector(self, base: str, lanes: int) -> str:
        """A vector type by the name of its lanes' type."""
        name = f"{base}{lanes}"
        spelled = _SCALARS.get(base, base)
        text = f"typedef {spelled} {name} __attribute__((ext_vector_type({lanes})));"
        self.definitions.setdefault(name, text)
        return name

    def mask(self, dtype: DType) -> str:
        """What comparing vectors of `dtype` gives, and what chooses between them."""
        return self.vector(_MASKS[dtype.bits], dtype.lanes)

    def unaligned(self, dtype: DType) -> str:
        """A vector in memory, at any multiple of its lanes' size."""
        name = self.name(dtype)
        text = f"typedef {name} {name}_any __attribute__((aligned({dtype.itemsize})));"
        self.definitions.setdefault(f"{name}_any", text)
        return f"{name}_any"

    # ---- helper functions ----
    def helper(self, name: str, text: str) -> str:
        """A function that the text needs, by its name."""
        self.definitions.setdefault(name, f"{self.function} {text}")
        return name

    def bits(self, source: DType, dtype: DType) -> str:
        """A function that reads the bits of one scalar type as another."""
        a, b = self.scalar(source), self.scalar(dtype)
        return self.helper(
            f"{b}_of_bits_{a}",
            f"{b} {b}_of_bits_{a}({a} x) {{ union {{ {a} from; {b} to; }} u = {{x}}; "
            "return u.to; }",
        )

    def maximum(self, dtype: DType) -> str:
        """A function for the greater of two; NaN if either is."""
        kind = self.name(dtype)
        nan = " | (a != a)" if dtype.kind == "f" else ""
        return self.helper(
            f"max_{kind}",
            f"{kind} max_{kind}({kind} a, {kind} b) {{ return (a > b){nan} ? a : b; }}",
        )

    def lanewise(self, name: str, dtype: DType) -> str:
        """A function `name`, known to clang for scalars, of every lane."""
        kind = self.name(dtype)
        function = f"__builtin_{name}{'f' if dtype.bits == 32 else ''}"
        if dtype.lanes == 1:
            return function
        return self.helper(
            f"{name}_{kind}",
            f"{kind} {name}_{kind}({kind} x) {{\n  {kind} y = x;\n"
            f"  for (int i = 0; i < {dtype.lanes}; i++) y[i] = {function}(x[i]);\n"
            "  return y;\n}",
        )

    def lane_access(self, dtype: DType, gated: bool, scatter: bool, at_index: bool) -> str:
        """A function that loads or stores lane by lane, where a mask says so.

        `at_index`: every lane has its own index; otherwise lanes are consecutive.
        """
        kind, scalar, n = self.name(dtype), self.scalar(dtype), dtype.lanes
        verb = (
            ("scatter" if at_index else "store") if scatter else ("gather" if at_index else "load")
        )
        name = f"{verb}_{'masked_' if gated else ''}{kind}"
        index = f", {self.vector('long', n)} index" if at_index else ""
        mask = f", {self.vector('char', n)} mask" if gated else ""
        place = "p[index[i]]" if at_index else "p[i]"
        if scatter:
            condition = "if (mask[i]) " if gated else ""
            return self.helper(
                name,
                f"void {name}({scalar} *p{index}, {kind} x{mask}) {{\n"
                f"  for (int i = 0; i < {n}; i++) {condition}{place} = x[i];\n}}",
            )
        value = f"mask[i] ? {place} : 0" if gated else place
        return self.helper(
            name,
            f"{kind} {name}(const {scalar} *p{index}{mask}) {{\n  {kind} x = 0;\n"
            f"  for (int i = 0; i < {n}; i++) x[i] = {value};\n  return x;\n}}",
        )


def literal(value: ConstType, dtype: DType) -> str:
    """A constant of one lane."""
    dtype = dtype.scalar
    if dtype.kind == "b":
        return "1" if value else "0"
    if dtype.kind != "f":
        return _integer(int(value), dtype)
    if dtype in dtypes.narrow_floats:
        return str(float_bits(float(value), dtype))
    suffix = "f" if dtype.bits == 32 else ""
    if math.isnan(value):
        return f'__builtin_nan{suffix}("")'
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}__builtin_inf{suffix}()"
    return f"{float(value)!r}{suffix}"


def _integer(value: int, dtype: DType) -> str:
    if dtype is dtypes.index and abs(value) < 1 << 15:
        return str(value)  # easier to read, and products of two are still exact
    suffix = {("i", 64): "L", ("u", 64): "UL", ("u", 32): "U"}.get((dtype.kind, dtype.bits), "")
    if dtype.kind == "i" and dtype.bits >= 32 and value == dtype.min:
        return f"({value + 1}{suffix} - 1)"
    return f"{value}{suffix}"
