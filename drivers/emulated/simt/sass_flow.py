"""The instructions of NVIDIA's code that end a block: where they lead, and on what they depend."""

from __future__ import annotations

import struct
from collections.abc import Callable

from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.program import INSTRUCTION_LIMIT
from drivers.emulated.simt.sass_decode import PT, SIZE_BYTES, Instruction

Flow = tuple[tuple[int, ...], bool]
_CODE_LIMIT = INSTRUCTION_LIMIT * SIZE_BYTES

ENDING = {"EXIT", "BRA", "BRX", "CALL", "RET", "BSYNC", "WARPSYNC", "BAR", "BPT"}
_DYNAMIC = {"RPCMOV", "LEPC"}


def _refused(i: Instruction, why: str) -> UnknownInstruction:
    raw = i.word.to_bytes(16, "little").hex(" ", 4)
    return UnknownInstruction(f"{i.name} at pc {i.pc:#x} ({raw}) {why}.", operation="translate")


def conditional(i: Instruction) -> bool:
    """Whether it does something in some lanes only."""
    if i.guard.number != PT or i.guard.negate:
        return True
    if "diverge" in i.row.words:
        return True
    if "p87" not in i.row.positions or i.name == "BAR":  # where it is a vote
        return False
    other = i.operand("p87")
    return other.number != PT or other.negate


def flow(i: Instruction) -> Flow:
    """Where an instruction may go on, and whether a block ends with it."""
    after = i.pc + i.size_bytes
    if i.name in _DYNAMIC:
        raise _refused(i, "leads where it is not known to, which is not translated yet")
    if i.name not in ENDING:
        return (), False
    if i.name == "CALL" and "a" in i.row.positions and not by_register(i):
        raise _refused(i, "calls a function by its address, which is not translated yet")
    if i.name == "EXIT":
        return ((after,) if conditional(i) else ()), True
    if i.name == "BRA":
        return ((i.target, after) if conditional(i) else (i.target,)), True
    if i.name == "CALL" and not by_register(i):
        return (i.target, after), True
    if conditional(i):
        return (after, i.pc), True  # lanes for which it holds come back to it alone
    return (() if i.name in ("RET", "BRX", "BPT") else (after,)), True


def by_register(i: Instruction) -> bool:
    """Whether a register says where it leads, as a distance from its label."""
    return i.name in ("RET", "BRX", "CALL") and {"a"} < i.row.positions.keys()


def leads(
    i: Instruction, decode: Callable[[int], Instruction], table: Callable[[], bytes]
) -> tuple[int, ...]:
    """Where an instruction leads by a register that is no return address.

    BRX: to one of the places in the constant bank of tables, which also holds other numbers; those
    that look like places do no harm. CALL: to one of those, or to a function of the same code.
    """
    if i.name == "RET" or not by_register(i):
        return ()
    words = table()
    numbers = (number for (number,) in struct.iter_unpack("<I", words[: len(words) & ~3]))
    found = {i.target + n for n in numbers if 0 < n < _CODE_LIMIT and not n % SIZE_BYTES}
    if i.name == "CALL":
        found |= _functions(i.target, decode)
    return tuple(sorted(found))


def _functions(first: int, decode: Callable[[int], Instruction]) -> set[int]:
    """Where functions begin: what is called, and what follows an end and is no branch's target."""
    called, starts, branched = set(), set(), set()
    behind_end = False
    for pc in range(first, first + _CODE_LIMIT, SIZE_BYTES):
        try:
            i = decode(pc)
        except UnknownInstruction:
            behind_end = False
            continue
        if behind_end:
            starts.add(pc)
        if i.name == "BRA":
            branched.add(i.target)
            if i.target == pc:
                break  # behind the last function stands a jump to itself
        elif i.name == "CALL" and "L" in i.row.positions and not by_register(i):
            called.add(i.target)
        behind_end = i.name in ("EXIT", "BRA", "RET", "BRX") and not conditional(i)
    return called | starts - branched


def waits(i: Instruction) -> bool:
    """Whether it waits for the block's other warps."""
    return i.name == "BAR"


def numbered(i: Instruction) -> bool:
    """Whether it is another barrier than the one of all warps, at which nobody votes."""
    if i.name != "BAR":
        return False
    plain = ".SYNC" in i.row.words and all(o.kind == "I" and not o.number for o in i.operands)
    return not plain
