"""An AMD GPU as a device: opening it, its memory, programs, clocks and queues.

Opening asks, in this order: the kernel driver's version, the topology, the GPU's generation, its
render node and address space, memory, events. Whatever fails gives back what it took, except the
nodes, which belong to the process (process.py).
"""

from __future__ import annotations

import contextlib
import errno
import weakref
from typing import Final

from autogen import kfd as uapi
from compiler.code_object import CodeObject
from compiler.target import Target
from drivers.amd import process
from drivers.amd.clock import AmdTimestamp, GpuClock
from drivers.amd.events import Interrupts
from drivers.amd.generations import GENERATIONS
from drivers.amd.memory import HOST, REGISTERS, AmdAllocator, GpuMemory
from drivers.amd.program import AmdProgram
from drivers.amd.queue import AmdQueue
from drivers.amd.topology import GpuNode, find_gpus
from drivers.blocks import Block
from drivers.device import Features
from drivers.errors import (
    DeviceFault,
    FirmwareRejected,
    HardwareError,
    SystemCallFailed,
    UnsupportedGpu,
)
from drivers.gpu import QUEUES, GpuDevice, check_index
from drivers.memory import Allocator, CachePolicy, Storage
from drivers.queue import Timestamp
from drivers.system import MAP_SHARED, PAGE_BYTES, PROT_READ, PROT_WRITE, System
from drivers.timeline import DEFAULT_TIMEOUT_MS, Home

# Four ioctls, two page walks and a submission take some 0.1 ms. The processor reads VRAM over the
# bus a word at a time, uncached, at some 0.1 GB/s; it writes combined, some 10 GB/s of PCIe's 25.
# Estimates: nobody has measured them on silicon.
_PIN_TO_READ_BYTES: Final = 256 << 10
_PIN_TO_WRITE_BYTES: Final = 4 << 20
_DOORBELL_PAGE_BYTES: Final = 0x2000  # kfd_doorbell.c: 1024 doorbells of 8 bytes for a process


