"""Kernels for AMD GPUs: that they compile, and that what a launcher reads is consistent.

What they compute is judged elsewhere: `test_lower.py` runs the same plans instruction by
instruction. An independent disassembler (Debian's llvm-19) must know every instruction.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from compiler import compile as compiling
from compiler import elf, llvm
from compiler.amdgpu import ARCHITECTURES, KernelDescriptor, gpu_target
from compiler.build import build, render
from compiler.code_object import CodeObject
from compiler.compile import compile_kernel
from compiler.dtype import DType, dtypes
from compiler.errors import InvalidKernel, UndefinedSymbol
from compiler.ir import COMPARE, Node, Op
from test.compiler.linear_kernels import const, kernel, load, splat, store
from test.compiler.linear_kernels import param as flat
from test.compiler.test_lower import matmul, param, windows

F32 = dtypes.float32
TESTED = ("gfx1100", "gfx1030", "gfx1201", "gfx942", "gfx90a")
ALL_TESTED = pytest.mark.parametrize("arch", TESTED)
MACHINE_OF = {"gfx90a": 0x3F, "gfx942": 0x4C, "gfx1030": 0x36, "gfx1100": 0x41, "gfx1201": 0x4E}
"""EF_AMDGPU_MACH of each, in an ELF header's flags: AMDGPUUsage.rst, "ELF Code Object"."""


@pytest.fixture(autouse=True)
def no_disk_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYHW_CACHE", "0")
    monkeypatch.setattr(compiling, "_compiled", {})


def assign(value: Node) -> Node:
    size = math.prod(value.shape)  # type: ignore[arg-type]
    return Node(Op.PARAM, value.dtype, (), (0, size)).reshape(value.shape).assign(value)


def typed(position: int, shape: tuple[int, ...], dtype: DType) -> Node:
    return Node(Op.PARAM, dtype, (), (position, math.prod(shape))).reshape(shape)


# ---- kernels ----


def softmax(shape: tuple[int, int]) -> Node:
    node = param(1, shape)
    most = node.reduce(Op.MAX, (1,)).expand(shape)
    power = node.alu(Op.ADD, most.alu(Op.MUL, Node.const(-1, F32))).alu(Op.EXP2)
    return power.alu(Op.DIV, power.reduce(Op.ADD, (1,)).expand(shape))


def convolution() -> Node:
    batch, cin, cout, side, size = 2, 3, 20, 11, 3
    out = side - size + 1
    seen = windows(windows(param(1, (batch, cin, side, side)), 2, size), 4, size)
    full = (batch, cout, out, out, cin, size, size)
    seen = seen.permute((0, 2, 4, 1, 3, 5)).reshape((batch, 1, out, out, cin, size, size))
    weight = param(2, (cout, cin, size, size)).reshape((1, cout, 1, 1, cin, size, size))
    return seen.expand(full).alu(Op.MUL, weight.expand(full)).reduce(Op.ADD, (4, 5, 6))


def masked() -> Node:
    x = param(1, (50, 30)).pad(((1, 2), (3, 4)))
    return x.alu(Op.CMPLT, Node.const(0, F32)).alu(Op.WHERE, Node.const(-1, F32), x)


def half(dtype: DType) -> Node:
    x, y = typed(1, (40, 33), dtype), typed(2, (40, 33), dtype)
    return x.alu(Op.MUL, y).alu(Op.ADD, x.alu(Op.SQRT)).reduce(Op.ADD, (1,))


def integers(dtype: DType) -> Node:
    x, y = typed(1, (300,), dtype), typed(2, (300,), dtype)
    return x.alu(Op.IDIV, y).alu(Op.ADD, x.alu(Op.MOD, y)).alu(Op.MUL, y)


