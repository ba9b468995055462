"""PM4: the packets of compute queues, for gfx9 and for gfx10 and later.

Opcodes are nvd.h's and soc15d.h's; fields are kfdtest's (pm4_pkt_struct_*.h) where it has the
packet, else the comments of nvd.h, as each table says. Type-3 header: packet type 3, count of
dwords after the header less one, opcode, shader type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final

from autogen import pm4_mesa, pm4_nv, pm4_packets, pm4_rocr
from autogen.pm4_packets import PACKETS as TABLES
from drivers.fields import Field, Layout, Packet, Piece, decode, fields_of, flag, single

SH_REG_START: Final = pm4_nv.PACKET3_SET_SH_REG_START
UCONFIG_REG_START: Final = pm4_nv.PACKET3_SET_UCONFIG_REG_START


class Function(IntEnum):
    """How WAIT_REG_MEM and POLL_REGMEM compare memory with the reference (unsigned)."""

    ALWAYS = pm4_packets.function__mec_wait_reg_mem__always_pass
    EQUAL = pm4_packets.function__mec_wait_reg_mem__equal_to_the_reference_value
    GREATER_EQUAL = (
        pm4_packets.function__mec_wait_reg_mem__greater_than_or_equal_reference_value
    )


class MemorySpace(IntEnum):
    """What WAIT_REG_MEM looks at."""

    REGISTER = pm4_packets.mem_space__mec_wait_reg_mem__register_space
    MEMORY = pm4_packets.mem_space__mec_wait_reg_mem__memory_space


class DataSelect(IntEnum):
    """What RELEASE_MEM writes."""

    NONE = pm4_packets.data_sel__mec_release_mem__none
    DATA_32 = pm4_packets.data_sel__mec_release_mem__send_32_bit_low
    DATA_64 = pm4_packets.data_sel__mec_release_mem__send_64_bit_data
    GPU_CLOCK = pm4_packets.data_sel__mec_release_mem__send_gpu_clock_counter


class InterruptSelect(IntEnum):
    """Whether RELEASE_MEM interrupts the host."""

    NONE = pm4_packets.int_sel__mec_release_mem__none
    AFTER_WRITE = pm4_packets.int_sel__mec_release_mem__send_interrupt_after_write_confirm


class WriteDestination(IntEnum):
    """Where WRITE_DATA goes."""

    L2 = pm4_packets.dst_sel_mec_write_data_TC_L2_2
    MEMORY = pm4_packets.dst_sel_mec_write_data_MEMORY_5


class EventIndex(IntEnum):
    """Which kind of event EVENT_WRITE and RELEASE_MEM name."""

    PARTIAL_FLUSH = pm4_packets.event_index_event_write_CS_VS_PS_PARTIAL_FLUSH_4
    END_OF_PIPE = pm4_packets.event_index__mec_release_mem__end_of_pipe


_ALL: Final = (1 << 32) - 1
DMA_DESTINATION_L2: Final = 3  # nvd.h, PACKET3_DMA_DATA_DST_SEL: DST_ADDR using L2
DMA_SOURCE_L2: Final = 3  # nvd.h, PACKET3_DMA_DATA_SRC_SEL: SRC_ADDR using L2
DMA_COUNT_BITS: Final = 26  # nvd.h, PACKET3_DMA_DATA: BYTE_COUNT [25:0]


def _pm4(
    name: str, opcode: int, size: int, fields: dict[str, Field], *, tail: str = "",
    compute: bool = False,
) -> Layout:
    make = pm4_nv.PACKET3_COMPUTE if compute else pm4_nv.PACKET3

    def header(words: int) -> int:
        return make(opcode, words - 2)

    return Layout(name, size, fields, header=header, tail=tail)


_MASKS = {
    name.removeprefix("PACKET3_RELEASE_MEM_GCR_").lower(): flag(1, value)
    for name, value in vars(pm4_nv).items()
    if name.startswith("PACKET3_RELEASE_MEM_GCR_") and isinstance(value, int)
}
# nvd.h, PACKET3_ACQUIRE_MEM_GCR_CNTL_*: shifts in the macros, widths in their comments.
_GCR_DWORD = 7
_ACQUIRE_GCR = {
    "gli_inv": single(_GCR_DWORD, 0, 2), "gl1_range": single(_GCR_DWORD, 2, 2),
    "glm_wb": single(_GCR_DWORD, 4, 1), "glm_inv": single(_GCR_DWORD, 5, 1),
    "glk_wb": single(_GCR_DWORD, 6, 1), "glk_inv": single(_GCR_DWORD, 7, 1),
    "glv_inv": single(_GCR_DWORD, 8, 1), "gl1_inv": single(_GCR_DWORD, 9, 1),
    "gl2_us": single(_GCR_DWORD, 10, 1), "gl2_range": single(_GCR_DWORD, 11, 2),
    "gl2_discard": single(_GCR_DWORD, 13, 1), "gl2_inv": single(_GCR_DWORD, 14, 1),
    "gl2_wb": single(_GCR_DWORD, 15, 1), "seq": single(_GCR_DWORD, 16, 2),
}
# soc15d.h, PACKET3_ACQUIRE_MEM_*_ACTION_ENA of CP_COHER_CNTL.
_COHER = {
    "tc_wb_action_ena": flag(1, pm4_rocr.PM4_ACQUIRE_MEM_COHER_CNTL_TC_WB_ACTION_ENA),
    "tcl1_action_ena": single(1, 22, 1),
    "tc_action_ena": flag(1, pm4_rocr.PM4_ACQUIRE_MEM_COHER_CNTL_TC_ACTION_ENA),
    "sh_kcache_action_ena": flag(1, pm4_rocr.PM4_ACQUIRE_MEM_COHER_CNTL_SH_KCACHE_ACTION_ENA),
    "sh_icache_action_ena": flag(1, pm4_rocr.PM4_ACQUIRE_MEM_COHER_CNTL_SH_ICACHE_ACTION_ENA),
}


def _without(table: dict[str, Field], *names: str) -> dict[str, Field]:
    return {name: places for name, places in table.items() if name not in names}


def _release(table: str) -> dict[str, Field]:
    fields = fields_of(
        TABLES[table], address=("address_lo_32b", "address_hi"), data=("data_lo", "data_hi")
    )
    return _without(
        fields, "address_lo_64b", "cmp_data_lo", "cmp_data_hi", "dw_offset", "num_dwords",
        "gcr_cntl",
    )


_ADDRESSES = {"size": ("coher_size", "coher_size_hi"), "base": ("coher_base_lo", "coher_base_hi")}

NOP = _pm4("NOP", pm4_nv.PACKET3_NOP, 1, {}, tail="data")
SET_SH_REG = _pm4(
    "SET_SH_REG", pm4_nv.PACKET3_SET_SH_REG, 2, {"reg_offset": single(1, 0, 16)},
    tail="values", compute=True,
)
DISPATCH_DIRECT = _pm4(
    "DISPATCH_DIRECT", pm4_nv.PACKET3_DISPATCH_DIRECT, 5,
    fields_of(TABLES["DISPATCH_DIRECT"]), compute=True,
)
EVENT_WRITE = _pm4(
    "EVENT_WRITE", pm4_nv.PACKET3_EVENT_WRITE, 2,
    {name: single(*TABLES["EVENT_WRITE"][name]) for name in ("event_type", "event_index")},
)
WAIT_REG_MEM = _pm4(
    "WAIT_REG_MEM", pm4_nv.PACKET3_WAIT_REG_MEM, 7,
    _without(
        fields_of(TABLES["WAIT_REG_MEM"], address=("mem_poll_addr_lo", "mem_poll_addr_hi")),
        "reg_poll_addr", "reg_write_addr1", "reg_write_addr2",
    ),
)
# PM4's 64-bit variant: reference and mask take two dwords each.
WAIT_REG_MEM64 = _pm4(
    "WAIT_REG_MEM64", pm4_nv.PACKET3_WAIT_REG_MEM64, 9,
    {
        **{name: WAIT_REG_MEM.fields[name]
           for name in ("function", "mem_space", "operation", "address")},
        "reference": single(4, 0, 64), "mask": single(6, 0, 64),
        "poll_interval": single(8, 0, 16),
    },
)
WRITE_DATA = _pm4(
    "WRITE_DATA", pm4_nv.PACKET3_WRITE_DATA, 4,
    _without(
        fields_of(TABLES["WRITE_DATA"], address=("dst_addr_lo", "dst_address_hi")), "data", "atc"
    ),
    tail="data",
)
INDIRECT_BUFFER = _pm4(
    "INDIRECT_BUFFER", pm4_nv.PACKET3_INDIRECT_BUFFER, 4,
    fields_of(TABLES["INDIRECT_BUFFER"], address=("ib_base_lo", "ib_base_hi")),
)
# ROCR, amd_gpu_pm4.h: the dwords that follow run only on the chosen dies. Not in a ring itself.
PRED_EXEC = _pm4(
    "PRED_EXEC", pm4_nv.PACKET3_PRED_EXEC, 2,
    {"exec_count": single(1, 0, 14), "virtual_xcc_select": single(1, 24, 8)},
)
# sid.h, PKT3_ATOMIC_MEM: operation and command, address, operands, interval of the looping ones.
ATOMIC_MEM = _pm4(
    "ATOMIC_MEM", pm4_nv.PACKET3_ATOMIC_MEM, 9,
    {
        "operation": flag(1, pm4_mesa.ATOMIC_OP(_ALL)),
        "command": flag(1, pm4_mesa.ATOMIC_COMMAND(_ALL)),
        "address": (Piece(2, 3, 29, 3), Piece(3, 0, 32, 32)),
        "source": single(4, 0, 64), "compare": single(6, 0, 64), "loop_interval": single(8, 0, 13),
    },
)
ATOMIC_SUB_64: Final = pm4_mesa.TC_OP_ATOMIC_SUB_64
ATOMIC_WRITE_CONFIRM: Final = pm4_mesa.ATOMIC_COMMAND_WR_CONFIRM
# nvd.h, PACKET3_DMA_DATA: ordinals and selectors.
DMA_DATA = _pm4(
    "DMA_DATA", pm4_nv.PACKET3_DMA_DATA, 7,
    {
        "src_cache_policy": single(1, 13, 2), "dst_sel": single(1, 20, 2),
        "dst_cache_policy": single(1, 25, 2), "src_sel": single(1, 29, 2),
        "cp_sync": flag(1, pm4_nv.PACKET3_DMA_DATA_CP_SYNC),
        "source": single(2, 0, 64), "destination": single(4, 0, 64),
        "byte_count": single(6, 0, DMA_COUNT_BITS),
        "raw_wait": flag(6, pm4_nv.PACKET3_DMA_DATA_CMD_RAW_WAIT),
    },
)
# sid.h, PKT3_COPY_DATA: control, source, destination.
COPY_DATA = _pm4(
    "COPY_DATA", pm4_mesa.PKT3_COPY_DATA, 6,
    {
        "src_sel": single(1, 0, 4), "dst_sel": single(1, 8, 4),
        "count_sel": flag(1, pm4_mesa.COPY_DATA_COUNT_SEL),
        "wr_confirm": flag(1, pm4_mesa.COPY_DATA_WR_CONFIRM),
        "source": single(2, 0, 64), "destination": single(4, 0, 64),
    },
)
RELEASE_MEM_GFX9 = _pm4(
    "RELEASE_MEM", pm4_nv.PACKET3_RELEASE_MEM, 8, _release("RELEASE_MEM_AI")
)
RELEASE_MEM_GFX10 = _pm4(
    "RELEASE_MEM", pm4_nv.PACKET3_RELEASE_MEM, 8, {**_release("RELEASE_MEM_NV"), **_MASKS}
)
ACQUIRE_MEM_GFX9 = _pm4(
    "ACQUIRE_MEM", pm4_nv.PACKET3_ACQUIRE_MEM, 7,
    {**_without(fields_of(TABLES["ACQUIRE_MEM_AI"], **_ADDRESSES), "coher_cntl", "engine"),
     **_COHER},
)
ACQUIRE_MEM_GFX10 = _pm4(
    "ACQUIRE_MEM", pm4_nv.PACKET3_ACQUIRE_MEM, 8,
    {**_without(fields_of(TABLES["ACQUIRE_MEM_NV"], **_ADDRESSES), "gcr_cntl"), **_ACQUIRE_GCR},
)

ACQUIRE_EVERYTHING: Final = (1 << 40) - 1
"""The size, in 256-byte units, with which ACQUIRE_MEM covers all of memory."""

_COMMON = (
    NOP, SET_SH_REG, DISPATCH_DIRECT, EVENT_WRITE, WAIT_REG_MEM, WAIT_REG_MEM64, WRITE_DATA,
    INDIRECT_BUFFER, PRED_EXEC, ATOMIC_MEM, DMA_DATA, COPY_DATA,
)


def opcode_of(layout: Layout) -> int:
    """The IT opcode of a PM4 packet."""
    assert layout.header is not None
    return pm4_nv.CP_PACKET3_GET_OPCODE(layout.header(layout.size_dwords))


_GFX9 = {opcode_of(each): each for each in (*_COMMON, RELEASE_MEM_GFX9, ACQUIRE_MEM_GFX9)}
_GFX10 = {opcode_of(each): each for each in (*_COMMON, RELEASE_MEM_GFX10, ACQUIRE_MEM_GFX10)}


_OPCODE_NAMES = {
    value: name.removeprefix("PACKET3_")
    for name, value in reversed(vars(pm4_nv).items())  # of two names the first in the header
    if name.startswith("PACKET3_") and isinstance(value, int) and value < 256
}
_ONE_DWORD = (1 << 14) - 1  # count of a NOP that is its header only


def decode_stream(words: Sequence[int], gfx9: bool = False) -> Iterator[tuple[int, Packet | str]]:
    """The packets of a stream with their offsets; what is unknown is a sentence."""
    known, at = (_GFX9 if gfx9 else _GFX10), 0
    while at < len(words):
        header = words[at]
        if pm4_nv.CP_PACKET_GET_TYPE(header) != pm4_nv.PACKET_TYPE3:
            yield at, f"{header:#010x} is no type-3 packet"
            return
        count, opcode = pm4_nv.CP_PACKET_GET_COUNT(header), pm4_nv.CP_PACKET3_GET_OPCODE(header)
        size = 1 if opcode == pm4_nv.PACKET3_NOP and count == _ONE_DWORD else count + 2
        layout, body = known.get(opcode), list(words[at : at + size])
        name = _OPCODE_NAMES.get(opcode, "unknown")
        if len(body) < size:
            yield at, f"opcode {opcode:#x} ({name}): {len(body)} of its {size} dwords"
        elif layout is None or size < layout.size_dwords:
            yield at, f"opcode {opcode:#x} ({name}) with {size} dwords"
        else:
            yield at, decode(layout, body)
        at += size
