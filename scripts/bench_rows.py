"""The rows of the benchmark: what each library computes, and how its results are checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import bench_emulated
import bench_gpu
from bench_libraries import Array, Function, Library, Tiny
from bench_measure import Cell, Contender, Row, TimedRow
from bench_training import TrainingStep

INPUT_SETS = 3  # calls go through them in turn
REPLAYS = 1000
CHILD = Path(__file__).with_name("bench_child.py")
CHILD_TIMEOUT_S = 600
CHILD_RUNS = 5


@dataclass
class ArrayRow(TimedRow):
    """A function of arrays.

    `inputs` draws one set of them. `numpy` and `torch` are given a set to size their outputs by,
    and return the function to time; `tiny` is the function itself. NumPy's result is the truth.
    """

    name: str
    inputs: Callable[[np.random.Generator], tuple[Array, ...]]
    numpy: Callable[..., Function]
    torch: Callable[..., Function]
    tiny: Function
    work: float = 0.0
    work_unit: str = ""
    tolerance: float = 1e-4  # relative to the largest value expected
    repeats: int = 1

    def contender(self, library: Library) -> Contender:
        """Draws the inputs, the same for each library, and computes what must come out."""
        random = np.random.default_rng(0)
        sets = [self.inputs(random) for _ in range(INPUT_SETS)]
        reference = self.numpy(*sets[0])
        expected = [copied(reference(*inputs)) for inputs in sets]
        natives = [tuple(library.native(array) for array in inputs) for inputs in sets]
        if isinstance(library, Tiny):
            function = library.compiled(self.tiny)
        elif library.name == "torch":
            function = self.torch(library.module, *natives[0])
        else:
            function = self.numpy(*natives[0])
        repeats = self.repeats

        def call(index: int) -> Any:
            for step in range(index - repeats + 1, index + 1):
                result = function(*natives[step % INPUT_SETS])
            library.synchronize()
            return result

        def check(index: int, result: Any) -> None:
            results = result if isinstance(result, tuple) else (result,)
            for got, wanted in zip(results, expected[index % INPUT_SETS], strict=True):
                np.testing.assert_allclose(
                    library.numpy(got), wanted, rtol=0, atol=self.tolerance * np.abs(wanted).max()
                )

        return Contender(call, check, repeats)


def copied(result: Any) -> tuple[Array, ...]:
    """Results as arrays of their own, since functions reuse their outputs."""
    return tuple(np.array(array) for array in (result if isinstance(result, tuple) else (result,)))


def normal(*shape: int) -> Callable[[np.random.Generator], Array]:
    """Draws float32 from the normal distribution."""
    return lambda random: random.standard_normal(shape, dtype=np.float32)


# --- matrix products ----------------------------------------------------------------------------


def matmul(n: int) -> Row:
    """An n×n×n matrix product."""

    def numpy(a: Array, b: Array) -> Function:
        out = np.empty((n, n), np.float32)
        return lambda a, b: np.matmul(a, b, out=out)

    def torch(torch: Any, a: Any, b: Any) -> Function:
        out = torch.empty(n, n)
        return lambda a, b: torch.matmul(a, b, out=out)

    draw = normal(n, n)
    return ArrayRow(
        f"matmul {n}",
        lambda random: (draw(random), draw(random)),
        numpy,
        torch,
        lambda a, b: a @ b,
        work=2.0 * n**3,
        work_unit="GFLOP/s",
    )


# --- elementwise and reductions -----------------------------------------------------------------


def elementwise(n: int) -> Row:
    """max(2 x + y, 0) / 2 + x, in one pass where the library fuses."""

    def numpy(x: Array, y: Array) -> Function:
        out = np.empty(n, np.float32)

        def chain(x: Array, y: Array) -> Array:
            np.multiply(x, 2, out=out)
            np.add(out, y, out=out)
            np.maximum(out, 0, out=out)
            np.multiply(out, 0.5, out=out)
            return np.add(out, x, out=out)

        return chain

    def torch(torch: Any, x: Any, y: Any) -> Function:
        out = torch.empty(n)
        return lambda x, y: torch.mul(x, 2, out=out).add_(y).clamp_(min=0).mul_(0.5).add_(x)

    draw = normal(n)
    return ArrayRow(
        f"elementwise chain {n >> 20}M",
        lambda random: (draw(random), draw(random)),
        numpy,
        torch,
        lambda x, y: (x * 2 + y).relu() * 0.5 + x,
        work=3.0 * 4 * n,
        work_unit="GB/s",
    )


def reduction(rows: int, columns: int, axis: int | None) -> Row:
    """The sum along one axis, or over everything."""

    def numpy(x: Array) -> Function:
        out = np.empty(np.sum(x, axis).shape, np.float32)
        return lambda x: np.sum(x, axis, out=out)

    return ArrayRow(
        f"sum {rows}x{columns} {'all' if axis is None else f'axis {axis}'}",
        lambda random: (random.random((rows, columns), dtype=np.float32),),
        numpy,
        lambda torch, x: lambda x: x.sum() if axis is None else x.sum(axis),
        lambda x: x.sum(axis),
        work=4.0 * rows * columns,
        work_unit="GB/s",
    )


def softmax(rows: int, columns: int) -> Row:
    """Softmax of each row."""

    def numpy(x: Array) -> Function:
        out = np.empty_like(x)
        row = np.empty((rows, 1), np.float32)

        def function(x: Array) -> Array:
            np.max(x, axis=1, keepdims=True, out=row)
            np.subtract(x, row, out=out)
            np.exp(out, out=out)
            np.sum(out, axis=1, keepdims=True, out=row)
            return np.divide(out, row, out=out)

        return function

    draw = normal(rows, columns)
    return ArrayRow(
        f"softmax {rows}x{columns}",
        lambda random: (draw(random),),
        numpy,
        lambda torch, x: lambda x: torch.softmax(x, 1),
        lambda x: x.softmax(1),
        work=2.0 * 4 * rows * columns,
        work_unit="GB/s",
    )


def layernorm(rows: int, columns: int) -> Row:
    """Each row brought to mean 0 and variance 1."""
    epsilon = 1e-5

    def numpy(x: Array) -> Function:
        out, square = np.empty_like(x), np.empty_like(x)
        row = np.empty((rows, 1), np.float32)

        def function(x: Array) -> Array:
            np.mean(x, axis=1, keepdims=True, out=row)
            np.subtract(x, row, out=out)
            np.multiply(out, out, out=square)
            np.mean(square, axis=1, keepdims=True, out=row)
            np.add(row, epsilon, out=row)
            np.sqrt(row, out=row)
            return np.divide(out, row, out=out)

        return function

    draw = normal(rows, columns)
    return ArrayRow(
        f"layernorm {rows}x{columns}",
        lambda random: (draw(random) * 3 + 1,),
        numpy,
        lambda torch, x: lambda x: torch.nn.functional.layer_norm(x, (columns,), eps=epsilon),
        lambda x: x.layernorm(eps=epsilon),
        work=2.0 * 4 * rows * columns,
        work_unit="GB/s",
    )


# --- convolutions -------------------------------------------------------------------------------


def windows(x: Array) -> Array:
    """The 3×3 neighbourhoods (batch, channel, y, x, 3, 3) of images with a border of zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))


