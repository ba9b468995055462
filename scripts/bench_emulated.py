"""The benchmark's rows of emulated boards: no hardware's figures, but the emulation's.

A kernel's `tinyhw` is its code for gfx1100 or sm_90 on an emulated board, its `host` the same
schedule (the same tiles, grid and local memory, `bench_lanes.py`) compiled for this processor.
Both run through queues of the same API on the same number of threads, and are timed by the queue's
timestamps.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_lanes import on_lanes
from bench_measure import TURNS, WARM_UPS, Cell, Row, sentence
from compiler import amdgpu, nvidia
from compiler.build import build
from compiler.code_object import CodeObject
from compiler.compile import linear_kernel
from compiler.dtype import dtypes
from compiler.ir import Node, Op, upper
from compiler.llvm import host_target
from compiler.target import Target
from drivers import Device, Queue, Var, open_device
from drivers.emulated.system import EmulatedSystem

AMD, NV = "gfx1100", "sm_90"
Array = npt.NDArray[np.float32]


_boards: dict[str, tuple[EmulatedSystem, Device]] = {}


def board(architecture: str = AMD) -> tuple[EmulatedSystem, Device]:
    """The emulated board of this process, with a device opened on it.

    One at a time, since boards of a process wake each other: another ends the last one.
    """
    if architecture not in _boards:
        for system, device in _boards.values():
            device.close()
            system.shut_down()
        _boards.clear()
        system = EmulatedSystem(architecture)
        device = open_device("AMD" if architecture == AMD else "NV", system=system)
        _boards[architecture] = system, device
    return _boards[architecture]


@functools.cache
def processor() -> Device:
    """The processor as a device."""
    return open_device("LLVM")


# --- kernels ------------------------------------------------------------------------------------


def input_of(position: int, *shape: int) -> Node:
    """A float32 argument."""
    return Node(Op.PARAM, dtypes.float32, (), (position, math.prod(shape))).reshape(shape)


def elements(value: Node) -> int:
    """How many there are of an expression's results."""
    return math.prod(upper(extent) for extent in value.shape)


def stored(value: Node) -> Node:
    """The kernel that stores an expression in argument 0."""
    return Node(Op.PARAM, value.dtype, (), (0, elements(value))).reshape(value.shape).assign(value)


def product(n: int) -> Node:
    """n × n × n."""
    wide = (n, n, n)
    rows = input_of(1, n, n).reshape((n, 1, n)).expand(wide)
    columns = input_of(2, n, n).permute((1, 0)).reshape((1, n, n)).expand(wide)
    return rows.alu(Op.MUL, columns).reduce(Op.ADD, (2,))


def chain(n: int) -> Node:
    """max(2 x + y, 0) / 2 + x."""
    x, y = input_of(1, n), input_of(2, n)
    two, half, zero = (Node.const(number, dtypes.float32) for number in (2.0, 0.5, 0.0))
    doubled = x.alu(Op.MUL, two).alu(Op.ADD, y).alu(Op.MAX, zero)
    return doubled.alu(Op.MUL, half).alu(Op.ADD, x)


def fma(n: int) -> Node:
    """x y + z."""
    return input_of(1, n).alu(Op.MUL, input_of(2, n)).alu(Op.ADD, input_of(3, n))


def target(architecture: str) -> Target:
    """The board as the compiler sees it."""
    if architecture == AMD:
        return amdgpu.gpu_target(architecture)
    return nvidia.gpu_target(architecture)


def gpu_code(value: Node, architecture: str = AMD) -> CodeObject:
    """An expression's kernel for the board."""
    return build(linear_kernel(stored(value), target(architecture)), target(architecture))


def host_code(value: Node, architecture: str = AMD) -> CodeObject:
    """The same schedule for this processor."""
    linear = linear_kernel(stored(value), target(architecture))
    host = host_target()
    return build(on_lanes(linear, host.vector_bits), host)


class Launch:
    """A kernel on a device with its buffers, recorded between two timestamps."""

    def __init__(self, device: Device, code: CodeObject, inputs: Sequence[Array], out: int) -> None:
        arrays = [np.zeros(out, np.float32), *inputs]
        buffers = [device.alloc(array.nbytes) for array in arrays]
        for buffer, array in zip(buffers, arrays, strict=True):
            buffer.cpu_view()[: array.nbytes] = array.tobytes()
        self.out = np.frombuffer(buffers[0].cpu_view(), np.float32, out)
        self.stamps = device.timestamps(2)
        self.queue: Queue = device.compute_queue()
        commands = self.queue.commands().timestamp(self.stamps[0])
        commands.exec(device.load(code), tuple(buffers), grid=code.grid)
        self.bound = commands.timestamp(self.stamps[1]).bind()

    def run(self) -> float:
        """Seconds between the timestamps."""
        self.bound.replay().wait()
        return (self.stamps[1].value_ns - self.stamps[0].value_ns) / 1e9


