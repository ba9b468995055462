"""RM controls: what objects are asked, by number (ctrl*.h). Sizes must be those of the branch."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from drivers.emulated.memory import WRITE
from drivers.emulated.model import Call
from drivers.emulated.nv.device import Debugger, Device, Subdevice
from drivers.emulated.nv.fifo import ChannelGroup, ChannelResource
from drivers.emulated.nv.gpu import Gpu
from drivers.emulated.nv.objects import Client, Resource
from drivers.emulated.nv.status import RmError, Status, require

LIST_LIMIT = 512
PAIR = struct.Struct("<II")  # NVXXXX_CTRL_XXX_INFO: index, data
FAULT_PDE, FAULT_RO = 0, 6  # dev_fault.h, NV_PFAULT_FAULT_TYPE_*
ACCESS_READ, ACCESS_WRITE = 0, 1  # NV_PFAULT_ACCESS_TYPE_*
KIB = 10
# What gVisor's nvproxy does not let through with its capabilities compute and utility: the
# version's second form, NVA06F_BIND, and what tells of MMU faults.
CONTAINER_BLOCKS = (0x13E, 0xA06F0104, 0x83DE0328)


class Query(NamedTuple):
    """One control as it is answered: `args` are its parameters, to be written."""

    target: Any
    args: Any
    call: Call

    @property
    def constants(self) -> Any:
        """The header's numbers."""
        return self.target.process.abi.module

    @property
    def gpu(self) -> Gpu:
        """The target's GPU."""
        gpu: Gpu = self.target.gpu
        return gpu


class Control(NamedTuple):
    """What one control is asked of, its parameters and its answer."""

    kinds: tuple[type[Resource], ...]
    params: str
    answer: Callable[[Query], None]


def run(target: Resource, params: Any, call: Call) -> None:
    """NV_ESC_RM_CONTROL. Raises RmError."""
    process = target.process
    entry = CONTROLS.get(params.cmd)
    blocked = process.container and params.cmd in CONTAINER_BLOCKS
    if entry is None or blocked or not isinstance(target, entry.kinds):
        raise RmError(
            Status.NOT_SUPPORTED, f"control {params.cmd:#x} of a {type(target).__name__}"
        )
    structure = process.abi.structure(entry.params)
    size = ctypes.sizeof(structure)
    require(
        params.paramsSize == size, Status.INVALID_PARAM_STRUCT,
        f"{entry.params} has {size} bytes, not {params.paramsSize}",
    )
    require(params.params, Status.INVALID_ARGUMENT, f"{entry.params} is left out")
    try:
        content = call.program.read(params.params, size)
        entry.answer(Query(target, structure.from_buffer(content), call))
        call.program.write(params.params, content)
    except OSError as failure:
        raise RmError(Status.INVALID_ADDRESS, str(failure)) from failure


# The client.

def _build_version(query: Query) -> None:
    """Three strings, of at most sizeOfStrings bytes."""
    version = query.target.process.abi.version.encode() + b"\0"
    texts = {
        "pDriverVersionBuffer": version, "pVersionBuffer": version,
        "pTitleBuffer": b"NVIDIA UNIX Open Kernel Module\0",
    }
    room = query.args.sizeOfStrings
    for name, text in texts.items():
        address = getattr(query.args, name)
        require(address and room >= len(text), Status.INVALID_ARGUMENT, f"{room} bytes for {name}")
        query.call.program.write(address, text)
    query.args.changelistNumber = query.args.officialChangelistNumber = 0


def _build_version_v2(query: Query) -> None:
    query.args.driverVersionBuffer = query.target.process.abi.version.encode()
    query.args.versionBuffer = query.target.process.abi.version.encode()
    query.args.titleBuffer = b"NVIDIA UNIX Open Kernel Module"


def _ids(query: Query) -> None:
    """GPU numbers; the list ends with NV0000_CTRL_GPU_INVALID_ID."""
    ids = query.args.gpuIds
    for index in range(len(ids)):
        gpus = query.target.process.gpus
        ids[index] = gpus[index].gpu_id if index < len(gpus) else 0xFFFFFFFF


