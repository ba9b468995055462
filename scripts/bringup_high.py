"""The later steps of bringing up a GPU: the finished device, through the public queue API.

A vendor's bench brings the kernels and says where to look when a step fails.
"""

from __future__ import annotations

import functools
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from bringup_steps import Seen, StepFailed
from compiler.code_object import CodeObject
from compiler.compile import compile_kernel
from compiler.dtype import dtypes
from compiler.ir import Node, Op
from compiler.target import Target
from drivers import Buffer, open_device
from drivers.errors import DeviceFault
from drivers.gpu import GpuDevice
from drivers.queue import Commands
from drivers.system import System

THREADS: Final = 64
"""Of a block of every kernel here."""
COPY_BYTES_PER_BLOCK: Final = 16 * THREADS
SMALLEST_COPY_BYTES: Final = 4 << 10
ROUNDS: Final = 5
LAUNCHES: Final = 300
FAR_BYTES: Final = 1 << 40
MATRIX: Final = 256
TIMEOUT_MS: Final = 10_000


class Kernels(Protocol):
    """Kernels of blocks of THREADS, one fact of the hardware each; an item is a thread's number."""

    def number_items(self, target: Target) -> CodeObject:
        """out[item] = 3 * item + 7, for int32."""

    def reverse_blocks(self, target: Target) -> CodeObject:
        """Reverses each block of `in` through local memory, with a barrier between: out, in."""

    def through_scratch(self, target: Target) -> CodeObject:
        """out[item] = item, kept on the way in a private array whose index nobody knows before."""

    def store_far(self, target: Target) -> CodeObject:
        """out[distance + item] = 1: faults where nothing is mapped."""

    def copy_lines(self, target: Target) -> CodeObject:
        """Copies 16 bytes a thread: out, in."""

    def nothing(self, target: Target) -> CodeObject:
        """Ends at once; takes `out`."""


@dataclass(frozen=True)
class Hints:
    """Where to look when a step fails."""

    log: str
    entries: str
    local_memory: str
    scratch: str
    faults_off: str


class DeviceBench(Protocol):
    """What these steps need of a bench."""

    device: str
    system: System
    largest_copy_bytes: int
    kernels: Kernels
    hints: Hints
    copy_engine: str


@functools.cache
def product(n: int) -> Node:
    """The matrix product of two (n, n) float32 matrices, as the compiler takes it."""

    def matrix(slot: int) -> Node:
        return Node(Op.PARAM, dtypes.float32, (), (slot, n * n)).reshape((n, n))

    left = matrix(1).reshape((n, 1, n)).expand((n, n, n))
    right = matrix(2).permute((1, 0)).reshape((1, n, n)).expand((n, n, n))
    total = left.alu(Op.MUL, right).reduce(Op.ADD, (2,)).reshape((n, n))
    return matrix(0).assign(total)


def opened(bench: DeviceBench) -> GpuDevice:
    """The device, on the same System and the same nodes as the steps before."""
    device = open_device(bench.device, system=bench.system, timeout_ms=TIMEOUT_MS)
    assert isinstance(device, GpuDevice)
    return device


def array(buffer: Buffer, kind: str = "int32") -> np.ndarray:
    """A buffer's contents, in place."""
    return np.frombuffer(buffer.cpu_view(), dtype=kind)


def check_equal(found: np.ndarray, wanted: np.ndarray, remedy: str) -> None:
    """Raises StepFailed, naming the first place that differs."""
    wrong = np.flatnonzero(found != wanted)
    if wrong.size:
        first = int(wrong[0])
        raise StepFailed(
            f"{wrong.size} of {found.size} results are wrong, the first is {first}: "
            f"{found[first]} instead of {wanted[first]}",
            remedy,
        )