REAL: dict[str, Callable[[], Node]] = {
    "add": lambda: param(1, (1 << 20,)).alu(Op.ADD, param(2, (1 << 20,))),
    "one element": lambda: param(1, (1,)).alu(Op.SQRT),
    "transpose": lambda: param(1, (300, 200)).permute((1, 0)).alu(Op.ADD, param(2, (200, 300))),
    "five axes": lambda: param(1, (3, 5, 7, 2, 9)).permute((4, 2, 0, 3, 1)).alu(Op.SQRT),
    "row sum": lambda: param(1, (100, 1000)).reduce(Op.ADD, (1,)),
    "column maximum": lambda: param(1, (1000, 100)).reduce(Op.MAX, (0,)),
    "whole sum": lambda: param(1, (999, 77)).reduce(Op.ADD, (0, 1)),
    "softmax": lambda: softmax((64, 1000)),
    "matmul": lambda: matmul(param(1, (128, 256)), param(2, (256, 192))),
    "matmul with rests": lambda: matmul(param(1, (45, 33)), param(2, (33, 70))),
    "large matmul": lambda: matmul(param(1, (2048, 300)), param(2, (300, 2048))),
    "float16 matmul": lambda: matmul(
        typed(1, (1024, 512), dtypes.float16), typed(2, (512, 1024), dtypes.float16)
    ),
    "long sums of products": lambda: matmul(param(1, (20, 5000)), param(2, (5000, 30))),
    "convolution": convolution,
    "masks": masked,
    "gather": lambda: param(1, (70, 50)).gather(typed(2, (90,), dtypes.int32)),
    "gather by long": lambda: param(1, (70, 50)).gather(typed(2, (90,), dtypes.int64)),
    "float16": lambda: half(dtypes.float16),
    "bfloat16": lambda: half(dtypes.bfloat16),
    "int64": lambda: integers(dtypes.int64),
    "uint8": lambda: integers(dtypes.uint8),
    "float64": lambda: typed(1, (40, 40), dtypes.float64).alu(Op.EXP2).reduce(Op.MAX, (1,)),
    "bool sum": lambda: typed(1, (40, 400), dtypes.bool).reduce(Op.ADD, (1,)),
    "sine": lambda: param(1, (100,)).alu(Op.SIN),
    "large": lambda: param(1, (1 << 30,)).alu(Op.ADD, param(2, (1 << 30,))),
}


def compiled(name: str, arch: str) -> CodeObject:
    return _compiled(name, arch)


@functools.cache
def _compiled(name: str, arch: str) -> CodeObject:
    return compile_kernel(assign(REAL[name]()), gpu_target(arch))


@ALL_TESTED
@pytest.mark.parametrize("name", REAL)
def test_what_a_launcher_reads_is_consistent(name: str, arch: str) -> None:
    code, target = compiled(name, arch), gpu_target(arch)
    descriptor = KernelDescriptor.decode(code.image, code.entry)
    assert descriptor.encode() == code.image[code.entry : code.entry + 64]
    assert descriptor.wave32 == (target.lane_width == 32)
    assert descriptor.kernarg_size == 8 * len(code.params)
    assert descriptor.group_segment_fixed_size == code.local_bytes <= target.local_bytes
    assert descriptor.private_segment_fixed_size == code.private_bytes == 0
    assert code.relocations == ()
    start = code.entry + descriptor.kernel_code_entry_byte_offset
    assert start % 256 == 0 and 0 <= start < len(code.image)
    # FLOAT_MODE: to nearest even, subnormal numbers kept.
    assert descriptor.compute_pgm_rsrc1 >> 12 & 0xFF == 0xF0
    # LDS_SIZE is the launcher's; scratch is off; the kernel wants x and whatever it uses.
    assert descriptor.compute_pgm_rsrc2 >> 15 & 0x1FF == 0
    assert descriptor.compute_pgm_rsrc2 & 1 == 0
    assert math.prod(code.block) in range(1, 257)
    assert all(1 <= blocks < 1 << 24 for blocks in code.grid)
    assert code.grid[1] < 1 << 16 and code.grid[2] < 1 << 16


@ALL_TESTED
def test_the_object_is_for_the_architecture(arch: str) -> None:
    data = llvm.compile_ir(compiled("softmax", arch).source, gpu_target(arch))
    assert int.from_bytes(data[18:20], "little") == 224  # EM_AMDGPU
    assert data[8] == 3  # ELFABIVERSION_AMDGPU_HSA_V5
    assert int.from_bytes(data[48:52], "little") & 0xFF == MACHINE_OF[arch]


@ALL_TESTED
def test_the_same_kernel_gives_the_same_bytes(arch: str) -> None:
    ast, target = assign(REAL["softmax"]()), gpu_target(arch)
    first = compiling._compile(ast, target, 0)
    assert compiling._compile(ast, target, 0) == first


@pytest.mark.parametrize("arch", sorted(set(ARCHITECTURES) - set(TESTED)))
def test_the_other_architectures_compile(arch: str) -> None:
    assert compiled("matmul", arch).image and compiled("row sum", arch).local_bytes


@ALL_TESTED
@pytest.mark.parametrize("name", ["row sum", "softmax", "whole sum"])
def test_threads_that_add_up_together_meet_at_barriers(name: str, arch: str) -> None:
    code = compiled(name, arch)
    assert code.local_bytes > 0
    text = llvm.assembly(code.source, gpu_target(arch))
    waves = math.prod(code.block) // gpu_target(arch).lane_width
    # A block of one wave needs none.
    assert ("s_barrier" in text) == (waves > 1)
    # Only local memory is waited for: nothing else is shared, so no cache is emptied.
    assert not re.search(r"buffer_(gl|inv)|global_inv|global_wb|_wbl2", text)