def _id_info(query: Query) -> None:
    args = query.args
    for gpu in query.target.process.gpus:
        if gpu.gpu_id == args.gpuId:
            args.gpuFlags, args.deviceInstance, args.subDeviceInstance = 0, gpu.index, 0
            args.sliStatus, args.boardId, args.gpuInstance = 0, gpu.index, gpu.index
            args.numaId = -1
            return
    raise RmError(Status.INVALID_ARGUMENT, f"no GPU {args.gpuId:#x}")


# The device and subdevice.

def _class_list(query: Query) -> None:
    """With a null pointer: how many there are."""
    classes, args = query.gpu.board.classes, query.args
    if args.classList:
        require(
            args.numClasses >= len(classes), Status.INVALID_PARAM_STRUCT,
            f"room for {args.numClasses} of {len(classes)} classes",
        )
        query.call.program.write(args.classList, struct.pack(f"<{len(classes)}I", *classes))
    args.numClasses = len(classes)


def _class_list_v2(query: Query) -> None:
    classes = query.gpu.board.classes
    query.args.classList[: len(classes)] = classes
    query.args.numClasses = len(classes)


def _subdevices(query: Query) -> None:
    query.args.numSubDevices = 1


def _virtualization(query: Query) -> None:
    query.args.virtualizationMode = 0


def _gid(query: Query) -> None:
    """The UUID: 16 bytes, or as text."""
    args, gpu, constants = query.args, query.gpu, query.constants
    shift, width = constants.FIELDS["NV2080_GPU_CMD_GPU_GET_GID_FLAGS_FORMAT"]
    form = args.flags >> shift & (1 << width) - 1
    binary = form == constants.NV2080_GPU_CMD_GPU_GET_GID_FLAGS_FORMAT_BINARY
    data = gpu.uuid if binary else gpu.uuid_text.encode() + b"\0"
    args.length = len(data)
    args.data[: len(data)] = data


def _name(query: Query) -> None:
    """Plain or as 16-bit characters."""
    text = query.gpu.board.marketing_name
    field = query.args.gpuNameString
    if query.args.gpuNameStringFlags:
        encoded = text.encode("utf-16-le") + b"\0\0"
    else:
        encoded = text.encode() + b"\0"
    ctypes.memmove(ctypes.addressof(field), encoded, min(len(encoded), ctypes.sizeof(field)))


def _architecture(query: Query) -> None:
    board = query.gpu.board
    query.args.architecture, query.args.implementation = board.architecture, board.implementation
    query.args.revision, query.args.subRevision = 0xA1, 0


def _pci(query: Query) -> None:
    query.args.pciDeviceId = query.gpu.board.device_id << 16 | 0x10DE
    query.args.pciSubSystemId, query.args.pciRevisionId = 0x10DE, 0xA1
    query.args.pciExtDeviceId = query.gpu.board.device_id


def _engines(query: Query) -> None:
    board = query.gpu.board
    engines = [board.graphics_engine, *range(9, 9 + board.copy_engines)]
    query.args.engineCount = len(engines)
    query.args.engineList[: len(engines)] = engines


def _gr_values(query: Query) -> dict[int, int]:
    """NV2080_CTRL_GR_INFO_INDEX_*."""
    board, constants = query.gpu.board, query.constants
    major, minor = divmod(board.sm, 10)
    named = {
        "SM_VERSION": major << 8 | minor, "MAX_WARPS_PER_SM": board.max_warps_per_sm,
        "MAX_THREADS_PER_WARP": 32, "LITTER_NUM_GPCS": board.gpcs,
        "LITTER_NUM_TPC_PER_GPC": board.tpcs_per_gpc,
        "LITTER_NUM_SM_PER_TPC": board.sms_per_tpc, "GPU_CORE_COUNT": board.sms * 128,
        "SHADER_PIPE_COUNT": board.gpcs, "SHADER_PIPE_SUB_COUNT": board.sms // board.sms_per_tpc,
        "MAX_SUBCONTEXT_COUNT": 64, "THREAD_STACK_SCALING_FACTOR": 1,
    }
    prefix = "NV2080_CTRL_GR_INFO_INDEX_"
    return {getattr(constants, prefix + name): value for name, value in named.items()}


