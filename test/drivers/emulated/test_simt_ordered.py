"""Loads and stores whose lanes are in order, almost in order, or not, at the ends of ranges too."""

from __future__ import annotations

import re

import numpy as np
import pytest

from drivers.emulated.simt.dispatch import MemoryRange
from test.drivers.emulated import gpu

LANES = 64
TYPES = {"i8": 1, "i16": 2, "i32": 4, "<2 x i32>": 8, "<3 x i32>": 12, "<4 x i32>": 16}

# Moves an element from an offset to another; offsets are read by the thread's number. The second
# load has its offsets from the block that the first is in, and the two add up.
MOVE = """
define amdgpu_kernel void @k(ptr addrspace(1) %from, ptr addrspace(1) %to,
    ptr addrspace(1) noalias %source, ptr addrspace(1) noalias %target) #0 {{
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %from.at = getelementptr i32, ptr addrspace(1) %from, i32 %t
  %to.at = getelementptr i32, ptr addrspace(1) %to, i32 %t
  %f = load i32, ptr addrspace(1) %from.at
  %g = load i32, ptr addrspace(1) %to.at
  %f.wide = zext i32 %f to i64
  %g.wide = zext i32 %g to i64
  %here = getelementptr i8, ptr addrspace(1) %source, i64 %f.wide
  %there = getelementptr i8, ptr addrspace(1) %target, i64 %g.wide
  %x = load {type}, ptr addrspace(1) %here, align 4
  %other = getelementptr i8, ptr addrspace(1) %here, i64 512
  %y = load {type}, ptr addrspace(1) %other, align 4
  %sum = add {type} %x, %y
  store {type} %sum, ptr addrspace(1) %there, align 4
  ret void
}}
"""
SOURCE_BYTES = 4096


def orders(size: int) -> dict[str, np.ndarray]:
    """Offsets of elements, lane by lane: each must come out right, whatever way it takes."""
    lane = np.arange(LANES)
    swapped, turned = lane.copy(), lane[::-1]
    swapped[[20, 21]] = swapped[[21, 20]]
    found = {
        "neighbours": lane,
        "one": np.full(LANES, 5),
        "halves apart": lane % 16 + lane // 16 * 24,
        "one in each half": lane // 16 * 3,
        "neighbours in one half, one address in the other": np.where(lane % 32 < 16, lane, 7),
        "eights apart": lane % 8 + lane // 8 * 11,
        "one in each eight": lane // 8,
        "two exchanged": swapped,
        "backward": turned,
        "far first lane": np.where(lane == 0, 90, lane),
    }
    return {name: (order * size).astype(np.uint32) for name, order in found.items()}


