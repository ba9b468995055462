"""AMD's matrix instructions: WMMA of RDNA3 and RDNA4, MFMA of CDNA2, CDNA3 and CDNA4.

Sources: the ISA documents ("Wave Matrix Multiply Accumulate", "Matrix Arithmetic Instructions"),
AMD's Matrix Instruction Calculator, and LLVM's IntrinsicsAMDGPU.td for names and operand types.

Along the depth A and B may have any common order, because a sum has none. So wherever AMD's
tables interleave lanes there (RDNA4, 16 bits), a lane has neighbours here, which are one load.
"""

from __future__ import annotations

from compiler.dtype import DType, dtypes
from compiler.matrix import Digit, Fragment, MatrixUnit, Positions


def _inputs(lanes: int, side: int, items: int, repeated: bool = False) -> tuple[Fragment, Fragment]:
    """A and B: lanes side by side along rows or columns, `items` of the depth in each.

    What lanes are left have the next ones of the depth, or the same again where `repeated`.
    """
    groups = 1 if repeated else lanes // side
    across = Positions(lanes=(Digit(1, side, 1),))
    along = Positions((Digit(side, groups, items),), (Digit(1, items, 1),))
    return Fragment((across, along), items), Fragment((along, across), items)


def _sums(rows: Positions, side: int, items: int) -> Fragment:
    """C and D: lanes side by side along columns."""
    return Fragment((rows, Positions(lanes=(Digit(1, side, 1),))), items)


_EVERY_SECOND = _sums(Positions((Digit(16, 2, 1),), (Digit(1, 8, 2),)), 16, 8)
"""RDNA3: row = 2 * item + lane // 16."""

_EIGHT = _sums(Positions((Digit(16, 2, 8),), (Digit(1, 8, 1),)), 16, 8)
"""RDNA4: row = 8 * (lane // 16) + item."""

_FOUR = _sums(Positions((Digit(16, 4, 4),), (Digit(1, 4, 1),)), 16, 4)
"""CDNA: row = 4 * (lane // 16) + item."""


def _wmma(
    inputs: DType, ending: str, operand: str, items: int, sums: Fragment, repeated: bool
) -> MatrixUnit:
    total = dtypes.float32 if inputs.kind == "f" else dtypes.int32
    if inputs.kind == "u":
        total = dtypes.uint32
    kind = f"{'f' if inputs.kind == 'f' else 'i'}32"
    lanes, _, element = operand.strip("<>").split()
    overload = f"v{lanes}{'f16' if element == 'half' else element}"
    name = f"wmma.{kind}.16x16x16.{ending}.v8{kind}.{overload}"
    a, b = _inputs(32, 16, items, repeated)
    return MatrixUnit(name, 16, 16, 16, inputs, total, a, b, sums, 32, operand)


def _mfma(inputs: DType, depth: int, ending: str, operand: str) -> MatrixUnit:
    sums = dtypes.float32 if inputs.kind == "f" else dtypes.int32
    name = f"mfma.{'f' if inputs.kind == 'f' else 'i'}32.16x16x{depth}{ending}"
    a, b = _inputs(64, 16, depth // 4)
    return MatrixUnit(name, 16, 16, depth, inputs, sums, a, b, _FOUR, 64, operand)


_F16, _BF16 = dtypes.float16, dtypes.bfloat16
_I8, _U8 = dtypes.int8, dtypes.uint8

_GFX11 = (
    _wmma(_F16, "f16", "<16 x half>", 16, _EVERY_SECOND, True),
    _wmma(_BF16, "bf16", "<16 x i16>", 16, _EVERY_SECOND, True),
    _wmma(_I8, "iu8", "<4 x i32>", 16, _EVERY_SECOND, True),
    _wmma(_U8, "iu8", "<4 x i32>", 16, _EVERY_SECOND, True),
)
_GFX12 = (
    _wmma(_F16, "f16", "<8 x half>", 8, _EIGHT, False),
    _wmma(_BF16, "bf16", "<8 x i16>", 8, _EIGHT, False),
    _wmma(_I8, "iu8", "<2 x i32>", 8, _EIGHT, False),
    _wmma(_U8, "iu8", "<2 x i32>", 8, _EIGHT, False),
)
_CDNA2 = (
    _mfma(_F16, 16, "f16", "<4 x half>"),
    _mfma(_BF16, 16, "bf16.1k", "<4 x i16>"),
)
MATRIX_UNITS: dict[str, tuple[MatrixUnit, ...]] = {
    "gfx90a": (*_CDNA2, _mfma(_I8, 16, "i8", "i32")),
    "gfx942": (*_CDNA2, _mfma(_I8, 32, ".i8", "i64")),
    "gfx950": (
        _mfma(_F16, 32, ".f16", "<8 x half>"),
        _mfma(_BF16, 32, ".bf16", "<8 x bfloat>"),
        _mfma(_I8, 64, ".i8", "<4 x i32>"),
    ),
    **dict.fromkeys(("gfx1100", "gfx1101", "gfx1102"), _GFX11),
    **dict.fromkeys(("gfx1200", "gfx1201"), _GFX12),
}
"""By architecture; the others have none."""
