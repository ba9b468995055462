"""CDNA machine code → instructions: matrix instructions and accumulation registers."""

from __future__ import annotations

import re
from typing import NamedTuple

from drivers.emulated.simt.amd_bits import FIRST_VGPR, Fields, Words
from drivers.emulated.simt.cdna_bits import FIRST_ACCUMULATOR
from drivers.emulated.simt.instruction import Instruction, Operand

MATRIX = ("v_mfma", "v_smfmac", "v_accvgpr_")
_NAME = re.compile(
    r"v_(?P<kind>mfma|smfmac)_(?P<result>[fi]\d+)_(?P<rows>\d+)x\d+x(?P<depth>\d+)_?"
    r"(?:(?P<blocks>\d+)b_)?(?P<element>xf32|bf16|f16|f32|f64|i8|[bf][fp]8_[bf][fp]8)(?P<four>_1k)?"
)
_ELEMENT_BITS = {"xf32": 32, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "i8": 8}


class Shape(NamedTuple):
    """A matrix instruction: D = A B + C of so many blocks, `rows` × `rows` each.

    A lane holds `per_lane` neighbours along the common dimension of A and of B.
    """

    rows: int
    depth: int
    blocks: int
    per_lane: int
    element: str
    result: str
    sparse: bool = False

    @property
    def element_bits(self) -> int:
        """Of A and B."""
        return _ELEMENT_BITS.get(self.element, 8)

    @property
    def results(self) -> int:
        """Elements of D in a lane."""
        return self.rows * self.rows * self.blocks // 64

    @property
    def types(self) -> tuple[str, str, str, str]:
        """Of D, A, B, C, as registers hold them; of a sparse one its index instead of C."""
        factor = f"b{self.per_lane * self.element_bits}"
        total = f"b{self.results * int(self.result[1:])}"
        if self.sparse:
            return total, factor, f"b{2 * self.per_lane * self.element_bits}", "b32"
        return total, factor, factor, total


def shape(name: str) -> Shape:
    """What the name of a matrix instruction says."""
    found = _NAME.fullmatch(name)
    assert found is not None, name
    rows, depth, element = int(found["rows"]), int(found["depth"]), found["element"]
    groups = 64 // rows
    if found["kind"] == "smfmac":
        return Shape(rows, depth, 1, depth // groups // 2, element, found["result"], True)
    # Elements in a lane by type, doubled in later instructions, whose depth says so.
    per_lane = {"f16": 4, "bf16": 4 if found["four"] or "_bf16" in name else 2, "i8": 4,
                "f32": 1, "f64": 1, "xf32": 2}.get(element, 8)
    if element == "i8" and depth * rows == 512:
        per_lane = 8
    return Shape(rows, depth, groups * per_lane // depth, per_lane, element, found["result"])


def matrix(words: Words, name: str, f: Fields) -> Instruction:
    """A matrix instruction; a read or write of an accumulation register."""
    if name == "v_accvgpr_read_b32":
        if f["src0"] < FIRST_VGPR:
            words.refuse("reads what is no accumulation register")
        accumulator = Operand("v", (f["src0"] & 255) + FIRST_ACCUMULATOR, "b32")
        return Instruction(
            words.pc, 0, "VOP3P", name, (Operand("v", f["vdst"], "b32"),), (accumulator,)
        )
    if name == "v_accvgpr_write_b32":
        target = Operand("v", f["vdst"] + FIRST_ACCUMULATOR, "b32")
        return Instruction(
            words.pc, 0, "VOP3P", name, (target,), (words.source(f["src0"], "b32"),)
        )
    form = shape(name)
    total, first, second, third = form.types
    fields = {
        "cbsz": f["neg_hi"], "abid": f["sel_hi2"] << 3 | f["op_sel"], "blgp": f["neg_lo"],
    }
    accumulates = f["clamp"]
    source = []
    for place, (type, other) in enumerate(
        ((first, f["sel_hi"] & 1), (second, f["sel_hi"] >> 1), (third, accumulates))
    ):
        operand = words.source(f[f"src{place}"], type)
        if place < 2 and f[f"src{place}"] < FIRST_VGPR:
            words.refuse("multiplies what is not in vector registers")
        if other and operand.kind == "v" and not (form.sparse and place == 2):
            operand = operand._replace(index=operand.index + FIRST_ACCUMULATOR)
        source.append(operand)
    result = Operand("v", f["vdst"] + FIRST_ACCUMULATOR * accumulates, total)
    return Instruction(words.pc, 0, "VOP3P", name, (result,), tuple(source), fields)
