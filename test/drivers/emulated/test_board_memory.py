"""/dev/kfd of the emulated board: version, topology, memory, and what the kernel refuses."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import threading
from typing import Any

import pytest

from autogen import kfd
from drivers.emulated.amd.boards import BOARDS
from drivers.emulated.system import EmulatedSystem
from drivers.system import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_READ
from test.drivers.emulated.kfd_client import HOST, PATIENCE_S, RW, TOPOLOGY, VISIBLE, Client, F


def refused(number: int, client: Client, name: str, **values: Any) -> None:
    with pytest.raises(OSError) as raised:
        client.call(name, **values)
    assert raised.value.errno == number, raised.value


def test_the_version_is_that_of_the_header(client: Client) -> None:
    args = client.call("GET_VERSION")
    assert (args.major_version, args.minor_version) == (1, kfd.KFD_IOCTL_MINOR_VERSION)


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_the_topology_describes_the_board(name: str) -> None:
    system = EmulatedSystem(name)
    try:
        client = Client(system)
        lines = client.read(f"{TOPOLOGY}/nodes/1/properties").splitlines()
        properties = {key: int(value) for key, value in map(str.split, lines)}
        board = BOARDS[name]
        assert properties["gfx_target_version"] == board.gfx_target_version
        assert properties["num_xcc"] == board.num_xcc
        assert properties["capability"] >> 12 & 3 == 2  # doorbells of 8 bytes
        assert not properties["capability"] & 2  # no HSAMMU on a discrete GPU
        assert client.read(f"{TOPOLOGY}/nodes/0/gpu_id") == "0\n"
        assert client.read(f"{TOPOLOGY}/nodes/1/name").strip() == name
        discovery = "/sys/class/drm/renderD128/device/ip_discovery/die/0/GC/0"
        version = [int(client.read(f"{discovery}/{part}")) for part in
                   ("major", "minor", "revision")]
        assert tuple(version) == board.ip_versions["GC"]
        bases = [int(line, 16) for line in client.read(f"{discovery}/base_addr").split()]
        assert tuple(bases) == board.ip_bases["GC"]
        client.close()
    finally:
        system.shut_down()


def test_sysfs_is_to_be_read_and_what_is_not_there_is_not(system: EmulatedSystem) -> None:
    for path, flags, number in (
        (f"{TOPOLOGY}/nodes/9/gpu_id", os.O_RDONLY, errno.ENOENT),
        (f"{TOPOLOGY}/nodes/1/gpu_id", os.O_RDWR, errno.EACCES),
        (f"{TOPOLOGY}/nodes", os.O_RDONLY, errno.EISDIR),
        ("/dev/dri/renderD140", os.O_RDWR, errno.ENOENT),
    ):
        with pytest.raises(OSError) as raised:
            system.open(path, flags)
        assert raised.value.errno == number, path


def test_other_paths_are_the_systems_own(system: EmulatedSystem) -> None:
    descriptor = system.open("/proc/self/status", os.O_RDONLY)
    assert b"Name:" in system.read(descriptor, 100)
    system.close(descriptor)


def test_unknown_ioctls_are_invalid(client: Client) -> None:
    argument = (ctypes.c_char * 256)()
    for request in (0xC0004B80 | 8 << 16, 0xC0084B00, 0xC0084B82, kfd.AMDKFD_IOC_CRIU_OP):
        with pytest.raises(OSError) as raised:
            client.system.ioctl(client.kfd, request, ctypes.addressof(argument))
        assert raised.value.errno == errno.EINVAL


def test_an_argument_that_is_not_there_is_a_fault_not_a_crash(client: Client) -> None:
    with pytest.raises(OSError) as raised:
        client.system.ioctl(client.kfd, kfd.AMDKFD_IOC_GET_VERSION, 0x1000)
    assert raised.value.errno == errno.EFAULT
    refused(errno.EFAULT, client, "MAP_MEMORY_TO_GPU", n_devices=1, device_ids_array_ptr=8)


def test_a_shorter_structure_of_an_older_header_is_taken(client: Client) -> None:
    """CREATE_QUEUE was 88 bytes before it named an SDMA engine."""
    args = kfd.struct_kfd_ioctl_get_clock_counters_args(gpu_id=client.gpu_ids[0])
    request = kfd.AMDKFD_IOC_GET_CLOCK_COUNTERS & ~(0x3FFF << 16) | 16 << 16
    client.system.ioctl(client.kfd, request, ctypes.addressof(args))
    assert args.cpu_clock_counter and not args.system_clock_counter


def test_apertures_count_and_fill(pair: EmulatedSystem) -> None:
    client = Client(pair)
    assert client.call("GET_PROCESS_APERTURES_NEW").num_of_nodes == 2
    entries = (kfd.struct_kfd_process_device_apertures * 2)()
    client.call("GET_PROCESS_APERTURES_NEW", num_of_nodes=2,
                kfd_process_device_apertures_ptr=ctypes.addressof(entries))
    assert [entry.gpu_id for entry in entries] == client.gpu_ids
    assert entries[0].gpuvm_limit == 2**47 - 1
    assert entries[0].lds_base != entries[0].scratch_base
    old = client.call("GET_PROCESS_APERTURES")
    assert old.num_of_nodes == 2 and old.process_apertures[1].gpu_id == client.gpu_ids[1]
    client.close()


def test_the_vm_comes_first_and_is_acquired_from_one_node(system: EmulatedSystem) -> None:
    client = Client(system, acquire=False)
    gpu_id, render = client.gpu_ids[0], client.render[0]
    refused(errno.ENODEV, client, "ALLOC_MEMORY_OF_GPU", va_addr=1 << 40, size=4096, flags=HOST,
            gpu_id=gpu_id)
    refused(errno.EINVAL, client, "ACQUIRE_VM", drm_fd=render, gpu_id=0xDEAD)
    refused(errno.EINVAL, client, "ACQUIRE_VM", drm_fd=client.kfd, gpu_id=gpu_id)
    refused(errno.EINVAL, client, "ACQUIRE_VM", drm_fd=999, gpu_id=gpu_id)
    client.call("ACQUIRE_VM", drm_fd=render, gpu_id=gpu_id)
    client.call("ACQUIRE_VM", drm_fd=render, gpu_id=gpu_id)
    second = system.open("/dev/dri/renderD128", os.O_RDWR)
    refused(errno.EBUSY, client, "ACQUIRE_VM", drm_fd=second, gpu_id=gpu_id)
    system.close(second)
    client.close()


def test_memory_is_fresh_and_goes_back(client: Client) -> None:
    before = client.call("AVAILABLE_MEMORY", gpu_id=client.gpu_ids[0]).available
    memory = client.alloc(8 << 20, VISIBLE)
    assert memory.bytes(0, 4096) == bytes(4096)
    memory.u64(4096).value = 7
    after = client.call("AVAILABLE_MEMORY", gpu_id=client.gpu_ids[0]).available
    assert before - after == 8 << 20
    memory.free()
    assert client.call("AVAILABLE_MEMORY", gpu_id=client.gpu_ids[0]).available == before
    again = client.alloc(8 << 20, VISIBLE)
    assert again.bytes() == bytes(8 << 20)
    again.free()


def test_allocations_that_the_kernel_refuses(client: Client) -> None:
    gpu_id = client.gpu_ids[0]
    good = {"va_addr": 1 << 40, "size": 4096, "flags": HOST, "gpu_id": gpu_id}
    vram = BOARDS["gfx1100"].vram_bytes
    for number, change in (
        (errno.EINVAL, {"size": 0}),
        (errno.EINVAL, {"gpu_id": gpu_id + 1}),
        (errno.EINVAL, {"flags": F["WRITABLE"]}),
        (errno.EINVAL, {"flags": F["USERPTR"] | F["WRITABLE"]}),
        (errno.EINVAL, {"flags": F["DOORBELL"]}),
        (errno.EINVAL, {"flags": F["MMIO_REMAP"], "size": 8192}),
        (errno.ENOMEM, {"flags": F["VRAM"], "size": vram + 4096}),
        (errno.ENOMEM, {"size": 1 << 50}),
    ):
        refused(number, client, "ALLOC_MEMORY_OF_GPU", **good | change)


def test_maps_that_the_kernel_refuses(client: Client) -> None:
    memory = client.alloc(8192, HOST, map_to_gpu=False)
    gpu_id = client.gpu_ids[0]
    wrong = (ctypes.c_uint32 * 1)(gpu_id + 1)
    right = (ctypes.c_uint32 * 1)(gpu_id)
    common = {"handle": memory.handle, "n_devices": 1,
              "device_ids_array_ptr": ctypes.addressof(right)}
    for name in ("MAP_MEMORY_TO_GPU", "UNMAP_MEMORY_FROM_GPU"):
        refused(errno.EINVAL, client, name, **common | {"n_devices": 0})
        refused(errno.EINVAL, client, name, **common | {"n_success": 2})
        refused(errno.EINVAL, client, name,
                **common | {"device_ids_array_ptr": ctypes.addressof(wrong)})
    refused(errno.ENOMEM, client, "MAP_MEMORY_TO_GPU", **common | {"handle": memory.handle + 99})
    refused(errno.ENODEV, client, "UNMAP_MEMORY_FROM_GPU",
            **common | {"handle": memory.handle + 99})
    refused(errno.EINVAL, client, "UNMAP_MEMORY_FROM_GPU", **common)
    assert client.map(memory.handle, 0).n_success == 1
    assert client.map(memory.handle, 0).n_success == 1  # mapped already
    refused(errno.EBUSY, client, "FREE_MEMORY_OF_GPU", handle=memory.handle)
    overlapping = client.call("ALLOC_MEMORY_OF_GPU", va_addr=memory.address + 4096, size=8192,
                              flags=HOST, gpu_id=gpu_id)
    with pytest.raises(OSError) as raised:
        client.map(overlapping.handle, 0)
    assert raised.value.errno == errno.EINVAL
    client.call("FREE_MEMORY_OF_GPU", handle=overlapping.handle)
    memory.free()
    refused(errno.EINVAL, client, "FREE_MEMORY_OF_GPU", handle=memory.handle)


def test_a_render_node_is_mapped_where_an_allocation_is(client: Client) -> None:
    private = client.alloc(4096, F["VRAM"] | F["WRITABLE"])
    visible = client.alloc(4096, VISIBLE)
    for offset, size, number in (
        (private.offset, 4096, errno.EPERM),
        (visible.offset, 8192, errno.EINVAL),
        (visible.offset + 4096, 4096, errno.EINVAL),
        (0, 4096, errno.EINVAL),
    ):
        with pytest.raises(OSError) as raised:
            client.system.mmap(size, RW, MAP_SHARED, client.render[0], offset)
        assert raised.value.errno == number
    with pytest.raises(OSError) as raised:
        client.system.mmap(4096, RW, MAP_SHARED, client.kfd, 0)
    assert raised.value.errno == errno.EINVAL
    private.free()
    visible.free()


def test_freed_memory_shows_no_other_allocation(client: Client) -> None:
    """A mapping that outlives its allocation sees zeros, not what comes next."""
    memory = client.alloc(4096, VISIBLE)
    stale = client.system.mmap(4096, RW, MAP_SHARED, client.render[0], memory.offset)
    memory.free()
    other = client.alloc(4096, VISIBLE)
    other.u64().value = 0x1234
    assert ctypes.c_uint64.from_address(stale).value == 0
    client.system.munmap(stale, 4096)
    other.free()


def test_registers_are_remapped_for_the_hdp_flush(client: Client) -> None:
    args = client.call("ALLOC_MEMORY_OF_GPU", va_addr=client.reserve(4096), size=4096,
                       flags=F["MMIO_REMAP"] | F["WRITABLE"], gpu_id=client.gpu_ids[0])
    page = client.system.mmap(4096, RW, MAP_SHARED, client.kfd, args.mmap_offset)
    ctypes.c_uint32.from_address(page).value = 1
    client.system.munmap(page, 4096)
    client.call("FREE_MEMORY_OF_GPU", handle=args.handle)


def test_a_user_pointer_keeps_content_and_address(client: Client) -> None:
    size = 1 << 16
    address = client.system.mmap(size, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(address, bytes(range(256)) * 256, size)
    args = client.call("ALLOC_MEMORY_OF_GPU", va_addr=address, size=size, mmap_offset=address,
                       flags=F["USERPTR"] | F["WRITABLE"], gpu_id=client.gpu_ids[0])
    assert args.mmap_offset == address
    client.map(args.handle, 0)
    inner = client.call("ALLOC_MEMORY_OF_GPU", va_addr=client.reserve(4096), size=4096,
                        mmap_offset=address + 8192, flags=F["USERPTR"] | F["WRITABLE"],
                        gpu_id=client.gpu_ids[0])
    assert ctypes.string_at(address, size) == bytes(range(256)) * 256
    client.call("FREE_MEMORY_OF_GPU", handle=inner.handle)
    client.unmap(args.handle, 0)
    client.call("FREE_MEMORY_OF_GPU", handle=args.handle)
    assert ctypes.string_at(address, size) == bytes(range(256)) * 256
    maps = open("/proc/self/maps").read()
    line = next(line for line in maps.splitlines() if line.startswith(f"{address:x}-"))
    assert "memfd" not in line
    client.system.munmap(address, size)


def test_a_user_pointer_to_nothing_is_a_fault(client: Client) -> None:
    address = client.system.mmap(8192, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    client.system.munmap(address + 4096, 4096)
    refused(errno.EFAULT, client, "ALLOC_MEMORY_OF_GPU", va_addr=address, size=8192,
            mmap_offset=address, flags=F["USERPTR"], gpu_id=client.gpu_ids[0])
    client.system.munmap(address, 4096)


@pytest.mark.parametrize(("number", "protection"), [(errno.EPERM, PROT_READ), (errno.EFAULT, 0)])
def test_a_user_pointer_to_what_may_not_be_written_is_refused(
    client: Client, number: int, protection: int
) -> None:
    address = client.system.mmap(8192, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    client.system.mprotect(address + 4096, 4096, protection)
    refused(number, client, "ALLOC_MEMORY_OF_GPU", va_addr=address, size=8192,
            mmap_offset=address, flags=F["USERPTR"] | F["WRITABLE"], gpu_id=client.gpu_ids[0])
    client.system.munmap(address, 8192)


def test_a_user_pointer_to_a_file_is_refused_and_the_file_unharmed(client: Client) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(8192))
        file.flush()
        address = client.system.mmap(8192, RW, MAP_SHARED, file.fileno(), 0)
        refused(errno.EPERM, client, "ALLOC_MEMORY_OF_GPU", va_addr=address, size=8192,
                mmap_offset=address, flags=F["USERPTR"] | F["WRITABLE"], gpu_id=client.gpu_ids[0])
        ctypes.memmove(address, b"still", 5)
        file.seek(0)
        assert file.read(5) == b"still"
        client.system.munmap(address, 8192)


def test_an_unaligned_user_pointer_means_its_page(client: Client) -> None:
    """The address of the GPU must be a page's: the kernel sees that when it is mapped."""
    address = client.system.mmap(8192, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(address, b"first", 5)
    flags = F["USERPTR"] | F["WRITABLE"]
    wrong = client.call("ALLOC_MEMORY_OF_GPU", va_addr=address + 8, size=100, flags=flags,
                        mmap_offset=address + 8, gpu_id=client.gpu_ids[0])
    with pytest.raises(OSError, match="Invalid argument"):
        client.map(wrong.handle, 0)
    client.call("FREE_MEMORY_OF_GPU", handle=wrong.handle)
    args = client.call("ALLOC_MEMORY_OF_GPU", va_addr=client.reserve(4096), size=100, flags=flags,
                       mmap_offset=address + 8, gpu_id=client.gpu_ids[0])
    client.map(args.handle, 0)
    assert ctypes.string_at(address, 5) == b"first"
    client.unmap(args.handle, 0)
    client.call("FREE_MEMORY_OF_GPU", handle=args.handle)
    assert ctypes.string_at(address, 5) == b"first"
    client.system.munmap(address, 8192)


def test_who_reads_a_user_pointers_pages_never_sees_them_empty(client: Client) -> None:
    size, looks, ended = 1 << 18, 0, False
    address = client.system.mmap(size, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memset(address, 0x5A, size)
    wrong: list[int] = []

    def look() -> None:
        nonlocal looks
        while not ended:
            if ctypes.string_at(address + size - 8, 8) != b"\x5a" * 8:
                wrong.append(looks)
            looks += 1

    reader = threading.Thread(target=look)
    reader.start()
    blocks = os.fstat(client.system.shared[0]).st_blocks
    for _ in range(50):
        args = client.call("ALLOC_MEMORY_OF_GPU", va_addr=address, size=size, mmap_offset=address,
                           flags=F["USERPTR"] | F["WRITABLE"], gpu_id=client.gpu_ids[0])
        client.call("FREE_MEMORY_OF_GPU", handle=args.handle)
    ended = True
    reader.join(PATIENCE_S)
    assert looks and not wrong
    assert os.fstat(client.system.shared[0]).st_blocks == blocks  # the file keeps none of it
    client.system.munmap(address, size)


def test_threads_may_share_the_same_pages(client: Client) -> None:
    address = client.system.mmap(4096, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memset(address, 0x77, 4096)
    failures: list[str] = []

    def share() -> None:
        for _ in range(50):
            args = client.call("ALLOC_MEMORY_OF_GPU", va_addr=address, size=4096, flags=flags,
                               mmap_offset=address, gpu_id=client.gpu_ids[0])
            client.call("FREE_MEMORY_OF_GPU", handle=args.handle)
            if ctypes.string_at(address, 4096) != b"\x77" * 4096:
                failures.append("lost")

    flags = F["USERPTR"] | F["WRITABLE"]
    threads = [threading.Thread(target=share) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not failures and not client.system.user_memory.ranges
    client.system.munmap(address, 4096)


def test_the_last_close_gives_everything_back(system: EmulatedSystem) -> None:
    client = Client(system)
    before = client.call("AVAILABLE_MEMORY", gpu_id=client.gpu_ids[0]).available
    client.alloc(64 << 20, VISIBLE)
    client.close()
    client = Client(system)
    assert client.call("AVAILABLE_MEMORY", gpu_id=client.gpu_ids[0]).available == before
    client.close()


def test_calls_of_many_threads_are_answered_beside_each_other(client: Client) -> None:
    event = client.create_event().event_id
    results = []
    waiting = threading.Thread(target=lambda: results.append(client.wait(event)[0]))
    waiting.start()
    for _ in range(100):
        client.call("GET_VERSION")
    client.call("SET_EVENT", event_id=event)
    waiting.join(PATIENCE_S)
    assert results == [0]


