"""A linear kernel as CUDA C++: what one thread does.

The parameters lie in 8-byte slots in their order, as everywhere. Indices are `int` where none
leaves that range. Halves are bits in a `ushort`; PTX's own conversions turn them into floats.
A thread's part of a matrix is an array: of floats or ints for sums, of registers for factors.
"""

from __future__ import annotations

import math
import struct
from typing import ClassVar

from compiler.check import check_block
from compiler.dtype import ConstType, DType, dtypes
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.matrix import MatrixUnit
from compiler.nvidia_matrix import mma_statement
from compiler.render import c_types
from compiler.render.c import Renderer
from compiler.render.c_types import CTypes
from compiler.render.gpu import index_bits
from compiler.render.legalise import legalise
from compiler.render.llvm_types import memory_dtype
from compiler.target import Target


def render(kernel: LinearKernel, target: Target) -> str:
    """The CUDA text whose kernel is `kernel.name`.

    Raises InvalidKernel for a block that no GPU takes, and for instructions that it has not.
    """
    check_block(kernel, target)
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

    def register(self, dtype: DType, items: list[str]) -> str:
        """A 32-bit register that holds neighbouring elements of a factor."""
        word = self.scalar(dtypes.uint32)
        if dtype is dtypes.float32:
            function = self.helper(
                "tf32", f'{word} tf32(float x) {{ {word} y; asm("cvt.rna.tf32.f32 %0, %1;" '
                ': "=r"(y) : "f"(x)); return y; }',
            )
        elif dtype.bits == 16:
            kind = self.scalar(dtype)
            function = self.helper(
                "pair", f'{word} pair({kind} a, {kind} b) {{ {word} y; asm("mov.b32 %0, '
                '{%1, %2};" : "=r"(y) : "h"(a), "h"(b)); return y; }',
            )
        else:
            byte = self.scalar(dtypes.uint8)
            terms = " | ".join(f"({word}){x} << {8 * i}" for i, x in enumerate("abcd"))
            given = ", ".join(f"{byte} {x}" for x in "abcd")
            function = self.helper("four", f"{word} four({given}) {{ return {terms}; }}")
        return f"{function}({', '.join(items)})"


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


def _matrix_loops(kernel: LinearKernel) -> set[Node]:
    """The innermost loops with matrix instructions."""
    found: set[Node] = set()
    open_loops: list[Node] = []
    for node in kernel.body:
        if node.op is Op.LOOP:
            open_loops.append(node)
        elif node.op is Op.END:
            open_loops.pop()
        elif node.op is Op.MATRIX and open_loops:
            found.add(open_loops[-1])
    return found


class _CudaRenderer(Renderer):
    literal = staticmethod(_literal)
    types: _CudaTypes

    def __init__(self, kernel: LinearKernel, types: _CudaTypes) -> None:
        super().__init__(kernel, types)
        self.index = types.index
        self.items: dict[Node, list[str]] = {}  # of a thread's part of a matrix
        self.packed: dict[Node, list[str]] = {}  # the registers of one that is a factor
        self.matrix_loops = _matrix_loops(kernel)
        self.statements |= {
            Op.BARRIER: lambda node: self.line("__syncthreads();"),
            Op.BROADCAST: self.part,
            Op.STACK: self.part,
            Op.MATRIX: self.matrix,
        }
        self.expressions |= {
            Op.GRID: lambda node: self.place("blockIdx", node),
            Op.THREAD: lambda node: self.place("threadIdx", node),
            Op.EXP2: self.function,
            Op.LOG2: self.function,
            Op.LANE: lambda node: self.items_of(node.src[0])[node.arg],
        }
        for op in (Op.BROADCAST, Op.STACK):
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

    # ---- matrix units ----
    def loop(self, node: Node) -> None:
        """A pass over factors has enough to do at once; more would take more registers."""
        if node in self.matrix_loops:
            self.line("#pragma unroll 1")
        super().loop(node)

    def part(self, node: Node) -> None:
        """Items of a matrix, by what they are called."""
        count = node.dtype.lanes if node.op is Op.BROADCAST else 1
        self.items[node] = [self.operand(item) for item in node.src] * count

    def items_of(self, node: Node) -> list[str]:
        """The items of a thread's part of a matrix."""
        if node not in self.items:  # constants are not in the body
            self.part(node)
        return self.items[node]

    def array(self, node: Node, kind: str, items: list[str], const: str = "") -> None:
        """Gives a thread's part of a matrix registers of its own."""
        name = self.names[node] = self.names.fresh(node.op.name.lower())
        self.line(f"{const}{kind} {name}[{len(items)}] = {{{', '.join(items)}}};")
        self.items[node] = [f"{name}[{i}]" for i in range(len(items))]

    def accumulator(self, node: Node) -> None:
        """A variable that changes, or a thread's sums."""
        if node.dtype.lanes == 1:
            super().accumulator(node)
        else:
            self.array(node, self.types.scalar(node.dtype.scalar), self.items_of(node.src[0]))

    def emit(self, node: Node) -> None:
        """A thread's sums at this place are others than later ones."""
        if node.op is Op.GET and node.dtype.lanes > 1:
            kind = self.types.scalar(node.dtype.scalar)
            self.array(node, kind, self.items_of(node.src[0]), "const ")
        else:
            super().emit(node)

    def matrix(self, node: Node) -> None:
        """acc += a·b by the threads of a warp together."""
        register, *factors = node.src
        unit: MatrixUnit = node.arg
        sums = self.items_of(register)
        words = [word for factor in factors for word in self.registers(factor)]
        text = mma_statement(unit, [f"%{i}" for i in range(len(sums) + len(words))])
        constraint = "f" if unit.sums is dtypes.float32 else "r"
        out = ", ".join(f'"+{constraint}"({item})' for item in sums)
        given = ", ".join(f'"r"({word})' for word in words)
        self.line(f'asm volatile("{text}" : {out} : {given});')

    def registers(self, factor: Node) -> list[str]:
        """The registers of a thread's part of a factor, packed once."""
        if factor not in self.packed:
            dtype, items = factor.dtype.scalar, self.items_of(factor)
            count = 4 // dtype.itemsize
            words = [
                self.types.register(dtype, items[i : i + count])
                for i in range(0, len(items), count)
            ]
            name = self.names.fresh("factor")
            self.line(f"const {self.types.scalar(dtypes.uint32)} {name}[{len(words)}] = "
                      f"{{{', '.join(words)}}};")  # fmt: skip
            self.packed[factor] = [f"{name}[{i}]" for i in range(len(words))]
        return self.packed[factor]

    def cast(self, node: Node) -> str:
        """A conversion of values; to and from a half by way of a float."""
        (x,) = node.src
        text = self.operand(x)
        if x.dtype is dtypes.float16 and node.dtype is dtypes.float32:
            return f"{self.types.half_to_float()}({text})"
        if x.dtype is dtypes.float32 and node.dtype is dtypes.float16:
            return f"{self.types.float_to_half()}({text})"
        return super().cast(node)
