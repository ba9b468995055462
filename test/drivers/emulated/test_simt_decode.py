"""The decoder against LLVM's own assembly: one printer, one decoder, written apart.

LLVM compiles a kernel once to bytes, which we decode and print, and once to text, which it
prints itself. Both must agree on every instruction: mnemonic, operands, modifiers.
"""

from __future__ import annotations

import ctypes
import re

import pytest

from drivers.emulated.simt.amd_decode import decode
from drivers.emulated.simt.amd_print import text
from drivers.emulated.simt.instruction import Instruction, UnknownInstruction
from test.drivers.emulated import gpu, test_simt_run

ELEMENTWISE = [
    (types, body)
    for types, function in (
        (("float", "float", "float"), "float"),
        (("i32", "i32", "i32"), "i32"),
        (("i64", "i64", "i64"), "i64"),
        (("half", "half", "half"), "half"),
        (("double", "double", "double"), "double"),
        (("i16", "i16", "i16"), "i16"),
    )
    for body in {
        "float": ["fadd float %a0, %a1", "fmul float %a0, 0x3FC45F3060000000",
                  "fdiv float %a0, %a1", "frem float %a0, %a1"],
        "i32": ["sdiv i32 %a0, %a1", "urem i32 %a0, 1000", "mul i32 %a0, %a1"],
        "i64": ["mul i64 %a0, %a1", "sdiv i64 %a0, %a1", "shl i64 %a0, %a1"],
        "half": ["fdiv half %a0, %a1", "fmul half %a0, 4.0", "fsub half %a0, %a1"],
        "double": ["fdiv double %a0, %a1", "fmul double %a0, 0.5", "fsub double %a0, %a1"],
        "i16": ["mul i16 %a0, %a1", "sdiv i16 %a0, %a1", "add i16 %a0, 7", "lshr i16 %a0, 3"],
    }[function]
]
KERNELS = {
    f"{types[0]}: {body}": test_simt_run.elementwise(f"%r = {body}\n", list(types[:2]), types[2])
    for types, body in ELEMENTWISE
}
KERNELS |= {
    f"{name} of float": test_simt_run.elementwise(
        f"%r = call float @llvm.{name}.f32(float %a0)\n", ["float"], "float",
        declarations=f"declare float @llvm.{name}.f32(float)\n")
    for name in ("exp", "exp2", "log", "log2", "sin", "cos", "sqrt", "floor", "rint")
}
KERNELS |= {
    "collatz": test_simt_run.COLLATZ,
    "row sum": test_simt_run.ROW_SUM,
    "matmul": test_simt_run.matmul(64),
    "tiled matmul": test_simt_run.tiled(64),
}


def expected(assembly: str) -> list[str]:
    """The instructions of LLVM's assembly, without labels, directives and comments."""
    body = assembly.split("\nk:")[1].split("\t.section")[0]
    lines = [line.split(";")[0].strip() for line in body.splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines if line and line[0] not in ".;"
            and not line.endswith(":")]


def decoded(kernel: gpu.Kernel) -> list[Instruction]:
    """Every instruction up to the padding."""
    code = ctypes.string_at(kernel.entry, len(kernel.code) - 512)
    place, found = 0, []
    while place < len(code):
        instruction = decode(code, place)
        if instruction.name == "s_code_end":
            break
        found.append(instruction)
        place += instruction.size_bytes
    return found


def same(ours: str, theirs: str) -> bool:
    """Branches name a label in one and a distance in the other."""
    if "branch" in theirs:
        return ours.split()[0] == theirs.split()[0]
    return ours == theirs


@pytest.mark.parametrize("name", KERNELS)
def test_every_instruction_reads_as_llvm_prints_it(name):
    kernel = gpu.compile_kernel(KERNELS[name])
    # What aligns loops is a directive in the text and s_nop in the bytes.
    ours = [line for line in map(text, decoded(kernel)) if line != "s_nop 0"]
    theirs = [line for line in expected(kernel.assembly) if line != "s_nop 0"]
    different = [(o, t) for o, t in zip(ours, theirs, strict=False) if not same(o, t)]
    assert not different
    assert len(ours) == len(theirs)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([0xBE80FFFF & ~0xFF00 | 0xFE00], "opcode 254"),
        ([0xE8000000, 0], "encoding"),
        ([0xD4000000 | 900 << 16, 0], "opcode 900"),
        ([0x7E0002FA], "cut off"),
        ([0x7E0002FF], "cut off"),
        ([0xBE8000D1], "reserved source 209"),
    ],
)
def test_what_is_unknown_is_refused_with_its_place(words, why):
    code = b"".join(w.to_bytes(4, "little") for w in words)
    with pytest.raises(UnknownInstruction, match=rf"pc 0x1000 \(bytes .*{why}"):
        decode(code, 0, 0x1000)
