"""Kernels for NVIDIA GPUs through LLVM and nvJitLink: that they compile, and into what."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from compiler import compile as compiling
from compiler import cubin, llvm, nvjitlink
from compiler.build import render
from compiler.code_object import CodeObject
from compiler.compile import compile_kernel
from compiler.dtype import DType, dtypes
from compiler.errors import InvalidKernel, ToolFailed
from compiler.ir import Node, Op
from compiler.linearise import linearise
from compiler.matrix import MatrixUnit
from compiler.nvidia import ARCHITECTURES, gpu_target
from compiler.target import Target
from test.compiler.test_amdgpu import REAL, TAKES, assign, one_op, typed
from test.compiler.test_matrix import plan_of, product
from test.compiler.test_nvidia import PARAMETER_BASE, disassembled, raw_disassembled
from test.compiler.test_nvidia_matrix import EACH, MATRIX_INSTRUCTION, instructions, small

pytestmark = pytest.mark.skipif(bool(nvjitlink.missing()), reason=nvjitlink.missing() or "-")
FULL = os.environ.get("TINYHW_FULL") == "1"
TESTED = ("sm_75", "sm_89", "sm_90") if FULL else ("sm_90",)


@pytest.fixture(autouse=True)
def no_disk_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYHW_CACHE", "0")
    monkeypatch.setattr(compiling, "_compiled", {})


@functools.cache
def target(arch: str) -> Target:
    return gpu_target(arch, tf32=True, compiler="nvptx")


@functools.cache
def compiled(name: str, arch: str) -> CodeObject:
    return compile_kernel(assign(REAL[name]()), target(arch))


@pytest.mark.parametrize("arch", TESTED)
@pytest.mark.parametrize("name", REAL)
def test_what_a_launcher_reads_is_as_with_cuda(name: str, arch: str) -> None:
    code = compiled(name, arch)
    found = cubin.read(code.image)
    assert found.arch == arch and list(found.kernels) == [code.name] and not found.banks
    assert all(name.startswith("__cuda_sm") for name in found.functions)
    known = found.kernels[code.name]
    assert known.parameter_base == PARAMETER_BASE[arch]
    slots = tuple(cubin.Parameter(i, 8 * i, 8) for i in range(len(code.params)))
    assert known.parameters == slots and known.block == code.block
    assert 0 < known.registers <= 255 and known.stack_bytes == code.private_bytes == 0
    assert code.local_bytes == known.shared_bytes <= target(arch).local_bytes
    assert bool(known.relocations) == bool(found.functions)
    assert bool(known.barriers) == ("barrier.cta" in code.source)


@pytest.mark.parametrize("arch", sorted(set(ARCHITECTURES) - {"sm_90"}))
def test_the_other_architectures_compile(arch: str) -> None:
    assert cubin.read(compiled("matmul", arch).image).arch == arch


@pytest.mark.parametrize("arch", TESTED)
def test_every_op_compiles_for_every_dtype(arch: str) -> None:
    for op in TAKES:
        for dtype in TAKES[op] if FULL else TAKES[op][:: max(1, len(TAKES[op]) - 1)]:
            code = compile_kernel(assign(one_op(op, dtype)), target(arch))
            assert cubin.read(code.image).kernels[code.name].code


@pytest.mark.parametrize("source", dtypes.all, ids=lambda d: d.name)
def test_every_cast_compiles(source: DType) -> None:
    x = typed(1, (100,), source)
    total = Node.const(0, dtypes.float64)
    for dtype in dtypes.all:
        total = x.cast(dtype).cast(dtypes.float64).alu(Op.ADD, total)
        if dtype.bits == source.bits and dtypes.bool not in (dtype, source):
            total = x.bitcast(dtype).cast(dtypes.float64).alu(Op.ADD, total)
    code = compile_kernel(assign(total), target("sm_90"))
    assert cubin.read(code.image).kernels[code.name].stack_bytes == 0


@pytest.mark.parametrize("arch", ("sm_75", "sm_90"))
def test_calls_lead_where_the_functions_are_placed(arch: str, tmp_path: Path) -> None:
    """A division of bytes is a function, which is told where to return to."""
    x, y = (typed(i, (300,), dtypes.uint8) for i in (1, 2))
    code = compile_kernel(assign(x.alu(Op.IDIV, y)), target(arch))
    found = cubin.read(code.image)
    (function,), address = found.functions.values(), 0x2A_1234_5680
    image = found.place(code.name, address)
    start = -(-len(found.kernels[code.name].code) // 128) * 128
    assert image[start:] == function.code
    listing = raw_disassembled(image, arch, tmp_path)
    (call,) = re.findall(r"CALL\.ABS\.NOINC (0x\w+)", listing)
    assert int(call, 16) == address + start
    (at,) = re.findall(r"/\*(\w+)\*/ +CALL", listing)
    (low,), (high,) = (re.findall(rf"MOV R2{i}, (0x\w+) ;", listing) for i in (0, 1))
    assert int(low, 16) | int(high, 16) << 32 == address + int(at, 16) + 16


@EACH
def test_matrix_instructions_are_there_as_often_as_the_plan_says(
    arch: str, unit: MatrixUnit, tmp_path: Path
) -> None:
    value = product(512, 512, 512, unit.inputs, unit.sums)
    plan = plan_of(value, target(arch))
    assert plan.product is not None and plan.product.unit is unit
    code = compile_kernel(assign(value), target(arch))
    assert cubin.read(code.image).kernels[code.name].stack_bytes == 0
    found = Counter(MATRIX_INSTRUCTION.findall(disassembled(code.image, tmp_path)))
    down, across = plan.product.tiles
    assert found == instructions(arch, unit, down * across * plan.product.steps)


def test_large_indices_are_64_bits_wide() -> None:
    beyond = typed(1, (1 << 33,), dtypes.uint8).alu(Op.ADD, Node.const(1, dtypes.uint8))
    code = compile_kernel(assign(beyond), target("sm_90"))
    assert "zext nneg i32 %block.x.i32 to i64" in code.source


def test_the_assembly_to_read_is_ptx() -> None:
    text = llvm.assembly(compiled("softmax", "sm_90").source, target("sm_90"))
    assert ".target sm_90" in text and "ex2.approx.f32" in text and "bar.sync" in text


def test_a_kernel_for_another_target_is_refused_before_llvm_sees_it() -> None:
    with pytest.raises(InvalidKernel, match=r"MATRIX by m16n8k16.* sm_75 has no instruction"):
        render(small(), target("sm_75"))
    with pytest.raises(InvalidKernel, match="no compiler 'gcc' for sm_90; there are nvrtc, nvptx"):
        gpu_target("sm_90", compiler="gcc")


def test_what_nvjitlink_refuses_is_an_error_with_its_words() -> None:
    with pytest.raises(ToolFailed, match=r"(?s)nvJitLink\w+ failed with ERROR_.*said:.*nonsense"):
        nvjitlink.link_ptx(
            ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() { nonsense; }\n",
            "sm_90",
        )


def test_both_compilers_are_given_the_same_instructions() -> None:
    value = REAL["row sum"]()
    bodies = [
        linearise(plan_of(value, gpu_target("sm_90", compiler=compiler))).body
        for compiler in ("nvrtc", "nvptx")
    ]
    assert bodies[0] == bodies[1]
