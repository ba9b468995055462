"""An NVIDIA GPU as a device: opening it, its memory, programs, clock and queues.

Opening asks, in this order: the kernel driver's version, its GPUs, the GPU's objects and what it
is made of, its address space, then memory and a channel group. Whatever fails gives back what it
took, except what belongs to the process (process.py).
"""

from __future__ import annotations

import os
import weakref

from compiler.code_object import CodeObject
from compiler.target import Target
from drivers.device import Features
from drivers.errors import DeviceFault
from drivers.gpu import QUEUES, GpuDevice, check_index
from drivers.memory import Allocator, CachePolicy, Storage
from drivers.nv.channel import ChannelGroup
from drivers.nv.faults import explain
from drivers.nv.memory import HOST, NvAllocator, NvMemory
from drivers.nv.process import process_of
from drivers.nv.program import NvProgram
from drivers.nv.queue import NvQueue
from drivers.nv.watch import Watch
from drivers.queue import Timestamp
from drivers.system import System
from drivers.timeline import DEFAULT_TIMEOUT_MS, Home

_STAMP_BYTES = 16
# Estimates: nobody has measured them on silicon.
_PIN_TO_READ_BYTES = 256 << 10
_PIN_TO_WRITE_BYTES = 4 << 20
_TIMER_NS = 32.0  # PTIMER counts ns, in steps of 32 (dev_timer.ref.txt)


class NvTimestamp(Timestamp):
    """A place of 16 bytes where a queue writes a word and, behind it, the GPU's clock."""

    __slots__ = ()

    @property
    def value_ns(self) -> int:
        """The GPU's time that was written; wait for the list's Point first."""
        super().value_ns  # noqa: B018  (raises if nothing was written)
        return self._view[1]


class NvDevice(GpuDevice):
    """One GPU, `NV:0`. Opening it again gives another device on the same GPU."""

    gpu_memory: NvMemory

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
        self._process = process_of(system)
        self.system = self._process.system
        index = check_index(name, [f"minor {card.minor}" for card in self._process.cards])
        self.gpu = self._process.gpu(index, name)
        self.gpu_memory = NvMemory(self._process, self.gpu, name)
        self.allocator = NvAllocator(self.gpu_memory, memory_limit_bytes, cache_policy)
        self.command_allocator = NvAllocator(
            self.gpu_memory, None, cache_policy, HOST, "commands"
        )
        # Timelines outlive the device and lead to their home, which must not hold it.
        reference, rm, memory = weakref.ref(self), self.gpu.rm, self.gpu_memory

        def explained(debugger: int, code: int) -> DeviceFault:
            device = reference()
            return explain(rm, debugger, code, memory, device.running() if device else ())

        self.watch = Watch(self.gpu_memory, explained)
        self.group = ChannelGroup(self)
        self.features = Features(
            host_access=True, waits_for=("host", "NV", "LLVM", "CLANG"),
            separate_copy_engine=True, timestamp_ns=_TIMER_NS, queues=QUEUES,
            pin_to_read_bytes=_PIN_TO_READ_BYTES, pin_to_write_bytes=_PIN_TO_WRITE_BYTES,
        )
        self.start()

    @property
    def target(self) -> Target:
        """The GPU as the compiler sees it.

        NV_COMPILER=nvptx takes LLVM in place of NVRTC; TF32=1 gives products of float32 to tensor
        cores.
        """
        from compiler.nvidia import gpu_target

        return gpu_target(
            self.gpu.generation.name, self.gpu.multiprocessors,
            tf32=os.environ.get("TF32") == "1",
            compiler=os.environ.get("NV_COMPILER", "").lower() or "nvrtc",
        )

    def timestamps(self, count: int) -> list[Timestamp]:
        """Places for a queue to write the GPU's clock, in ns."""
        memory = self.alloc(_STAMP_BYTES * count)
        return [
            NvTimestamp(memory.view(_STAMP_BYTES * i, _STAMP_BYTES)) for i in range(count)
        ]

    # ---- what every GPU's device asks of it ----

    @property
    def home(self) -> Watch:
        """Its timelines' memory."""
        return self.watch

    @property
    def fault(self) -> DeviceFault | None:
        """An error that took its channels off the GPU."""
        return self.watch.fault

    def shares(self, home: Home) -> bool:
        """Whether a home is of the same kernel driver's process."""
        return isinstance(home, Watch) and home.memory.uvm is self.gpu.uvm

    def let_reach(self, home: Home, line: int) -> bool:
        """Unified memory maps the page of another GPU's timeline here too."""
        assert isinstance(home, Watch)
        return home.memory.gpu is self.gpu or home.lines.share(
            line, lambda block: home.memory.share(block, self.gpu)
        )

    def is_peer(self, owner: Allocator | None) -> bool:
        """Whether an allocator is of the same GPU, or of one whose memory it reaches."""
        if not isinstance(owner, NvAllocator) or owner.memory.uvm is not self.gpu.uvm:
            return False
        gpu = owner.memory.gpu
        return gpu is self.gpu or self._process.are_peers(gpu, self.gpu)

    def reach_peer(self, storage: Storage) -> None:
        """Unified memory maps a peer's memory for this GPU too."""
        assert isinstance(storage.allocator, NvAllocator)
        memory = storage.allocator.memory
        memory.share(memory.blocks[storage.mapping], self.gpu)

    def make_program(self, code: CodeObject) -> NvProgram:
        """Puts a kernel into executable memory."""
        return NvProgram(self, code)

    def make_queue(
        self, kind: str, name: str, ring_records: int, initial_value: int
    ) -> NvQueue:
        """A channel."""
        return NvQueue(self, kind, name, ring_records, initial_value)

    def release(self) -> None:
        """Gives back pinned pages, the channel group and the timelines' memory."""
        self.release_pinned()
        self.group.close()
        self.watch.close()

    def forget(self) -> None:
        """In a forked child there is nothing of its own to give back."""