class AmdDevice(GpuDevice):
    """One GPU, `AMD:0`. Opening it again gives another device on the same GPU."""

    gpu_memory: GpuMemory

    def __init__(
        self,
        name: str,
        *,
        system: System | None = None,
        timeout_ms: float = DEFAULT_TIMEOUT_MS,
        memory_limit_bytes: int | None = None,
        cache_policy: CachePolicy | None = None,
    ) -> None:
        super().__init__(name, timeout_ms)
        self._doorbells = 0
        self._registers: Block | None = None
        self._process = process.process_of(system)
        self.system, self.kfd = self._process.system, self._process.kfd
        self.node = _choose(find_gpus(self.system, name), name)
        self.generation = GENERATIONS[self.node.architecture]
        render = self._process.render(self.node, name)
        self.gpu_memory = GpuMemory(self.system, self.kfd, render, self.node, name)
        self.allocator = AmdAllocator(self.gpu_memory, memory_limit_bytes, cache_policy)
        self.command_allocator = AmdAllocator(
            self.gpu_memory, None, cache_policy, HOST, "commands"
        )
        self.clock = GpuClock(self.kfd, self.node.gpu_id, self.generation.clock_hz)
        # Timelines outlive the device and lead to their interrupts, which must not hold it.
        reference = weakref.ref(self)
        self.interrupts = Interrupts(
            self._process, self.gpu_memory,
            lambda: device.running() if (device := reference()) else (),
        )
        self.features = Features(
            host_access=True, waits_for=("host", "AMD", "LLVM", "CLANG"),
            separate_copy_engine=True, timestamp_ns=1e9 / self.generation.clock_hz,
            queues=min(QUEUES, self.node.copy_queues),
            pin_to_read_bytes=_PIN_TO_READ_BYTES, pin_to_write_bytes=_PIN_TO_WRITE_BYTES,
        )
        self.start()

    @property
    def target(self) -> Target:
        """The GPU as the compiler sees it."""
        from compiler.amdgpu import gpu_target

        return gpu_target(self.generation.name, self.node.compute_units * self.node.xccs)

    @property
    def local_bytes(self) -> int:
        """Local memory of one block."""
        return self.node.value("lds_size_in_kb", 64) << 10

    def timestamps(self, count: int) -> list[Timestamp]:
        """Places for a queue to write the GPU's clock, read in ns of CLOCK_BOOTTIME."""
        memory = self.alloc(8 * count)
        return [AmdTimestamp(memory.view(8 * i, 8), self.clock) for i in range(count)]

    # ---- what its queues need ----

    def doorbell(self, offset: int) -> int:
        """The address of a queue's doorbell in the process's doorbell page."""
        page = offset & -_DOORBELL_PAGE_BYTES
        if not self._doorbells:
            try:
                self._doorbells = self.system.mmap(
                    _DOORBELL_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                    self.kfd.descriptor, page,
                )
            except OSError as error:
                raise SystemCallFailed.wrap(error, "mmap of doorbells", self.name) from error
        return self._doorbells + offset - page

    def flush_register(self) -> int:
        """Where to write so that VRAM has what the host wrote through the bus; 0 for nowhere.

        The host data path (HDP) may hold such writes back. Some GPUs, as virtual functions, show
        no such registers (amdgpu_amdkfd_gpuvm.c: ENOMEM without rmmio_remap).
        """
        if self._registers is None:
            try:
                self._registers = self.gpu_memory.take(PAGE_BYTES, REGISTERS, "registers")
            except SystemCallFailed as error:
                if error.errno != errno.ENOMEM:
                    raise
                return 0
        return self._registers.address + uapi.KFD_MMIO_REMAP_HDP_MEM_FLUSH_CNTL

    # ---- what every GPU's device asks of it ----

    @property
    def home(self) -> Interrupts:
        """Its interrupts."""
        return self.interrupts

    @property
    def fault(self) -> DeviceFault | None:
        """A page fault or a reset."""
        return self.interrupts.fault

    def shares(self, home: Home) -> bool:
        """Whether a home is of the same kernel driver's process."""
        return isinstance(home, Interrupts) and home.kfd is self.kfd

    def let_reach(self, home: Home, line: int) -> bool:
        """The kernel driver maps the page of another GPU's timeline here too."""
        assert isinstance(home, Interrupts)
        gpu_id = self.node.gpu_id
        return home.gpu_id == gpu_id or home.lines.share(
            line, lambda block: home.memory.share(block, gpu_id)
        )

    def is_peer(self, owner: Allocator | None) -> bool:
        """Whether an allocator is of the same GPU, or of one whose memory it reaches."""
        return (
            isinstance(owner, AmdAllocator) and owner.memory.kfd is self.kfd
            and owner.memory.node.number in (self.node.number, *self.node.peers)
        )

    def reach_peer(self, storage: Storage) -> None:
        """The kernel driver maps a peer's memory for this GPU too."""
        assert isinstance(storage.allocator, AmdAllocator)
        memory = storage.allocator.memory
        memory.share(memory.blocks[storage.mapping], self.node.gpu_id)

    def make_program(self, code: CodeObject) -> AmdProgram:
        """Puts a kernel into executable memory."""
        return AmdProgram(self, code)

    def make_queue(
        self, kind: str, name: str, ring_records: int, initial_value: int
    ) -> AmdQueue:
        """A PM4 ring, an AQL ring that several XCCs share, or an SDMA engine's."""
        return AmdQueue(self, kind, name, ring_records, initial_value)

    def release(self) -> None:
        """Gives back pinned pages, doorbells and events."""
        self.release_pinned()
        if self._doorbells:
            with contextlib.suppress(OSError):
                self.system.munmap(self._doorbells, _DOORBELL_PAGE_BYTES)
        self._doorbells = 0
        if self._registers:
            with contextlib.suppress(HardwareError, OSError):
                self.gpu_memory.give_back(self._registers)
        self._registers = None
        self.interrupts.close()

    def forget(self) -> None:
        """The events are the parent's."""
        self.interrupts.forget()


def _choose(gpus: list[GpuNode], name: str) -> GpuNode:
    """The GPU of a device name, if this driver knows its generation."""
    index = check_index(name, [gpu.architecture for gpu in gpus])
    gpu = gpus[index]
    if gpu.architecture not in GENERATIONS:
        raise UnsupportedGpu(
            f"GPU {index} is {gpu.architecture}; supported: {', '.join(GENERATIONS)}.",
            device=name, operation="open",
        )
    for firmware, least in GENERATIONS[gpu.architecture].least_firmware.items():
        found = gpu.value(firmware, least)
        if found < least:
            raise FirmwareRejected(
                f"GPU {index} ({gpu.architecture}) runs with {firmware} {found}; this driver "
                f"needs {least} or later.", device=name, operation="open",
                remedy="Install linux-firmware's amdgpu files, and load the module again.",
            )
    return gpu

