"""A linear kernel as LLVM IR for NVIDIA GPUs, which LLVM makes PTX of.

The kernel has the calling convention `ptx_kernel`. Its name, parameters and results are those of
the CUDA C renderer's.
"""

from __future__ import annotations

from compiler.check import check_block, check_types
from compiler.dtype import dtypes
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.matrix import MatrixUnit
from compiler.nvidia_matrix import mma_statement
from compiler.render.gpu import GpuRenderer
from compiler.render.legalise import legalise
from compiler.target import Target

_NUMBERS = {
    "block": "llvm.nvvm.read.ptx.sreg.ctaid", "thread": "llvm.nvvm.read.ptx.sreg.tid",
}  # fmt: skip


def render(kernel: LinearKernel, target: Target) -> str:
    """The LLVM IR module whose function `kernel.name` is the kernel."""
    check_types(kernel)
    check_block(kernel, target)
    legal = legalise(kernel, native_half=True, native=target.native)
    return _NvptxRenderer(legal, target).module()


class _NvptxRenderer(GpuRenderer):
    def module(self) -> str:
        """Everything, as text."""
        self.emit_body()
        block = ",".join(str(n) for n in self.kernel.block)
        attributes = f'nounwind "no-builtins" "nvvm.reqntid"="{block}"'
        text = [
            f"; {self.target.arch}",
            *self.globals,
            f"define ptx_kernel void @{self.kernel.name}({self.signature()}) #0 {{",
            "entry:",
            *self.slots,
            *self.lines,
            "  ret void",
            "}\n",
            f"attributes #0 = {{ {attributes} }}",
            "attributes #1 = { convergent nounwind }",
        ]
        return "\n".join(text) + "\n"

    def number(self, what: str, axis: str) -> str:
        """The intrinsic that gives the number of a `block` or a `thread`."""
        return f"{_NUMBERS[what]}.{axis}"

    def barrier(self, node: Node) -> None:
        """`bar.sync 0`, which orders the block's accesses."""
        self.line("call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)")

    def function(self, node: Node) -> None:
        """A function of the hardware's, or one that LLVM makes instructions of."""
        if node.op is Op.EXP2:
            self.set(node, f"call float @llvm.nvvm.ex2.approx.f({self.typed(node.src[0])})")
        else:
            super().function(node)

    # ---- matrix units ----
    def matrix(self, node: Node) -> None:
        """mma.sync, by its PTX: LLVM's intrinsics have names and types for each of its forms."""
        register, *factors = node.src
        unit: MatrixUnit = node.arg
        kind, scalar = self.type(register.dtype), self.type(register.dtype.scalar)
        slot = f"{self.stack_pointer} {self.names[register]}, align 64"
        before, count = self.define("sums", f"load {kind}, {slot}"), unit.c.items
        words = [word for factor in factors for word in self.registers(factor)]
        sums = [
            f"{scalar} {self.define('sum', f'extractelement {kind} {before}, i64 {i}')}"
            for i in range(count)
        ]
        text = mma_statement(unit, [f"${i}" for i in range(count + len(words))])
        letter = "f" if unit.sums is dtypes.float32 else "r"
        constraints = [f"={letter}"] * count + ["r"] * len(words) + [str(i) for i in range(count)]
        struct = f"{{ {', '.join([scalar] * count)} }}"
        arguments = ", ".join([f"i32 {word}" for word in words] + sums)
        result = self.define(
            "mma",
            f'call {struct} asm sideeffect "{text}", "{",".join(constraints)}"({arguments}) #1',
        )
        total = "poison"
        for i in range(count):
            one = self.define("sum", f"extractvalue {struct} {result}, {i}")
            total = self.define("sums", f"insertelement {kind} {total}, {scalar} {one}, i64 {i}")
        self.line(f"store {kind} {total}, {slot}")

    def registers(self, factor: Node) -> list[str]:
        """The 32-bit registers of a thread's part of a factor."""
        count = factor.dtype.lanes * factor.dtype.itemsize // 4
        if factor.dtype.scalar is dtypes.float32:
            items = [
                self.define("item", f"extractelement {self.typed(factor)}, i64 {i}")
                for i in range(count)
            ]
            asm = 'asm "cvt.rna.tf32.f32 $0, $1;", "=r,f"'
            return [self.define("tf32", f"call i32 {asm}(float {item})") for item in items]
        kind = f"<{count} x i32>" if count > 1 else "i32"
        words = self.define("words", f"bitcast {self.typed(factor)} to {kind}")
        if count == 1:
            return [words]
        return [
            self.define("word", f"extractelement {kind} {words}, i64 {i}") for i in range(count)
        ]
