"""The early steps of bringing up an AMD GPU: system calls, ioctls, and packets in rings by hand.

None of them uses the finished device (drivers/amd/device.py); each leaves one object more on the
bench, so what fails is named by its step.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import time
from collections.abc import Sequence
from typing import Final

import bringup_amd_kernels
from autogen import kfd as uapi
from bringup_amd_kernels import number_items
from bringup_amd_ring import Ring, load, until
from bringup_high import THREADS, Hints, Kernels
from bringup_steps import Seen, StepFailed, StepSkipped
from compiler.amdgpu import gpu_target
from drivers.amd import faults, packets, process
from drivers.amd.abi import KFD_NODE, missing_remedy
from drivers.amd.generations import GENERATIONS, Generation
from drivers.amd.memory import HOST, VRAM, AmdAllocator, GpuMemory
from drivers.amd.packets import DataSelect, InterruptSelect
from drivers.amd.process import KfdProcess
from drivers.amd.program import AmdProgram
from drivers.amd.topology import NODES, GpuNode, find_gpus
from drivers.blocks import Block
from drivers.emulated.system import EmulatedSystem
from drivers.errors import HardwareError
from drivers.fields import Packet
from drivers.memory import format_bytes
from drivers.nodes import open_node
from drivers.system import RealSystem, System
from drivers.timeline import memory_view

BLOCK_BYTES: Final = 1 << 20
TIMEOUT_MS: Final = 5000
CLOCK_SPAN_S: Final = 0.05
CLOCK_TOLERANCE: Final = 0.02
DMESG: Final = "Look at `dmesg | grep -i -e amdgpu -e kfd` for what the kernel driver says of it."
DECODE: Final = "scripts/decode.py prints packets from their dwords."


HINTS: Final = Hints(
    log=DMESG,
    entries="The steps by hand passed: compare with drivers/amd/queue.py's entries "
    "(scripts/decode.py).",
    local_memory="Look at LDS_SIZE in COMPUTE_PGM_RSRC2 and its granularity (lds_granule_bytes).",
    scratch="Look at COMPUTE_TMPRING_SIZE, the scratch base and scratch_unit_bytes "
    "(drivers/amd/scratch.py).",
    faults_off=f"Are faults turned off (amdgpu.noretry, amdgpu.vm_fault_stop)? {DMESG}",
)


class Bench:
    """What the steps leave for each other."""

    def __init__(self, device: str, system: System | None, largest_copy_bytes: int) -> None:
        self.device, self.system = device, system or RealSystem()
        self.largest_copy_bytes = largest_copy_bytes
        self.kernels: Kernels = bringup_amd_kernels
        self.hints, self.copy_engine = HINTS, "SDMA"
        self.process: KfdProcess
        self.node: GpuNode
        self.generation: Generation
        self.memory: GpuMemory
        self.host: Block
        self.vram: Block
        self.mailbox = 0
        self.events: list[int] = []
        self.sdma: Ring
        self.compute: Ring
        self.count = 0
        self._log_lines = 0

    # ---- as drivers/amd/program.py wants its Loader ----

    @property
    def name(self) -> str:
        """The device's."""
        return self.device

    @property
    def allocator(self) -> AmdAllocator:
        """VRAM."""
        return self._allocator

    @property
    def local_bytes(self) -> int:
        """Local memory of one block."""
        return self.node.value("lds_size_in_kb", 64) << 10

    def start_memory(self, render: int) -> None:
        """From now on there is memory to allocate."""
        self.memory = GpuMemory(self.system, self.process.kfd, render, self.node, self.device)
        self._allocator = AmdAllocator(self.memory, None, None)

    # ---- helpers of the steps ----

    def next_value(self) -> int:
        """A value that no signal has had yet."""
        self.count += 1
        return self.count

    @property
    def signal(self) -> int:
        """The address of a 64-bit number that packets write."""
        return self.host.address + BLOCK_BYTES - 64

    def release(self, **values: int) -> Packet:
        """A RELEASE_MEM that makes everything visible first."""
        caches = self.generation.caches
        return caches.release(
            **caches.flush, event_type=self.generation.events["CACHE_FLUSH_AND_INV_TS_EVENT"],
            event_index=packets.EventIndex.END_OF_PIPE, **values,
        )

    def run(self, ring: Ring, parts: Sequence[Packet], what: str) -> None:
        """Runs packets and a signal behind them; StepFailed when it does not come."""
        value = self.next_value()
        words = [word for part in parts for word in part.encode()]
        if ring.kind == "sdma":
            sdma = self.generation.sdma
            words += sdma.fence(**sdma.fence_values, addr=self.signal, data=value).encode()
            words += [0] * (-len(words) % 8)
        else:
            words += self.release(
                address=self.signal, data=value, data_sel=DataSelect.DATA_64
            ).encode()
        ring.put(words, (self.signal, value))
        if not until(lambda: load(self.signal) == value, TIMEOUT_MS):
            raise self.stuck(ring, f"{what} did not finish within {TIMEOUT_MS / 1e3:g} s")

    def stuck(self, ring: Ring, sentence: str) -> StepFailed:
        """Where a ring stands, and what that means."""
        fault = self.fault_seen()
        pending = ring.pending()
        read = ring.read_pointer
        where = f"{sentence}; the read pointer is {read:#x}, {len(pending)} dwords wait"
        shown = " ".join(f"{word:08x}" for word in pending[:12])
        if fault:
            return StepFailed(f"{sentence}: {fault}")
        if read == 0 and pending:
            return StepFailed(
                f"{where}: the GPU never fetched",
                "The doorbell or the queue did not reach the hardware. " + DMESG,
            )
        return StepFailed(
            f"{where}, from [{shown}]",
            f"The engine stopped at a packet, or its memory write got lost. {DECODE} {DMESG}",
        )

    def fault_seen(self) -> str:
        """A fault that the kernel driver reports now, or ''."""
        if not self.events:
            return ""
        events = (uapi.struct_kfd_event_data * len(self.events))()
        for event, event_id in zip(events, self.events, strict=True):
            event.event_id = event_id
        with contextlib.suppress(HardwareError):
            if self.process.kfd.wait_events(events, 0):
                memory, hardware = events[1], events[2]
                if memory.memory_exception_data.gpu_id:
                    data = memory.memory_exception_data
                    return faults.memory_exception(data, self.memory, ()).detail
                if hardware.hw_exception_data.gpu_id:
                    data = hardware.hw_exception_data
                    return faults.hardware_exception(data, self.memory, ()).detail
        return ""

    def board_says(self) -> str:
        """What an emulated board has logged since it was last asked."""
        if not isinstance(self.system, EmulatedSystem) or self.system.process is None:
            return ""
        lines = self.system.log()
        new, self._log_lines = lines[self._log_lines :], len(lines)
        return f"the board says: {new[-1]}" if new else ""

    def close(self) -> None:
        """Gives back what the steps by hand took; the nodes stay the process's."""
        for ring in (getattr(self, "sdma", None), getattr(self, "compute", None)):
            if ring is not None:
                ring.close()
        with contextlib.suppress(HardwareError, OSError):
            for event_id in self.events:
                self.process.kfd.destroy_event(event_id)
            self.events.clear()
            for block in (getattr(self, "host", None), getattr(self, "vram", None)):
                if block is not None and block.address in self.memory.blocks:
                    self.memory.give_back(block)
            if hasattr(self, "_allocator"):
                self._allocator.close()


