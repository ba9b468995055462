"""Packets: golden dwords from the kernel's own ring code, and every field there and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.amd import packets
from drivers.amd.generations import GENERATIONS, architecture_name
from drivers.amd.sdma import SDMA_4, SDMA_5, SDMA_6, UNCACHED
from drivers.fields import decode

PM4 = (*packets._COMMON, packets.RELEASE_MEM_GFX9, packets.RELEASE_MEM_GFX10,
       packets.ACQUIRE_MEM_GFX9, packets.ACQUIRE_MEM_GFX10)  # fmt: skip
SDMA = tuple(layout for each in (SDMA_4, SDMA_5, SDMA_6) for layout in each.layouts)


def test_release_mem_is_the_kernels_fence():
    # gfx_v11_0.c, gfx_v11_0_ring_emit_fence: 64 bits with an interrupt.
    packet = packets.RELEASE_MEM_GFX10(
        event_type=20, event_index=5, glm_wb=1, glm_inv=1, gl2_wb=1, seq=1, cache_policy=3,
        data_sel=2, int_sel=2, address=0x7F1234567898, data=0x1_0000_0005,
    )
    assert packet.encode() == [
        0xC0064900, 0x06603514, 0x42000000, 0x34567898, 0x00007F12, 5, 1, 0
    ]


def test_release_mem_of_gfx9_is_the_kernels_fence():
    # gfx_v9_0.c, gfx_v9_0_ring_emit_fence: EOP_TCL1_ACTION_EN | EOP_TC_ACTION_EN |
    # EOP_TC_WB_ACTION_EN | EOP_TC_MD_ACTION_EN | EVENT_TYPE(20) | EVENT_INDEX(5).
    packet = packets.RELEASE_MEM_GFX9(
        event_type=20, event_index=5, tcl1_action_ena=1, tc_action_ena=1, tc_wb_action_ena=1,
        tc_md_action_ena=1, data_sel=2, address=0x1000, data=7,
    )
    assert packet.encode() == [0xC0064900, 0x00238514, 0x40000000, 0x1000, 0, 7, 0, 0]


def test_wait_reg_mem_is_the_kernels_pipeline_sync():
    # gfx_v11_0.c, gfx_v11_0_wait_reg_mem(mem_space 1, ==, mask all ones, interval 4).
    packet = packets.WAIT_REG_MEM(
        function=3, mem_space=1, address=0x12_00001000, reference=9, mask=0xFFFFFFFF,
        poll_interval=4,
    )
    assert packet.encode() == [0xC0053C00, 0x13, 0x1000, 0x12, 9, 0xFFFFFFFF, 4]


def test_acquire_mem_is_the_kernels_memory_sync():
    # gfx_v11_0.c, gfx_v11_0_emit_mem_sync, with its size cut to the field (CP_COHER_SIZE_HI 7:0).
    generation = GENERATIONS["gfx1100"]
    values = {**generation.caches.refresh, "glk_wb": 0}
    assert generation.caches.acquire(**values).encode() == [
        0xC0065800, 0, 0xFFFFFFFF, 0xFF, 0, 0, 0xA, 0x0000C3B1
    ]


def test_write_data_goes_through_l2_and_is_confirmed():
    # nvd.h, PACKET3_WRITE_DATA: DST_SEL(2) gl2, WR_CONFIRM bit 20.
    packet = packets.WRITE_DATA(5, 6, dst_sel=packets.WriteDestination.L2, wr_confirm=1,
                                address=0x7F00_0000_1004)  # fmt: skip
    assert packet.encode() == [0xC0043700, 0x00100200, 0x1004, 0x7F00, 5, 6]


def test_a_compute_dispatch():
    # kfdtest, Dispatch.cpp: SET_SH_REG and DISPATCH_DIRECT with shader type 1 (compute).
    assert packets.SET_SH_REG(1, 2, reg_offset=0x20C).encode() == [0xC0027602, 0x20C, 1, 2]
    assert packets.DISPATCH_DIRECT(dim_x=3, dim_y=2, dim_z=1, dispatch_initiator=5).encode() == [
        0xC0031502, 3, 2, 1, 5
    ]


def test_an_indirect_buffer():
    # gfx_v11_0.c, gfx_v11_0_ring_emit_ib_compute: INDIRECT_BUFFER_VALID | length.
    packet = packets.INDIRECT_BUFFER(address=0x7F00_0000_2000, ib_size=0x123, valid=1)
    assert packet.encode() == [0xC0023F00, 0x2000, 0x7F00, 0x00800123]


def test_dma_data_copies_through_l2():
    # nvd.h, PACKET3_DMA_DATA: SRC_SEL(3) << 29, DST_SEL(3) << 20, CP_SYNC 31, RAW_WAIT 30.
    packet = packets.DMA_DATA(src_sel=3, dst_sel=3, cp_sync=1, raw_wait=1, byte_count=64,
                              source=0x1_0000_0000, destination=0x2_0000_0040)  # fmt: skip
    assert packet.encode() == [0xC0055000, 0xE0300000, 0, 1, 0x40, 2, 0x40000040]


@pytest.mark.parametrize(
    ("packet", "words"),
    [  # sdma_v6_0.c: emit_copy_buffer, ring_emit_fence, ring_emit_pipeline_sync
        (SDMA_6.copy(count=0xFFF, src_addr=0x1_00002000, dst_addr=0x3000),
         [1, 0xFFF, 0, 0x2000, 1, 0x3000, 0]),
        (SDMA_6.fence(mtype=UNCACHED, addr=0x7F00_0000_1000, data=9),
         [0x00030005, 0x1000, 0x7F00, 9]),
        (SDMA_6.poll(func=3, mem_poll=1, addr=0x1000, value=9, mask=0xFFFFFFFF, interval=4,
                     retry_count=0xFFF),
         [0xB0000008, 0x1000, 0, 9, 0xFFFFFFFF, 0x0FFF0004]),
        (SDMA_6.trap(int_context=33), [6, 33]),
        (SDMA_6.timestamp(write_addr=0x1008), [0x20D, 0x1008, 0]),
        (SDMA_6.write(7, 8, dst_addr=0x1000, count=1), [2, 0x1000, 0, 1, 7, 8]),
        (SDMA_6.indirect(ib_base=0x2020, ib_size=16), [4, 0x2020, 0, 16, 0, 0]),
        (SDMA_4.fence(addr=0x1000, data=1), [5, 0x1000, 0, 1]),
    ],
    ids=lambda value: getattr(getattr(value, "layout", None), "name", ""),
)
def test_sdma_packets_are_the_kernels(packet, words):
    assert packet.encode() == words


@pytest.mark.parametrize("layout", [*PM4, *SDMA], ids=lambda layout: layout.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_field_there_and_back(layout, data):
    values = {}
    for name, places in layout.fields.items():
        if name in layout.fixed:
            continue
        low, top = places[0].low, places[-1].low + places[-1].width
        values[name] = data.draw(st.integers(0, (1 << (top - low)) - 1), name) << low
    tail = data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=4)) if layout.tail else []
    words = layout(*tail, **values).encode()
    assert len(words) == layout.size_dwords + len(tail)
    back = decode(layout, words)
    assert {name: value for name, value in values.items() if value} == back.values
    assert list(back.tail) == tail
    assert back.encode() == words


@pytest.mark.parametrize("layout", [*PM4, *SDMA], ids=lambda layout: layout.name)
def test_fields_do_not_overlap(layout):
    taken: set[tuple[int, int]] = set()
    if layout.header is not None:
        taken |= {(0, bit) for bit in range(32)}
    for places in layout.fields.values():
        for piece in places:
            bits = {(piece.dword, piece.shift + i) for i in range(piece.width)}
            assert not bits & taken, layout.name
            assert all(bit < 32 for _, bit in bits)
            taken |= bits


def test_what_does_not_fit_raises():
    with pytest.raises(ValueError, match=r"WAIT_REG_MEM.reference is 0x100000000, beyond"):
        packets.WAIT_REG_MEM(reference=1 << 32).encode()
    with pytest.raises(ValueError, match=r"address is 0x1002, not a multiple of 4"):
        packets.WAIT_REG_MEM(address=0x1002).encode()
    with pytest.raises(ValueError, match="has no field referense; it has function"):
        packets.WAIT_REG_MEM(referense=1)
    with pytest.raises(ValueError, match="beyond"):
        packets.DISPATCH_DIRECT(dim_x=-1).encode()


def test_a_stream_prints_decoded():
    words = packets.SET_SH_REG(1, reg_offset=0x20C).encode()
    words += packets.DISPATCH_DIRECT(dim_x=7, dispatch_initiator=5).encode()
    words += [0xC0001234, 9]
    shown = [str(packet) for _, packet in packets.decode_stream(words)]
    assert shown == [
        "SET_SH_REG(reg_offset=524, values=[1])", "DISPATCH_DIRECT(dim_x=7, dispatch_initiator=5)",
        "opcode 0x12 (CLEAR_STATE) with 2 dwords",
    ]
    words = [0, 0, *SDMA_5.write(1, 2, dst_addr=0x1000, count=1).encode(), *SDMA_5.trap().encode()]
    assert [(at, packet.layout.name) for at, packet in SDMA_5.decode_stream(words)] == [
        (2, "WRITE_UNTILED"), (8, "TRAP")
    ]


@pytest.mark.parametrize("name", GENERATIONS)
def test_every_generation_has_the_registers_of_a_launch(name):
    generation = GENERATIONS[name]
    for register in (
        "COMPUTE_PGM_LO", "COMPUTE_PGM_RSRC1", "COMPUTE_PGM_RSRC2", "COMPUTE_PGM_RSRC3",
        "COMPUTE_TMPRING_SIZE", "COMPUTE_DISPATCH_SCRATCH_BASE_LO", "COMPUTE_RESTART_X",
        "COMPUTE_USER_DATA_0", "COMPUTE_RESOURCE_LIMITS", "COMPUTE_START_X",
        "COMPUTE_NUM_THREAD_X",
    ):
        assert 0x200 <= generation.shader_registers[register] < 0x400
    # What one SET_SH_REG writes must lie next to each other.
    registers = generation.shader_registers
    assert registers["COMPUTE_PGM_RSRC2"] == registers["COMPUTE_PGM_RSRC1"] + 1
    assert registers["COMPUTE_NUM_THREAD_Z"] == registers["COMPUTE_START_X"] + 5
    assert registers["COMPUTE_USER_DATA_15"] == registers["COMPUTE_USER_DATA_0"] + 15
    assert generation.events["CS_PARTIAL_FLUSH"] == 7
    assert generation.events["CACHE_FLUSH_AND_INV_TS_EVENT"] == 20
    for values in (generation.caches.refresh, generation.caches.between):
        generation.caches.acquire(**values).encode()
    generation.caches.release(**generation.caches.flush).encode()


@pytest.mark.parametrize(
    ("version", "name"),
    [(110000, "gfx1100"), (90402, "gfx942"), (90010, "gfx90a"), (120001, "gfx1201"),
     (100300, "gfx1030"), (90500, "gfx950")],
)  # fmt: skip
def test_the_topologys_version_is_llvms_name(version, name):
    assert architecture_name(version) == name
    assert name in GENERATIONS


def test_registers_are_made_of_their_fields():
    generation = GENERATIONS["gfx1100"]
    assert generation.register("COMPUTE_PGM_RSRC2", LDS_SIZE=3, USER_SGPR=2) == 3 << 15 | 2 << 1
    with pytest.raises(ValueError, match=r"COMPUTE_PGM_RSRC2.LDS_SIZE is 0x200"):
        generation.register("COMPUTE_PGM_RSRC2", LDS_SIZE=512)
