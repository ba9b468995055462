"""The benchmark's rows of a GPU's queues: launches, copies, elementwise work, matrix products.

They go through the queue API alone, without a tensor, on silicon or (at sizes that suit it) on an
emulated board. `torch` stands beside them where it sees a GPU: eager launches beside submitted
lists, a CUDA Graph beside a replay.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_emulated import chain, elements, input_of, stored
from bench_libraries import Library, Torch
from bench_measure import Cell, Contender, Row, TimedRow
from compiler.build import build
from compiler.code_object import CodeObject
from compiler.compile import linear_kernel
from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op
from compiler.nvidia_matrix import TF32
from compiler.target import Target
from drivers import Buffer, Device, open_device
from drivers.system import PAGE_BYTES

GPUS = ("AMD", "NV")
CHAIN = 100
TINY = 32
SEED = 0
Bytes = npt.NDArray[np.uint8]


@functools.cache
def device(name: str) -> Device:
    """The GPU of these rows, open until the process ends."""
    return open_device(name)


@functools.cache
def torch_sees_a_gpu() -> bool:
    """Whether there is something to compare with."""
    if importlib.util.find_spec("torch") is None:
        return False
    return bool(importlib.import_module("torch").cuda.is_available())


@dataclass
class GpuRow(TimedRow):
    """A call on the GPU's queues and, with torch, what its users would write instead."""

    name: str
    gpu: str
    ours: Callable[[Device], Contender]
    theirs: Callable[[Any], Contender]
    libraries: tuple[str, ...] = ("tinyhw", "torch")
    work: float = 0.0
    work_unit: str = "GB/s"

    def measure(self, names: Sequence[str], seconds: float) -> dict[str, Cell]:
        """torch takes part where it sees a GPU."""
        taking = [name for name in names if name != "torch" or torch_sees_a_gpu()]
        return super().measure(taking, seconds)

    def contender(self, library: Library) -> Contender:
        """Makes inputs and compiles for one library."""
        if isinstance(library, Torch):
            return self.theirs(library.module)
        return self.ours(device(self.gpu))


def compiled(value: Node, target: Target) -> CodeObject:
    """The kernel that stores an expression in argument 0."""
    return build(linear_kernel(stored(value), target), target)


def filled(gpu: Device, data: npt.NDArray[Any]) -> Buffer:
    """A buffer of the GPU with these values."""
    buffer = gpu.alloc(data.nbytes)
    seen(buffer, np.dtype(np.uint8))[: data.nbytes] = data.reshape(-1).view(np.uint8)
    return buffer