# ---- the kernel driver ----


def permissions(bench: Bench) -> Seen:
    """Whether this user may open the node."""
    descriptor = open_node(bench.system, KFD_NODE, bench.device, missing_remedy)
    bench.system.close(descriptor)
    return Seen(f"{KFD_NODE} opens for reading and writing")


def version(bench: Bench) -> Seen:
    """The interface's version; the connection stays open from here on."""
    bench.process = process.process_of(bench.system)
    major, minor = bench.process.kfd.version
    return Seen(f"KFD interface {major}.{minor}", {"version": [major, minor]})


def topology(bench: Bench) -> Seen:
    """Which GPUs there are, and whether ours is of a known kind."""
    gpus = find_gpus(bench.system, bench.device)
    index = int(bench.device.partition(":")[2] or 0)
    names = ", ".join(gpu.architecture for gpu in gpus) or "none"
    if index >= len(gpus):
        raise StepFailed(
            f"{NODES} lists {len(gpus)} GPUs ({names}); {bench.device} would be number {index}",
            "Is the GPU bound to amdgpu (`lspci -k`), and visible in this container? " + DMESG,
        )
    node = bench.node = gpus[index]
    if node.architecture not in GENERATIONS:
        raise StepFailed(
            f"GPU {index} is {node.architecture}; known: {', '.join(GENERATIONS)}",
            "A new generation is a row in drivers/amd/generations.py.",
        )
    generation = bench.generation = GENERATIONS[node.architecture]
    units = node.compute_units * node.xccs
    return Seen(
        f"{node.architecture}, {units} compute units, {format_bytes(node.vram_bytes)} of VRAM, "
        f"firmware {node.value('fw_version', 0)}, SDMA {node.value('sdma_fw_version', 0)}"
        f"; its driver is {generation.tested}",
        {"gpus": [gpu.architecture for gpu in gpus], "properties": dict(node.properties)},
    )


