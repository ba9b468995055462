"""Opcodes, packet fields and registers against values known from elsewhere, and each other.

The expected values are retyped from AMD's public descriptions, not read from the same headers.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from autogen import (
    amd_hsa_elf,
    amdhsa,
    gc_9_4_2,
    gc_9_4_3,
    gc_10_3_0,
    gc_11_0_0,
    gc_12_0_0,
    hsa,
    ip_offset,
    mesa_registers,
    pm4_mesa,
    pm4_nv,
    pm4_packets,
    pm4_rocr,
    pm4_soc15,
    sdma_rocr,
    sdma_v4,
    sdma_v5,
    sdma_v6,
    soc15_hw_ip,
)

OPCODES = {
    "NOP": 0x10, "SET_BASE": 0x11, "DISPATCH_DIRECT": 0x15, "DISPATCH_INDIRECT": 0x16,
    "ATOMIC_MEM": 0x1E, "COND_EXEC": 0x22, "PRED_EXEC": 0x23, "WRITE_DATA": 0x37,
    "WAIT_REG_MEM": 0x3C, "INDIRECT_BUFFER": 0x3F, "COPY_DATA": 0x40, "EVENT_WRITE": 0x46,
    "RELEASE_MEM": 0x49, "DMA_DATA": 0x50, "ACQUIRE_MEM": 0x58, "SET_SH_REG": 0x76,
    "SET_UCONFIG_REG": 0x79,
}  # fmt: skip
TABLES = {
    "pm4": pm4_packets, "sdma4": sdma_v4, "sdma5": sdma_v5, "sdma6": sdma_v6, "rocr": sdma_rocr,
}  # fmt: skip
REGISTER_MODULES = [
    "gc_9_4_2", "gc_9_4_3", "gc_10_3_0", "gc_11_0_0", "gc_11_5_0", "gc_12_0_0",
    "nbio_2_3", "nbio_4_3_0", "nbio_7_4", "nbio_7_7_0", "nbio_7_9_0", "nbio_7_11_0", "nbif_6_3_1",
]  # fmt: skip


@pytest.mark.parametrize("module", [pm4_nv, pm4_soc15], ids=["nv", "soc15"])
@pytest.mark.parametrize("name", OPCODES)
def test_opcodes(module: ModuleType, name: str) -> None:
    assert getattr(module, f"PACKET3_{name}") == OPCODES[name]


@pytest.mark.parametrize("module", [pm4_nv, pm4_soc15], ids=["nv", "soc15"])
def test_packet_headers_round_trip(module: ModuleType) -> None:
    assert module.PACKET3(module.PACKET3_NOP, 0x3FFF) == 0xFFFF1000  # the one-dword filler
    assert module.PACKET3_COMPUTE(module.PACKET3_RELEASE_MEM, 6) == 0xC0064902
    header = module.PACKET3(module.PACKET3_DISPATCH_DIRECT, 3)
    assert module.CP_PACKET_GET_TYPE(header) == module.PACKET_TYPE3
    assert module.CP_PACKET_GET_COUNT(header) == 3
    assert module.CP_PACKET3_GET_OPCODE(header) == module.PACKET3_DISPATCH_DIRECT


def test_register_windows() -> None:
    assert pm4_nv.PACKET3_SET_SH_REG_START == pm4_soc15.PACKET3_SET_SH_REG_START == 0x2C00
    assert pm4_nv.PACKET3_SET_UCONFIG_REG_START == 0xC000


def test_bits_above_31_are_cut_and_none_is_negative() -> None:
    assert pm4_nv.PACKET3_DMA_DATA_CP_SYNC == 1 << 31
    assert pm4_nv.PACKET3_RELEASE_MEM_DATA_SEL(7) == 0xE0000000
    assert pm4_nv.PACKET3_RELEASE_MEM_DATA_SEL(8) == 0


# (macro of the kernel's header, packet and field of AMD's structures): two sources, one place
PLACES = [
    (pm4_nv, "WAIT_REG_MEM_FUNCTION", "WAIT_REG_MEM", "function"),
    (pm4_nv, "WAIT_REG_MEM_MEM_SPACE", "WAIT_REG_MEM", "mem_space"),
    (pm4_nv, "WAIT_REG_MEM_OPERATION", "WAIT_REG_MEM", "operation"),
    (pm4_nv, "WRITE_DATA_DST_SEL", "WRITE_DATA", "dst_sel"),
    (pm4_nv, "EVENT_TYPE", "EVENT_WRITE", "event_type"),
    (pm4_nv, "EVENT_INDEX", "EVENT_WRITE", "event_index"),
    (pm4_nv, "PACKET3_RELEASE_MEM_EVENT_INDEX", "RELEASE_MEM_NV", "event_index"),
    (pm4_nv, "PACKET3_RELEASE_MEM_CACHE_POLICY", "RELEASE_MEM_NV", "cache_policy"),
    (pm4_nv, "PACKET3_RELEASE_MEM_DATA_SEL", "RELEASE_MEM_NV", "data_sel"),
    (pm4_nv, "PACKET3_RELEASE_MEM_INT_SEL", "RELEASE_MEM_NV", "int_sel"),
    (pm4_nv, "PACKET3_RELEASE_MEM_DST_SEL", "RELEASE_MEM_NV", "dst_sel"),
    (pm4_soc15, "DATA_SEL", "RELEASE_MEM_AI", "data_sel"),
    (pm4_soc15, "INT_SEL", "RELEASE_MEM_AI", "int_sel"),
    (pm4_rocr, "PM4_INDIRECT_BUFFER_DW3_IB_VALID", "INDIRECT_BUFFER", "valid"),
    (pm4_rocr, "PM4_INDIRECT_BUFFER_DW3_IB_SIZE", "INDIRECT_BUFFER", "ib_size"),
]


@pytest.mark.parametrize(("module", "macro", "packet", "field"), PLACES)
def test_kernel_and_runtime_agree_on_a_field(
    module: ModuleType, macro: str, packet: str, field: str
) -> None:
    _, shift, _ = pm4_packets.PACKETS[packet][field]
    assert getattr(module, macro)(1) == 1 << shift


def test_cache_control_bits_of_gfx10_and_later() -> None:
    expected = {
        "GLI_INV": 0, "GL1_RANGE": 2, "GLM_WB": 4, "GLM_INV": 5, "GLK_WB": 6, "GLK_INV": 7,
        "GLV_INV": 8, "GL1_INV": 9, "GL2_US": 10, "GL2_RANGE": 11, "GL2_DISCARD": 13,
        "GL2_INV": 14, "GL2_WB": 15, "SEQ": 16,
    }  # fmt: skip
    for name, shift in expected.items():
        assert getattr(pm4_nv, f"PACKET3_ACQUIRE_MEM_GCR_CNTL_{name}")(1) == 1 << shift
        assert mesa_registers.PKT3["GCR_CNTL"][name][0] == shift


def test_copy_data_selectors() -> None:
    assert (pm4_mesa.COPY_DATA_REG, pm4_mesa.COPY_DATA_IMM, pm4_mesa.COPY_DATA_TIMESTAMP) == (
        0,
        5,
        9,
    )
    assert (pm4_mesa.COPY_DATA_TC_L2, pm4_mesa.COPY_DATA_DST_MEM) == (2, 5)
    assert (pm4_mesa.COPY_DATA_COUNT_SEL, pm4_mesa.COPY_DATA_WR_CONFIRM) == (1 << 16, 1 << 20)


@pytest.mark.parametrize("name", TABLES)
def test_packet_fields_fit_and_reserve_no_name_twice(name: str) -> None:
    for packet, fields in TABLES[name].PACKETS.items():
        assert fields, packet
        for field, (dword, shift, width) in fields.items():
            assert dword >= 0 <= shift and width > 0 and shift + width <= 32, (packet, field)


@pytest.mark.parametrize("module", [sdma_v4, sdma_v5, sdma_v6], ids=["v4", "v5", "v6"])
def test_sdma_packets(module: ModuleType) -> None:
    copy = module.PACKETS["COPY_LINEAR"]
    assert [copy[field][0] for field in ("count", "src_addr_31_0", "dst_addr_63_32")] == [1, 3, 6]
    assert copy["count"][2] == (30 if module is sdma_v6 else 22)
    assert module.PACKETS["FENCE"]["data"] == (3, 0, 32)
    poll = module.PACKETS["POLL_REGMEM"]
    assert (poll["func"], poll["hdp_flush"], poll["mem_poll"]) == (
        (0, 28, 3),
        (0, 26, 1),
        (0, 31, 1),
    )
    assert (poll["interval"], poll["retry_count"]) == ((5, 0, 16), (5, 16, 12))
    assert module.PACKETS["TRAP"]["int_context"] == (1, 0, 28)
    assert (module.SDMA_OP_FENCE, module.SDMA_OP_POLL_REGMEM, module.SDMA_OP_TIMESTAMP) == (
        5,
        8,
        13,
    )


def test_kernel_and_runtime_agree_on_sdma() -> None:
    """Wherever the two headers call a field alike, it lies at the same place."""
    same = 0
    for packet, fields in sdma_rocr.PACKETS.items():
        for field, place in fields.items():
            other = sdma_v6.PACKETS.get(packet, {}).get(field)
            if other is not None and (packet, field) != ("CONSTANT_FILL", "count"):  # 22, now 30
                assert other == place, (packet, field)
                same += 1
    assert same > 25


# dword offsets in segment 0
COMPUTE_REGISTERS = {
    "COMPUTE_DISPATCH_INITIATOR": (0xE00, 0x1BA0),
    "COMPUTE_START_X": (0xE04, 0x1BA4),
    "COMPUTE_NUM_THREAD_X": (0xE07, 0x1BA7),
    "COMPUTE_PGM_LO": (0xE0C, 0x1BAC),
    "COMPUTE_PGM_RSRC1": (0xE12, 0x1BB2),
    "COMPUTE_RESOURCE_LIMITS": (0xE15, 0x1BB5),
    "COMPUTE_TMPRING_SIZE": (0xE18, 0x1BB8),
    "COMPUTE_RESTART_X": (0xE1B, 0x1BBB),
    "COMPUTE_USER_DATA_0": (0xE40, 0x1BE0),
    "COMPUTE_USER_DATA_15": (0xE4F, 0x1BEF),
}


@pytest.mark.parametrize("register", COMPUTE_REGISTERS)
def test_compute_registers(register: str) -> None:
    gfx9, gfx10 = COMPUTE_REGISTERS[register]
    for module in (gc_9_4_2, gc_9_4_3):
        assert module.REGISTERS[register] == (gfx9, 0)
    for module in (gc_10_3_0, gc_11_0_0, gc_12_0_0):
        assert module.REGISTERS[register] == (gfx10, 0)


def test_registers_that_moved_between_generations() -> None:
    assert gc_9_4_3.REGISTERS["COMPUTE_PGM_RSRC3"] == (0xE2D, 0)
    assert gc_9_4_3.REGISTERS["COMPUTE_TG_CHUNK_SIZE"] == (0xE27, 0)
    assert gc_11_0_0.REGISTERS["COMPUTE_PGM_RSRC3"] == (0x1BC8, 0)
    assert gc_11_0_0.REGISTERS["COMPUTE_DISPATCH_INTERLEAVE"] == (0x1BCF, 0)
    assert gc_12_0_0.REGISTERS["COMPUTE_STATIC_THREAD_MGMT_SE8"] == (0x1BC3, 0)
    assert gc_11_0_0.REGISTERS["GRBM_GFX_INDEX"] == (0x2200, 1)


def test_register_fields() -> None:
    waves = [module.FIELDS["COMPUTE_TMPRING_SIZE"]["WAVESIZE"] for module in
             (gc_9_4_3, gc_11_0_0, gc_12_0_0)]  # fmt: skip
    assert waves == [(12, 13), (12, 15), (12, 18)]
    assert gc_11_0_0.FIELDS["COMPUTE_DISPATCH_INITIATOR"]["CS_W32_EN"] == (15, 1)
    assert gc_9_4_3.FIELDS["COMPUTE_PGM_RSRC3"]["ACCUM_OFFSET"] == (0, 6)
    assert gc_9_4_3.FIELDS["CP_COHER_CNTL"]["TC_ACTION_ENA"] == (23, 1)
    assert gc_12_0_0.FIELDS["COMPUTE_PGM_RSRC3"]["INST_PREF_SIZE"] == (4, 8)


@pytest.mark.parametrize("name", REGISTER_MODULES)
def test_register_fields_do_not_overlap(name: str) -> None:
    module = importlib.import_module(f"autogen.{name}")
    assert module.REGISTERS and module.FIELDS
    for register, fields in module.FIELDS.items():
        taken = 0
        for field, (shift, width) in fields.items():
            bits = ((1 << width) - 1) << shift
            assert not taken & bits and bits < 1 << 32, (register, field)
            taken |= bits


def test_segment_bases_and_block_numbers() -> None:
    assert ip_offset.ALDEBARAN["GC"][0][:2] == (0x2000, 0xA000)
    assert ip_offset.SIENNA_CICHLID["GC"][0][:2] == (0x1260, 0xA000)
    assert (soc15_hw_ip.GC_HWID, soc15_hw_ip.SDMA0_HWID) == (11, 42)


@pytest.mark.parametrize("name", ["vega10_enum", "navi10_enum", "soc21_enum", "soc24_enum"])
def test_event_types(name: str) -> None:
    events = importlib.import_module(f"autogen.{name}").VGT_EVENT_TYPE
    assert events["CS_PARTIAL_FLUSH"] == 7
    assert events["CACHE_FLUSH_AND_INV_TS_EVENT"] == 0x14


def test_queue_and_signal_offsets() -> None:
    queue = hsa.struct_amd_queue_s
    known = {
        "write_dispatch_id": 56, "group_segment_aperture_base_hi": 64, "read_dispatch_id": 128,
        "compute_tmpring_size": 140, "scratch_backing_memory_location": 160,
        "queue_properties": 180,
    }  # fmt: skip
    assert {name: getattr(queue, name).offset for name in known} == known
    assert hsa.struct_amd_signal_s.value.offset == 8
    assert hsa.struct_amd_signal_s.event_mailbox_ptr.offset == 16
    assert (hsa.AMD_SIGNAL_KIND_USER, hsa.AMD_SIGNAL_KIND_DOORBELL) == (1, -1)
    packet = hsa.struct_hsa_kernel_dispatch_packet_s
    assert (packet.kernel_object.offset, packet.completion_signal.offset) == (32, 56)


def test_kernel_descriptor() -> None:
    assert (amdhsa.COMPUTE_PGM_RSRC1_OFFSET, amdhsa.KERNEL_CODE_PROPERTIES_OFFSET) == (48, 56)
    assert amdhsa.PACKETS["kernel_descriptor_t"]["compute_pgm_rsrc1"] == (12, 0, 32)
    assert amdhsa.KERNEL_CODE_PROPERTY_ENABLE_WAVEFRONT_SIZE32_SHIFT == 10
    assert (amd_hsa_elf.EM_AMDGPU, amd_hsa_elf.EF_AMDGPU_MACH_AMDGCN_GFX1100) == (224, 0x41)
