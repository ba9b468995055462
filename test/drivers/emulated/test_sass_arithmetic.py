"""NVIDIA's machine code on edge values: expressions in CUDA C against plain Python and NumPy.

One kernel for each type has all its expressions, so that a few compilations cover most of the
arithmetic, the divisions' slow paths and calls among them.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable

import numpy as np
import pytest

from compiler import nvrtc
from test.drivers.emulated.sass import launch

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
BOARDS = ("sm_75", "sm_89", "sm_90") if os.environ.get("TINYHW_FULL") == "1" else ("sm_90",)
BLOCK = 128

WORDS = (0, 1, 2, 3, 7, 31, 33, 0x7F, 0x80, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
         0x12345678, 0xFEDCBA98)  # fmt: skip
LONGS = (*WORDS, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 0x0123456789ABCDEF,
         -7 % (1 << 64))  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 1.5, -2.5, 3.0, 1e-3, 16777217.0, 1e30, -1e30, 3e38, 1e-38, 1e-42,
          -1e-45, 0.1, math.inf, -math.inf, math.nan, 2147483648.0, -2147483904.0,
          255.5)  # fmt: skip

Function = Callable[..., int]


def wrapped(value: int, bits: int, signed: bool) -> int:
    """An integer as a type of so many bits holds it."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> bits - 1 else value


def quotient(a: int, b: int) -> int:
    """C's division, toward zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def integers(bits: int) -> dict[str, Function]:
    """Expressions of a, b and c of a type with so many bits; {w} is their number less 1."""
    last = bits - 1
    ll = "ll" if bits == 64 else ""
    mask = (1 << bits) - 1
    return {
        "a + b": lambda a, b, c: a + b,
        "a - b": lambda a, b, c: a - b,
        "a - (b << 4)": lambda a, b, c: a - (b << 4),
        "(a << 3) + b": lambda a, b, c: (a << 3) + b,
        "a * b": lambda a, b, c: a * b,
        "a * b - c": lambda a, b, c: a * b - c,
        "a & b | c": lambda a, b, c: a & b | c,
        "(a ^ b) & ~c": lambda a, b, c: (a ^ b) & ~c,
        f"a << (b & {last})": lambda a, b, c: a << (b & last),
        f"a >> (b & {last})": lambda a, b, c: a >> (b & last),
        "a << 5": lambda a, b, c: a << 5,
        "a >> 7": lambda a, b, c: a >> 7,
        "a < b ? a : b": lambda a, b, c: min(a, b),
        "a < b ? b : a": lambda a, b, c: max(a, b),
        "(a < b) + 2 * (a == c) + 4 * (b >= c)":
            lambda a, b, c: (a < b) + 2 * (a == c) + 4 * (b >= c),
        "b == 0 || b == -1 ? c : a / b":
            lambda a, b, c: c if b in (0, -1, mask) else quotient(a, b),
        "b == 0 || b == -1 ? c : a % b":
            lambda a, b, c: c if b in (0, -1, mask) else a - b * quotient(a, b),
        "a / 7": lambda a, b, c: quotient(a, 7),
        "a % 10": lambda a, b, c: a - 10 * quotient(a, 10),
        f"__popc{ll}(a)": lambda a, b, c: (a & mask).bit_count(),
        f"__clz{ll}(a)": lambda a, b, c: bits - (a & mask).bit_length(),
        f"__brev{ll}(a)": lambda a, b, c: int(f"{a & mask:0{bits}b}"[::-1], 2),
        "(signed char)a + (unsigned short)b":
            lambda a, b, c: wrapped(a, 8, True) + wrapped(b, 16, False),
    }


def of_words(signed: bool) -> dict[str, Function]:
    """Expressions that only 32 bits have."""
    kind = "" if signed else "u"
    return {
        f"__{kind}mulhi(a, b)": lambda a, b, c: a * b >> 32,
        "(int)__byte_perm(a, b, c)": lambda a, b, c: byte_permutation(a, b, c),
        "(int)__funnelshift_l(a, b, c)":
            lambda a, b, c: pair(a, b) << (c & 31) >> 32,
        "(int)__funnelshift_r(a, b, c)": lambda a, b, c: pair(a, b) >> (c & 31),
        "(int)((long long)a * b + c >> 16)": lambda a, b, c: wrapped(a * b + c, 64, True) >> 16,
        **{text: function for mode in MODES for text, function in permutations(mode)},
        **{call(f"vabsdiff4.u32.u32.u32{end}", "int", "=r", "r", "(int)a", "(int)b", "(int)c"):
           lambda a, b, c, end=end: differences(a, b, c, bool(end)) for end in ("", ".add")},
    }


def call(name: str, result: str, out: str, kind: str, *given: str) -> str:
    """A statement of PTX as an expression."""
    places = ", ".join(f"%{n}" for n in range(len(given) + 1))
    operands = ", ".join(f'"{kind}"({text})' for text in given)
    asm = f'asm("{name} {places};" : "{out}"(r) : {operands})'
    return f"[&]{{ {result} r; {asm}; return r; }}()"


def differences(a: int, b: int, c: int, summed: bool) -> int:
    """vabsdiff4: of bytes, side by side or added up on top of c."""
    apart = [abs((a >> n & 255) - (b >> n & 255)) for n in range(0, 32, 8)]
    return c + sum(apart) if summed else sum(value << 8 * n for n, value in enumerate(apart))


MODES = {
    "f4e": ("3210", "4321", "5432", "6543"), "b4e": ("5670", "6701", "7012", "0123"),
    "rc8": ("0000", "1111", "2222", "3333"), "ecl": ("3210", "3211", "3222", "3333"),
    "ecr": ("0000", "1110", "2210", "3210"), "rc16": ("1010", "3232", "1010", "3232"),
}  # fmt: skip
"""PTX ISA, prmt: the bytes that each selector chooses, the upper first."""


def permutations(mode: str) -> list[tuple[str, Function]]:
    """PTX's prmt in a mode, with a selector that is known and with one that is not."""
    return [
        (call(f"prmt.b32.{mode}", "int", "=r", "r", "(int)a", "(int)b", text),
         lambda a, b, c, known=known: byte_permutation(
             a, b, int(MODES[mode][(c if known is None else known) & 3], 16)))
        for text, known in (("(int)c", None), ("1", 1), ("2", 2))
    ]  # fmt: skip


