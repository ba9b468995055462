"""LLVM's disassembler over many encodings at once, and random encodings for it."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

ASSEMBLER, DISASSEMBLER = "llvm-mc-19", "llvm-objdump-19"
FOUND = shutil.which(ASSEMBLER) and shutil.which(DISASSEMBLER)
SLOT_BYTES = 32
_FILLER = (0xBF800000).to_bytes(4, "little")  # s_nop 0
_LINE = re.compile(r"\s+(.*?)\s*// ([0-9A-F]{12}):((?: [0-9A-F]{8})+)")


def disassemble(
    cpu: str, encodings: Iterable[bytes], folder: Path
) -> list[tuple[str, int] | None]:
    """For each encoding LLVM's text and length in bytes, None where it refuses it.

    Each encoding lies in a slot of its own between instructions of 4 bytes, so that what is
    refused puts nothing else out of step.
    """
    codes = list(encodings)
    slots = [code + _FILLER * ((SLOT_BYTES - len(code)) // 4) for code in codes]
    (folder / "code.bin").write_bytes(b"".join(slots))
    subprocess.run(
        [ASSEMBLER, "-triple=amdgcn-amd-amdhsa", f"-mcpu={cpu}", "-filetype=obj", "-o", "code.o"],
        input=b'.text\n.incbin "code.bin"\n', cwd=folder, check=True,
    )
    done = subprocess.run(
        [DISASSEMBLER, "-D", "-z", "-j", ".text", f"--mcpu={cpu}", "code.o"],
        cwd=folder, check=False, capture_output=True, text=True,
    )
    if done.returncode < 0:  # one of them kills LLVM, which accepts it as little as others
        middle = len(codes) // 2
        if not middle:
            return [None]
        halves = (codes[:middle], codes[middle:])
        return [shown for half in halves for shown in disassemble(cpu, half, folder)]
    assert done.returncode == 0, done.stderr
    listing = done.stdout
    found: list[tuple[str, int] | None] = [None] * len(slots)
    for line in listing.splitlines():
        match = _LINE.match(line)
        if match is None or match[1].startswith(".long"):
            continue
        place = int(match[2], 16)
        if place % SLOT_BYTES == 0:
            found[place // SLOT_BYTES] = (match[1], 4 * len(match[3].split()))
    return found


def random_encodings(
    layout, opcodes: Iterable[int], count: int, seed: str, controls: Iterable = ()
) -> Iterator[bytes]:
    """Encodings of a format: fields at random, each often zero as unused ones must be."""
    chance = random.Random(f"{layout.name} {seed}")
    opcodes, controls = list(opcodes), list(controls)
    for _ in range(count):
        word = layout.value
        sparse = chance.choice((0.2, 0.5, 0.9))  # how often a field is zero
        for name, first, mask in layout.fields:
            word &= ~(mask << first)
            if name == "op" and opcodes:
                value = chance.choice(opcodes)
            elif mask == 511 and name.startswith("src") and (
                name != "src2" or chance.random() > sparse
            ):
                value = chance.choice((
                    256 + chance.randrange(256), chance.randrange(106), chance.randrange(512),
                    chance.randrange(128, 256), 255, 0, 106, chance.randrange(256, 260),
                    *controls,
                ))
            else:
                value = 0 if chance.random() < sparse else chance.randrange(mask + 1)
            word |= value << first
        for first in range(32, 8 * layout.size_bytes, 32):
            word ^= (word >> first & 511 == 0xF9) << first  # see below
        src0 = word & 511
        tail = _sdwa(chance) if src0 == 0xF9 else _dpp16(chance) if src0 == 0xFA else (
            chance.getrandbits(32)
        )
        words = [tail, chance.getrandbits(32)]
        # No later word may look like SDWA or v_accvgpr_mov, on some of which LLVM 19 crashes.
        words = [w ^ (w & 511 == 0xF9) for w in words]
        words = [w ^ (w & 0xFE01FE00 == 0x7E00A400) << 9 for w in words]
        yield word.to_bytes(layout.size_bytes, "little") + b"".join(
            w.to_bytes(4, "little") for w in words
        )


def _dpp16(chance: random.Random) -> int:
    """A control dword of DPP16; few of its 512 patterns mean something."""
    pattern = chance.choice((
        chance.randrange(256), 0x101, 0x10F, 0x111, 0x11F, 0x121, 0x12F, 0x140, 0x141, 0x150,
        0x15F, 0x160, 0x16F, chance.randrange(512),
    ))
    word = chance.getrandbits(32) & ~0x3FF00 | chance.randrange(2) << 17 | pattern << 8
    return word & ~0xF00000 if chance.random() < 0.5 else word


def _sdwa(chance: random.Random) -> int:
    """A control dword of SDWA; LLVM 19 crashes on selections that do not exist."""
    word = chance.getrandbits(32) & ~0x47471F00
    word |= chance.randrange(7) << 8 | chance.randrange(7) << 16 | chance.randrange(7) << 24
    word |= chance.randrange(3) << 11
    if chance.random() < 0.5:
        word &= ~0xF0F0E000
    return word
