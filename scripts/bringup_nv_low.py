"""The early steps of bringing up an NVIDIA GPU: nodes, objects, memory, a channel's first methods.

Each leaves one object more on the bench, so what fails is named by its step. None of them uses the
finished device (drivers/nv/device.py) but the last.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from typing import Final

import numpy as np

import bringup_nv_kernels
from bringup_high import THREADS, TIMEOUT_MS, Hints, Kernels, check_equal
from bringup_steps import Seen, StepFailed
from drivers import Buffer, open_device
from drivers.blocks import Block
from drivers.emulated.system import EmulatedSystem
from drivers.errors import DeviceHang, HardwareError
from drivers.memory import format_bytes
from drivers.nodes import close_node, open_node
from drivers.nv.board import NvGpu
from drivers.nv.device import NvDevice
from drivers.nv.memory import HOST, VIDEO, NvMemory
from drivers.nv.process import NvProcess, process_of
from drivers.nv.rm import CONTROL_NODE, missing_remedy
from drivers.nv.uvm import UVM_NODE
from drivers.system import RealSystem, System
from drivers.timeline import memory_view

BLOCK_BYTES: Final = 1 << 20
CLOCK_SPAN_S: Final = 0.05
CLOCK_TOLERANCE: Final = 0.02
DMESG: Final = "Look at `dmesg | grep -i -e NVRM -e nvidia` for what the kernel driver says of it."
HINTS: Final = Hints(
    log=DMESG,
    entries="The steps before passed: look at the QMD's version (drivers/nv/qmd.py) and at "
    "constant bank 0 (drivers/nv/generations.py).",
    local_memory="Look at SHARED_MEMORY_SIZE, the carve-outs and the 1024 bytes that are the "
    "system's (drivers/nv/generations.py).",
    scratch="Look at SHADER_LOCAL_MEMORY_HIGH_SIZE, the stack pointer in constant bank 0 and "
    "drivers/nv/local.py.",
    faults_off=f"The channel went on after an access that no mapping allows. {DMESG}",
)


class Bench:
    """What the steps leave for each other."""

    def __init__(self, device: str, system: System | None, largest_copy_bytes: int) -> None:
        self.device, self.system = device, system or RealSystem()
        self.largest_copy_bytes = largest_copy_bytes
        self.kernels: Kernels = bringup_nv_kernels
        self.hints, self.copy_engine = HINTS, "copy engine"
        self.process: NvProcess
        self.gpu: NvGpu
        self.memory: NvMemory
        self.opened: NvDevice | None = None
        self._log_lines = 0

    @property
    def index(self) -> int:
        """The GPU's number."""
        return int(self.device.partition(":")[2] or 0)

    def board_says(self) -> str:
        """What an emulated board has logged since the step before, as the reason of a failure."""
        if not isinstance(self.system, EmulatedSystem):
            return ""
        with contextlib.suppress(OSError):
            lines = self.system.log()
            new, self._log_lines = lines[self._log_lines :], len(lines)
            return f"The emulated board says: {new[-1]}" if new else ""
        return "The emulated board has gone."

    def close(self) -> None:
        """Gives back what the steps took; the nodes are the process's."""
        if self.opened is not None:
            self.opened.close()
        for block in list(self.memory.blocks.values()) if hasattr(self, "memory") else ():
            with contextlib.suppress(HardwareError, OSError):
                self.memory.give_back(block)


def permissions(bench: Bench) -> Seen:
    """Whether this user may open the nodes."""
    for node in (CONTROL_NODE, UVM_NODE):
        close_node(bench.system, open_node(bench.system, node, bench.device, missing_remedy))
    return Seen(f"{CONTROL_NODE} and {UVM_NODE} open for reading and writing")


def version(bench: Bench) -> Seen:
    """The kernel driver's version, whose structures are known; its client and its GPUs."""
    bench.process = process_of(bench.system)
    abi, cards = bench.process.rm.abi, bench.process.cards
    if bench.index >= len(cards):
        raise StepFailed(f"the kernel driver has {len(cards)} GPUs; {bench.device} is none of them")
    return Seen(
        f"{abi.version}, structures of branch {abi.branch}; {len(cards)} GPUs",
        {"version": abi.version},
    )


def board(bench: Bench) -> Seen:
    """Device, subdevice, classes, doorbell, address space, unified memory."""
    bench.gpu = gpu = bench.process.gpu(bench.index, bench.device)
    given = gpu.generation
    return Seen(
        f"{given.name}, {gpu.multiprocessors} multiprocessors on the chip, compute class "
        f"{given.compute:#x}, channel class {given.gpfifo:#x}, UUID {gpu.uuid.hex()}",
        {"architecture": given.name},
    )


