"""Every vector instruction on edge values, against plain Python (arithmetic.py).

One kernel, assembled by llvm-mc, does all instructions on three inputs and stores each result.
"""

from __future__ import annotations

import ctypes
import functools
import math
import re
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from drivers.emulated.simt import amd_valu
from drivers.emulated.simt.dispatch import Dispatch, MemoryRange
from drivers.emulated.simt.engine import Engine
from drivers.system import RealSystem
from test.drivers.emulated.arithmetic import OF_LANES, ROWS, ULPS, signed
from test.drivers.emulated.disassembler import ASSEMBLER, FOUND

pytestmark = pytest.mark.skipif(not FOUND, reason="llvm-mc-19 is not installed (llvm-19)")

THREADS = 1024
GENERATIONS = ("gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1201")
EARLIER = {"v_clz_i32_u32": "v_ffbh_u32", "v_ctz_i32_b32": "v_ffbl_b32", "v_cls_i32": "v_ffbh_i32",
           "v_cvt_nearest_i32_f32": "v_cvt_rpi_i32_f32", "v_cvt_floor_i32_f32": "v_cvt_flr_i32_f32",
           "v_mul_dx9_zero_f32": "v_mul_legacy_f32"}  # fmt: skip
"""How gfx10 spells what has another name since."""

# Judged elsewhere, or another instruction's other name.
ELSEWHERE = {
    "v_add_co_u32": "carries: test_simt_run", "v_add_co_ci_u32": "carries: test_simt_run",
    "v_sub_co_u32": "carries: test_simt_run", "v_sub_co_ci_u32": "carries: test_simt_run",
    "v_subrev_co_u32": "carries: test_simt_run", "v_subrev_co_ci_u32": "carries: test_simt_run",
    "v_cndmask_b32": "takes a mask: every comparison here is read through it",
    "v_div_scale_f32": "divisions: test_ops", "v_div_scale_f64": "divisions: test_ops",
    "v_div_fixup_f32": "divisions: test_ops", "v_div_fixup_f64": "divisions: test_ops",
    "v_div_fixup_f16": "divisions: test_ops",
    "v_fmaak_f32": "v_fma_f32 with a literal", "v_fmamk_f32": "v_fma_f32 with a literal",
    "v_fmaak_f16": "v_fma_f16 with a literal", "v_fmamk_f16": "v_fma_f16 with a literal",
    "v_rcp_iflag_f32": "v_rcp_f32 but for exceptions",
    "v_madmk_f32": "v_mad_f32 with a literal", "v_madak_f32": "v_mad_f32 with a literal",
    "v_madmk_f16": "v_mad_f16 with a literal", "v_madak_f16": "v_mad_f16 with a literal",
    "v_cndmask_b16": "v_cndmask_b32 of halves",
    "v_accvgpr_read_b32": "accumulation registers: test_matrix_units",
    "v_accvgpr_write_b32": "accumulation registers: test_matrix_units",
    "v_accvgpr_mov_b32": "accumulation registers: test_matrix_units",
    "v_div_fixup_legacy_f16": "v_div_fixup_f16, the upper half cleared",
    "v_sin_f32": "range reduction: test_simt_run", "v_cos_f32": "range reduction: test_simt_run",
    "v_sin_f16": "range reduction: test_simt_run", "v_cos_f16": "range reduction: test_simt_run",
}  # fmt: skip
def test_every_instruction_of_the_table_is_judged() -> None:
    assert set(amd_valu.SEMANTICS) - set(ROWS) == set(ELSEWHERE)


# ---- inputs ----

_FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.7, 1e-3, 100.25, -65504.0, 2.0, 1.5, -0.75]
_INTEGERS = [0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 32, 33, 63, 255, 256, 0x7F, 0x80, 0x1234, 0x7FFF,
             0x8000, 0xFFFF]  # fmt: skip


def _edges(bits: int) -> list[int]:
    form = {16: "<e", 32: "<f", 64: "<d"}[bits]
    top = 1 << bits - 1
    mantissa = {16: 10, 32: 23, 64: 52}[bits]
    inf = (1 << bits - 1 - mantissa) - 1 << mantissa
    found = [int.from_bytes(struct.pack(form, x), "little") for x in _FLOATS]
    found += [inf, top | inf, inf | 1 << mantissa - 1, 1, top | 1, (1 << mantissa) - 1,
              1 << mantissa, inf - 1, top | inf - 1, top, top - 1, 2 * top - 1]  # fmt: skip
    return found + [x for x in _INTEGERS if x < 2 * top]


