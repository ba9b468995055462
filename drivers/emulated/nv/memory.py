"""RM's memory objects, and how the program sees them: MAP_MEMORY, then mmap (nv-mmap.c)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from drivers.emulated.memory import round_to_pages
from drivers.emulated.nv.device import Device
from drivers.emulated.nv.gpu import BAR1_BASE, BAR_STRIDE, Gpu
from drivers.emulated.nv.objects import Resource
from drivers.emulated.nv.process import Pages
from drivers.emulated.nv.status import RmError, Status, require
from drivers.system import PAGE_BYTES

BIG_PAGE_BYTES, HUGE_PAGE_BYTES = 0x10000, 0x200000
SYSTEM_BASE = 1 << 52  # where "physical" addresses of system memory begin, for MAP_MEMORY


@dataclass(frozen=True)
class View:
    """What one mmap of a descriptor will show. `pages` stays, as the driver holds on to it."""

    offset: int  # in the backing
    size_bytes: int
    writable: bool = True


class Mappable(Resource):
    """An object that MAP_MEMORY takes. `pages` is None where it is registers."""

    is_system = False
    writable = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.views: dict[int, View] = {}  # by linear address

    def place(self) -> tuple[int, int]:
        """Offset in the backing, and size."""
        raise NotImplementedError

    def linear_address(self, offset: int) -> int:
        """The address that MAP_MEMORY answers, and UNMAP_MEMORY wants: a physical one."""
        start, _ = self.place()
        base = SYSTEM_BASE if self.is_system else BAR1_BASE + BAR_STRIDE * self.gpu.index
        return base + start + offset

    @property
    def gpu(self) -> Gpu:
        """The GPU of the device that it was allocated under."""
        return self.above(Device).gpu

    def view(self, offset: int, length: int) -> tuple[int, View]:
        """A part, and its linear address. Raises RmError."""
        start, size = self.place()
        require(
            length and offset + length <= size, Status.INVALID_LIMIT,
            f"{length:#x} bytes at {offset:#x} of {size:#x}",
        )
        address = self.linear_address(offset)
        view = View(
            start + offset & -PAGE_BYTES, round_to_pages(length + offset % PAGE_BYTES),
            self.writable,
        )
        self.views[address] = view
        return address, view

    def forget_view(self, address: int) -> None:
        """UNMAP_MEMORY. Raises RmError(OBJECT_NOT_FOUND)."""
        require(address in self.views, Status.OBJECT_NOT_FOUND, f"not mapped at {address:#x}")
        del self.views[address]


class Memory(Mappable):
    """Memory that GPUs can be shown."""

    pages: Pages
    page_bytes = PAGE_BYTES  # of the GPU's page table at most

    def place(self) -> tuple[int, int]:
        """Its pages."""
        return self.pages.offset, self.pages.size_bytes

    def destruct(self) -> None:
        """The pages stay while a GPU sees them."""
        self.process.release(self.pages)


class _Allocated(Memory):
    """Memory of NV_MEMORY_ALLOCATION_PARAMS (standard_mem.c)."""

    def construct(self, params: Any) -> None:
        """Takes the size from the parameters. Raises RmError."""
        require(
            params.owner not in (0, 0xFFFFFFFF), Status.INVALID_OWNER, f"owner {params.owner:#x}"
        )
        require(not params.internalflags, Status.INVALID_ARGUMENT, "internal flags")
        require(params.size, Status.INVALID_ARGUMENT, "size 0")
        require(
            not params.alignment & params.alignment - 1, Status.INVALID_ARGUMENT,
            f"alignment {params.alignment:#x}",
        )
        self.page_bytes = self.page_size(params)
        size = (params.size + self.page_bytes - 1) & -self.page_bytes
        self.reserve(size)
        self.pages = Pages(
            self.process.backing.allocate(size), size, None if self.is_system else self.gpu
        )
        params.size, params.offset, params.limit = size, self.pages.offset, size - 1
        params.alignment = max(params.alignment, self.page_bytes)

    def page_size(self, params: Any) -> int:
        """Bytes of a page, as ATTR asks."""
        return PAGE_BYTES

    def reserve(self, size: int) -> None:
        """Counts it. Raises RmError(NO_MEMORY)."""


class VideoMemory(_Allocated):
    """NV01_MEMORY_LOCAL_USER."""

    def page_size(self, params: Any) -> int:
        """4 KiB, 64 KiB or 2 MiB; by default the largest that the size fills."""
        attr, attr2 = params.attr, params.attr2
        fields = self.process.abi.module.FIELDS
        constants = self.process.abi.module
        kind = _field(attr, fields["NVOS32_ATTR_PAGE_SIZE"])
        if kind == constants.NVOS32_ATTR_PAGE_SIZE_4KB:
            return PAGE_BYTES
        if kind == constants.NVOS32_ATTR_PAGE_SIZE_HUGE:
            huge = _field(attr2, fields["NVOS32_ATTR2_PAGE_SIZE_HUGE"])
            require(
                huge in (constants.NVOS32_ATTR2_PAGE_SIZE_HUGE_DEFAULT,
                         constants.NVOS32_ATTR2_PAGE_SIZE_HUGE_2MB),
                Status.NOT_SUPPORTED, f"huge pages of kind {huge}",
            )
            return HUGE_PAGE_BYTES
        if kind == constants.NVOS32_ATTR_PAGE_SIZE_DEFAULT and params.size >= HUGE_PAGE_BYTES:
            return HUGE_PAGE_BYTES
        return BIG_PAGE_BYTES

    def reserve(self, size: int) -> None:
        """Video memory has its end."""
        gpu = self.gpu
        require(
            gpu.used_bytes + size <= gpu.board.vram_bytes, Status.NO_MEMORY,
            f"video memory: {gpu.used_bytes} of {gpu.board.vram_bytes} used, {size} wanted",
        )
        gpu.used_bytes += size


class SystemMemory(_Allocated):
    """NV01_MEMORY_SYSTEM."""

    is_system = True

    def reserve(self, size: int) -> None:
        """What the machine has."""
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        require(size <= limit, Status.NO_MEMORY, f"system memory: {size} of {limit}")


class UserPages(Memory):
    """NV01_MEMORY_SYSTEM_OS_DESCRIPTOR: the program's own memory, locked."""

    is_system = True

    def hold(self, pages: Pages, writable: bool) -> None:
        """Its pages, once the program has given them."""
        self.pages, self.writable = pages, writable

    def view(self, offset: int, length: int) -> tuple[int, View]:
        """The program has it mapped already."""
        raise RmError(Status.NOT_SUPPORTED, "user memory is mapped already")


def _field(value: int, place: tuple[int, int]) -> int:
    shift, width = place
    return value >> shift & (1 << width) - 1
