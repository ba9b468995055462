"""RDNA's matrix instructions (WMMA): 16 × 16 results of a whole wave, as calls of functions.

Such a function finds the registers of A, B and C one after the other in memory, as 32 words each,
and leaves the result where C was. Where an element lies is a row for each generation, after AMD's
"RDNA3 ISA", 7.9, and "RDNA4 ISA", 7.12: lane and half of the wave hold a row of A or a column of B;
the order of the sum's terms within them is ours, as is its rounding: float32 after every term for
floats, none for integers. EXEC is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.emulated.simt.instruction import Instruction, Operand
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.amd import Translator

SIDE = 16
_SIGNED_A, _SIGNED_B, _CLAMP = 1, 2, 4
_INTRINSICS = {
    "declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)",
    "declare <16 x i32> @llvm.sadd.sat.v16i32(<16 x i32>, <16 x i32>)",
}
_WIDTHS = {"f16": 16, "bf16": 16, "iu8": 8, "iu4": 4}


@dataclass(frozen=True)
class Shape:
    """One matrix instruction: its types, and how its operands lie in a wave's registers."""

    generation: str
    factor: str
    """`f16`, `bf16`, `iu8` or `iu4`."""
    result: str
    """`f32`, `f16`, `bf16` or `i32`."""
    terms: int = 16
    """Of each sum."""

    @property
    def name(self) -> str:
        """The helper's."""
        return f"wmma_{self.generation}_{self.result}_{self.terms}_{self.factor}".lower()

    @property
    def halves(self) -> int:
        """RDNA3 wants each row in both halves of the wave; RDNA4 splits it over them."""
        return 1 if self.generation == "RDNA3" else 2

    @property
    def factor_registers(self) -> int:
        """Of A, and of B."""
        return self.terms // self.halves * _WIDTHS[self.factor] // 32

    @property
    def packed(self) -> bool:
        """Whether a register holds two results of 16 bits."""
        return self.generation == "RDNA4" and self.result in ("f16", "bf16")

    @property
    def result_registers(self) -> int:
        """Of C, and of D."""
        return 4 if self.packed else 8

    def place(self, row: int) -> tuple[int, int, int]:
        """Register, half of the wave and lowest bit of a row of C."""
        if self.generation == "RDNA3":
            return row // 2, row % 2, 0
        if self.packed:
            return row % 8 // 2, row // 8, row % 2 * 16
        return row % 8, row // 8, 0


SHAPES = {
    (generation, f"v_wmma_{result}_16x16x{terms}_{factor}"):
        Shape(generation, factor, result, terms)
    for generation in ("RDNA3", "RDNA4")
    for result, factor, terms in (
        ("f32", "f16", 16), ("f32", "bf16", 16), ("f16", "f16", 16), ("bf16", "bf16", 16),
        ("i32", "iu8", 16), ("i32", "iu4", 16), ("i32", "iu4", 32),
    )
    if generation == "RDNA4" or terms == 16
}


# ---- the functions ----
def _convert(shape: Shape, type: str, bits: str, name: str) -> str:
    """IR that makes float32 vectors of 16-bit patterns in the low bits of i32."""
    if type == "bf16":
        return (f"  {name}.up = shl <16 x i32> {bits}, splat (i32 16)\n"
                f"  {name} = bitcast <16 x i32> {name}.up to <16 x float>\n")
    return (f"  {name}.cut = trunc <16 x i32> {bits} to <16 x i16>\n"
            f"  {name}.half = bitcast <16 x i16> {name}.cut to <16 x half>\n"
            f"  {name} = fpext <16 x half> {name}.half to <16 x float>\n")


def _factor(shape: Shape, which: str, first: int, flag: int) -> str:
    """IR that spreads A or B: term by term 16 elements, into %{which}."""
    text, width = "", _WIDTHS[shape.factor]
    each = shape.terms // shape.halves
    element = "i32" if shape.result == "i32" else "float"
    for term in range(shape.terms):
        half, slot = divmod(term, each)
        register, bit = divmod(slot * width, 32)
        n = f"%{which}{term}"
        text += (f"  {n}.at = getelementptr i8, ptr %registers, "
                 f"i64 {128 * (first + register) + 64 * half}\n"
                 f"  {n}.word = load <16 x i32>, ptr {n}.at, align 64\n")
        if shape.result == "i32":
            text += (f"  {n}.up = shl <16 x i32> {n}.word, splat (i32 {32 - width - bit})\n"
                     f"  {n}.s = ashr <16 x i32> {n}.up, splat (i32 {32 - width})\n"
                     f"  {n}.u = lshr <16 x i32> {n}.up, splat (i32 {32 - width})\n"
                     f"  {n} = select i1 %signed.{which}, <16 x i32> {n}.s, <16 x i32> {n}.u\n")
        else:
            text += f"  {n}.down = lshr <16 x i32> {n}.word, splat (i32 {bit})\n"
            text += _convert(shape, shape.factor, f"{n}.down", n)
        text += (f"  {n}.to = getelementptr i8, ptr %{which}, i64 {64 * term}\n"
                 f"  store <16 x {element}> {n}, ptr {n}.to, align 64\n")
    head = f"  %flag.{which} = and i32 %flags, {flag}\n"
    return head + f"  %signed.{which} = icmp ne i32 %flag.{which}, 0\n" + text