def pair(low: int, high: int) -> int:
    """Two words as 64 bits."""
    return (high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF


def byte_permutation(a: int, b: int, selector: int) -> int:
    """(CUDA C++: __byte_perm takes three bits of each nibble.)"""
    data = pair(a, b)
    return sum((data >> 8 * (selector >> 4 * n & 7) & 255) << 8 * n for n in range(4))


def run(board: str, type: str, expressions: list[str], values: list[np.ndarray], result: str,
        monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The results, a row for each expression; values are a, b and c of each thread."""
    count = values[0].size
    body = "".join(f"out[{n} * {count} + i] = (T)({text});" for n, text in enumerate(expressions))
    source = (
        f"typedef {type} S; typedef {result} T;\n"
        'extern "C" __global__ void k(T *out, const S *x, const S *y, const S *z) {\n'
        f"int i = blockIdx.x * {BLOCK} + threadIdx.x; if (i >= {count}) return;\n"
        f"S a = x[i], b = y[i], c = z[i];\n{body}}}\n"
    )
    item = {"int": "i4", "unsigned": "u4", "long long": "i8", "float": "f4",
            "unsigned long long": "u8", "double": "f8"}[result]  # fmt: skip
    found = np.zeros((len(expressions), count), item)
    launch(board, source, [found, *values], -(-count // BLOCK), BLOCK, monkeypatch)
    return found


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    ("type", "bits", "signed"),
    [("int", 32, True), ("unsigned", 32, False), ("long long", 64, True),
     ("unsigned long long", 64, False)],
)  # fmt: skip
def test_integers(type: str, bits: int, signed: bool, board: str,
                  monkeypatch: pytest.MonkeyPatch) -> None:
    edges = WORDS if bits == 32 else LONGS
    pairs = list(itertools.product(edges, edges))
    thirds = [edges[(3 * n + 1) % len(edges)] for n in range(len(pairs))]
    triples = [
        tuple(wrapped(value, bits, signed) for value in (*two, third))
        for two, third in zip(pairs, thirds, strict=True)
    ]
    dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    values = [np.array(column, dtype) for column in zip(*triples, strict=True)]
    rows = integers(bits) | (of_words(signed) if bits == 32 else {})
    found = run(board, type, list(rows), values, type, monkeypatch)
    for (text, function), results in zip(rows.items(), found, strict=True):
        for triple, result in zip(triples, results, strict=True):
            wanted = wrapped(function(*triple), bits, signed)
            assert int(result) == wanted, f"{text} of {triple}: {result}, not {wanted}"


def limited(value: np.ndarray, low: int, high: int, nan: int = 0) -> np.ndarray:
    """Floats cut to integers as PTX has it: saturated; NaN is its own number."""
    whole = [nan if math.isnan(v) else low if v <= low else high if v >= high else int(v)
             for v in value.astype(np.float64)]  # fmt: skip
    return np.array(whole, dtype=object)


FLOAT_ROWS: dict[str, Callable[..., np.ndarray]] = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "sqrt(a)": lambda a, b: np.sqrt(a),
    "floor(a)": lambda a, b: np.floor(a),
    "ceil(a)": lambda a, b: np.ceil(a),
    "trunc(a)": lambda a, b: np.trunc(a),
    "rint(a)": lambda a, b: np.rint(a),
    "fabs(a) - b": lambda a, b: np.abs(a) - b,
    "fmin(a, b)": lambda a, b: np.fmin(a, b),
    "fmax(a, b)": lambda a, b: np.fmax(a, b),
    "a < b ? a : -b": lambda a, b: np.where(a < b, a, -b),
    "(a == b) + 2 * (a >= b) + 4 * (a != b) + 8 * !(a > b)":
        lambda a, b: (a == b) + 2 * (a >= b) + 4 * (a != b) + 8 * ~(a > b),
    "(float)a": lambda a, b: a.astype(np.float32),
    "(double)a": lambda a, b: a.astype(np.float64),
}  # fmt: skip


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("type", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_floats(type: str, dtype: type, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, but for the sign of NaN and of a zero that fmin and fmax may choose."""
    extra = (5e-324, 2.5e-308, 1.7e308, 1 / 3) if dtype is np.float64 else ()
    a, b = (np.array(column, dtype) for column in
            zip(*itertools.product((*FLOATS, *extra), repeat=2), strict=True))  # fmt: skip
    texts = [text if type == "double" else text.replace("sqrt", "sqrtf").replace("fabs", "fabsf")
             .replace("fmin", "fminf").replace("fmax", "fmaxf") for text in FLOAT_ROWS]  # fmt: skip
    found = run(board, type, texts, [a, b, a], type, monkeypatch)
    for (text, function), result in zip(FLOAT_ROWS.items(), found, strict=True):
        with np.errstate(all="ignore"):
            wanted = function(a, b).astype(dtype)
        np.testing.assert_array_equal(result, wanted, err_msg=text)
        if not text.startswith("fm"):
            ordered = ~np.isnan(wanted)
            np.testing.assert_array_equal(
                np.signbit(result[ordered]), np.signbit(wanted[ordered]), err_msg=text
            )


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("type", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_floats_to_integers(
    type: str, dtype: type, board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = np.array((*FLOATS, 4294967295.0, 9.3e18, -9.3e18, 1.9e19, -3.7), dtype)
    wide = type == "double"
    rows = {
        "(int)a": limited(a, -(1 << 31), (1 << 31) - 1, -(1 << 31) if wide else 0),
        "(unsigned)a": limited(a, 0, (1 << 32) - 1, 1 << 31 if wide else 0),
        "(long long)a": limited(a, -(1 << 63), (1 << 63) - 1, -(1 << 63)),
        "(long long)(unsigned long long)a": limited(a, 0, (1 << 64) - 1, 1 << 63),
    }
    found = run(board, type, list(rows), [a, a, a], "long long", monkeypatch)
    for (text, wanted), result in zip(rows.items(), found, strict=True):
        expected = [wrapped(int(value), 64, True) for value in wanted]
        assert [int(value) for value in result] == expected, text


@pytest.mark.parametrize("board", BOARDS)
def test_floats_to_bytes(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.array((*FLOATS, 127.5, 128.5, 254.5, 255.4, 0.5, 1.5, -0.5, -128.5, -129.0), np.float32)
    rows = {}
    for kind, low, high in (("u8", 0, 255), ("s8", -128, 127)):
        for mode, function in (("rni", np.rint), ("rzi", np.trunc)):
            text = call(f"cvt.{mode}.{kind}.f32", "int", "=r", "f", "a")
            rows[text] = limited(function(a), low, high)
    found = run(board, "float", list(rows), [a, a, a], "int", monkeypatch)
    for (text, wanted), result in zip(rows.items(), found, strict=True):
        assert result.tolist() == wanted.tolist(), text


def test_the_larger_with_the_product_of_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (np.array(column, np.float32) for column in
            zip(*itertools.product(FLOATS, repeat=2), strict=True))  # fmt: skip
    names = {"max": np.fmax, "min": np.fmin}
    texts = [call(f"{name}.xorsign.abs.f32", "float", "=f", "f", "a", "b") for name in names]
    found = run("sm_90", "float", texts, [a, b, a], "float", monkeypatch)
    for function, result in zip(names.values(), found, strict=True):
        wanted = np.copysign(function(abs(a), abs(b)), np.copysign(1, a) * np.copysign(1, b))
        ordered = ~np.isnan(wanted)
        assert np.isnan(result[~ordered]).all()
        assert result[ordered].view(np.uint32).tolist() == (
            wanted[ordered].astype(np.float32).view(np.uint32).tolist()
        )


@pytest.mark.parametrize("board", BOARDS)
def test_integers_to_floats(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longs that lie between two floats, and between two doubles."""
    edges = [wrapped(value, 64, True) for value in LONGS]
    edges += [(1 << 24) + 1, (1 << 53) + 1, -(1 << 53) - 3, (1 << 62) + (1 << 38) + 1]
    a = np.array(edges, np.int64)
    rows: dict[str, np.ndarray] = {
        "(float)a": a.astype(np.float32), "(double)a": a.astype(np.float64),
        "(float)(unsigned long long)a": a.astype(np.uint64).astype(np.float32),
        "(double)(unsigned long long)a": a.astype(np.uint64).astype(np.float64),
        "(float)(int)a": a.astype(np.int32).astype(np.float32),
        "(float)(unsigned)a": a.astype(np.uint32).astype(np.float32),
    }
    found = run(board, "long long", list(rows), [a, a, a], "double", monkeypatch)
    for (text, wanted), result in zip(rows.items(), found, strict=True):
        np.testing.assert_array_equal(result, wanted.astype(np.float64), err_msg=text)


@pytest.mark.parametrize("result", ["float", "double"])
@pytest.mark.parametrize("board", BOARDS)
def test_parts_of_integers_to_floats(
    result: str, board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes and halves of a register, which an instruction takes without a shift before it."""
    a = np.array([0, 1, 0xFFFFFFFF, 0x80000000, 0x7F80FF01, 0x01027FFE, 0xC3A50F96], np.uint32)
    rows = {
        f"({result})({type})(a >> {shift})": (a >> shift).astype(dtype).astype(np.float64)
        for type, dtype, size in (
            ("unsigned char", np.uint8, 8), ("signed char", np.int8, 8),
            ("unsigned short", np.uint16, 16), ("short", np.int16, 16),
        )
        for shift in range(0, 32, size)
    }
    found = run(board, "unsigned", list(rows), [a, a, a], result, monkeypatch)
    for text, wanted, values in zip(rows, rows.values(), found, strict=True):
        np.testing.assert_array_equal(values, wanted, err_msg=text)
