"""What a launch looks like in memory: methods, QMDs and constant banks, read by the headers.

The decoder here knows nothing of the driver's tables: places are retyped from clcbc0qmd.h,
clc6c0qmd.h, clc5c0qmd.h and clc86f.h of NVIDIA's open-gpu-doc.
"""

from __future__ import annotations

import struct

import pytest

from compiler import nvjitlink, nvrtc
from compiler.code_object import CodeObject
from compiler.compile import compile_kernel
from compiler.cubin import read
from compiler.dtype import dtypes
from compiler.ir import Op
from compiler.nvidia import gpu_target
from compiler.nvrtc import compile_cuda
from drivers import Var
from drivers.errors import ArgumentMismatch, DeviceFault, MalformedInput
from drivers.timeline import memory_view
from test.compiler.test_amdgpu import assign, typed
from test.drivers import kernels

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")

# first bit and bits of each field
V4 = {
    "version": (576, 8), "type": (23, 3), "grid": ((1024, 32), (1056, 16), (1088, 16)),
    "block": ((1152, 16), (1168, 16), (1184, 16)), "registers": (1200, 9), "barriers": (1211, 5),
    "program": ((1216, 32), (1248, 25)), "shared": (584, 18), "min config": (608, 6),
    "local": (544, 24), "bank": ((1536, 32), (1568, 19)), "bank shift": 6,
    "bank size": (1587, 13), "bank valid": (416, 4), "membar": (1136, 2), "invalidate": (602, 6),
}
V3 = {
    "version": (576, 8), "type": (0, 0), "grid": ((384, 32), (416, 16), (448, 16)),
    "block": ((592, 16), (608, 16), (624, 16)), "registers": (648, 9), "barriers": (763, 5),
    "program": ((1536, 32), (1568, 17)), "shared": (544, 18), "min config": (562, 6),
    "local": (1600, 24), "bank": ((1024, 32), (1056, 17)), "bank shift": 0,
    "bank size": (1075, 13), "bank valid": (640, 8), "membar": (368, 2), "invalidate": (186, 6),
}
V2 = V3 | {"min config": (562, 7), "barriers": (955, 5), "local": (960, 24)}
LAYOUTS = {  # QMD, its version, its bytes, valid bank 0 (and in V4 its invalidation)
    "sm_75": (V2, 0x22, 256, 1), "sm_86": (V3, 0x30, 256, 1), "sm_89": (V3, 0x30, 256, 1),
    "sm_90": (V4, 0x40, 384, 9),
}
OBJECTS = {0: "compute", 4: "copy"}


def methods_of(words: list[int]) -> list[tuple[str, int, int]]:
    """(subchannel or host, method, data) of every method in a pushbuffer segment."""
    found, at = [], 0
    while at < len(words):
        head, at = words[at], at + 1
        assert head >> 29 == 1, "an incrementing method"
        count, subchannel, method = head >> 16 & 0x1FFF, head >> 13 & 7, (head & 0xFFF) * 4
        for i in range(count):
            offset = method + 4 * i
            engine = OBJECTS[subchannel] if offset >= 0x100 or offset == 0 else "host"
            found.append((engine, offset, words[at + i]))
        at += count
    assert at == len(words)
    return found


def bits(words: list[int], place: tuple[int, int]) -> int:
    first, width = place
    whole = int.from_bytes(struct.pack(f"<{len(words)}I", *words), "little")
    return whole >> first & ((1 << width) - 1)


def joined(words: list[int], places) -> int:
    return bits(words, places[0]) | bits(words, places[1]) << 32


