"""NVIDIA's tensor cores through mma.sync, the instruction of a warp that all generations have.

Source: PTX ISA, "Warp-level Matrix Instructions", the figures "Matrix Fragments for mma.m...".
Lanes stand in groups of four: `lane // 4` counts rows of A and C and columns of B, `lane % 4` what
lies along the other axis.

Along the depth A and B may have any common order, because a sum has none. So where the tables give
a lane of f16 and 8-bit types two stretches of the depth that lie apart, it has one of twice the
length here, which is one load.
"""

from __future__ import annotations

from compiler.dtype import DType, dtypes
from compiler.matrix import Digit, Fragment, MatrixUnit, Positions

_GROUP, _LANE = Digit(4, 8, 1), 4
_F16, _BF16, _F32 = dtypes.float16, dtypes.bfloat16, dtypes.float32
_I8, _U8 = dtypes.int8, dtypes.uint8
_E4M3, _E5M2 = dtypes.fp8s
_NAMES = {
    _F16: "f16", _BF16: "bf16", _F32: "tf32", _E4M3: "e4m3", _E5M2: "e5m2", _I8: "s8", _U8: "u8",
}


def _mma(inputs: DType, depth: int, rows: int = 16) -> MatrixUnit:
    """rows × 8 by `depth`: 32-bit registers hold neighbours along the depth."""
    columns, deep = 8, depth // _LANE  # of the depth in one lane
    word = 4 // inputs.itemsize  # elements of a register
    along = Positions(lanes=(Digit(1, _LANE, deep),), items=(Digit(1, deep, 1),))
    # A's registers are: upper rows, lower rows, then the same further along the depth.
    upper_lower = rows // 8
    a = Fragment(
        (
            Positions((_GROUP,), (Digit(word, upper_lower, 8),)),
            Positions(
                (Digit(1, _LANE, deep),),
                (Digit(1, word, 1), Digit(word * upper_lower, deep // word, word)),
            ),
        ),
        upper_lower * deep,
    )  # fmt: skip
    b = Fragment((along, Positions((_GROUP,))), deep)
    c = Fragment(
        (
            Positions((_GROUP,), (Digit(2, upper_lower, 8),)),
            Positions((Digit(1, _LANE, 2),), (Digit(1, 2, 1),)),
        ),
        2 * upper_lower,
    )  # fmt: skip
    sums = {"f": dtypes.float32, "i": dtypes.int32, "u": dtypes.uint32}[inputs.kind]
    kind, total = _NAMES[inputs], "f32" if inputs.kind == "f" else "s32"
    name = f"m{rows}n{columns}k{depth}.row.col.{total}.{kind}.{kind}.{total}"
    return MatrixUnit(name, rows, columns, depth, inputs, sums, a, b, c, 32, "i32")


def mma_statement(unit: MatrixUnit, places: list[str]) -> str:
    """The PTX of C += A·B, with the registers of C, A and B in this order."""
    sizes = [fragment.items * unit.inputs.itemsize // 4 for fragment in (unit.a, unit.b)]
    sums, a = places[: unit.c.items], unit.c.items + sizes[0]
    groups = (sums, places[len(sums) : a], places[a : a + sizes[1]], sums)
    operands = ", ".join(f"{{{', '.join(group)}}}" for group in groups)
    return f"mma.sync.aligned.{unit.name} {operands};"


_AMPERE = (_mma(_F16, 16), _mma(_BF16, 16), _mma(_I8, 32), _mma(_U8, 32))
_ADA = (*_AMPERE, _mma(_E4M3, 32), _mma(_E5M2, 32))
MATRIX_UNITS: dict[str, tuple[MatrixUnit, ...]] = {
    "sm_75": (_mma(_F16, 8), _mma(_I8, 16, rows=8), _mma(_U8, 16, rows=8)),
    **dict.fromkeys(("sm_80", "sm_86"), _AMPERE),
    **dict.fromkeys(("sm_89", "sm_90", "sm_100", "sm_120"), _ADA),
}
"""By architecture."""

TF32 = _mma(_F32, 8)
"""From sm_80 on, for those who allow float32 to be multiplied with 10 bits of its fraction."""
