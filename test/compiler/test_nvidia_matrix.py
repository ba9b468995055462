"""NVIDIA's tensor cores: lane maps by the PTX manual, products by NumPy, code by nvdisasm."""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler import cubin, nvrtc
from compiler.build import build, render
from compiler.compile import compile_kernel
from compiler.dtype import DType, dtypes
from compiler.errors import InvalidKernel
from compiler.ir import Op
from compiler.linearise import linearise
from compiler.matrix import MatrixUnit
from compiler.nvidia import gpu_target
from compiler.nvidia_matrix import MATRIX_UNITS, TF32
from compiler.target import Target
from test.compiler.test_amdgpu import assign, typed
from test.compiler.test_lower import matmul
from test.compiler.test_matrix import computed, plan_of, product, random, wide
from test.compiler.test_nvidia import disassembled

F16, BF16, F32 = dtypes.float16, dtypes.bfloat16, dtypes.float32
UNITS = [(arch, unit) for arch in ("sm_75", "sm_90") for unit in MATRIX_UNITS[arch]]
UNITS += [("sm_89", unit) for unit in MATRIX_UNITS["sm_89"] if unit.inputs in dtypes.fp8s]
UNITS.append(("sm_90", TF32))
EACH = pytest.mark.parametrize("arch, unit", UNITS, ids=[f"{a}-{u.name}" for a, u in UNITS])
COMPILES = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")

# PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and its neighbours: of the
# i-th item of a lane, A's row and depth, B's depth, C's row and column (B's column is lane // 4).
MANUAL = {
    "m16n8k8.row.col.f32.f16": lambda g, t, i: ((g + 8 * (i >= 2), 2 * t + i % 2), 2 * t + i % 2),
    "m16n8k16.row.col.f32": lambda g, t, i: (
        (g + 8 * (i // 2 % 2), 2 * t + i % 2 + 8 * (i >= 4)), 2 * t + i % 2 + 8 * (i >= 2)
    ),
    "m16n8k8.row.col.f32.tf32": lambda g, t, i: ((g + 8 * (i % 2), t + 4 * (i >= 2)), t + 4 * i),
    "m16n8k32.row.col": lambda g, t, i: (
        (g + 8 * (i // 4 % 2), 4 * t + i % 4 + 16 * (i >= 8)), 4 * t + i % 4 + 16 * (i >= 4)
    ),
    "m8n8k16.row.col.s32": lambda g, t, i: ((g, 4 * t + i), 4 * t + i),
}  # fmt: skip


def one_block(arch: str) -> Target:
    return replace(gpu_target(arch, tf32=True), threads=1)


@EACH
def test_lane_maps_are_those_of_the_manual_but_for_the_order_of_the_depth(
    arch: str, unit: MatrixUnit
) -> None:
    (formula,) = (each for name, each in MANUAL.items() if unit.name.startswith(name))
    deep: dict[int, int] = {}  # the manual's place along the depth → ours
    for lane in range(32):
        group, rest = divmod(lane, 4)
        for item in range(unit.a.items):
            (row, place), _ = formula(group, rest, item)
            ours = unit.a.position(lane, item)
            assert ours[0] == row and deep.setdefault(place, ours[1]) == ours[1]
        for item in range(unit.b.items):
            _, place = formula(group, rest, item)
            assert unit.b.position(lane, item) == (deep[place], group)
        for item in range(unit.c.items):
            assert unit.c.position(lane, item) == (group + 8 * (item // 2), 2 * rest + item % 2)
    assert sorted(deep) == sorted(deep.values()) == list(range(unit.depth))


@EACH
def test_each_element_is_in_one_lane(arch: str, unit: MatrixUnit) -> None:
    shapes = (unit.rows, unit.depth), (unit.depth, unit.columns), (unit.rows, unit.columns)
    for fragment, shape in zip((unit.a, unit.b, unit.c), shapes, strict=True):
        places = Counter(
            fragment.position(lane, item) for lane in range(32) for item in range(fragment.items)
        )
        assert set(places) == set(np.ndindex(*shape)) and set(places.values()) == {1}
        for item in range(fragment.items):
            assert fragment.item(*(axis.of_item(item) for axis in fragment.axes)) == item


def numbers(dtype: DType, *shape: int) -> np.ndarray:
    """Of float32 those that tf32 has too."""
    return random(F16, *shape).astype(np.float32) if dtype is F32 else random(dtype, *shape)


@EACH
@pytest.mark.parametrize("size", [(64, 64, 64), (33, 100, 20)], ids=str)
def test_products_with_every_unit(arch: str, unit: MatrixUnit, size: tuple[int, int, int]) -> None:
    m, k, n = size
    a, b = numbers(unit.inputs, m, k), numbers(unit.inputs, k, n)
    value = product(m, k, n, unit.inputs, unit.sums)
    found, plan = computed(value, [a, b], one_block(arch))
    assert plan.product is not None and plan.product.unit is unit
    np.testing.assert_allclose(found, wide(a) @ wide(b), rtol=1e-4, atol=1e-4)


def test_float32_keeps_its_precision_unless_somebody_gives_it_away() -> None:
    value = product(64, 64, 64, F32, F32)
    assert plan_of(value, gpu_target("sm_90")).product is None
    assert plan_of(value, gpu_target("sm_75", tf32=True)).product is None
    found = plan_of(value, gpu_target("sm_90", tf32=True)).product
    assert found is not None and found.unit is TF32


def test_bfloat16_has_no_unit_on_turing_and_8_bit_floats_none_on_ampere() -> None:
    assert plan_of(product(64, 64, 64, BF16), gpu_target("sm_75")).product is None
    for dtype in dtypes.fp8s:
        assert plan_of(product(64, 64, 64, dtype), gpu_target("sm_86")).product is None


INSTRUCTIONS = {
    "m16n8k8.row.col.f32.f16.f16.f32": "HMMA.1688.F32",
    "m16n8k16.row.col.f32.f16.f16.f32": "HMMA.16816.F32",
    "m16n8k16.row.col.f32.bf16.bf16.f32": "HMMA.16816.F32.BF16",
    "m16n8k8.row.col.f32.tf32.tf32.f32": "HMMA.1688.F32.TF32",
    "m8n8k16.row.col.s32.s8.s8.s32": "IMMA.8816.S8.S8",
    "m8n8k16.row.col.s32.u8.u8.s32": "IMMA.8816.U8.U8",
    "m16n8k32.row.col.s32.s8.s8.s32": "IMMA.16832.S8.S8",
    "m16n8k32.row.col.s32.u8.u8.s32": "IMMA.16832.U8.U8",
    "m16n8k32.row.col.f32.e4m3.e4m3.f32": "QMMA.16832.F32.E4M3.E4M3",
    "m16n8k32.row.col.f32.e5m2.e5m2.f32": "QMMA.16832.F32.E5M2.E5M2",
}
MATRIX_INSTRUCTION = re.compile(r"\b([HIQ]MMA\.[\w.]+)")


def instructions(arch: str, unit: MatrixUnit, count: int) -> dict[str, int]:
    """What the machine code of so many products has. Hopper multiplies 8-bit floats as halves, but
    for wgmma."""
    if arch == "sm_90" and unit.inputs in dtypes.fp8s:
        return {"HMMA.16816.F32": 2 * count}
    return {INSTRUCTIONS[unit.name]: count}


@COMPILES
@EACH
def test_the_instruction_is_in_the_machine_code_as_often_as_the_plan_says(
    arch: str, unit: MatrixUnit, tmp_path: Path
) -> None:
    target = gpu_target(arch, tf32=True)
    value = product(512, 512, 512, unit.inputs, unit.sums)
    plan = plan_of(value, target)
    code = compile_kernel(assign(value), target)
    assert plan.product is not None and plan.product.unit is unit
    known = cubin.read(code.image).kernels[code.name]
    assert known.stack_bytes == 0 and code.block == plan.block
    found = Counter(MATRIX_INSTRUCTION.findall(disassembled(code.image, tmp_path)))
    assert plan.product.shared and 512 % (plan.product.steps * unit.depth) == 0
    down, across = plan.product.tiles
    assert found == instructions(arch, unit, down * across * plan.product.steps)


@COMPILES
def test_a_large_product_keeps_its_sums_in_registers_and_reads_words(tmp_path: Path) -> None:
    code = compile_kernel(assign(product(4096, 4096, 4096)), gpu_target("sm_90"))
    known = cubin.read(code.image).kernels[code.name]
    assert known.stack_bytes == 0 and code.grid == (32, 32, 1)
    listing = disassembled(code.image, tmp_path)
    assert len(re.findall(r"\bHMMA\.", listing)) == 4 * 8 * 2
    assert len(re.findall(r"\bLDS\.64", listing)) == (4 * 2 + 8) * 2  # A's upper and lower rows


@functools.cache
def small(arch: str = "sm_90"):
    return linearise(plan_of(product(32, 32, 32), gpu_target(arch)))


def test_what_is_fused_before_and_after_is_rendered() -> None:
    """relu of a factor, then a bias and a cast; a factor that is a constant."""
    left = typed(1, (40, 30), F16)
    left = left.alu(Op.MAX, left.const(0, F16).reshape((1, 1)).expand((40, 30)))
    total = matmul(left.cast(F32), typed(2, (30, 24), F16).cast(F32))
    value = total.alu(Op.ADD, typed(3, (1, 24), F16).expand((40, 24)).cast(F32)).cast(F16)
    plan = plan_of(value, gpu_target("sm_90"))
    assert plan.product is not None
    text = render(linearise(plan), gpu_target("sm_90"))
    assert "mma.sync.aligned.m16n8k16" in text and "half_of_float" in text
    if not nvrtc.missing():
        assert nvrtc.compile_cuda(text, "sm_90")


def test_a_unit_of_another_architecture_and_part_of_a_warp_are_refused() -> None:
    with pytest.raises(InvalidKernel, match=r"MATRIX by m16n8k16.* sm_75 has no instruction"):
        build(small(), gpu_target("sm_75"))
    with pytest.raises(InvalidKernel, match="16 threads of a block along x are no whole waves"):
        build(replace(small(), block=(16, 1, 1)), gpu_target("sm_90"))
