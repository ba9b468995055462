"""Kernels for NVIDIA GPUs: that they compile, and what the cubin says, judged by nvdisasm."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler import compile as compiling
from compiler import cubin, nvrtc
from compiler.build import render
from compiler.code_object import CodeObject
from compiler.compile import compile_kernel
from compiler.dtype import DType, dtypes
from compiler.errors import InvalidKernel, MalformedObject, ToolFailed, UnsupportedObject
from compiler.ir import Node, Op
from compiler.nvidia import ARCHITECTURES, gpu_target
from test.compiler.linear_kernels import const, kernel, store
from test.compiler.linear_kernels import param as flat
from test.compiler.test_amdgpu import REAL, TAKES, assign, one_op, typed

TESTED = ("sm_75", "sm_89", "sm_90")
ALL_TESTED = pytest.mark.parametrize("arch", TESTED)
PARAMETER_BASE = {"sm_75": 0x160, "sm_89": 0x160, "sm_90": 0x210}

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")


@pytest.fixture(autouse=True)
def no_disk_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYHW_CACHE", "0")
    monkeypatch.setattr(compiling, "_compiled", {})


@functools.cache
def compiled(name: str, arch: str) -> CodeObject:
    return compile_kernel(assign(REAL[name]()), gpu_target(arch))


@functools.cache
def nvdisasm() -> str:
    """NVIDIA's disassembler, from its own package."""
    specification = importlib.util.find_spec("nvidia")
    folders = specification.submodule_search_locations if specification else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*/bin/nvdisasm")):
            return str(path)
    pytest.skip("nvidia-cuda-nvdisasm is not installed")


