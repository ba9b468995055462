"""A linear kernel as LLVM IR.

On processors a kernel is two functions: an entry that loads the arguments, and a body that is
always inlined into it and whose pointer parameters are `noalias`, which LLVM cannot know of
pointers that come from memory. Loops test their condition at the top; accumulators are stack
slots that LLVM makes into registers. A load behind a gate that is the same in all lanes reads
either its address or zeros, without a branch.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler.dtype import DType, dtypes
from compiler.errors import InvalidKernel
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.render.legalise import legalise
from compiler.render.llvm_types import Convention, memory_dtype
from compiler.render.names import (
    Names,
    is_constant,
    is_first_lane,
    uniform_gate,
    vector_loops,
)
from compiler.symbolic import bounds
from compiler.target import Target

_ARITHMETIC: dict[Op, tuple[str, str, str]] = {  # on floats, on signed and on unsigned integers
    # `contract` is the only liberty LLVM takes with floats: a*b+c may be rounded once.
    Op.ADD: ("fadd contract", "add", "add"),
    Op.MUL: ("fmul contract", "mul", "mul"),
    Op.DIV: ("fdiv", "", ""),
    Op.IDIV: ("", "sdiv", "udiv"),
    Op.MOD: ("", "srem", "urem"),
    Op.CMPLT: ("fcmp olt", "icmp slt", "icmp ult"),
    Op.CMPNE: ("fcmp une", "icmp ne", "icmp ne"),
    Op.CMPEQ: ("fcmp oeq", "icmp eq", "icmp eq"),
    Op.AND: ("", "and", "and"),
    Op.OR: ("", "or", "or"),
    Op.XOR: ("", "xor", "xor"),
    Op.SHL: ("", "shl", "shl"),
    Op.SHR: ("", "ashr", "lshr"),
}
_ZEROS = "zeros"


def render(kernel: LinearKernel, target: Target) -> str:
    """The LLVM IR module whose function `kernel.name` runs one block of the kernel."""
    convention = Convention.of(target)
    return Renderer(legalise(kernel, convention.native_half), convention).module()


class Renderer:
    """What writes a kernel for processors; other kinds of target override what differs."""

    stack_pointer = "ptr"
    stack_space = ""

    def __init__(self, kernel: LinearKernel, convention: Convention) -> None:
        self.kernel, self.convention = kernel, convention
        self.names = Names(kernel, "%")
        self.slots: list[str] = []  # stack slots, all in the first block
        self.lines: list[str] = []
        self.block = "entry"  # the label of the block that `lines` ends in
        self.labels: dict[Node, str] = {}
        self.vector_loops = vector_loops(kernel.body)
        self.metadata: list[str] = []
        self.zero_bytes = 0
        self.emitters: dict[Op, Callable[[Node], None]] = {
            **dict.fromkeys(_ARITHMETIC, self.binary),
            Op.GRID: self.grid,
            Op.LOOP: self.loop,
            Op.END: self.end,
            Op.ACC: self.accumulator,
            Op.UPDATE: self.update,
            Op.GET: self.get,
            Op.LOCAL: self.local,
            Op.LOAD: self.load,
            Op.STORE: self.store,
            Op.BROADCAST: self.broadcast,
            Op.STACK: self.stack,
            Op.LANE: self.lane,
            Op.REDUCE_LANES: self.reduce_lanes,
            Op.WHERE: self.where,
            Op.MAX: self.maximum,
            Op.SQRT: self.function,
            Op.TRUNC: self.function,
            Op.CAST: self.cast,
            Op.BITCAST: self.bitcast,
            Op.BARRIER: lambda node: None,  # a processor's block is one thread
        }

    # ---- the module ----
    def module(self) -> str:
        """Everything, as text."""
        self.emit_body()
        name, parameters = self.kernel.name, self.parameters()
        declared = ", ".join(" ".join(filter(None, parts)) for parts in parameters)
        entry_parameters = "ptr noalias readonly %kernarg, i32 %x, i32 %y, i32 %z"
        zeros = f"@{_ZEROS} = private constant [{self.zero_bytes} x i8] zeroinitializer, align 64\n"
        text = [
            *([zeros] if self.zero_bytes else []),
            f"define void @{name}({entry_parameters}) #0 {{",
            *self.argument_loads(),
            f"  call void @{name}.body({', '.join(f'{t} {n}' for t, _, n in parameters)})",
            "  ret void",
            "}\n",
            f"define internal void @{name}.body({declared}) alwaysinline #0 {{",
            "entry:",
            *self.slots,
            *self.lines,
            "  ret void",
            "}\n",
            f"attributes #0 = {{ {self.convention.attributes} }}",
            *self.metadata,
        ]
        return "\n".join(text) + "\n"

    def emit_body(self) -> None:
        """Writes every instruction of the kernel."""
        for node in self.kernel.body:
            if not is_constant(node):
                self.emitter(node)(node)

    def emitter(self, node: Node) -> Callable[[Node], None]:
        """What prints nodes of this op."""
        found = self.emitters.get(node.op)
        if found is None:
            raise InvalidKernel(
                f"Kernel {self.kernel.name} contains {node.op.name}, which is no linear "
                "instruction.",
                operation="render",
            )
        return found

    def parameters(self) -> list[tuple[str, str, str]]:
        """Type, attributes and name of the body's parameters."""
        found = []
        for slot, param in enumerate(self.kernel.params):
            if param.op is Op.PARAM:
                written = slot in self.kernel.written
                attributes = "noalias nonnull" if written else "noalias nonnull readonly"
                found.append(("ptr", attributes, self.names[param]))
            else:
                _, low, high = param.arg
                known = f"range(i64 {low}, {high + 1})" if high < dtypes.int64.max else ""
                found.append(("i64", known, self.names[param]))
        return found + [("i64", "range(i64 0, 4294967296)", f"%grid{axis}") for axis in range(3)]

    def argument_loads(self) -> list[str]:
        """The entry's part: arguments from their 8-byte slots."""
        lines = []
        for slot, (kind, _, name) in enumerate(self.parameters()[:-3]):
            lines.append(f"  %slot{slot} = getelementptr i8, ptr %kernarg, i64 {8 * slot}")
            lines.append(f"  {name} = load {kind}, ptr %slot{slot}, align 8")
        return lines + [f"  %grid{i} = zext i32 %{axis} to i64" for i, axis in enumerate("xyz")]

    # ---- operands and lines ----
    def type(self, dtype: DType) -> str:
        """The register type."""
        return self.convention.type(dtype)

    def value(self, node: Node) -> str:
        """The operand: a register's name or a constant."""
        return self.convention.constant(node) if is_constant(node) else self.names[node]

    def typed(self, node: Node) -> str:
        """The operand with its type before it."""
        return f"{self.type(node.dtype)} {self.value(node)}"

    def line(self, text: str) -> None:
        """One instruction without a result."""
        self.lines.append(f"  {text}")

    def define(self, stem: str, instruction: str) -> str:
        """A new register with the result of `instruction`."""
        name = self.names.fresh(stem)
        self.line(f"{name} = {instruction}")
        return name

    def set(self, node: Node, instruction: str) -> None:
        """The register of `node`."""
        self.names[node] = self.define(node.op.name.lower(), instruction)

    def start(self, label: str) -> None:
        """A new block, entered by a branch that is already written."""
        self.lines.append(f"{label}:")
        self.block = label

    # ---- loops, accumulators, places ----
    def grid(self, node: Node) -> None:
        """This block's position, a parameter."""
        self.names[node] = f"%grid{node.arg}"

    def loop(self, node: Node) -> None:
        """Opens a loop, whose test stands at the top."""
        start, stop, _ = node.src
        counter = self.names.fresh("i")
        label = self.labels[node] = f"loop.{counter[1:]}"
        self.names[node] = counter
        kind = self.type(node.dtype)
        before = self.block
        self.line(f"br label %{label}")
        self.start(label)
        self.line(
            f"{counter} = phi {kind} [ {self.value(start)}, %{before} ], "
            f"[ {counter}.next, %{label}.latch ]"
        )
        self.line(f"{counter}.more = icmp slt {kind} {counter}, {self.value(stop)}")
        self.line(f"br i1 {counter}.more, label %{label}.body, label %{label}.exit")
        self.start(f"{label}.body")

    def end(self, node: Node) -> None:
        """Closes it."""
        (loop,) = node.src
        start, _, step = loop.src
        counter, label = self.names[loop], self.labels[loop]
        self.line(f"br label %{label}.latch")
        self.start(f"{label}.latch")
        wrap = "nuw nsw" if bounds(start)[0] >= 0 and bounds(step)[0] >= 0 else "nsw"
        self.line(
            f"{counter}.next = add {wrap} {self.type(loop.dtype)} {counter}, {self.value(step)}"
        )
        hint = f", !llvm.loop {self.hint()}" if loop in self.vector_loops else ""
        self.line(f"br label %{label}{hint}")
        self.start(f"{label}.exit")

    def hint(self) -> str:
        """Metadata of a loop that is not to be vectorised."""
        if not self.metadata:
            self.metadata.append('!0 = !{!"llvm.loop.vectorize.enable", i1 false}')
        name = f"!{len(self.metadata)}"
        self.metadata.append(f"{name} = distinct !{{{name}, !0}}")
        return name

    def slot(self, node: Node, stem: str, kind: str, align: int) -> None:
        """Stack memory for `node`."""
        name = self.names[node] = self.names.fresh(stem)
        self.slots.append(f"  {name} = alloca {kind}, align {align}{self.stack_space}")

    def accumulator(self, node: Node) -> None:
        """A stack slot with its first value."""
        self.slot(node, "acc", self.type(node.dtype), 64)
        self.line(
            f"store {self.typed(node.src[0])}, {self.stack_pointer} {self.names[node]}, align 64"
        )

    def get(self, node: Node) -> None:
        """What the slot holds here."""
        slot = f"{self.stack_pointer} {self.names[node.src[0]]}"
        self.set(node, f"load {self.type(node.dtype)}, {slot}, align 64")

    def update(self, node: Node) -> None:
        """Another value for the slot."""
        accumulator, value = node.src
        slot, dtype = f"{self.stack_pointer} {self.names[accumulator]}", accumulator.dtype
        old = self.define("old", f"load {self.type(dtype)}, {slot}, align 64")
        new = self.combine(node.arg, old, self.value(value), dtype)
        self.line(f"store {self.type(dtype)} {new}, {slot}, align 64")

    def local(self, node: Node) -> None:
        """Memory of the block."""
        kind = self.type(memory_dtype(node.dtype.scalar))
        self.slot(node, "local", f"[{node.arg[1]} x {kind}]", 64)

    # ---- memory ----
    def pointer(self, node: Node) -> str:
        """The type of an argument's or a LOCAL's address."""
        return "ptr"

    def address(self, pointer: Node, index: str, dtype: DType, flags: str = "inbounds ") -> str:
        """The place of element `index`; `dtype` is that of one element."""
        kind = self.type(memory_dtype(dtype.scalar))
        where = f"ptr {self.names[pointer]}, i64 {index}"
        return self.define("address", f"getelementptr {flags}{kind}, {where}")

    def or_zeros(self, gate: str, address: str, size_bytes: int) -> str:
        """`address` where the gate holds, else as many zero bytes."""
        self.zero_bytes = max(self.zero_bytes, size_bytes)
        return self.define("address", f"select i1 {gate}, ptr {address}, ptr @{_ZEROS}")

    def load(self, node: Node) -> None:
        """A scalar, consecutive lanes or a gather, behind a gate or not."""
        pointer, index, *gates = node.src
        gate = gates[0] if gates else None
        if index.dtype.lanes > 1:
            self.gather(node, pointer, index, gate)
            return
        dtype, uniform = memory_dtype(node.dtype), uniform_gate(gate)
        align = node.dtype.itemsize
        if gate is None or uniform is not None:
            address = self.address(pointer, self.value(index), dtype)
            if uniform is not None:
                size = dtype.lanes * dtype.itemsize
                address = self.or_zeros(self.value(uniform), address, size)
            text = f"load {self.type(dtype)}, ptr {address}, align {align}"
        else:
            # Lanes that are masked off may lie outside: the address is not `inbounds`.
            address = self.address(pointer, self.value(index), dtype, "")
            text = (
                f"call {self.type(dtype)} @llvm.masked.load{self.convention.overload(dtype)}.p0("
                f"ptr align {align} {address}, {self.typed(gate)}, "
                f"{self.type(dtype)} zeroinitializer)"
            )
        self.set_loaded(node, self.define("load", text))

    def gather(self, node: Node, pointer: Node, index: Node, gate: Node | None) -> None:
        """One load for each lane, which x86 does as fast as its gather instruction."""
        dtype = memory_dtype(node.dtype)
        scalar, uniform = self.type(dtype.scalar), uniform_gate(gate)
        vector = "poison"
        for lane in range(dtype.lanes):
            position = self.define("index", f"extractelement {self.typed(index)}, i64 {lane}")
            address = self.address(pointer, position, dtype)
            if uniform is not None:
                address = self.or_zeros(self.value(uniform), address, dtype.itemsize)
            elif gate is not None:
                bit = self.define("gate", f"extractelement {self.typed(gate)}, i64 {lane}")
                address = self.or_zeros(bit, address, dtype.itemsize)
            one = self.define("load", f"load {scalar}, ptr {address}, align {dtype.itemsize}")
            into = f"{self.type(dtype)} {vector}, {scalar} {one}, i64 {lane}"
            vector = self.define("gather", f"insertelement {into}")
        self.set_loaded(node, vector)

    def set_loaded(self, node: Node, name: str) -> None:
        """The register of a LOAD; bytes become bools."""
        self.names[node] = name
        if node.dtype.kind == "b":
            kind = self.type(memory_dtype(node.dtype))
            self.set(
                node,
                f"icmp ne {kind} {name}, zeroinitializer"
                if node.dtype.lanes > 1
                else f"icmp ne {kind} {name}, 0",
            )

    def store(self, node: Node) -> None:
        """The same the other way round."""
        pointer, index, value, *gates = node.src
        gate = gates[0] if gates else None
        uniform = uniform_gate(gate)
        dtype, text = memory_dtype(value.dtype), self.value(value)
        if dtype is not value.dtype:
            text = self.define("byte", f"zext {self.typed(value)} to {self.type(dtype)}")
        if gate is not None and uniform is None:
            self.masked_store(pointer, index, text, dtype, gate)
            return
        after = self.names.fresh("after")[1:] if uniform is not None else ""
        if uniform is not None:
            self.line(f"br i1 {self.value(uniform)}, label %{after}.store, label %{after}")
            self.start(f"{after}.store")
        if index.dtype.lanes == 1:
            address = self.address(pointer, self.value(index), dtype)
            place = f"{self.pointer(pointer)} {address}, align {dtype.itemsize}"
            self.line(f"store {self.type(dtype)} {text}, {place}")
        else:
            self.scatter(pointer, index, text, dtype)
        if uniform is not None:
            self.line(f"br label %{after}")
            self.start(after)

    def scatter(self, pointer: Node, index: Node, text: str, dtype: DType) -> None:
        """Lane by lane, in order."""
        for lane in range(dtype.lanes):
            position = self.define("index", f"extractelement {self.typed(index)}, i64 {lane}")
            one = self.define("lane", f"extractelement {self.type(dtype)} {text}, i64 {lane}")
            address = self.address(pointer, position, dtype)
            kind = self.type(dtype.scalar)
            self.line(f"store {kind} {one}, ptr {address}, align {dtype.itemsize}")

    def masked_store(self, pointer: Node, index: Node, text: str, dtype: DType, gate: Node) -> None:
        """A gate for each lane: lanes that are masked off may lie outside."""
        position, overload = self.value(index), self.convention.overload(dtype)
        value = f"{self.type(dtype)} {text}"
        align = f"align {dtype.itemsize}"
        if index.dtype.lanes == 1 and is_first_lane(gate):
            # LLVM's x86 back end makes a masked store of one narrowed lane too wide.
            address = self.address(pointer, position, dtype)
            one = self.define("lane", f"extractelement {value}, i64 0")
            self.line(f"store {self.type(dtype.scalar)} {one}, ptr {address}, {align}")
            return
        if index.dtype.lanes == 1:
            address = self.address(pointer, position, dtype, "")
            operands = f"{value}, ptr {align} {address}, {self.typed(gate)}"
            self.line(f"call void @llvm.masked.store{overload}.p0({operands})")
            return
        kind, lanes = self.type(dtype.scalar), dtype.lanes
        where = f"ptr {self.names[pointer]}, {self.typed(index)}"
        addresses = self.define("addresses", f"getelementptr {kind}, {where}")
        operands = f"{value}, <{lanes} x ptr> {align} {addresses}, {self.typed(gate)}"
        self.line(f"call void @llvm.masked.scatter{overload}.v{lanes}p0({operands})")

    # ---- lanes ----
    def broadcast(self, node: Node) -> None:
        """A scalar in all lanes."""
        (scalar,) = node.src
        kind, lanes = self.type(node.dtype), node.dtype.lanes
        one = self.define("lane", f"insertelement {kind} poison, {self.typed(scalar)}, i64 0")
        self.set(
            node, f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )

    def stack(self, node: Node) -> None:
        """Lanes from scalars."""
        vector = "poison"
        for lane, scalar in enumerate(node.src):
            into = f"{self.type(node.dtype)} {vector}, {self.typed(scalar)}, i64 {lane}"
            vector = self.define("stack", f"insertelement {into}")
        self.names[node] = vector

    def lane(self, node: Node) -> None:
        """A scalar from a lane."""
        self.set(node, f"extractelement {self.typed(node.src[0])}, i64 {node.arg}")

    def reduce_lanes(self, node: Node) -> None:
        """Halves are combined while there are some: a tree, in a fixed order."""
        (vector,) = node.src
        dtype, text = vector.dtype, self.value(vector)
        while dtype.lanes > 2 and dtype.lanes % 2 == 0:
            half = dtype.lanes // 2
            low, high = (self.part(text, dtype, first, half) for first in (0, half))
            dtype = dtype.vec(half)
            text = self.combine(node.arg, low, high, dtype)
        total = self.define("lane", f"extractelement {self.type(dtype)} {text}, i64 0")
        for i in range(1, dtype.lanes):
            one = self.define("lane", f"extractelement {self.type(dtype)} {text}, i64 {i}")
            total = self.combine(node.arg, total, one, dtype.scalar)
        self.names[node] = total

    def part(self, vector: str, dtype: DType, first: int, lanes: int) -> str:
        """Some lanes of a vector, as a vector."""
        kind = self.type(dtype)
        chosen = ", ".join(f"i32 {i}" for i in range(first, first + lanes))
        return self.define(
            "part", f"shufflevector {kind} {vector}, {kind} poison, <{lanes} x i32> <{chosen}>"
        )

    # ---- arithmetic ----
    def binary(self, node: Node) -> None:
        """An instruction on two operands."""
        a, b = node.src
        instruction = self.instruction(node.op, a.dtype)
        if node.op in (Op.IDIV, Op.MOD) and min(bounds(a)[0], bounds(b)[0]) >= 0:
            instruction = self.instruction(node.op, dtypes.uint64)  # the cheaper one
        self.set(node, f"{instruction} {self.typed(a)}, {self.value(b)}")

    def instruction(self, op: Op, dtype: DType) -> str:
        """LLVM's name of `op` on operands of `dtype`."""
        return _ARITHMETIC[op][{"f": 0, "i": 1}.get(dtype.kind, 2)]

    def combine(self, op: Op, a: str, b: str, dtype: DType) -> str:
        """A new register with ADD, MUL or MAX of two operands."""
        kind = self.type(dtype)
        if dtype.kind == "b":
            return self.define(
                "both" if op is Op.MUL else "either",
                f"{'and' if op is Op.MUL else 'or'} {kind} {a}, {b}",
            )
        if op is not Op.MAX:
            return self.define(op.name.lower(), f"{self.instruction(op, dtype)} {kind} {a}, {b}")
        function = {"f": "nsz|maximum", "i": "|smax"}.get(dtype.kind, "|umax")
        flags, _, name = function.partition("|")
        full = f"@llvm.{name}{self.convention.overload(dtype)}"
        return self.define("max", f"call {flags} {kind} {full}({kind} {a}, {kind} {b})")

    def maximum(self, node: Node) -> None:
        """The greater of two."""
        a, b = node.src
        self.names[node] = self.combine(Op.MAX, self.value(a), self.value(b), node.dtype)

    def function(self, node: Node) -> None:
        """A call of the intrinsic of that name."""
        kind, overload = self.type(node.dtype), self.convention.overload(node.dtype)
        name = f"@llvm.{node.op.name.lower()}{overload}"
        self.set(node, f"call {kind} {name}({self.typed(node.src[0])})")

    def where(self, node: Node) -> None:
        """A choice."""
        self.set(node, f"select {', '.join(self.typed(s) for s in node.src)}")

    def bitcast(self, node: Node) -> None:
        """The same bits."""
        self.convert(node, "bitcast")

    def cast(self, node: Node) -> None:
        """A conversion of the value."""
        (x,) = node.src
        source, dtype = x.dtype, node.dtype
        signed = "s" if "u" not in (source.kind, dtype.kind) and source.kind != "b" else "u"
        if source.kind == "f" and dtype.kind == "f":
            self.convert(node, "fpext" if dtype.bits > source.bits else "fptrunc")
        elif source.kind == "f":
            self.convert(node, f"fpto{signed}i")
            # Out of range the result is poison; frozen it is merely some number.
            self.set(node, f"freeze {self.type(dtype)} {self.names[node]}")
        elif dtype.kind == "f":
            self.convert(node, f"{'s' if source.kind == 'i' else 'u'}itofp")
        elif self.convention.bits(dtype) < self.convention.bits(source) and source.kind != "b":
            self.convert(node, "trunc")
        else:
            self.convert(node, "sext" if source.kind == "i" else "zext")

    def convert(self, node: Node, instruction: str) -> None:
        """A conversion, or nothing where both types are one in LLVM."""
        (x,) = node.src
        if self.type(x.dtype) == self.type(node.dtype):
            self.names[node] = self.value(x)
        else:
            self.set(node, f"{instruction} {self.typed(x)} to {self.type(node.dtype)}")
