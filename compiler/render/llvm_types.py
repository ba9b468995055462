"""How LLVM IR writes types and constants, and what differs between kinds of target."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from compiler.dtype import ConstType, DType, dtypes, float_bits
from compiler.ir import Node, Op
from compiler.target import Target


@dataclass(frozen=True)
class Convention:
    """What differs between targets: half types, the width of vectors and of indices."""

    native_half: bool
    vector_bits: int
    index_bits: int = 64

    @classmethod
    def of(cls, target: Target) -> Convention:
        """The convention of a processor."""
        native_half = "+f16c" in target.features.split(",") or target.arch == "aarch64"
        return cls(native_half, target.vector_bits)

    @property
    def attributes(self) -> str:
        """Attributes of every function. Loops must not become calls of memset or memcpy."""
        width = f' "prefer-vector-width"="{self.vector_bits}"' if self.vector_bits >= 512 else ""
        return f'nounwind "no-builtins" "frame-pointer"="none"{width}'

    # ---- types ----
    def bits(self, dtype: DType) -> int:
        """The width of one lane."""
        return self.index_bits if dtype.scalar is dtypes.index else dtype.bits

    def scalar(self, dtype: DType) -> str:
        """The register type of one lane. bfloat16 and 8-bit floats are carried as their bits."""
        dtype = dtype.scalar
        if dtype is dtypes.bool:
            return "i1"
        if dtype is dtypes.float16 and self.native_half:
            return "half"
        return {dtypes.float32: "float", dtypes.float64: "double"}.get(
            dtype, f"i{self.bits(dtype)}"
        )

    def type(self, dtype: DType) -> str:
        """The register type."""
        scalar = self.scalar(dtype)
        return scalar if dtype.lanes == 1 else f"<{dtype.lanes} x {scalar}>"

    def overload(self, dtype: DType) -> str:
        """The ending of an intrinsic's name: `.v16f32`."""
        lanes = f"v{dtype.lanes}" if dtype.lanes > 1 else ""
        kind = "f" if self.scalar(dtype) in ("half", "float", "double") else "i"
        return f".{lanes}{kind}{1 if dtype.kind == 'b' else self.bits(dtype)}"

    # ---- constants ----
    def literal(self, value: ConstType, dtype: DType) -> str:
        """A constant of one lane."""
        dtype = dtype.scalar
        if dtype.kind == "b":
            return "true" if value else "false"
        if dtype.kind != "f":
            return str(int(value))
        if dtype.bits >= 32:
            return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
        bits = float_bits(float(value), dtype)
        native = dtype is dtypes.float16 and self.native_half
        return f"0xH{bits:04X}" if native else str(bits)

    def constant(self, node: Node) -> str:
        """A constant node of any number of lanes."""
        kind = self.scalar(node.dtype)
        match node.op:
            case Op.CONST | Op.BROADCAST:
                scalar = node if node.op is Op.CONST else node.src[0]
                literal = self.literal(scalar.arg, scalar.dtype)
                return literal if node.dtype.lanes == 1 else f"splat ({kind} {literal})"
            case Op.RAMP:
                lanes = [str(i) for i in range(node.dtype.lanes)]
            case _:
                lanes = [self.literal(s.arg, s.dtype) for s in node.src]
        return f"<{', '.join(f'{kind} {lane}' for lane in lanes)}>"


def memory_dtype(dtype: DType) -> DType:
    """What a value is in memory: a bool takes a byte there."""
    return dtypes.uint8.vec(dtype.lanes) if dtype.kind == "b" else dtype
