"""Opening a GPU, its memory and queues, against a scripted kernel driver: every ioctl's bytes."""

from __future__ import annotations

import errno
import gc
import struct

import pytest

from autogen import kfd
from drivers import open_device, probe
from drivers.amd import packets, process
from drivers.amd.generations import GENERATIONS
from drivers.amd.hardware import save_area
from drivers.amd.topology import NODES, find_gpus
from drivers.emulated.system import EmulatedSystem
from drivers.errors import (
    BarTooSmall,
    DeviceFault,
    DeviceHang,
    DeviceNotAvailable,
    FirmwareRejected,
    MalformedInput,
    NodeNotAccessible,
    OutOfDeviceMemory,
    SystemCallFailed,
    UnknownAbi,
    UnsupportedGpu,
)
from drivers.nodes import permission_advice
from drivers.timeline import memory_view
from test.drivers import kernels
from test.drivers.amd.scripted import GPU_ID, ScriptedSystem


@pytest.fixture
def system():
    return ScriptedSystem()


def words_at(address: int, count: int) -> list[int]:
    return list(struct.unpack(f"<{count}I", memory_view(address, 4 * count)))


def test_opening_asks_in_order(system):
    with open_device("AMD", system=system):
        assert system.names() == [
            "GET_VERSION", "ACQUIRE_VM", "RUNTIME_ENABLE", "GET_CLOCK_COUNTERS",
            "ALLOC_MEMORY_OF_GPU", "MAP_MEMORY_TO_GPU",
            "CREATE_EVENT", "CREATE_EVENT", "CREATE_EVENT",
        ]
        assert system.argument("ACQUIRE_VM").gpu_id == GPU_ID
        page = system.argument("ALLOC_MEMORY_OF_GPU")
        assert page.size == 0x8000
        # GTT, writable, executable, no substitute, coherent, uncached (kfd_ioctl.h).
        assert page.flags == 0xD6000002
        events = [system.argument("CREATE_EVENT", i) for i in range(3)]
        assert [e.event_type for e in events] == [0, 8, 3]  # signal, memory, hardware exception
        assert [bool(e.event_page_offset) for e in events] == [True, False, False]
        assert [e.auto_reset for e in events] == [1, 0, 0]
    assert not system.events


def test_a_second_opening_uses_the_same_nodes_and_events_page(system):
    with open_device("AMD", system=system), open_device("AMD", system=system):
        pass
    with open_device("AMD", system=system):
        pass
    assert system.names().count("GET_VERSION") == system.names().count("ACQUIRE_VM") == 1
    pages = [system.argument("CREATE_EVENT", i).event_page_offset for i in range(9)]
    assert [bool(page) for page in pages] == [True] + [False] * 8


def test_a_buffer_is_vram_at_an_address_of_our_choice(system):
    with open_device("AMD", system=system) as device:
        before = len(system.calls)
        buffer = device.alloc(5 << 20)
        assert system.names()[before:] == ["ALLOC_MEMORY_OF_GPU", "MAP_MEMORY_TO_GPU"]
        given = system.argument("ALLOC_MEMORY_OF_GPU", -1)
        assert given.va_addr == buffer.gpu_addr == buffer.cpu_addr
        assert given.flags == 0xF0000001  # VRAM, public, writable, executable, no substitute
        buffer.cpu_view()[:] = b"x" * buffer.size_bytes
        del buffer
        device.trim()
        assert system.names()[before + 2 :] == ["UNMAP_MEMORY_FROM_GPU", "FREE_MEMORY_OF_GPU"]


def test_a_compute_queue_is_made_as_the_kernel_wants_it(system):
    with open_device("AMD", system=system) as device:
        queue = device.compute_queue(ring_records=64)
        given = system.argument("CREATE_QUEUE")
        assert (given.queue_type, given.queue_percentage, given.queue_priority) == (0, 100, 7)
        assert given.ring_size == 8192  # 64 entries of 20 dwords, the next power of two
        assert given.read_pointer_address == given.write_pointer_address + 64
        # kfd_queue.c for 96 compute units of gfx1100.
        assert given.ctl_stack_size == 0xA000
        assert given.ctx_save_restore_size == 0xA000 + 96 * 0x75000
        assert system.block_at(given.ctx_save_restore_address) == 0xA000 + 96 * (0x75000 + 1024)
        queue.close()
        assert not system.queues