def device(bench: DeviceBench) -> Seen:
    """Opens the device, runs a kernel and a copy on two queues that wait for each other."""
    with opened(bench) as dev:
        first, second = dev.alloc(4 * THREADS), dev.alloc(4 * THREADS)
        program = dev.load(bench.kernels.number_items(dev.target))
        point = dev.compute_queue().commands().exec(program, (first,), (1, 1, 1)).submit()
        dev.copy_queue().commands().wait(point).copy(second, first).submit().wait()
        check_equal(
            array(second), 3 * np.arange(THREADS, dtype=np.int32) + 7,
            bench.hints.entries,
        )
        return Seen(f"{dev.name} opened; a kernel, then a copy that waited for it")


def local_memory(bench: DeviceBench) -> Seen:
    """Threads exchange values through local memory, across a barrier."""
    blocks = 32
    with opened(bench) as dev:
        out, given = dev.alloc(4 * THREADS * blocks), dev.alloc(4 * THREADS * blocks)
        array(given)[:] = np.arange(THREADS * blocks)
        program = dev.load(bench.kernels.reverse_blocks(dev.target))
        dev.compute_queue().commands().exec(program, (out, given), (blocks, 1, 1)).submit().wait()
        wanted = array(given).reshape(blocks, THREADS)[:, ::-1].reshape(-1)
        check_equal(
            array(out), wanted,
            bench.hints.local_memory,
        )
        return Seen(f"{blocks} blocks reversed their {THREADS} values")


def scratch(bench: DeviceBench) -> Seen:
    """Private arrays of all waves that may run at once lie apart."""
    blocks = 2048
    with opened(bench) as dev:
        out = dev.alloc(4 * THREADS * blocks)
        program = dev.load(bench.kernels.through_scratch(dev.target))
        dev.compute_queue().commands().exec(program, (out,), (blocks, 1, 1)).submit().wait()
        check_equal(
            array(out), np.arange(THREADS * blocks, dtype=np.int32),
            bench.hints.scratch,
        )
        return Seen(
            f"{blocks} blocks kept their values in {program.code.private_bytes or 512} bytes a "
            "thread"
        )