def _row(shape: Shape, row: int) -> str:
    """IR of one row of the result."""
    n, first = f"%r{row}", 2 * shape.factor_registers
    register, half, bit = shape.place(row)
    text = (f"  {n}.at = getelementptr i8, ptr %registers, "
            f"i64 {128 * (first + register) + 64 * half}\n"
            f"  {n}.word = load <16 x i32>, ptr {n}.at, align 64\n")
    element = "i32" if shape.result == "i32" else "float"
    total = f"{n}.c"
    if shape.result == "f32":
        text += f"  {total} = bitcast <16 x i32> {n}.word to <16 x float>\n"
    elif shape.result == "i32":
        total = "zeroinitializer"
    else:
        text += f"  {n}.low = lshr <16 x i32> {n}.word, splat (i32 {bit})\n"
        text += _convert(shape, shape.result, f"{n}.low", total)
    for term in range(shape.terms):
        t = f"{n}.t{term}"
        text += (f"  {t}.at = getelementptr i8, ptr %a, i64 {64 * term + 4 * row}\n"
                 f"  {t}.one = load {element}, ptr {t}.at\n"
                 f"  {t}.i = insertelement <16 x {element}> poison, {element} {t}.one, i32 0\n"
                 f"  {t}.a = shufflevector <16 x {element}> {t}.i, <16 x {element}> poison, "
                 f"<16 x i32> zeroinitializer\n"
                 f"  {t}.b.at = getelementptr i8, ptr %b, i64 {64 * term}\n"
                 f"  {t}.b = load <16 x {element}>, ptr {t}.b.at, align 64\n")
        if shape.result == "i32":
            text += (f"  {t}.p = mul <16 x i32> {t}.a, {t}.b\n"
                     f"  {t} = add <16 x i32> {total}, {t}.p\n")
        else:
            text += (f"  {t} = call <16 x float> @llvm.fma.v16f32(<16 x float> {t}.a, "
                     f"<16 x float> {t}.b, <16 x float> {total})\n")
        total = t
    return text + _store(shape, n, total, bit)


def _store(shape: Shape, n: str, total: str, bit: int) -> str:
    """IR that puts a row where it belongs; the other half of a register stays."""
    if shape.result == "f32":
        text = f"  {n}.d = bitcast <16 x float> {total} to <16 x i32>\n"
    elif shape.result == "i32":
        text = (f"  {n}.sum = add <16 x i32> {n}.word, {total}\n"
                f"  {n}.sat = call <16 x i32> @llvm.sadd.sat.v16i32(<16 x i32> {n}.word, "
                f"<16 x i32> {total})\n"
                f"  {n}.d = select i1 %clamp, <16 x i32> {n}.sat, <16 x i32> {n}.sum\n")
    else:
        if shape.result == "f16":
            text = (f"  {n}.h = fptrunc <16 x float> {total} to <16 x half>\n"
                    f"  {n}.hi = bitcast <16 x half> {n}.h to <16 x i16>\n"
                    f"  {n}.bits = zext <16 x i16> {n}.hi to <16 x i32>\n")
        else:  # to the nearest even; a NaN stays one
            text = (f"  {n}.f = bitcast <16 x float> {total} to <16 x i32>\n"
                    f"  {n}.odd.0 = lshr <16 x i32> {n}.f, splat (i32 16)\n"
                    f"  {n}.odd = and <16 x i32> {n}.odd.0, splat (i32 1)\n"
                    f"  {n}.near.0 = add <16 x i32> {n}.f, splat (i32 32767)\n"
                    f"  {n}.near = add <16 x i32> {n}.near.0, {n}.odd\n"
                    f"  {n}.nan = fcmp uno <16 x float> {total}, {total}\n"
                    f"  {n}.r = select <16 x i1> {n}.nan, <16 x i32> splat (i32 {0x7FC00000}), "
                    f"<16 x i32> {n}.near\n"
                    f"  {n}.bits = lshr <16 x i32> {n}.r, splat (i32 16)\n")
        text += (f"  {n}.placed = shl <16 x i32> {n}.bits, splat (i32 {bit})\n"
                 f"  {n}.now = load <16 x i32>, ptr {n}.at, align 64\n"
                 f"  {n}.kept = and <16 x i32> {n}.now, splat (i32 {0xFFFF << 16 - bit})\n"
                 f"  {n}.d = or <16 x i32> {n}.kept, {n}.placed\n")
    return text + f"  store <16 x i32> {n}.d, ptr {n}.at, align 64\n"