def test_a_submission_is_an_entry_that_runs_a_list(system):
    with open_device("AMD", system=system) as device:
        queue, data = device.compute_queue(ring_records=64), device.alloc(64)
        queue.commands().write(data, 0x1122334455667788).submit()
        ring, state = queue.ring.ring, queue.ring
        entry = [p for _, p in packets.decode_stream(words_at(ring, 20))]
        indirect, value, interrupt = entry
        assert indirect.layout is packets.INDIRECT_BUFFER
        assert indirect.values["valid"] == 1
        assert value.values["address"] == queue.timeline.address
        assert (value.values["data"], value.values["data_sel"]) == (1, 2)
        event = device.interrupts
        assert interrupt.values["address"] == event.mailbox
        assert interrupt.values["data"] == interrupt.values["int_ctxid"] == event.event_id
        assert interrupt.values["int_sel"] == 2
        listed = words_at(indirect.values["address"], indirect.values["ib_size"])
        acquire, write = [p for _, p in packets.decode_stream(listed)]
        assert acquire.layout is device.generation.caches.acquire
        assert write.values["address"] == data.gpu_addr
        assert write.tail == (0x55667788, 0x11223344)
        assert memory_view(state.write_pointer, 8).cast("Q")[0] == 20
        assert memory_view(state.doorbell, 8).cast("Q")[0] == 20


def test_entries_straddle_the_rings_end_and_wait_for_room(system):
    with open_device("AMD", system=system, timeout_ms=50) as device:
        queue = device.compute_queue(ring_records=64)  # 2048 dwords: not a multiple of 20
        commands = queue.commands().barrier()
        timeline = memory_view(queue.timeline.address, 8).cast("Q")
        for turn in range(1, 300):
            point = commands.submit()
            assert point.value == turn
            timeline[0] = turn  # the scripted GPU is quick
        at = (20 * 298) % 2048
        ring = words_at(queue.ring.ring, 2048) * 2
        entry = [p for _, p in packets.decode_stream(ring[at : at + 20])]
        assert entry[1].values["data"] == 299
        assert 20 * 102 < 2048 < 20 * 103  # the 103rd straddles the end
        accepted = 0
        with pytest.raises(DeviceHang, match=r"made no room for new commands within 0\.05 s"):
            for _ in range(200):
                commands.submit()
                accepted += 1
        assert accepted == 64


def test_timelines_cross_32_bits_in_both_kinds_of_ring(system):
    with open_device("AMD", system=system) as device:
        start = (1 << 32) - 1
        queue = device.copy_queue(initial_value=start, ring_records=16)
        queue.commands().barrier().submit()
        words = words_at(queue.ring.ring, 32)
        sdma = device.generation.sdma
        fences = [p for _, p in sdma.decode_stream(words) if p.layout is sdma.fence]
        low, high = fences[:2]
        assert (low.values["addr"], low.values.get("data", 0)) == (queue.timeline.address, 0)
        assert (high.values["addr"], high.values["data"]) == (queue.timeline.address + 4, 1)
        assert [at for at, p in sdma.decode_stream(words) if p.layout is sdma.indirect] == [2]
        assert memory_view(queue.ring.write_pointer, 8).cast("Q")[0] == 128  # bytes


def test_memory_given_back_leaves_nothing(system):
    with open_device("AMD", system=system) as device:
        buffers = [device.alloc(size) for size in (64, 5000, 3 << 20)]
        queue = device.compute_queue()
        point = queue.commands().barrier().submit()
        memory_view(queue.timeline.address, 8).cast("Q")[0] = 1
        device.copy_queue()
        del buffers
    gc.collect()
    assert point.done  # a Point outlives its device
    assert len(system.handles) == len(system.mapped) == 1  # the page of events stays
    assert not system.queues and not system.events


NOT_PRESENT, READ_ONLY, NO_EXECUTE, IMPRECISE = "NotPresent", "ReadOnly", "NoExecute", "imprecise"