class Placed:
    """A list as it stands in memory at some address, and what it leads to."""

    def __init__(self, queue, commands, **variables) -> None:
        encoded = queue.encoder(commands._steps, variables or None).finish()
        self.storage = queue.device.command_allocator.allocate(len(encoded.block) + 256)
        address = -(-self.storage.address // 256) * 256
        encoded.place(address, memory_view(address, len(encoded.block)))
        self.methods = methods_of(self.words(address, encoded.count))
        self.encoded, self.address = encoded, address

    def words(self, address: int, count: int) -> list[int]:
        return list(struct.unpack(f"<{count}I", memory_view(address, 4 * count)))

    def launches(self, size: int) -> list[list[int]]:
        return [
            self.words(data << 8, size // 4)
            for engine, offset, data in self.methods if (engine, offset) == ("compute", 0x2B4)
        ]


def arch_of(device) -> str:
    return device.gpu.generation.name


def test_a_launch_has_its_qmd_and_its_constant_bank(board_device) -> None:
    device = board_device
    layout, version, size, valid = LAYOUTS[arch_of(device)]
    code = kernels.add_number(device.target)
    kernel = read(code.image).kernels["add_number"]
    program = device.load(code)
    out, given = device.alloc(64), device.alloc(64)
    commands = device.compute_queue().commands().exec(program, (out, given, -2), (7, 5, 3))
    (qmd,) = Placed(commands._queue, commands).launches(size)
    assert bits(qmd, layout["version"]) == version  # major, then minor
    assert [bits(qmd, place) for place in layout["grid"]] == [7, 5, 3]
    assert [bits(qmd, place) for place in layout["block"]] == [1, 1, 1]
    assert bits(qmd, layout["registers"]) == kernel.registers
    assert bits(qmd, layout["membar"]) == 1 and bits(qmd, layout["invalidate"]) == 0x3F
    address = joined(qmd, layout["program"])
    assert bytes(memory_view(address, len(kernel.code))) == kernel.code and address % 128 == 0
    shared = 0 if arch_of(device) == "sm_75" else 0x400
    assert bits(qmd, layout["shared"]) == shared
    assert bits(qmd, layout["min config"]) == (32 if not shared else 8) // 4 + 1
    assert bits(qmd, layout["local"]) == 0 and bits(qmd, layout["bank valid"]) == valid
    bank = joined(qmd, layout["bank"]) << layout["bank shift"]
    content = bytes(memory_view(bank, bits(qmd, layout["bank size"]) * 16))
    assert struct.unpack_from("<6I", content) == (1, 1, 1, 7, 5, 3)
    assert struct.unpack_from("<QQI", content, 0x18) == (
        0x7294 << 32, 0x7293 << 32, 0xFFFDC0
    )
    base = kernel.parameter_base
    assert struct.unpack_from("<QQq", content, base) == (out.gpu_addr, given.gpu_addr, -2)


def test_engines_take_turns_and_kernels_wait_for_each_other(board_device) -> None:
    device = board_device
    program = device.load(kernels.add_number(device.target))
    a, b = device.alloc(64), device.alloc(64)
    commands = device.compute_queue().commands()
    commands.exec(program, (a, a, 1)).exec(program, (a, a, 1), (0, 1, 1))
    commands.exec(program, (b, a, 1)).copy(a, b).exec(program, (b, a, 1))
    order = [
        {("compute", 0x2B4): "launch", ("compute", 0x110): "idle", ("copy", 0x300): "copy",
         ("host", 0x78): f"WFI {data}"}.get((engine, offset))
        for engine, offset, data in Placed(commands._queue, commands).methods
    ]  # fmt: skip
    assert [each for each in order if each] == [
        "launch", "idle", "launch", "WFI 1", "copy", "WFI 1", "launch"
    ]


def test_turing_schedules_by_its_own_method(board_device) -> None:
    device = board_device
    program = device.load(kernels.store_at(device.target))
    commands = device.compute_queue().commands().exec(program, (device.alloc(8), 0, 1))
    methods = Placed(commands._queue, commands).methods
    expected = ("compute", 0x2BC, 3) if arch_of(device) == "sm_75" else ("compute", 0x2C0, 3)
    assert methods[-1] == expected


def test_vars_stand_in_the_qmd_and_in_the_bank(board_device) -> None:
    device = board_device
    layout, _, size, _ = LAYOUTS[arch_of(device)]
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    commands = queue.commands().exec(
        program, (Var("o"), Var("i"), Var("n")), (Var("n"), Var("h"), 1)
    )
    placed = Placed(queue, commands)
    table, address = placed.encoded.table, placed.address
    values = bytearray(table.value_bytes)
    out = device.alloc(64)
    table.filler().fill(memoryview(values), {"o": out, "i": out, "n": 9, "h": 4})
    for offset, slot, width, *_ in table._patches:
        memory_view(address + offset, width)[:] = values[8 * slot : 8 * slot + width]
    (qmd,) = placed.launches(size)
    assert [bits(qmd, place) for place in layout["grid"]] == [9, 4, 1]
    bank = joined(qmd, layout["bank"]) << layout["bank shift"]
    assert struct.unpack_from("<3I", memory_view(bank, 64), 0xC) == (9, 4, 1)
    base = program.arguments_at
    assert struct.unpack_from("<QQq", memory_view(bank, base + 24), base) == (
        out.gpu_addr, out.gpu_addr, 9
    )


def test_an_empty_grid_of_a_var_launches_nothing(board_device) -> None:
    device = board_device
    program = device.load(kernels.add_number(device.target))
    out = device.alloc(64)
    commands = device.compute_queue().commands().exec(program, (out, out, 1), (Var("g"), 1, 1))
    commands.submit(g=0).wait()
    commands.bind().replay(g=0).wait()
    placed = Placed(commands._queue, commands, g=0)
    assert [offset for engine, offset, _ in placed.methods if engine == "compute"] == []


def source_kernel(device, name: str, text: str) -> CodeObject:
    params = (kernels.buffer("out"),)
    image = compile_cuda(f'extern "C" __global__ void {name}(int *out) {{ {text} }}',
                         device.target.arch)  # fmt: skip
    return CodeObject(name, device.target.arch, image, 0, params, block=(64, 1, 1))


def test_shared_and_local_memory_are_asked_for(board_device) -> None:
    device = board_device
    layout, _, size, _ = LAYOUTS[arch_of(device)]
    code = source_kernel(
        device, "both",
        "__shared__ volatile int s[5000]; volatile int a[300]; int i = threadIdx.x;"
        "s[i] = i; for (int j = 0; j < 300; j++) a[(j * out[1]) % 300] = s[(i + j) % 5000];"
        "__syncthreads(); out[i] = a[out[0]];",
    )
    kernel = read(code.image).kernels["both"]
    commands = device.compute_queue().commands().exec(device.load(code), (device.alloc(4096),))
    placed = Placed(commands._queue, commands)
    (qmd,) = placed.launches(size)
    reserved = 0 if arch_of(device) == "sm_75" else 0x400
    shared = -(-(kernel.shared_bytes + reserved) // 128) * 128
    assert kernel.shared_bytes >= 20_000 and bits(qmd, layout["shared"]) == shared
    assert bits(qmd, layout["min config"]) == 32 // 4 + 1
    assert bits(qmd, layout["barriers"]) == kernel.barriers >= 1
    assert kernel.stack_bytes >= 1200
    local = bits(qmd, layout["local"])
    assert local == -(-(kernel.stack_bytes + 0x240) // 16) * 16
    calls = {offset: data for engine, offset, data in placed.methods if engine == "compute"}
    per_tpc = calls[0x2E4] << 32 | calls[0x2E8]
    gpu = device.gpu
    assert per_tpc % 0x8000 == 0 and per_tpc >= local * 32 * gpu.warps_per_sm * gpu.sms_per_tpc
    area = calls[0x790] << 32 | calls[0x794]
    block, _ = device.gpu_memory.nearest(area)
    total = per_tpc * gpu.tpcs_per_gpc * gpu.gpcs
    assert block.address <= area and area + total <= block.address + block.size_bytes


def test_damaged_and_foreign_cubins_are_refused(nv_device) -> None:
    code = kernels.store_at(nv_device.target)
    cases = {
        "is no whole cubin": code.image[:700],
        "is not in its cubin": kernels.add_number(nv_device.target).image,
    }
    for sentence, image in cases.items():
        broken = CodeObject("store_at", code.arch, image, 0, code.params)
        with pytest.raises(MalformedInput, match=sentence):
            nv_device.load(broken)
    fewer = CodeObject("store_at", code.arch, code.image, 0, code.params[:2])
    with pytest.raises(MalformedInput, match=r"parameters at \[0, 8, 16\]"):
        nv_device.load(fewer)
    with pytest.raises(ArgumentMismatch, match="a copy queue of this device only copies"):
        program = nv_device.load(code)
        nv_device.copy_queue().commands().exec(program, (nv_device.alloc(8), 0, 1)).submit()


@pytest.mark.skipif(bool(nvjitlink.missing()), reason=nvjitlink.missing() or "-")
def test_functions_lie_behind_their_kernel_and_know_its_address(board_device) -> None:
    """LLVM's code of a division of bytes, judged by what stands in memory, and by its results."""
    target = gpu_target(board_device.target.arch, compiler="nvptx")
    x, y = (typed(i, (64,), dtypes.uint8) for i in (1, 2))
    code = compile_kernel(assign(x.alu(Op.IDIV, y)), target)
    content = read(code.image)
    (function,), program = content.functions.values(), board_device.load(code)
    memory = bytes(memory_view(program.address, program.size_bytes))
    start = program.size_bytes - len(function.code)
    assert start % 128 == 0 and memory[start:] == function.code
    words = struct.unpack(f"<{len(memory) // 4}I", memory)
    before = struct.unpack(f"<{start // 4}I", content.kernels[code.name].code.ljust(start, b"\0"))
    changed = [i for i, (a, b) in enumerate(zip(words, before, strict=False)) if a != b]
    # The return address, in two halves, and the call's.
    assert words[changed[0]] == program.address + 16 * (changed[2] // 4 + 1) & 0xFFFFFFFF
    assert words[changed[1]] == program.address >> 32
    assert all(i // 4 == changed[2] // 4 for i in changed[2:])
    out, *given = (board_device.alloc(64) for _ in range(3))
    numbers = [[(7 * i + 200) % 256 for i in range(64)], [1 + i % 9 for i in range(64)]]
    for buffer, values in zip(given, numbers, strict=True):
        buffer.cpu_view()[:] = bytes(values)
    commands = board_device.compute_queue().commands()
    commands.exec(program, (out, *given), code.grid).submit().wait()
    assert list(bytes(out.cpu_view())) == [a // b for a, b in zip(*numbers, strict=True)]


def test_constant_tables_and_variables_of_a_cubin_are_placed(board_device) -> None:
    """Variables begin as the program says, pointers among them, or as zeros, and last."""
    text = """__constant__ int table[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    __device__ int count = 40, zeros[100]; __device__ int *where = &count;
    __constant__ int *inside = &zeros[6];
    extern "C" __global__ void k(int *out) {
      if (threadIdx.x == 0) { out[1] = table[out[0] & 7]; out[2] = ++count; out[3] = *where;
        out[4] = zeros[out[0]]; *inside += 3; } }"""
    arch = board_device.target.arch
    code = CodeObject("k", arch, compile_cuda(text, arch), 0, (kernels.buffer("out"),))
    program, out = board_device.load(code), board_device.alloc(20)
    for launch in range(2):
        out.cpu_view()[:] = struct.pack("<5i", 6, 0, 0, 0, 9)
        board_device.compute_queue().commands().exec(program, (out,)).submit().wait()
        found = struct.unpack("<5i", bytes(out.cpu_view()))
        assert found == (6, 7, 41 + launch, 41 + launch, 3 * launch)


def test_a_kernel_that_the_gpu_refuses_ends_its_channels_with_a_sentence(nv_device) -> None:
    code = source_kernel(nv_device, "broken", "out[0] = 1;")
    program = nv_device.load(code)
    memory_view(program.address, 16)[:] = b"\xff" * 16  # no instruction
    commands = nv_device.compute_queue().commands().exec(program, (nv_device.alloc(64),))
    said = r"in kernel broken, dispatch 1\. The (emulated board says|kernel's log)"
    with pytest.raises(DeviceFault, match=said):
        commands.submit().wait()