def disassembled(image: bytes, folder: Path) -> str:
    path = folder / "kernel.cubin"
    path.write_bytes(image)
    done = subprocess.run([nvdisasm(), "-c", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@ALL_TESTED
@pytest.mark.parametrize("name", REAL)
def test_what_a_launcher_reads_is_consistent(name: str, arch: str) -> None:
    code, target = compiled(name, arch), gpu_target(arch)
    found = cubin.read(code.image)
    assert found.arch == arch and list(found.kernels) == [code.name]
    known = found.kernels[code.name]
    assert known.parameter_base == PARAMETER_BASE[arch]
    slots = tuple(cubin.Parameter(i, 8 * i, 8) for i in range(len(code.params)))
    assert known.parameters == slots and known.parameter_bytes == 8 * len(code.params)
    assert 0 < known.registers <= 255 and known.stack_bytes == code.private_bytes == 0
    assert code.local_bytes == known.shared_bytes <= target.local_bytes
    assert known.relocations == () and known.barriers == ("__syncthreads" in code.source)


@pytest.mark.parametrize("arch", sorted(set(ARCHITECTURES) - set(TESTED)))
def test_the_other_architectures_compile(arch: str) -> None:
    assert cubin.read(compiled("matmul", arch).image).arch == arch


@ALL_TESTED
def test_nvidias_disassembler_reads_the_code_that_the_reader_found(
    arch: str, tmp_path: Path
) -> None:
    code = compiled("softmax", arch)
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/", disassembled(code.image, tmp_path))
    known = cubin.read(code.image).kernels[code.name]
    assert max(int(at, 16) for at in lines) == len(known.code) - 16
    assert len(set(lines)) == len(known.code) // 16


@pytest.mark.parametrize("arch", TESTED if os.environ.get("TINYHW_FULL") == "1" else ("sm_90",))
@pytest.mark.parametrize("op", TAKES, ids=lambda op: op.name)
def test_every_op_compiles_for_every_dtype(op: Op, arch: str) -> None:
    for dtype in TAKES[op]:
        code = compile_kernel(assign(one_op(op, dtype)), gpu_target(arch))
        assert cubin.read(code.image).kernels[code.name].code


@pytest.mark.parametrize("source", dtypes.all, ids=lambda d: d.name)
def test_every_cast_compiles(source: DType) -> None:
    """All from one type as one sum, since each kernel costs its milliseconds."""
    x = typed(1, (100,), source)
    total = Node.const(0, dtypes.float64)
    for dtype in dtypes.all:
        total = x.cast(dtype).cast(dtypes.float64).alu(Op.ADD, total)
        if dtype.bits == source.bits and dtypes.bool not in (dtype, source):
            total = x.bitcast(dtype).cast(dtypes.float64).alu(Op.ADD, total)
    code = compile_kernel(assign(total), gpu_target("sm_90"))
    assert cubin.read(code.image).kernels[code.name].stack_bytes == 0


def test_indices_are_short_where_they_can_be() -> None:
    assert "(int)blockIdx.x" in compiled("add", "sm_90").source
    beyond = typed(1, (1 << 33,), dtypes.uint8).alu(Op.ADD, Node.const(1, dtypes.uint8))
    code = compile_kernel(assign(beyond), gpu_target("sm_90"))
    assert "(long)blockIdx.x" in code.source


def test_halves_are_converted_by_the_hardware(tmp_path: Path) -> None:
    code = compiled("float16 matmul", "sm_90")
    assert "cvt.f32.f16" in code.source
    assert "HADD2.F32" in disassembled(code.image, tmp_path)


def test_a_block_that_is_too_large_is_refused() -> None:
    data = flat(0, dtypes.float32, 8)
    body = kernel([data], store(data, const(0), const(1.0, dtypes.float32)))
    big = replace(body, block=(2048, 1, 1))
    with pytest.raises(InvalidKernel, match="2048 threads in a block; sm_90 has at most 1024"):
        render(big, gpu_target("sm_90"))


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(InvalidKernel, match="no target for sm_30; there are sm_75"):
        gpu_target("sm_30")


def test_what_nvrtc_refuses_is_an_error_with_its_words() -> None:
    with pytest.raises(ToolFailed, match=r"kernel\.cu\(1\): error"):
        nvrtc.compile_cuda("void f( {", "sm_90")


# ---- the reader ----

SOURCE = """__constant__ float w[7] = {1, 2, 3, 4, 5, 6, 7};
extern "C" __global__ void __launch_bounds__(64) k(float *a, const char *b, short c, long d) {
  __shared__ float s[100];
  float t[400];
  for (int i = 0; i < 400; i++) t[i * c % 400] = a[i];
  s[threadIdx.x] = t[c] + w[c];
  __syncthreads();
  a[d] = s[b[0]];
}"""


@functools.cache
def image() -> bytes:
    return nvrtc.compile_cuda(SOURCE, "sm_90")


def test_parameters_stack_shared_memory_and_constants() -> None:
    found = cubin.read(image())
    known = found.kernels["k"]
    places = [(p.offset, p.size_bytes) for p in known.parameters]
    assert places == [(0, 8), (8, 8), (16, 2), (24, 8)]
    assert known.stack_bytes >= 1600 and known.shared_bytes == 1024 + 400
    assert struct.unpack_from("<7f", found.banks[3]) == (1, 2, 3, 4, 5, 6, 7)


def test_a_file_of_another_kind_is_refused() -> None:
    other = bytearray(image())
    struct.pack_into("<H", other, 18, 62)
    with pytest.raises(UnsupportedObject, match="not a cubin"):
        cubin.read(bytes(other))
    for content in (b"", b"no ELF file", image()[:100]):
        with pytest.raises(MalformedObject):
            cubin.read(content)


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=6),
       st.integers(0, 1 << 20))  # fmt: skip
@settings(max_examples=400)
def test_a_damaged_cubin_is_read_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(image())
    for place, value in changes:
        content[place % len(content)] = value
    if cut % 3 == 0:
        del content[cut % len(content) :]
    try:
        found = cubin.read(bytes(content))
    except (MalformedObject, UnsupportedObject):
        return
    assert all(len(known.code) % 16 == 0 for known in found.kernels.values())