def convolved(x: Array, w: Array) -> Array:
    """A 3×3 convolution as one matrix product, which is the best that NumPy can do."""
    return np.moveaxis(np.tensordot(windows(x), w, ((1, 4, 5), (1, 2, 3))), 3, 1)


def convolution(batch: int, channels: int, size: int) -> list[Row]:
    """A 3×3 convolution between equal numbers of channels: forward, and forward and backward."""
    draw_x, draw_w = normal(batch, channels, size, size), normal(channels, channels, 3, 3)
    label = f"conv2d 3x3 {batch}x{channels}x{size}x{size}"
    work = 2.0 * batch * size * size * channels * channels * 9

    def torch_backward(torch: Any, *example: Any) -> Function:
        def function(x: Any, w: Any, seed: Any) -> tuple[Any, Any, Any]:
            x.requires_grad_()
            w.requires_grad_()
            y = torch.nn.functional.conv2d(x, w, padding=1)
            dx, dw = torch.autograd.grad(y, (x, w), seed)
            return y.detach(), dx, dw

        return function

    # The result is returned too: a lazy library would not compute it for its gradients alone.
    def tiny_backward(x: Any, w: Any, seed: Any) -> tuple[Any, Any, Any]:
        y = x.conv2d(w, padding=1)
        dx, dw = (y * seed).sum().gradient(x, w)
        return y, dx, dw

    def numpy_backward(*example: Array) -> Function:
        def function(x: Array, w: Array, seed: Array) -> tuple[Array, Array, Array]:
            y = convolved(x, w)
            dx = convolved(seed, w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])
            dw = np.tensordot(seed, windows(x), ((0, 2, 3), (0, 2, 3)))
            return y, dx, dw

        return function

    return [
        ArrayRow(
            f"{label} fwd",
            lambda random: (draw_x(random), draw_w(random)),
            lambda x, w: convolved,
            lambda torch, x, w: lambda x, w: torch.nn.functional.conv2d(x, w, padding=1),
            lambda x, w: x.conv2d(w, padding=1),
            work=work,
            work_unit="GFLOP/s",
        ),
        ArrayRow(
            f"{label} fwd+bwd",
            lambda random: (draw_x(random), draw_w(random), draw_x(random)),
            numpy_backward,
            torch_backward,
            tiny_backward,
            work=3 * work,
            work_unit="GFLOP/s",
        ),
    ]


