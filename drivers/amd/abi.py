"""The kernel driver's ioctls, each a method: arguments by name, results as integers.

Structures and numbers are kfd_ioctl.h's. A call that fails raises SystemCallFailed with the
ioctl's name; those that memory pressure interrupts are asked again, going on where they were.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence
from typing import Any, Final

from autogen import kfd
from drivers.errors import HardwareError, SystemCallFailed, UnknownAbi
from drivers.nodes import open_node
from drivers.system import System

KFD_NODE: Final = "/dev/kfd"
LEAST_MINOR: Final = 9  # the first with AVAILABLE_MEMORY (kfd_ioctl.h, its list of versions)
AGE_MINOR: Final = 14  # from 1.14 on: event ages, and RUNTIME_ENABLE is expected
_RETRY = (errno.EAGAIN, errno.EINTR)
_RETRIES: Final = 1000


def missing_remedy(path: str, modules: Sequence[str]) -> str:
    """What to do about a node that is not there."""
    start = f"In a container give it {path}" if "amdgpu" in modules else (
        "Load the amdgpu module on a machine with an AMD GPU"
    )
    return f"{start}, or run the emulated board with EMULATE=1."


class Kfd:
    """An open /dev/kfd and the version it speaks."""

    def __init__(self, system: System, device: str) -> None:
        self.system, self.device = system, device
        self.descriptor = open_node(system, KFD_NODE, device, missing_remedy)
        try:
            version = kfd.struct_kfd_ioctl_get_version_args()
            self.call("GET_VERSION", version)
            self.version = (int(version.major_version), int(version.minor_version))
            self._check_version()
        except BaseException:
            self.close()
            raise

    def _check_version(self) -> None:
        """Refuses what has another major number, or lacks what this driver asks for."""
        (major, minor), known = self.version, kfd.KFD_IOCTL_MAJOR_VERSION
        if major != known:
            raise UnknownAbi(
                f"{KFD_NODE} speaks version {major}.{minor}; this driver knows {known}.x.",
                device=self.device, operation="GET_VERSION",
            )
        if minor < LEAST_MINOR:
            raise UnknownAbi(
                f"{KFD_NODE} speaks version {major}.{minor}; this driver needs {known}."
                f"{LEAST_MINOR} or a later {known}.x.",
                device=self.device, operation="GET_VERSION",
                remedy="Update the kernel, or its amdgpu module.",
            )

    def close(self) -> None:
        """Closes the node. The kernel keeps what the process made until it ends or frees it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            self.system.close(descriptor)

    def call(self, name: str, argument: ctypes.Structure) -> None:
        """One ioctl; EAGAIN and EINTR are asked again with the argument as the kernel left it."""
        request = int(getattr(kfd, f"AMDKFD_IOC_{name}"))
        for attempt in range(_RETRIES):
            try:
                self.system.ioctl(self.descriptor, request, ctypes.addressof(argument))
                return
            except OSError as error:
                if error.errno not in _RETRY or attempt == _RETRIES - 1:
                    raise SystemCallFailed.wrap(error, f"AMDKFD_IOC_{name}", self.device) from error

    # ---- the process and its memory ----

    def acquire_vm(self, render_descriptor: int, gpu_id: int) -> None:
        """Binds the render node's address space to this process; before any allocation."""
        self.call("ACQUIRE_VM", kfd.struct_kfd_ioctl_acquire_vm_args(
            drm_fd=render_descriptor, gpu_id=gpu_id))  # fmt: skip

    def runtime_enable(self) -> None:
        """Tells the kernel that a runtime without debugger support is here."""
        try:
            self.call("RUNTIME_ENABLE", kfd.struct_kfd_ioctl_runtime_enable_args())
        except SystemCallFailed as error:
            if error.errno not in (errno.EBUSY, errno.EEXIST):  # enabled by this process before
                raise

    def allocate(
        self, gpu_id: int, gpu_addr: int, size_bytes: int, flags: int, mmap_offset: int = 0
    ) -> tuple[int, int]:
        """Memory for a GPU address: its handle, and the offset for mmap on the render node."""
        argument = kfd.struct_kfd_ioctl_alloc_memory_of_gpu_args(
            va_addr=gpu_addr, size=size_bytes, mmap_offset=mmap_offset, gpu_id=gpu_id, flags=flags,
        )
        self.call("ALLOC_MEMORY_OF_GPU", argument)
        return int(argument.handle), int(argument.mmap_offset)

    def free(self, handle: int) -> None:
        """Gives memory back; it must be mapped nowhere."""
        self.call(
            "FREE_MEMORY_OF_GPU", kfd.struct_kfd_ioctl_free_memory_of_gpu_args(handle=handle)
        )

    def map(self, handle: int, gpu_ids: list[int]) -> None:
        """Lets GPUs reach memory."""
        self._mapping("MAP_MEMORY_TO_GPU", kfd.struct_kfd_ioctl_map_memory_to_gpu_args,
                      handle, gpu_ids)  # fmt: skip

    def unmap(self, handle: int, gpu_ids: list[int]) -> None:
        """Takes memory away from GPUs."""
        self._mapping("UNMAP_MEMORY_FROM_GPU", kfd.struct_kfd_ioctl_unmap_memory_from_gpu_args,
                      handle, gpu_ids)  # fmt: skip

    def _mapping(self, name: str, structure: Any, handle: int, gpu_ids: list[int]) -> None:
        array = (ctypes.c_uint32 * len(gpu_ids))(*gpu_ids)
        argument = structure(
            handle=handle, device_ids_array_ptr=ctypes.addressof(array), n_devices=len(gpu_ids),
        )
        self.call(name, argument)
        if argument.n_success != len(gpu_ids):
            raise HardwareError(
                f"AMDKFD_IOC_{name} reached {argument.n_success} of {len(gpu_ids)} GPUs.",
                device=self.device, operation=name,
            )

    # ---- events ----

    def create_event(self, kind: int, *, auto_reset: bool, page_handle: int = 0) -> tuple[int, int]:
        """A new event: its number and its slot in the event page."""
        argument = kfd.struct_kfd_ioctl_create_event_args(
            event_page_offset=page_handle, event_type=kind, auto_reset=int(auto_reset),
        )
        self.call("CREATE_EVENT", argument)
        return int(argument.event_id), int(argument.event_slot_index)

    def destroy_event(self, event_id: int) -> None:
        """Ends an event."""
        self.call("DESTROY_EVENT", kfd.struct_kfd_ioctl_destroy_event_args(event_id=event_id))

    def set_event(self, event_id: int) -> None:
        """Wakes those who wait for an event, as the GPU would."""
        self.call("SET_EVENT", kfd.struct_kfd_ioctl_set_event_args(event_id=event_id))

    def wait_events(self, events: ctypes.Array[Any], timeout_ms: int) -> bool:
        """Waits for any of the events, whose data the kernel fills in; whether one came."""
        argument = kfd.struct_kfd_ioctl_wait_events_args(
            events_ptr=ctypes.addressof(events), num_events=len(events), timeout=timeout_ms,
        )
        self.call("WAIT_EVENTS", argument)
        return int(argument.wait_result) == kfd.KFD_IOC_WAIT_RESULT_COMPLETE

    # ---- queues and clocks ----

    def create_queue(self, **values: int) -> tuple[int, int]:
        """A hardware queue: its number and its doorbell's offset."""
        argument = kfd.struct_kfd_ioctl_create_queue_args(**values)
        self.call("CREATE_QUEUE", argument)
        return int(argument.queue_id), int(argument.doorbell_offset)

    def destroy_queue(self, queue_id: int) -> None:
        """Takes a hardware queue off the GPU, wherever it stands."""
        self.call("DESTROY_QUEUE", kfd.struct_kfd_ioctl_destroy_queue_args(queue_id=queue_id))

    def clocks(self, gpu_id: int) -> tuple[int, int]:
        """The GPU's counter and the host's CLOCK_BOOTTIME in ns, of one moment."""
        argument = kfd.struct_kfd_ioctl_get_clock_counters_args(gpu_id=gpu_id)
        self.call("GET_CLOCK_COUNTERS", argument)
        scale = 10**9 / (int(argument.system_clock_freq) or 10**9)
        return int(argument.gpu_clock_counter), int(argument.system_clock_counter * scale)

    def available_bytes(self, gpu_id: int) -> int:
        """How much of the VRAM could be allocated now."""
        argument = kfd.struct_kfd_ioctl_get_available_memory_args(gpu_id=gpu_id)
        self.call("AVAILABLE_MEMORY", argument)
        return int(argument.available)