@functools.cache
def inputs(bits: int) -> tuple[list[int], list[int], list[int]]:
    """Three sources for each thread: combinations of edge values, then noise."""
    edges = _edges(bits)
    count, state = len(edges), 12345 + bits
    found: tuple[list[int], list[int], list[int]] = ([], [], [])
    for i in range(THREADS):
        for place, source in enumerate(found):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            noise = state >> 13 & (1 << bits) - 1
            ordered = (i, i // count + 7 * i, state)[place]
            source.append(noise if i % 8 == 7 else edges[ordered % count])
    return found


# ---- the kernel ----


def _gfx9(gfx: str) -> bool:
    return len(gfx) == len("gfx9xx")


def waves(gfx: str) -> int:
    """Lanes of a wave, as these tests have them."""
    return 64 if _gfx9(gfx) else 32


def _old(gfx: str) -> bool:
    """Whether it spells memory instructions by dwords."""
    return _gfx9(gfx) or gfx < "gfx11"


def _registers(first: int, type: str) -> str:
    return f"v[{first}:{first + 1}]" if type.endswith("64") else f"v{first}"


def _spelled(gfx: str, name: str) -> str:
    """The name of an instruction in a generation."""
    name = re.sub("_pk_(norm|rtz)", r"_pk\1", name) if _old(gfx) else name
    if _gfx9(gfx):
        short = EARLIER.get(name, name).replace("_nc_u", "_u")
        return re.sub("(add|sub)_nc_i", r"\1_i", short)
    if _old(gfx):
        return EARLIER.get(name, name)
    if gfx >= "gfx12":
        return re.sub(r"^v_((?:min|max|med)3?|maxmin|minmax)_f", r"v_\1_num_f", name)
    return name


def _text(gfx: str, names: list[str]) -> str:
    old, new = _old(gfx), not _old(gfx) and gfx >= "gfx12"
    mask = "vcc" if _gfx9(gfx) else "vcc_lo"
    load, store = ("x2", "x2") if old else ("b64", "b64")
    load = f"global_load_dword{load}" if old else f"global_load_{load}"
    store = f"global_store_dword{store}" if old else f"global_store_{store}"
    lines = ["v_and_b32 v0, 0x3ff, v0", "v_lshlrev_b32 v1, 3, v0"]
    lines += [f"{load} v[{2 + 2 * i}:{3 + 2 * i}], v1, s[{2 + 2 * i}:{3 + 2 * i}]"
              for i in range(3)]  # fmt: skip
    lines.append("s_wait_loadcnt 0x0" if new else "s_waitcnt vmcnt(0)")
    for name in names:
        types, _ = ROWS[name]
        spelled = _spelled(gfx, name)
        sources = [_registers(2 + 2 * i, t) for i, t in enumerate(types[1:])]
        lines += ["v_mov_b32 v10, 0", "v_mov_b32 v11, 0"]
        if types[0] == "m1":
            lines.append(f"{spelled} {mask}, {', '.join(sources)}")
            lines.append(f"v_cndmask_b32 v10, 0, 1, {mask}")
        else:
            target = _registers(10, types[0])
            if name.startswith(("v_mad_u64", "v_mad_i64")):
                target += ", null" if not old else f", {mask}"
            lines.append(f"{spelled} {target}, {', '.join(sources)}")
        lines += [f"{store} v1, v[10:11], s[0:1]", f"s_add_u32 s0, s0, {8 * THREADS}",
                  "s_addc_u32 s1, s1, 0"]  # fmt: skip
    return "\n".join([".text", *lines, "s_endpgm", *["s_nop 0"] * 64]) + "\n"


def _assembled(gfx: str, names: list[str], folder: Path) -> tuple[bytes, list[str]]:
    """The machine code, and the names that this generation has."""
    while True:
        done = subprocess.run(
            [ASSEMBLER, "-triple=amdgcn-amd-amdhsa", f"-mcpu={gfx}",
             *([] if _gfx9(gfx) else ["-mattr=+wavefrontsize32"]),
             "-filetype=obj", "-o", "code.o"],
            input=_text(gfx, names), cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not done.returncode:
            break
        wrong = {line.split()[0] for line in done.stderr.splitlines() if line.startswith("v_")}
        left = [n for n in names if not wrong & {n, _spelled(gfx, n)}]
        assert len(left) < len(names), done.stderr[:2000]
        names = left
    subprocess.run(["llvm-objcopy-19", "-O", "binary", "-j", ".text", "code.o", "code.bin"],
                   cwd=folder, check=True)  # fmt: skip
    return (folder / "code.bin").read_bytes(), names


@functools.cache
def results(gfx: str, bits: int, folder: Path) -> dict[str, list[int]]:
    """What each instruction gave on the inputs of that width."""
    names = [name for name, (types, _) in ROWS.items()
             if bits == max(int(t[1:]) for t in types[1:])]  # fmt: skip
    code, names = _assembled(gfx, names, folder)
    kernel = ctypes.create_string_buffer(code + bytes(256), len(code) + 1024)
    entry = ctypes.addressof(kernel) + 255 & -256
    ctypes.memmove(entry, code, len(code))
    sources = [(ctypes.c_uint64 * THREADS)(*values) for values in inputs(bits)]
    out = (ctypes.c_uint64 * (THREADS * len(names)))()
    scalars = []
    for memory in (out, *sources):
        address = ctypes.addressof(memory)
        scalars += [address & 0xFFFFFFFF, address >> 32]
    ranges = [MemoryRange(entry, entry + len(code) + 256)]
    ranges += [MemoryRange(ctypes.addressof(m), ctypes.addressof(m) + ctypes.sizeof(m))
               for m in (out, *sources)]  # fmt: skip
    engine = Engine(RealSystem(), threads=1, eager=True)
    dispatch = Dispatch(
        entry=entry, scalars=tuple(scalars), group_ids=(-1, -1, -1), block=(THREADS, 1, 1),
        grid=(1, 1, 1), memory=tuple(ranges), gfx=gfx,
        thread_ids="separate" if gfx == "gfx1030" else "packed",
        wave_size=waves(gfx),
    )
    assert engine.run(dispatch) is None
    engine.close()
    words = list(out)
    return {name: words[i * THREADS : (i + 1) * THREADS] for i, name in enumerate(names)}


# ---- comparing ----


def value(bits: int, type: str) -> Any:
    """What a register's bits mean."""
    width = int(type[1:])
    bits &= (1 << width) - 1
    if type[0] == "f":
        form = {16: "<e", 32: "<f", 64: "<d"}[width]
        return struct.unpack(form, bits.to_bytes(width // 8, "little"))[0]
    return signed(bits, width) if type[0] == "i" else bits


def rounded(x: Any, width: int) -> float:
    """A real number as the nearest float of that width."""
    if isinstance(x, float) and (x != x or math.isinf(x) or x == 0):
        return x
    mantissa, smallest = {16: (11, -24), 32: (24, -149), 64: (53, -1074)}[width]
    most = {16: 16, 32: 128, 64: 1024}[width]
    exact = Fraction(x)
    if not exact:
        return 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent += size >= Fraction(2) ** exponent
    quantum = Fraction(2) ** max(exponent - mantissa, smallest)
    found, sign = round(size / quantum) * quantum, 1 if exact > 0 else -1
    return sign * (math.inf if found >= Fraction(2) ** most else float(found))


def distance(got: float, wanted: float, width: int) -> float:
    """Units in the last place between two floats."""
    if got == wanted or (got != got and wanted != wanted):
        return 0
    if not (math.isfinite(got) and math.isfinite(wanted)):
        return math.inf
    mantissa, smallest = {16: (11, -24), 32: (24, -149), 64: (53, -1074)}[width]
    unit = 2.0 ** max(math.frexp(wanted)[1] - mantissa, smallest)
    return abs(got - wanted) / unit


def agrees(name: str, got: int, wanted: Any, type: str) -> bool:
    """Whether a result is what Python says, within what the instruction is allowed."""
    if type == "m1":
        return got == int(wanted)
    width = int(type[1:])
    if type[0] != "f":
        return got & (1 << width) - 1 == wanted & (1 << width) - 1
    found, nearest = value(got, type), rounded(wanted, width)
    if name in ULPS:
        return distance(found, nearest, width) <= ULPS[name]
    same_sign = math.copysign(1, found) == math.copysign(1, nearest)
    return (found != found and nearest != nearest) or (found == nearest and same_sign)


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("gfx", GENERATIONS)
def test_instructions_compute_what_python_does(gfx: str, bits: int, tmp_path: Path) -> None:
    found = results(gfx, bits, tmp_path)
    assert len(found) > (20 if bits == 64 else 40)
    wrong = []
    for name, got in found.items():
        types, function = ROWS[name]
        lane = (lambda i: (i % waves(gfx),)) if name in OF_LANES else lambda i: ()
        for i, sources in enumerate(zip(*inputs(bits), strict=True)):
            given = [value(s, t) for s, t in zip(sources, types[1:], strict=False)]
            wanted = function(*lane(i), *given)
            if not agrees(name, got[i], wanted, types[0]):
                shown = value(got[i], types[0]) if types[0] != "m1" else got[i]
                wrong.append(f"{name}{tuple(given)} = {shown}, not {wanted}")
                break
    assert not wrong, "\n".join(wrong)
