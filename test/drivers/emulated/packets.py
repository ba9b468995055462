"""Packets that tests write into rings."""

from __future__ import annotations

from autogen import pm4_nv as nv
from test.drivers.emulated.kfd_client import split, type3

NOP = type3(nv.PACKET3_NOP, 0)
FILLER = [0xFFFF1000]  # a NOP of one dword


def write_data(address: int, *data: int, dst_sel: int = 5) -> list[int]:
    return type3(nv.PACKET3_WRITE_DATA, dst_sel << 8 | 1 << 20, *split(address), *data)


def release_mem(
    address: int, value: int, data_sel: int = 2, interrupt: int = 0, context: int = 0,
    caches: int = 0, to_l2: bool = False,
) -> list[int]:
    return type3(nv.PACKET3_RELEASE_MEM, 0x14 | 5 << 8 | caches,
                 data_sel << 29 | interrupt << 24 | to_l2 << 16,
                 *split(address), *split(value), context)


def acquire_mem(caches: int, address: int = 0, size: int = 0xFFFFFFFFFF00) -> list[int]:
    return type3(nv.PACKET3_ACQUIRE_MEM, 0, *split(size >> 8), *split(address >> 8), 4, caches)


def wait_mem(address: int, value: int, function: int = 5, mask: int = 0xFFFFFFFF) -> list[int]:
    return type3(nv.PACKET3_WAIT_REG_MEM, function | 1 << 4, *split(address), value, mask, 4)


def copy_data(source: int, source_sel: int, target: int, wide: bool = True) -> list[int]:
    return type3(nv.PACKET3_COPY_DATA, source_sel | 5 << 8 | wide << 16 | 1 << 20,
                 *split(source), *split(target))


def indirect(address: int, dwords: int, chain: bool = False) -> list[int]:
    return type3(nv.PACKET3_INDIRECT_BUFFER, *split(address), dwords | 1 << 23 | chain << 20)


def sdma_copy(source: int, target: int, size: int) -> list[int]:
    return [1, size - 1, 0, *split(source), *split(target)]


def sdma_fence(address: int, value: int, memory_type: int = 3) -> list[int]:
    """`memory_type` is a field of gfx10 and later."""
    return [5 | memory_type << 16, *split(address), value]


def sdma_poll(address: int, value: int, function: int = 5) -> list[int]:
    return [8 | function << 28 | 1 << 31, *split(address), value, 0xFFFFFFFF, 4 | 0xFFF << 16]