# ---- every op with every dtype ----

FLOATS, INTS = dtypes.floats, dtypes.ints
TAKES: dict[Op, tuple[DType, ...]] = {
    **dict.fromkeys((Op.ADD, Op.MUL, Op.MAX, Op.CMPLT, Op.CMPNE, Op.CMPEQ, Op.WHERE), dtypes.all),
    **dict.fromkeys((Op.DIV, Op.SQRT, Op.EXP2, Op.LOG2, Op.SIN, Op.TRUNC), FLOATS),
    **dict.fromkeys((Op.IDIV, Op.MOD, Op.SHL, Op.SHR), INTS),
    **dict.fromkeys((Op.AND, Op.OR, Op.XOR), (dtypes.bool, *INTS)),
}
UNARY = (Op.SQRT, Op.EXP2, Op.LOG2, Op.SIN, Op.TRUNC)


def one_op(op: Op, dtype: DType) -> Node:
    x, y = typed(1, (100,), dtype), typed(2, (100,), dtype)
    if op in UNARY:
        return x.alu(op)
    if op is Op.WHERE:
        return x.alu(Op.CMPLT, y).alu(op, x, y)
    return x.alu(op, y)


@ALL_TESTED
@pytest.mark.parametrize("op", TAKES, ids=lambda op: op.name)
def test_every_op_compiles_for_every_dtype(op: Op, arch: str) -> None:
    for dtype in TAKES[op]:
        code = compile_kernel(assign(one_op(op, dtype)), gpu_target(arch))
        assert code.params[0].dtype is (dtypes.bool if op in COMPARE else dtype)
        assert code.private_bytes == 0 and code.relocations == ()


@ALL_TESTED
@pytest.mark.parametrize("source", dtypes.all, ids=lambda d: d.name)
def test_every_cast_compiles(source: DType, arch: str) -> None:
    """All from one type as one sum, since each kernel costs its milliseconds."""
    x = typed(1, (100,), source)
    total = Node.const(0, dtypes.float64)
    for dtype in dtypes.all:
        total = x.cast(dtype).cast(dtypes.float64).alu(Op.ADD, total)
        if dtype.bits == source.bits and dtypes.bool not in (dtype, source):
            total = x.bitcast(dtype).cast(dtypes.float64).alu(Op.ADD, total)
    assert compile_kernel(assign(total), gpu_target(arch)).private_bytes == 0


@ALL_TESTED
def test_every_reduction_of_threads_compiles_for_every_dtype(arch: str) -> None:
    for op, dtype in itertools.product((Op.ADD, Op.MUL, Op.MAX), dtypes.all):
        code = compile_kernel(assign(typed(1, (2, 600), dtype).reduce(op, (1,))), gpu_target(arch))
        assert code.local_bytes >= 256 * dtype.itemsize


# ---- indices ----


@ALL_TESTED
def test_indices_are_short_exactly_where_that_is_enough(arch: str) -> None:
    assert "i64" not in _body(compiled("matmul", arch).source).replace("zext nneg i32", "")
    beyond = typed(1, (1 << 33,), dtypes.uint8).alu(Op.ADD, Node.const(1, dtypes.uint8))
    code = compile_kernel(assign(beyond), gpu_target(arch))
    assert "zext nneg i32 %block.x.i32 to i64" in code.source
    assert math.prod(code.grid) * math.prod(code.block) <= 1 << 33


def _body(source: str) -> str:
    """The text without the offsets that every access widens last."""
    lines = source.splitlines()
    return "\n".join(line for line in lines if "to i64" not in line and "i64 %offset" not in line)


def test_variables_are_longs_in_argument_memory() -> None:
    n = Node.variable("n", 1, 40)
    value = param(1, (3, 40)).shrink(((0, 3), (0, n))).alu(Op.SQRT)
    ast = param(0, (3, 40)).shrink(((0, 3), (0, n))).assign(value)
    code = compile_kernel(ast, gpu_target("gfx1100"))
    assert [(p.kind, p.dtype) for p in code.params][2] == ("scalar", dtypes.int64)
    assert "trunc i64 %var_n.slot to i32" in code.source


def test_a_grid_whose_size_is_not_known_has_long_indices() -> None:
    data, block = flat(0, F32, 1 << 20), Node(Op.GRID, dtypes.index, (), 0)
    code = build(kernel([data], store(data, block, const(1.0, F32))), gpu_target("gfx1100"))
    assert "i32 @llvm.amdgcn.workgroup.id.x()" in code.source and "range(" not in code.source