def fault_report(bench: DeviceBench) -> Seen:
    """A kernel writes where nothing is; the error names the place, and reopening works."""
    with opened(bench) as dev:
        out = dev.alloc(4096)
        page = (out.gpu_addr + FAR_BYTES) & -4096
        program = dev.load(bench.kernels.store_far(dev.target))
        point = dev.compute_queue().commands().exec(
            program, (out, FAR_BYTES // 4), (1, 1, 1)
        ).submit()
        try:
            point.wait()
        except DeviceFault as fault:
            text = fault.detail
        else:
            raise StepFailed(
                f"a kernel wrote to {page:#x}, where nothing is mapped, and no fault was reported",
                bench.hints.faults_off,
            )
    told = re.search(r"(?:accessed|read|wrote) (0x[0-9a-f]+)", text)
    if told is None or int(told[1], 16) & -4096 != page:
        raise StepFailed(f"the fault was at {page:#x}, but the report says: {text}")
    with opened(bench) as dev:
        memory = dev.alloc(8)
        dev.compute_queue().commands().write(memory, 3).submit().wait()
        check_equal(array(memory, "uint64"), np.array([3], np.uint64), bench.hints.log)
    return Seen(f"{text} Reopened, and usable.")


# ---- how fast ----


def host_buffer(dev: GpuDevice, size_bytes: int) -> Buffer:
    """Memory of the host that the GPU reaches."""
    storage = dev.command_allocator.allocate(size_bytes)
    return Buffer(dev.name, storage, storage.address, size_bytes)


def rate(dev: GpuDevice, commands: Commands, size_bytes: int, work: Callable[[Commands], object],
         ) -> float:
    """Bytes a second by the GPU's own clock, the median of some rounds."""
    stamps = dev.timestamps(2)
    commands.timestamp(stamps[0])
    work(commands)
    commands.timestamp(stamps[1])
    found = []
    for _ in range(ROUNDS):
        commands.submit().wait()
        found.append(max(1, stamps[1].value_ns - stamps[0].value_ns))
    return size_bytes / statistics.median(found) * 1e9


def bandwidth(bench: DeviceBench) -> Seen:
    """Copies up, down and on the device, by the copy engine and by a kernel, over their size."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with opened(bench) as dev:
        copies, kernels = dev.copy_queue(), dev.compute_queue()
        program, largest = dev.load(bench.kernels.copy_lines(dev.target)), bench.largest_copy_bytes
        host, near, far = host_buffer(dev, largest), dev.alloc(largest), dev.alloc(largest)
        random = np.random.default_rng(1).integers(0, 256, largest, dtype=np.uint8)
        ways = (("up", near, host), ("on device", far, near), ("down", host, far))
        size = SMALLEST_COPY_BYTES
        while size <= largest:
            for engine in (bench.copy_engine, "kernel"):
                array(host, "uint8")[:] = random
                for way, to, source in ways:
                    a, b = to.view(0, size), source.view(0, size)

                    def work(
                        commands: Commands, a: Buffer = a, b: Buffer = b, size: int = size,
                        engine: str = engine,
                    ) -> object:
                        if engine != "kernel":
                            return commands.copy(a, b)
                        grid = (size // COPY_BYTES_PER_BLOCK, 1, 1)
                        return commands.exec(program, (a, b), grid)

                    queue = kernels if engine == "kernel" else copies
                    speed = rate(dev, queue.commands(), size, work)
                    curves.setdefault(f"{way}, {engine}", []).append((size, speed))
                check_equal(array(far, "uint8")[:size], random[:size], "The bytes got lost.")
            size *= 4
        best = {name: max(speed for _, speed in points) for name, points in curves.items()}
    shown = ", ".join(f"{name} {speed / 1e9:.2f}" for name, speed in best.items())
    return Seen(f"GB/s at best: {shown}", {"curves": curves})


def launch_latency(bench: DeviceBench) -> Seen:
    """From the submission of an empty kernel until the host knows that it has ended."""
    with opened(bench) as dev:
        queue, memory = dev.compute_queue(), dev.alloc(64)
        program = dev.load(bench.kernels.nothing(dev.target))
        bound = queue.commands().exec(program, (memory,), (1, 1, 1)).bind()
        for _ in range(20):
            bound.replay().wait()
        found = []
        for _ in range(LAUNCHES):
            start_ns = time.perf_counter_ns()
            bound.replay().wait()
            found.append((time.perf_counter_ns() - start_ns) / 1e3)
    quantiles = statistics.quantiles(found, n=100)
    return Seen(
        f"median {statistics.median(found):.0f} µs, 99 of 100 below {quantiles[98]:.0f} µs, "
        f"{LAUNCHES} launches",
        {"microseconds": found},
    )


def matmul(bench: DeviceBench) -> Seen:
    """A matrix product from our compiler, compared with NumPy."""
    n = MATRIX
    with opened(bench) as dev:
        program = dev.load(compile_kernel(product(n), dev.target))
        out, a, b = (dev.alloc(4 * n * n) for _ in range(3))
        random = np.random.default_rng(2)
        for buffer in (a, b):
            array(buffer, "float32")[:] = random.uniform(-1, 1, n * n)
        stamps = dev.timestamps(2)
        commands = dev.compute_queue().commands().timestamp(stamps[0])
        commands.exec(program, (out, a, b)).timestamp(stamps[1])
        for _ in range(3):
            commands.submit().wait()
        seconds = max(1, stamps[1].value_ns - stamps[0].value_ns) / 1e9
        left, right = (array(x, "float32").reshape(n, n).astype(np.float64) for x in (a, b))
        error = float(np.abs(array(out, "float32").reshape(n, n) - left @ right).max())
        if not error < 1e-4:
            raise StepFailed(
                f"the product of two {n} x {n} matrices is off by {error:g}",
                "Single kernels work: compare the compiled kernel with the LLVM device's.",
            )
        speed = 2 * n**3 / seconds
        return Seen(
            f"{n} x {n} x {n} in {seconds * 1e3:.2f} ms ({speed / 1e9:.1f} GFLOP/s), largest "
            f"error {error:.1e}",
            {"flop_per_s": speed, "error": error},
        )