def faulting(system, at: int, *flags: str) -> None:
    """The next sleep hears of a page fault."""

    def faulted(given) -> None:
        events = (kfd.struct_kfd_event_data * 3).from_address(given.events_ptr)
        data = events[1].memory_exception_data
        data.gpu_id, data.va = GPU_ID, at
        for flag in flags:
            setattr(data.failure, flag, 1)
        given.wait_result = kfd.KFD_IOC_WAIT_RESULT_COMPLETE

    system.waited = faulted


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((NOT_PRESENT,), r"read {at} \(page not present\)"),
        ((NOT_PRESENT, READ_ONLY), r"wrote {at} \(page not present\)"),
        ((READ_ONLY,), r"wrote {at} \(read-only page\)"),
        ((NO_EXECUTE,), r"executed {at} \(page without code\)"),
        ((IMPRECISE,), r"accessed {at} \(reason not reported, imprecise\)"),
    ],
)  # fmt: skip
def test_a_page_fault_tells_what_its_flags_mean(system, flags, sentence):
    with open_device("AMD", system=system) as device:
        buffer = device.alloc(1 << 20)
        at = buffer.gpu_addr + (1 << 20) + 0x3000
        queue = device.compute_queue()
        point = queue.commands().barrier().submit()
        faulting(system, at, *flags)
        with pytest.raises(DeviceFault, match="AMD:0 " + sentence.format(at=f"{at:#x}")) as caught:
            point.wait(timeout_ms=5000)
        assert caught.value.code == "HW201"
        assert " bytes past memory for buffers (1.0 MiB at" in str(caught.value)
        with pytest.raises(DeviceFault):
            queue.commands().barrier().submit()


@pytest.mark.parametrize(
    ("offset", "place"),
    [
        (-8192, "8192 bytes before"), (0, "byte 0 of"), (4096, "0 bytes past"),
        (8192, "4096 bytes past"),
    ],
)  # fmt: skip
def test_a_page_fault_names_the_nearest_buffer_of_what_may_run(system, offset, place):
    with open_device("AMD", system=system) as device:
        arena = device.alloc(1 << 20)
        first, second = arena.view(0, 64), arena.view(1 << 19, 4096)
        program = device.load(kernels.add_number(device.target))
        queue = device.compute_queue()
        commands = queue.commands().exec(program, (first, second, 1), (1, 1, 1), ("t.py", 7))
        point = commands.exec(program, (first, first, 1), (1, 1, 1)).submit()
        queue.commands().exec(program, (second, second, 1), (1, 1, 1)).submit()  # waits its turn
        faulting(system, second.gpu_addr + offset, NOT_PRESENT)
        with pytest.raises(DeviceFault) as caught:
            point.wait(timeout_ms=5000)
        message = str(caught.value)
        assert (
            "in one of: kernel add_number, dispatch 1, made at t.py:7; "
            "kernel add_number, dispatch 2; "
        ) in message
        name = program.code.params[1].name
        assert f"; {place} buffer {name} of add_number (4.0 KiB at" in message


def test_a_reset_is_reported(system):
    with open_device("AMD", system=system) as device:
        def reset(given) -> None:
            events = (kfd.struct_kfd_event_data * 3).from_address(given.events_ptr)
            events[2].hw_exception_data.gpu_id = GPU_ID
            events[2].hw_exception_data.memory_lost = 1
            given.wait_result = kfd.KFD_IOC_WAIT_RESULT_COMPLETE

        point = device.compute_queue().commands().barrier().submit()
        system.waited = reset
        with pytest.raises(DeviceFault, match=r"was reset \(the whole GPU\) after a hang and its"):
            point.wait()


def test_a_hang_says_where_the_queue_stands(system):
    with open_device("AMD", system=system) as device:
        never = device.timeline("never")
        queue = device.compute_queue("training", initial_value=400)
        point = queue.commands().wait(never.point(9)).submit()
        with pytest.raises(DeviceHang) as caught:
            point.wait(timeout_ms=30)
        for part in ("queue training", "did not reach 401", "timeline 400 of 401",
                     "timeline never to reach 9 (it is at 0)", "read pointer", "write pointer",
                     "no fault recorded"):
            assert part in str(caught.value)


