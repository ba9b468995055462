"""The decoder of NVIDIA's machine code, judged by nvdisasm."""

from __future__ import annotations

import functools
import itertools
import os
import random

import pytest

from compiler import cubin, nvrtc
from compiler.compile import compile_kernel
from compiler.nvidia import gpu_target
from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.sass_decode import decode, meaning
from drivers.emulated.simt.sass_opcodes import ROWS, Row
from drivers.emulated.simt.sass_print import text
from test.compiler.test_amdgpu import REAL, TAKES, assign, one_op
from test.drivers.emulated.sass import ARCHS, compiled, judged
from test.drivers.emulated.sass_kernels import EVERYTHING, statements

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
FULL = os.environ.get("TINYHW_FULL") == "1"
MUTATIONS = 140000 if FULL else 2000  # of each architecture; of these 50,000 are agreed on
EACH = 60 if FULL else 2  # instructions of each row


@functools.cache
def instructions(arch: str) -> tuple[bytes, ...]:
    """All instructions of the test kernels, each once."""
    images = [compile_kernel(assign(make()), gpu_target(arch)).image for make in REAL.values()]
    if FULL:
        images += [compile_kernel(assign(one_op(op, dtype)), gpu_target(arch)).image
                   for op in TAKES for dtype in TAKES[op]]
    cubins = [cubin.read(image) for image in images]
    cubins += [compiled(source, arch) for source in (EVERYTHING, statements(arch))]
    kernels = [k for each in cubins for k in (*each.kernels.values(), *each.functions.values())]
    words = (k.code[at : at + 16] for k in kernels for at in range(0, len(k.code), 16))
    return tuple(dict.fromkeys(words))


@pytest.mark.parametrize("arch", ARCHS)
def test_every_instruction_of_the_test_kernels_reads_as_nvdisasm_has_it(arch: str) -> None:
    words = list(instructions(arch))
    found = judged(words, arch)
    assert len(found) == len(words)
    for pc, word, theirs in found:
        assert text(decode(word, 0, arch, pc)) == theirs


@pytest.mark.parametrize("arch", ARCHS)
def test_mutated_instructions_read_as_nvdisasm_has_them_or_are_refused(arch: str) -> None:
    """Every opcode is chosen as often. We are stricter than nvdisasm: a set bit of which it says
    nothing, and what it prints as invalid, is refused; so more than half of these are."""
    by_opcode: dict[int, list[bytes]] = {}
    for word in instructions(arch):
        by_opcode.setdefault(int.from_bytes(word[:2], "little") & 0xFFF, []).append(word)
    draw = random.Random(arch)
    words = []
    for _ in range(MUTATIONS):
        bits = int.from_bytes(draw.choice(by_opcode[draw.choice(sorted(by_opcode))]), "little")
        for _ in range(draw.choice((1, 1, 2))):
            bits ^= 1 << draw.randrange(12, 105)
        words.append(bits.to_bytes(16, "little"))
    accepted = judged(words, arch)
    assert len(accepted) > MUTATIONS * 0.97
    agreed = 0
    for pc, word, theirs in accepted:
        try:
            ours = text(decode(word, 0, arch, pc))
        except UnknownInstruction as error:
            assert word.hex(" ", 4) in str(error)
            continue
        assert ours == theirs, word[::-1].hex()
        agreed += 1
    assert agreed > MUTATIONS * 0.36


def word_of(row: Row, arch: str, draw: random.Random) -> bytes:
    """A random instruction of a row; registers are often the one of which nothing is kept."""
    modifiers = [(m.first, m.width, tuple(m.texts)) for m in row.modifiers_of(arch).values()]
    for _ in range(100):
        bits = row.code | 7 << 12 | draw.getrandbits(89) << 16 | 0xFE2 << 104
        for first, width in ((16, 8), (24, 8), (32, 8), (64, 8), (32, 6), (64, 6), (81, 3)):
            if draw.random() < 0.15:
                bits |= (1 << width) - 1 << first
        bits |= draw.getrandbits(1) << 91
        for first, width, values in itertools.chain(modifiers, row.fixed):
            bits &= ~((1 << width) - 1 << first)
            bits |= draw.choice(values) << first
        bits &= meaning(bits, arch, row)
        try:
            if bits and decode(bits.to_bytes(16, "little"), 0, arch).row is row:
                return bits.to_bytes(16, "little")
        except UnknownInstruction:
            continue
    return b""


@pytest.mark.parametrize("arch", ARCHS)
def test_random_instructions_of_each_row_read_as_nvdisasm_has_them(arch: str) -> None:
    """Also rows, and forms of operands, that no test kernel has; nvdisasm refuses none of them."""
    draw = random.Random(arch)
    rows = [row for row in ROWS if arch in row.archs]
    words = [word_of(row, arch, draw) for row in rows for _ in range(EACH)]
    assert words.count(b"") == 0
    found = judged(words, arch)
    for pc, word, theirs in found:
        assert text(decode(word, 0, arch, pc)) == theirs, word[::-1].hex()
    assert len(found) == len(words)


def test_an_unknown_instruction_is_named_with_its_place_and_bytes() -> None:
    word = bytes(range(16))
    with pytest.raises(UnknownInstruction, match=r"sm_90 instruction at pc 0x40: 00010203 04"):
        decode(bytes(64) + word, 64, "sm_90")
    with pytest.raises(UnknownInstruction, match="at pc 0x10"):
        decode(bytes(24), 16, "sm_75")
