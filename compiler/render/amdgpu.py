"""A linear kernel as LLVM IR for AMD GPUs: what one thread does.

The kernel is one function with the calling convention `amdgpu_kernel`: its parameters lie in
argument memory in their order, 8 bytes each, and no hidden ones follow. Pointers of arguments are
in address space 1 (global), LOCALs in 3 (LDS), stack slots, which become registers, in 5.

A load behind a gate reads element 0 where the gate is false and puts 0 in its place: that costs
no branch. A store behind a gate is branched around.
"""

from __future__ import annotations

from compiler import amdgpu
from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.render.legalise import legalise
from compiler.render.llvm_ir import Renderer
from compiler.render.llvm_types import Convention, memory_dtype
from compiler.symbolic import bounds
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


def render(kernel: LinearKernel, target: Target) -> str:
    """The LLVM IR module whose function `kernel.name` is the kernel."""
    amdgpu.check(kernel, target)
    kernel = legalise(kernel, native_half=True, native=target.native)
    convention = Convention(native_half=True, vector_bits=0, index_bits=index_bits(kernel))
    return _AmdgpuRenderer(kernel, convention, target).module()


def index_bits(kernel: LinearKernel) -> int:
    """32 where no index leaves that range: addresses and comparisons are half as long."""
    for node in (*kernel.params, *kernel.body):
        for index in (node, *node.src):
            if index.dtype.scalar is dtypes.index:
                low, high = bounds(index)
                if low < dtypes.int32.min or high > dtypes.int32.max:
                    return 64
    return 32


class _AmdgpuRenderer(Renderer):
    stack_pointer = "ptr addrspace(5)"
    stack_space = ", addrspace(5)"

    def __init__(self, kernel: LinearKernel, convention: Convention, target: Target) -> None:
        super().__init__(kernel, convention)
        self.target = target
        self.vector_loops = set()  # hints keep processors from vectorising again
        self.globals: list[str] = []
        self.emitters |= {
            Op.THREAD: self.thread,
            Op.BARRIER: self.barrier,
            Op.EXP2: self.function,
            Op.LOG2: self.function,
            Op.MATRIX: self.matrix,
        }
        del self.emitters[Op.REDUCE_LANES]

    # ---- the module ----
    def module(self) -> str:
        """Everything, as text."""
        self.emit_body()
        name, threads = self.kernel.name, " ".join(str(n) for n in self.kernel.block)
        block = ", ".join(f"i32 {n}" for n in self.kernel.block)
        declared = ", ".join(" ".join(filter(None, parts)) for parts in self.parameters())
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

    def parameters(self) -> list[tuple[str, str, str]]:
        """Type, attributes and name of the parameters; a narrow index is cut from its slot."""
        found = []
        for slot, param in enumerate(self.kernel.params):
            name = self.names[param]
            if param.op is Op.PARAM:
                written = slot in self.kernel.written
                attributes = "noalias nonnull" if written else "noalias nonnull readonly"
                found.append(("ptr addrspace(1)", attributes, name))
            else:
                if self.convention.index_bits == 32:
                    self.slots.insert(0, f"  {name} = trunc i64 {name}.slot to i32")
                    name += ".slot"
                found.append(("i64", "", name))
        return found

    # ---- places ----
    def grid(self, node: Node) -> None:
        """The block's place in the grid."""
        self.identity(node, "workgroup")

    def thread(self, node: Node) -> None:
        """The thread's place in its block."""
        self.identity(node, "workitem")

    def identity(self, node: Node, what: str) -> None:
        """A number that the hardware gives, read where the kernel begins."""
        stem = f"%{what}.{'xyz'[node.arg]}"
        self.names[node] = stem
        known = f"range(i32 0, {bounds(node)[1] + 1}) " if node.src else ""
        call = f"call {known}i32 @llvm.amdgcn.{what}.id"
        lines = [f"  {stem} = {call}.{'xyz'[node.arg]}()"]
        if self.convention.index_bits == 64:
            lines = [f"  {stem}.i32 = {lines[0].partition(' = ')[2]}"]
            lines.append(f"  {stem} = zext nneg i32 {stem}.i32 to i64")
        if lines[0] not in self.slots:
            self.slots.extend(lines)

    def local(self, node: Node) -> None:
        """An array that the threads of a block share."""
        kind = self.type(memory_dtype(node.dtype.scalar))
        name = self.names[node] = f"@{self.kernel.name}.{self.names.fresh('local')[1:]}"
        array = f"[{node.arg[1]} x {kind}]"
        self.globals.append(f"{name} = internal addrspace(3) global {array} poison, align 16")

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

    # ---- memory ----
    def pointer(self, node: Node) -> str:
        """The type of an argument's or a LOCAL's address."""
        return f"ptr addrspace({3 if node.op is Op.LOCAL else 1})"

    def address(self, pointer: Node, index: str, dtype: DType, flags: str = "inbounds ") -> str:
        """The place of element `index`, with a 32-bit offset in bytes wherever one is enough."""
        kind = self.type(memory_dtype(dtype.scalar))
        bits = self.convention.index_bits
        size_bytes = pointer.arg[1] * dtype.itemsize
        where = f"{self.pointer(pointer)} {self.names[pointer]}"
        if pointer.op is Op.LOCAL or bits == 64 or size_bytes > dtypes.int32.max:
            return self.define("address", f"getelementptr {flags}{kind}, {where}, i{bits} {index}")
        # The instruction adds it to a uniform address by itself.
        scaled = self.define("offset", f"mul nuw nsw i32 {index}, {dtype.itemsize}")
        offset = self.define("offset", f"zext nneg i32 {scaled} to i64")
        return self.define("address", f"getelementptr {flags}i8, {where}, i64 {offset}")

    def load(self, node: Node) -> None:
        """A scalar; behind a gate that does not hold, 0."""
        pointer, index, *gates = node.src
        dtype, position = memory_dtype(node.dtype), self.value(index)
        zero = self.convention.constant(Node.const(0, dtype))
        if gates and pointer.arg[1] == 0:  # not even element 0 is there
            self.set_loaded(node, self.define("load", self.same(dtype, zero)))
            return
        if gates:
            kind, gate = self.type(index.dtype), self.value(gates[0])
            position = self.define("index", f"select i1 {gate}, {kind} {position}, {kind} 0")
        address = self.address(pointer, position, dtype)
        kind = self.type(dtype)
        where = f"{self.pointer(pointer)} {address}, align {dtype.itemsize}"
        name = self.define("load", f"load {kind}, {where}")
        if gates:
            name = self.define("load", f"select i1 {gate}, {kind} {name}, {kind} {zero}")
        self.set_loaded(node, name)

    def same(self, dtype: DType, text: str) -> str:
        """An instruction that gives a constant."""
        kind = self.type(dtype)
        return f"select i1 true, {kind} {text}, {kind} {text}"
