"""The nodes of an NVIDIA board: handles, classes, sizes, memory, and how refusals look."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

import pytest

from drivers.emulated.nv.abi import VERSIONS, Abi
from drivers.emulated.nv.machine import parse
from drivers.emulated.nv.status import Status
from drivers.emulated.system import EmulatedSystem
from drivers.system import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from test.drivers.emulated.nv_client import CLASSES, Channel, Refused, Rm, copy, request, wait

MIB = 1 << 20


def refused(status: Status) -> Any:
    """Expects a status."""

    class Expect:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, raised: Any, trace: Any) -> bool:
            assert isinstance(raised, Refused), f"{status.name} was expected, not {raised!r}"
            assert raised.status == status, f"{status.name} was expected, not {raised}"
            return True

    return Expect()


def test_the_driver_tells_its_version_and_its_cards(rm: Rm) -> None:
    descriptor = rm.open("/proc/driver/nvidia/version")
    assert b" 555.58.02 " in rm.system.read(descriptor, 4096)
    cards = (rm.nv.nv_ioctl_card_info_t * 32)()
    rm.system.ioctl(
        rm.control_fd, request(rm.nv.NV_ESC_CARD_INFO, ctypes.sizeof(cards)),
        ctypes.addressof(cards),
    )
    assert [card.valid for card in cards[:2]] == [1, 0]
    assert (cards[0].pci_info.vendor_id, cards[0].minor_number) == (0x10DE, 0)
    info = rm.make("NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS", gpuId=cards[0].gpu_id)
    assert rm.control(rm.root, 0x205, info).deviceInstance == 0
    files = rm.system.files()
    assert any("H100" in text and rm.uuid.hex()[:8] in text for text in files.values())


def test_another_version_is_refused_by_einval(rm: Rm) -> None:
    args = rm.make("nv_ioctl_rm_api_version_t", versionString=b"555.58.02")
    code = request(rm.nv.NV_ESC_CHECK_VERSION_STR, ctypes.sizeof(args))
    rm.system.ioctl(rm.control_fd, code, ctypes.addressof(args))
    assert args.reply == rm.nv.NV_RM_API_VERSION_REPLY_RECOGNIZED
    args.versionString = b"550.1"
    with pytest.raises(OSError) as raised:
        rm.system.ioctl(rm.control_fd, code, ctypes.addressof(args))
    assert raised.value.errno == errno.EINVAL and args.versionString == b"555.58.02"


@pytest.mark.parametrize("board", list(CLASSES))
def test_each_board_lists_its_own_classes(board: str) -> None:
    system = EmulatedSystem(board)
    rm = Rm(system, board)
    try:
        rm.device()
        asked = rm.make("NV0080_CTRL_GPU_GET_CLASSLIST_PARAMS")
        count = rm.control(rm.dev, 0x800201, asked).numClasses
        room = (ctypes.c_uint32 * count)()
        asked.classList = ctypes.addressof(room)
        rm.control(rm.dev, 0x800201, asked)
        assert set(CLASSES[board]) <= set(room)
        inline = rm.control(rm.dev, 0x800292, rm.make("NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS"))
        assert list(inline.classList[:count]) == list(room)
        info = rm.make("NV0080_CTRL_GR_GET_INFO_V2_PARAMS", grInfoListSize=1)
        info.grInfoList[0].index = rm.nv.NV2080_CTRL_GR_INFO_INDEX_SM_VERSION
        rm.control(rm.sub, 0x20801228, info)
        assert info.grInfoList[0].data == int(board[3]) << 8 | int(board[4])
    finally:
        rm.close()
        system.shut_down()


def test_a_structure_of_another_size_is_einval(rm: Rm) -> None:
    args = rm.make("NVOS00_PARAMETERS", hRoot=rm.root, hObjectOld=rm.sub)
    with pytest.raises(OSError) as raised:
        rm.system.ioctl(rm.control_fd, request(0x29, 20), ctypes.addressof(args))
    assert raised.value.errno == errno.EINVAL
    with pytest.raises(OSError):
        rm.system.ioctl(rm.control_fd, request(0x99, 16), ctypes.addressof(args))
    rm.free(rm.sub)  # it is still there


def test_objects_are_refused_by_name_class_and_parent(rm: Rm) -> None:
    with refused(Status.INVALID_CLIENT):
        rm.alloc(rm.dev, 0, 0x2080, root=0x12345)
    with refused(Status.INVALID_CLASS):
        rm.alloc(rm.dev, 0, 0x1111)
    with refused(Status.OBJECT_NOT_FOUND):
        rm.alloc(0xBEEF, 0, 0x2080)
    with refused(Status.INVALID_OBJECT_PARENT):
        rm.alloc(rm.root, 0, 0x2080)
    with refused(Status.INSERT_DUPLICATE_NAME):
        rm.alloc(rm.dev, rm.sub, 0x2080)
    with refused(Status.INVALID_OBJECT_HANDLE):
        rm.alloc(rm.dev, rm.root, 0x2080)
    with refused(Status.INVALID_ARGUMENT):
        rm.alloc(rm.dev, 0, rm.nv.NV01_MEMORY_SYSTEM)  # its parameters are required
    with refused(Status.INVALID_STATE):
        rm.alloc(rm.root, 0, 0x80, rm.make("NV0080_ALLOC_PARAMETERS", deviceId=7))
    assert rm.alloc(rm.dev, 0x77, 0x2080) == 0x77


def test_a_client_belongs_to_the_descriptor_that_made_it(rm: Rm) -> None:
    other = rm.open("/dev/nvidiactl")
    args = rm.make("NVOS00_PARAMETERS", hRoot=rm.root, hObjectOld=rm.sub)
    with refused(Status.INVALID_CLIENT):
        rm.escape(other, rm.nv.NV_ESC_RM_FREE, args)


def test_what_lies_below_goes_with_its_parent(rm: Rm) -> None:
    rm.free(rm.dev)
    with refused(Status.OBJECT_NOT_FOUND):
        rm.free(rm.sub)
    rm.dev = rm.alloc(rm.root, 0, 0x80, rm.make("NV0080_ALLOC_PARAMETERS"))


def test_controls_are_strict_about_object_number_and_size(rm: Rm) -> None:
    params = rm.make("NV2080_CTRL_GPU_GET_GID_INFO_PARAMS")
    with refused(Status.INVALID_PARAM_STRUCT):
        rm.control(rm.sub, 0x2080014A, params, ctypes.sizeof(params) - 4)
    with refused(Status.NOT_SUPPORTED):
        rm.control(rm.dev, 0x2080014A, params)
    with refused(Status.NOT_SUPPORTED):
        rm.control(rm.sub, 0x20809999, params)
    with refused(Status.OBJECT_NOT_FOUND):
        rm.control(0xBEEF, 0x2080014A, params)


def test_a_bad_pointer_is_an_invalid_address(rm: Rm) -> None:
    args = rm.make(
        "NVOS54_PARAMETERS", hClient=rm.root, hObject=rm.sub, cmd=0x2080014A, params=0x1000,
        paramsSize=ctypes.sizeof(rm.nv.NV2080_CTRL_GPU_GET_GID_INFO_PARAMS),
    )
    with refused(Status.INVALID_ADDRESS):
        rm.escape(rm.control_fd, rm.nv.NV_ESC_RM_CONTROL, args)


def test_video_memory_is_counted_and_ends(rm: Rm) -> None:
    def free_kib() -> int:
        info = rm.make("NV2080_CTRL_FB_GET_INFO_V2_PARAMS", fbInfoListSize=1)
        info.fbInfoList[0].index = rm.nv.NV2080_CTRL_FB_INFO_INDEX_HEAP_FREE
        return int(rm.control(rm.sub, 0x20801303, info).fbInfoList[0].data)

    before = free_kib()
    handle = rm.memory(64 * MIB)
    assert before - free_kib() == 64 << 10
    rm.free(handle)
    assert free_kib() == before
    with refused(Status.NO_MEMORY):
        rm.memory(1 << 40)
    with refused(Status.INVALID_OWNER):
        rm.memory(4096, owner=0)


def test_a_mapping_takes_a_descriptor_of_its_own_kind_once(rm: Rm) -> None:
    video, plain = rm.memory(MIB), rm.memory(MIB, video=False)
    with refused(Status.INVALID_ARGUMENT):
        rm.map(video, MIB, descriptor=rm.control_fd)
    with refused(Status.INVALID_ARGUMENT):
        rm.map(plain, MIB, descriptor=rm.node_fd)
    with refused(Status.INVALID_LIMIT):
        rm.map(video, MIB + 4096 * 1024)
    descriptor = rm.open("/dev/nvidia0")
    address = rm.map(video, MIB, descriptor=descriptor)
    ctypes.memset(address, 0x5A, MIB)
    with refused(Status.STATE_IN_USE):
        rm.map(video, MIB, descriptor=descriptor)
    again = rm.map(video, MIB)
    assert ctypes.string_at(again + MIB - 2, 2) == b"ZZ"


def test_mmap_wants_what_was_prepared_at_offset_0(rm: Rm) -> None:
    fresh = rm.open("/dev/nvidia0")
    with pytest.raises(OSError) as raised:
        rm.system.mmap(4096, PROT_READ, MAP_SHARED, fresh, 0)
    assert raised.value.errno == errno.EINVAL
    args = rm.make("nv_ioctl_nvos33_parameters_with_fd", fd=fresh)
    args.params.hClient, args.params.hDevice = rm.root, rm.dev
    args.params.hMemory, args.params.length = rm.memory(MIB), MIB
    rm.escape(rm.control_fd, rm.nv.NV_ESC_RM_MAP_MEMORY, args)
    for size, offset, number in ((MIB, 4096, errno.EINVAL), (4096, 0, errno.ENXIO)):
        with pytest.raises(OSError) as raised:
            rm.system.mmap(size, PROT_READ, MAP_SHARED, fresh, offset)
        assert raised.value.errno == number
    undo = rm.make(
        "NVOS34_PARAMETERS", hClient=rm.root, hDevice=rm.dev, hMemory=args.params.hMemory,
        pLinearAddress=args.params.pLinearAddress,
    )
    rm.escape(rm.control_fd, rm.nv.NV_ESC_RM_UNMAP_MEMORY, undo)
    with refused(Status.OBJECT_NOT_FOUND):
        rm.escape(rm.control_fd, rm.nv.NV_ESC_RM_UNMAP_MEMORY, undo)


def test_uvm_wants_its_calls_in_order(rm: Rm) -> None:
    uuid = rm.uuid_field()
    with refused(Status.ILLEGAL_ACTION):
        rm.uvm("REGISTER_GPU", gpu_uuid=uuid)
    rm.uvm("INITIALIZE")
    rm.uvm("INITIALIZE")
    with refused(Status.INVALID_ARGUMENT):
        rm.uvm("INITIALIZE", flags=2)
    with refused(Status.INVALID_DEVICE):
        rm.uvm("REGISTER_GPU")
    with refused(Status.INVALID_DEVICE):
        rm.uvm("REGISTER_GPU_VASPACE", gpuUuid=uuid, hClient=rm.root)
    rm.uvm("REGISTER_GPU", gpu_uuid=uuid)
    with refused(Status.INVALID_DEVICE):
        rm.uvm("REGISTER_GPU", gpu_uuid=uuid)
    with refused(Status.OBJECT_NOT_FOUND):
        rm.uvm("REGISTER_GPU_VASPACE", gpuUuid=uuid, hClient=rm.root, hVaSpace=0xBEEF)
    with pytest.raises(OSError) as raised:
        rm.system.ioctl(rm.uvm_fd, 999, ctypes.addressof(uuid))
    assert raised.value.errno == errno.EINVAL


def test_external_ranges_are_checked(rm: Rm) -> None:
    rm.space()
    base, handle = 0x20_0000_0000, rm.memory(2 * MIB)
    with refused(Status.INVALID_ADDRESS):
        rm.uvm("CREATE_EXTERNAL_RANGE", base=base + 1, length=4096)
    with refused(Status.INVALID_ADDRESS):
        rm.show(handle, 2 * MIB, base)
    rm.uvm("CREATE_EXTERNAL_RANGE", base=base, length=2 * MIB)
    with refused(Status.UVM_ADDRESS_IN_USE):
        rm.uvm("CREATE_EXTERNAL_RANGE", base=base + MIB, length=2 * MIB)
    with refused(Status.OBJECT_NOT_FOUND):
        rm.show(0xBEEF, MIB, base)
    with refused(Status.INVALID_BASE):
        rm.show(handle, MIB, base, offset=2 * MIB)
    with refused(Status.INVALID_LIMIT):
        rm.show(handle, 2 * MIB, base, offset=MIB)
    with refused(Status.INVALID_ARGUMENT):
        rm.show(handle, MIB, base, kind=9)
    rm.show(handle, MIB, base)
    with refused(Status.INVALID_ADDRESS):
        rm.uvm("FREE", base=base, length=MIB)
    rm.uvm("FREE", base=base, length=2 * MIB)
    with refused(Status.INVALID_ADDRESS):
        rm.uvm("FREE", base=base, length=2 * MIB)


def test_a_mapping_in_the_middle_of_another_replaces_that_part(rm: Rm) -> None:
    rm.space()
    channel = Channel(rm)
    channel.schedule()
    first, second, target = rm.memory(MIB), rm.buffer(MIB), rm.buffer(MIB)
    base = 0x20_0000_0000
    rm.uvm("CREATE_EXTERNAL_RANGE", base=base, length=MIB)
    rm.show(first, MIB, base)
    shown = rm.map(first, MIB)
    content = bytes(at >> 10 & 0xFF for at in range(MIB))
    ctypes.memmove(shown, content, MIB)
    second.write(b"\xee" * MIB)
    rm.show(second.handle, 4096, base + 8192, offset=4096, length=4096)
    channel.run(copy(base, target.gpu_addr, 16384))
    assert target.read(16384) == content[:8192] + b"\xee" * 4096 + content[12288:16384]
    rm.uvm("UNMAP_EXTERNAL", base=base, length=4096, gpuUuid=rm.uuid_field())
    channel.run(copy(base + 4096, target.gpu_addr, 4096))
    channel.submit(copy(base, target.gpu_addr, 4096))
    wait(channel.error)
    assert channel.error_code() == rm.nv.ROBUST_CHANNEL_FIFO_ERROR_MMU_ERR_FLT
    rm.uvm("FREE", base=base, length=MIB)


def test_memory_of_the_program_is_seen_where_it_lies(rm: Rm) -> None:
    rm.space()
    channel = Channel(rm)
    channel.schedule()
    size = 16384
    own = rm.system.mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(own, b"before", 6)
    flags = rm.nv.NVOS02_FLAGS_MAPPING_NO_MAP << 30 | rm.nv.NVOS02_FLAGS_COHERENCY_CACHED << 12
    args = rm.make("nv_ioctl_nvos02_parameters_with_fd", fd=-1)
    args.params.hRoot, args.params.hObjectParent = rm.root, rm.dev
    args.params.hClass, args.params.flags = rm.nv.NV01_MEMORY_SYSTEM_OS_DESCRIPTOR, flags
    args.params.pMemory, args.params.limit = own, size - 1
    rm.escape(rm.node_fd, rm.nv.NV_ESC_RM_ALLOC_MEMORY, args)
    handle, base = args.params.hObjectNew, 0x20_0000_0000
    rm.uvm("CREATE_EXTERNAL_RANGE", base=base, length=size)
    rm.show(handle, size, base)
    target = rm.buffer(MIB)
    channel.run(copy(base, target.gpu_addr, 6))
    assert target.read(6) == b"before"
    target.write(b"from the GPU")
    channel.run(copy(target.gpu_addr, base + 100, 12))
    assert ctypes.string_at(own + 100, 12) == b"from the GPU"
    rm.uvm("FREE", base=base, length=size)
    rm.free(handle)
    assert ctypes.string_at(own + 100, 12) == b"from the GPU"
    with open("/proc/self/maps", encoding="utf-8") as maps:
        line = next(line for line in maps if int(line.split("-")[0], 16) <= own
                    < int(line.split("-")[1].split()[0], 16))
    assert "memfd" not in line  # it is the program's alone again
    rm.system.munmap(own, size)
    args.params.pMemory, args.params.hObjectNew = 0x1000, 0
    with refused(Status.INVALID_ADDRESS):
        rm.escape(rm.node_fd, rm.nv.NV_ESC_RM_ALLOC_MEMORY, args)


def test_branch_535_has_its_own_sizes() -> None:
    system = EmulatedSystem("sm_89,driver=535.261.03")
    rm = Rm(system, "sm_89", "nv_535")
    wrong = Rm(system, "sm_89", "nv_555")
    try:
        descriptor = rm.open("/proc/driver/nvidia/version")
        assert b"535.261.03" in system.read(descriptor, 4096)
        rm.device()
        rm.space()
        channel = Channel(rm)
        channel.schedule()
        one, other = rm.buffer(MIB), rm.buffer(MIB)
        one.write(b"535")
        channel.run(copy(one.gpu_addr, other.gpu_addr, 3))
        assert other.read(3) == b"535"
        wrong.device()
        params = wrong.make("NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS")
        with refused(Status.INVALID_PARAM_STRUCT):
            wrong.control(wrong.dev, 0x800292, params)
    finally:
        wrong.close()
        rm.close()
        system.shut_down()


# Measured with a C compiler on the headers of each tag of the open kernel modules.
SIZES = {
    "535.261.03": (256, 776, 644, 4, 448, 436, 252, 516, 2, 2, 360, 120, 48, 24, 1200, 28),
    "550.54.14": (256, 776, 700, 4, 472, 444, 260, 524, 2, 2, 360, 128, 48, 24, 9264, 28),
    "555.58.02": (256, 776, 404, 8, 472, 444, 260, 524, 2, 2, 360, 128, 48, 24, 9264, 28),
    "560.35.03": (256, 1032, 404, 8, 472, 460, 340, 524, 2, 2, 360, 128, 48, 24, 9264, 28),
    "565.77": (256, 1032, 404, 8, 472, 460, 340, 524, 2, 2, 360, 128, 48, 24, 9264, 28),
    "570.86.15": (256, 1032, 404, 8, 488, 460, 340, 524, 2, 2, 368, 128, 48, 24, 9264, 28),
    "575.64": (256, 1032, 404, 8, 488, 460, 340, 532, 3, 3, 368, 128, 48, 24, 9264, 28),
    "580.95.05": (384, 1032, 804, 8, 488, 1028, 340, 564, 3, 3, 368, 128, 56, 24, 9264, 28),
    "590.48.01": (384, 1032, 804, 8, 496, 1028, 340, 564, 3, 3, 368, 128, 56, 16, 9264, 12),
}
CHANGING = (
    "NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS", "NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_V2_PARAMS",
    "NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS", "NV0080_CTRL_GPU_GET_VIRTUALIZATION_MODE_PARAMS",
    "NV0080_CTRL_GR_GET_INFO_V2_PARAMS", "NV2080_CTRL_FB_GET_INFO_V2_PARAMS",
    "NV2080_CTRL_GPU_GET_ENGINES_V2_PARAMS", "NV2080_CTRL_GPU_GET_INFO_V2_PARAMS",
    "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS", "NVA06F_CTRL_GPFIFO_SCHEDULE_PARAMS",
    "NV_CHANNEL_ALLOC_PARAMS", "NV_MEMORY_ALLOCATION_PARAMS", "NV_VASPACE_ALLOCATION_PARAMETERS",
    "UVM_FREE_PARAMS", "UVM_MAP_EXTERNAL_ALLOCATION_PARAMS", "UVM_UNREGISTER_CHANNEL_PARAMS",
)


@pytest.mark.parametrize("version", VERSIONS)
def test_sizes_are_those_of_each_branch(version: str) -> None:
    assert tuple(map(Abi(version).size, CHANGING)) == SIZES[version]


def test_a_container_hides_some_calls() -> None:
    system = EmulatedSystem("sm_90,driver=580.95.05,container")
    rm = Rm(system)
    try:
        rm.device()
        with refused(Status.NOT_SUPPORTED):
            rm.control(rm.root, 0x13E, (ctypes.c_ubyte * 1032)())
        rm.uvm("INITIALIZE")
        other = rm.open("/dev/nvidia-uvm")
        args = rm.make("UVM_MM_INITIALIZE_PARAMS", uvmFd=rm.uvm_fd)
        system.ioctl(other, rm.nv.UVM_MM_INITIALIZE, ctypes.addressof(args))
        assert args.rmStatus == Status.WARN_NOTHING_TO_DO
    finally:
        rm.close()
        system.shut_down()


def test_a_description_names_what_there_is() -> None:
    assert [board.name for board in parse("sm_75,sm_90*2").boards] == ["sm_75", "sm_90", "sm_90"]
    assert parse("sm_90,seed=3").seed == 3
    for bad in ("sm_10", "sm_90,driver=1.2", "sm_90*0", "sm_90,seed=x"):
        with pytest.raises(ValueError, match=r"board"):
            parse(bad)


def test_a_machine_has_no_nodes_of_others(hopper: EmulatedSystem) -> None:
    for path in ("/dev/kfd", "/dev/nvidia1", "/proc/driver/nvidia/none"):
        with pytest.raises(OSError) as raised:
            hopper.open(path, os.O_RDWR)
        assert raised.value.errno == errno.ENOENT
