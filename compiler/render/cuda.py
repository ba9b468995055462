"""A linear kernel as CUDA C++: what one thread does.

The parameters lie in 8-byte slots in their order, as everywhere. Indices are `int` where none
leaves that range. Halves are bits in a `ushort`; PTX's own conversions turn them into floats.
"""

from __future__ import annotations

import math
import struct
from typing import ClassVar

from compiler.dtype import ConstType, DType, dtypes
from compiler.errors import InvalidKernel
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.render import c_types
from compiler.render.amdgpu import index_bits
from compiler.render.c import Renderer
from compiler.render.c_types import CTypes
from compiler.render.legalise import legalise
from compiler.render.llvm_types import memory_dtype
from compiler.target import Target

BLOCK_LIMIT = 1024
"""Threads of a block at most."""


def render(kernel: LinearKernel, target: Target) -> str:
    """The CUDA text whose kernel is `kernel.name`.

    Raises InvalidKernel for a block that no GPU takes.
    """
    threads = kernel.block[0] * kernel.block[1] * kernel.block[2]
    if threads > BLOCK_LIMIT:
        raise InvalidKernel(
            f"Kernel {kernel.name} has {threads} threads in a block; {target.arch} has at most "
            f"{BLOCK_LIMIT}.",
            operation="render",
        )
    legal = legalise(kernel, native_half=True, native=target.native)
    return _CudaRenderer(legal, _CudaTypes("int" if index_bits(legal) == 32 else "long")).module()


class _CudaTypes(CTypes):
    function = "static __device__ inline"
    names: ClassVar[dict[DType, str]] = {**c_types.NAMES, dtypes.bool: "bool",
                                         dtypes.int8: "schar"}  # fmt: skip

    def __init__(self, index: str) -> None:
        super().__init__()
        self.index = index

    def scalar(self, dtype: DType) -> str:
        """One lane, in a register and in memory."""
        if dtype.scalar is dtypes.index:
            return self.index
        if dtype.scalar is dtypes.int8:
            self.definitions.setdefault("schar", "typedef signed char schar;")
        return super().scalar(dtype)

    def lanewise(self, name: str, dtype: DType) -> str:
        """CUDA's own function of one float."""
        return f"{name}f" if dtype.bits == 32 else name

    def half_to_float(self) -> str:
        """A function from the bits of a half to a float."""
        half = self.scalar(dtypes.float16)
        return self.helper(
            "float_of_half",
            f'float float_of_half({half} x) {{ float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) '
            ': "h"(x)); return y; }',
        )

    def float_to_half(self) -> str:
        """A function from a float to the bits of the nearest half."""
        half = self.scalar(dtypes.float16)
        return self.helper(
            "half_of_float",
            f'{half} half_of_float(float x) {{ {half} y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) '
            ': "f"(x)); return y; }',
        )


def _literal(value: ConstType, dtype: DType) -> str:
    """A constant; what CUDA cannot spell as a number, by its bits."""
    if dtype in (dtypes.float32, dtypes.float64) and not math.isfinite(value):
        if dtype is dtypes.float32:
            (bits,) = struct.unpack("<I", struct.pack("<f", value))
            return f"__int_as_float({bits:#x})"
        (bits,) = struct.unpack("<Q", struct.pack("<d", value))
        return f"__longlong_as_double({bits:#x}LL)"
    if dtype is dtypes.index and dtypes.int32.min < value <= dtypes.int32.max:
        return str(int(value))
    return c_types.literal(value, dtype)


class _CudaRenderer(Renderer):
    literal = staticmethod(_literal)
    types: _CudaTypes

    def __init__(self, kernel: LinearKernel, types: _CudaTypes) -> None:
        super().__init__(kernel, types)
        self.index = types.index
        self.statements[Op.BARRIER] = lambda node: self.line("__syncthreads();")
        self.expressions |= {
            Op.GRID: lambda node: self.place("blockIdx", node),
            Op.THREAD: lambda node: self.place("threadIdx", node),
            Op.EXP2: self.function,
            Op.LOG2: self.function,
        }
        for op in (Op.BROADCAST, Op.STACK, Op.LANE):
            del self.expressions[op]
        del self.statements[Op.REDUCE_LANES]

    def module(self) -> str:
        """Types, helpers and the kernel."""
        self.emit_body()
        threads = self.kernel.block[0] * self.kernel.block[1] * self.kernel.block[2]
        parameters = []
        for slot, param in enumerate(self.kernel.params):
            if param.op is Op.PARAM:
                const = "" if slot in self.kernel.written else "const "
                kind = self.types.scalar(memory_dtype(param.dtype))
                parameters.append(f"{const}{kind} *__restrict__ {self.names[param]}")
            else:
                parameters.append(f"long {self.names[param]}")
        return "\n".join([
            *self.types.definitions.values(),
            "",
            f'extern "C" __global__ void __launch_bounds__({threads})',
            f"{self.kernel.name}({', '.join(parameters)}) {{",
            *self.lines,
            "}",
            "",
        ])  # fmt: skip

    def place(self, what: str, node: Node) -> str:
        """A number that the hardware gives."""
        return f"({self.index}){what}.{'xyz'[node.arg]}"

    def local(self, node: Node) -> None:
        """An array that the threads of a block share."""
        name = self.names[node] = self.names.fresh("local")
        kind = self.types.scalar(memory_dtype(node.dtype))
        self.lines.insert(0, f"  __shared__ __align__(16) {kind} {name}[{node.arg[1]}];")

    def cast(self, node: Node) -> str:
        """A conversion of values; to and from a half by way of a float."""
        (x,) = node.src
        text = self.operand(x)
        if x.dtype is dtypes.float16 and node.dtype is dtypes.float32:
            return f"{self.types.half_to_float()}({text})"
        if x.dtype is dtypes.float32 and node.dtype is dtypes.float16:
            return f"{self.types.float_to_half()}({text})"
        return super().cast(node)
