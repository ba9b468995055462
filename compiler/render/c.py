"""A linear kernel as C that people can read.

Values that are used once and only computed are written where they are used; loads, and what is
used more than once, get names. As in LLVM IR, the kernel proper is an inlined function with
`restrict` pointers, called by an entry that reads the arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from compiler.dtype import DType, dtypes
from compiler.errors import InvalidKernel
from compiler.ir import ALU, Node, Op
from compiler.linear import LinearKernel
from compiler.render.c_types import CTypes, literal
from compiler.render.legalise import legalise
from compiler.render.llvm_types import memory_dtype
from compiler.render.names import Names, is_constant, splat_value, uniform_gate, vector_loops
from compiler.symbolic import bounds
from compiler.target import Target

_INFIX = {
    Op.ADD: "+",
    Op.MUL: "*",
    Op.DIV: "/",
    Op.IDIV: "/",
    Op.MOD: "%",
    Op.CMPLT: "<",
    Op.CMPNE: "!=",
    Op.CMPEQ: "==",
    Op.AND: "&",
    Op.OR: "|",
    Op.XOR: "^",
    Op.SHL: "<<",
    Op.SHR: ">>",
}
_INLINED = ALU | {Op.BROADCAST, Op.STACK, Op.LANE}
_LONGEST = 72
"""Characters of an expression that is still written where it is used."""


def render(kernel: LinearKernel, target: Target) -> str:
    """The C text whose function `kernel.name` runs one block of the kernel."""
    return Renderer(legalise(kernel, native_half=False), CTypes()).module()


class Renderer:
    """C for processors; a dialect for GPUs replaces the frame, the types and a few operations."""

    index = "long"
    """The type of loop counters."""
    literal = staticmethod(literal)

    def __init__(self, kernel: LinearKernel, types: CTypes) -> None:
        self.kernel = kernel
        self.types = types
        self.names = Names(kernel)
        self.lines: list[str] = []
        self.depth = 1
        self.uses = Counter(s for node in kernel.body for s in node.src)
        self.vector_loops = vector_loops(kernel.body)
        self.statements: dict[Op, Callable[[Node], None]] = {
            Op.LOOP: self.loop,
            Op.END: self.end,
            Op.ACC: self.accumulator,
            Op.UPDATE: self.update,
            Op.LOCAL: self.local,
            Op.STORE: self.store,
            Op.REDUCE_LANES: self.reduce_lanes,
            Op.BARRIER: lambda node: None,  # a processor's block is one thread
        }
        self.expressions: dict[Op, Callable[[Node], str]] = {
            **dict.fromkeys(_INFIX, self.infix),
            Op.GRID: lambda node: f"grid{node.arg}",
            Op.GET: lambda node: self.names[node.src[0]],
            Op.LOAD: self.load,
            Op.BROADCAST: self.broadcast,
            Op.STACK: self.stack,
            Op.LANE: lambda node: f"{self.operand(node.src[0])}[{node.arg}]",
            Op.WHERE: self.where,
            Op.MAX: self.maximum,
            Op.SQRT: self.function,
            Op.TRUNC: self.function,
            Op.CAST: self.cast,
            Op.BITCAST: self.bitcast,
        }

    # ---- the text ----
    def module(self) -> str:
        """Types, helpers, the kernel and its entry."""
        self.emit_body()
        name = self.kernel.name
        parameters, arguments = [], []
        for slot, param in enumerate(self.kernel.params):
            if param.op is Op.PARAM:
                const = "" if slot in self.kernel.written else "const "
                kind = f"{const}{self.types.scalar(memory_dtype(param.dtype))} *"
                parameters.append(f"{kind}restrict {self.names[param]}")
                arguments.append(f"(({kind}const *)kernarg)[{slot}]")
            else:
                parameters.append(f"long {self.names[param]}")
                arguments.append(f"((const long *)kernarg)[{slot}]")
        parameters += [f"long grid{axis}" for axis in range(3)]
        self.types.scalar(dtypes.uint32)
        text = [
            *self.types.definitions.values(),
            "",
            "static inline __attribute__((always_inline))",
            f"void {name}_body({', '.join(parameters)}) {{",
            *self.lines,
            "}",
            "",
            '__attribute__((visibility("default")))',
            f"void {name}(const void *kernarg, uint x, uint y, uint z) {{",
            f"  {name}_body({', '.join([*arguments, 'x', 'y', 'z'])});",
            "}",
            "",
        ]
        return "\n".join(text)

    def emit_body(self) -> None:
        """The kernel's lines."""
        for node in self.kernel.body:
            if not is_constant(node):
                self.emit(node)

    def emit(self, node: Node) -> None:
        """The line of a statement, or the name or text of a value."""
        statement = self.statements.get(node.op)
        if statement is not None:
            statement(node)
            return
        expression = self.expressions.get(node.op)
        if expression is None:
            raise InvalidKernel(
                f"Kernel {self.kernel.name} contains {node.op.name}, which is no linear "
                "instruction.",
                operation="render",
            )
        text = expression(node)
        inline = node.op in _INLINED and self.uses[node] == 1 and len(text) <= _LONGEST
        if inline or node.op is Op.GRID:
            self.names[node] = text
        else:
            self.names[node] = self.define(node.op.name.lower(), node.dtype, text)

    def line(self, text: str) -> None:
        """One line at the present depth."""
        self.lines.append("  " * self.depth + text)

    def define(self, stem: str, dtype: DType, text: str) -> str:
        """A new variable with a value that stays."""
        name = self.names.fresh(stem)
        self.line(f"const {self.types.name(dtype)} {name} = {_bare(text)};")
        return name

    def operand(self, node: Node) -> str:
        """A value's name, its expression in parentheses, or a constant."""
        if not is_constant(node):
            return self.names[node]
        if node.op is Op.CONST and node.dtype.lanes == 1:
            text = self.literal(node.arg, node.dtype)
            return f"({text})" if text.startswith("-") else text
        kind = self.types.name(node.dtype)
        negate = "-" if node.dtype.kind == "b" else ""
        constant = splat_value(node)
        if constant is not None:
            return f"({kind})({negate}{self.literal(constant.arg, constant.dtype)})"
        if node.op is Op.RAMP:
            lanes = [str(i) for i in range(node.dtype.lanes)]
        else:
            lanes = [negate + self.literal(s.arg, s.dtype) for s in node.src]
        return f"({kind}){{{', '.join(lanes)}}}"

    # ---- loops, accumulators, places ----
    def loop(self, node: Node) -> None:
        """Opens a for loop."""
        start, stop, step = map(self.operand, node.src)
        name = self.names[node] = self.names.fresh("i")
        if node in self.vector_loops:
            self.line("#pragma clang loop vectorize(disable)")
        self.line(f"for ({self.index} {name} = {start}; {name} < {stop}; {name} += {step}) {{")
        self.depth += 1

    def end(self, node: Node) -> None:
        """Closes it."""
        self.depth -= 1
        self.line("}")

    def accumulator(self, node: Node) -> None:
        """A variable that changes."""
        initial = self.operand(node.src[0])
        name = self.names[node] = self.names.fresh("acc")
        self.line(f"{self.types.name(node.dtype)} {name} = {_bare(initial)};")

    def update(self, node: Node) -> None:
        """`acc += value`, `acc *= value`, `acc = max(acc, value)`."""
        accumulator, value = node.src
        name, text, dtype = self.names[accumulator], self.operand(value), accumulator.dtype
        if node.arg is Op.MAX or dtype.kind == "b":
            self.line(f"{name} = {self.combine(node.arg, name, text, dtype)};")
        else:
            self.line(f"{name} {_INFIX[node.arg]}= {_bare(text)};")

    def local(self, node: Node) -> None:
        """An array on the stack, of the whole function."""
        name = self.names[node] = self.names.fresh("local")
        kind = self.types.scalar(memory_dtype(node.dtype))
        text = f"  {kind} {name}[{node.arg[1]}] __attribute__((aligned(64)));"
        self.lines.insert(0, text)

    # ---- memory ----
    def load(self, node: Node) -> str:
        """A scalar, consecutive lanes or a gather, behind a gate or not."""
        pointer, index, *gates = node.src
        gate = gates[0] if gates else None
        uniform, dtype = uniform_gate(gate), memory_dtype(node.dtype)
        name, position = self.names[pointer], self.operand(index)
        if index.dtype.lanes > 1 or (gate is not None and uniform is None):
            masked, at_index = gate is not None, index.dtype.lanes > 1
            function = self.types.lane_access(dtype, masked, False, at_index)
            operands = [name, position] if at_index else [f"{name} + {position}"]
            if gate is not None:
                operands.append(self.operand(gate))
            text = f"{function}({', '.join(operands)})"
        else:
            if dtype.lanes == 1:
                text = f"{name}[{_bare(position)}]"
            else:
                text = f"*(const {self.types.unaligned(dtype)} *)({name} + {position})"
            if uniform is not None:
                text = f"{self.operand(uniform)} ? {text} : ({self.types.name(dtype)})0"
        if node.dtype.kind == "b":
            return f"({text}) != 0"
        return text

    def store(self, node: Node) -> None:
        """The same for a STORE."""
        pointer, index, value, *gates = node.src
        gate = gates[0] if gates else None
        uniform, dtype = uniform_gate(gate), memory_dtype(value.dtype)
        name, position, text = self.names[pointer], self.operand(index), self.operand(value)
        if value.dtype.kind == "b" and dtype.lanes > 1:
            text = f"({self.types.name(dtype)})({text} & 1)"
        condition = f"if ({_bare(self.operand(uniform))}) " if uniform is not None else ""
        lanewise = gate is not None and uniform is None
        if index.dtype.lanes > 1 or lanewise:
            at_index = index.dtype.lanes > 1
            function = self.types.lane_access(dtype, lanewise, True, at_index)
            operands = [name, position, text] if at_index else [f"{name} + {position}", text]
            if lanewise and gate is not None:
                operands.append(self.operand(gate))
            self.line(f"{condition}{function}({', '.join(operands)});")
        elif dtype.lanes == 1:
            self.line(f"{condition}{name}[{_bare(position)}] = {_bare(text)};")
        else:
            place = f"*({self.types.unaligned(dtype)} *)({name} + {position})"
            self.line(f"{condition}{place} = {_bare(text)};")

    # ---- lanes ----
    def broadcast(self, node: Node) -> str:
        """A scalar in all lanes."""
        negate = "-" if node.dtype.kind == "b" else ""
        return f"({self.types.name(node.dtype)})({negate}{self.operand(node.src[0])})"

    def stack(self, node: Node) -> str:
        """Lanes from scalars."""
        negate = "-" if node.dtype.kind == "b" else ""
        lanes = ", ".join(negate + self.operand(s) for s in node.src)
        return f"({self.types.name(node.dtype)}){{{lanes}}}"

    def reduce_lanes(self, node: Node) -> None:
        """Halves are combined while there are some: a tree, in a fixed order."""
        (vector,) = node.src
        dtype = vector.dtype
        name = self.define("lanes", dtype, self.operand(vector))
        while dtype.lanes > 2 and dtype.lanes % 2 == 0:
            half = dtype.lanes // 2
            low, high = (
                f"__builtin_shufflevector({name}, {name}, "
                f"{', '.join(str(i) for i in range(first, first + half))})"
                for first in (0, half)
            )
            dtype = dtype.vec(half)
            name = self.define("lanes", dtype, self.combine(node.arg, low, high, dtype))
        total = f"{name}[0]"
        for i in range(1, dtype.lanes):
            total = self.combine(node.arg, total, f"{name}[{i}]", dtype.scalar)
        self.names[node] = self.define("reduced", dtype.scalar, total)

    # ---- arithmetic ----
    def infix(self, node: Node) -> str:
        """`(a op b)`, with C's promotions of narrow integers undone."""
        a, b = node.src
        dtype, symbol = a.dtype, _INFIX[node.op]
        left, right = self.operand(a), self.operand(b)
        if dtype.kind == "f" and splat_value(a) is None:
            right = self.spread(b)
        if node.op in (Op.IDIV, Op.MOD) and dtype is dtypes.index:
            if min(bounds(a)[0], bounds(b)[0]) >= 0:  # the cheaper division
                bits = dtypes.uint64 if self.index == "long" else dtypes.uint32
                unsigned = self.types.scalar(bits)
                return f"(({self.index})(({unsigned}){left} {symbol} ({unsigned}){right}))"
        text = f"({left} {symbol} {right})"
        if node.dtype.kind == "b":
            return self.truth(node.op, text, dtype, left, right)
        if dtype.lanes == 1 and dtype.kind in "iu" and dtype.bits < 32:
            return f"(({self.types.name(dtype)}){text})"
        return text

    def spread(self, node: Node) -> str:
        """An operand beside a vector, where C spreads a constant to all lanes by itself."""
        constant = splat_value(node)
        return self.operand(node if constant is None else constant)

    def truth(self, op: Op, text: str, dtype: DType, left: str, right: str) -> str:
        """A comparison or logic, as a bool or a mask of 0 and -1."""
        if dtype.lanes == 1:
            return text if op is not Op.XOR else f"({left} != {right})"
        if dtype.kind == "b":
            masks = {
                Op.CMPNE: f"({left} ^ {right})",
                Op.CMPEQ: f"(~({left} ^ {right}))",
                Op.CMPLT: f"(~{left} & {right})",
            }
            return masks.get(op, text)
        return f"__builtin_convertvector({text}, {self.types.vector('char', dtype.lanes)})"

    def combine(self, op: Op, a: str, b: str, dtype: DType) -> str:
        """ADD, MUL or MAX of two operands, in the type of `dtype`."""
        if dtype.kind == "b":
            return f"({a} {'&' if op is Op.MUL else '|'} {b})"
        if op is Op.MAX:
            return f"{self.types.maximum(dtype)}({_bare(a)}, {_bare(b)})"
        return f"({a} {_INFIX[op]} {b})"

    def maximum(self, node: Node) -> str:
        """The greater of two; with a constant a comparison less is enough to keep NaN."""
        a, b = node.src
        return self.combine(Op.MAX, self.operand(a), self.operand(b), node.dtype)

    def where(self, node: Node) -> str:
        """A choice; for vectors by masks as wide as the lanes chosen from."""
        condition, a, b = node.src
        test = self.operand(condition)
        if condition.dtype.lanes > 1 and node.dtype.bits != 8:
            test = f"__builtin_convertvector({test}, {self.types.mask(node.dtype)})"
        return f"({test} ? {self.operand(a)} : {self.operand(b)})"

    def function(self, node: Node) -> str:
        """A square root or the integer part."""
        name = self.types.lanewise(node.op.name.lower(), node.dtype)
        return f"{name}({_bare(self.operand(node.src[0]))})"

    def cast(self, node: Node) -> str:
        """A conversion of values."""
        (x,) = node.src
        kind, text = self.types.name(node.dtype), self.operand(x)
        if node.dtype.lanes == 1:
            return f"(({kind}){text})"
        if x.dtype.kind == "b":
            text = f"({text} & 1)"
        return f"__builtin_convertvector({_bare(text)}, {kind})"

    def bitcast(self, node: Node) -> str:
        """The same bits."""
        (x,) = node.src
        kind, text = self.types.name(node.dtype), self.operand(x)
        if self.types.name(x.dtype) == kind:
            return text
        if node.dtype.lanes > 1:
            return f"(({kind}){text})"
        return f"{self.types.bits(x.dtype, node.dtype)}({_bare(text)})"


def _bare(text: str) -> str:
    """An expression without parentheses that enclose all of it."""
    if not text.startswith("(") or not text.endswith(")"):
        return text
    depth = 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[1:-1] if position == len(text) - 1 else text
    return text
