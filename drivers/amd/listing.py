"""Rings and lists of packets as text: names of packets, fields, registers and enumerations.

A list that a packet leads to (INDIRECT_BUFFER, SDMA's INDIRECT, an AQL vendor packet) is decoded
below it, if its memory is at hand.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

from autogen import hsa
from drivers.amd import aql, packets
from drivers.amd.generations import Generation
from drivers.fields import Packet, decode

Memory = Callable[[int, int], bytes | None]
"""(GPU address, bytes) → contents; None for memory that is not at hand."""

FORMATS: Final = ("pm4", "sdma", "aql")
DEPTH_LIMIT: Final = 8  # of lists in lists: a list may lead to itself
LIST_LIMIT_DWORDS: Final = 1 << 20
_INDENT: Final = "    "

_ENUMS: Final[Mapping[tuple[str, str], type[IntEnum]]] = {
    ("WAIT_REG_MEM", "function"): packets.Function,
    ("WAIT_REG_MEM", "mem_space"): packets.MemorySpace,
    ("WAIT_REG_MEM64", "function"): packets.Function,
    ("WAIT_REG_MEM64", "mem_space"): packets.MemorySpace,
    ("WRITE_DATA", "dst_sel"): packets.WriteDestination,
    ("RELEASE_MEM", "data_sel"): packets.DataSelect,
    ("RELEASE_MEM", "int_sel"): packets.InterruptSelect,
    ("RELEASE_MEM", "event_index"): packets.EventIndex,
    ("EVENT_WRITE", "event_index"): packets.EventIndex,
    ("POLL_REGMEM", "func"): packets.Function,
}
_AQL: Final[Mapping[int, type[ctypes.Structure]]] = {
    hsa.HSA_PACKET_TYPE_KERNEL_DISPATCH: hsa.hsa_kernel_dispatch_packet_t,
    hsa.HSA_PACKET_TYPE_BARRIER_AND: hsa.hsa_barrier_and_packet_t,
    hsa.HSA_PACKET_TYPE_BARRIER_OR: hsa.hsa_barrier_or_packet_t,
    hsa.HSA_PACKET_TYPE_AGENT_DISPATCH: hsa.hsa_agent_dispatch_packet_t,
}


def number(value: int) -> str:
    """Small numbers in decimal, others in hexadecimal."""
    return str(value) if value < 1024 else f"{value:#x}"


class Listing:
    """Decodes for one generation; `memory` gives what packets lead to."""

    def __init__(self, generation: Generation, memory: Memory = lambda address, size: None) -> None:
        self._generation, self._memory = generation, memory
        self._registers = {at: name for name, at in generation.shader_registers.items()}
        self._events = {value: name for name, value in generation.events.items()}

    def lines(self, words: Sequence[int], kind: str, depth: int = 0) -> Iterator[str]:
        """The packets of a stream, `kind` being one of FORMATS: each with its offset in dwords."""
        streams: dict[str, Callable[[], Iterator[tuple[int, Packet | str]]]] = {
            "pm4": lambda: packets.decode_stream(words, self._generation.gfx9),
            "sdma": lambda: self._generation.sdma.decode_stream(words),
            "aql": lambda: _aql_stream(words),
        }
        margin = _INDENT * depth
        for at, packet in streams[kind]():
            if isinstance(packet, str):
                yield f"{margin}{at:4}  {packet}"
                continue
            yield f"{margin}{at:4}  {self.text(packet)}"
            yield from self._below(packet, kind, depth + 1)

    def text(self, packet: Packet) -> str:
        """One packet: its name, and its fields that are not 0."""
        layout = packet.layout
        shown = [
            f"{name}={self._value(layout.name, name, value)}"
            for name, value in packet.values.items() if name != "indirect_buffer"
        ]
        if packet.tail and layout is not packets.SET_SH_REG:
            shown.append(f"{layout.tail}=[{', '.join(map(number, packet.tail))}]")
        return f"{layout.name}({', '.join(shown)})"

    def _value(self, packet: str, name: str, value: int) -> str:
        if name == "event_type":
            return self._events.get(value, number(value))
        known = _ENUMS.get((packet, name))
        if known is not None and value in known.__members__.values():
            return known(value).name
        return number(value)

    def _below(self, packet: Packet, kind: str, depth: int) -> Iterator[str]:
        """What a packet sets or leads to."""
        layout, values = packet.layout, packet.values
        if layout is packets.SET_SH_REG:
            first = values.get("reg_offset", 0)
            for offset, value in enumerate(packet.tail, first):
                yield f"{_INDENT * depth}      {self._register(offset, value)}"
        elif layout is packets.INDIRECT_BUFFER:
            yield from self._list(values.get("address", 0), values.get("ib_size", 0), "pm4", depth)
        elif layout is self._generation.sdma.indirect:
            yield from self._list(values.get("ib_base", 0), values.get("ib_size", 0), "sdma", depth)
        elif layout is aql.VENDOR:
            whole = values.get("indirect_buffer", 0)
            words = [whole >> shift & 0xFFFFFFFF for shift in range(0, 128, 32)]
            yield from self.lines(words, "pm4", depth)

    def _list(self, address: int, size_dwords: int, kind: str, depth: int) -> Iterator[str]:
        if depth > DEPTH_LIMIT:
            yield f"{_INDENT * depth}      more lists in lists than {DEPTH_LIMIT}"
            return
        content = None
        if size_dwords <= LIST_LIMIT_DWORDS:
            content = self._memory(address, 4 * size_dwords)
        if content is None:
            yield f"{_INDENT * depth}      {size_dwords} dwords at {address:#x}, not at hand"
            return
        yield from self.lines(words_of(content), kind, depth)

    def _register(self, offset: int, value: int) -> str:
        name = self._registers.get(offset)
        if name is None:
            return f"SH register {offset:#x} = {number(value)}"
        parts = [
            f"{field}={number(part)}"
            for field, (shift, width) in self._generation.fields.get(name, {}).items()
            if width < 32 and (part := value >> shift & (1 << width) - 1)
        ]
        return f"{name} = {number(value)}" + (f" ({', '.join(parts)})" if parts else "")


def words_of(content: bytes) -> list[int]:
    """Little-endian dwords; what is less than one at the end is left out."""
    return list(struct.unpack(f"<{len(content) // 4}I", content[: len(content) // 4 * 4]))


def _aql_stream(words: Sequence[int]) -> Iterator[tuple[int, Packet | str]]:
    """Packets of 64 bytes; places that are marked invalid hold none."""
    for at in range(0, len(words) - aql.PACKET_DWORDS + 1, aql.PACKET_DWORDS):
        body = words[at : at + aql.PACKET_DWORDS]
        kind = body[0] & (1 << hsa.HSA_PACKET_HEADER_WIDTH_TYPE) - 1
        structure = _AQL.get(kind)
        if kind == hsa.HSA_PACKET_TYPE_INVALID:
            continue
        if structure is not None:
            name = hsa.hsa_packet_type_t__enumvalues[kind].removeprefix("HSA_PACKET_TYPE_")
            fields = structure.from_buffer_copy(struct.pack(f"<{len(body)}I", *body))
            yield at, f"{name}({', '.join(_structure(fields))})"
        elif kind == hsa.HSA_PACKET_TYPE_VENDOR_SPECIFIC and body[0] >> 16 == aql.FORMAT_PM4_IB:
            yield at, decode(aql.VENDOR, body)
        else:
            yield at, f"AQL packet of type {kind}, format {body[0] >> 16}"


def _structure(value: Any, prefix: str = "") -> Iterator[str]:
    """The fields of a structure that are not 0."""
    for name, *_ in value._fields_:
        part, full = getattr(value, name), f"{prefix}{name}"
        if isinstance(part, ctypes.Structure):
            yield from _structure(part, f"{full}.")
        elif isinstance(part, ctypes.Array):
            for i, each in enumerate(part):
                if isinstance(each, ctypes.Structure):
                    yield from _structure(each, f"{full}[{i}].")
                elif each:
                    yield f"{full}[{i}]={number(each)}"
        elif part:
            yield f"{full}={number(int(part))}"