@pytest.mark.parametrize(
    ("node", "number", "kind", "sentence"),
    [
        ("/dev/kfd", errno.EACCES, NodeNotAccessible, r"Cannot open /dev/kfd \(EACCES\)"),
        ("/dev/kfd", errno.ENOENT, DeviceNotAvailable, "/dev/kfd does not exist; loaded"),
        ("/dev/dri/renderD128", errno.EACCES, NodeNotAccessible, r"/dev/dri/renderD128 \(EACCES"),
        ("/dev/kfd", errno.EMFILE, SystemCallFailed, "EMFILE"),
    ],
)  # fmt: skip
def test_a_node_that_does_not_open_says_what_to_do(system, node, number, kind, sentence):
    system.failures[node] = number
    with pytest.raises(kind, match=sentence) as caught:
        open_device("AMD", system=system)
    if kind is not SystemCallFailed:
        assert caught.value.code in ("HW101", "HW102")


def test_unknown_hardware_and_versions_are_refused():
    with pytest.raises(UnsupportedGpu, match="GPU 0 is gfx1036; supported: gfx90a, gfx942"):
        open_device("AMD", system=ScriptedSystem(gfx_target_version=100306))
    with pytest.raises(DeviceNotAvailable, match=r"AMD:1 is not there; .* GPUs are gfx1100"):
        open_device("AMD:1", system=ScriptedSystem())
    system = ScriptedSystem()
    system.version = (2, 0)
    with pytest.raises(UnknownAbi, match=r"speaks version 2\.0; this driver knows 1\.x"):
        open_device("AMD", system=system)


@pytest.mark.parametrize("name", ["fw_version", "sdma_fw_version"])
def test_a_gpu_without_firmware_is_refused_with_what_is_needed(name):
    with pytest.raises(FirmwareRejected, match=f"with {name} 0; .* needs 1 or later") as caught:
        open_device("AMD", system=ScriptedSystem(**{name: 0}))
    assert caught.value.code == "HW105"
    assert "Install linux-firmware" in str(caught.value)


@pytest.mark.parametrize("version", [(1, 8), (0, 99)])
def test_a_kernel_driver_that_is_too_old_is_named_with_what_is_needed(system, version):
    system.version = version
    seen = f"speaks version {version[0]}\\.{version[1]}; this driver (needs 1\\.9|knows 1\\.x)"
    with pytest.raises(UnknownAbi, match=seen) as caught:
        open_device("AMD", system=system)
    assert caught.value.code == "HW103"
    assert "ACQUIRE_VM" not in system.names()


@pytest.mark.parametrize(
    ("reason", "owner", "mine", "parts"),
    [
        ("EACCES", 109, (27, 44), ("group render (109); your groups are sudo, video",
                                   "sudo usermod -aG render $USER")),
        ("EACCES", 993, (0, 44), ("group 993, which has no name here; your groups are root, video",
                                  "--group-add 993")),
        ("EPERM", 109, (0,), ("group render (109)", "--device=/dev/kfd")),
        ("EACCES", 109, (), ("your groups are none", "usermod -aG render")),
    ],
)  # fmt: skip
def test_whoever_may_not_open_a_node_is_told_which_group_to_join(reason, owner, mine, parts):
    names = {0: "root", 27: "sudo", 44: "video", 109: "render"}
    sentences = permission_advice("/dev/kfd", reason, owner, mine, names)
    for part, sentence in zip(parts, sentences, strict=True):
        assert part in sentence


def test_memory_that_does_not_fit_is_told_with_what_is_free(system):
    def available(given) -> None:
        given.available = 1 << 30

    system.available_memory = available
    with open_device("AMD", system=system) as device:
        held = device.alloc(3 << 20)
        system.failures["ALLOC_MEMORY_OF_GPU"] = errno.ENOMEM
        with pytest.raises(OutOfDeviceMemory) as caught:
            device.alloc(2 << 30)
        assert str(caught.value).startswith(
            "Cannot allocate 2.0 GiB on AMD:0: 1.0 GiB of 24.0 GiB free, the largest piece held "
            "is 3.0 MiB, 3.0 MiB in use"
        )
        assert caught.value.code == "HW203"
        system.failures["AVAILABLE_MEMORY"] = errno.EINVAL
        with pytest.raises(OutOfDeviceMemory, match=r"an unknown part of 24\.0 GiB free"):
            device.alloc(2 << 30)
        del held


def test_a_window_too_small_for_the_memory_is_named(system):
    system.files[f"{NODES}/1/mem_banks/0/properties"] = "heap_type 2\nsize_in_bytes 25753026560\n"
    with open_device("AMD", system=system) as device:
        system.failures["ALLOC_MEMORY_OF_GPU"] = errno.EINVAL
        with pytest.raises(BarTooSmall, match=r"24.0 GiB .*Resizable BAR"):
            device.alloc(1 << 20)