@pytest.mark.parametrize("wave_size", [32, 64])
@pytest.mark.parametrize("type", TYPES)
def test_elements_go_where_their_lane_says(type, wave_size, monkeypatch):
    monkeypatch.setattr(gpu, "target", gpu.Target("gfx1100", wave_size))
    kernel, size = gpu.compile_kernel(MOVE.format(type=type)), TYPES[type]
    assert re.search(r"_load_\w+ v\S+, v\d+, s\[\d+:\d+\] offset:512", kernel.assembly)
    source = np.random.default_rng(1).integers(0, 256, SOURCE_BYTES, dtype=np.uint8)
    word = np.dtype(f"u{min(size, 4)}")
    element = (np.arange(size // word.itemsize) * word.itemsize)
    wide = np.lib.stride_tricks.sliding_window_view(source, word.itemsize)
    wide = np.ascontiguousarray(wide).view(word).ravel()
    ways = orders(size)
    for name, come in ways.items():
        for go in (ways["neighbours"], ways["backward"], ways["halves apart"]):
            target = np.zeros(SOURCE_BYTES, np.uint8)
            assert gpu.launch(kernel, (1, 1, 1), (LANES, 1, 1), come, go, source, target) is None
            places = come[:, None] + element
            expected = np.zeros(SOURCE_BYTES, np.uint8)
            for at, value in zip((go[:, None] + element).ravel(),
                                 (wide[places] + wide[places + 512]).ravel(), strict=True):
                expected[at : at + word.itemsize] = np.array([value]).view(np.uint8)
            assert np.array_equal(target, expected), name


def local_move(type: str) -> str:
    """The same within local memory, into which each thread has brought 16 dwords."""
    lines = []
    for k in range(SOURCE_BYTES // 4 // LANES):
        lines.append(f"""
  %at{k} = add i32 %t, {k * LANES}
  %s{k}.at = getelementptr i32, ptr addrspace(1) %source, i32 %at{k}
  %s{k} = load i32, ptr addrspace(1) %s{k}.at
  %l{k} = getelementptr i32, ptr addrspace(3) @in, i32 %at{k}
  store i32 %s{k}, ptr addrspace(3) %l{k}
  %z{k} = getelementptr i32, ptr addrspace(3) @out, i32 %at{k}
  store i32 0, ptr addrspace(3) %z{k}""")
    back = "".join(f"""
  %o{k} = getelementptr i32, ptr addrspace(3) @out, i32 %at{k}
  %v{k} = load i32, ptr addrspace(3) %o{k}
  %d{k} = getelementptr i32, ptr addrspace(1) %target, i32 %at{k}
  store i32 %v{k}, ptr addrspace(1) %d{k}""" for k in range(len(lines)))
    area = f"internal addrspace(3) global [{SOURCE_BYTES} x i8] undef, align 16"
    return f"""
@in = {area}
@out = {area}
define amdgpu_kernel void @k(ptr addrspace(1) noalias %from, ptr addrspace(1) noalias %to,
    ptr addrspace(1) noalias %source, ptr addrspace(1) noalias %target) #0 {{
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %from.at = getelementptr i32, ptr addrspace(1) %from, i32 %t
  %to.at = getelementptr i32, ptr addrspace(1) %to, i32 %t
  %f = load i32, ptr addrspace(1) %from.at
  %g = load i32, ptr addrspace(1) %to.at
  {"".join(lines)}
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %here = getelementptr i8, ptr addrspace(3) @in, i32 %f
  %there = getelementptr i8, ptr addrspace(3) @out, i32 %g
  %x = load {type}, ptr addrspace(3) %here, align 4
  %other = getelementptr i8, ptr addrspace(3) %here, i32 512
  %y = load {type}, ptr addrspace(3) %other, align 4
  %sum = add {type} %x, %y
  store {type} %sum, ptr addrspace(3) %there, align 4
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  {back}
  ret void
}}
"""


@pytest.mark.parametrize("wave_size", [32, 64])
@pytest.mark.parametrize("type", TYPES)
def test_local_elements_go_where_their_lane_says(type, wave_size, monkeypatch):
    monkeypatch.setattr(gpu, "target", gpu.Target("gfx1100", wave_size))
    kernel, size = gpu.compile_kernel(local_move(type), '"amdgpu-flat-work-group-size"="64,64"'), (
        TYPES[type]
    )
    assert "ds_load" in kernel.assembly and "ds_store" in kernel.assembly
    source = np.random.default_rng(2).integers(0, 256, SOURCE_BYTES, dtype=np.uint8)
    word = np.dtype(f"u{min(size, 4)}")
    element = np.arange(size // word.itemsize) * word.itemsize
    ways = orders(size)
    for name, come in ways.items():
        for go in (ways["neighbours"], ways["halves apart"], ways["eights apart"]):
            target = np.zeros(SOURCE_BYTES, np.uint8)
            assert gpu.launch(kernel, (1, 1, 1), (LANES, 1, 1), come, go, source, target) is None
            expected = np.zeros(SOURCE_BYTES, np.uint8)
            for to, at in zip((go[:, None] + element).ravel(), (come[:, None] + element).ravel(),
                              strict=True):
                one, other = (int.from_bytes(source[a : a + word.itemsize].tobytes(), "little")
                              for a in (at, at + 512))
                total = (one + other) % (1 << 8 * word.itemsize)
                expected[to : to + word.itemsize] = np.array([total], word).view(np.uint8)
            assert np.array_equal(target, expected), name


@pytest.mark.parametrize("order", ["neighbours", "one", "halves apart", "one in each half"])
def test_what_reaches_over_the_end_of_a_range_is_a_fault_there(order):
    kernel, offsets = gpu.compile_kernel(MOVE.format(type="<4 x i32>")), orders(16)
    source, target = (np.zeros(SOURCE_BYTES, np.uint8) for _ in range(2))
    arrays = (offsets[order], offsets["neighbours"], source, target)
    end = int(offsets[order].max()) + 512 + 16

    def run(source_bytes, target_bytes):
        lengths = (arrays[0].nbytes, arrays[1].nbytes, source_bytes, target_bytes)
        memory = [MemoryRange(array.ctypes.data, array.ctypes.data + length)
                  for array, length in zip(arrays, lengths, strict=True)]
        return gpu.launch(kernel, (1, 1, 1), (LANES, 1, 1), *arrays, memory=memory)

    assert run(end, 16 * LANES) is None
    fault = run(end - 1, 16 * LANES)
    assert (fault.access, fault.address) == ("read", source.ctypes.data + end - 16)
    fault = run(end, 16 * LANES - 1)
    assert (fault.access, fault.address) == ("write", target.ctypes.data + 16 * LANES - 16)


def test_halves_of_a_wave_may_lie_in_ranges_apart():
    kernel = gpu.compile_kernel(MOVE.format(type="i32"))
    come, go = (orders(4)["neighbours"].copy() for _ in range(2))
    come[16:] += 1024
    go[16:32] += 1024
    source = np.arange(SOURCE_BYTES // 4, dtype=np.uint32)
    target = np.zeros(SOURCE_BYTES // 4, np.uint32)
    memory = [MemoryRange(array.ctypes.data, array.ctypes.data + array.nbytes)
              for array in (come, go)]
    for array in (source, target):  # with a hole between
        first = array.ctypes.data
        memory += [MemoryRange(first, first + 800), MemoryRange(first + 1024, first + 2500)]
    arrays = (come, go, source, target)
    for _ in range(2):  # with ranges unknown, and known
        target[:] = 0
        assert gpu.launch(kernel, (1, 1, 1), (LANES, 1, 1), *arrays, memory=memory) is None
        assert np.array_equal(target[go // 4], 2 * source[come // 4] + 128)
        assert np.count_nonzero(target) == LANES


# Two loads of the same place with a store to it between them, and a register that is loaded anew
# before anybody has read what it held.
IN_ORDER = """
define amdgpu_kernel void @k(ptr addrspace(1) %out, ptr addrspace(1) %in) #0 {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %wide = zext i32 %t to i64
  %here = getelementptr i32, ptr addrspace(1) %in, i64 %wide
  %there = getelementptr i32, ptr addrspace(1) %out, i64 %wide
  %first = load volatile i32, ptr addrspace(1) %here
  %more = add i32 %t, 1000
  store volatile i32 %more, ptr addrspace(1) %here
  %second = load volatile i32, ptr addrspace(1) %here
  %unread = load volatile i32, ptr addrspace(1) %here
  %sum = add i32 %first, %second
  store i32 %sum, ptr addrspace(1) %there
  ret void
}
"""


@pytest.mark.parametrize("wave_size", [32, 64])
def test_loads_that_are_put_off_keep_their_place_among_stores(wave_size, monkeypatch):
    monkeypatch.setattr(gpu, "target", gpu.Target("gfx1100", wave_size))
    kernel = gpu.compile_kernel(IN_ORDER)
    lanes = np.arange(LANES, dtype=np.uint32)
    given, out = lanes * 7, np.zeros(LANES, np.uint32)
    assert gpu.launch(kernel, (1, 1, 1), (LANES, 1, 1), out, given) is None
    assert np.array_equal(out, lanes * 7 + lanes + 1000)
    assert np.array_equal(given, lanes + 1000)


def test_a_load_that_nobody_reads_is_a_fault_all_the_same():
    far = "  %far = getelementptr i8, ptr addrspace(1) %here, i64 4000\n"
    text = IN_ORDER.replace("  %unread", f"{far}  %unread")
    kernel = gpu.compile_kernel(text.replace("(1) %here\n  %sum", "(1) %far\n  %sum"))
    given, out = (np.zeros(LANES, np.uint32) for _ in range(2))
    memory = [MemoryRange(v.ctypes.data, v.ctypes.data + v.nbytes) for v in (out, given)]
    fault = gpu.launch(kernel, (1, 1, 1), (32, 1, 1), out, given, memory=memory)
    assert (fault.access, fault.address) == ("read", given.ctypes.data + 4000)
