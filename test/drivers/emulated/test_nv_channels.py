"""Channels of an NVIDIA board: entries, method headers, semaphores, copies, faults, QMDs."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import pytest

from drivers.emulated.engine import BadPacket
from drivers.emulated.nv.qmd import Qmd
from drivers.emulated.nv.status import Status
from drivers.emulated.simt.launch import ConstantBank
from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.nv_client import (
    COMPUTE,
    COPY,
    COPY_ENGINE,
    HOST,
    Buffer,
    Channel,
    Refused,
    Rm,
    copy,
    immediate,
    methods,
    semaphore,
    wait,
)

KIB, MIB = 1 << 10, 1 << 20
RELEASE, WIDE, TIMESTAMP, REDUCTION = 1, 1 << 24, 1 << 25, 6
MMU_FAULT, PBDMA, GR_EXCEPTION, CLASS_ERROR = 31, 32, 13, 69


@pytest.fixture
def rm(rm: Rm) -> Rm:
    """With a VA space."""
    rm.space()
    return rm


@pytest.fixture
def channel(rm: Rm) -> Channel:
    channel = Channel(rm)
    channel.schedule()
    return channel


def halves(address: int) -> tuple[int, int]:
    return address >> 32, address & 0xFFFFFFFF


def inline_data(target: int, content: bytes) -> list[int]:
    """Inline-to-memory of the compute class."""
    words = struct.unpack(f"<{-(-len(content) // 4)}I", content + bytes(-len(content) % 4))
    return [
        *methods(COMPUTE, 0x180, len(content), 1, *halves(target)),
        *methods(COMPUTE, 0x1B0, 0x41, *words, operation=5),
    ]


def died(channel: Channel, code: int) -> str:
    """Waits for the error notifier; returns what the board says."""
    wait(channel.error)
    assert channel.error() == 0xFFFF and channel.error_code() == code, channel.rm.system.log()
    assert ctypes.c_uint64.from_address(channel.notifier_addr).value > 0
    return channel.rm.system.log()[-1]


# Entries and the doorbell.


def test_nothing_runs_without_the_doorbell(rm: Rm, channel: Channel) -> None:
    target = rm.buffer(MIB)
    channel.submit(semaphore(target.gpu_addr, 7, RELEASE), ring=False)
    other = Channel(rm, COPY_ENGINE)
    for _ in range(3):  # the board had time to look
        rm.control(rm.sub, 0x20801701, rm.make("NV2080_CTRL_MC_GET_ARCH_INFO_PARAMS"))
    ctypes.c_uint32.from_address(rm.doorbell).value = 0x1234  # no channel's token
    wait(lambda: any("0x1234" in line for line in rm.system.log()))
    assert target.word() == 0
    channel.ring_doorbell()
    wait(lambda: target.word() == 7)
    assert not other.error()


def test_a_channel_that_is_not_scheduled_waits(rm: Rm) -> None:
    channel = Channel(rm)
    target = rm.buffer(MIB)
    channel.submit(semaphore(target.gpu_addr, 1, RELEASE))
    ready = Channel(rm, COPY_ENGINE)
    ready.schedule()
    assert target.word() == 0
    channel.schedule()
    assert target.word() == 1  # in order, before what schedule() submits


def test_a_graphics_channel_must_be_registered_with_uvm_first(rm: Rm) -> None:
    channel = Channel(rm, register=False)
    with pytest.raises(Refused) as raised:
        channel.schedule()
    assert raised.value.status == Status.INVALID_STATE
    channel.register()
    channel.schedule()
    Channel(rm, COPY_ENGINE, register=False).schedule()


def test_the_ring_wraps_and_gp_get_follows(rm: Rm, channel: Channel) -> None:
    target = rm.buffer(MIB)
    for value in range(150):
        channel.used = 0
        channel.run(semaphore(target.gpu_addr, value, RELEASE))
    assert target.word() == 149
    assert ctypes.c_uint32.from_address(channel.userd_addr + 0x88).value == channel.put


def test_every_method_header_is_understood(rm: Rm, channel: Channel) -> None:
    target = rm.buffer(MIB)
    address = target.gpu_addr
    channel.run([
        *methods(HOST, 0x5C, address & 0xFFFFFFFF, address >> 32, 11),  # incrementing
        *immediate(HOST, 0x6C, RELEASE),
        0,  # a word of padding
        *methods(HOST, 0x5C, 4, 8, address + 16 & 0xFFFFFFFF, operation=3),  # the last counts
        *methods(HOST, 0x64, 22), *methods(HOST, 0x6C, RELEASE),
        *inline_data(address + 32, b"increment once, then the same again"),
    ])
    assert (target.word(), target.word(16)) == (11, 22)
    assert target.read(35, 32) == b"increment once, then the same again"
    channel.submit([
        *semaphore(address + 96, 33, RELEASE), 7 << 29, 0xDEAD0000,  # behind the segment's end
    ])
    wait(lambda: target.word(96) == 33)
    channel.run([])


@pytest.mark.parametrize(("words", "text"), [
    ([6 << 29 | 1 << 16, 0], "operation 6"),
    ([1 << 29 | 5 << 16 | 0x5C >> 2, 0], "5 words, 1 are left"),
    (immediate(7, 0x300, 1), "no object"),
    (immediate(HOST, 0xF0, 1), "0xf0"),
    (methods(HOST, 0x6C, 7), "operation 7"),
    (methods(HOST, 0x04, 0), "ILLEGAL"),
    (methods(HOST, 0x78, 6), "reserved bits"),
])
def test_what_the_host_does_not_know_kills_the_channel(
    rm: Rm, channel: Channel, words: list[int], text: str
) -> None:
    channel.submit(words)
    assert text in died(channel, PBDMA)


def test_gp_put_beyond_the_ring_kills_the_channel(rm: Rm, channel: Channel) -> None:
    ctypes.c_uint32.from_address(channel.userd_addr + 0x8C).value = 64
    channel.ring_doorbell()
    assert "64 entries" in died(channel, PBDMA)


# Semaphores.


def test_releases_of_each_size(rm: Rm, channel: Channel) -> None:
    target = rm.buffer(MIB)
    target.write(b"\xff" * 64)
    address, value = target.gpu_addr, 0x1122334455667788
    channel.run([
        *semaphore(address, value, RELEASE), *semaphore(address + 16, value, RELEASE | WIDE),
        *semaphore(address + 32, 5, RELEASE | TIMESTAMP),
        *semaphore(address + 48, value, RELEASE | WIDE | TIMESTAMP),
    ])
    assert target.read(16) == bytes.fromhex("88776655") + b"\xff" * 12
    assert target.read(16, 16) == value.to_bytes(8, "little") + b"\xff" * 8
    five, time_1 = struct.unpack("<QQ", target.read(16, 32))
    wide, time_2 = struct.unpack("<QQ", target.read(16, 48))
    assert (five, wide) == (5, value) and 0 < time_1 <= time_2
    channel.submit(semaphore(address + 8, 5, RELEASE | TIMESTAMP))  # not aligned to 16
    assert "semaphore of 16 bytes" in died(channel, PBDMA)


@pytest.mark.parametrize(("operation", "payload", "before", "after"), [
    (0, 5, [4, 6], 5),  # ACQUIRE: equal
    (2, 5, [4, 0], 9),  # ACQ_STRICT_GEQ
    (3, 0xFFFFFFF0, [0xFFFFFFEF, 0x80000000], 3),  # ACQ_CIRC_GEQ: it has wrapped
    (4, 6, [1, 8], 2),  # ACQ_AND
    (5, 0xFFFFFFF0, [0xF, 0xFFFF000F], 0xFFFFFFF7),  # ACQ_NOR: a bit that neither has
])
def test_acquires_wait_as_they_say(
    rm: Rm, channel: Channel, operation: int, payload: int, before: list[int], after: int
) -> None:
    target = rm.buffer(MIB)
    other = Channel(rm, COPY_ENGINE)
    other.schedule()
    at = target.gpu_addr
    for value in before:
        target.write(struct.pack("<I", value))
        channel.submit([*semaphore(at, payload, operation), *semaphore(at + 16, 1, RELEASE)])
        other.run(semaphore(at + 32, value, RELEASE))  # the board is awake meanwhile
        assert target.word(16) == 0
        other.run(semaphore(at, after, RELEASE))  # another channel lets it go on
        wait(lambda: target.word(16) == 1)
        target.write(bytes(4), 16)


@pytest.mark.parametrize(("kind", "signed", "old", "payload", "new"), [
    (0, True, 5, 0xFFFFFFFF, 0xFFFFFFFF), (0, False, 5, 0xFFFFFFFF, 5),  # IMIN
    (1, True, 5, 0xFFFFFFFF, 5), (2, False, 6, 3, 5), (3, False, 6, 3, 2), (4, False, 6, 3, 7),
    (5, False, 0xFFFFFFFF, 2, 1),  # IADD
    (6, False, 3, 3, 0), (6, False, 2, 3, 3),  # INC wraps at the payload
    (7, False, 0, 3, 3), (7, False, 2, 3, 1),  # DEC
])
def test_reductions(
    rm: Rm, channel: Channel, kind: int, signed: bool, old: int, payload: int, new: int
) -> None:
    target = rm.buffer(MIB)
    target.write(struct.pack("<I", old))
    execute = REDUCTION | kind << 27 | (0 if signed else 1 << 31)
    channel.run(semaphore(target.gpu_addr, payload, execute))
    assert target.word() == new


def test_a_report_semaphore_of_the_compute_class(rm: Rm, channel: Channel) -> None:
    target = rm.buffer(MIB)
    channel.run(methods(COMPUTE, 0x1B00, *halves(target.gpu_addr), 77, 0))  # four words
    assert target.word() == 77 and struct.unpack("<Q", target.read(8, 8))[0] > 0
    channel.run(methods(COMPUTE, 0x1B00, *halves(target.gpu_addr + 32), 78, 1 << 28))
    assert target.read(16, 32) == struct.pack("<IIII", 78, 0, 0, 0)


# Copies.


def test_a_copy_of_lines_with_pitches(rm: Rm, channel: Channel) -> None:
    source, target = rm.buffer(MIB), rm.buffer(MIB, video=False)
    source.write(bytes(range(256)) * 16)
    channel.run([
        *methods(COPY, 0x400, *halves(source.gpu_addr), *halves(target.gpu_addr), 256, 100, 60, 5),
        *methods(COPY, 0x300, 0x382),
    ])
    for line in range(5):
        assert target.read(100, 100 * line) == bytes(range(60)) + bytes(40)


def test_the_copy_engine_releases_its_own_semaphore(rm: Rm) -> None:
    channel = Channel(rm, COPY_ENGINE)
    channel.schedule()
    source, target = rm.buffer(MIB), rm.buffer(MIB)
    source.write(b"payload")
    at = target.gpu_addr + 4096
    channel.run([
        *methods(COPY, 0x240, *halves(at), 99),
        *copy(source.gpu_addr, target.gpu_addr, 7, 0x182 | 2 << 3),
        *methods(COPY, 0x240, *halves(at + 32), 0xFFFFFFFF, 1), *methods(COPY, 0x300, 8 | 1 << 27),
    ])
    assert target.read(7) == b"payload"
    assert target.word(4096) == 99 and struct.unpack("<Q", target.read(8, 4104))[0] > 0
    assert struct.unpack("<Q", target.read(8, 4128))[0] == 0x1FFFFFFFF


def test_remapping_fills_and_moves_components(rm: Rm, channel: Channel) -> None:
    source, target = rm.buffer(MIB), rm.buffer(MIB)
    fill = 4 | 6 << 4 | 6 << 8 | 6 << 12 | 3 << 16  # CONST_A to x, 4 bytes, one component
    channel.run([
        *methods(COPY, 0x700, 0xAABBCCDD, 0, fill),
        *methods(COPY, 0x408, *halves(target.gpu_addr)), *methods(COPY, 0x418, 10),
        *methods(COPY, 0x300, 0x582),
    ])
    assert target.read(44) == bytes.fromhex("ddccbbaa") * 10 + bytes(4)
    source.write(struct.pack("<8H", *range(1, 9)))
    swap = 1 | 0 << 4 | 5 << 8 | 6 << 12 | 1 << 16 | 1 << 20 | 3 << 24  # y, x, CONST_B, nothing
    target.write(b"\xee" * 64)
    channel.run([
        *methods(COPY, 0x700, 0, 0x55, swap),
        *methods(COPY, 0x400, *halves(source.gpu_addr), *halves(target.gpu_addr)),
        *methods(COPY, 0x418, 2), *methods(COPY, 0x300, 0x582),
    ])
    assert struct.unpack("<8H", target.read(16)) == (2, 1, 0x55, 0xEEEE, 4, 3, 0x55, 0xEEEE)


def test_what_a_copy_engine_cannot_do_is_its_error(rm: Rm, channel: Channel) -> None:
    source = rm.buffer(MIB)
    channel.submit(copy(source.gpu_addr, source.gpu_addr + 4096, 16, 0x102))
    assert "block-linear" in died(channel, rm.nv.ROBUST_CHANNEL_CE0_ERROR)


# Faults.


def unmapped(source: Buffer) -> int:
    return source.gpu_addr + 0x40_0000_0000


@pytest.mark.parametrize(("words", "access"), [
    (lambda good, bad: copy(bad, good, 16), "read"),
    (lambda good, bad: copy(good, bad, 16), "write"),
    (lambda good, bad: semaphore(bad, 1, RELEASE), "write"),
    (lambda good, bad: semaphore(bad, 1, 0), "read"),
    (lambda good, bad: inline_data(bad, b"data"), "write"),
])
def test_a_page_fault_kills_the_group_and_fills_the_notifier(
    rm: Rm, channel: Channel, words: Callable[[int, int], list[int]], access: str
) -> None:
    good = rm.buffer(MIB)
    bad = unmapped(good)
    other = Channel(rm)
    other.schedule()
    debugger = rm.alloc(rm.dev, 0, rm.nv.GT200_DEBUGGER, rm.make(
        "NV83DE_ALLOC_PARAMETERS", hAppClient=rm.root, hClass3dObject=channel.compute
    ))
    channel.submit([*words(good.gpu_addr, bad), *semaphore(good.gpu_addr + 64, 9, RELEASE)])
    said = died(channel, MMU_FAULT)
    assert f"{access} of {bad:#x}" in said and "Xid 31" in said
    assert good.word(64) == 0
    info = rm.make("NV83DE_CTRL_DEBUG_READ_MMU_FAULT_INFO_PARAMS")
    rm.control(debugger, rm.nv.NV83DE_CTRL_CMD_DEBUG_READ_MMU_FAULT_INFO, info)
    assert info.count == 1 and info.mmuFaultInfoList[0].faultAddress == bad
    assert info.mmuFaultInfoList[0].accessType == (access == "write")
    channel.submit(semaphore(good.gpu_addr + 64, 9, RELEASE))  # it is dead
    other.run(semaphore(good.gpu_addr + 128, 4, RELEASE))  # others live
    assert good.word(64) == 0 and good.word(128) == 4
    with pytest.raises(Refused) as raised:
        channel.schedule()
    assert raised.value.status == Status.INVALID_STATE


def test_all_channels_of_a_group_die_together(rm: Rm, channel: Channel) -> None:
    other = Channel(rm, group=channel.group)
    other.schedule()
    target = rm.buffer(MIB)
    other.submit([*semaphore(target.gpu_addr, 5, 0), *semaphore(target.gpu_addr + 16, 1, RELEASE)])
    channel.submit(semaphore(unmapped(target), 1, RELEASE))
    died(channel, MMU_FAULT)
    died(other, MMU_FAULT)
    target.write(struct.pack("<I", 5))  # what the other one waits for
    alive = Channel(rm)
    alive.schedule()
    for value in range(20):  # the board has time to make the mistake
        alive.run(semaphore(target.gpu_addr + 32, value, RELEASE))
    assert target.word(16) == 0


def test_memory_that_is_mapped_to_be_read_is_not_written(rm: Rm, channel: Channel) -> None:
    source, target = rm.buffer(MIB, kind=3), rm.buffer(MIB)
    source.write(b"fixed")
    channel.run(copy(source.gpu_addr, target.gpu_addr, 5))
    assert target.read(5) == b"fixed"
    channel.submit(copy(target.gpu_addr, source.gpu_addr, 5))
    assert "protection" in died(channel, MMU_FAULT)


def test_a_new_group_works_after_an_error(rm: Rm, channel: Channel) -> None:
    target = rm.buffer(MIB)
    channel.submit(semaphore(unmapped(target), 1, RELEASE))
    died(channel, MMU_FAULT)
    rm.free(channel.group)
    fresh = Channel(rm)
    fresh.schedule()
    fresh.run(semaphore(target.gpu_addr, 3, RELEASE))
    assert target.word() == 3


def test_set_object_wants_an_object_of_the_channel(rm: Rm) -> None:
    channel = Channel(rm, COPY_ENGINE)
    channel.schedule()
    channel.submit(methods(COMPUTE, 0, rm.compute_class))
    assert "class 0xcbc0" in died(channel, CLASS_ERROR)
    with pytest.raises(Refused) as raised:
        rm.alloc(Channel(rm, COPY_ENGINE).handle, 0, rm.compute_class)
    assert raised.value.status == Status.INVALID_CLASS


# Several channels, several GPUs.


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_orders_two_channels_and_a_missing_wait_shows(seed: int) -> None:
    system = EmulatedSystem("sm_90", seed=seed)
    rm = Rm(system)
    try:
        rm.device()
        rm.space()
        first, second = Channel(rm), Channel(rm, COPY_ENGINE)
        first.schedule()
        second.schedule()
        source, middle, target = rm.buffer(MIB), rm.buffer(MIB), rm.buffer(MIB)
        source.write(b"new")
        middle.write(b"old")
        first.submit(copy(source.gpu_addr, middle.gpu_addr, 3))
        second.submit(copy(middle.gpu_addr, target.gpu_addr, 3))  # does not wait for the first
        first.run([])
        second.run([])
        assert target.read(3) == (b"new", b"old")[seed]
        assert any("LAUNCH_DMA" in line for line in system.schedule())
    finally:
        rm.close()
        system.shut_down()


def test_peers_copy_once_they_are_enabled() -> None:
    system = EmulatedSystem("sm_90*2")
    one, other = Rm(system), Rm(system, index=1)
    try:
        for rm in (one, other):
            rm.device()
        one.space()
        far = other.memory(MIB)
        view = other.map(far, MIB)
        base = 0x30_0000_0000
        one.uvm("CREATE_EXTERNAL_RANGE", base=base, length=MIB)

        def show() -> None:
            one_args = one.make(
                "UVM_MAP_EXTERNAL_ALLOCATION_PARAMS", base=base, length=MIB, gpuAttributesCount=1,
                rmCtrlFd=other.control_fd, hClient=other.root, hMemory=far,
            )
            one_args.perGpuAttributes[0].gpuUuid = one.uuid_field()
            system.ioctl(
                one.uvm_fd, one.nv.UVM_MAP_EXTERNAL_ALLOCATION, ctypes.addressof(one_args)
            )
            if one_args.rmStatus:
                raise Refused(one_args.rmStatus, "map")

        with pytest.raises(Refused) as raised:
            show()
        assert raised.value.status == Status.INVALID_DEVICE
        one.uvm("REGISTER_GPU", gpu_uuid=other.uuid_field())
        with pytest.raises(Refused):
            show()
        one.uvm("ENABLE_PEER_ACCESS", gpuUuidA=one.uuid_field(), gpuUuidB=other.uuid_field())
        show()
        channel = Channel(one)
        channel.schedule()
        near = one.buffer(MIB)
        near.write(b"across")
        channel.run(copy(near.gpu_addr, base, 6))
        assert ctypes.string_at(view, 6) == b"across"
    finally:
        one.close()
        other.close()
        system.shut_down()


# QMDs.

# Where fields lie: facts of the class headers (clc7c0qmd.h, clcbc0qmd.h, clcdc0qmd.h).
PLACES = {
    (3, 0): {
        "major": (580, 4), "minor": (576, 4), "grid": ((384, 32), (416, 16), (448, 16)),
        "block": ((592, 16), (608, 16), (624, 16)), "registers": (648, 9), "barriers": (763, 5),
        "shared": (544, 18), "max_shared": (569, 6), "low": (736, 24), "entry": (1536, 49),
        "valid": (640, 1, 1), "bank": (1024, 49, 64), "bank_size": (1075, 13, 64),
        "release": (823, 1, 128), "address": (768, 40, 128), "payload": (832, 32, 128),
        "structure": (830, 2, 128),
    },
    (4, 0): {
        "major": (580, 4), "minor": (576, 4), "type": (23, 3),
        "grid": ((1024, 32), (1056, 16), (1088, 16)),
        "block": ((1152, 16), (1168, 16), (1184, 16)), "registers": (1200, 9),
        "barriers": (1211, 5), "shared": (584, 18), "max_shared": (614, 6), "low": (512, 24),
        "entry": (1216, 57), "valid": (416, 1, 4), "bank": (1536, 51, 64),
        "bank_size": (1587, 13, 64), "release": (320, 1, 16), "structure": (321, 2, 16),
        "address": (640, 57, 128), "payload": (704, 32, 128),
    },
    (5, 0): {
        "major": (468, 4), "minor": (464, 4), "type": (151, 3),
        "grid": ((1248, 32), (1280, 16), (1312, 16)),
        "block": ((1088, 16), (1104, 16), (1120, 8)), "registers": (1128, 9),
        "barriers": (1137, 5), "shared": (1152, 11), "max_shared": (1169, 6), "low": (1184, 16),
        "entry": (1024, 53), "valid": (1856, 1, 4), "bank": (1344, 51, 64),
        "bank_size": (1395, 13, 64), "release": (288, 1, 16), "structure": (289, 2, 16),
        "address": (480, 57, 0), "payload": (544, 32, 0),
    },
}
ENTRY_ADDRESS, BANK_ADDRESS, SEMAPHORE_ADDRESS = 0x12_3456_7800, 0x23_4567_89C0, 0x34_5678_9AB0


def build(version: tuple[int, int], entry: int, bank: int, address: int) -> bytes:
    """A QMD: grid 70000 × 3 × 2, block 32 × 4 × 2, two constant banks, one semaphore."""
    bits, places = 0, PLACES[version]

    def put(name: str, value: int, index: int = 0) -> None:
        nonlocal bits
        if name in places:
            first, width, *stride = places[name]
            assert value >> width == 0, name
            bits |= value << first + index * (stride[0] if stride else 0)

    major, minor = version
    put("major", major)
    put("minor", minor)
    put("type", 2)
    for place, size in zip(places["grid"], (70000, 3, 2), strict=True):
        bits |= size << place[0]
    for place, size in zip(places["block"], (32, 4, 2), strict=True):
        bits |= size << place[0]
    put("registers", 40)
    put("barriers", 2)
    put("shared", 0x1400 >> (7 if major == 5 else 0))
    put("max_shared", 9)
    put("low", 0x40 >> (4 if major == 5 else 0))
    put("entry", entry >> (4 if major == 5 else 0))
    for index in (0, 3):
        put("valid", 1, index)
        put("bank", bank + 0x1000 * index >> (6 if major > 3 else 0), index)
        put("bank_size", 0x400 >> 4, index)
    if address:
        put("release", 1)
        put("structure", 1)
        put("address", address)
        put("payload", 1234)
    return bits.to_bytes(384 if major > 3 else 256, "little")


@pytest.mark.parametrize("version", list(PLACES))
def test_a_qmd_is_read_by_its_version(version: tuple[int, int]) -> None:
    content = build(version, ENTRY_ADDRESS, BANK_ADDRESS, SEMAPHORE_ADDRESS)
    qmd = Qmd(content, ((2, 3), version))
    assert qmd.version == version
    assert (qmd.grid, qmd.block) == ((70000, 3, 2), (32, 4, 2))
    assert qmd.address("PROGRAM_ADDRESS") == ENTRY_ADDRESS
    assert qmd.scaled("SHARED_MEMORY_SIZE") == 0x1400 and qmd.local_bytes == 0x40
    assert qmd.banks() == {
        0: ConstantBank(BANK_ADDRESS, 0x400), 3: ConstantBank(BANK_ADDRESS + 0x3000, 0x400)
    }
    (release,) = qmd.releases
    assert (release.address, release.payload, release.timestamp) == (SEMAPHORE_ADDRESS, 1234, False)
    assert qmd.dependents == []
    with pytest.raises(BadPacket, match="none of the versions"):
        Qmd(content, ((2, 3),))


def launch(rm: Rm, channel: Channel, qmd: bytes) -> None:
    place = rm.buffer(MIB)
    place.write(qmd)
    channel.submit([
        *methods(COMPUTE, 0x2B4, place.gpu_addr >> 8), *immediate(COMPUTE, 0x2C0, 9),
    ])


@pytest.mark.parametrize("version", [(3, 0), (4, 0)])
def test_hopper_takes_both_versions_and_code_must_be_mapped(
    rm: Rm, channel: Channel, version: tuple[int, int]
) -> None:
    launch(rm, channel, build(version, ENTRY_ADDRESS, BANK_ADDRESS, 0))
    assert f"execute of {ENTRY_ADDRESS:#x}" in died(channel, MMU_FAULT)


GRID_NULL = 1  # QMD_TYPE: nothing runs, but its end does what it says


def null_grid(address: int, payload: int, next_qmd: int = 0) -> bytes:
    """A V4 QMD without a grid: it releases 8 bytes, and schedules the next one."""
    bits = int.from_bytes(build((4, 0), 0, 0, address), "little")
    bits &= ~(7 << 23 | 0xFFFFFFFF << 704)
    bits |= GRID_NULL << 23 | 1 << 332 | (payload & 0xFFFFFFFF) << 704 | payload >> 32 << 736
    if next_qmd:
        bits |= 1 << 368 | 1 << 369 | next_qmd >> 8 << 448
    return bits.to_bytes(384, "little")


def test_a_qmd_releases_at_its_end_and_schedules_the_next(rm: Rm, channel: Channel) -> None:
    target, second = rm.buffer(MIB), rm.buffer(MIB)
    second.write(null_grid(target.gpu_addr + 8, 0x2_0000_0002))
    launch(rm, channel, null_grid(target.gpu_addr, 0x1_0000_0001, second.gpu_addr))
    channel.run([])
    assert struct.unpack("<QQ", target.read(16)) == (0x1_0000_0001, 0x2_0000_0002)


@pytest.mark.parametrize(("seed", "waits", "seen"), [(0, False, 1), (1, False, 0), (1, True, 1)])
def test_a_copy_behind_a_launch_must_wait_for_it(seed: int, waits: bool, seen: int) -> None:
    system = EmulatedSystem("sm_90", seed=seed)
    rm = Rm(system)
    try:
        rm.device()
        rm.space()
        channel = Channel(rm)
        channel.schedule()
        place, flag, target = rm.buffer(MIB), rm.buffer(MIB), rm.buffer(MIB)
        place.write(null_grid(flag.gpu_addr, 1))
        channel.run([
            *methods(COMPUTE, 0x2B4, place.gpu_addr >> 8), *immediate(COMPUTE, 0x2C0, 9),
            *(immediate(COMPUTE, 0x110, 0) if waits else ()),  # WAIT_FOR_IDLE
            *copy(flag.gpu_addr, target.gpu_addr, 8),
        ])
        assert (flag.word(), target.word()) == (1, seen)
    finally:
        rm.close()
        system.shut_down()


def test_a_qmd_that_asks_too_much_is_an_exception(rm: Rm, channel: Channel) -> None:
    memory = rm.buffer(MIB)
    content = bytearray(build((4, 0), memory.gpu_addr, memory.gpu_addr + 0x4000, 0))
    content[1152 // 8 : 1154 // 8] = (2048).to_bytes(2, "little")
    launch(rm, channel, bytes(content))
    assert "1 to 1024" in died(channel, GR_EXCEPTION)


def test_local_memory_must_be_allotted(rm: Rm, channel: Channel) -> None:
    memory = rm.buffer(MIB)
    launch(rm, channel, build((4, 0), memory.gpu_addr, memory.gpu_addr + 0x4000, 0))
    assert "local memory: 0 bytes" in died(channel, GR_EXCEPTION)
