"""scripts/decode.py: rings, lists and recordings in names, for every generation."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import decode
from drivers.amd import aql, packets
from drivers.amd.generations import GENERATIONS
from drivers.amd.listing import FORMATS, Listing
from test.drivers.test_recording import add_and_copy
from test.drivers.test_recording import record as record  # a fixture


def pm4_layouts(generation):
    return (*packets._COMMON, generation.caches.release, generation.caches.acquire)


def packed(words) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


@pytest.mark.parametrize("name", GENERATIONS)
def test_every_packet_of_a_generation_is_printed_with_all_its_fields(name):
    generation = GENERATIONS[name]
    for kind, layouts in (("pm4", pm4_layouts(generation)), ("sdma", generation.sdma.layouts)):
        made, words = [], []
        for layout in layouts:
            values = {
                field: 1 << places[0].low for field, places in layout.fields.items()
                if field not in layout.fixed
            }
            tail = [0x11, 0x2222] if layout.tail else []
            made.append(layout(*tail, **values))
            words += made[-1].encode()
        lines = list(Listing(generation).lines(words, kind))
        packets_shown = [line for line in lines if line[:4].strip()]
        assert len(packets_shown) == len(made)
        for line, packet in zip(packets_shown, made, strict=True):
            assert line[6:].startswith(f"{packet.layout.name}(")
            for field in packet.values:
                assert f"{field}=" in line
            if packet.tail and packet.layout is not packets.SET_SH_REG:
                assert "=[17, 0x2222]" in line


def test_registers_enumerations_and_lists_in_lists_have_names():
    generation = GENERATIONS["gfx1100"]
    at = generation.shader_registers["COMPUTE_PGM_RSRC2"]
    inner = packets.SET_SH_REG(
        generation.register("COMPUTE_PGM_RSRC2", USER_SGPR=9, TGID_X_EN=1), 7, 8, reg_offset=at
    ).encode()
    inner += packets.SET_SH_REG(6, reg_offset=1).encode()
    outer = [
        *packets.WAIT_REG_MEM64(function=packets.Function.GREATER_EQUAL, mem_space=1,
                                address=0x1000, reference=5, mask=1).encode(),
        *packets.INDIRECT_BUFFER(address=0x2000, ib_size=len(inner), valid=1).encode(),
    ]
    memory = {0x1000: outer, 0x2000: inner}
    ring = packets.INDIRECT_BUFFER(address=0x1000, ib_size=len(outer), valid=1).encode()
    listing = Listing(generation, lambda address, size: packed(memory[address])[:size])
    assert list(listing.lines(ring, "pm4")) == [
        f"   0  INDIRECT_BUFFER(ib_size={len(outer)}, valid=1, address=0x1000)",
        "       0  WAIT_REG_MEM64(function=GREATER_EQUAL, mem_space=MEMORY, address=0x1000, "
        "reference=5, mask=1)",
        f"       9  INDIRECT_BUFFER(ib_size={len(inner)}, valid=1, address=0x2000)",
        f"           0  SET_SH_REG(reg_offset={at})",
        "                  COMPUTE_PGM_RSRC2 = 146 (USER_SGPR=9, TGID_X_EN=1)",
        "                  COMPUTE_VMID = 7 (DATA=7)",
        "                  COMPUTE_RESOURCE_LIMITS = 8 (WAVES_PER_SH=8)",
        "           5  SET_SH_REG(reg_offset=1)",
        "                  SH register 0x1 = 6",
    ]
    memory[0x2000] = packets.INDIRECT_BUFFER(address=0x2000, ib_size=4, valid=1).encode()
    assert list(listing.lines(ring, "pm4"))[-1].strip() == "more lists in lists than 8"


def test_aql_packets_have_the_names_of_their_headers():
    dispatch = [0x1502 | 3 << 16, 0x40 | 2 << 16, 8, 512, 6, 7, 0, 0, 0x9000, 0x7F00, *[0] * 6]
    barrier = [0x1503, 0, 0x1000, 0, 0x2000, *[0] * 11]
    invalid = [1, *[0] * 15]
    vendor = aql.vendor_packet(packets.INDIRECT_BUFFER(address=64, ib_size=9, valid=1).encode())
    lines = list(Listing(GENERATIONS["gfx942"]).lines(
        dispatch + invalid + barrier + vendor + [0x77, *[0] * 15], "aql"
    ))
    assert lines == [
        "   0  KERNEL_DISPATCH(header=0x1502, setup=3, workgroup_size_x=64, workgroup_size_y=2, "
        "workgroup_size_z=8, grid_size_x=512, grid_size_y=6, grid_size_z=7, "
        "kernel_object=0x7f0000009000)",
        "  32  BARRIER_AND(header=0x1503, dep_signal[0].handle=0x1000, "
        "dep_signal[1].handle=0x2000)",
        "  48  VENDOR_PM4_IB(barrier=1, acquire_fence_scope=2, release_fence_scope=2)",
        "       0  INDIRECT_BUFFER(ib_size=9, valid=1, address=64)",
        "              9 dwords at 0x40, not at hand",
        "  64  AQL packet of type 119, format 0",
    ]


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.integers(0, 2**32 - 1), max_size=40), opcode=st.integers(0, 255))
def test_any_dwords_are_printed(kind, words, opcode):
    head = [3 << 30 | 2 << 16 | opcode << 8] if kind == "pm4" else [opcode]
    for generation in (GENERATIONS["gfx1100"], GENERATIONS["gfx90a"]):
        for line in Listing(generation).lines(head + words, kind):
            assert line.isascii() and line.isprintable()


def test_unknown_and_shortened_packets_are_told(tmp_path, capsys):
    path = tmp_path / "ring"
    path.write_text("c0021000 1 2 3 0xffff1000 c0016f00\n0 0, c0033200 1 2 3 4 5")
    assert decode.main([str(path), "--as", "pm4"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "   0  NOP(data=[1, 2, 3])", "   4  NOP()",
        "   5  opcode 0x6f (unknown) with 3 dwords",
        "   8  opcode 0x32 (INDIRECT_BUFFER_PRIV) with 5 dwords",
        "  13  0x00000005 is no type-3 packet",
    ]
    path.write_bytes(packed([1, 7, 0, 0x1000]))
    assert decode.main([str(path), "--as", "sdma", "--gpu", "gfx1030"]) == 0
    assert capsys.readouterr().out == "   0  COPY_LINEAR: 4 of its 7 dwords\n"
    assert decode.main([str(path)]) == 2
    assert "does not begin as one" in capsys.readouterr().err


def test_a_recording_is_printed_down_to_its_kernels_and_copies(record, tmp_path, capsys):
    record(add_and_copy)
    assert decode.main([str(tmp_path / "run.rec")]) == 0
    out = capsys.readouterr().out
    assert out.count("submission ") == 5
    assert out.count("DISPATCH_DIRECT(dim_x=64, dim_y=1, dim_z=1, dispatch_initiator=") == 4
    assert "SDMA ring at 0x" in out
    assert "           " not in out.split("COPY_LINEAR(count=511, ")[0].splitlines()[-1]
    assert "not at hand" not in out
    assert "opcode" not in out
    assert decode.main([str(tmp_path / "run.rec"), "--calls", "--submission", "9"]) == 0
    out = capsys.readouterr().out
    assert "submission" not in out
    assert "AMDKFD_IOC_CREATE_QUEUE(ring_base_address=0x" in out


def test_a_recording_of_several_dies_is_printed_through_its_vendor_packets(
    record, tmp_path, capsys
):
    record(add_and_copy, "gfx942")
    assert decode.main([str(tmp_path / "run.rec"), "--submission", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("submission 1: AQL ring at 0x")
    assert lines[1].startswith("   0  VENDOR_PM4_IB(barrier=1, ")
    assert lines[2].startswith("       0  INDIRECT_BUFFER(")
    assert any("PRED_EXEC(exec_count=" in line for line in lines)
    assert any("RELEASE_MEM(event_type=CACHE_FLUSH_AND_INV_TS_EVENT" in line for line in lines)
