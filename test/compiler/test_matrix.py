"""Matrix units: their lane maps, and products tiled with them, judged by NumPy.

The interpreter computes MATRIX from the lane maps, wave by wave; that these are the hardware's is
judged here by AMD's formulas, and on emulated boards by the instructions themselves.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler import llvm
from compiler.amdgpu import gpu_target
from compiler.amdgpu_matrix import MATRIX_UNITS
from compiler.build import build
from compiler.compile import compile_kernel
from compiler.decompose import decompose
from compiler.dtype import DType, dtypes
from compiler.errors import InvalidKernel
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.linearise import linearise
from compiler.lower import ScalarKernel, lower
from compiler.matrix import MatrixUnit
from compiler.optimise import optimise
from compiler.plan import Plan
from compiler.target import Target
from test.compiler.linear_interpreter import narrowed, run
from test.compiler.test_amdgpu import assign, objdump, typed
from test.compiler.test_lower import matmul, windows

ARCHITECTURES = ("gfx1100", "gfx1201", "gfx90a", "gfx942", "gfx950")
ALL = pytest.mark.parametrize("arch", ARCHITECTURES)
UNITS = [(arch, unit) for arch in ARCHITECTURES for unit in MATRIX_UNITS[arch]]
EACH = pytest.mark.parametrize("arch, unit", UNITS, ids=[f"{a}-{u.name}" for a, u in UNITS])
F16, F32 = dtypes.float16, dtypes.float32


def one_block(arch: str) -> Target:
    """A board with a single compute unit: tiles are as large as they get."""
    return replace(gpu_target(arch), threads=1)


def plan_of(value: Node, target: Target) -> Plan:
    scalar = lower(assign(value))
    return optimise(ScalarKernel(decompose(scalar.store, target), scalar.ranges), target)


def computed(value: Node, arrays: list[np.ndarray], target: Target) -> tuple[np.ndarray, Plan]:
    plan = plan_of(value, target)
    kernel = linearise(plan)
    return executed(kernel, value, arrays), plan


def executed(kernel: LinearKernel, value: Node, arrays: list[np.ndarray]) -> np.ndarray:
    """The value as the kernel computes it, into a buffer that held rubbish."""
    shape = tuple(map(int, value.shape))  # type: ignore[call-overload]
    kind = np.dtype("float32" if value.dtype is dtypes.bfloat16 else value.dtype.name)
    rubbish = np.nan if value.dtype.kind == "f" else 77
    memory = [np.full(shape, rubbish, kind).reshape(-1), *(a.reshape(-1).copy() for a in arrays)]
    run(kernel, memory)
    return memory[0].reshape(shape)


def random(dtype: DType, *shape: int) -> np.ndarray:
    numbers = np.random.default_rng(sum(shape))
    if dtype.kind != "f":
        low, high = int(dtype.min), int(dtype.max) + 1
        return numbers.integers(low, high, shape).astype(dtype.name)
    values = numbers.standard_normal(shape).astype(np.float32)
    return values.astype(np.float16) if dtype is F16 else narrowed(values, dtype)


def product(
    m: int, k: int, n: int, dtype: DType = F16, total: DType = F32, transposed: str = ""
) -> Node:
    """(m, k)·(k, n) of narrow elements, added up in `total`."""
    a = typed(1, (k, m), dtype).permute((1, 0)) if "a" in transposed else typed(1, (m, k), dtype)
    b = typed(2, (n, k), dtype).permute((1, 0)) if "b" in transposed else typed(2, (k, n), dtype)
    return matmul(a.cast(total), b.cast(total))


def wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float32 if a.dtype.kind == "f" else np.int64)


# ---- lane maps ----


@EACH
def test_lanes_hold_every_element_equally_often(arch: str, unit: MatrixUnit) -> None:
    shapes = (unit.rows, unit.depth), (unit.depth, unit.columns), (unit.rows, unit.columns)
    for fragment, shape in zip((unit.a, unit.b, unit.c), shapes, strict=True):
        places = Counter(
            fragment.position(lane, item)
            for lane in range(unit.lanes)
            for item in range(fragment.items)
        )
        assert set(places) == set(np.ndindex(*shape))
        repeats = set(places.values())
        assert repeats == {unit.lanes * fragment.items // (shape[0] * shape[1])}
        assert repeats == {1} or fragment is not unit.c
        for item in range(fragment.items):
            offsets = (positions.of_item(item) for positions in fragment.axes)
            assert fragment.item(*offsets) == item


# AMD's Matrix Instruction Calculator, "Register to matrix element mapping": of an item, which here
# counts elements and not registers, (A's row, A's depth), and (C's row, C's column).
RDNA3 = lambda t, i: ((t % 16, i), (2 * i + t // 16, t % 16))  # noqa: E731
RDNA4 = lambda t, i: ((t % 16, 8 * (t // 16) + i), (8 * (t // 16) + i, t % 16))  # noqa: E731


def cdna(items: int) -> Callable[[int, int], tuple[tuple[int, int], tuple[int, int]]]:
    return lambda t, i: ((t % 16, items * (t // 16) + i), (4 * (t // 16) + i % 4, t % 16))


FORMULAS = {
    "gfx1100": dict.fromkeys((16,), RDNA3),
    "gfx1201": dict.fromkeys((8,), RDNA4),
    "gfx90a": {4: cdna(4)},
    "gfx942": {4: cdna(4), 8: cdna(8)},
    "gfx950": {8: cdna(8), 16: cdna(16)},
}


@EACH
def test_lane_maps_are_those_that_amd_documents(arch: str, unit: MatrixUnit) -> None:
    formula = FORMULAS[arch][unit.a.items]
    for lane in range(unit.lanes):
        for item in range(unit.a.items):
            row, deep = formula(lane, item)[0]
            assert unit.a.position(lane, item) == (row, deep)
            assert unit.b.position(lane, item) == (deep, row)
        for item in range(unit.c.items):
            assert unit.c.position(lane, item) == formula(lane, item)[1]


# ---- products ----


@EACH
@pytest.mark.parametrize("size", [(16, 16, 16), (70, 70, 70), (33, 100, 20)], ids=str)
def test_products_with_every_unit(arch: str, unit: MatrixUnit, size: tuple[int, int, int]) -> None:
    m, k, n = size
    a, b = random(unit.inputs, m, k), random(unit.inputs, k, n)
    value = product(m, k, n, unit.inputs, unit.sums)
    found, plan = computed(value, [a, b], one_block(arch))
    assert plan.product is not None and plan.product.unit is unit
    np.testing.assert_allclose(found, wide(a) @ wide(b), rtol=1e-4, atol=1e-4)


@ALL
@pytest.mark.parametrize("transposed", ["a", "b", "ab"])
def test_transposed_factors(arch: str, transposed: str) -> None:
    m, k, n = 64, 40, 48
    a, b = random(F16, m, k), random(F16, k, n)
    arrays = [a.T.copy() if "a" in transposed else a, b.T.copy() if "b" in transposed else b]
    found, plan = computed(product(m, k, n, transposed=transposed), arrays, one_block(arch))
    assert plan.product is not None and plan.product.shared
    np.testing.assert_allclose(found, wide(a) @ wide(b), rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(8, 90)] * 3),
    st.sampled_from(["", "a", "b", "ab", "c", "abc"]),
    st.sampled_from(ARCHITECTURES),
    st.sampled_from([1, 2, 100]),
)
def test_random_sizes(size: tuple[int, int, int], transposed: str, arch: str, units: int) -> None:
    m, k, n = size
    a, b = random(F16, m, k), random(F16, k, n)
    arrays = [a.T.copy() if "a" in transposed else a, b.T.copy() if "b" in transposed else b]
    value, expected = product(m, k, n, transposed=transposed), wide(a) @ wide(b)
    if "c" in transposed:
        value, expected = value.permute((1, 0)), expected.T
    found, _ = computed(value, arrays, replace(gpu_target(arch), threads=units))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@ALL
def test_batches_of_products(arch: str) -> None:
    batch, m, k, n = 3, 20, 33, 30
    full = (batch, m, k, n)
    left = typed(1, (batch, m, k), F16).reshape((batch, m, k, 1)).expand(full).cast(F32)
    right = typed(2, (batch, k, n), F16).reshape((batch, 1, k, n)).expand(full).cast(F32)
    a, b = random(F16, batch, m, k), random(F16, batch, k, n)
    value = left.alu(Op.MUL, right).reduce(Op.ADD, (2,)).reshape((batch, m, n))
    found, plan = computed(value, [a, b], one_block(arch))
    assert plan.product is not None
    np.testing.assert_allclose(found, wide(a) @ wide(b), rtol=1e-4, atol=1e-4)


def convolution(
    batch: int, cin: int, cout: int, side: int, window: int
) -> tuple[Node, np.ndarray, np.ndarray]:
    """A value of shape (batch, cout, out, out) with its image and weight."""
    out = side - window + 1
    x, w = random(F16, batch, cin, side, side), random(F16, cout, cin, window, window)
    seen = windows(windows(typed(1, x.shape, F16), 2, window), 4, window)
    full = (batch, cout, out, out, cin, window, window)
    seen = seen.permute((0, 2, 4, 1, 3, 5)).reshape((batch, 1, out, out, cin, window, window))
    weight = typed(2, w.shape, F16).reshape((1, cout, 1, 1, cin, window, window))
    terms = seen.expand(full).cast(F32).alu(Op.MUL, weight.expand(full).cast(F32))
    value = terms.reduce(Op.ADD, (4, 5, 6)).reshape((batch, cout, out, out))
    return value, x, w


@pytest.mark.parametrize("arch", ["gfx1100", "gfx942"])
@pytest.mark.parametrize("size", [(2, 3, 20, 11, 3), (1, 16, 32, 18, 3), (4, 1, 9, 8, 5)], ids=str)
def test_convolutions(size: tuple[int, ...], arch: str) -> None:
    """Channels and window are one depth, batch and image one side, where none fills tiles alone."""
    value, x, w = convolution(*size)
    window = size[-1]
    found, plan = computed(value, [x, w], one_block(arch))
    assert plan.product is not None
    view = np.lib.stride_tricks.sliding_window_view(wide(x), (window, window), (2, 3))
    expected = np.einsum("bcyxij,fcij->bfyx", view, wide(w))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("arch", ["gfx1201", "gfx90a"])
@pytest.mark.parametrize("units", [1, 100])
def test_what_is_fused_before_and_after(arch: str, units: int) -> None:
    """relu and padding of a factor, then a bias, a residual and a cast to halves."""
    m, k, n = 40, 30, 24
    a, b = random(F16, m, k), random(F16, k, n)
    bias, residual = random(F16, n), random(F16, m, n)
    left = typed(1, (m, k), F16).alu(Op.MAX, Node.const(0, F16)).pad(((0, 0), (2, 3)))
    right = typed(2, (k, n), F16).pad(((2, 3), (0, 0)))
    total = matmul(left.cast(F32), right.cast(F32))
    total = total.alu(Op.ADD, typed(3, (1, n), F16).expand((m, n)).cast(F32))
    value = total.alu(Op.ADD, typed(4, (m, n), F16).cast(F32)).cast(F16)
    target = replace(gpu_target(arch), threads=units)
    found, plan = computed(value, [a, b, bias, residual], target)
    assert plan.product is not None and plan.product.shared == (units == 1)
    expected = wide(np.maximum(a, 0)) @ wide(b) + wide(bias) + wide(residual)
    np.testing.assert_allclose(found, expected.astype(np.float16), rtol=2e-3, atol=2e-3)


@ALL
def test_infinite_elements_do_not_meet_what_is_beyond_the_end(arch: str) -> None:
    m, k, n = 20, 21, 18
    a, b = random(F16, m, k), random(F16, k, n)
    a[:, -1] = np.inf
    with np.errstate(invalid="ignore"):
        found, _ = computed(product(m, k, n), [a, b], gpu_target(arch))
    assert np.isinf(found).all()
    np.testing.assert_array_equal(found > 0, np.broadcast_to(b[-1] > 0, (m, n)))


# ---- where it does not fit ----

OTHERS: dict[str, Callable[[], Node]] = {
    "float32": lambda: matmul(typed(1, (64, 64), F32), typed(2, (64, 64), F32)),
    "rounded products": lambda: matmul(typed(1, (64, 64), F16), typed(2, (64, 64), F16)),
    "few rows": lambda: product(4, 64, 64),
    "a short sum": lambda: product(64, 4, 64),
    "two types": lambda: matmul(
        typed(1, (64, 64), F16).cast(F32), typed(2, (64, 64), dtypes.bfloat16).cast(F32)
    ),
    "wide factor": lambda: matmul(typed(1, (64, 64), F16).cast(F32), typed(2, (64, 64), F32)),
    "a maximum": lambda: product(64, 64, 64).reduce(Op.MAX, (1,)),
}


@ALL
@pytest.mark.parametrize("name", OTHERS)
def test_other_sums_are_left_to_threads(name: str, arch: str) -> None:
    plan = plan_of(OTHERS[name](), gpu_target(arch))
    assert plan.product is None and not any(n.op is Op.MATRIX for n in linearise(plan).body)


def test_an_architecture_without_units_multiplies_by_threads() -> None:
    value = product(64, 64, 64)
    assert plan_of(value, gpu_target("gfx1030")).product is None
    assert compile_kernel(assign(value), gpu_target("gfx1030")).image


# ---- machine code ----

MNEMONIC = {"wmma": "v_wmma_{}_16x16x16_{}", "mfma": "v_mfma_{}_16x16x"}


@EACH
def test_the_instruction_is_in_the_machine_code(
    arch: str, unit: MatrixUnit, tmp_path: Path
) -> None:
    target = gpu_target(arch)
    value = product(512, 512, 512, unit.inputs, unit.sums)
    code = compile_kernel(assign(value), target)
    assert code.private_bytes == 0 and code.block[0] == target.lane_width
    path = tmp_path / "kernel.o"
    path.write_bytes(llvm.compile_ir(code.source, target))
    if arch == "gfx950":  # LLVM 19 does not know it; LLVM's own text must do
        listing = llvm.assembly(code.source, target)
    else:
        command = [objdump(), "-d", "--no-show-raw-insn", f"--mcpu={arch}", str(path)]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    family, kind, *_ = unit.name.split(".")
    found = re.findall(rf"v_{family}_{kind}_16x16x{unit.depth}_?(\w+)", listing)
    assert plan_of(value, target).product is not None
    (ending,) = set(found)
    assert ending in {"f16", "bf16", "bf16_1k", "iu8", "i8"}
    assert ending.startswith({"f": unit.inputs.name.replace("loat", "")}.get(unit.inputs.kind, "i"))


@functools.cache
def _kernel(arch: str) -> LinearKernel:
    return linearise(plan_of(product(32, 32, 32), gpu_target(arch)))


def test_a_unit_of_another_architecture_is_refused() -> None:
    with pytest.raises(InvalidKernel, match=r"MATRIX by wmma\.f32.* gfx1030 has no instruction"):
        build(_kernel("gfx1100"), gpu_target("gfx1030"))
    with pytest.raises(InvalidKernel, match=r"MATRIX by mfma.* gfx1100 has no instruction"):
        build(_kernel("gfx942"), gpu_target("gfx1100"))


def test_a_block_that_is_no_whole_waves_is_refused() -> None:
    narrow = replace(_kernel("gfx1100"), block=(16, 1, 1))
    with pytest.raises(InvalidKernel, match="16 threads of a block along x are no whole waves"):
        build(narrow, gpu_target("gfx1100"))


# ---- that the interpreter would notice ----


def test_wrong_lane_maps_are_noticed() -> None:
    """Code made with one unit's maps gives another result when lanes mean something else."""
    a, b = random(F16, 32, 32), random(F16, 32, 32)
    value, kernel = product(32, 32, 32), _kernel("gfx1100")
    right = executed(kernel, value, [a, b])
    np.testing.assert_allclose(right, wide(a) @ wide(b), rtol=1e-4, atol=1e-4)
    (unit,) = {n.arg for n in kernel.body if n.op is Op.MATRIX}
    other = unit._replace(c=MATRIX_UNITS["gfx1201"][0].c)
    body = [Node(n.op, n.dtype, n.src, other) if n.op is Op.MATRIX else n for n in kernel.body]
    assert not np.allclose(executed(replace(kernel, body=tuple(body)), value, [a, b]), right)


def test_a_missing_barrier_around_shared_factors_is_noticed() -> None:
    value = product(64, 64, 64)
    kernel = linearise(plan_of(value, one_block("gfx1100")))
    a = random(F16, 64, 64)
    barriers = [i for i, node in enumerate(kernel.body) if node.op is Op.BARRIER]
    assert len(barriers) == 2
    for gone in barriers:
        body = (*kernel.body[:gone], *kernel.body[gone + 1 :])
        with pytest.raises(AssertionError, match="races"):
            executed(replace(kernel, body=body), value, [a, a])