def allocate(bench: Bench) -> Seen:
    """The host's memory and the GPU's, at addresses that are the same for both."""
    bench.memory = NvMemory(bench.process, bench.gpu, bench.device)
    blocks: list[Block] = []
    for placement, kind in ((HOST, "host"), (VIDEO, "video"), (VIDEO, "huge")):
        size = BLOCK_BYTES if kind != "huge" else 4 * BLOCK_BYTES
        blocks.append(bench.memory.take(size, placement, kind))
    places = ", ".join(f"{block.kind} at {block.address:#x}" for block in blocks)
    with contextlib.suppress(HardwareError):
        total, free = map(format_bytes, bench.gpu.memory_bytes())
        return Seen(f"{places}; {free} of {total} free")
    return Seen(places)


def host_access(bench: Bench) -> Seen:
    """Writes and reads back every word of both kinds of memory."""
    for block in bench.memory.blocks.values():
        words = np.frombuffer(memory_view(block.address, block.size_bytes), np.uint32)
        wanted = np.arange(words.size, dtype=np.uint32) * np.uint32(2654435761)
        words[:] = wanted
        if not np.array_equal(words, wanted):
            raise StepFailed(
                f"{block.kind} memory at {block.address:#x} does not read as it was written",
                "Is the PCI window (BAR1) mapped, and memory not given twice?",
            )
    return Seen(f"{sum(b.size_bytes for b in bench.memory.blocks.values()) >> 20} MiB as written")


def channel(bench: Bench) -> Seen:
    """A channel group and a channel; the first methods release a semaphore."""
    device = open_device(bench.device, system=bench.system, timeout_ms=TIMEOUT_MS)
    assert isinstance(device, NvDevice)
    bench.opened = device
    queue = device.copy_queue("first")
    try:
        queue.commands().submit().wait()
    except DeviceHang as hang:
        raise StepFailed(
            str(hang), "GP_GET at 0: the doorbell or its token is wrong; beyond: the methods. "
            + DMESG,
        ) from hang
    return Seen(f"GP_GET follows GP_PUT: {queue.describe()}")


def timestamps(bench: Bench) -> Seen:
    """The GPU's clock, which counts nanoseconds, beside the host's."""
    device = bench.opened
    assert device is not None
    queue = device.copy_queue("clock")
    stamps = device.timestamps(2)
    before_ns = time.monotonic_ns()
    queue.commands().timestamp(stamps[0]).submit().wait()
    start_ns = time.monotonic_ns()
    time.sleep(CLOCK_SPAN_S)
    end_ns = time.monotonic_ns()
    queue.commands().timestamp(stamps[1]).submit().wait()
    after_ns = time.monotonic_ns()
    # However long the host was kept from looking: the stamps lie outside the one span, inside the
    # other.
    least, most, gpu_ns = end_ns - start_ns, after_ns - before_ns, (
        stamps[1].value_ns - stamps[0].value_ns
    )
    if not least * (1 - CLOCK_TOLERANCE) <= gpu_ns <= most * (1 + CLOCK_TOLERANCE):
        raise StepFailed(
            f"the GPU's clock went on by {gpu_ns} ns while the host's did by {least} to {most} ns",
            "Is RELEASE_TIMESTAMP's second half the time?",
        )
    return Seen(
        f"{gpu_ns / 1e6:.2f} ms by the GPU's clock, {least / 1e6:.2f} to {most / 1e6:.2f} ms by "
        "the host's", {"gpu_ns": gpu_ns, "least_ns": least, "most_ns": most},
    )


def copies(bench: Bench) -> Seen:
    """The copy engine, from the host's memory to the GPU's and back."""
    device = bench.opened
    assert device is not None
    data = np.random.default_rng(0).integers(0, 256, BLOCK_BYTES, dtype=np.uint8)
    there, back = device.alloc(BLOCK_BYTES), device.alloc(BLOCK_BYTES)
    storage = device.command_allocator.allocate(BLOCK_BYTES)
    ctypes.memmove(storage.address, data.tobytes(), data.size)
    host = Buffer(device.name, storage, storage.address, BLOCK_BYTES)
    device.copy_queue("copies").commands().copy(there, host).copy(back, there).submit().wait()
    found = np.frombuffer(back.cpu_view(), np.uint8)
    if not np.array_equal(found, data):
        wrong = int(np.flatnonzero(found != data)[0])
        raise StepFailed(f"byte {wrong} is {found[wrong]} instead of {data[wrong]}", DMESG)
    return Seen(f"{format_bytes(BLOCK_BYTES)} there and back, nothing changed")


def constants(bench: Bench) -> Seen:
    """A kernel of several blocks, which reads its grid and arguments from constant bank 0."""
    device = bench.opened
    assert device is not None
    blocks = 8
    out = device.alloc(4 * THREADS * blocks)
    program = device.load(bench.kernels.number_items(device.target))
    commands = device.compute_queue("dispatch").commands()
    commands.exec(program, (out,), (blocks, 1, 1)).submit().wait()
    wanted = 3 * np.arange(THREADS * blocks, dtype=np.int32) + 7
    check_equal(np.frombuffer(out.cpu_view(), np.int32), wanted, HINTS.entries)
    version = device.gpu.generation.qmd.fixed
    return Seen(
        f"{blocks} blocks of {THREADS} threads by a QMD of version "
        f"{version['QMD_MAJOR_VERSION']}.{version['QMD_MINOR_VERSION']}"
    )