def _fb_values(query: Query) -> dict[int, int]:
    """NV2080_CTRL_FB_INFO_INDEX_*, in KiB."""
    board, constants = query.gpu.board, query.constants
    total = board.vram_bytes >> KIB
    free = (board.vram_bytes - query.gpu.used_bytes) >> KIB
    named = {
        "RAM_SIZE": total, "TOTAL_RAM_SIZE": total, "HEAP_SIZE": total, "HEAP_FREE": free,
        "USABLE_RAM_SIZE": total, "BAR1_SIZE": total, "BAR1_AVAIL_SIZE": total,
        "BAR1_MAX_CONTIGUOUS_AVAIL_SIZE": total,
    }
    prefix = "NV2080_CTRL_FB_INFO_INDEX_"
    return {getattr(constants, prefix + name): value for name, value in named.items()}


def _gpu_values(query: Query) -> dict[int, int]:
    """NV2080_CTRL_GPU_INFO_INDEX_*."""
    constants = query.constants
    prefix = "NV2080_CTRL_GPU_INFO_INDEX_"
    last = getattr(constants, prefix + "IS_RESETLESS_MIG_SUPPORTED", 64)
    values = dict.fromkeys(range(last + 1), 0)
    major, minor = divmod(query.gpu.board.sm, 10)
    values[getattr(constants, prefix + "GPU_SM_VERSION")] = major << 8 | minor
    return values


Values = Callable[[Query], dict[int, int]]


def _pointed(size: str, pointer: str, values: Values) -> Callable[[Query], None]:
    """A list of (index, data) that a pointer leads to."""

    def answer(query: Query) -> None:
        count = getattr(query.args, size)
        require(0 < count <= LIST_LIMIT, Status.INVALID_ARGUMENT, f"a list of {count}")
        address = getattr(query.args, pointer) or 0
        content = query.call.program.read(address, count * PAIR.size)
        known = values(query)
        for index, _ in PAIR.iter_unpack(bytes(content)):
            _check(index, known)
        pairs = [(index, known[index & 0xFFFFFF]) for index, _ in PAIR.iter_unpack(bytes(content))]
        query.call.program.write(address, b"".join(PAIR.pack(*pair) for pair in pairs))

    return answer


def _inline(size: str, name: str, values: Values) -> Callable[[Query], None]:
    """A list of (index, data) in the structure itself."""

    def answer(query: Query) -> None:
        entries, count = getattr(query.args, name), getattr(query.args, size)
        require(0 < count <= len(entries), Status.INVALID_ARGUMENT, f"a list of {count}")
        known = values(query)
        for entry in entries[:count]:
            _check(entry.index, known)
            entry.data = known[entry.index & 0xFFFFFF]

    return answer


def _check(index: int, known: dict[int, int]) -> None:
    require(index & 0xFFFFFF in known, Status.INVALID_ARGUMENT, f"info {index:#x} is not modelled")


def _nothing(query: Query) -> None:
    """What changes nothing that the board models."""


# Channels.

def _schedule_group(query: Query) -> None:
    query.target.schedule(bool(query.args.bEnable))


def _schedule_channel(query: Query) -> None:
    query.target.group.schedule(bool(query.args.bEnable))


def _token(query: Query) -> None:
    query.args.workSubmitToken = query.target.token


def _stop(query: Query) -> None:
    query.target.scheduled = False


def _group_info(query: Query) -> None:
    query.args.tsgID = query.target.channels[0].token & 0xFFFF if query.target.channels else 0


def _mmu_fault(query: Query) -> None:
    """The last page fault of the debugged object's channel group."""
    fault = query.target.target.above(ChannelGroup).mmu_fault
    query.args.count = 0
    if fault is not None:
        query.args.count = 1
        entry = query.args.mmuFaultInfoList[0]
        entry.faultAddress = fault.address
        entry.faultType = FAULT_RO if fault.present else FAULT_PDE
        entry.accessType = ACCESS_WRITE if fault.access == WRITE else ACCESS_READ


def _sm_errors(query: Query) -> None:
    """Warp errors are not modelled; a page fault is told."""
    fault = query.target.target.above(ChannelGroup).mmu_fault
    query.args.mmuFault.valid = fault is not None
    query.args.mmuFault.faultInfo = 0


