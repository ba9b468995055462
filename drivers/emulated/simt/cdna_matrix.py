"""CDNA's matrix instructions (MFMA): one or more products of a whole wave, as calls of functions.

Such a function finds the registers of A, B and C one after the other in memory, as 64 words each,
and leaves D where C was. Lanes that follow each other hold the rows of A, the columns of B, C and
D; groups of lanes hold further terms of the sum, or further blocks. (AMD, "CDNA2" and "CDNA3
Instruction Set Architecture", 7.1.) The order of the sum's terms is ours, as is its rounding:
float32 after every term for floats, none for integers. EXEC is not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.simt.cdna_bits import CDNA2, CDNA3
from drivers.emulated.simt.cdna_formats import Shape, shape
from drivers.emulated.simt.instruction import Instruction, Operand, dwords
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.amd import Translator

WAVE = 64
_ELEMENTS = ("f16", "bf16", "f32", "i8")
_REGISTER_BYTES = 4 * WAVE


def _supported(found: Shape) -> bool:
    return not found.sparse and found.element in _ELEMENTS


def _helper_name(found: Shape) -> str:
    return (f"mfma_{found.result}_{found.rows}_{found.depth}_{found.blocks}_{found.per_lane}_"
            f"{found.element}")  # fmt: skip


SHAPES = {
    name: shape(name)
    for generation in (CDNA2, CDNA3)
    for name in generation.opcodes["VOP3P"].values()
    if name.startswith("v_mfma") and _supported(shape(name))
}


# ---- where elements lie ----
def _groups(found: Shape) -> int:
    """Groups of lanes, each as long as a row."""
    return WAVE // found.rows


def factor_place(found: Shape, block: int, term: int) -> tuple[int, int, int]:
    """Register, first lane and lowest bit of a term's elements of A, or of B."""
    of_terms = found.depth // found.per_lane  # groups that share a sum's terms
    group = block * of_terms + term // found.per_lane
    register, bit = divmod(term % found.per_lane * found.element_bits, 32)
    return register, group * found.rows, bit