def seen(buffer: Buffer, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A buffer's contents."""
    return np.frombuffer(buffer.cpu_view(), dtype)


# --- launches -----------------------------------------------------------------------------------


def launches(gpu: Device, count: int, replayed: bool) -> Contender:
    """`count` kernels one after the other, each of which adds 1 to what the last one left."""
    one = input_of(1, TINY).alu(Op.ADD, Node.const(1.0, dtypes.float32))
    code = compiled(one, gpu.target)
    places = [filled(gpu, np.zeros(TINY, np.float32)) for _ in range(2)]
    program, queue = gpu.load(code), gpu.compute_queue()
    state = [0]  # where the sum stands, and what it is

    def commands(first: int) -> Any:
        recorded = queue.commands()
        for step in range(first, first + count):
            recorded.exec(program, (places[(step + 1) % 2], places[step % 2]), grid=code.grid)
        return recorded

    # An odd number of kernels ends in the other buffer: then lists for both take turns.
    lists = [commands(first) for first in range(2)]
    bound = [one.bind() for one in lists] if replayed else []

    def call(index: int) -> int:
        first = state[0] % 2
        point = bound[first].replay() if replayed else lists[first].submit()
        point.wait()
        state[0] += count
        return state[0]

    def check(index: int, total: int) -> None:
        assert (seen(places[total % 2], np.dtype(np.float32)) == total).all()

    return Contender(call, check, count)


def torch_launches(torch: Any, count: int, replayed: bool) -> Contender:
    """The same with torch: eager, or a CUDA Graph."""
    x = torch.zeros(TINY, device="cuda")

    def steps() -> None:
        for _ in range(count):
            x.add_(1)

    run, state = steps, [0]
    if replayed:
        steps()  # a capture wants everything loaded
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            steps()
        x.zero_()
        run = graph.replay

    def call(index: int) -> int:
        run()
        torch.cuda.synchronize()
        state[0] += count
        return state[0]

    def check(index: int, total: int) -> None:
        assert (x.cpu().numpy() == total).all()

    return Contender(call, check, count)


# --- copies -------------------------------------------------------------------------------------


def pages(size_bytes: int, values: Bytes | None = None) -> Bytes:
    """Whole pages of the host's memory, which a GPU can reach."""
    room = np.zeros(size_bytes + PAGE_BYTES, np.uint8)
    start = -room.ctypes.data % PAGE_BYTES
    found = room[start : start + size_bytes]
    if values is not None:
        found[:] = values
    return found


def noise(size_bytes: int) -> Bytes:
    """Bytes that are not all the same."""
    return np.random.default_rng(SEED).integers(0, 256, size_bytes, dtype=np.uint8)


def copies(gpu: Device, source: str, to: str, size_bytes: int) -> Contender:
    """A replayed copy by the copy engine between pinned pages of the host and the GPU's memory."""
    data = noise(size_bytes)

    def place(where: str, values: Bytes | None) -> tuple[Buffer, Bytes]:
        if where == "host":
            array = pages(size_bytes, values)
            return gpu.host_buffer(array.ctypes.data, size_bytes, array), array
        buffer = filled(gpu, np.zeros_like(data) if values is None else values)
        return buffer, seen(buffer, np.dtype(np.uint8))

    origin, target = place(source, data), place(to, None)
    bound = gpu.copy_queue().commands().copy(target[0], origin[0]).bind()

    def check(index: int, result: object) -> None:
        ends = slice(0, size_bytes, max(1, size_bytes // 4096))  # the bus is slow to read
        np.testing.assert_array_equal(target[1][ends], data[ends])

    return Contender(lambda index: bound.replay().wait(), check)


def torch_copies(torch: Any, source: str, to: str, size_bytes: int) -> Contender:
    """The same with torch."""
    data = torch.from_numpy(noise(size_bytes))
    origin = data.cuda() if source == "GPU" else data.pin_memory()
    target = torch.zeros_like(origin, device="cuda" if to == "GPU" else "cpu")
    if to == "host":
        target = target.pin_memory()

    def call(index: int) -> None:
        target.copy_(origin, non_blocking=True)
        torch.cuda.synchronize()

    def check(index: int, result: object) -> None:
        assert torch.equal(target.cpu(), data)

    return Contender(call, check)


# --- kernels ------------------------------------------------------------------------------------


def kernel(
    gpu: Device, value: Node, inputs: Sequence[npt.NDArray[Any]], expected: npt.NDArray[np.float32],
    tolerance: float, target: Target | None = None,
) -> Contender:
    """A replayed kernel. What it computes is compared at its first places with `expected`."""
    code = compiled(value, target or gpu.target)
    out = gpu.alloc(elements(value) * value.dtype.itemsize)
    arguments = (out, *(filled(gpu, array) for array in inputs))
    bound = gpu.compute_queue().commands().exec(gpu.load(code), arguments, grid=code.grid).bind()

    def check(index: int, result: object) -> None:
        found = seen(out, np.dtype(np.float32))[: expected.size]
        limit = tolerance * float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit)
        seen(out, np.dtype(np.float32))[: expected.size] = np.nan
        bound.replay().wait()

    return Contender(lambda index: bound.replay().wait(), check)


def vectors(n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Two inputs of the elementwise row."""
    random = np.random.default_rng(SEED)
    return random.standard_normal(n, np.float32), random.standard_normal(n, np.float32)


def elementwise(gpu: Device, n: int) -> Contender:
    """max(2 x + y, 0) / 2 + x."""
    x, y = vectors(n)
    some = slice(0, 1 << 16)
    expected = np.maximum(2 * x[some] + y[some], 0) / 2 + x[some]
    return kernel(gpu, chain(n), (x, y), expected, 1e-5)


def torch_elementwise(torch: Any, n: int) -> Contender:
    """The same with torch, whose kernels do not fuse."""
    x, y = (torch.from_numpy(array).cuda() for array in vectors(n))
    out = torch.empty_like(x)

    def call(index: int) -> None:
        torch.mul(x, 2, out=out).add_(y).clamp_(min=0).mul_(0.5).add_(x)
        torch.cuda.synchronize()

    def check(index: int, result: object) -> None:
        assert torch.allclose(out, (2 * x + y).clamp(min=0) / 2 + x)

    return Contender(call, check)


def product(n: int, dtype: DType) -> Node:
    """n × n × n: rows of the first by rows of the second, summed in float32."""
    sides = []
    for position, shape in ((1, (n, 1, n)), (2, (1, n, n))):
        values = Node(Op.PARAM, dtype, (), (position, n * n)).cast(dtypes.float32)
        sides.append(values.reshape(shape).expand((n, n, n)))
    return sides[0].alu(Op.MUL, sides[1]).reduce(Op.ADD, (2,))


def factors(n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Factors that bfloat16 and TF32 hold exactly: eighths from −2 to 2."""
    random = np.random.default_rng(SEED)
    eighth = np.float32(1 / 8)
    a, b = (random.integers(-16, 17, (n, n)).astype(np.float32) * eighth for _ in range(2))
    return a, b


def matmul(gpu: Device, n: int, kind: str) -> Contender:
    """A product of float32, of float32 on tensor cores as TF32, or of bfloat16."""
    dtype = dtypes.bfloat16 if kind == "bf16" else dtypes.float32
    a, b = factors(n)
    expected = (a[:8] @ b.T).ravel()
    inputs: Sequence[npt.NDArray[Any]] = (a, b)
    if dtype is dtypes.bfloat16:
        inputs = [(array.view(np.uint32) >> 16).astype(np.uint16) for array in (a, b)]
    target = gpu.target
    if kind == "tf32":
        target = dataclasses.replace(target, matrix_units=(*target.matrix_units, TF32))
    return kernel(gpu, product(n, dtype), inputs, expected, 1e-5, target)


def torch_matmul(torch: Any, n: int, kind: str) -> Contender:
    """The same with torch, which asks cuBLAS; bfloat16 gives bfloat16."""
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    a, b = (torch.from_numpy(array).cuda().to(dtype) for array in factors(n))
    out = torch.empty(n, n, dtype=dtype, device="cuda")

    def call(index: int) -> None:
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        torch.matmul(a, b.T, out=out)
        torch.cuda.synchronize()

    def check(index: int, result: object) -> None:
        truth = a[:8].cpu().float() @ b.cpu().float().T
        difference = (out[:8].cpu().float() - truth).abs().max()
        assert difference <= truth.abs().max() / 100

    return Contender(call, check)


# --- all of them --------------------------------------------------------------------------------


def rows(name: str) -> list[Row]:
    """The rows of a GPU, with sizes for silicon or for an emulated board."""
    emulated = bool(os.environ.get("EMULATE"))
    n, copied_bytes, size = (
        (1 << 18, 4 << 20, 128) if emulated else (1 << 26, 256 << 20, 8192)
    )
    found: list[Row] = []
    for title, count, replayed in (
        ("launch of a tiny kernel", 1, False), (f"{CHAIN} launches, each", CHAIN, False),
        ("replay of one launch", 1, True), (f"replay of {CHAIN} launches, each", CHAIN, True),
    ):
        found.append(GpuRow(
            title, name, functools.partial(launches, count=count, replayed=replayed),
            functools.partial(torch_launches, count=count, replayed=replayed),
        ))
    for source, to, moved in (("host", "GPU", 1), ("GPU", "host", 1), ("GPU", "GPU", 2)):
        found.append(GpuRow(
            f"copy of {copied_bytes >> 20} MiB, {source} to {to}", name,
            functools.partial(copies, source=source, to=to, size_bytes=copied_bytes),
            functools.partial(torch_copies, source=source, to=to, size_bytes=copied_bytes),
            work=float(moved * copied_bytes),
        ))
    found.append(GpuRow(
        f"elementwise chain, {n >> 10}K elements", name, functools.partial(elementwise, n=n),
        functools.partial(torch_elementwise, n=n), work=3.0 * 4 * n,
    ))
    for kind in ("f32", "tf32", "bf16") if name == "NV" else ("f32", "bf16"):
        found.append(GpuRow(
            f"product of {size}³, {kind}", name, functools.partial(matmul, n=size, kind=kind),
            functools.partial(torch_matmul, n=size, kind=kind),
            work=2.0 * size**3, work_unit="GFLOP/s",
        ))
    return found