def _controls() -> dict[int, Control]:
    gr, fb = _gr_values, _fb_values
    return {
        0x101: Control((Client,), "NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS", _build_version),
        0x13E: Control(
            (Client,), "NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_V2_PARAMS", _build_version_v2
        ),
        0x201: Control((Client,), "NV0000_CTRL_GPU_GET_ATTACHED_IDS_PARAMS", _ids),
        0x214: Control((Client,), "NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS", _ids),
        0x205: Control((Client,), "NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS", _id_info),
        0x800201: Control((Device,), "NV0080_CTRL_GPU_GET_CLASSLIST_PARAMS", _class_list),
        0x800292: Control((Device,), "NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS", _class_list_v2),
        0x800280: Control((Device,), "NV0080_CTRL_GPU_GET_NUM_SUBDEVICES_PARAMS", _subdevices),
        0x800289: Control(
            (Device,), "NV0080_CTRL_GPU_GET_VIRTUALIZATION_MODE_PARAMS", _virtualization
        ),
        0x2080014A: Control((Subdevice,), "NV2080_CTRL_GPU_GET_GID_INFO_PARAMS", _gid),
        0x20800110: Control((Subdevice,), "NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS", _name),
        0x20800170: Control((Subdevice,), "NV2080_CTRL_GPU_GET_ENGINES_V2_PARAMS", _engines),
        0x20800102: Control(
            (Subdevice,), "NV2080_CTRL_GPU_GET_INFO_V2_PARAMS",
            _inline("gpuInfoListSize", "gpuInfoList", _gpu_values),
        ),
        0x20801201: Control(
            (Subdevice,), "NV2080_CTRL_GR_GET_INFO_PARAMS",
            _pointed("grInfoListSize", "grInfoList", gr),
        ),
        0x20801228: Control(
            (Subdevice,), "NV0080_CTRL_GR_GET_INFO_V2_PARAMS",
            _inline("grInfoListSize", "grInfoList", gr),
        ),
        0x20801301: Control(
            (Subdevice,), "NV2080_CTRL_FB_GET_INFO_PARAMS",
            _pointed("fbInfoListSize", "fbInfoList", fb),
        ),
        0x20801303: Control(
            (Subdevice,), "NV2080_CTRL_FB_GET_INFO_V2_PARAMS",
            _inline("fbInfoListSize", "fbInfoList", fb),
        ),
        0x20801701: Control((Subdevice,), "NV2080_CTRL_MC_GET_ARCH_INFO_PARAMS", _architecture),
        0x20801801: Control((Subdevice,), "NV2080_CTRL_BUS_GET_PCI_INFO_PARAMS", _pci),
        0x2080200A: Control((Subdevice,), "NV2080_CTRL_PERF_BOOST_PARAMS", _nothing),
        0xA06C0101: Control(
            (ChannelGroup,), "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS", _schedule_group
        ),
        0xA06C0103: Control((ChannelGroup,), "NVA06C_CTRL_SET_TIMESLICE_PARAMS", _nothing),
        0xA06C0105: Control((ChannelGroup,), "NVA06C_CTRL_PREEMPT_PARAMS", _nothing),
        0xA06C0106: Control((ChannelGroup,), "NVA06C_CTRL_GET_INFO_PARAMS", _group_info),
        0xA06F0103: Control(
            (ChannelResource,), "NVA06F_CTRL_GPFIFO_SCHEDULE_PARAMS", _schedule_channel
        ),
        0xA06F0104: Control((ChannelResource,), "NVA06F_CTRL_BIND_PARAMS", _nothing),
        0xA06F0112: Control((ChannelResource,), "NVA06F_CTRL_STOP_CHANNEL_PARAMS", _stop),
        0xC36F0108: Control(
            (ChannelResource,), "NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN_PARAMS", _token
        ),
        0x83DE0309: Control(
            (Debugger,), "NV83DE_CTRL_DEBUG_SET_EXCEPTION_MASK_PARAMS", _nothing
        ),
        0x83DE030C: Control(
            (Debugger,), "NV83DE_CTRL_DEBUG_READ_ALL_SM_ERROR_STATES_PARAMS", _sm_errors
        ),
        0x83DE0310: Control(
            (Debugger,), "NV83DE_CTRL_DEBUG_CLEAR_ALL_SM_ERROR_STATES_PARAMS", _nothing
        ),
        0x83DE0328: Control(
            (Debugger,), "NV83DE_CTRL_DEBUG_READ_MMU_FAULT_INFO_PARAMS", _mmu_fault
        ),
    }


CONTROLS = _controls()