@dataclass
class EmulatedKernel(Row):
    """One kernel: emulated, and with the same schedule on the processor."""

    name: str
    value: Node
    inputs: tuple[tuple[int, ...], ...]
    truth: Callable[..., Array]
    work: float
    work_unit: str
    architecture: str = AMD
    libraries: tuple[str, ...] = ("tinyhw", "host")

    def measure(self, names: Sequence[str], seconds: float) -> dict[str, Cell]:
        """Both in turns; each checked before and after."""
        random = np.random.default_rng(0)
        inputs = [random.standard_normal(shape, dtype=np.float32) for shape in self.inputs]
        expected = self.truth(*inputs).ravel()
        cells: dict[str, Cell] = {}
        ready: dict[str, Launch] = {}
        samples: dict[str, list[float]] = {}
        for name in names:
            try:
                device, code = (
                    (board(self.architecture)[1], gpu_code) if name == "tinyhw"
                    else (processor(), host_code)
                )
                kernel = code(self.value, self.architecture)
                ready[name] = Launch(device, kernel, inputs, expected.size)
                samples[name] = []
                for _ in range(WARM_UPS):
                    ready[name].run()
                self.check(ready[name], expected)
            except Exception as error:
                ready.pop(name, None)
                cells[name] = Cell(error=sentence(error))
        for _ in range(TURNS):
            for name, launch in ready.items():
                launch.run()
                end_s = time.perf_counter() + seconds / TURNS
                while time.perf_counter() < end_s:
                    samples[name].append(launch.run())
        for name, launch in ready.items():
            self.check(launch, expected)
            cells[name] = Cell(statistics.median(samples[name]), len(samples[name]))
        return cells

    def check(self, launch: Launch, expected: Array) -> None:
        """Fails on a wrong result."""
        np.testing.assert_allclose(
            launch.out, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max())
        )
        launch.out[:] = np.nan
        launch.run()


# --- the parts ----------------------------------------------------------------------------------


@dataclass
class Figure(Row):
    """One figure of the emulation, taken in this process."""

    name: str
    take: Callable[[float], tuple[float, int]]
    unit: str = "s"
    libraries: tuple[str, ...] = ("tinyhw",)

    def measure(self, names: Sequence[str], seconds: float) -> dict[str, Cell]:
        """Value and number of samples, or what went wrong."""
        cells: dict[str, Cell] = {}
        for name in names:
            try:
                cells[name] = Cell(*self.take(seconds))
            except Exception as error:
                cells[name] = Cell(error=sentence(error))
        return cells


def replay(seconds: float) -> tuple[float, int]:
    """A replayed call of a tiny kernel with a changing argument, the wait included."""
    _, device = board()
    code = gpu_code(fma(32))
    queue, program = device.compute_queue(), device.load(code)
    out, first, second, third, other = (device.alloc(128) for _ in range(5))
    out.cpu_view()[:] = bytes(128)
    for buffer, value in ((first, 1.0), (second, 2.0), (third, 3.0), (other, 4.0)):
        buffer.cpu_view()[:] = np.full(32, value, np.float32).tobytes()
    arguments = (out, Var("x"), second, third)
    bound = queue.commands().exec(program, arguments, grid=code.grid).bind()
    result = np.frombuffer(out.cpu_view(), np.float32)
    samples: list[float] = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s or len(samples) < 10:
        for x, wanted in ((first, 5.0), (other, 11.0)):
            start_s = time.perf_counter()
            bound.replay(x=x).wait()
            samples.append(time.perf_counter() - start_s)
            assert (result == wanted).all(), f"{result} is not {wanted}"
    return statistics.median(samples), len(samples)


class Loaded:
    """A kernel's code and arguments in this process, to be run by the translator alone."""

    def __init__(self, value: Node, inputs: Sequence[tuple[int, ...]]) -> None:
        from compiler.amdgpu import KernelDescriptor
        from drivers.emulated.simt.dispatch import Dispatch, MemoryRange

        self.code = code = gpu_code(value)
        sizes = (elements(value), *(math.prod(shape) for shape in inputs))
        self.arrays = [np.zeros(size, np.float32) for size in sizes]
        room = np.zeros(len(code.image) + 4096, np.uint8)
        base = (room.ctypes.data + 4095) & ~4095
        at = base - room.ctypes.data
        room[at : at + len(code.image)] = np.frombuffer(code.image, np.uint8)
        kernarg = np.array([array.ctypes.data for array in self.arrays], np.uint64)
        self.kept = (room, kernarg)
        descriptor = KernelDescriptor.decode(code.image, code.entry)
        second = descriptor.compute_pgm_rsrc2
        places = iter(range(second >> 1 & 31, 128))
        ids = [next(places) if second >> bit & 1 else -1 for bit in (7, 8, 9)]
        touched: list[npt.NDArray[Any]] = [*self.arrays, kernarg, room]
        memory = [
            MemoryRange(array.ctypes.data, array.ctypes.data + array.nbytes) for array in touched
        ]
        address = kernarg.ctypes.data
        self.dispatch = Dispatch(
            base + code.entry + descriptor.kernel_code_entry_byte_offset,
            (address & 0xFFFFFFFF, address >> 32),
            (ids[0], ids[1], ids[2]),
            code.block,
            code.grid,
            tuple(memory),
            lds_bytes=code.local_bytes,
            scratch_bytes=code.private_bytes,
            float_mode=descriptor.compute_pgm_rsrc1 >> 12 & 0xFF,
        )

    def instructions(self, engine: Any) -> list[Any]:
        """The guest's instructions, once each."""
        kernel = engine.kernel(self.dispatch)
        found: list[Any] = kernel.program.instructions
        return found


