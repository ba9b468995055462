"""A linear kernel as LLVM IR for GPUs: what one thread does.

The kernel is one function whose parameters lie in their order, 8 bytes each. Pointers of arguments
are in address space 1 (global), LOCALs in 3 (shared by a block's threads); stack slots become
registers.

A load behind a gate reads element 0 where the gate is false and puts 0 in its place: that costs
no branch. A store behind a gate is branched around.
"""

from __future__ import annotations

from abc import abstractmethod

from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.render.llvm_ir import Renderer
from compiler.render.llvm_types import Convention, memory_dtype
from compiler.symbolic import bounds
from compiler.target import Target


def index_bits(kernel: LinearKernel) -> int:
    """32 where no index leaves that range: addresses and comparisons are half as long."""
    for node in (*kernel.params, *kernel.body):
        for index in (node, *node.src):
            if index.dtype.scalar is dtypes.index:
                low, high = bounds(index)
                if low < dtypes.int32.min or high > dtypes.int32.max:
                    return 64
    return 32


class GpuRenderer(Renderer):
    """What vendors share; each brings the frame, threads, barriers and matrix instructions."""

    def __init__(self, kernel: LinearKernel, target: Target) -> None:
        super().__init__(
            kernel, Convention(native_half=True, vector_bits=0, index_bits=index_bits(kernel))
        )
        self.target = target
        self.vector_loops = set()  # hints keep processors from vectorising again
        self.globals: list[str] = []
        self.emitters |= {
            Op.GRID: lambda node: self.identity(node, "block"),
            Op.THREAD: lambda node: self.identity(node, "thread"),
            Op.BARRIER: self.barrier,
            Op.MATRIX: self.matrix,
            **dict.fromkeys(target.native, self.function),
        }
        del self.emitters[Op.REDUCE_LANES]

    @abstractmethod
    def barrier(self, node: Node) -> None:
        """The threads of the block meet, and see what the others have stored in local memory."""

    @abstractmethod
    def matrix(self, node: Node) -> None:
        """acc = a·b + acc, with which all lanes of the wave are busy."""

    @abstractmethod
    def number(self, what: str, axis: str) -> str:
        """The intrinsic that gives the number of a `block` or a `thread`."""

    def signature(self) -> str:
        """The parameters of the function."""
        return ", ".join(" ".join(filter(None, parts)) for parts in self.parameters())

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
    def identity(self, node: Node, what: str) -> None:
        """A number that the hardware gives, read where the kernel begins."""
        axis = "xyz"[node.arg]
        stem = f"%{what}.{axis}"
        self.names[node] = stem
        known = f"range(i32 0, {bounds(node)[1] + 1}) " if node.src else ""
        lines = [f"  {stem} = call {known}i32 @{self.number(what, axis)}()"]
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
