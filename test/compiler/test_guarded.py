"""Every op with every type on every architecture: machine code, or an error of ours with its name.

LLVM runs in a worker process, so one that dies would be seen, and named, here. TINYHW_FULL=1 takes
every case on every architecture; otherwise each has its part of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from compiler.amdgpu import ARCHITECTURES, gpu_target
from compiler.build import render
from compiler.dtype import DType, dtypes
from compiler.errors import CompilerError, InvalidKernel, ToolFailed, UnsupportedType
from compiler.guarded import GuardedLLVM
from compiler.ir import ALU, COMPARE, Node, Op
from compiler.linear import LinearKernel
from test.compiler.linear_kernels import const, end, kernel, load, loop, param, store

FULL = bool(os.environ.get("TINYHW_FULL"))
UNARY = {Op.SQRT, Op.EXP2, Op.LOG2, Op.SIN, Op.TRUNC}
SIZE = 64
VOID = dtypes.void


def single(op: Op, source: DType, result: DType) -> LinearKernel:
    """out[i] = op(x[i], y[i]), whether or not that makes sense."""
    out, x, y = param(0, result, SIZE), param(1, source, SIZE), param(2, source, SIZE)
    thread = Node(Op.THREAD, dtypes.index, (const(SIZE),), 0)
    a, b = load(x, thread), load(y, thread)
    if op is Op.WHERE:
        operands: tuple[Node, ...] = (Node(Op.CMPLT, dtypes.bool, (a, b)), a, b)
    else:
        operands = (a,) if op in UNARY or op in (Op.CAST, Op.BITCAST) else (a, b)
    value = Node(op, result, operands)
    made = kernel([out, x, y], store(out, thread, value), name=f"{op.name}_{source.name}")
    return replace(made, block=(SIZE, 1, 1))


def summed(op: Op, dtype: DType) -> LinearKernel:
    """A register, local memory, a barrier and gates."""
    out, x = param(0, dtype, SIZE), param(1, dtype, SIZE)
    thread = Node(Op.THREAD, dtypes.index, (const(SIZE),), 0)
    local = Node(Op.LOCAL, dtype, (), (0, SIZE))
    few = Node(Op.CMPLT, dtypes.bool, (thread, const(7)))
    counter = loop(4)
    register = Node(Op.ACC, dtype, (Node.const(0, dtype),), 1)
    value = load(local, counter, gate=few)
    update = Node(Op.UPDATE, VOID, (register, value), op)
    total = Node(Op.GET, dtype, (register,), 2)
    made = kernel(
        [out, x],
        local,
        register,
        store(local, thread, load(x, thread, gate=few)),
        Node(Op.BARRIER, VOID),
        counter,
        update,
        end(counter),
        store(out, thread, total, gate=few),
        name=f"UPDATE_{op.name}_{dtype.name}",
    )
    return replace(made, block=(SIZE, 1, 1))


def cases() -> Iterator[tuple[Op, LinearKernel]]:
    for op in sorted(ALU):
        for dtype in dtypes.all:
            results = dtypes.all if op in (Op.CAST, Op.BITCAST) else (dtype,)
            for result in results:
                yield op, single(op, dtype, dtypes.bool if op in COMPARE else result)
    for op in (Op.ADD, Op.MUL, Op.MAX, Op.XOR):
        for dtype in dtypes.all:
            yield Op.UPDATE, summed(op, dtype)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_op_compiles_or_is_refused_by_name(arch: str) -> None:
    target, part = gpu_target(arch), list(ARCHITECTURES).index(arch)
    made, refused = 0, 0
    with GuardedLLVM() as guarded:
        for number, (op, linear) in enumerate(cases()):
            if not FULL and number % (2 * len(ARCHITECTURES)) != part:
                continue
            try:
                source = render(linear, target)
            except CompilerError as error:
                assert op.name in str(error) and linear.name in str(error)
                refused += 1
                continue
            assert guarded.compile_ir(source, target)[:4] == b"\x7fELF", linear.name
            made += 1
    assert made > refused / 2 > 0  # of narrow floats, all arithmetic is refused


REFUSED = {
    "SQRT of dtypes.int32": (Op.SQRT, dtypes.int32, dtypes.int32),
    "AND of dtypes.float32": (Op.AND, dtypes.float32, dtypes.float32),
    "SHL of dtypes.bool": (Op.SHL, dtypes.bool, dtypes.bool),
    "DIV of dtypes.uint8": (Op.DIV, dtypes.uint8, dtypes.uint8),
    "BITCAST of dtypes.bool": (Op.BITCAST, dtypes.bool, dtypes.uint8),
    "BITCAST with 32 bits in and 16 out": (Op.BITCAST, dtypes.float32, dtypes.int16),
    "BITCAST with a result of dtypes.bool": (Op.BITCAST, dtypes.int8, dtypes.bool),
    "ADD with dtypes.int64 beside dtypes.int32": (Op.ADD, dtypes.int32, dtypes.int64),
    "CMPLT with dtypes.int32 where dtypes.bool": (Op.CMPLT, dtypes.int32, dtypes.int32),
}


@pytest.mark.parametrize("message", REFUSED)
def test_the_message_says_what_does_not_fit(message: str) -> None:
    op, source, result = REFUSED[message]
    with pytest.raises((InvalidKernel, UnsupportedType), match=message):
        render(single(op, source, result), gpu_target("gfx1100"))


def test_wrong_operands_of_memory_and_registers_are_refused() -> None:
    data, other = param(0, dtypes.float32, 8), param(1, dtypes.int32, 8)
    target = gpu_target("gfx1100")
    with pytest.raises(InvalidKernel, match=r"STORE with dtypes.int32 where dtypes.float32"):
        render(kernel([data, other], store(data, const(0), load(other, const(0)))), target)
    with pytest.raises(InvalidKernel, match=r"LOAD with dtypes.int32 where dtypes.index"):
        where = load(data, load(other, const(0)))
        render(kernel([data, other], store(data, const(0), where)), target)
    register = Node(Op.ACC, dtypes.int32, (const(0, dtypes.int32),), 1)
    wrong = Node(Op.UPDATE, VOID, (register, load(data, const(0))), Op.ADD)
    with pytest.raises(InvalidKernel, match=r"UPDATE with dtypes.int32 beside dtypes.float32"):
        render(kernel([data], register, wrong), target)
    with pytest.raises(InvalidKernel, match=r"UPDATE with XOR, not one of ADD, MUL, MAX"):
        render(summed(Op.XOR, dtypes.int32), target)


# ---- the worker ----

DEADLY = """; what LLVM dies of where there are no matrix units
define amdgpu_kernel void @deadly(ptr addrspace(1) %out, <16 x half> %a) {
  %r = call <8 x float> @llvm.amdgcn.wmma.f32.16x16x16.f16.v8f32.v16f16(
      <16 x half> %a, <16 x half> %a, <8 x float> zeroinitializer)
  store <8 x float> %r, ptr addrspace(1) %out
  ret void
}
"""
EMPTY = "; nothing\ndefine amdgpu_kernel void @empty() {\n  ret void\n}\n"


def test_the_death_of_llvm_is_an_error_and_the_next_kernel_compiles() -> None:
    with GuardedLLVM() as guarded:
        for _ in range(2):
            with pytest.raises(ToolFailed, match=r"kernel deadly: LLVM ERROR: Cannot select"):
                guarded.compile_ir(DEADLY, gpu_target("gfx1030"))
            assert guarded.compile_ir(EMPTY, gpu_target("gfx1030"))[:4] == b"\x7fELF"
        assert guarded.compile_ir(DEADLY, gpu_target("gfx1100"))[:4] == b"\x7fELF"


def test_errors_of_ours_come_back_from_the_worker() -> None:
    with GuardedLLVM() as guarded:
        with pytest.raises(InvalidKernel, match="does not accept the IR"):
            guarded.compile_ir("; no\ndefine void @no() {\n", gpu_target("gfx1100"))
        worker = guarded._worker
        assert worker is not None and worker.poll() is None
    assert worker.poll() is not None


def test_a_compilation_without_end_is_given_up() -> None:
    with GuardedLLVM(timeout_s=0.0) as guarded:
        with pytest.raises(ToolFailed, match="LLVM took more than 0 s for kernel empty"):
            guarded.compile_ir(EMPTY, gpu_target("gfx1100"))
        guarded.timeout_s = 60.0
        assert guarded.compile_ir(EMPTY, gpu_target("gfx1100"))