def test_a_damaged_topology_is_refused(system):
    system.files[f"{NODES}/1/properties"] = "simd_count many\n"
    with pytest.raises(MalformedInput, match=r"properties, line 1: 'simd_count many'"):
        open_device("AMD", system=system)
    system.files[f"{NODES}/1/properties"] = "simd_count 1\n"
    with pytest.raises(MalformedInput, match="has no property gfx_target_version"):
        open_device("AMD", system=system)


@pytest.mark.parametrize(
    "name",
    ["ACQUIRE_VM", "CREATE_EVENT", "ALLOC_MEMORY_OF_GPU", "MAP_MEMORY_TO_GPU",
     "GET_CLOCK_COUNTERS", "CREATE_QUEUE"],
)  # fmt: skip
def test_each_ioctl_that_fails_is_named_and_leaves_nothing(system, name):
    system.failures[name] = errno.EIO
    with pytest.raises(SystemCallFailed, match=rf"AMDKFD_IOC_{name} failed \(EIO\)") as caught:
        with open_device("AMD", system=system) as device:
            device.compute_queue()
    assert caught.value.errno == errno.EIO
    caught.value.__traceback__ = None
    gc.collect()
    assert len(system.handles) <= 1
    assert not system.queues


def test_the_environment_chooses_among_the_gpus(monkeypatch):
    board = EmulatedSystem("gfx1100,gfx1030,gfx1201")
    three = find_gpus(board)
    for asked, chosen in [
        ("2,0", [2, 0]), (f" 1 , {three[0].uuid}", [1, 0]), ("", []), ("0,", [0]),
    ]:
        monkeypatch.setenv("ROCR_VISIBLE_DEVICES", asked)
        assert find_gpus(board) == [three[number] for number in chosen]
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "1")
    with open_device("AMD", system=board) as device:
        assert device.target.cpu == "gfx1030"
    with pytest.raises(DeviceNotAvailable, match="AMD:1 is not there; the kernel driver's GPUs"):
        open_device("AMD:1", system=board)
    for wrong in ("3", "-1", "GPU-0", "all"):
        monkeypatch.setenv("ROCR_VISIBLE_DEVICES", f"0,{wrong}")
        with pytest.raises(DeviceNotAvailable, match=f"names '{wrong}'; the GPUs here are 0"):
            open_device("AMD", system=board)
    board.shut_down()


def test_a_node_of_processors_is_no_gpu(system):
    assert [gpu.gpu_id for gpu in find_gpus(system)] == [GPU_ID]
    (gpu,) = find_gpus(system)
    assert (gpu.compute_units, gpu.shader_engines, gpu.copy_queues) == (96, 6, 16)


def test_save_areas_follow_the_kernels_formula(system):
    (gpu,) = find_gpus(system)
    area = save_area(GENERATIONS["gfx1100"], gpu)
    assert area.control_bytes == 0xA000
    (gpu,) = find_gpus(ScriptedSystem(
        gfx_target_version=90402, simd_count=1216, simd_per_cu=4, array_count=32,
        simd_arrays_per_engine=1, num_xcc=8,
    ))  # fmt: skip
    area = save_area(GENERATIONS["gfx942"], gpu)
    assert gpu.compute_units == 38
    assert area.control_bytes == 0x3000  # 38 * 40 waves of 8 bytes, and the header
    assert area.save_bytes == 0x3000 + 38 * (0x80000 + 0x4000 + 0x10000 + 0x1000)
    assert area.total_bytes == 8 * (area.save_bytes + 38 * 40 * 32)


def test_without_a_kernel_driver_probe_says_so(monkeypatch):
    monkeypatch.delenv("EMULATE", raising=False)
    available, sentence = probe("AMD")
    if not available:
        assert "/dev/kfd does not exist" in sentence
        assert "EMULATE=1" in sentence
    monkeypatch.setenv("EMULATE", "gfx1100")
    assert probe("AMD")[0]


def test_a_forked_child_knows_nothing_of_the_parents_nodes(system):
    process.process_of(system)
    process.forget_parent()
    assert process.process_of(system).kfd is not None
    assert system.names() == ["GET_VERSION", "GET_VERSION"]
