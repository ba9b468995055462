"""What engines write when they have done something: semaphores, plain or by a reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.engine import BadPacket
from drivers.emulated.nv.gpu import timer

if TYPE_CHECKING:
    from drivers.emulated.nv.channel import Channel


def release(
    channel: Channel, address: int, payload: int, size_bytes: int = 4, timestamp: bool = False,
) -> None:
    """Writes a payload of 4 or 8 bytes; with a timestamp 16 bytes, the time in the upper half.

    The payload comes last, so that who sees it sees the time as well. Raises GpuFault.
    """
    aligned = 16 if timestamp else size_bytes
    if address % aligned:
        raise BadPacket(f"a semaphore of {aligned} bytes at {address:#x}")
    memory = channel.memory
    if timestamp:
        memory.store(address + 8, timer(), 8)
        if size_bytes == 4:
            memory.store(address + 4, 0, 4)
    memory.store(address, payload, size_bytes)
    channel.native.notify()


def reduce(
    channel: Channel, address: int, operation: str, payload: int, size_bytes: int, signed: bool
) -> None:
    """Changes a semaphore in one step; `operation` as headers name it, without its prefix."""
    if address % size_bytes:
        raise BadPacket(f"a reduction of {size_bytes} bytes at {address:#x}")
    bits = 8 * size_bytes

    def number(value: int) -> int:
        return value - (1 << bits) if signed and value >> bits - 1 else value

    with channel.process.atomics:
        old = channel.memory.load(address, size_bytes)
        one, other = number(old), number(payload)
        results = {
            "MIN": min(one, other), "MAX": max(one, other), "XOR": old ^ payload,
            "AND": old & payload, "OR": old | payload, "ADD": old + payload,
            "INC": 0 if old >= payload else old + 1,
            "DEC": payload if old == 0 or old > payload else old - 1,
        }
        if operation not in results:
            raise BadPacket(f"the reduction {operation} is not modelled")
        channel.memory.store(address, results[operation], size_bytes)
    channel.native.notify()


def operation_name(name: str) -> str:
    """`IMIN` and `RED_MIN` are MIN."""
    short = name.removeprefix("RED_")
    return short.removeprefix("I") if short != "INC" else short