# ---- refused before LLVM dies of it ----


def test_a_vector_is_refused_by_the_name_of_its_op() -> None:
    data, lanes = flat(0, F32, 8), splat(const(1.0, F32), 4)
    with pytest.raises(InvalidKernel, match=r"contains BROADCAST of dtypes.float32.vec\(4\)"):
        render(kernel([data], store(data, const(0), lanes)), gpu_target("gfx1100"))


def test_too_much_local_memory_is_refused_with_both_numbers() -> None:
    data, local = flat(0, F32, 8), Node(Op.LOCAL, F32, (), (0, 20_000))
    body = kernel([data], local, store(data, const(0), load(local, const(0))))
    with pytest.raises(InvalidKernel, match=r"80000 bytes of local memory; gfx1100 .* 65536"):
        build(body, gpu_target("gfx1100"))


def test_too_large_a_block_is_refused() -> None:
    data = flat(0, F32, 8)
    body = replace(kernel([data], store(data, const(0), const(1.0, F32))), block=(64, 32, 1))
    with pytest.raises(InvalidKernel, match="2048 threads in a block; gfx942 has at most 1024"):
        build(body, gpu_target("gfx942"))


def test_an_op_that_is_no_instruction_is_named() -> None:
    data = flat(0, F32, 8)
    sine = Node(Op.SIN, F32, (load(data, const(0)),))
    with pytest.raises(InvalidKernel, match="still has SIN"):
        build(kernel([data], store(data, const(0), sine)), gpu_target("gfx1100"))
    wrong = Node(Op.DETACH, F32, (load(data, const(0)),))
    with pytest.raises(InvalidKernel, match="contains DETACH"):
        build(kernel([data], store(data, const(0), wrong)), gpu_target("gfx1100"))


def test_an_unknown_architecture_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InvalidKernel, match=r"no target for gfx803; there are gfx90a, gfx942"):
        gpu_target("gfx803")


# ---- the linker ----

TABLE = """
@table = internal addrspace(4) constant [4 x i32] [i32 3, i32 1, i32 4, i32 1]
define amdgpu_kernel void @reads(ptr addrspace(1) %out, i32 %i) {
  %at = getelementptr [4 x i32], ptr addrspace(4) @table, i64 0, i32 %i
  %x = load i32, ptr addrspace(4) %at
  store i32 %x, ptr addrspace(1) %out
  ret void
}
"""


@ALL_TESTED
def test_a_table_of_constants_is_reached_relative_to_the_code(arch: str) -> None:
    """What s_getpc_b64, s_add_u32 and s_addc_u32 add up to is the table's place."""
    object = llvm.compile_ir(TABLE, gpu_target(arch))
    image = elf.link(object, "reads.kd", executable=False)
    table = image.bytes.index(b"".join(n.to_bytes(4, "little") for n in (3, 1, 4, 1)))
    descriptor = KernelDescriptor.decode(image.bytes, image.entry_offset)
    start = image.entry_offset + descriptor.kernel_code_entry_byte_offset
    distances = [
        table - at + place
        for at in range(start, image.entry_offset, 4)
        for place in range(0, 24, 4)  # from the instruction that has read the program counter
        if int.from_bytes(image.bytes[at : at + 4], "little") == (table - at + place) % (1 << 32)
    ]
    assert image.relocations == () and distances


def test_a_descriptor_is_no_function_and_a_function_no_descriptor() -> None:
    object = llvm.compile_ir(TABLE, gpu_target("gfx1100"))
    with pytest.raises(UndefinedSymbol, match=r"no function 'reads\.kd'"):
        elf.link(object, "reads.kd")
    with pytest.raises(UndefinedSymbol, match="no data 'reads'"):
        elf.link(object, "reads", executable=False)


# ---- the instructions ----


def objdump() -> str:
    found = shutil.which("llvm-objdump-19")
    if found is None:
        pytest.skip("llvm-objdump-19 is not installed (Debian: apt-get install llvm-19)")
    return found


@ALL_TESTED
def test_an_independent_disassembler_knows_every_instruction(arch: str, tmp_path: object) -> None:
    tool = objdump()
    for name in REAL:
        path = f"{tmp_path}/kernel.o"
        with open(path, "wb") as file:
            file.write(llvm.compile_ir(compiled(name, arch).source, gpu_target(arch)))
        command = [tool, "-d", "--no-show-raw-insn", f"--mcpu={arch}", path]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "s_endpgm" in listing and "<unknown>" not in listing and ".long" not in listing
