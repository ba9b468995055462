"""Whether every instruction of a linear kernel has operands of the types that it takes.

LLVM refuses some of what is wrong, and dies of the rest, naming no op of ours. So kernels for
targets that are compiled in this process are looked through first.
"""

from __future__ import annotations

from compiler.dtype import DType, dtypes
from compiler.errors import InvalidKernel, UnsupportedType
from compiler.ir import COMPARE, Node, Op
from compiler.linear import LinearKernel
from compiler.target import Target

_KINDS: dict[Op, str] = {
    **dict.fromkeys((Op.ADD, Op.MUL, Op.MAX, Op.WHERE, Op.CAST, *COMPARE), "biuf"),
    **dict.fromkeys((Op.DIV, Op.SQRT, Op.EXP2, Op.LOG2, Op.SIN, Op.TRUNC), "f"),
    **dict.fromkeys((Op.IDIV, Op.MOD, Op.SHL, Op.SHR), "iu"),
    **dict.fromkeys((Op.AND, Op.OR, Op.XOR), "biu"),
    Op.BITCAST: "iuf",
}
"""The kinds of type (`DType.kind`) that arithmetic is for."""

_UPDATES = (Op.ADD, Op.MUL, Op.MAX)

BLOCK_LIMIT = 1024
"""Threads of a GPU's block (a work-group) at most, whoever made it."""


def check_types(kernel: LinearKernel) -> None:
    """Raises UnsupportedType or InvalidKernel, naming the op, for the first wrong instruction."""
    for node in kernel.body:
        if node.op in _KINDS and node.src[-1].dtype.kind not in _KINDS[node.op]:
            raise UnsupportedType(
                f"Kernel {kernel.name} contains {node.op.name} of {node.src[-1].dtype!r}, which "
                "there is no such operation for.",
                operation="build",
            )
        wrong = _mismatch(node)
        if wrong:
            raise InvalidKernel(
                f"Kernel {kernel.name} contains {node.op.name} with {wrong}.", operation="build"
            )


def check_block(kernel: LinearKernel, target: Target) -> None:
    """Raises InvalidKernel for what the threads of a GPU's block do not have."""
    threads = kernel.block[0] * kernel.block[1] * kernel.block[2]
    local = sum(n.arg[1] * n.dtype.itemsize for n in kernel.body if n.op is Op.LOCAL)
    for what, value, limit in (
        ("threads in a block", threads, BLOCK_LIMIT),
        ("bytes of local memory", local, target.local_bytes),
    ):
        if value > limit:
            raise InvalidKernel(
                f"Kernel {kernel.name} has {value} {what}; {target.arch} has at most {limit}.",
                operation="build",
            )
    _check_vectors(kernel, target)


def _check_vectors(kernel: LinearKernel, target: Target) -> None:
    vectors: set[Node] = set()  # a thread's part of a matrix: factors, sums, what sums begin with
    for node in kernel.body:
        if node.op is not Op.MATRIX:
            continue
        if node.arg not in target.matrix_units:
            raise InvalidKernel(
                f"Kernel {kernel.name} contains MATRIX by {node.arg.name}, which {target.arch} "
                "has no instruction for.",
                operation="build",
            )
        if kernel.block[0] % node.arg.lanes:
            raise InvalidKernel(
                f"Kernel {kernel.name} contains MATRIX, for which {kernel.block[0]} threads of a "
                f"block along x are no whole waves of {node.arg.lanes}.",
                operation="build",
            )
        vectors |= {*node.src, node.src[0].src[0]}
    for node in kernel.body:
        read = node.op is Op.GET and node.src[0] in vectors
        if node.dtype.lanes > 1 and node not in vectors and not read:
            raise InvalidKernel(
                f"Kernel {kernel.name} contains {node.op.name} of {node.dtype!r}; on a GPU "
                "instructions are those of one thread.",
                operation="build",
            )


def _mismatch(node: Node) -> str:
    """What does not fit together in an instruction; empty if all does."""
    types = [s.dtype for s in node.src]
    match node.op:
        case Op.CAST:
            return _unlike(node.dtype.lanes, types[0].lanes, "lanes")
        case Op.BITCAST:
            if node.dtype.kind not in _KINDS[node.op]:
                return f"a result of {node.dtype!r}"
            return _unlike(node.dtype.bits, types[0].bits, "bits")
        case Op.WHERE:
            return _expected(types[0], dtypes.bool) or _same(node.dtype, *types[1:])
        case Op.SHL | Op.SHR:
            if types[1].kind not in "iu":
                return f"an amount of {types[1]!r}"
            return _same(node.dtype, types[0])
        case op if op in COMPARE:
            return _expected(node.dtype, dtypes.bool) or _same(*types)
        case op if op in _KINDS:
            return _same(node.dtype, *types)
        case Op.LOAD | Op.STORE:
            gates = types[3:] if node.op is Op.STORE else types[2:]
            value = types[2] if node.op is Op.STORE else node.dtype
            wrong = _expected(types[1], dtypes.index) or _expected(value, types[0].scalar)
            return wrong or next(filter(None, (_expected(g, dtypes.bool) for g in gates)), "")
        case Op.ACC:
            return _same(node.dtype, *types)
        case Op.UPDATE:
            if node.arg not in _UPDATES:
                return f"{node.arg!r}, not one of {', '.join(op.name for op in _UPDATES)}"
            if types[0].scalar in dtypes.narrow_floats:
                return f"{types[0]!r}, which compiler.decompose makes a sum of float32"
            return _same(*types)
    return ""


def _unlike(one: int, other: int, what: str) -> str:
    return "" if one == other else f"{other} {what} in and {one} out"


def _same(*types: DType) -> str:
    first = types[0]
    return next((f"{first!r} beside {t!r}" for t in types if t is not first), "")


def _expected(found: DType, wanted: DType) -> str:
    return "" if found.scalar is wanted else f"{found!r} where {wanted!r} belongs"