def wave_instructions(seconds: float) -> tuple[float, int]:
    """Millions of instructions of waves in a second on one thread, hints and waits not counted."""
    from drivers.emulated.simt.engine import Engine
    from drivers.system import RealSystem

    n = 1 << 18
    loaded, engine = Loaded(fma(n), [(n,)] * 3), Engine(RealSystem(), threads=1, eager=True)
    assert engine.run(loaded.dispatch) is None
    counted = [i for i in loaded.instructions(engine) if i.format != "SOPP"]
    grid, block = loaded.dispatch.grid, loaded.dispatch.block
    waves = math.prod(grid) * -(-math.prod(block) // loaded.dispatch.wave_size)
    samples: list[float] = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s or not samples:
        start_s = time.perf_counter()
        engine.run(loaded.dispatch)
        samples.append(time.perf_counter() - start_s)
    return len(counted) * waves / statistics.median(samples) / 1e6, len(samples)


def translation() -> float:
    """Seconds to translate one instruction; needs an empty cache to mean anything."""
    from drivers.emulated.simt.engine import Engine
    from drivers.system import RealSystem

    engine = Engine(RealSystem(), eager=True)
    first = Loaded(fma(64), [(64,)] * 3)
    assert engine.run(first.dispatch) is None  # the helpers are compiled here
    spent_s, count = 0.0, 0
    for value, inputs in (
        (product(128), [(128, 128)] * 2),
        (chain(1 << 16), [(1 << 16,)] * 2),
        (input_of(1, 256, 256).reduce(Op.ADD, (1,)), [(256, 256)]),
        (input_of(1, 256, 256).reduce(Op.ADD, (0,)), [(256, 256)]),
    ):
        loaded = Loaded(value, inputs)
        start_s = time.perf_counter()
        assert engine.run(loaded.dispatch) is None
        again_s = time.perf_counter()
        assert engine.run(loaded.dispatch) is None
        spent_s += (again_s - start_s) - (time.perf_counter() - again_s)
        count += len(loaded.instructions(engine))
    return spent_s / count


def start() -> float:
    """Seconds from opening a device to the first kernel's result."""
    code = gpu_code(fma(32))
    start_s = time.perf_counter()
    _, device = board()
    launch = Launch(device, code, [np.full(32, n, np.float32) for n in (1, 2, 3)], 32)
    launch.run()
    took_s = time.perf_counter() - start_s
    assert (launch.out == 5).all(), f"{launch.out} is not 5"
    return took_s


def idle_board() -> int:
    """The process of a board that has run a kernel and has nothing to do."""
    start()
    system, _ = board()
    assert system.process is not None
    return system.process.child.pid


def rows() -> list[Row]:
    """The rows of this file that are measured in the benchmark's process."""
    return [
        *_kernels(AMD, "emulated"),
        *_kernels(NV, f"emulated {NV}"),
        Figure("emulated fma on one core", wave_instructions, "M/s"),
        Figure("emulated replay of a tiny kernel", replay),
    ]


def _kernels(architecture: str, prefix: str) -> list[Row]:
    k, m = 1 << 10, 1 << 18
    return [
        EmulatedKernel(
            f"{prefix} elementwise 256K", chain(m), ((m,),) * 2,
            lambda x, y: np.maximum(2 * x + y, 0) / 2 + x, 3.0 * 4 * m, "GB/s", architecture,
        ),
        EmulatedKernel(
            f"{prefix} sum 1024x1024 axis 0", input_of(1, k, k).reduce(Op.ADD, (0,)), ((k, k),),
            lambda x: x.sum(0), 4.0 * k * k, "GB/s", architecture,
        ),
        EmulatedKernel(
            f"{prefix} sum 1024x1024 axis 1", input_of(1, k, k).reduce(Op.ADD, (1,)), ((k, k),),
            lambda x: x.sum(1), 4.0 * k * k, "GB/s", architecture,
        ),
        EmulatedKernel(
            f"{prefix} matmul 512", product(512), ((512, 512),) * 2,
            np.matmul, 2.0 * 512**3, "GFLOP/s", architecture,
        ),
    ]