def address_space(bench: Bench) -> Seen:
    """Opens the render node and binds its address space to this process."""
    render = bench.process.render(bench.node, bench.device)
    bench.start_memory(render)
    free = bench.process.kfd.available_bytes(bench.node.gpu_id)
    return Seen(
        f"{bench.node.render_node} acquired, {format_bytes(free)} of VRAM free",
        {"available_bytes": free},
    )


def allocate(bench: Bench) -> Seen:
    """Memory of the host and of the GPU, at addresses of our choice."""
    bench.host = bench.memory.take(BLOCK_BYTES, HOST, "bring-up, host memory")
    bench.vram = bench.memory.take(BLOCK_BYTES, VRAM, "bring-up, VRAM")
    return Seen(
        f"{format_bytes(BLOCK_BYTES)} of host memory at {bench.host.address:#x}, "
        f"as much VRAM at {bench.vram.address:#x}"
    )


def host_access(bench: Bench) -> Seen:
    """The processor writes and reads both: each word holds its own address, then its opposite."""
    rates = {}
    for block in (bench.host, bench.vram):
        view = memory_view(block.address, BLOCK_BYTES).cast("Q")
        for flip in (0, (1 << 64) - 1):
            numbers = range(block.address, block.address + BLOCK_BYTES, 8)
            wanted = struct.pack(f"<{len(numbers)}Q", *(number ^ flip for number in numbers))
            start_s = time.perf_counter()
            view.cast("B")[:] = wanted
            found = bytes(view)
            seconds = time.perf_counter() - start_s
            if found != wanted:
                at = next(i for i in range(BLOCK_BYTES) if found[i] != wanted[i]) & -8
                raise StepFailed(
                    f"{block.kind}: byte {at} read back {found[at : at + 8].hex()} instead of "
                    f"{wanted[at : at + 8].hex()}",
                    "The mapping leads elsewhere, or the PCI window is wrong (Resizable BAR).",
                )
            rates[block.kind.rpartition(", ")[2]] = 2 * BLOCK_BYTES / seconds
        view.cast("B")[:] = bytes(BLOCK_BYTES)
    shown = ", ".join(f"{name} {rate / 1e9:.2f} GB/s" for name, rate in rates.items())
    return Seen(f"every word read back ({shown}, writing and reading)", {"bytes_per_s": rates})


def events(bench: Bench) -> Seen:
    """The page of mailboxes and three events; one is set by the host, and the wait ends."""
    kfd = bench.process.kfd
    page, handle = bench.process.event_page(bench.memory)
    try:
        number, slot = kfd.create_event(
            uapi.KFD_IOC_EVENT_SIGNAL, auto_reset=True, page_handle=handle
        )
    except HardwareError:
        if handle:
            bench.process.forget_event_page()
        raise
    bench.events.append(number)
    bench.mailbox = page.address + 8 * slot
    for kind in (uapi.KFD_IOC_EVENT_MEMORY, uapi.KFD_IOC_EVENT_HW_EXCEPTION):
        bench.events.append(kfd.create_event(kind, auto_reset=False)[0])
    kfd.set_event(number)
    data = (uapi.struct_kfd_event_data * 1)()
    data[0].event_id = number
    if not kfd.wait_events(data, TIMEOUT_MS):
        raise StepFailed(f"event {number} was set, but a wait for it ran {TIMEOUT_MS} ms", DMESG)
    return Seen(f"event {number} in slot {slot} wakes who waits")


# ---- packets ----


