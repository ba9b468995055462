"""The pass before every renderer: operations that no target has become those that all have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from compiler.dtype import dtypes
from compiler.errors import InvalidKernel
from compiler.expressions import cast
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.render.casts import convert, guard_division

CONSTANTS = (Op.CONST, Op.PARAM, Op.VARIABLE, Op.RAMP)
"""Nodes that are their own operand text: a kernel's body may contain them or not."""

_DECOMPOSED = (Op.EXP2, Op.LOG2, Op.SIN)
_NARROW_ARITHMETIC = frozenset(
    {Op.ADD, Op.MUL, Op.DIV, Op.MAX, Op.CMPLT, Op.CMPNE, Op.CMPEQ, Op.SQRT, Op.TRUNC}
)


def legalise(kernel: LinearKernel, native_half: bool, native: tuple[Op, ...] = ()) -> LinearKernel:
    """The kernel without casts of narrow floats, unguarded divisions and arithmetic on bools.

    `native_half`: casts between float16 and float32 may stay; `native`: functions of float32 that
    may. Raises InvalidKernel for what
    `decompose` should have replaced.
    """
    pass_ = _Pass(kernel, native_half, native)
    return replace(kernel, body=tuple(pass_.run()))


class _Pass:
    def __init__(self, kernel: LinearKernel, native_half: bool, native: tuple[Op, ...]) -> None:
        self.kernel, self.native_half, self.native = kernel, native_half, native
        self.new: dict[Node, Node] = {}
        # What has been computed, per open loop: a value from a closed loop is out of reach.
        self.scopes: list[set[Node]] = [set()]
        # What memory decides: where it stands again, the memory may have changed.
        self.loaded: set[Node] = set()

    def run(self) -> Iterator[Node]:
        for node in self.kernel.body:
            rebuilt = node.with_src(tuple(self.new.get(s, s) for s in node.src))
            replacement = self.replacement(rebuilt)
            again = node in self.new and replacement in self.loaded
            self.new[node] = replacement
            if replacement.dtype is dtypes.void:
                yield replacement
                if replacement.op is Op.END:
                    self.scopes.pop()
                continue
            if again:
                self.forget(replacement, frozenset(rebuilt.src))
            yield from self.missing(replacement)
            if replacement.op is Op.LOOP:
                self.scopes.append(set())

    def forget(self, node: Node, known: frozenset[Node]) -> None:
        """Lets `node` and what is below it, down to `known`, be computed anew."""
        if node in known or node not in self.loaded:
            return
        for scope in self.scopes:
            scope.discard(node)
        for s in node.src:
            self.forget(s, known)

    def missing(self, node: Node) -> Iterator[Node]:
        """`node` and those below it that are not computed yet, sources first."""
        if any(node in scope for scope in self.scopes):
            return
        for s in node.src:
            if s.dtype is not dtypes.void:
                yield from self.missing(s)
        if node.op is Op.LOAD or not self.loaded.isdisjoint(node.src):
            self.loaded.add(node)
        self.scopes[-1].add(node)
        if node.op not in CONSTANTS:
            yield node

    def replacement(self, node: Node) -> Node:
        dtype = node.dtype.scalar
        if node.op in self.native and dtype is dtypes.float32:
            return node
        if node.op in _DECOMPOSED:
            raise self.not_decomposed(node)
        if node.op in _NARROW_ARITHMETIC and node.src[0].dtype.scalar in dtypes.narrow_floats:
            raise self.not_decomposed(node)
        match node.op:
            case Op.CAST:
                return convert(node.src[0], dtype, self.native_half)
            case Op.IDIV | Op.MOD:
                return guard_division(node)
            case Op.SHL | Op.SHR:
                value, amount = node.src
                return Node(node.op, node.dtype, (value, cast(amount, dtype)))
            case Op.ADD | Op.MAX if dtype is dtypes.bool:
                return Node(Op.OR, node.dtype, node.src)
            case Op.MUL if dtype is dtypes.bool:
                return Node(Op.AND, node.dtype, node.src)
            case _:
                return node

    def not_decomposed(self, node: Node) -> InvalidKernel:
        return InvalidKernel(
            f"Kernel {self.kernel.name} still has {node.op.name} on {node.dtype!r}, which "
            "compiler.decompose replaces before a kernel is linear.",
            operation="render",
        )
