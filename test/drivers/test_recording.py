"""Recordings of the system boundary: the file, and its replay on a fresh emulated board."""

from __future__ import annotations

import ctypes
import gc
import io
import mmap
import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autogen import kfd
from drivers import open_device
from drivers.amd.process import process_of
from drivers.emulated.system import EmulatedSystem
from drivers.errors import DeviceFault, HardwareError, MalformedInput, SystemCallFailed
from drivers.memory import Buffer
from drivers.recorder import Recorder
from drivers.recording import (
    FORMS,
    Array,
    Close,
    Ioctl,
    Kick,
    Mmap,
    Munmap,
    Open,
    Results,
    Start,
    Writer,
    Writes,
    in_pieces,
    read_records,
)
from drivers.replayer import Replayer
from test.drivers import kernels

# ---- the file ----

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FIELDS = {
    "i": st.integers(-(2**31), 2**31 - 1), "I": U32, "Q": U64, "t": st.text(max_size=20),
    "b": st.binary(max_size=40),
    "r": st.lists(st.tuples(U64, st.binary(max_size=70)), max_size=3).map(tuple),
    "a": st.lists(
        st.builds(Array, U32, U64, st.binary(max_size=9), st.binary(max_size=9)), max_size=2
    ).map(tuple),
}
RECORDS = st.one_of(
    st.tuples(*(FIELDS[letter] for letter in form)).map(lambda values, kind=kind: kind(*values))
    for kind, form in FORMS.items() if kind is not Start
)


def written(records) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, "kfd", "gfx1100")
    for record in records:
        writer.put(record)
    writer.flush()
    return file.getvalue()


@given(st.lists(RECORDS, max_size=6))
def test_what_is_written_is_read(records):
    assert list(read_records(io.BytesIO(written(records)))) == [Start("kfd", "gfx1100"), *records]


def test_a_file_that_ends_early_is_read_up_to_there_and_others_are_refused():
    whole = written([Close(number, 0) for number in range(100)])
    assert len(list(read_records(io.BytesIO(whole)))) == 101
    for wrong, message in [
        (b"", "does not begin as one"),
        (b"#!/bin/sh\n" + whole, "does not begin as one"),
        (whole[:8] + b"\xff" + whole[9:], "is of version 255"),
        (whole[:12], "is empty"),
        (whole[:40] + bytes([whole[40] ^ 0xFF]) + whole[41:], "damaged|record"),
        (whole[:12] + zlib.compress(b"\x02\xff\xff\xff\xff" * 2), "are the most"),
        (whole[:12] + zlib.compress(b"\x4d\x00\x00\x00\x00"), "unknown kind, 77"),
        (whole[:12] + zlib.compress(b"\x03\x08\x00\x00\x00" + bytes(8)), "Close for its record 0"),
        (whole[:12] + zlib.compress(b"\x03\x04\x00\x00\x00" + bytes(4)), "shorter than its fields"),
        (whole[:12] + zlib.compress(b"\x03\x09\x00\x00\x00" + bytes(9)), "longer than its fields"),
    ]:
        with pytest.raises(MalformedInput, match=message):
            list(read_records(io.BytesIO(wrong)))


def test_large_contents_are_cut_into_records():
    content = random.Random(1).randbytes(20 << 20)
    pieces = list(in_pieces([(4096, content), (1 << 40, b"end")]))
    assert len(pieces) == 3
    assert b"".join(run for piece in pieces for address, run in piece if address < 1 << 40) == \
        content


# ---- replays ----


@pytest.fixture
def record(tmp_path):
    """Runs a program on a board of its own, recorded; gives the records."""

    def run(program, board: str = "gfx1100", **options) -> list:
        system = EmulatedSystem(board)
        recorder = Recorder(system, str(tmp_path / "run.rec"), board=board, **options)
        try:
            with open_device("AMD", system=recorder, timeout_ms=20_000) as device:
                program(device)
        finally:
            del device
            gc.collect()  # errors hold frames, which hold buffers, whose memory a replay needs
            process_of(recorder).close()
            recorder.close_recording()
            system.shut_down()
        with open(tmp_path / "run.rec", "rb") as file:
            return list(read_records(file))

    return run


def replayed(records, board: str = "gfx1100", **options):
    system = EmulatedSystem(board)
    try:
        return Replayer(system, **options).play(records)
    finally:
        system.shut_down()


def zeros(device, count: int):
    buffer = device.alloc(8 * count)
    buffer.cpu_view()[:] = bytes(8 * count)
    return buffer


def add_and_copy(device) -> None:
    """A kernel, a copy by the other engine, then a list that runs three times."""
    first, second = zeros(device, 64), zeros(device, 64)
    first.cpu_view().cast("q")[:] = memoryview(bytes(range(64)) * 8).cast("q")
    program = device.load(kernels.add_number(device.target))
    compute, copy = device.compute_queue(), device.copy_queue()
    point = compute.commands().exec(program, (first, second, 3), (64, 1, 1)).submit()
    copy.commands().wait(point).copy(first, second).submit().wait()
    bound = compute.commands().exec(program, (second, second, 1), (64, 1, 1)).bind()
    for _ in range(3):
        bound.replay().wait()


