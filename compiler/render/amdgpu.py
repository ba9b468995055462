"""A linear kernel as LLVM IR for AMD GPUs: the frame, and what differs from other GPUs.

The kernel has the calling convention `amdgpu_kernel`: no hidden parameters follow its own. Stack
slots are in address space 5.
"""

from __future__ import annotations

from compiler import amdgpu
from compiler.ir import Node
from compiler.linear import LinearKernel
from compiler.render.gpu import GpuRenderer
from compiler.render.legalise import legalise
from compiler.target import Target

# Version 5 of the code object: the descriptor and metadata that ROCm 5.7 and later load. Its
# successor only adds generic targets.
_FLAGS = (
    "!llvm.module.flags = !{!0}",
    '!0 = !{i32 1, !"amdhsa_code_object_version", i32 500}',
    # Fences order local memory only: global memory is not shared within a kernel.
    '!1 = !{!"amdgpu-synchronize-as", !"local"}',
)
_NOT_NEEDED = (
    *("dispatch-ptr", "queue-ptr", "implicitarg-ptr", "dispatch-id", "heap-ptr", "hostcall-ptr"),
    *("multigrid-sync-arg", "default-queue", "completion-action", "lds-kernel-id"),
)
"""What a kernel can ask to be given besides its parameters."""
_NUMBERS = {"block": "llvm.amdgcn.workgroup.id", "thread": "llvm.amdgcn.workitem.id"}


def render(kernel: LinearKernel, target: Target) -> str:
    """The LLVM IR module whose function `kernel.name` is the kernel."""
    amdgpu.check(kernel, target)
    legal = legalise(kernel, native_half=True, native=target.native)
    return _AmdgpuRenderer(legal, target).module()


class _AmdgpuRenderer(GpuRenderer):
    stack_pointer = "ptr addrspace(5)"
    stack_space = ", addrspace(5)"

    # ---- the module ----
    def module(self) -> str:
        """Everything, as text."""
        self.emit_body()
        name, threads = self.kernel.name, " ".join(str(n) for n in self.kernel.block)
        block = ", ".join(f"i32 {n}" for n in self.kernel.block)
        declared = self.signature()
        text = [
            f"; {self.target.arch}, blocks of {threads} threads",
            *self.globals,
            f"define amdgpu_kernel void @{name}({declared}) #0 !reqd_work_group_size !2 {{",
            "entry:",
            *self.slots,
            *self.lines,
            "  ret void",
            "}\n",
            f"attributes #0 = {{ {self.attributes()} }}",
            *_FLAGS,
            f"!2 = !{{{block}}}",
        ]
        return "\n".join(text) + "\n"

    def attributes(self) -> str:
        """Attributes of the kernel."""
        x, y, z = self.kernel.block
        values = {
            "target-cpu": self.target.cpu,
            "target-features": self.target.features,
            "amdgpu-flat-work-group-size": f"{x * y * z},{x * y * z}",
            "amdgpu-implicitarg-num-bytes": "0",
            "uniform-work-group-size": "true",
        }
        flags = [f'"amdgpu-no-{name}"' for name in _NOT_NEEDED]
        pairs = [f'"{name}"="{value}"' for name, value in values.items()]
        return " ".join(["nounwind", '"no-builtins"', *pairs, *flags])

    # ---- places ----
    def number(self, what: str, axis: str) -> str:
        """The intrinsic that gives the number of a `block` or a `thread`."""
        return f"{_NUMBERS[what]}.{axis}"

    def barrier(self, node: Node) -> None:
        """Local memory is written out before it, and read anew behind it."""
        self.line('fence syncscope("workgroup") release, !mmra !1')
        self.line("call void @llvm.amdgcn.s.barrier()")
        self.line('fence syncscope("workgroup") acquire, !mmra !1')

    # ---- matrix units ----
    def matrix(self, node: Node) -> None:
        """acc = a·b + acc, with which all lanes of the wave are busy."""
        register, *factors = node.src
        unit = node.arg
        a, b = (self.operand(factor, unit.operand) for factor in factors)
        kind = self.type(register.dtype)
        slot = f"{self.stack_pointer} {self.names[register]}, align 64"
        sums = f"{kind} {self.define('sums', f'load {kind}, {slot}')}"
        if unit.name.startswith("mfma"):  # one block, its factors as they are
            operands = f"{a}, {b}, {sums}, i32 0, i32 0, i32 0"
        elif ".iu8." in unit.name:
            signed = f"i1 {'true' if unit.inputs.kind == 'i' else 'false'}"
            operands = f"{signed}, {a}, {signed}, {b}, {sums}, i1 false"  # wraps
        else:
            operands = f"{a}, {b}, {sums}"
        total = self.define("sums", f"call {kind} @llvm.amdgcn.{unit.name}({operands})")
        self.line(f"store {kind} {total}, {slot}")

    def operand(self, factor: Node, kind: str) -> str:
        """A thread's items of a factor, in the type that the intrinsic wants."""
        if self.type(factor.dtype) == kind:
            return self.typed(factor)
        return f"{kind} {self.define('items', f'bitcast {self.typed(factor)} to {kind}')}"
