"""Says in a sentence where a queue stands, for the message of a DeviceHang."""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING

from drivers.native.layout import FIELDS, RECORD_BYTES, Opcode, TimelineState
from drivers.timeline import timeline_name

if TYPE_CHECKING:
    from drivers.cpu.device import CpuDevice
    from drivers.cpu.queue import CpuQueue


def decode_record(address: int) -> tuple[Opcode | None, dict[str, int]]:
    """The opcode and fields of the record at an address; no opcode if it is not one."""
    record = ctypes.string_at(address, RECORD_BYTES)
    try:
        opcode = Opcode(int.from_bytes(record[:4], "little"))
    except ValueError:
        return None, {}
    fields = {
        name: int(struct.unpack_from("<" + form, record, offset)[0])
        for name, (offset, form) in FIELDS[opcode].items()
    }
    return opcode, fields


def describe_record(device: CpuDevice, address: int) -> str:
    """A record as people read it."""
    opcode, fields = decode_record(address)
    if opcode is None:
        return f"an invalid record at {address:#x}"
    if opcode in (Opcode.WAIT, Opcode.SIGNAL):
        reached = TimelineState.from_address(fields["timeline"]).value
        name = timeline_name(fields["timeline"])
        return f"{opcode.name} for {name} to reach {fields['value']} (it is at {reached})"
    if opcode is Opcode.EXEC:
        grid = f"{fields['grid_x']}x{fields['grid_y']}x{fields['grid_z']}"
        return f"EXEC of kernel {device.kernel_name(fields['kernel'])} over {grid} blocks"
    if opcode is Opcode.POLL:
        return f"POLL of {fields['address']:#x} for {fields['value']}"
    return opcode.name


def _next_kernel(queue: CpuQueue, current: int) -> int | None:
    """The number of the first kernel, from the current record on, that has not finished."""
    state = queue.state
    for index in range(state.tail, state.head):
        opcode, fields = decode_record(state.ring + (index & state.mask) * RECORD_BYTES)
        if opcode is Opcode.EXEC:
            return fields["kernel"]
        if opcode is not Opcode.INDIRECT:
            continue
        first = fields["list"]
        end = first + fields["count"] * RECORD_BYTES
        if index == state.tail and first <= current < end:
            first = current
        for record in range(first, end, RECORD_BYTES):
            inner, values = decode_record(record)
            if inner is Opcode.EXEC:
                return values["kernel"]
    return None


def describe_queue(device: CpuDevice, queue: CpuQueue) -> str:
    """Where the queue stands: its record, kernel, ring pointers and timeline."""
    if queue.closed:
        return f"Queue {queue.name} of {device.name} is closed."
    state = queue.state
    pointers = f"read pointer {state.tail:#x}, write pointer {state.head:#x}"
    timeline = f"timeline {queue.timeline.value} of {state.submitted}"
    current = state.current
    if not current:
        idle = "is idle" if state.tail == state.head else "has not seen its doorbell"
        return f"Queue {queue.name} {idle}: {timeline}, {pointers}."
    number = _next_kernel(queue, current)
    kernel = "no kernel" if number is None else f"kernel {device.kernel_name(number)}"
    return (
        f"Queue {queue.name} is at {describe_record(device, current)}; {kernel} is the next to "
        f"finish: {timeline}, {pointers}."
    )

