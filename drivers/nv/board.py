"""One GPU: its objects in the kernel driver, what it is made of, and its doorbell."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Final

from autogen import nv_555 as nv
from drivers.errors import HardwareError, SystemCallFailed, UnsupportedGpu
from drivers.nodes import close_node
from drivers.nv.abi import flags
from drivers.nv.generations import GENERATIONS, Generation
from drivers.nv.rm import Rm
from drivers.nv.uvm import Uvm
from drivers.system import MAP_SHARED, PROT_READ, PROT_WRITE

USERMODE_BYTES: Final = 64 << 10
NOTIFY_CHANNEL_PENDING: Final = 0x90  # clc361.h, NVC361_NOTIFY_CHANNEL_PENDING
_CLASS_LIMIT: Final = 1024
_UUID_BYTES: Final = 16
_SPACE_START, _SPACE_BYTES = 0x1000, 0x1FFFFFB000000
_FOREVER: Final = 0xFFFFFFFF
_KIB: Final = 1024


class NvGpu:
    """Device, subdevice, address space and usermode page of a GPU; shared by its devices."""

    def __init__(self, rm: Rm, uvm: Uvm, gpu_id: int, minor: int, name: str) -> None:
        self.rm, self.uvm, self.name, self.minor = rm, uvm, name, minor
        self.system = rm.system
        self.node = f"/dev/nvidia{minor}"
        self._usermode = 0
        self.device = 0
        self.descriptor = rm.open_for_mapping(self.node)
        try:
            self._open(gpu_id)
        except BaseException:
            self.close()
            raise

    def _open(self, gpu_id: int) -> None:
        rm, abi = self.rm, self.rm.abi
        identity: Any = abi.make("NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS", gpuId=gpu_id)
        rm.control(rm.client, "NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2", identity)
        self.device = rm.alloc(
            rm.client, abi.number("NV01_DEVICE_0"), "NV01_DEVICE_0",
            abi.make(
                "NV0080_ALLOC_PARAMETERS", deviceId=identity.deviceInstance,
                hClientShare=rm.client,
                vaMode=abi.number("NV_DEVICE_ALLOCATION_VAMODE_OPTIONAL_MULTIPLE_VASPACES"),
            ),
        )
        self.subdevice = rm.alloc(
            self.device, abi.number("NV20_SUBDEVICE_0"), "NV20_SUBDEVICE_0",
            abi.make("NV2080_ALLOC_PARAMETERS", subDeviceId=0),
        )
        self._describe()
        self._map_usermode()
        self._boost()
        self.space = rm.alloc(
            self.device, abi.number("FERMI_VASPACE_A"), "FERMI_VASPACE_A",
            abi.make(
                "NV_VASPACE_ALLOCATION_PARAMETERS", vaBase=_SPACE_START, vaSize=_SPACE_BYTES,
                flags=abi.number("NV_VASPACE_ALLOCATION_FLAGS_ENABLE_PAGE_FAULTING")
                | abi.number("NV_VASPACE_ALLOCATION_FLAGS_IS_EXTERNALLY_OWNED"),
            ),
        )
        self.uuid = self._ask_uuid()
        self.uvm.register_gpu(self.uuid)
        self.uvm.register_space(self.uuid, self.space)

    def close(self) -> None:
        """Gives its objects back."""
        if self._usermode:
            with contextlib.suppress(OSError):
                self.system.munmap(self._usermode, USERMODE_BYTES)
        self._usermode = 0
        self.rm.release(self.device)
        close_node(self.system, self.descriptor)

    # ---- what it is ----

    def _describe(self) -> None:
        """Asks for the architecture and how many multiprocessors there are."""
        indices = tuple(
            self.rm.abi.number(f"NV2080_CTRL_GR_INFO_INDEX_{name}")
            for name in ("SM_VERSION", "LITTER_NUM_GPCS", "LITTER_NUM_TPC_PER_GPC",
                         "LITTER_NUM_SM_PER_TPC", "MAX_WARPS_PER_SM")
        )  # fmt: skip
        version, self.gpcs, self.tpcs_per_gpc, self.sms_per_tpc, self.warps_per_sm = (
            self.rm.info_list(
                self.subdevice, "NV2080_CTRL_CMD_GR_GET_INFO", "NV2080_CTRL_GR_GET_INFO_PARAMS",
                ("grInfoListSize", "grInfoList"), indices,
            )
        )
        architecture = f"sm_{version >> 8}{version & 0xFF}"
        if architecture not in GENERATIONS:
            raise UnsupportedGpu(
                f"GPU {self.minor} is {architecture}; supported: {', '.join(GENERATIONS)}.",
                device=self.name, operation="open",
            )
        self.generation: Generation = GENERATIONS[architecture]
        self.sass_version = version >> 4 & 0xF0 | version & 0xF
        self._check_classes()

    def _check_classes(self) -> None:
        given = self.generation
        wanted = {given.usermode, given.gpfifo, given.compute, given.copy}
        found = (ctypes.c_uint32 * _CLASS_LIMIT)()
        parameters: Any = self.rm.abi.make("NV0080_CTRL_GPU_GET_CLASSLIST_PARAMS")
        self.rm.control(self.device, "NV0080_CTRL_CMD_GPU_GET_CLASSLIST", parameters)
        count = min(int(parameters.numClasses), _CLASS_LIMIT)
        parameters.numClasses, parameters.classList = count, ctypes.addressof(found)
        self.rm.control(self.device, "NV0080_CTRL_CMD_GPU_GET_CLASSLIST", parameters)
        if lacking := wanted - set(found[:count]):
            names = ", ".join(f"{each:#x}" for each in sorted(lacking))
            raise UnsupportedGpu(
                f"GPU {self.minor} ({given.name}) has no objects of class {names}.",
                device=self.name, operation="open",
            )

    def _ask_uuid(self) -> bytes:
        parameters: Any = self.rm.abi.make(
            "NV2080_CTRL_GPU_GET_GID_INFO_PARAMS",
            flags=self.rm.abi.number("NV2080_GPU_CMD_GPU_GET_GID_FLAGS_FORMAT_BINARY"),
        )
        self.rm.control(self.subdevice, "NV2080_CTRL_CMD_GPU_GET_GID_INFO", parameters)
        return bytes(parameters.data)[:_UUID_BYTES]

    @property
    def multiprocessors(self) -> int:
        """Streaming multiprocessors, floorswept ones included where the chip counts them."""
        return self.gpcs * self.tpcs_per_gpc * self.sms_per_tpc

    def memory_bytes(self) -> tuple[int, int]:
        """The GPU's memory, and how much of it is free."""
        names = ("TOTAL_RAM_SIZE", "HEAP_FREE")
        total, free = self.rm.info_list(
            self.subdevice, "NV2080_CTRL_CMD_FB_GET_INFO", "NV2080_CTRL_FB_GET_INFO_PARAMS",
            ("fbInfoListSize", "fbInfoList"),
            tuple(self.rm.abi.number(f"NV2080_CTRL_FB_INFO_INDEX_{name}") for name in names),
        )
        return total * _KIB, free * _KIB

    # ---- its doorbell ----

    def _map_usermode(self) -> None:
        handle = self.rm.alloc(self.subdevice, self.generation.usermode, "the usermode class")
        descriptor = self.rm.open_for_mapping(self.node)
        try:
            self.rm.prepare_mapping(self.subdevice, handle, USERMODE_BYTES, descriptor)
            self._usermode = self.system.mmap(
                USERMODE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0
            )
        except OSError as error:
            raise SystemCallFailed.wrap(error, "mmap of the usermode page", self.name) from error
        finally:
            close_node(self.system, descriptor)

    @property
    def doorbell(self) -> int:
        """The address that takes a channel's token when there is work for it."""
        return self._usermode + NOTIFY_CHANNEL_PENDING

    def _boost(self) -> None:
        """Asks for the highest clocks while the process runs; not every system allows it."""
        word = flags(nv, "NV2080_CTRL_PERF_BOOST_FLAGS", CMD="BOOST_TO_MAX", CUDA="YES",
                     CUDA_PRIORITY="HIGH")  # fmt: skip
        parameters = self.rm.abi.make("NV2080_CTRL_PERF_BOOST_PARAMS", flags=word,
                                      duration=_FOREVER)  # fmt: skip
        with contextlib.suppress(HardwareError):
            self.rm.control(self.subdevice, "NV2080_CTRL_CMD_PERF_BOOST", parameters)