# --- overheads ----------------------------------------------------------------------------------


def replay() -> Row:
    """The mean of a thousand calls of a tiny kernel with changing inputs, the wait included."""

    def numpy(x: Array) -> Function:
        out = np.empty_like(x)
        return lambda x: np.add(x, 1, out=out)

    draw = normal(16)
    return ArrayRow(
        "replay of a tiny kernel",
        lambda random: (draw(random),),
        numpy,
        lambda torch, x: lambda x: x + 1,
        lambda x: x + 1,
        repeats=REPLAYS,
    )


@dataclass
class ChildRow(Row):
    """A figure of a whole process: one that a fresh interpreter prints.

    The child is run `runs` times, each with an empty kernel cache, unless `warm_cache`: then it
    is run once before, and the others find what that one has compiled.
    """

    name: str
    task: str
    unit: str = "s"
    libraries: tuple[str, ...] = ("tinyhw", "numpy", "torch", "tinygrad")
    runs: int = CHILD_RUNS
    warm_cache: bool = False

    def measure(self, names: Sequence[str], seconds: float) -> dict[str, Cell]:
        """Runs the children one after the other."""
        return {name: self.cell(name) for name in names}

    def cell(self, library: str) -> Cell:
        """The median of one library's children."""
        values = []
        with tempfile.TemporaryDirectory(prefix="tinyhw-bench-") as kept:
            for run in range(self.runs + self.warm_cache):
                cache = kept if self.warm_cache else str(Path(kept) / str(run))
                outcome = run_child(self.task, library, cache)
                if "value" not in outcome:
                    return Cell(error=outcome["error"], absent=outcome.get("absent", False))
                values.append(outcome["value"])
        return Cell(median(values[self.warm_cache :]), self.runs)


def run_child(task: str, library: str, cache: str) -> dict[str, Any]:
    """What bench_child.py prints for a task: a value, or an error."""
    try:
        child = subprocess.run(
            [sys.executable, str(CHILD), task, library],
            env={**os.environ, "XDG_CACHE_HOME": cache, "CACHEDB": f"{cache}/tinygrad.db"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"{task} took more than {CHILD_TIMEOUT_S} s"}
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        said = (child.stderr.strip() or "nothing").splitlines()[-1]
        return {"error": f"{task} ended with status {child.returncode}: {said}"}
    outcome: dict[str, Any] = json.loads(lines[-1])
    return outcome


def rows(device: str = "") -> list[Row]:
    """Every row, in the order of the table; those of a GPU's queues where `device` is one."""
    tiny, ours = ("tinyhw", "tinygrad"), ("tinyhw",)
    return [
        *(bench_gpu.rows(device) if device in bench_gpu.GPUS else ()),
        *(matmul(n) for n in (256, 1024, 2048)),
        elementwise(1 << 24),
        softmax(4096, 1024),
        layernorm(4096, 1024),
        *(reduction(4096, 4096, axis) for axis in (0, 1, None)),
        *convolution(32, 64, 32),
        TrainingStep(),
        replay(),
        ChildRow("import", "import"),
        ChildRow("first call in a process", "first-call"),
        ChildRow("new kernel, cold", "new-kernel", libraries=tiny),
        ChildRow("new kernel, cached on disk", "new-kernel", libraries=tiny, warm_cache=True),
        ChildRow("peak memory of MNIST training", "peak-memory", "MB", ("tinyhw", "torch"), 1),
        ChildRow("memory kept by 100,000 replays", "replay-growth", "MB", ours, 1),
        *bench_emulated.rows(),
        ChildRow("emulated translation of an instruction", "translation", libraries=ours),
        ChildRow("emulated board, start to result", "board-start", libraries=ours, warm_cache=True),
        ChildRow("emulated board, idle", "board-memory", "MB", ours, 1, warm_cache=True),
    ]