def helper(shape: Shape) -> str:
    """The IR of one function."""
    element = "i32" if shape.result == "i32" else "float"
    text = (f"define internal void @{shape.name}(ptr %registers, i32 %flags) noinline {{\n"
            f"  %a = alloca [{shape.terms} x <16 x {element}>], align 64\n"
            f"  %b = alloca [{shape.terms} x <16 x {element}>], align 64\n"
            f"  %flag.clamp = and i32 %flags, {_CLAMP}\n"
            "  %clamp = icmp ne i32 %flag.clamp, 0\n")
    text += _factor(shape, "a", 0, _SIGNED_A)
    text += _factor(shape, "b", shape.factor_registers, _SIGNED_B)
    return text + "".join(_row(shape, row) for row in range(SIDE)) + "  ret void\n}\n"


# ---- the instructions ----
def _signs(value: Value, type: str, low: int, high: int) -> Value:
    """A register of floats with the signs of its lower and upper halves changed as asked."""
    if type == "f32":
        return value ^ (low << 31)
    return value ^ (low << 15 | high << 31)


def _given(t: Translator, i: Instruction, operand: Operand, count: int, type: str) -> list[Value]:
    """The registers of an operand; a constant fills the matrix."""
    if operand.kind == "v":
        return [t.vector(operand.index + j, whole=True) for j in range(count)]
    width = 16 if type in ("f16", "bf16") else 32
    number = t.constant_bits(operand, ("f" if type[0] in "fb" else "i") + str(width))
    if type == "bf16" and operand.kind == "c" and operand.index > 208:
        number = t.constant_bits(operand, "f32") >> 16
    number &= (1 << width) - 1
    return [t.constant("u32", number | number << 16 if width == 16 else number, True)] * count


def wmma(t: Translator, i: Instruction) -> None:
    """Translates one matrix instruction."""
    shape = SHAPES.get((t.generation, i.name))
    if shape is None or t.wave_size != 32:
        raise t.refuse()
    fields, count = i.fields, shape.factor_registers
    upper = shape.generation == "RDNA3" and bool(fields["op_sel"] & 4)
    values: list[Value] = []
    for place, operand in enumerate(i.src[:2]):
        registers = _given(t, i, operand, count, shape.factor)
        if shape.result != "i32":
            low, high = fields["neg_lo"] >> place & 1, fields["neg_hi"] >> place & 1
            registers = [_signs(r, shape.factor, low, high) for r in registers]
        values += registers
    addends = _given(t, i, i.src[2], shape.result_registers, shape.result)
    if shape.result != "i32":
        if fields["neg_hi"] & 4:
            addends = [c & (0x7FFFFFFF if shape.result == "f32" else 0x7FFF7FFF) for c in addends]
        negate = fields["neg_lo"] >> 2 & 1
        addends = [_signs(c, shape.result, negate, negate) for c in addends]
    values += [c >> 16 for c in addends] if upper and i.src[2].kind == "v" else addends
    flags = fields["neg_lo"] & 3 if shape.result == "i32" else 0
    results = _call(t, shape, values, flags | (_CLAMP if fields["clamp"] else 0))
    for j, result in enumerate(results):
        if shape.result in ("f16", "bf16") and not shape.packed:
            old = t.vector(i.dst[0].index + j, whole=True)
            result = (old & 0xFFFF) | (result << 16) if upper else (
                (old & 0xFFFF0000) | (result & 0xFFFF)
            )
        t.set_whole_vector(i.dst[0].index + j, result)


def _call(t: Translator, shape: Shape, values: list[Value], flags: int) -> list[Value]:
    t.locals.add("%matrix = alloca [24 x <32 x i32>], align 128")
    for j, value in enumerate(values):
        at = t.emit(f"getelementptr i8, ptr %matrix, i64 {128 * j}")
        t.do(f"store {value.llvm} {value.text}, ptr {at}")
    t.declarations |= _INTRINSICS | {helper(shape)}
    t.do(f"call void @{shape.name}(ptr %matrix, i32 {flags})")
    results, first = [], len(values) - shape.result_registers
    for j in range(shape.result_registers):
        at = t.emit(f"getelementptr i8, ptr %matrix, i64 {128 * (first + j)}")
        results.append(t.value(f"load {t.spell('u32')}, ptr {at}", "u32", True))
    return results


WMMA = {name: wmma for _, name in SHAPES}
"""What is not here (8-bit floats, sparse matrices) is refused."""