def result_place(found: Shape, block: int, row: int) -> tuple[int, int]:
    """Register and first lane of a row of C and of D: four rows, then the next group of lanes."""
    of_rows = min(_groups(found), found.rows // 4)  # groups that share a block's rows
    in_lanes = _groups(found) // of_rows  # blocks beside each other in a register
    four, place = divmod(row, 4)
    registers = found.rows // of_rows  # of a block
    register = block // in_lanes * registers + four // of_rows * 4 + place
    return register, (block % in_lanes * of_rows + four % of_rows) * found.rows


# ---- the functions ----
def _element(found: Shape, name: str, word: str, bit: int) -> str:
    """IR of `name`: elements as numbers of the sum, from words that hold them from `bit` on."""
    n, kind = found.rows, f"<{found.rows} x i32>"
    if found.element == "f32":
        return f"  {name} = bitcast {kind} {word} to <{n} x float>\n"
    up = 32 - found.element_bits - bit
    text = f"  {name}.up = shl {kind} {word}, splat (i32 {up})\n"
    if found.element == "i8":
        return text + f"  {name} = ashr {kind} {name}.up, splat (i32 24)\n"
    if found.element == "bf16":
        text += f"  {name}.top = and {kind} {name}.up, splat (i32 {0xFFFF0000})\n"
        return text + f"  {name} = bitcast {kind} {name}.top to <{n} x float>\n"
    return text + (f"  {name}.low = lshr {kind} {name}.up, splat (i32 16)\n"
                   f"  {name}.cut = trunc {kind} {name}.low to <{n} x i16>\n"
                   f"  {name}.half = bitcast <{n} x i16> {name}.cut to <{n} x half>\n"
                   f"  {name} = fpext <{n} x half> {name}.half to <{n} x float>\n")  # fmt: skip


def _load(found: Shape, name: str, register: int, lane: int) -> str:
    place = _REGISTER_BYTES * register + 4 * lane
    return (f"  {name}.at = getelementptr i8, ptr %registers, i64 {place}\n"
            f"  {name} = load <{found.rows} x i32>, ptr {name}.at, align 16\n")  # fmt: skip


def _block(found: Shape, block: int, registers: int) -> str:
    """IR of one product: every row of D is a sum of rows of B, each times one element of A."""
    number = "i32" if found.result == "i32" else "float"
    vector, text = f"<{found.rows} x {number}>", ""
    for term in range(found.depth):
        register, lane, bit = factor_place(found, block, term)
        for which, first in (("a", 0), ("b", registers)):
            name = f"%{which}{block}.{term}"
            text += _load(found, f"{name}.word", first + register, lane)
            text += _element(found, name, f"{name}.word", bit)
    for row in range(found.rows):
        register, lane = result_place(found, block, row)
        name = f"%r{block}.{row}"
        text += _load(found, f"{name}.word", 2 * registers + register, lane)
        total = f"{name}.c"
        text += f"  {total} = bitcast <{found.rows} x i32> {name}.word to {vector}\n"
        for term in range(found.depth):
            t = f"{name}.t{term}"
            text += (f"  {t}.a = shufflevector {vector} %a{block}.{term}, {vector} poison, "
                     f"<{found.rows} x i32> splat (i32 {row})\n")  # fmt: skip
            if number == "i32":
                text += (f"  {t}.p = mul {vector} {t}.a, %b{block}.{term}\n"
                         f"  {t} = add {vector} {total}, {t}.p\n")  # fmt: skip
            else:
                text += (f"  {t} = call {vector} @llvm.fma.v{found.rows}f32({vector} {t}.a, "
                         f"{vector} %b{block}.{term}, {vector} {total})\n")  # fmt: skip
            total = t
        text += (f"  {name}.d = bitcast {vector} {total} to <{found.rows} x i32>\n"
                 f"  store <{found.rows} x i32> {name}.d, ptr {name}.word.at, "
                 "align 16\n")  # fmt: skip
    return text


def helper(name: str, found: Shape) -> str:
    """The IR of one function."""
    registers = dwords(found.types[1])
    body = "".join(_block(found, block, registers) for block in range(found.blocks))
    return f"define internal void @{name}(ptr %registers) noinline {{\n{body}  ret void\n}}\n"


# ---- the instructions ----
def _registers(t: Translator, operand: Operand) -> list[Value]:
    count = dwords(operand.type)
    if operand.kind == "v":
        return [t.vector(operand.index + j, whole=True) for j in range(count)]
    bits = t.constant_bits(operand, "f32" if operand.index > 208 else "i32")
    return [t.constant("u32", bits & 0xFFFFFFFF, True)] * count


def mfma(t: Translator, i: Instruction) -> None:
    """Translates one matrix instruction."""
    found = SHAPES.get(i.name)
    if found is None or any(i.fields[name] for name in ("cbsz", "abid", "blgp")):
        raise t.refuse()
    values = [register for operand in i.src for register in _registers(t, operand)]
    results = dwords(i.dst[0].type)
    t.locals.add(f"%matrix.{len(values)} = alloca [{len(values)} x <{WAVE} x i32>], align 256")
    places = [
        t.emit(f"getelementptr i8, ptr %matrix.{len(values)}, i64 {_REGISTER_BYTES * j}")
        for j in range(len(values))
    ]
    for place, value in zip(places, values, strict=True):
        t.do(f"store {value.llvm} {value.text}, ptr {place}")
    vector = f"<{found.rows} x float>"
    t.declarations.add(
        f"declare {vector} @llvm.fma.v{found.rows}f32({vector}, {vector}, {vector})"
    )
    t.declarations.add(helper(_helper_name(found), found))
    t.do(f"call void @{_helper_name(found)}(ptr {places[0]})")
    for j, place in enumerate(places[len(values) - results :]):
        t.set_whole_vector(i.dst[0].index + j, t.value(f"load {t.spell('u32')}, ptr {place}",
                                                       "u32", True))  # fmt: skip