def sdma_copy(bench: Bench) -> Seen:
    """The first packet: the copy engine moves host memory to VRAM and back."""
    sdma, size = bench.generation.sdma, BLOCK_BYTES // 4
    bench.sdma = Ring(bench.process.kfd, bench.memory, bench.generation, "sdma")
    source = memory_view(bench.host.address, size)
    pattern = bytes(i * 7 % 251 for i in range(251)) * (size // 251 + 1)
    source[:] = pattern[:size]
    back, middle = bench.host.address + 2 * size, bench.vram.address
    copies = [
        sdma.copy(count=size - 1, src_addr=bench.host.address, dst_addr=middle),
        sdma.copy(count=size - 1, src_addr=middle, dst_addr=back),
    ]
    bench.run(bench.sdma, copies, "The copy")
    for name, address in (("VRAM", middle), ("host memory", back)):
        if memory_view(address, size) != source:
            raise StepFailed(
                f"the engine says that it has copied, but {name} at {address:#x} differs",
                "Are the addresses mapped for the GPU, and its caches flushed? " + DMESG,
            )
    return Seen(f"{format_bytes(size)} to VRAM and back, in two packets")


def pm4_nop(bench: Bench) -> Seen:
    """The command processor skips packets without effect: it fetches, and reports how far."""
    bench.compute = ring = Ring(bench.process.kfd, bench.memory, bench.generation, "compute")
    words = [word for count in (1, 5, 10) for word in packets.NOP(*range(count)).encode()]
    ring.put(words)
    if not until(lambda: ring.caught_up, TIMEOUT_MS):
        raise bench.stuck(ring, f"{len(words)} dwords of NOP were not read")
    return Seen(f"read {ring.read_pointer} dwords of {len(words)}")


def release_mem(bench: Bench) -> Seen:
    """An end-of-pipe event writes 64 bits; another interrupts the host."""
    bench.run(bench.compute, [], "RELEASE_MEM")
    number = bench.events[0]
    words = bench.release(
        address=bench.mailbox, data=number, data_sel=DataSelect.DATA_32,
        int_sel=InterruptSelect.AFTER_WRITE, int_ctxid=number,
    ).encode()
    bench.compute.put(words)
    data = (uapi.struct_kfd_event_data * 1)()
    data[0].event_id = number
    if not bench.process.kfd.wait_events(data, TIMEOUT_MS):
        written = load(bench.mailbox)
        raise StepFailed(
            f"no interrupt came for event {number}; its mailbox holds {written}",
            "The memory write works but the interrupt does not: see /proc/interrupts. " + DMESG,
        )
    return Seen("64 bits came, and so did the interrupt")


def timestamps(bench: Bench) -> Seen:
    """The GPU's counter lies between two looks of the kernel driver, and runs as fast as told."""
    kfd, gpu_id, place = bench.process.kfd, bench.node.gpu_id, bench.signal - 64
    before, before_ns = kfd.clocks(gpu_id)
    stamp = bench.release(address=place, data_sel=DataSelect.GPU_CLOCK)
    bench.run(bench.compute, [stamp], "The timestamp")
    written = load(place)
    time.sleep(CLOCK_SPAN_S)
    after, after_ns = kfd.clocks(gpu_id)
    if not before <= written <= after:
        raise StepFailed(
            f"the packet wrote {written}, the kernel driver said {before} before and {after} after",
            "The two read different counters.",
        )
    hz, told = (after - before) * 1e9 / (after_ns - before_ns), bench.generation.clock_hz
    if abs(hz / told - 1) > CLOCK_TOLERANCE:
        raise StepFailed(
            f"the counter runs at {hz / 1e6:.3f} MHz; {told / 1e6:g} MHz are expected",
            "Correct clock_hz of the generation in drivers/amd/generations.py.",
        )
    return Seen(f"the counter runs at {hz / 1e6:.3f} MHz", {"clock_hz": hz})


def dispatch(bench: Bench) -> Seen:
    """A kernel of machine code numbers its items: registers by packets, no driver's queue."""
    node, blocks = bench.node, 16
    if node.xccs > 1:
        raise StepSkipped(f"{node.xccs} compute dies share a queue, which takes more than PM4")
    code = number_items(gpu_target(bench.generation.name, node.compute_units * node.xccs))
    program = AmdProgram(bench, code)
    out = memory_view(bench.vram.address, 4 * THREADS * blocks)
    out[:] = bytes(len(out))
    kernarg = bench.host.address
    ctypes.c_uint64.from_address(kernarg).value = bench.vram.address
    launch = program.launch
    words = list(launch.words)
    words[launch.kernarg_at : launch.kernarg_at + 2] = [kernarg & 0xFFFFFFFF, kernarg >> 32]
    words[launch.grid_at : launch.grid_at + 3] = [blocks, 1, 1]
    caches, value = bench.generation.caches, bench.next_value()
    words = [
        *caches.acquire(**caches.refresh).encode(), *words,
        *bench.release(address=bench.signal, data=value, data_sel=DataSelect.DATA_64).encode(),
    ]
    bench.compute.put(words, (bench.signal, value))
    if not until(lambda: load(bench.signal) == value, TIMEOUT_MS):
        raise bench.stuck(bench.compute, "The kernel did not finish")
    found = list(out.cast("i"))
    wanted = [3 * item + 7 for item in range(THREADS * blocks)]
    if found != wanted:
        wrong = [i for i in range(len(wanted)) if found[i] != wanted[i]]
        raise StepFailed(
            f"{len(wrong)} of {len(wanted)} items are wrong, the first is {wrong[0]}: "
            f"{found[wrong[0]]} instead of {wanted[wrong[0]]}",
            "All: the kernel did not run, or its stores were not flushed. Some: look at the "
            "number of threads, the wave size, and which compute units are enabled.",
        )
    return Seen(f"{blocks} blocks of {THREADS} threads numbered their items")
