"""Kernels for NVIDIA GPUs: that they compile, and what the cubin says, judged by nvdisasm."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler import compile as compiling
from compiler import cubin, nvjitlink, nvrtc
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


def raw_disassembled(code: bytes, arch: str, folder: Path) -> str:
    """The same of code as it lies in memory."""
    path = folder / "code"
    path.write_bytes(code)
    command = [nvdisasm(), "-b", arch.replace("sm_", "SM"), path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


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
__device__ float first = 3, many[10], *inside = &many[2];
extern "C" __global__ void __launch_bounds__(64) k(float *a, const char *b, short c, long d) {
  __shared__ float s[100];
  float t[400];
  for (int i = 0; i < 400; i++) t[i * c % 400] = a[i];
  s[threadIdx.x] = t[c] + w[c];
  __syncthreads();
  a[d] = s[b[0]] + first + *inside;
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
    assert struct.unpack_from("<7f", found.banks[3].content) == (1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("arch", ("sm_75", "sm_90"))
def test_variables_and_their_addresses(arch: str) -> None:
    """Zeros follow what begins otherwise; addresses are in a constant bank, and in variables."""
    found = cubin.read(nvrtc.compile_cuda(SOURCE, arch))
    address = 0x12_3456_0000
    first = found.variables.placed(address)
    zeros = -(-len(first) // 256) * 256
    assert found.variables_bytes == zeros + 40
    at = first.index(struct.pack("<f", 3))
    (inside,) = (offset for offset, _ in found.variables.pointers)
    assert struct.unpack_from("<Q", first, inside) == (address + zeros + 8,)
    bank = found.banks[4].placed(address)
    wanted = {address + at, address + inside, address + zeros}
    assert {*struct.unpack(f"<{len(bank) // 8}Q", bank)} == wanted


def test_an_address_that_is_not_in_the_file_is_named() -> None:
    content = bytearray(image())
    entry = content.index(struct.pack("<QI", 16, 2))  # of the third address in bank 4
    struct.pack_into("<I", content, entry + 8, 77)
    with pytest.raises(UnsupportedObject, match=r"nv\.constant4 has a relocation of kind 77 to "):
        cubin.read(bytes(content))


def test_a_file_of_another_kind_is_refused() -> None:
    other = bytearray(image())
    struct.pack_into("<H", other, 18, 62)
    with pytest.raises(UnsupportedObject, match="not a cubin"):
        cubin.read(bytes(other))
    for content in (b"", b"no ELF file", image()[:100]):
        with pytest.raises(MalformedObject):
            cubin.read(content)


def linked() -> bytes:
    """A cubin with functions and relocations, or the first if nothing links here."""
    if nvjitlink.missing():
        return image()
    x, y = (typed(i, (30,), dtypes.uint8) for i in (1, 2))
    return compile_kernel(assign(x.alu(Op.IDIV, y)), gpu_target("sm_75", compiler="nvptx")).image


HEADER_PLACES = (4, 5, 6, 8, 16, 18, *range(40, 64))  # of what leads further


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """A cubin with bytes or numbers changed: anywhere, or in its header, tables and attributes."""
    content = bytearray(draw(st.sampled_from((image, functools.cache(linked))))())
    (table,) = struct.unpack_from("<Q", content, 40)
    sections = struct.unpack_from("<H", content, 60)[0]
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(("byte", "header", "section", "inside")))
        if kind == "section":
            at = table + 64 * draw(st.integers(0, sections - 1))
            place, size = at + draw(st.sampled_from((0, 4, 24, 32, 40, 44, 56))), 4
        elif kind == "inside":
            header = table + 64 * draw(st.integers(0, sections - 1))
            start, length = struct.unpack_from("<QQ", content, header + 24)
            place, size = start + draw(st.integers(0, max(0, min(length, 1 << 16) - 1))), 2
        elif kind == "header":
            place, size = draw(st.sampled_from(HEADER_PLACES)), 2
        else:
            place, size = draw(st.integers(0, len(content) - 1)), 1
        number = draw(st.integers(0, 255) | st.sampled_from((0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)))
        changed = number.to_bytes(4, "little")[:size]
        place = min(place, len(content) - size)
        content[place : place + size] = changed
    if draw(st.integers(0, 4)) == 0:
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


@given(hostile())
@settings(max_examples=10_000 if os.environ.get("TINYHW_FULL") == "1" else 400, deadline=None)
def test_a_hostile_cubin_is_read_or_refused(content: bytes) -> None:
    try:
        found = cubin.read(content)
        placed = [found.place(name, 1 << 38) for name in found.kernels]
    except (MalformedObject, UnsupportedObject):
        return
    assert all(len(code) % 16 == 0 for code in placed)
    assert sum(map(len, placed)) <= 16 * len(content)


def bomb(change: Callable[[bytearray, int], None], size: int = 1 << 20) -> bytes:
    """A cubin that is followed by many bytes, with one of its sections changed: of symbols."""
    content = bytearray(image()) + b"x" * size
    (table,) = struct.unpack_from("<Q", content, 40)
    kinds = [struct.unpack_from("<I", content, table + 64 * i + 4)[0] for i in range(12)]
    change(content, table + 64 * kinds.index(2))  # SHT_SYMTAB
    return bytes(content)


def spread(content: bytearray, header: int) -> None:
    """The section is all that follows."""
    struct.pack_into("<QQ", content, header + 24, len(image()) + 8 & -8, 24 * 40_000)


def names_without_end(content: bytearray, header: int) -> None:
    (table,), (link,) = (struct.unpack_from(f, content, at) for f, at in (
        ("<Q", 40), ("<I", header + 40)))  # fmt: skip
    struct.pack_into("<QQ", content, table + 64 * link + 24, len(image()), 1 << 20)


def tiny_entries(content: bytearray, header: int) -> None:
    spread(content, header)
    struct.pack_into("<Q", content, header + 56, 1)


def compressed(content: bytearray, header: int) -> None:
    struct.pack_into("<Q", content, header + 8, 0x800)


def no_sections(content: bytearray, header: int) -> None:
    """The count stands in section 0, and all sections lie at one place."""
    struct.pack_into("<HH", content, 58, 0, 0)
    struct.pack_into("<Q", content, struct.unpack_from("<Q", content, 40)[0] + 32, 1 << 40)


@pytest.mark.parametrize(
    "change", [spread, names_without_end, tiny_entries, compressed, no_sections],
    ids=lambda each: each.__name__,
)
def test_a_file_that_would_take_long_is_refused(change: Callable[[bytearray, int], None]) -> None:
    content = bomb(change)
    tracemalloc.start()
    with pytest.raises(MalformedObject):
        cubin.read(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(content) + (64 << 20)


def test_a_relocation_of_a_kind_that_nobody_knows_is_named() -> None:
    content = bytearray(linked())
    known = cubin.read(bytes(content))
    if not known.functions:
        pytest.skip("nvidia-nvjitlink is not installed")
    place = bytes(content).index(struct.pack("<II", 58, 3))
    struct.pack_into("<I", content, place, 99)
    with pytest.raises(UnsupportedObject, match="a relocation of kind 99"):
        cubin.read(bytes(content))
