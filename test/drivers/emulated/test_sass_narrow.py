"""8-bit floats and products of bits in NVIDIA's machine code, judged by plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from compiler import nvrtc
from compiler.dtype import DType, dtypes, float_bits, greatest_finite, round_to
from test.drivers.emulated.sass import launch

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
BOARDS = pytest.mark.parametrize("board", ("sm_89", "sm_90"))
NAMES = {"e4m3": dtypes.float8_e4m3fn, "e5m2": dtypes.float8_e5m2}
EACH = pytest.mark.parametrize("name", NAMES)
BLOCK = 64


def code_of(value: float, dtype: DType, rectified: bool = False) -> int:
    """What cvt.rn.satfinite makes of a number."""
    if math.isnan(value):
        return 0x7F
    if rectified and not value > 0:
        return 0
    most = greatest_finite(dtype)
    return float_bits(max(-most, min(most, round_to(value, dtype))), dtype)


def number_of(code: int, dtype: DType) -> float:
    """The number that a code means."""
    exponent_bits, fraction = (4, 3) if dtype is dtypes.float8_e4m3fn else (5, 2)
    bias = (1 << exponent_bits - 1) - 1
    exponent, rest = code >> fraction & (1 << exponent_bits) - 1, code & (1 << fraction) - 1
    sign = -1.0 if code & 0x80 else 1.0
    if dtype is dtypes.float8_e4m3fn and code & 0x7F == 0x7F:
        return math.nan
    if dtype is dtypes.float8_e5m2 and exponent == 31:
        return math.nan if rest else sign * math.inf
    if not exponent:
        return sign * math.ldexp(rest, 1 - bias - fraction)
    return sign * math.ldexp((1 << fraction) + rest, exponent - bias - fraction)


def edges(dtype: DType) -> Iterator[float]:
    """All values, what is halfway between two and next to that, and what is beyond."""
    known = sorted(number_of(code, dtype) for code in range(128)
                   if math.isfinite(number_of(code, dtype)))  # fmt: skip
    halves = [(a + b) / 2 for a, b in itertools.pairwise(known)]
    near = [half * (1 + step) for half in halves for step in (2.0**-22, -(2.0**-22))]
    most = known[-1]
    beyond = [most * factor for factor in (1.01, 1.07, 1.25)]
    beyond += [65520.0, 3e38, 1e-30, 1e-45, math.inf, math.nan]
    for value in (*known, *halves, *near, *beyond):
        yield from (value, -value)


@BOARDS
@EACH
def test_floats_to_codes(name: str, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four floats a word, so that a pair is put beside another."""
    dtype = NAMES[name]
    values = list(edges(dtype))
    values += [1.0] * (-len(values) % 4)
    given = np.array(values, np.float32)
    count = len(given) // 4
    source = f"""extern "C" __global__ void k(unsigned *out, const float *x) {{
      int i = blockIdx.x * {BLOCK} + threadIdx.x; if (i >= {count}) return; x += 4 * i;
      unsigned short a, b, c, d;
      asm("cvt.rn.satfinite.{name}x2.f32 %0, %1, %2;" : "=h"(a) : "f"(x[1]), "f"(x[0]));
      asm("cvt.rn.satfinite.{name}x2.f32 %0, %1, %2;" : "=h"(b) : "f"(x[3]), "f"(x[2]));
      asm("cvt.rn.satfinite.relu.{name}x2.f32 %0, %1, %2;" : "=h"(c) : "f"(x[1]), "f"(x[0]));
      asm("cvt.rn.satfinite.relu.{name}x2.f32 %0, %1, %2;" : "=h"(d) : "f"(x[3]), "f"(x[2]));
      out[i] = a | (unsigned)b << 16; out[i + {count}] = c | (unsigned)d << 16; }}"""
    out = np.zeros((2, count), np.uint32)
    launch(board, source, [out, given], -(-count // BLOCK), BLOCK, monkeypatch)
    for row, rectified in zip(out.view(np.uint8), (False, True), strict=True):
        wanted = [code_of(float(value), dtype, rectified) for value in given]
        assert row.tolist() == wanted


@BOARDS
@EACH
def test_every_half_to_a_code(name: str, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    source = f"""extern "C" __global__ void k(unsigned short *out, const unsigned *x) {{
      int i = blockIdx.x * {BLOCK} + threadIdx.x;
      asm("cvt.rn.satfinite.{name}x2.f16x2 %0, %1;" : "=h"(out[i]) : "r"(x[i]));
      asm("cvt.rn.satfinite.relu.{name}x2.f16x2 %0, %1;" : "=h"(out[i + 32768]) : "r"(x[i])); }}"""
    out = np.zeros((2, 1 << 15), np.uint16)
    launch(board, source, [out, halves], 32768 // BLOCK, BLOCK, monkeypatch)
    numbers = [float(value) for value in halves.view(np.float16)]
    for row, rectified in zip(out.view(np.uint8), (False, True), strict=True):
        assert row.tolist() == [code_of(value, NAMES[name], rectified) for value in numbers]


@BOARDS
@EACH
def test_every_code_to_a_half(name: str, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from the upper half of a register."""
    codes = np.array([*range(256), *range(255, -1, -1)], np.uint8)
    source = f"""extern "C" __global__ void k(uint2 *out, uint2 *rectified, const unsigned *x) {{
      int i = blockIdx.x * {BLOCK} + threadIdx.x; unsigned short low = x[i], high = x[i] >> 16;
      asm("cvt.rn.f16x2.{name}x2 %0, %1;" : "=r"(out[i].x) : "h"(low));
      asm("cvt.rn.f16x2.{name}x2 %0, %1;" : "=r"(out[i].y) : "h"(high));
      asm("cvt.rn.relu.f16x2.{name}x2 %0, %1;" : "=r"(rectified[i].x) : "h"(low));
      asm("cvt.rn.relu.f16x2.{name}x2 %0, %1;" : "=r"(rectified[i].y) : "h"(high)); }}"""
    out, rectified = np.zeros((2, 512), np.uint16)
    launch(board, source, [out, rectified, codes], 2, BLOCK, monkeypatch)
    numbers = [number_of(int(code), NAMES[name]) for code in codes]
    halves = [0x7FFF if math.isnan(v) else int(np.float16(v).view(np.uint16)) for v in numbers]
    assert out.tolist() == halves
    assert rectified.tolist() == [0 if half >> 15 else half for half in halves]


@BOARDS
@pytest.mark.parametrize("names", list(itertools.product(NAMES, NAMES)), ids="·".join)
def test_products_of_matrices(
    names: tuple[str, str], board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PTX ISA, "Matrix Fragments for mma.m16n8k32": of small integers, so that sums are exact."""
    numbers = np.random.default_rng(8)
    a, b = (numbers.integers(-4, 5, shape).astype(np.float32) for shape in ((16, 32), (32, 8)))
    a[3, 5], b[7, 2], a[9, 7], b[30, 6] = 2.0**-9, 0.0, math.inf if names[0] == "e5m2" else 448, 3
    words = []
    lanes = [divmod(lane, 4) for lane in range(32)]
    for n in range(4):
        words += [[a[g + 8 * (n & 1), 4 * t + 16 * (n >> 1) + i] for i in range(4)]
                  for g, t in lanes]  # fmt: skip
    for n in range(2):
        words += [[b[4 * t + 16 * n + i, g] for i in range(4)] for g, t in lanes]
    codes = np.array([[code_of(float(v), NAMES[names[n >= 128]]) for v in word]
                      for n, word in enumerate(words)], np.uint8)  # fmt: skip
    if names[0] == "e5m2":
        codes[codes == 0x7B] = 0x7C  # which no conversion gives
    source = f"""extern "C" __global__ void k(float *d, const unsigned *x) {{
      int i = threadIdx.x; float c[4] = {{1, 2, 3, 4}};
      asm("mma.sync.aligned.m16n8k32.row.col.f32.{names[0]}.{names[1]}.f32 {{%0,%1,%2,%3}}, "
        "{{%4,%5,%6,%7}}, {{%8,%9}}, {{%0,%1,%2,%3}};" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]),
        "+f"(c[3]) : "r"(x[i]), "r"(x[i + 32]), "r"(x[i + 64]), "r"(x[i + 96]), "r"(x[i + 128]),
        "r"(x[i + 160]));
      for (int n = 0; n < 4; n++) d[i + 32 * n] = c[n]; }}"""
    found = np.zeros((4, 32), np.float32)
    launch(board, source, [found, codes], 1, 32, monkeypatch)
    with np.errstate(invalid="ignore"):
        product = a.astype(np.float64) @ b
    for n, row in enumerate(found):
        wanted = [n + 1 + product[g + 8 * (n >> 1), 2 * t + (n & 1)] for g, t in lanes]
        np.testing.assert_array_equal(row, np.array(wanted, np.float32))


SHAPES = {  # of single bits: rows, words of A and of B
    "m8n8k128": (8, 1, 1), "m16n8k128": (16, 2, 1), "m16n8k256": (16, 4, 2),
}


OF_BITS = [("sm_75", "m8n8k128", "xor")]
OF_BITS += itertools.product(("sm_89", "sm_90"), SHAPES, ("xor", "and"))


@pytest.mark.parametrize("board, shape, operation", OF_BITS, ids=str)
def test_products_of_bits(
    board: str, shape: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PTX ISA, "Matrix Fragments for mma.m16n8k256": counts of the bits in which both differ, or
    that both have."""
    rows, words_a, words_b = SHAPES[shape]
    count = 2 * rows // 8
    x = np.random.default_rng(4).integers(0, 1 << 32, (words_a + words_b, 32), np.uint32)
    places = [", ".join(f"%{n}" for n in range(first, end)) for first, end in (
        (0, count), (count, count + words_a), (count + words_a, count + words_a + words_b))]
    given = ", ".join(f'"r"(x[i + {32 * n}])' for n in range(words_a + words_b))
    sums = ", ".join(f'"+r"(c[{n}])' for n in range(count))
    source = f"""extern "C" __global__ void k(int *d, const unsigned *x) {{
      int i = threadIdx.x, c[4] = {{1, 2, 3, 4}};
      asm("mma.sync.aligned.{shape}.row.col.s32.b1.b1.s32.{operation}.popc {{{places[0]}}}, "
        "{{{places[1]}}}, {{{places[2]}}}, {{{places[0]}}};" : {sums} : {given});
      for (int n = 0; n < {count}; n++) d[i + 32 * n] = c[n]; }}"""
    found = np.zeros((count, 32), np.int32)
    launch(board, source, [found, x], 1, 32, monkeypatch)
    apply = {"xor": np.bitwise_xor, "and": np.bitwise_and}[operation]
    for n in range(count):
        for lane in range(32):
            g, t = divmod(lane, 4)
            total = n + 1
            for step in range(words_b):
                for k in range(4):  # which words of A: a row's, further along at each step
                    a = x[step * rows // 8 + (n >> 1), 4 * g + k]
                    b = x[words_a + step, 4 * (2 * t + (n & 1)) + k]
                    total += int(apply(a, b)).bit_count()
            assert found[n, lane] == total
