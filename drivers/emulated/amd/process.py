"""What the kernel and the boards keep for one process: memory, page tables, events, queues."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autogen import kfd
from drivers.emulated.amd import events
from drivers.emulated.amd.topology import Gpu
from drivers.emulated.caches import Caches, PastCaches, ThroughL2, Views
from drivers.emulated.memory import Backing, GpuFault, GuestMemory, HostMap, PageTable
from drivers.emulated.model import OpenFile
from drivers.emulated.native import Native, map_bell
from drivers.emulated.schedule import Schedule, SeededSchedule
from drivers.system import MAP_SHARED, PAGE_BYTES, PROT_READ, PROT_WRITE, RealSystem

if TYPE_CHECKING:
    from drivers.emulated.amd.engine import Engine
    from drivers.emulated.simt.engine import Engine as SimtEngine

DOORBELL_SLICE_BYTES = 8192  # kfd_doorbell.c: 1024 doorbells of 8 bytes, gfx9 and later
DOORBELL_COUNT = DOORBELL_SLICE_BYTES // 8
DOORBELL_SHIFT = 32  # GPU i's doorbells lie at (i + 1) << 32 of the file behind /dev/kfd
MMIO_REMAP_OFFSET = 1 << 31  # behind the doorbells of the same GPU


@dataclass(eq=False)
class Allocation:
    """One buffer object."""

    gpu_index: int
    handle: int
    address: int
    size_bytes: int  # as the GPU sees it
    flags: int
    offset: int  # in the backing file, or in the file behind /dev/kfd
    backing_bytes: int  # half of size_bytes where a ring is seen twice
    descriptor: int
    user_address: int = 0  # of a user pointer
    mapped: set[int] = field(default_factory=set)  # GPU indices
    busy: int = 0  # queues that live in it


class KfdProcess:
    """One program as the kernel knows it."""

    def __init__(
        self, gpus: list[Gpu], log: list[str], bell: int, program: int, seed: int | None,
        strict: bool = False, eager: bool = False,
    ) -> None:
        self.gpus, self.log, self.strict, self.eager = gpus, log, strict, eager
        self.system = RealSystem()
        self.native = Native(self.system, map_bell(bell))
        self.backings = [Backing(f"renderD{gpu.render_minor}") for gpu in gpus]
        self.doorbells = Backing("kfd", (len(gpus) + 1) << DOORBELL_SHIFT)
        self.doorbell_pages = [
            self._map(self.doorbells.descriptor, DOORBELL_SLICE_BYTES, self.doorbell_offset(gpu))
            for gpu in gpus
        ]
        self.host = HostMap()
        self.views = Views(self.native, Backing("caches"), self.host)
        self.lock = threading.RLock()
        self.atomics = threading.Lock()
        self.generation = 0
        self.translator: SimtEngine | None = None
        self.lingering: list[Engine] = []  # queues that are destroyed, inside a grid still
        self._begin()
        self.schedule: Schedule = (
            Schedule(self.native) if seed is None
            else SeededSchedule(seed, self.native, program, lambda on: self.events.hold(on))
        )

    def _begin(self) -> None:
        self.generation += 1
        self.events = events.Events()
        self.page_tables = [PageTable() for _ in self.gpus]
        self.caches = [Caches(self.views, gpu.board.first_level) for gpu in self.gpus]
        self.acquired: list[OpenFile | None] = [None for _ in self.gpus]
        self.allocations: dict[int, Allocation] = {}
        self.next_handle = [1 for _ in self.gpus]
        self.vram_used = [0 for _ in self.gpus]
        self.gtt_used = 0
        self.queues: dict[int, Engine] = {}
        self.runtime_enabled = False
        self.host_users: dict[tuple[int, int], int] = {}  # (address, offset): GPUs that map it

    def _map(self, descriptor: int, size_bytes: int, offset: int) -> int:
        return self.system.mmap(
            size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, offset
        )

    def doorbell_offset(self, gpu: Gpu) -> int:
        """Where a GPU's doorbells lie in the file behind /dev/kfd."""
        return (gpu.index + 1) << DOORBELL_SHIFT

    def doorbell_window(self, offset: int) -> int:
        """The size of what may be mapped at an offset of /dev/kfd; 0 if nothing."""
        for gpu in self.gpus:
            if offset == self.doorbell_offset(gpu):
                return DOORBELL_SLICE_BYTES
            if offset == self.doorbell_offset(gpu) + MMIO_REMAP_OFFSET:
                return PAGE_BYTES
        return 0

    def find_gpu(self, gpu_id: int) -> Gpu | None:
        """A GPU by the number that ioctls use."""
        return next((gpu for gpu in self.gpus if gpu.gpu_id == gpu_id), None)

    def gpu(self, gpu_id: int) -> Gpu:
        """A GPU by that number. Raises OSError(EINVAL)."""
        gpu = self.find_gpu(gpu_id)
        if gpu is None:
            raise OSError(errno.EINVAL, f"no GPU {gpu_id:#x}")
        return gpu

    def bound_gpu(self, gpu_id: int, unbound: int) -> Gpu:
        """A GPU whose VM was acquired. Raises OSError with EINVAL, or with `unbound`."""
        gpu = self.gpu(gpu_id)
        if self.acquired[gpu.index] is None:
            raise OSError(unbound, "ACQUIRE_VM comes first")
        return gpu

    def memory_of(self, gpu: Gpu, through_caches: bool) -> GuestMemory:
        """Memory as an engine of a GPU sees it."""
        table = self.page_tables[gpu.index]
        if not self.strict:
            return GuestMemory(table)
        kind = ThroughL2 if through_caches else PastCaches
        return kind(table, self.caches[gpu.index])

    def acquire_vm(self, index: int, file: OpenFile) -> None:
        """Binds a render node's address space to the process."""
        from drivers.emulated.amd.kfd import RenderFile

        if not isinstance(file, RenderFile) or file.index != index:
            raise OSError(errno.EINVAL, "not this GPU's render node")
        before = self.acquired[index]
        if before is not None and before is not file:
            raise OSError(errno.EBUSY, "another render node was acquired")
        self.acquired[index] = file

    def simt(self) -> SimtEngine:
        """The translator of machine code, made when it is first needed."""
        with self.atomics:
            if self.translator is None:
                from drivers.emulated.simt.engine import Engine as Translator

                self.translator = Translator(self.system, self.schedule.threads, self.eager)
            return self.translator

    def stop(self, queue_id: int) -> None:
        """Ends a queue. One that is inside a long grid lingers, and with it what it may touch."""
        queue = self.queues.pop(queue_id)
        queue.stop()
        if queue.thread.is_alive():
            self.lingering.append(queue)

    def idle(self) -> bool:
        """Whether no engine is inside a packet."""
        self.lingering = [queue for queue in self.lingering if queue.thread.is_alive()]
        return not self.lingering and not any(queue.busy for queue in self.queues.values())

    def fault(self, queue: Engine, fault: GpuFault) -> None:
        """A page fault: MEMORY events are signalled, the process's queues there are evicted."""
        self.log.append(f"{queue.name}: {fault}")
        gpu = queue.gpu
        for other in list(self.queues.values()):
            if other.gpu is gpu:
                other.evict()
        self._signal(kfd.KFD_IOC_EVENT_MEMORY, events.memory_exception(gpu.gpu_id, fault))

    def hang(self, queue: Engine, reason: str) -> None:
        """An engine that cannot go on: HW_EXCEPTION events are signalled, the queue stops."""
        self.log.append(f"{queue.name}: {reason}")
        queue.evict()
        self._signal(
            kfd.KFD_IOC_EVENT_HW_EXCEPTION, events.hardware_exception(queue.gpu.gpu_id)
        )

    def _signal(self, kind: int, data: bytes) -> None:
        events = self.events
        self.schedule.later(lambda: events.signal_all(kind, data))

    def reset(self) -> None:
        """Everything that the program owned goes."""
        with self.schedule.call(), self.lock:
            for number in list(self.queues):
                self.stop(number)
            for allocation in list(self.allocations.values()):
                from drivers.emulated.amd import memory

                memory.discard(self, allocation)
            if self.idle():
                self.host.collect()
            self._begin()
            self.schedule.reset()
