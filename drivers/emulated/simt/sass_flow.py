"""The instructions of NVIDIA's code that end a block: where they lead, and on what they depend."""

from __future__ import annotations

from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.sass_decode import PT, Instruction

Flow = tuple[tuple[int, ...], bool]

ENDING = {"EXIT", "BRA", "CALL", "RET", "BSYNC", "WARPSYNC", "BAR", "BPT"}
_DYNAMIC = {"BRX", "JMX", "JMP", "RPCMOV", "LEPC"}


def _refused(i: Instruction, why: str) -> UnknownInstruction:
    raw = i.word.to_bytes(16, "little").hex(" ", 4)
    return UnknownInstruction(f"{i.name} at pc {i.pc:#x} ({raw}) {why}.", operation="translate")


def conditional(i: Instruction) -> bool:
    """Whether it does something in some lanes only."""
    if i.guard.number != PT or i.guard.negate:
        return True
    if "diverge" in i.row.words:
        return True
    if "p87" not in i.row.positions:
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
    if i.name == "EXIT":
        return ((after,) if conditional(i) else ()), True
    if i.name in ("RET", "BPT"):
        if conditional(i):
            raise _refused(i, "with a condition is not translated yet")
        return (), True
    if i.name == "CALL":
        if "a" in i.row.positions or ".ABS" in i.row.words:
            raise _refused(i, "calls a function that is not known, which is not translated yet")
        return (i.target, after), True
    if i.name == "BRA":
        return ((i.target, after) if conditional(i) else (i.target,)), True
    if i.name == "BAR":
        _check_barrier(i)
    elif conditional(i):
        raise _refused(i, "with a condition is not translated yet")
    return (after,), True


def _check_barrier(i: Instruction) -> None:
    numbers = [operand for operand in i.operands if operand.kind == "I"]
    whole = ".SYNC" in i.row.words and len(numbers) == len(i.operands)
    if not whole or any(operand.number for operand in numbers) or conditional(i):
        raise _refused(i, "is no barrier of all threads of a block: not translated yet")


def waits(i: Instruction) -> bool:
    """Whether it waits for the block's other warps."""
    return i.name == "BAR"