@pytest.mark.parametrize("board", ["gfx1100", "gfx1030", "gfx1201", "gfx942"])
def test_kernels_and_copies_replay_with_equal_results(record, board):
    replay = replayed(record(add_and_copy, board), board)
    assert replay.same, "; ".join(map(str, replay.differences))
    assert replay.submissions == replay.finished == 5
    assert replay.result_bytes >= 5 * 64 * 8


def test_a_board_that_calculates_otherwise_is_found_out(record):
    records = record(add_and_copy)
    changed = []
    for each in records:
        if isinstance(each, Results) and any(len(content) >= 512 for _, content in each.runs):
            runs = tuple((at, bytes(len(content))) for at, content in each.runs)
            each = replace(each, runs=runs)
        changed.append(each)
    replay = replayed(changed, settle_s=0.01)
    assert not replay.stopped
    assert len(replay.differences) >= 5
    assert "bytes that the device wrote at 0x" in str(replay.differences[0])
    assert "contents of a file" in {
        each.what for each in replayed(records, "gfx1030", timeout_s=1.0, settle_s=0.01).differences
    }


def test_a_page_fault_replays_and_another_one_is_a_difference(record):
    def fault(device) -> None:
        data = zeros(device, 8)
        beyond = Buffer("AMD:0", data.storage, data.gpu_addr + (1 << 43), 4096)
        device.copy_queue().commands().copy(data, beyond, 64).submit()
        with pytest.raises(DeviceFault):
            device.synchronize()

    records = record(fault, settle_s=0.3)
    replay = replayed(records)
    assert replay.same, "; ".join(map(str, replay.differences))
    assert replay.finished == 0
    for i, each in enumerate(records):
        if isinstance(each, Ioctl) and each.request == kfd.AMDKFD_IOC_WAIT_EVENTS:
            array = each.arrays[0]
            events = (kfd.struct_kfd_event_data * 3).from_buffer(bytearray(array.after))
            events[1].memory_exception_data.va += 4096  # the driver's second event
            records[i] = replace(each, arrays=(array._replace(after=bytes(events)),))
    (difference,) = replayed(records).differences
    assert difference.what == "faults"
    assert "a memory exception at 0x" in difference.recorded
    assert "(NotPresent)" in difference.replayed


def test_a_submission_that_waits_for_the_host_replays(record):
    def gated(device) -> None:
        memory, gate = zeros(device, 1), device.timeline("gate")
        point = device.compute_queue().commands().wait(gate.point(3)).write(memory, 7).submit()
        gate.signal(3)
        point.wait()
        assert memory.cpu_view().cast("q")[0] == 7

    replay = replayed(record(gated, settle_s=0.2))
    assert replay.same, "; ".join(map(str, replay.differences))
    assert replay.finished == 1


def test_memory_that_a_replay_could_not_place_is_not_pinned(record):
    def pin(device) -> None:
        memory = mmap.mmap(-1, 8192, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        with pytest.raises(SystemCallFailed, match="EPERM"):
            device.host_buffer(address, len(memory), memory)
        add_and_copy(device)

    assert replayed(record(pin)).same


def test_a_recording_that_would_do_harm_is_refused(record):
    """Nothing but what the recording itself has opened and mapped is touched."""
    here, board = bytearray(4096), EmulatedSystem("gfx1100")
    start = Start("kfd", "gfx1100")
    opened = Open(5, 0, 2, "/dev/kfd")
    address = 0x2000_0000_0000
    mapped = Mmap(-1, 0, 0, 3, 0x22, 4096, 0, address)
    for wrong, message in [
        ([Start("smbus", "")], "no interface 'smbus'"),
        ([start, Open(5, 0, 2, "/etc/passwd")], "no node or file"),
        ([start, Open(5, 0, 2, "/dev/kfd\0x")], "no node or file"),
        ([start, opened, opened], "twice"),
        ([start, Close(3, 0)], "descriptor 3, which it has not opened"),
        ([start, Writes(((address, bytes(here)),))], "no memory of a device"),
        ([start, mapped, Writes(((address, bytes(here)),))], "no memory of a device"),
        ([start, Results(address, 1, ())], "no memory of a device"),
        ([start, Kick(0, 1, 0, 1, address, 1, 0, 0)], "which is none"),
        ([start, Munmap(0, address, 4096)], "not mapped"),
        ([start, Mmap(-1, 0, 0, 3, 0x32, 4096, 0, address)], "which it has not mapped"),
        ([start, Mmap(-1, 0, 0, 3, 0x22, 1 << 50, 0, address)], "maps"),
        ([start, opened, Ioctl(5, 0, kfd.AMDKFD_IOC_GET_VERSION, b"", b"", ())], "0 bytes"),
        ([start, opened, Ioctl(5, 0, kfd.AMDKFD_IOC_MAP_MEMORY_TO_GPU,
                               (bytes(16) + b"\1").ljust(24, b"\0"), bytes(24), ())], "arrays"),
    ]:
        with pytest.raises(MalformedInput, match=message):
            pytest.fail(f"{message}: {Replayer(board).play(wrong)}")
    board.shut_down()
    assert not any(here)
    records = record(add_and_copy)
    rng = random.Random(2)
    for _ in range(8):
        mutated = list(records)
        at = rng.randrange(1, len(mutated))
        mutated[at : at + rng.randrange(1, 3)] = rng.sample(records, rng.randrange(3))
        try:
            replayed(mutated, timeout_s=0.05, settle_s=0.01)
        except HardwareError:
            continue
